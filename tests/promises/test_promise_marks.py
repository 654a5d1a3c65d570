"""The marks of the promises' tests."""

import ast
import pathlib
import types

import pytest
from backend_limits import LIMITS
from promise_record import PROMISES, validate_promises

TESTS = pathlib.Path(__file__).parent.parent


def marked_promises():
    """From each test function to the promises it is marked with."""
    found = {}
    for file in TESTS.rglob("test_*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[f"{file.name}::{node.name}"] = {
                    argument.value
                    for mark in node.decorator_list
                    if ast.unparse(mark).startswith("pytest.mark.promise(")
                    for argument in mark.args
                }
    return found


def test_every_promise_has_a_test():
    marked = set().union(*marked_promises().values())
    assert marked == set(PROMISES)


def test_every_limit_names_a_test_a_backend_and_a_reason():
    known = set(marked_promises())
    known |= {name.split("::")[0] for name in known}
    for name, reasons in LIMITS.items():
        assert name.split("[")[0] in known, name
        assert reasons and set(reasons) <= {"tensorflow", "jax", "torch"}
        assert all(len(reason.split()) > 3 for reason in reasons.values())


def test_a_promise_that_nobody_gave_is_an_error():
    def item(*numbers):
        marks = [pytest.mark.promise(*numbers).mark]
        return types.SimpleNamespace(nodeid="test_it.py::test", iter_markers=lambda name: marks)

    validate_promises(item(1, 13))
    with pytest.raises(pytest.UsageError, match=r"promises \[99\] on test_it.py::test"):
        validate_promises(item(1, 99))
