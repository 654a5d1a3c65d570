"""What a trace says about models of every kind, against what the models are known to hold."""

import collections

import keras
import numpy as np
import pytest
from helpers import all_values, assert_three_parts, random_array
from keras import layers

from keras_ktan.introspection.model_trace import (
    ModelTrace,
    ambiguous_paths,
    layers_by_path,
    sublayers,
    symbolic_input,
)


class Towers(keras.Model):
    """Layers in a list, in a dict, and in a layer of our own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.steps = [layers.Dense(6, name="step_0"), layers.Dense(5, name="step_1")]
        self.heads = {"left": layers.Dense(2, name="left"), "right": layers.Dense(3, name="right")}
        self.inner = Gate(name="gate")

    def call(self, inputs):
        for step in self.steps:
            inputs = step(inputs)
        inputs = self.inner(inputs)
        return {name: head(inputs) for name, head in self.heads.items()}


class Gate(layers.Layer):
    """A layer that keeps its own layers in nested containers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = {"pair": [layers.Dense(5, name="open"), layers.Dense(5, name="shut")]}

    def build(self, shape):
        for part in self.parts["pair"]:
            part.build(shape)

    def call(self, inputs):
        first, second = self.parts["pair"]
        return first(inputs) * second(inputs)


def towers():
    model = Towers(name="towers")
    model(np.zeros((2, 4), "float32"))
    return model


def nested():
    inner_input = keras.Input((4,))
    hidden = layers.Dense(3, name="hidden")(inner_input)
    inner = keras.Model(inner_input, layers.ReLU(name="out")(hidden), name="backbone")
    inputs = keras.Input((4,), name="x")
    return keras.Model(inputs, layers.Dense(2, name="head")(inner(inputs)), name="whole")


def shapes(trace):
    return [(call.path, tuple(call.output_specs.shape)) for call in trace.calls]


def test_sublayers_are_found_in_containers_and_once():
    gate = Gate()
    gate.again = gate.parts["pair"][0]
    assert [layer.name for layer in sublayers(gate)] == ["open", "shut"]
    assert [layer.name for layer in sublayers(towers())][:2] == ["step_0", "step_1"]


def test_paths_go_into_models_and_layers():
    assert set(layers_by_path(towers())) == {
        "step_0",
        "step_1",
        "left",
        "right",
        "gate",
        "gate/open",
        "gate/shut",
    }
    model = nested()
    paths = layers_by_path(model)
    assert {"backbone", "backbone/hidden", "backbone/out", "head"} <= set(paths)
    assert paths["backbone/hidden"] is model.get_layer("backbone").get_layer("hidden")


