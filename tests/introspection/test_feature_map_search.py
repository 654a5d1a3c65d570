"""Which map is a model's last one, and what a map comes out of."""

import keras
import numpy as np
import pytest
from helpers import assert_three_parts, random_array, to_numpy
from keras import layers, ops

from keras_ktan.introspection.feature_maps import activation_behind, last_feature_map
from keras_ktan.introspection.model_trace import ModelTrace


def found(model):
    return last_feature_map(ModelTrace(model), "student")


def backbone(name="backbone"):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, name="first"),
            layers.Conv2D(5, 3, name="second"),
            layers.ReLU(name="last"),
        ],
        name=name,
    )


def with_head(*behind):
    """The backbone's layers, flat, and some more."""
    inputs = keras.Input((8, 8, 1))
    hidden = layers.Conv2D(4, 3, name="first")(inputs)
    hidden = layers.Conv2D(5, 3, activation="relu", name="last")(hidden)
    for layer in behind:
        hidden = layer(hidden)
    return keras.Model(inputs, hidden, name="flat")


@pytest.mark.parametrize(
    "pooling", [layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D, layers.Flatten]
)
def test_a_functional_classifier(pooling):
    assert found(with_head(pooling(), layers.Dense(3), layers.Dense(2))) == "last"


def test_a_dropout_before_the_pooling_is_passed_over():
    # Its map would have holes in training; without training it hands on what it got.
    drop = layers.Dropout(0.2, name="drop")
    assert found(with_head(drop, layers.GlobalAveragePooling2D(), layers.Dense(2))) == "last"


def test_a_sequential_classifier():
    assert (
        found(
            keras.Sequential(
                [
                    keras.Input((8, 8, 1)),
                    layers.Conv2D(4, 3, name="conv"),
                    layers.MaxPooling2D(name="half"),
                    layers.Flatten(),
                    layers.Dense(2),
                ]
            )
        )
        == "half"
    )


def test_a_sequence_model():
    model = keras.Sequential(
        [
            keras.Input((12, 3)),
            layers.Conv1D(4, 3, name="conv"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2),
        ]
    )
    assert found(model) == "conv"


def test_a_nested_backbone():
    inputs = keras.Input((8, 8, 1))
    pooled = layers.GlobalAveragePooling2D()(backbone()(inputs))
    assert found(keras.Model(inputs, layers.Dense(2)(pooled))) == "backbone/last"


def test_a_nested_model_that_pools_itself():
    inner_input = keras.Input((8, 8, 1))
    inner = keras.Model(
        inner_input, layers.GlobalAveragePooling2D()(backbone()(inner_input)), name="encoder"
    )
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    assert found(model) == "encoder/backbone/last"


def test_a_subclassed_classifier():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.stages = [layers.Conv2D(3, 3, name=f"stage_{index}") for index in range(3)]
            self.pool = layers.GlobalAveragePooling2D()
            self.head = layers.Dense(2)

        def call(self, inputs):
            for stage in self.stages:
                inputs = stage(inputs)
            return self.head(self.pool(inputs))

    model = Own()
    model(np.zeros((1, 9, 9, 1), "float32"))
    assert found(model) == "stage_2"


def test_pooling_inside_a_squeeze_and_excitation_block_is_not_the_end():
    inputs = keras.Input((8, 8, 1))
    hidden = layers.Conv2D(4, 3, name="conv")(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(hidden)
    gate = layers.Conv2D(4, 1, activation="sigmoid", name="excite")(gate)
    hidden = layers.Multiply(name="scaled")([hidden, gate])
    outputs = layers.Dense(2)(layers.GlobalAveragePooling2D(name="pool")(hidden))
    assert found(keras.Model(inputs, outputs)) == "scaled"


def test_a_model_whose_only_pooling_is_inside_a_block_has_no_clear_end():
    inputs = keras.Input((8, 8, 1))
    hidden = layers.Conv2D(4, 3, name="conv")(inputs)
    gate = layers.Dense(4)(layers.GlobalAveragePooling2D(name="squeeze")(hidden))
    hidden = layers.Multiply(name="scaled")([hidden, layers.Reshape((1, 1, 4))(gate)])
    with pytest.raises(ValueError) as error:
        found(keras.Model(inputs, layers.Conv2D(2, 1, name="mask")(hidden)))
    assert "'scaled' (None, 6, 6, 4)" in str(error.value)
    assert "'mask' (None, 6, 6, 2)" in str(error.value)


def test_average_and_maximum_of_one_map_agree_on_it():
    inputs = keras.Input((8, 8, 1))
    hidden = layers.Conv2D(4, 3, name="conv")(inputs)
    pooled = [layers.GlobalAveragePooling2D()(hidden), layers.GlobalMaxPooling2D()(hidden)]
    model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(pooled)))
    assert found(model) == "conv"


@pytest.mark.parametrize("kind", ["no pooling", "shared layer"])
def test_without_a_clear_last_map_the_error_lists_the_candidates(kind):
    if kind == "no pooling":
        model = with_head(layers.Conv2D(2, 1, name="mask"))
        listed = ["'first' (None, 6, 6, 4)", "'last' (None, 4, 4, 5)", "'mask' (None, 4, 4, 2)"]
    else:
        inputs = keras.Input((8, 8, 1))
        shared = layers.Conv2D(1, 3, padding="same", name="shared")
        pooled = layers.GlobalAveragePooling2D()(shared(shared(inputs)))
        model = keras.Model(inputs, layers.Dense(2)(pooled), name="flat")
        listed = ["'shared' (None, 8, 8, 1)"]
    with pytest.raises(ValueError) as error:
        found(model)
    assert_three_parts(
        error.value,
        "No layer was named and the student 'flat'",
        "Expected a FeaturePair",
        "Name one",
    )
    for candidate in listed:
        assert candidate in str(error.value)


def test_a_model_without_any_map_says_so():
    with pytest.raises(ValueError, match="candidates are: none"):
        found(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))


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
