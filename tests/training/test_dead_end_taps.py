"""A student's map that does not lead to its outputs: T2S takes another objective there."""

import keras
import numpy as np
import pytest
from helpers import all_values, random_array, to_numpy
from models import CLASSES, image_data, image_model, loss_from_logits
from models import assert_same as assert_equal

from keras_ktan import FeaturePair, KTANDistiller, TeacherToStudent
from keras_ktan.introspection.feature_tap import FeatureTap
from keras_ktan.introspection.reach import leads_to_outputs
from keras_ktan.losses import feature_loss

L = keras.layers


class Unused(keras.Model):
    """Makes a map that nothing is made of, or that counts 0 times."""

    def __init__(self, channels, factor=None):
        super().__init__(name="student")
        self.stem = L.Conv2D(4, 3, padding="same", activation="relu", name="stem")
        self.side = L.Conv2D(channels, 3, padding="same", activation="relu", name="side")
        self.pool = L.GlobalAveragePooling2D(name="pool")
        self.head = L.Dense(CLASSES, name="logits")
        self.factor = factor

    def call(self, inputs):
        hidden = self.stem(inputs)
        side = self.side(hidden)
        logits = self.head(self.pool(hidden))
        if self.factor is not None:
            logits = logits + self.factor * keras.ops.mean(side)
        return logits


def unused(channels):
    model = Unused(channels)
    model(random_array(1, 8, 8, 1))
    return model, "side"


def times_0(channels):
    model = Unused(channels, 0.0)
    model(random_array(1, 8, 8, 1))
    return model, "side"


def other_output(channels):
    """A backbone with two outputs, of which the model uses one."""
    inputs = keras.Input((8, 8, 1))
    hidden = L.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    side = L.Conv2D(channels, 3, padding="same", activation="relu", name="side")(hidden)
    backbone = keras.Model(inputs, {"P3": hidden, "P4": side}, name="backbone")
    images = keras.Input((8, 8, 1), name="image")
    pooled = L.GlobalAveragePooling2D()(backbone(images)["P3"])
    return keras.Model(images, L.Dense(CLASSES, name="logits")(pooled)), "backbone/side"


KINDS = [unused, times_0, other_output]


def distiller_of(make, channels, objective):
    keras.utils.set_random_seed(0)
    student, path = make(channels)
    pair = FeaturePair("features", path, teacher_to_student=TeacherToStudent(objective))
    return KTANDistiller(image_model(6, "teacher", strides=1), student, pair), path


def compiled(distiller):
    distiller.compile(
        keras.optimizers.SGD(0.1),
        loss_from_logits(),
        student_loss_weight=0.0,
        logits_loss_weight=0.0,
        feature_loss="mse",
        adversarial_loss_weight=0.0,
        t2s_optimizer=keras.optimizers.SGD(0.1),
    )
    return distiller


@pytest.mark.parametrize("make", KINDS)
def test_auto_takes_another_objective_that_moves_t2s(make):
    distiller, path = distiller_of(make, 8, "auto")  # more channels than the teacher's 6
    assert not leads_to_outputs(distiller.student, path)
    lines = []
    distiller.summary(print_fn=lines.append)
    assert any("T2S objective task (linear head)" in str(line) for line in lines)
    before = all_values(*distiller.teacher_to_student_layers)
    compiled(distiller).train_on_batch(*image_data(8))
    after = all_values(*distiller.teacher_to_student_layers)
    assert all(np.abs(one - other).max() > 0 for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("make", KINDS)
def test_student_head_by_name_is_an_error(make):
    with pytest.raises(ValueError, match=r"'student_head'.*does not lead to the outputs.*'auto'"):
        distiller_of(make, 8, "student_head")


@pytest.mark.parametrize("make", KINDS)
def test_by_selection_such_a_map_is_matched(make):
    distiller, path = distiller_of(make, 3, "auto")
    (t2s,) = distiller.teacher_to_student_layers
    assert t2s.selects and len(t2s.channels) == 3
    images, labels = image_data(8)
    _, (teacher,) = FeatureTap(distiller.teacher, ["features"], "teacher")(images)
    _, (student,) = FeatureTap(distiller.student, [path], "student")(images)
    target = to_numpy(teacher)[..., t2s.channels]  # both come out of a ReLU
    expected = np.mean((target - to_numpy(student)) ** 2)
    head = all_values(distiller.student.get_layer("logits"))
    compiled(distiller)
    losses = [
        distiller.train_on_batch(images, labels, return_dict=True)["feature_loss"] for _ in range(4)
    ]
    np.testing.assert_allclose(losses[0], expected, rtol=1e-5)
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert_equal(head, all_values(distiller.student.get_layer("logits")))
    _, (after,) = FeatureTap(distiller.student, [path], "student")(images)
    assert to_numpy(feature_loss("mse", target, after)).mean() < expected
