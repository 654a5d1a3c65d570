"""What the package promises.

A test carries `@pytest.mark.promise(3)`, or several numbers. One that starts processes with
backends of their own carries `@pytest.mark.own_processes("jax")`, whatever the backend of the
session.
"""

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
    14: "An output of an unexpected kind or a term left out is an error or a warning",
}


def validate_promises(item):
    """End the session if a test is marked with a promise that is not in `PROMISES`."""
    numbers = {number for mark in item.iter_markers("promise") for number in mark.args}
    unknown = numbers - PROMISES.keys()
    if unknown:
        raise pytest.UsageError(
            f"Received the promises {sorted(unknown)} on {item.nodeid}. Expected numbers of "
            "`PROMISES` in tests/promise_record.py. Correct the mark."
        )
