"""Layers and operations that the models of the identity test do not have."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from slim_models import inputs_for, kill_channels, outputs_of, randomise

from keras_ktan.students import slim_student
from keras_ktan.utils.channel_record import channel_record_of


def image(build, shape=(6, 6, 3)):
    inputs = keras.Input(shape)
    x = L.Conv2D(16, 1, name="first")(inputs)
    return keras.Model(inputs, L.Dense(3, name="out")(L.Flatten()(build(x))))


def sequence(build, shape=(6, 5)):
    inputs = keras.Input(shape)
    x = L.Dense(16, name="first")(inputs)
    return keras.Model(inputs, L.Dense(3, name="out")(L.Flatten()(build(x))))


def gated(x):
    return x[..., :8] * ops.sigmoid(x[..., 8:])


def split_unevenly(x):
    a, b = ops.split(x, [4], axis=-1)
    return ops.concatenate([b, a * 2.0], axis=-1)


def masked(x):
    seen = ops.cast(ops.ones_like(ops.sum(x, axis=-1)) > 0, "float32")
    return x * seen[..., None]


def attended(x):
    query = L.Dense(8, name="query")(x)
    scores = ops.softmax(ops.matmul(query, ops.transpose(L.Dense(8)(x), (0, 2, 1))))
    return ops.matmul(scores, x)


def stacked(x):
    return ops.sum(ops.stack([x, L.Dense(16, name="other")(x)], axis=1), axis=1)


def joined_in_time(x):
    return L.Concatenate(axis=1)([x, L.Dense(16, name="other")(x)])


def unknown_operation(x):
    return L.Dense(16, name="after")(ops.cumsum(x, axis=-1))


def constant_multiplied(x):
    return ops.multiply(np.arange(96, dtype="float32").reshape(6, 16), x)


SEQUENCES = {
    "gated": gated,
    "split": split_unevenly,
    "masked": masked,
    "attended": attended,
    "stacked": stacked,
    "joined": joined_in_time,
    "unknown": unknown_operation,
    "constant": constant_multiplied,
    "permuted": lambda x: L.Permute((2, 1))(x),
    "conv1d": lambda x: L.Conv1D(16, 3, padding="causal", name="conv")(x),
    "separable": lambda x: L.SeparableConv1D(16, 3, name="conv")(x),
    "depthwise": lambda x: L.DepthwiseConv1D(3, name="conv")(x),
    "transposed": lambda x: L.Conv1DTranspose(16, 3, name="conv")(x),
    "distributed": lambda x: L.TimeDistributed(L.Dense(16), name="steps")(x),
    "attention": lambda x: L.Attention(use_scale=True)([x, x, L.Dense(16, name="values")(x)]),
    "additive": lambda x: L.AdditiveAttention()([x, x]),
    "states": lambda x: L.LSTM(16, name="decode")(
        x, initial_state=L.LSTM(16, return_state=True, name="encode")(x)[1:]
    ),
    "repeated": lambda x: L.RepeatVector(3)(L.GlobalMaxPooling1D()(x)),
    "einsum_dots": lambda x: L.EinsumDense("...x,xy->...y", 16, bias_axes="y", name="e")(x),
}

IMAGES = {
    "cropped": lambda x: L.Cropping2D(1)(L.ZeroPadding2D(2)(x)),
    "group_norm": lambda x: ops.relu(L.GroupNormalization(4, name="norm")(x)),
    "instance_norm": lambda x: L.GroupNormalization(-1, name="norm")(x),
    "batch_norm": lambda x: L.BatchNormalization(name="norm")(x),
    "conv3d": lambda x: L.Conv3D(16, (1, 3, 3), name="conv")(x[:, None]),
    "spatial": lambda x: x * L.Conv2D(1, 3, padding="same", activation="sigmoid")(x),
    "keepdims": lambda x: x + ops.mean(x, axis=(1, 2), keepdims=True),
    "augmented": lambda x: L.RandomFlip()(L.SpatialDropout2D(0.5)(L.GaussianNoise(0.1)(x))),
    "padded": lambda x: ops.pad(x, [[0, 0], [1, 1], [0, 0], [0, 0]]),
    "swapped": lambda x: ops.swapaxes(x, 1, 2),
}


def dead_halves(teacher):
    """Channels die in all layers that make some; returns those that live."""
    drawn = slim_student(teacher, 0.5, divisor=1, importance="random", seed=5)
    living = channel_record_of(drawn).channels
    assert kill_channels(teacher, living) > 0
    return living


@pytest.mark.parametrize("name", [*SEQUENCES, *IMAGES])
def test_dropping_dead_channels_changes_nothing(name):
    build = SEQUENCES.get(name) or IMAGES[name]
    teacher = randomise((sequence if name in SEQUENCES else image)(build))
    living = dead_halves(teacher)
    student = slim_student(teacher, 0.5, divisor=1)
    kept = channel_record_of(student).channels
    assert kept == living
    inputs = inputs_for(teacher)
    expected, found = outputs_of(teacher, inputs)[0], outputs_of(student, inputs)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    if name != "unknown":
        first = student.get_layer("first")
        assert first.kernel.shape[-1] == 8, "the first layer did not become narrower"


class Backbone(keras.Model):
    """A Functional model with a constructor and a config of its own."""

    def __init__(self, units, **kwargs):
        inputs = keras.Input((8,), name="features")
        super().__init__(inputs, L.Dense(units, "relu", name="hidden")(inputs), **kwargs)
        self.units = units

    def get_config(self):
        return {"units": self.units, "name": self.name}


def test_functional_subclasses_are_opened():
    inputs = keras.Input((8,))
    x = Backbone(32, name="backbone")(inputs)
    teacher = randomise(keras.Model(inputs, L.Dense(2)(x)))
    student = slim_student(teacher, 0.5)
    assert student.get_layer("backbone").get_layer("hidden").units == 16
    alone = Backbone(32, name="backbone")
    assert slim_student(alone, 0.5).output.shape == (None, 32)  # an output stays
    data = inputs_for(teacher)
    np.testing.assert_allclose(
        outputs_of(slim_student(teacher, 1.0), data), outputs_of(teacher, data), atol=1e-6
    )


def test_a_nested_model_that_is_called_twice_keeps_one_choice():
    shared = keras.Sequential([keras.Input((16,)), L.Dense(16, name="inner")], name="shared")
    inputs = keras.Input((8,))
    parts = [shared(L.Dense(16, name=name)(inputs)) for name in ("one", "two")]
    teacher = randomise(keras.Model(inputs, L.Dense(2)(L.Concatenate()(parts))))
    living = dead_halves(teacher)
    assert living["one"] == living["two"]
    student = slim_student(teacher, 0.5, divisor=1)
    data = inputs_for(teacher)
    np.testing.assert_allclose(outputs_of(student, data), outputs_of(teacher, data), atol=1e-5)
    assert student.get_layer("shared").get_layer("inner").units == 8
