"""The student computes what the teacher does, as long as it drops nothing that lives."""

import keras
import numpy as np
import pytest
from slim_models import (
    APPLICATIONS,
    SMALL,
    application,
    inputs_for,
    kill_channels,
    outputs_of,
    randomise,
    text_transformer,
    vision_transformer,
)

from keras_ktan.students import slim_student
from keras_ktan.utils.channel_record import channel_record_of


def assert_same_function(teacher, student, inputs):
    expected = outputs_of(teacher, inputs)
    found = outputs_of(student, inputs)
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        size = np.abs(one).max()
        assert size > 1e-3  # a teacher that says nothing proves nothing
        assert np.ptp(one, axis=0).max() > 1e-4 * size  # nor one that ignores its input
        np.testing.assert_allclose(other, one, atol=2e-5 * size, rtol=0)


def assert_identity(teacher, width=0.5, dead_channels=True):
    inputs = inputs_for(teacher)
    before = [keras.ops.convert_to_numpy(variable).copy() for variable in teacher.weights]
    assert_same_function(teacher, slim_student(teacher, width=1.0), inputs)
    for variable, values in zip(teacher.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), values)
    if not dead_channels:
        return
    # Which channels die is drawn; that the importance then finds them is a part of the test.
    drawn = slim_student(teacher, width, importance="random", seed=3)
    living = channel_record_of(drawn).channels
    assert kill_channels(teacher, living) > 0
    student = slim_student(teacher, width)
    assert channel_record_of(student).channels == living
    assert student.count_params() < 0.75 * teacher.count_params()
    assert_same_function(teacher, student, inputs)


@pytest.mark.parametrize("name", SMALL)
def test_small_models_are_reproduced(name):
    assert_identity(randomise(SMALL[name]()))


@pytest.mark.parametrize("build", [text_transformer, vision_transformer])
def test_transformers_are_reproduced_at_full_width(build):
    assert_identity(randomise(build()), dead_channels=False)


@pytest.mark.long
@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications_are_reproduced(name):
    # ConvNeXt normalises over the channels, so that dropping dead ones changes the statistics.
    assert_identity(randomise(application(name)), dead_channels=name != "ConvNeXtTiny")
