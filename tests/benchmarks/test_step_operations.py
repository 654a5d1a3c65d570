"""Counting the operations of a traced function."""

import keras
import pytest

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="it counts the operations of TensorFlow's graph"
)


@pytest.mark.graph
def test_operations_are_counted_also_inside_of_functions():
    import tensorflow as tf
    from step_operations import operations

    spec = tf.TensorSpec((2,), "float32")
    # By hand: the placeholder, the constant, the sum, the identity that is returned.
    assert operations(lambda x: x + 1.0, spec) == 4
    inner = tf.function(lambda x: x + 1.0)
    # Outside: the placeholder, the call, the identity; inside again a constant, a sum and an
    # identity, since the placeholder of a function is an argument.
    assert operations(lambda x: inner(x), spec) == 3 + 3


def test_a_table_says_what_a_step_is_a_share_of():
    from step_operations import table

    assert "| all terms | 3,000 | 1.25 |" in table({"all terms": (3000, 2400)})
