"""What the package promises, and a record of how each promise's tests ended.

A test carries `@pytest.mark.promise(3)`, or several numbers. One that starts processes with
backends of their own carries `@pytest.mark.own_processes("jax")` and counts for those, whatever
the backend of the session; every other test counts for the session's.
"""

import json
import pathlib

import pytest

PROMISES = {
    1: "One forward pass of each model a train step; batch normalisation moves once",
    2: "`evaluate` and `predict` change no variable and log only what they computed",
    3: "The teacher is never changed, never trainable, always in inference mode",
    4: "All distillation weights 0: `student.fit`",
    5: "Each network's step lowers its own loss, and no gradient goes astray",
    6: "The losses equal closed forms, in full precision also under mixed precision",
    7: "Sample and class weights, regularisers, partial batches and nested data count exactly",
    8: "A tap reaches any layer by its path; a wrong path is an error before the first step",
    9: "Saving, loading or being killed does not change the training",
    10: "Mixed precision, XLA, every way to run, several devices and machines",
    11: "Bad input is an error before the first step that says how to fix it",
    12: "A loss that is not a finite number stops the run with its name",
    13: "The exported student runs without this package",
}

_NUMBERS, _BACKENDS = "promises", "backends"


def note_promises(item, backend):
    """Write a test's promises and backends where its reports carry them along."""
    numbers = sorted({number for mark in item.iter_markers("promise") for number in mark.args})
    unknown = set(numbers) - PROMISES.keys()
    if unknown:
        raise pytest.UsageError(
            f"Received the promises {sorted(unknown)} on {item.nodeid}. Expected numbers of "
            "`PROMISES` in tests/promise_record.py. Correct the mark."
        )
    if numbers:
        own = item.get_closest_marker("own_processes")
        item.user_properties.append((_NUMBERS, numbers))
        item.user_properties.append((_BACKENDS, list(own.args) if own else [backend]))


class PromiseRecord:
    """Writes how the tests with a promise ended. A plug-in of pytest.

    Args:
        file: Path of the JSON file.
        backend: The name of the backend of this session.
    """

    def __init__(self, file, backend):
        self.file = pathlib.Path(file)
        self.backend = backend
        self.tests = {}

    def pytest_runtest_logreport(self, report):
        properties = dict(report.user_properties)
        if _NUMBERS not in properties:
            return
        file, _, rest = report.nodeid.partition("::")  # a case may have a / in its name
        name = f"{pathlib.PurePosixPath(file).name}::{rest}"
        test = self.tests.setdefault(
            name,
            {
                "promises": properties[_NUMBERS],
                "backends": properties[_BACKENDS],
                "outcome": "passed",
                "reason": "",
            },
        )
        # Set-up, call and tear-down report one after another: what went wrong once stays.
        if report.failed:
            test["outcome"] = "failed"
        elif report.skipped and test["outcome"] == "passed":
            test["outcome"] = "skipped"
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            test["reason"] = reason.removeprefix("Skipped: ")

    def pytest_sessionfinish(self):
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(
            json.dumps(
                {"backend": self.backend, "tests": dict(sorted(self.tests.items()))}, indent=1
            )
            + "\n"
        )
