"""The calls that a Functional model's graph shows are those of a symbolic run."""

import keras
import pytest
from keras import layers

from keras_ktan.introspection import model_trace
from keras_ktan.introspection.functional_calls import functional_calls
from keras_ktan.introspection.model_trace import ModelTrace, sublayers


def canonical(trace):
    """What a trace says, with tensors numbered as they appear."""
    numbers = {}

    def number(ids):
        return [numbers.setdefault(tensor, len(numbers)) for tensor in ids]

    def spec(structure):
        return keras.tree.map_structure(
            lambda tensor: (tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype)),
            structure,
        )

    # Not the ids of the inputs: on torch a model runs on copies of them.
    return (
        [
            (
                call.path,
                number(call.input_ids),
                spec(call.input_specs),
                number(call.output_ids),
                spec(call.output_specs),
                call.first_inside,
            )
            for call in trace.calls
        ],
        number(trace.output_ids),
        spec(trace.outputs),
    )


def read_and_run(model, monkeypatch):
    read = canonical(ModelTrace(model))
    monkeypatch.setattr(model_trace, "functional_calls", lambda *args: None)
    return read, canonical(ModelTrace(model))


def branches():
    x = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(4, 1, name="first")(x)
    # Written in this order, run in another one.
    right = layers.Conv2D(4, 3, padding="same", name="right")(y)
    right = layers.ReLU(name="right_relu")(right)
    left = layers.Conv2D(4, 1, name="left")(y)
    left = layers.BatchNormalization(name="left_norm")(left)
    left = layers.Conv2D(4, 1, name="left_again")(left)
    y = layers.Add(name="sum")([left, right])
    return keras.Model(x, {"b": layers.Flatten(name="flat")(y), "a": y})


def operations_between():
    x = keras.Input((6,))
    y = layers.Dense(4)(x) * 2.0
    return keras.Model(x, layers.Dense(2)(keras.ops.relu(y) + 1.0))


def several_inputs():
    first, second = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    y = layers.Concatenate()([layers.Dense(3)(second), layers.Dense(2)(first)])
    return keras.Model({"z": first, "a": second}, [y, layers.Dense(1)(y)])


def a_dropout_at_the_end():
    x = keras.Input((4,))
    return keras.Model(x, layers.Dropout(0.5)(layers.Dense(3)(x)))


@pytest.mark.parametrize(
    "make", [branches, operations_between, several_inputs, a_dropout_at_the_end]
)
def test_the_graph_says_what_a_run_says(make, monkeypatch):
    model = make()
    assert functional_calls(model, sublayers) is not None, "the graph is not read at all"
    read, run = read_and_run(model, monkeypatch)
    assert read == run


@pytest.mark.parametrize(
    "layer",
    [
        layers.Activation("linear"),
        layers.Activation("relu"),
        layers.ActivityRegularization(0.1),
        layers.AlphaDropout(0.5),
        layers.AveragePooling2D(1),
        layers.BatchNormalization(),
        layers.Cropping2D(0),
        layers.DepthwiseConv2D(1),
        layers.Dropout(0.0),
        layers.ELU(),
        layers.GaussianDropout(0.5),
        layers.GaussianNoise(0.5),
        layers.GroupNormalization(1),
        layers.Identity(),
        layers.Lambda(lambda x: x),
        layers.LayerNormalization(),
        layers.LeakyReLU(),
        layers.Normalization(mean=0.0, variance=1.0),
        layers.PReLU(),
        layers.Permute((1, 2, 3)),
        layers.RandomContrast(0.1),
        layers.RandomCrop(8, 8),
        layers.RandomFlip(),
        layers.RandomRotation(0.1),
        layers.RandomTranslation(0.1, 0.1),
        layers.Rescaling(1.0),
        layers.Reshape((8, 8, 3)),
        layers.Resizing(8, 8),
        layers.Softmax(),
        layers.SpatialDropout2D(0.5),
        layers.UpSampling2D(1),
        layers.ZeroPadding2D(0),
    ],
    ids=lambda layer: layer.name,
)
def test_layers_that_return_their_input_and_layers_that_do_not(layer, monkeypatch):
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(3, 1)(x)
    model = keras.Model(x, layers.Conv2D(2, 1)(layer(y)))
    read, run = read_and_run(model, monkeypatch)
    assert read == run


def test_the_first_layers_take_the_inputs():
    trace = ModelTrace(several_inputs())
    taken = [tensor for call in trace.calls[:2] for tensor in call.input_ids]
    assert sorted(taken) == sorted(trace.input_ids)


def shared_layer():
    x = keras.Input((4,))
    shared = layers.Dense(4)
    return keras.Model(x, layers.Dense(2)(shared(shared(x))))


def a_layer_of_another_model():
    shared = layers.Dense(4)
    shared(keras.Input((4,)))
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(2)(shared(x)))


def nested():
    x = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    return keras.Model(x, layers.Dense(2)(inner(x)))


def fixed_batch():
    x = keras.Input((4,), batch_size=2)
    return keras.Model(x, layers.Dense(2)(x))


class OwnCall(keras.Model):
    """Made like a Functional model, but it runs otherwise."""

    def call(self, inputs, training=None):
        return self.layers[1](inputs)


def own_call():
    x = keras.Input((4,))
    return OwnCall(x, layers.Dense(3)(layers.Dense(4, name="called")(x)))


class OwnLayer(layers.Layer):
    def call(self, x):
        return x


def own_layer():
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(2)(OwnLayer()(x)))


@pytest.mark.parametrize(
    "make",
    [shared_layer, a_layer_of_another_model, nested, fixed_batch, own_call, own_layer],
)
def test_what_the_graph_does_not_show_is_left_to_a_run(make):
    assert functional_calls(make(), sublayers) is None


def test_layers_are_as_they_were():
    model = branches()
    before = [dict(vars(layer)) for layer in model.layers]
    functional_calls(model, sublayers)
    assert [set(vars(layer)) for layer in model.layers] == [set(kept) for kept in before]
    assert all(
        vars(layer)[name] is value or name.startswith("_")
        for layer, kept in zip(model.layers, before, strict=True)
        for name, value in kept.items()
    )