def test_a_layer_that_holds_its_owner_does_not_go_round_for_ever():
    class Child(layers.Layer):
        def call(self, inputs):
            return inputs

    class Parent(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.child = Child(name="child")
            object.__setattr__(self.child, "owner", self)

        def call(self, inputs):
            return self.child(inputs)

    model = keras.Sequential([keras.Input((3,)), Parent(name="parent")])
    assert set(layers_by_path(model)) == {"parent", "parent/child"}


def test_a_name_that_stands_twice_is_ambiguous():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two = layers.Dense(4, name="twin"), layers.Dense(4, name="twin")
            self.single = layers.Dense(4, name="single")

        def call(self, inputs):
            return self.single(self.two(self.one(inputs)))

    model = Twins()
    model(np.zeros((1, 4), "float32"))
    assert ambiguous_paths(model) == {"twin": 2}
    assert ambiguous_paths(nested()) == {}


def test_calls_of_a_nested_functional_model_in_order_with_shapes():
    trace = ModelTrace(nested())
    made = [entry for entry in shapes(trace) if entry[0] != "x" and "input" not in entry[0]]
    # A model's call ends after those of its layers.
    assert made == [
        ("backbone/hidden", (None, 3)),
        ("backbone/out", (None, 3)),
        ("backbone", (None, 3)),
        ("head", (None, 2)),
    ]


def test_calls_of_a_sequential_model():
    model = keras.Sequential(
        [
            keras.Input((8, 6, 1)),
            layers.Conv2D(4, 3, name="conv"),
            layers.Flatten(name="flat"),
            layers.Dense(2, name="logits"),
        ]
    )
    assert shapes(ModelTrace(model))[-3:] == [
        ("conv", (None, 6, 4, 4)),
        ("flat", (None, 96)),
        ("logits", (None, 2)),
    ]


def test_a_sequential_model_without_an_input_layer():
    model = keras.Sequential([layers.Dense(3, name="hidden"), layers.Dense(2, name="logits")])
    model(np.zeros((5, 4), "float32"))
    assert shapes(ModelTrace(model))[-2:] == [("hidden", (None, 3)), ("logits", (None, 2))]


def test_calls_of_a_subclassed_model():
    trace = ModelTrace(towers())
    assert shapes(trace) == [
        ("step_0", (None, 6)),
        ("step_1", (None, 5)),
        ("gate/open", (None, 5)),
        ("gate/shut", (None, 5)),
        ("gate", (None, 5)),
        ("left", (None, 2)),
        ("right", (None, 3)),
    ]
    assert trace.outputs["left"].shape == (None, 2) and trace.outputs["right"].shape == (None, 3)
    assert [tuple(spec.shape) for spec in trace.calls[1].input_specs] == [(None, 6)]


def test_a_shared_layer_has_a_call_for_each_use():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    model = keras.Model(inputs, shared(shared(inputs)))
    trace = ModelTrace(model)
    first, second = trace.calls_of("shared")
    assert first.output_ids == second.input_ids
    assert second.output_ids == trace.output_ids


def test_a_model_in_a_model_takes_what_went_into_the_outer_one():
    """On torch Keras copies the inputs of each Functional model in a symbolic run."""
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, layers.Dense(3, name="deep")(inner_input), name="inner")
    first, second = keras.Input((4,)), keras.Input((5,))
    both = layers.Concatenate(name="both")([inner(first), second])
    middle = keras.Model([first, second], both, name="middle")
    inputs = keras.Input((4,)), keras.Input((2,))
    wide = layers.Dense(5, name="wide")(inputs[1])
    model = keras.Model(inputs, layers.Dense(2, name="head")(middle([inputs[0], wide])))
    trace = ModelTrace(model)

    def ends(path):
        (call,) = trace.calls_of(path)
        return call.input_ids, call.output_ids

    assert ends("middle/inner/deep")[0] == ends("middle/inner")[0] == trace.input_ids[:1]
    assert ends("middle")[0] == [trace.input_ids[0], *ends("wide")[1]]
    assert ends("middle/both")[0] == ends("middle/inner/deep")[1] + ends("wide")[1]


def test_the_producer_of_a_tensor():
    trace = ModelTrace(nested())
    (head,) = trace.calls_of("head")
    assert trace.producer(trace.output_ids[0]) is head
    # The backbone returns the very tensor of its last layer: the innermost layer made it.
    assert trace.producer(head.input_ids[0]).path == "backbone/out"
    (hidden,) = trace.calls_of("backbone/hidden")
    maker = trace.producer(hidden.input_ids[0])
    assert maker is None or isinstance(maker.layer, layers.InputLayer)
    assert trace.producer(-1) is None


def test_the_producer_in_a_subclassed_model():
    trace = ModelTrace(towers())
    flat = keras.tree.flatten(trace.outputs)
    makers = [trace.producer(tensor_id).path for tensor_id in trace.output_ids]
    assert makers == [{2: "left", 3: "right"}[tensor.shape[-1]] for tensor in flat]


