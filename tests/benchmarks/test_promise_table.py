"""The table of promises and backends: how it is made, and that the committed one is true."""

import ast
import importlib.util
import json
import pathlib

import pytest
from backend_limits import LIMITS
from promise_record import PROMISES

pytest_plugins = ["pytester"]

ROOT = pathlib.Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def promises():
    spec = importlib.util.spec_from_file_location("promises", ROOT / "benchmarks" / "promises.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def marked_promises():
    """From each test function to the promises it is marked with."""
    found = {}
    for file in (ROOT / "tests").glob("test_*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[f"{file.name}::{node.name}"] = {
                    argument.value
                    for mark in node.decorator_list
                    if ast.unparse(mark).startswith("pytest.mark.promise(")
                    for argument in mark.args
                }
    return found


def test_the_committed_table_is_what_its_record_says(promises):
    sessions = json.loads((RESULTS / "promises.json").read_text())
    assert set(sessions) <= {"tensorflow", "jax", "torch"}
    remedy = "`python benchmarks/promises.py --backends` writes it again from the record"
    page = (RESULTS / "promises.md").read_text()
    assert page == promises.format_table(sessions), remedy
    assert [f"| [{number}](#promise-{number}). " in page for number in range(1, 14)] == [True] * 13
    rows = [line for line in page.splitlines() if line.startswith("| [")]
    assert all("passed" in cell for row in rows for cell in row.split("|")[2:5])
    assert "failed" not in page


def test_every_test_in_the_committed_record_exists_and_holds_that_promise():
    marked = marked_promises()
    for tests in json.loads((RESULTS / "promises.json").read_text()).values():
        for name, test in tests.items():
            assert set(test["promises"]) <= marked[name.split("[")[0]], name


def test_every_limit_names_a_test_a_backend_and_a_reason():
    known = set(marked_promises())
    known |= {name.split("::")[0] for name in known}
    for name, reasons in LIMITS.items():
        assert name.split("[")[0] in known, name
        assert reasons and set(reasons) <= {"tensorflow", "jax", "torch"}
        assert all(len(reason.split()) > 3 for reason in reasons.values())


def test_a_page_by_hand(promises):
    def test(outcome, *backends, numbers=(3,)):
        return {"promises": list(numbers), "backends": backends, "outcome": outcome, "reason": ""}

    sessions = {
        "tensorflow": {
            "test_a.py::test_one[x]": test("passed", "tensorflow"),
            "test_a.py::test_one[y]": test("passed", "tensorflow"),
            "test_a.py::test_two": test("failed", "tensorflow", numbers=(3, 5)),
            "test_b.py::test_own": test("passed", "jax", numbers=(5,)),
        },
        "torch": {
            "test_a.py::test_one[x]": test("passed", "torch"),
            "test_a.py::test_one[y]": test("skipped", "torch"),
        },
    }
    lines = promises.format_table(sessions).split("\n")
    rows = {line.split("]")[0][3:]: line.split(" | ")[1:] for line in lines if "](#" in line}
    assert rows["3"] == ["2 passed, 1 failed", "no test yet", "1 passed, 1 skipped |"]
    assert rows["5"] == ["1 failed", "1 passed", "no test yet |"]
    assert rows["1"] == ["no test yet", "no test yet", "no test yet |"]
    below = lines[lines.index("### Promise 3") + 2 :][:3]
    assert below == [
        "- `test_a.py::test_one`: TensorFlow 2 passed; torch 1 passed, 1 skipped",
        "- `test_a.py::test_two`: TensorFlow 1 failed",
        "",
    ]
    assert lines[lines.index("### Promise 4") + 2] == "No test yet."


def test_records_of_sessions_add_up_and_the_last_counts(promises, tmp_path):
    def write(name, backend, **outcomes):
        tests = {
            f"test_a.py::{test}": {
                "promises": [2],
                "backends": [backend],
                "outcome": outcome,
                "reason": "",
            }
            for test, outcome in outcomes.items()
        }
        (tmp_path / name).write_text(json.dumps({"backend": backend, "tests": tests}))
        return str(tmp_path / name)

    def row(*files):
        promises.main(["--output", str(tmp_path / "table"), "--records", *files])
        (row,) = [
            line
            for line in (tmp_path / "table.md").read_text().split("\n")
            if line.startswith("| [2](")
        ]
        return row.split(" | ")[1:]

    first = write("first", "torch", test_one="failed", test_two="passed")
    again = write("again", "torch", test_one="passed")
    assert row(first) == ["not run yet", "not run yet", "1 passed, 1 failed |"]
    assert row(first, again) == ["not run yet", "not run yet", "2 passed |"]
    # What ran on another backend stays.
    assert row(write("other", "jax", test_one="skipped")) == [
        "not run yet",
        "1 skipped",
        "2 passed |",
    ]


TESTS = """
import pytest

@pytest.fixture
def broken():
    yield
    raise RuntimeError

@pytest.mark.promise(1, 4)
@pytest.mark.parametrize("value", [1, 2], ids=["a/b", "c"])
def test_value(value):
    assert value == 1

@pytest.mark.promise(2)
def test_left_out():
    pytest.skip("no weather")

@pytest.mark.promise(2)
@pytest.mark.own_processes("jax")
def test_clean_up(broken):
    pass

def test_without_a_promise():
    pass
"""

CONFTEST = """
import sys
sys.path.insert(0, {path!r})
from promise_record import PromiseRecord, note_promises

def pytest_configure(config):
    config.addinivalue_line("markers", "promise(*numbers): x")
    config.addinivalue_line("markers", "own_processes(*backends): x")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(PromiseRecord("made/record.json", "torch"))

def pytest_collection_modifyitems(items):
    for item in items:
        note_promises(item, "torch")
"""


@pytest.mark.parametrize("processes", [0, 1])
def test_a_record_of_a_session(pytester, processes):
    pytester.makeconftest(CONFTEST.format(path=str(ROOT / "tests")))
    pytester.makepyfile(test_it=TESTS)
    pytester.runpytest_subprocess("-n", str(processes))
    record = json.loads((pytester.path / "made" / "record.json").read_text())
    assert record["backend"] == "torch"
    assert {
        name: (test["promises"], test["backends"], test["outcome"], test["reason"])
        for name, test in record["tests"].items()
    } == {
        "test_it.py::test_value[a/b]": ([1, 4], ["torch"], "passed", ""),
        "test_it.py::test_value[c]": ([1, 4], ["torch"], "failed", ""),
        "test_it.py::test_left_out": ([2], ["torch"], "skipped", "no weather"),
        "test_it.py::test_clean_up": ([2], ["jax"], "failed", ""),
    }


def test_a_promise_that_nobody_gave_is_an_error(pytester):
    pytester.makeconftest(CONFTEST.format(path=str(ROOT / "tests")))
    pytester.makepyfile(test_it="import pytest\n@pytest.mark.promise(14)\ndef test(): pass")
    printed = pytester.runpytest_subprocess("-p", "no:xdist")
    assert printed.ret == pytest.ExitCode.USAGE_ERROR
    printed.stderr.fnmatch_lines(["*Received the promises ?14? on test_it.py::test*"])
    assert set(PROMISES) == set(range(1, 14))
