"""The activation that single layers, chains of them and nested models end in."""

import keras
import numpy as np
import pytest
from helpers import random_array, to_numpy
from keras import layers, ops

from keras_ktan.introspection.activations import activation_behind
from keras_ktan.introspection.model_trace import ModelTrace


def chain(*parts):
    """Rank-3 layers one behind the other; the last one is called `tap`."""
    return keras.Sequential([keras.Input((6, 4)), *parts, layers.GlobalAveragePooling1D()])


PROBE = np.array([-2.0, -0.5, 0.0, 3.0], "float32")


def acts_like(activation, expected):
    np.testing.assert_allclose(to_numpy(activation(ops.convert_to_tensor(PROBE))), expected)


RELU = [0, 0, 0, 3]


@pytest.mark.parametrize(
    "parts",
    [
        lambda: [layers.ReLU(name="tap")],
        lambda: [layers.Activation("relu", name="tap")],
        lambda: [layers.Dense(3, activation="relu", name="tap")],
        lambda: [layers.Conv1D(3, 3, activation="relu", name="tap")],
        lambda: [layers.ReLU(), layers.Dropout(0.5, name="tap")],
        lambda: [layers.ReLU(), layers.SpatialDropout1D(0.5), layers.Dropout(0.5, name="tap")],
        lambda: [layers.ReLU(), layers.MaxPooling1D(name="tap")],
        lambda: [layers.Conv1D(3, 3, activation="relu"), layers.AveragePooling1D(2, name="tap")],
        lambda: [layers.ReLU(), layers.Identity(name="tap")],
        lambda: [keras.Sequential([layers.Dense(3), layers.ReLU()], name="tap")],
        lambda: [
            keras.Sequential([layers.Dense(3), keras.Sequential([layers.ReLU()])], name="tap")
        ],
        lambda: [keras.Sequential([layers.ReLU()]), layers.Dropout(0.5, name="tap")],
    ],
)
def test_a_map_out_of_a_relu(parts):
    acts_like(activation_behind(ModelTrace(chain(*parts())), "tap"), RELU)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (lambda: layers.LeakyReLU(negative_slope=0.1, name="tap"), [-0.2, -0.05, 0, 3]),
        (lambda: layers.ReLU(max_value=1.5, name="tap"), [0, 0, 0, 1.5]),
        (lambda: layers.ReLU(negative_slope=0.5, threshold=1, name="tap"), [-1.5, -0.75, -0.5, 3]),
        (lambda: layers.ELU(alpha=2.0, name="tap"), [*(2 * np.expm1([-2.0, -0.5])), 0, 3]),
        (lambda: layers.Dense(3, activation="relu6", name="tap"), RELU),
        (lambda: layers.Dense(3, activation="tanh", name="tap"), np.tanh(PROBE)),
    ],
)
def test_activations_keep_their_settings(layer, expected):
    activation = activation_behind(ModelTrace(chain(layer())), "tap")
    np.testing.assert_allclose(
        to_numpy(activation(ops.convert_to_tensor(PROBE))), expected, rtol=1e-5
    )


class Composite(layers.Layer):
    """An activation in the middle and a linear layer at the end, as a transformer's block has."""

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.activation = activation
        self.inside, self.outside = layers.Dense(4, name="inside"), layers.Dense(4, name="outside")

    def build(self, shape):
        self.inside.build(shape)
        self.outside.build((*shape[:-1], 4))
        if isinstance(self.activation, layers.Layer):
            self.activation.build((*shape[:-1], 4))

    def call(self, inputs):
        return self.outside(self.activation(self.inside(inputs)))


@pytest.mark.parametrize(
    "parts",
    [
        lambda: [layers.Dense(3, name="tap")],
        lambda: [layers.ReLU(), layers.BatchNormalization(name="tap")],
        lambda: [layers.ReLU(), layers.Conv1D(3, 3, name="tap")],
        lambda: [layers.Dense(3), layers.Dropout(0.5, name="tap")],
        lambda: [keras.Sequential([layers.ReLU(), layers.Dense(3)], name="tap")],
        lambda: [layers.Dropout(0.5, name="tap")],  # on the model's input
    ],
)
def test_a_map_that_comes_out_of_no_activation(parts):
    assert activation_behind(ModelTrace(chain(*parts())), "tap") is None


def test_an_activation_inside_a_layer_is_not_what_its_output_comes_out_of():
    model = chain(Composite(keras.activations.relu, name="tap"))
    outputs = to_numpy(model.get_layer("tap")(random_array(5, 6, 4)))
    assert outputs.min() < 0
    assert activation_behind(ModelTrace(model), "tap") is None


def test_the_students_own_activation_weights_are_not_handed_out():
    # T2S would hold, and train, a weight of the student.
    model = chain(Composite(layers.PReLU(), name="tap"))
    activation = activation_behind(ModelTrace(model), "tap")
    held = getattr(activation, "variables", [])
    assert not {id(variable) for variable in held} & {id(v) for v in model.variables}


def test_the_activation_is_a_copy_not_the_students_layer():
    model = chain(layers.LeakyReLU(negative_slope=0.3, name="tap"))
    assert activation_behind(ModelTrace(model), "tap") is not model.get_layer("tap")
