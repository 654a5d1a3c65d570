"""What a map comes out of, beyond single layers."""

import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers, ops

from keras_ktan.introspection.activations import activation_behind, activation_name
from keras_ktan.introspection.model_trace import ModelTrace

PROBE = np.array([-2.0, -0.5, 0.0, 3.0, 9.0], "float32")
RELU = [0, 0, 0, 3, 9]
RELU_6 = [0, 0, 0, 3, 6]


def behind(*parts, size=(8, 8, 4)):
    """The activation of the layer `tap`, the last one of these."""
    inputs = hidden = keras.Input(size)
    for part in parts:
        hidden = part(hidden)
    return activation_behind(ModelTrace(keras.Model(inputs, hidden)), "tap")


def acts_like(activation, expected):
    made = to_numpy(activation(ops.convert_to_tensor(PROBE)))
    np.testing.assert_allclose(made, expected, rtol=1e-6)


def joined(join, *branches):
    return lambda tensor: join([branch(tensor) for branch in branches])


def conv(activation=None, **kwargs):
    return layers.Conv2D(4, 3, padding="same", activation=activation, **kwargs)


def then(*parts):
    def run(tensor):
        for part in parts:
            tensor = part(tensor)
        return tensor

    return run


@pytest.mark.parametrize(
    ("branches", "expected"),
    [
        (lambda: [conv("relu"), conv("relu")], RELU),
        (lambda: [conv("relu"), then(conv(), layers.ReLU())], RELU),
        (lambda: [conv("relu"), then(conv("relu"), layers.AveragePooling2D(1))], RELU),
        (lambda: [conv("relu6"), then(conv(), layers.ReLU(max_value=6.0))], RELU_6),
        (lambda: [conv("tanh"), conv("tanh"), conv("tanh")], np.tanh(PROBE)),
    ],
)
@pytest.mark.parametrize("join", [layers.Concatenate, layers.Maximum])
def test_a_concatenation_of_one_activation_comes_out_of_it(join, branches, expected):
    acts_like(behind(joined(join(name="tap"), *branches())), expected)


@pytest.mark.parametrize(
    "branches",
    [
        lambda: [conv("relu"), conv()],
        lambda: [conv(), conv("relu")],
        lambda: [conv("relu"), conv("relu6")],
        lambda: [conv("relu"), then(conv(), layers.LeakyReLU())],
        lambda: [conv(), conv()],
    ],
)
def test_a_concatenation_of_several_kinds_comes_out_of_none(branches):
    assert behind(joined(layers.Concatenate(name="tap"), *branches())) is None


@pytest.mark.parametrize("join", [layers.Add, layers.Multiply, layers.Subtract, layers.Average])
def test_a_sum_comes_out_of_none(join):
    assert behind(joined(join(name="tap"), conv("relu"), conv("relu"))) is None


def test_a_concatenation_of_concatenations():
    inner = joined(layers.Concatenate(), conv("relu"), conv("relu"))
    acts_like(behind(joined(layers.Concatenate(name="tap"), inner, conv("relu"))), RELU)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (lambda: layers.Activation("relu6", name="tap"), RELU_6),
        (lambda: layers.Activation(keras.activations.relu, name="tap"), RELU),
        (lambda: layers.Activation(layers.ReLU(max_value=6.0), name="tap"), RELU_6),
        (lambda: layers.Activation(lambda x: ops.maximum(x, 0.0), name="tap"), RELU),
        (lambda: layers.Activation("tanh", name="tap"), np.tanh(PROBE)),
        (lambda: conv(layers.LeakyReLU(negative_slope=0.5), name="tap"), [-1, -0.25, 0, 3, 9]),
        (lambda: layers.TimeDistributed(layers.Dense(3, activation="relu"), name="tap"), RELU),
    ],
)
def test_every_way_to_write_an_activation(layer, expected):
    acts_like(behind(layer()), expected)


@pytest.mark.parametrize(
    "passing",
    [
        lambda: layers.Activation("linear", name="tap"),
        lambda: layers.ZeroPadding2D(1, name="tap"),
        lambda: layers.Cropping2D(1, name="tap"),
        lambda: layers.UpSampling2D(2, name="tap"),
        lambda: layers.Reshape((64, 4), name="tap"),
    ],
)
def test_what_moves_values_is_looked_through(passing):
    acts_like(behind(conv("relu"), passing()), RELU)
    assert behind(conv(), passing()) is None


def test_volumes():
    parts = [layers.Conv3D(3, 1, activation="relu"), layers.MaxPooling3D(2, name="tap")]
    acts_like(behind(*parts, size=(4, 4, 4, 2)), RELU)


def test_an_activation_with_weights_is_not_handed_out():
    assert behind(conv(), layers.PReLU(name="tap")) is None
    assert behind(conv(layers.PReLU(), name="tap")) is None


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (None, "none"),
        (keras.activations.relu, "relu"),
        (layers.ReLU(), "relu"),
        (layers.ReLU(max_value=6.0), "ReLU(max_value=6)"),
        (layers.LeakyReLU(), "LeakyReLU"),
        (keras.activations.swish, "silu"),
    ],
)
def test_names_for_people(activation, name):
    assert activation_name(activation) == name
