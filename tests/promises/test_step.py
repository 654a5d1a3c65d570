"""Promises 1 to 3: one forward pass each, evaluation changes nothing, the teacher neither."""

import keras
import numpy as np
import pytest
from models import (
    assert_changed,
    assert_same,
    image_data,
    image_model,
    learned_pair,
    loss_from_logits,
    snapshot,
)

from keras_ktan import KTANDistiller


class Counting(keras.layers.Layer):
    """Counts its calls and the `training` flags it was called with."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flags = []

    def call(self, inputs, training=None):
        self.flags.append(training)
        return inputs


def counted_model(filters, name):
    inputs = keras.Input((8, 8, 1))
    counter = Counting(name="counter")
    hidden = counter(inputs)
    hidden = keras.layers.Conv2D(filters, 3, padding="same")(hidden)
    hidden = keras.layers.BatchNormalization(momentum=0.9, name="norm")(hidden)
    hidden = keras.layers.ReLU(name="features")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    model = keras.Model(inputs, keras.layers.Dense(5)(hidden), name=name)
    return model, counter


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    ("weights", "teacher_passes"),
    [
        ({}, 1),
        ({"adversarial_loss_weight": 0.0}, 1),
        ({"feature_loss_weight": 0.0, "adversarial_loss_weight": 0.0}, 1),
        (
            {
                "logits_loss_weight": 0.0,
                "feature_loss_weight": 0.0,
                "adversarial_loss_weight": 0.0,
            },
            0,
        ),
    ],
)
def test_one_forward_pass_of_each_model_in_a_step(weights, teacher_passes):
    teacher, teacher_counter = counted_model(12, "teacher")
    student, student_counter = counted_model(4, "student")
    distiller = KTANDistiller(teacher, student)
    distiller.compile(
        loss=loss_from_logits(), run_eagerly=True, **{"adversarial_loss_weight": 0.02, **weights}
    )
    images, labels = image_data(8)
    distiller.train_on_batch(images, labels)  # some backends build the logs by a first look
    teacher_counter.flags.clear()
    student_counter.flags.clear()
    for _ in range(3):
        distiller.train_on_batch(images, labels)
    assert teacher_counter.flags == [False] * (3 * teacher_passes)
    assert student_counter.flags == [True] * 3


@pytest.mark.promise(1)
def test_batch_normalisation_moves_once_in_a_step():
    teacher, _ = counted_model(12, "teacher")
    student, _ = counted_model(4, "student")
    images, labels = image_data(8)
    before = keras.Model(student.inputs, student.get_layer("norm").input)(images)
    batch_mean = np.mean(keras.ops.convert_to_numpy(before), axis=(0, 1, 2))
    distiller = KTANDistiller(teacher, student)
    distiller.compile(loss=loss_from_logits(), adversarial_loss_weight=0.02)
    distiller.train_on_batch(images, labels)
    # From 0 with momentum 0.9: one move gives 0.1 of the batch's mean, two would give 0.19.
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(student.get_layer("norm").moving_mean),
        0.1 * batch_mean,
        atol=1e-6,
    )


def make_distiller(**arguments):
    teacher = image_model(12, "teacher", seed=1)
    student = image_model(
        4, "student", dropout=0.2, regularizer=keras.regularizers.L2(1e-2), seed=2
    )
    distiller = KTANDistiller(teacher, student, learned_pair())
    distiller.compile(
        loss=loss_from_logits(),
        metrics=["accuracy"],
        **{"adversarial_loss_weight": 0.02, **arguments},
    )
    return distiller


@pytest.mark.promise(2)
def test_evaluate_and_predict_change_no_variable_and_log_only_what_they_computed():
    distiller = make_distiller()
    images, labels = image_data()
    distiller.fit(images, labels, batch_size=8, verbose=0)
    networks = (distiller, distiller.teacher, *distiller.discriminators)
    before = snapshot(*networks, distiller.optimizer)
    logs = distiller.evaluate(images, labels, batch_size=8, verbose=0, return_dict=True)
    predictions = distiller.predict(images, batch_size=8, verbose=0)
    assert_same(before, snapshot(*networks, distiller.optimizer))
    assert set(logs) == {"loss", "accuracy"}
    np.testing.assert_array_equal(
        predictions, distiller.student.predict(images, batch_size=8, verbose=0)
    )


@pytest.mark.promise(2)
def test_evaluate_gives_what_the_student_gives():
    distiller = make_distiller()
    images, labels = image_data()
    logs = distiller.evaluate(images, labels, batch_size=8, verbose=0, return_dict=True)
    student = distiller.student
    student.compile(loss=loss_from_logits(), metrics=["accuracy"])
    expected = student.evaluate(images, labels, batch_size=8, verbose=0, return_dict=True)
    assert logs.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-6)


@pytest.mark.promise(2)
def test_history_holds_every_term_in_training_and_none_in_validation():
    distiller = make_distiller()
    images, labels = image_data()
    history = distiller.fit(
        images, labels, batch_size=8, epochs=2, verbose=0, validation_data=(images, labels)
    ).history
    assert set(history) == {
        "loss",
        "accuracy",
        "student_loss",
        "logits_loss",
        "feature_loss",
        "adversarial_loss",
        "t2s_loss",
        "discriminator_loss",
        "discriminator_accuracy",
        "val_loss",
        "val_accuracy",
    }
    for name in ("student_loss", "logits_loss", "feature_loss", "adversarial_loss", "t2s_loss"):
        assert all(value > 0 for value in history[name]), name


@pytest.mark.promise(2)
def test_calling_the_distiller_is_calling_the_student():
    distiller = make_distiller()
    images, _ = image_data()
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(distiller(images)),
        keras.ops.convert_to_numpy(distiller.student(images)),
    )


@pytest.mark.promise(3)
@pytest.mark.parametrize("teacher_trainable", [True, False])
def test_the_teacher_is_bit_identical_and_its_flags_are_the_callers(teacher_trainable):
    teacher = image_model(37, "teacher", seed=1)
    teacher.trainable = teacher_trainable
    teacher.get_layer("stem").trainable = False
    flags = {layer.name: layer.trainable for layer in teacher.layers}
    distiller = KTANDistiller(teacher, image_model(4, "student", seed=2))
    distiller.compile(loss=loss_from_logits(), adversarial_loss_weight=0.02)
    images, labels = image_data()
    before = snapshot(teacher)
    student_before = snapshot(distiller.student)
    distiller.fit(images, labels, batch_size=8, epochs=2, verbose=0)
    assert_same(before, snapshot(teacher))
    assert_changed(student_before, snapshot(distiller.student))
    assert {layer.name: layer.trainable for layer in teacher.layers} == flags


@pytest.mark.promise(3)
def test_no_teacher_variable_is_trainable_or_has_a_slot_whatever_is_toggled():
    teacher = image_model(37, "teacher", seed=1)
    distiller = KTANDistiller(teacher, image_model(4, "student", seed=2))
    teachers = {id(variable) for variable in teacher.variables}
    for toggle in (True, False, True):
        distiller.trainable = toggle
        assert not teachers & {id(v) for v in distiller.trainable_variables}
        assert teacher.trainable and all(layer.trainable for layer in teacher.layers)
    teacher.trainable = True
    assert not teachers & {id(v) for v in distiller.trainable_variables}
    distiller.compile(optimizer="adam", loss=loss_from_logits(), adversarial_loss_weight=0.02)
    # 37 filters make shapes that no student, T2S or discriminator weight has.
    shapes = [tuple(variable.shape) for variable in distiller.optimizer.variables]
    assert (3, 3, 4, 4) in shapes
    for shape in ((3, 3, 1, 37), (3, 3, 37, 37), (37, 5)):
        assert shape not in shapes


@pytest.mark.promise(3)
def test_the_teacher_runs_in_inference_mode_during_training():
    # A dropout that lets nothing through in training: the softened logits would differ.
    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Dropout(0.999)(inputs)
    hidden = keras.layers.Conv2D(6, 3, name="features")(hidden)
    outputs = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(hidden))
    teacher = keras.Model(inputs, outputs)
    student = image_model(4, "student", batch_norm=False)
    images, labels = image_data(8)
    teacher_logits = teacher.predict(images, verbose=0).astype("float64")
    student_logits = student.predict(images, verbose=0).astype("float64")
    distiller = KTANDistiller(teacher, student, temperature=2.0)
    distiller.compile(loss=loss_from_logits(), adversarial_loss_weight=0.02)
    logs = distiller.train_on_batch(images, labels, return_dict=True)

    def log_softmax(values):
        return values - np.log(np.sum(np.exp(values), axis=-1, keepdims=True))

    p, q = log_softmax(teacher_logits / 2), log_softmax(student_logits / 2)
    expected = 4.0 * np.mean(np.sum(np.exp(p) * (p - q), axis=-1))
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)
