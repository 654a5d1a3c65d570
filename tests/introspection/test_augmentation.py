"""Which augmentation layers of a student can be shared with its teacher."""

import keras
import numpy as np
import pytest
from helpers import all_values

from keras_ktan.introspection.augmentation import find_augmentation

L = keras.layers


def head(*layers, nested=False, dtype=None, size=8):
    """A student with some layers in front."""
    inputs = keras.Input((size, size, 3), dtype=dtype, name="image")
    if nested:
        layers = [keras.Sequential(layers, name="augment")]
    hidden = inputs
    for layer in layers:
        hidden = layer(hidden)
    hidden = L.BatchNormalization()(L.Conv2D(4, 3, name="stem")(hidden))
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(hidden)), name="student")


def two(*layers):
    return [L.RandomFlip(seed=1, name="flip"), L.RandomRotation(0.2, seed=2, name="turn"), *layers]


def two_inputs():
    numbers, image = keras.Input((8, 8, 1), name="numbers"), keras.Input((8, 8, 1), name="image")
    flipped = L.RandomFlip(seed=1, name="flip")(image)
    return keras.Model([numbers, image], L.Conv2D(2, 3)(L.Concatenate()([numbers, flipped])))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="student")
        self.flip = L.RandomFlip(seed=1, name="flip")
        self.conv = L.Conv2D(2, 3)

    def call(self, inputs, training=False):
        return self.conv(self.flip(inputs, training=training))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 8, 8, 3), "float32"))
    return model


class OwnNoise(L.Layer):
    """Somebody's own augmentation, of which only `call` knows that it is random."""

    def __init__(self, name="noise", weights=False):
        super().__init__(name=name)
        self.generator = keras.random.SeedGenerator(5)
        self.with_weights = weights

    def build(self, shape):
        if self.with_weights:
            self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, inputs, training=None):
        if not training:
            return inputs
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.generator)


class Centred(L.Layer):
    """A layer of somebody's own that is not random."""

    def call(self, inputs):
        return inputs - keras.ops.mean(inputs, axis=(1, 2), keepdims=True)


def with_generator(function):
    generator = keras.random.SeedGenerator(6)
    return L.Lambda(lambda x: function(x, generator), name="noise")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: head(), {}),
        (lambda: head(L.Rescaling(0.1), L.GaussianNoise(0.1)), {}),
        (lambda: head(*two()), {0: "turn"}),
        (lambda: head(*two(), L.Rescaling(2.0)), {0: "turn"}),
        (lambda: head(*two(), nested=True), {0: "augment/turn"}),
        (lambda: head(*two(), dtype="uint8"), {0: "turn"}),
        (lambda: head(L.RandomColorJitter((0, 1), 0.5, seed=1, name="jitter")), {0: "jitter"}),
        (lambda: head(L.Pipeline(two(), name="pipe")), {0: "pipe/turn"}),
        (two_inputs, {1: "flip"}),
        (subclassed, {0: "flip"}),
        (lambda: head(OwnNoise()), {0: "noise"}),
        (lambda: head(*two(), OwnNoise()), {0: "noise"}),
        (lambda: head(OwnNoise(), nested=True), {0: "augment/noise"}),
        (
            lambda: head(
                with_generator(lambda x, seed: x * keras.random.uniform((), seed=seed))
            ),
            {0: "noise"},
        ),
        (lambda: head(Centred()), {}),
        (lambda: head(L.Conv2D(3, 3), OwnNoise()), {}),
        (lambda: head(OwnNoise(weights=True)), {}),
    ],
    ids=["none", "no augmentation", "two", "then rescaled", "nested", "bytes", "made of others",
         "pipeline", "one of two inputs", "subclassed", "own", "own behind Keras's", "own, nested",
         "a function", "own, not random", "own behind weights", "own with weights"],
)  # fmt: skip
def test_layers_at_the_head_are_found_and_nothing_changes(make, found):
    model = make()
    before = all_values(model)
    assert find_augmentation(model) == found
    for one, other in zip(before, all_values(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    assert find_augmentation(head(*two())) == {0: "turn"}


def beside():
    """The image goes into the model as it is, too."""
    image = keras.Input((8, 8, 1), name="image")
    both = L.Concatenate()([image, L.RandomFlip(seed=1, name="flip")(image)])
    return keras.Model(image, L.Conv2D(2, 3)(both), name="student")


@pytest.mark.parametrize(
    "make",
    [
        lambda: head(L.Rescaling(2.0), L.RandomFlip(seed=1, name="flip")),
        lambda: head(L.Dropout(0.5, seed=1), L.RandomFlip(seed=1, name="flip")),
        lambda: head(L.RandomRotation(0.2, seed=2), L.Rescaling(2.0), L.RandomFlip(name="flip")),
        lambda: head(L.Conv2D(3, 3), L.RandomFlip(seed=1, name="flip")),
        beside,
        lambda: head(L.Rescaling(2.0), OwnNoise("flip")),
        lambda: head(Centred(), OwnNoise("flip")),
    ],
    ids=["behind rescaling", "behind dropout", "one behind rescaling", "on a map", "beside",
         "own behind rescaling", "own behind own"],
)  # fmt: skip
def test_elsewhere_they_are_an_error(make):
    with pytest.raises(ValueError, match=r"'student' has.*'flip'.*Expected.*Augment in the data"):
        find_augmentation(make())
