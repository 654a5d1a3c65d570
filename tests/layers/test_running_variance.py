"""The variance of everything that was seen, whatever the sizes of the batches."""

import keras
import numpy as np
import pytest
from helpers import random_array, to_numpy

from keras_ktan.layers.running_variance import RunningVariance


@pytest.mark.parametrize("splits", [[], [1, 2, 29], [7, 8, 20], list(range(1, 30))])
def test_it_is_that_of_all_batches_together(splits):
    """With a mean 1e4 times the deviation, where a sum of squares would have no digit left."""
    values = random_array(30, 4, 3) * np.array([1, 5, 0.1], "float32")
    values += np.array([1e4, 0, -3], "float32")
    variance = RunningVariance(3)
    for batch in np.split(values, splits):
        variance.update_state(batch)
    exact = values.astype("float64").reshape(-1, 3)
    np.testing.assert_allclose(to_numpy(variance.result()), exact.var(axis=0), rtol=2e-3)
    np.testing.assert_allclose(to_numpy(variance.mean), exact.mean(axis=0), rtol=1e-5)
    assert to_numpy(variance.count) == 120


def test_a_batch_without_examples_changes_nothing():
    variance = RunningVariance(2)
    variance.update_state(random_array(6, 2))
    before = [to_numpy(v).copy() for v in variance.variables]
    variance.update_state(np.zeros((0, 2), "float32"))
    for one, other in zip(before, variance.variables, strict=True):
        np.testing.assert_array_equal(one, to_numpy(other))


def test_numbers_without_an_axis_have_one_variance():
    variance, values = RunningVariance(None), random_array(9)
    variance.update_state(values)
    np.testing.assert_allclose(to_numpy(variance.result()), values.var(), rtol=1e-5)
    assert variance.result().shape == ()


def test_nothing_of_it_is_trained_and_its_config_makes_it_again():
    variance = RunningVariance(2, name="v")
    variance.trainable = True
    assert variance.trainable_variables == [] and len(variance.non_trainable_variables) == 3
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(variance))
    assert again.dimensions == 2 and again.name == "v"
