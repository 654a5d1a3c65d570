"""Which promise holds on which backend: one table, each cell tests that ran.

Runs pytest on the tests with `@pytest.mark.promise`, once on each backend in a process of its
own, and writes what they gave to OUTPUT.json and OUTPUT.md:

    python benchmarks/promises.py                    # all three; JAX on a CPU takes minutes
    python benchmarks/promises.py --backends torch   # one again, the others as they are

Sessions that ran anyway need not run again: `pytest --promise-record FILE`, then `--records FILE`.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))

from backend_limits import ABSENT, LIMITS
from promise_record import PROMISES

ROOT = pathlib.Path(__file__).resolve().parent.parent
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "torch"}


def run_tests(backend, processes):
    """The outcomes of all tests with a promise, in a session with this backend.

    Tests that start processes with backends of their own run in TensorFlow's session alone: in
    the others they would be the same.

    Args:
        backend: The name of the backend.
        processes: How many processes pytest uses.

    Returns:
        Dict from names of tests to what `PromiseRecord` writes of each.
    """
    marks = "promise" if backend == "tensorflow" else "promise and not own_processes"
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "record.json"
        finished = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", marks, "-n", str(processes)]
            + ["--promise-record", str(file)],
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": backend},
        )
        if finished.returncode not in (0, 1):  # 1: tests failed, which the table shows
            raise SystemExit(f"pytest on {backend} ended with exit code {finished.returncode}.")
        return json.loads(file.read_text())["tests"]


def outcomes(sessions, backend):
    """What each test gave on a backend.

    Args:
        sessions: Dict from backends to the outcomes of their sessions.
        backend: The name of the backend.

    Returns:
        Dict from names of tests to dicts with `promises`, `outcome` and `reason`.
    """
    return {
        name: test
        for tests in sessions.values()
        for name, test in tests.items()
        if backend in test["backends"]
    }


def count(ended):
    """How many of some outcomes passed, and what became of the others."""
    return ", ".join(
        f"{ended.count(outcome)} {outcome}"
        for outcome in ("passed", "failed", "skipped")
        if outcome in ended
    )


def cell(tests, number):
    """What the tests of a promise gave on one backend."""
    if not tests:
        return "not run yet"
    ended = [test["outcome"] for test in tests.values() if number in test["promises"]]
    return count(ended) or "no test yet"


def function_name(test):
    """A test's name without its case."""
    return test.split("[")[0]


def format_limits():
    """The table of what cannot hold on a backend."""
    lines = ["| cannot hold on | test | reason |", "|---|---|---|"]
    for backend, title in BACKENDS.items():
        for test, reasons in LIMITS.items():
            if backend in reasons:
                lines.append(f"| {title} | `{test}` | {reasons[backend]} |")
        for what, reasons in ABSENT.items():
            if backend in reasons:
                lines.append(f"| {title} | {what} | {reasons[backend]} |")
    return "\n".join(lines)


def format_table(sessions):
    """The whole page: the table, the limits, and the tests behind each row.

    Args:
        sessions: Dict from backends to the outcomes of their sessions.

    Returns:
        Markdown text.
    """
    found = {backend: outcomes(sessions, backend) for backend in BACKENDS}
    lines = [
        "# Promise by backend",
        "",
        "A cell counts the cases of the tests that ran on this backend; they are named below.",
        "`python benchmarks/promises.py` runs them and writes this page.",
        "",
        f"| promise | {' | '.join(BACKENDS.values())} |",
        "|---|" + "---|" * len(BACKENDS),
    ]
    for number, title in PROMISES.items():
        cells = " | ".join(cell(tests, number) for tests in found.values())
        lines.append(f"| [{number}](#promise-{number}). {title} | {cells} |")
    lines += ["", "## What cannot hold on a backend", ""]
    lines += ["These tests are skipped there, in the whole suite, for this reason alone; a row"]
    lines += ["without a test says what the backend does not have at all.", ""]
    lines += [format_limits(), "", "## The tests"]
    for number in PROMISES:
        lines += ["", f"### Promise {number}", ""]
        ran = {}  # by function, then by backend
        for backend, tests in found.items():
            for name, test in tests.items():
                if number in test["promises"]:
                    ended = ran.setdefault(function_name(name), {}).setdefault(backend, [])
                    ended.append(test["outcome"])
        for name, by_backend in sorted(ran.items()):
            parts = [f"{BACKENDS[backend]} {count(ended)}" for backend, ended in by_backend.items()]
            lines.append(f"- `{name}`: {'; '.join(parts)}")
        if not ran:
            lines.append("No test yet.")
    return "\n".join(lines) + "\n"


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--backends",
        nargs="*",
        choices=list(BACKENDS),
        default=list(BACKENDS),
        help="which to run; none writes the page again from the JSON file",
    )
    parser.add_argument(
        "--records",
        nargs="*",
        type=pathlib.Path,
        metavar="FILE",
        help="what `pytest --promise-record FILE` wrote: takes these and runs nothing; "
        "of several of one backend the last counts",
    )
    parser.add_argument("--processes", type=int, default=2, help="processes of pytest")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=ROOT / "benchmarks" / "results" / "promises",
        help="where to write OUTPUT.json and OUTPUT.md",
    )
    arguments = parser.parse_args(argv)
    written = arguments.output.with_suffix(".json")
    sessions = json.loads(written.read_text()) if written.exists() else {}
    if arguments.records is None:
        for backend in arguments.backends:
            sessions[backend] = run_tests(backend, arguments.processes)
    else:
        records = [json.loads(file.read_text()) for file in arguments.records]
        sessions |= {record["backend"]: {} for record in records}
        for record in records:
            sessions[record["backend"]].update(record["tests"])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(json.dumps(sessions, indent=1) + "\n")
    arguments.output.with_suffix(".md").write_text(format_table(sessions))
    print(format_table(sessions).split("\n## ")[0])


if __name__ == "__main__":
    main()
