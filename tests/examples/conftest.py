"""What the tests of the examples share."""

import pathlib

import keras
import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(autouse=True)
def examples_on_path(monkeypatch):
    """As in `python examples/NAME.py`."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture
def eager():
    """A few steps of a small model: building TensorFlow's graphs would take longer."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
