"""The distiller's optimizer is the student's for those who look at it from outside."""

import keras
import numpy as np
import pytest
from helpers import all_values, to_numpy
from models import assert_same, image_data, image_model, learned_pair, loss_from_logits

from keras_ktan import KTANDistiller
from keras_ktan.training.optimizer import DistillationOptimizer


def make_distiller(optimizer, **arguments):
    # A T2S that learns: by default it selects, and has no optimizer.
    models = image_model(8, "teacher"), image_model(3, "student", seed=2)
    distiller = KTANDistiller(*models, learned_pair())
    distiller.compile(
        optimizer,
        loss_from_logits(),
        run_eagerly=True,
        **{"adversarial_loss_weight": 0.02, **arguments},
    )
    return distiller


@pytest.mark.parametrize(
    ("name", "value"),
    [("clipnorm", 0.01), ("clipvalue", 0.001), ("global_clipnorm", 0.02), ("weight_decay", 0.5)],
)
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_setting_is_shown_and_set_at_the_students_optimizer(name, value, policy):
    keras.config.set_dtype_policy(policy)
    given = keras.optimizers.SGD(0.1, **{name: value})
    distiller = make_distiller(given)
    assert getattr(distiller.optimizer, name) == value
    setattr(distiller.optimizer, name, 2 * value)
    assert getattr(given, name) == getattr(distiller.optimizer, name) == 2 * value
    for network in ("t2s", "discriminator"):
        assert getattr(getattr(distiller.optimizer, network), name, None) is None


def test_clipping_set_from_outside_bounds_the_students_step():
    distiller = make_distiller(keras.optimizers.SGD(1.0), feature_loss_weight=5.0)
    distiller.optimizer.global_clipnorm = 1e-3
    before = [to_numpy(v).copy() for v in distiller.student_variables]
    t2s = [to_numpy(v).copy() for v in distiller.t2s_variables]
    distiller.train_on_batch(*image_data(8))

    def moved(variables, old):
        return np.sqrt(
            sum(np.sum((to_numpy(v) - o) ** 2) for v, o in zip(variables, old, strict=True))
        )

    np.testing.assert_allclose(moved(distiller.student_variables, before), 1e-3, rtol=1e-2)
    assert moved(distiller.t2s_variables, t2s) > 2e-3


def test_what_only_the_students_kind_has_is_its_own():
    optimizer = DistillationOptimizer(keras.optimizers.SGD(0.1, momentum=0.9))
    assert optimizer.momentum == 0.9
    optimizer.momentum = 0.5
    assert optimizer.student.momentum == 0.5
    with pytest.raises(AttributeError, match="no attribute 'beta_1'"):
        _ = optimizer.beta_1


@pytest.mark.parametrize("arguments", [{}, {"swap_on_epoch": True}])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_swap_ema_weights_evaluates_the_students_averages(arguments, policy):
    keras.config.set_dtype_policy(policy)
    optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5)
    if policy == "mixed_float16":
        # Keras begins with a scale of 2**15, which overflows in the first step and skips it.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=16.0)
    distiller = make_distiller(optimizer)
    student, seen = distiller.student, {}

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.setdefault("steps", []).append(self.weights())

        def on_test_batch_end(self, batch, logs=None):
            seen["tested"] = self.weights()

        def weights(self):
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()  # the variables are empty between steps
            return [to_numpy(v).copy() for v in student.trainable_variables]

    start = [to_numpy(v).copy() for v in student.trainable_variables]
    x, y = image_data(16)
    distiller.fit(
        x,
        y,
        batch_size=8,
        validation_data=(x, y),
        callbacks=[keras.callbacks.SwapEMAWeights(**arguments), Look()],
        verbose=0,
    )
    # By hand: Keras's average begins at 0 with momentum 0 in the first step, as Keras has it.
    one, two = seen["steps"]
    for first, second, tested, begun in zip(one, two, seen["tested"], start, strict=True):
        assert not np.array_equal(begun, first) and not np.array_equal(first, second)
        np.testing.assert_allclose(tested, 0.5 * first + 0.5 * second, rtol=1e-3, atol=1e-6)
    # Keras's `fit` ends with the averages in the model.
    for variable, tested in zip(student.trainable_variables, seen["tested"], strict=True):
        np.testing.assert_allclose(to_numpy(variable), tested, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("change", ["unfreeze one", "unfreeze all", "freeze"])
@pytest.mark.parametrize("call", ["fit", "train_on_batch"])
def test_weights_unfrozen_or_frozen_after_compile_ask_for_another_compile(change, call):
    distiller = KTANDistiller(image_model(8, "teacher"), image_model(3, "student", seed=2))
    student = distiller.student
    frozen = {"unfreeze one": ["stem"], "unfreeze all": ["stem", "norm", "features"], "freeze": []}
    for name in frozen[change]:
        student.get_layer(name).trainable = False
    distiller.compile("sgd", loss_from_logits(), run_eagerly=True, adversarial_loss_weight=0.02)
    for name in frozen[change] or ["stem"]:
        student.get_layer(name).trainable = change != "freeze"
    before = all_values(distiller.student)
    with pytest.raises(ValueError, match="changed since `compile`.*Call `compile` again"):
        getattr(distiller, call)(*image_data(8))
    assert_same(before, all_values(distiller.student))
    distiller.compile("sgd", loss_from_logits(), run_eagerly=True, adversarial_loss_weight=0.02)
    getattr(distiller, call)(*image_data(8))
    moves = not np.array_equal(before[0], to_numpy(student.get_layer("stem").kernel))
    assert moves == (change != "freeze")
