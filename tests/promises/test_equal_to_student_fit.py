"""Promise 4: with all distillation weights 0 the distiller is `student.fit`, to the bit."""

import keras
import numpy as np
import pytest
from models import assert_changed, assert_same, image_data, image_model, loss_from_logits, snapshot

from keras_ktan import KTANDistiller

NO_DISTILLATION = {
    "logits_loss_weight": 0.0,
    "feature_loss_weight": 0.0,
    "adversarial_loss_weight": 0.0,
}


@keras.saving.register_keras_serializable(package="tests")
class ActivityPenalty(keras.layers.Layer):
    """Adds a loss from inside the forward pass."""

    def call(self, inputs):
        self.add_loss(0.03 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


def penalised_student():
    model = image_model(4, "student", dropout=0.3, regularizer=keras.regularizers.L2(1e-2), seed=2)
    inputs = keras.Input((8, 8, 1), name="image")
    hidden = ActivityPenalty()(model.get_layer("stem")(inputs))
    hidden = model.get_layer("norm")(hidden)
    hidden = model.get_layer("features")(model.get_layer("stem_out")(hidden))
    hidden = model.get_layer("pool")(model.get_layer("dropout")(hidden))
    return keras.Model(inputs, model.get_layer("logits")(hidden))


def plain_student():
    return image_model(4, "student", dropout=0.3, regularizer=keras.regularizers.L2(1e-2), seed=2)


def fit(model, compiled, **fit_arguments):
    images, labels = image_data(21)
    model.compile(loss=loss_from_logits(), metrics=["accuracy"], **compiled)
    keras.utils.set_random_seed(7)
    return model.fit(
        images,
        labels,
        batch_size=8,  # the last batch of 21 images holds 5
        epochs=3,
        verbose=0,
        validation_data=(images, labels),
        **fit_arguments,
    ).history


@pytest.mark.promise(4, 7)
@pytest.mark.parametrize(
    "fit_arguments",
    [
        {},
        pytest.param(
            {"sample_weight": np.linspace(0.0, 2.0, 21).astype("float32")}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"class_weight": {0: 0.5, 1: 2.0, 2: 1.0, 3: 0.0, 4: 3.0}}, marks=pytest.mark.slow
        ),
    ],
    ids=["plain", "sample_weight", "class_weight"],
)
@pytest.mark.parametrize("make_student", [plain_student, penalised_student])
def test_same_variables_as_student_fit(make_student, fit_arguments):
    alone = make_student()
    expected = fit(alone, {"optimizer": keras.optimizers.AdamW(1e-2)}, **fit_arguments)
    student = make_student()
    start = snapshot(student)
    distiller = KTANDistiller(image_model(12, "teacher", seed=1), student)
    history = fit(
        distiller,
        {"optimizer": keras.optimizers.AdamW(1e-2), **NO_DISTILLATION},
        **fit_arguments,
    )
    assert_changed(start, snapshot(student))
    assert_same(snapshot(alone, alone.optimizer), snapshot(student, distiller.optimizer))
    assert set(history) == {*expected, "student_loss"}
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-6)


@pytest.mark.promise(4)
def test_a_student_with_its_own_loss_trains_as_it_would_alone():
    alone, student = plain_student(), plain_student()
    for model in (alone, student):
        model.compile(keras.optimizers.SGD(0.0), loss=loss_from_logits(), metrics=["accuracy"])
    distiller = KTANDistiller(image_model(12, "teacher", seed=1), student)
    distiller.compile(
        optimizer=keras.optimizers.SGD(0.0), feature_loss_weight=0, adversarial_loss_weight=0
    )
    images, labels = image_data(21)
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0}

    def train(model):
        # Keras on torch and JAX draws random numbers more when it has logs to build, and torch
        # drops out by the same numbers. After a round at rate 0 all is built.
        model.fit(images, labels, **arguments)
        model.optimizer.learning_rate = 0.1
        keras.utils.set_random_seed(7)
        return model.fit(images, labels, epochs=2, **arguments).history

    start = snapshot(alone)
    expected, history = train(alone), train(distiller)
    assert_changed(start[:2], snapshot(alone)[:2])
    if keras.backend.backend() == "jax":
        # XLA fuses the two programs differently: equal to round-off, which grows over steps.
        for one, other in zip(snapshot(alone), snapshot(student), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    else:
        assert_same(snapshot(alone), snapshot(student))
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-4)
    np.testing.assert_allclose(history["accuracy"], expected["accuracy"], rtol=1e-6)
    own = student.evaluate(images, labels, verbose=0, return_dict=True)
    through = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    assert own.keys() == through.keys()
    np.testing.assert_allclose(list(own.values()), [through[name] for name in own], rtol=1e-3)
