"""A batch of another size traces a step anew on TensorFlow, and not the optimizers in it."""

import keras
import numpy as np
import pytest
from helpers import all_values, to_numpy
from models import image_data, image_model, learned_pair, loss_from_logits

from keras_ktan import KTANDistiller

pytestmark = pytest.mark.graph


class CountedSGD(keras.optimizers.SGD):
    """Counts how often its operations are made."""

    updates = 0

    def update_step(self, gradient, variable, learning_rate):
        self.updates += 1
        super().update_step(gradient, variable, learning_rate)


def make_distiller(optimizer, run_eagerly=False):
    models = image_model(8, "teacher"), image_model(3, "student", seed=2)
    distiller = KTANDistiller(*models, learned_pair())
    distiller.compile(
        optimizer,
        loss_from_logits(),
        adversarial_loss_weight=0.02,
        t2s_optimizer=CountedSGD(0.05),
        discriminator_optimizer=CountedSGD(0.05),
        run_eagerly=run_eagerly,
        jit_compile=False,
    )
    return distiller


def test_three_sizes_of_batches_make_the_optimizers_operations_once_and_train_as_eager_steps_do():
    found = []
    for run_eagerly in (False, True):
        distiller = make_distiller(CountedSGD(0.1, momentum=0.9), run_eagerly)
        for size in (8, 5, 6):
            distiller.train_on_batch(*image_data(size))
        found.append(all_values(distiller))
        for optimizer, network in (
            (distiller.optimizer.student, distiller.student_variables),
            (distiller.optimizer.t2s, distiller.t2s_variables),
            (distiller.optimizer.discriminator, distiller.discriminator_variables),
        ):
            assert optimizer.updates == (3 if run_eagerly else 1) * len(network)
    for compiled, eager in zip(*found, strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("way", ["another size", "forced"])
def test_a_setting_that_was_changed_is_taken_when_a_step_is_traced_anew(way):
    distiller = make_distiller(keras.optimizers.SGD(1.0))
    distiller.train_on_batch(*image_data(8))
    distiller.optimizer.clipvalue = 1e-6
    if way == "forced":
        distiller.make_train_function(force=True)
    before = [to_numpy(v).copy() for v in distiller.student_variables]
    distiller.train_on_batch(*image_data(8 if way == "forced" else 5))
    moves = [
        np.max(np.abs(to_numpy(v) - old))
        for v, old in zip(distiller.student_variables, before, strict=True)
    ]
    assert 0 < max(moves) < 1.1e-6


def test_sparse_gradients_of_an_embedding_move_as_in_an_eager_step():
    """Their shapes follow from the batch."""

    def tagger(width, seed):
        keras.utils.set_random_seed(seed)
        words = keras.Input((6,), dtype="int32")
        x = keras.layers.Embedding(11, width, name="words")(words)
        x = keras.layers.GlobalAveragePooling1D()(x)
        return keras.Model(words, keras.layers.Dense(5)(x))

    found, optimizers = [], []
    generator = np.random.default_rng(0)
    batches = [
        (generator.integers(0, 11, (size, 6)), generator.integers(0, 5, size)) for size in (8, 5, 7)
    ]
    for run_eagerly in (False, True):
        distiller = KTANDistiller(tagger(8, 1), tagger(3, 2))
        optimizers.append(CountedSGD(0.5, momentum=0.9))
        distiller.compile(
            optimizers[-1], loss_from_logits(), run_eagerly=run_eagerly, jit_compile=False
        )
        for batch in batches:
            distiller.train_on_batch(*batch)
        found.append(all_values(distiller.student))
    for compiled, eager in zip(*found, strict=True):
        np.testing.assert_allclose(compiled, eager, rtol=1e-5, atol=1e-6)
    # Once with shapes that are known and once with open ones.
    assert optimizers[0].updates == 2 * len(distiller.student_variables)


def test_weights_of_the_same_shapes_are_not_taken_for_each_other():
    import tensorflow as tf

    from keras_ktan.training.steps.weight_updates import WeightUpdates

    optimizer = keras.optimizers.SGD(1.0)
    first, second = keras.Variable(np.zeros(3)), keras.Variable(np.zeros(3))
    optimizer.build([first, second])
    updates = WeightUpdates()

    @tf.function
    def step():
        updates.apply(optimizer, [tf.ones(3)], [first])
        updates.apply(optimizer, [2.0 * tf.ones(3)], [second])

    step()
    np.testing.assert_array_equal(to_numpy(first), [-1.0] * 3)
    np.testing.assert_array_equal(to_numpy(second), [-2.0] * 3)


def test_an_eager_step_stays_eager():
    import tensorflow as tf

    from keras_ktan.training.steps.weight_updates import WeightUpdates

    class Watching(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            seen.append(tf.executing_eagerly())
            super().update_step(gradient, variable, learning_rate)

    seen, variable = [], keras.Variable(np.zeros(3))
    optimizer = Watching(1.0)
    optimizer.build([variable])
    WeightUpdates().apply(optimizer, [tf.ones(3)], [variable])
    assert seen == [True]