def test_a_layer_that_does_not_run_has_no_call():
    class Spare(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.spare = layers.Dense(2, name="used"), layers.ReLU(name="spare")

        def call(self, inputs):
            return self.used(inputs)

    model = Spare()
    model(np.zeros((1, 3), "float32"))
    trace = ModelTrace(model)
    assert trace.calls_of("spare") == [] and len(trace.calls_of("used")) == 1


def test_tracing_changes_no_variable_and_leaves_no_trace_on_the_layers():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(3, 3),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    model(random_array(4, 8, 8, 2), training=True)
    before = all_values(model)
    ModelTrace(model)
    for old, new in zip(before, all_values(model), strict=True):
        np.testing.assert_array_equal(old, new)
    assert all("call" not in vars(layer) for layer in model.layers)


def test_symbolic_input_keeps_structure_shape_and_type_and_opens_the_batch():
    inputs = {
        "tokens": keras.Input((7,), dtype="int32", name="tokens"),
        "image": keras.Input((4, None, 3), batch_size=2, name="image"),
    }
    pooled = layers.GlobalAveragePooling2D()(inputs["image"])
    words = layers.GlobalAveragePooling1D()(layers.Embedding(10, 3)(inputs["tokens"]))
    symbolic = symbolic_input(keras.Model(inputs, pooled + words))
    assert set(symbolic) == {"tokens", "image"}
    assert symbolic["tokens"].shape == (None, 7) and symbolic["tokens"].dtype == "int32"
    assert symbolic["image"].shape == (None, 4, None, 3) and symbolic["image"].dtype == "float32"


@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed"])
def test_symbolic_input_of_a_single_input_is_a_single_tensor(kind):
    if kind == "functional":
        inputs = keras.Input((4, 5))
        model = keras.Model(inputs, layers.Dense(2)(inputs))
    else:
        dense = layers.Dense(2)

        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense = dense

            def call(self, inputs):
                return self.dense(inputs)

        model = keras.Sequential([dense]) if kind == "sequential" else Own()
        model(np.zeros((3, 4, 5), "float32"))
    assert tuple(symbolic_input(model).shape) == (None, 4, 5)


def test_symbolic_input_of_a_subclassed_model_with_a_dict():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs["a"]) + inputs["b"]

    model = Own()
    model({"a": np.zeros((3, 4), "float32"), "b": np.zeros((3, 2), "float32")})
    symbolic = symbolic_input(model)
    assert symbolic["a"].shape == (None, 4) and symbolic["b"].shape == (None, 2)


def test_an_unbuilt_model_is_refused():
    with pytest.raises(ValueError) as error:
        ModelTrace(Towers(name="fresh"))
    assert_three_parts(
        error.value, "'fresh' is not built", "Expected a built model", "Call it once"
    )


class TwiceInAStep(keras.layers.Layer):
    """A cell that runs one layer twice in each step."""

    state_size = output_size = 3

    def __init__(self):
        super().__init__(name="cell")
        self.dense = keras.layers.Dense(3, name="dense")

    def call(self, inputs, states):
        made = self.dense(self.dense(inputs + states[0]))
        return made, [made]


@pytest.mark.parametrize("length", [None, 4])
def test_a_recurrent_layer_whatever_its_length(length):
    """On torch a cell runs at each step, and an open length is two lengths there."""
    inputs = keras.Input((length, 3))
    hidden = keras.layers.LSTM(5, return_sequences=True, name="lstm")(inputs)
    rnn = keras.layers.RNN(TwiceInAStep(), return_sequences=True, name="rnn")
    model = keras.Model(inputs, rnn(keras.layers.Dense(3, name="mix")(hidden)))
    trace = ModelTrace(model)
    assert trace.outputs.shape == (None, length, 3)
    counts = collections.Counter(call.path for call in trace.calls)
    assert counts["rnn/cell"] == counts["lstm"] == counts["rnn"] == 1
    assert counts["rnn/cell/dense"] == 2 and counts["lstm/lstm_cell"] <= 1
    paths = [call.path for call in trace.calls]
    call = trace.calls_of("rnn")[0]
    assert paths[call.first_inside : -1] == ["rnn/cell/dense", "rnn/cell/dense", "rnn/cell"]
