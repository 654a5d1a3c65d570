"""What a model's output is, however it was made."""

import keras
import numpy as np
import pytest
from helpers import assert_three_parts, random_array
from keras import layers, ops

from keras_ktan.introspection.model_trace import ModelTrace
from keras_ktan.introspection.output_probe import probe_outputs, softmax_rows
from keras_ktan.introspection.outputs import OutputForm, output_keys, select, validated_key


def ending_in(*behind, classes=3):
    """A Functional model whose last layers or functions are given."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    hidden = layers.Dense(classes, kernel_initializer=keras.initializers.RandomNormal(0, 2.0))
    hidden = hidden(inputs)
    for part in behind:
        hidden = part(hidden)
    return keras.Model(inputs, hidden)


def nested(inner):
    """The model inside another, as its last layer."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, inner(layers.Dense(4)(inputs)))


class Subclassed(keras.Model):
    """Layers one after the other, and a function of tensors at the end."""

    def __init__(self, *parts, end=None):
        super().__init__()
        self.parts = list(parts)
        self.end = end

    def call(self, inputs):
        for part in self.parts:
            inputs = part(inputs)
        return inputs if self.end is None else self.end(inputs)


def subclassed(*parts, end=None):
    keras.utils.set_random_seed(4)
    model = Subclassed(*parts, end=end)
    model(np.zeros((1, 4), "float32"))
    return model


class SoftmaxInside(layers.Layer):
    """A layer of somebody else, whose softmax no attribute shows."""

    def call(self, inputs):
        return ops.softmax(inputs, axis=-1)


class MisleadingDense(layers.Dense):
    """Its `activation` is not the last thing that it does."""

    def call(self, inputs):
        return ops.softmax(super().call(inputs), axis=-1)


def average_of_two():
    inputs = keras.Input((4,))
    both = [layers.Dense(3, activation="softmax")(inputs) for _ in range(2)]
    return keras.Model(inputs, layers.Average()(both))


def softmax_dense():
    return ending_in(layers.Dense(3, activation="softmax"))


FORMS = {
    # A softmax, by all the ways that Keras and its users have.
    "Dense(softmax)": (softmax_dense, "softmax"),
    "Activation(softmax)": (lambda: ending_in(layers.Activation("softmax")), "softmax"),
    "Softmax": (lambda: ending_in(layers.Softmax()), "softmax"),
    "ops.softmax": (lambda: ending_in(lambda x: ops.softmax(x, axis=-1)), "softmax"),
    "Lambda": (lambda: ending_in(layers.Lambda(lambda x: ops.softmax(x))), "softmax"),
    "a function": (
        lambda: ending_in(layers.Activation(lambda x: ops.softmax(x, axis=-1))),
        "softmax",
    ),
    "a custom layer": (lambda: ending_in(SoftmaxInside()), "softmax"),
    "a layer that misleads": (lambda: ending_in(MisleadingDense(3)), "softmax"),
    "Dropout behind": (lambda: ending_in(layers.Softmax(), layers.Dropout(0.5)), "softmax"),
    "Reshape behind": (lambda: ending_in(layers.Softmax(), layers.Reshape((1, 3))), "softmax"),
    "ops.reshape behind": (
        lambda: ending_in(layers.Softmax(), lambda x: ops.reshape(x, (-1, 1, 3))),
        "softmax",
    ),
    "an average": (average_of_two, "softmax"),
    "exp of log_softmax": (lambda: ending_in(lambda x: ops.exp(ops.log_softmax(x))), "softmax"),
    "in float16": (lambda: ending_in(layers.Softmax(dtype="float16"), classes=300), "softmax"),
    "nested": (lambda: nested(softmax_dense()), "softmax"),
    "nested twice": (lambda: nested(nested(softmax_dense())), "softmax"),
    "Sequential": (
        lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")]),
        "softmax",
    ),
    "inside call": (lambda: subclassed(layers.Dense(3), end=ops.softmax), "softmax"),
    "a subclassed model's layer": (
        lambda: subclassed(layers.Dense(3), layers.Softmax()),
        "softmax",
    ),
    # A sigmoid, where a layer shows it.
    "Dense(sigmoid)": (lambda: ending_in(layers.Dense(3, activation="sigmoid")), "sigmoid"),
    "Activation(sigmoid)": (lambda: ending_in(layers.Activation("sigmoid")), "sigmoid"),
    "sigmoid and Reshape": (
        lambda: ending_in(layers.Activation("sigmoid"), layers.Reshape((3, 1))),
        "sigmoid",
    ),
    "one sigmoid": (lambda: ending_in(layers.Activation("sigmoid"), classes=1), "sigmoid"),
    # Values in [0, 1] alone prove nothing.
    "ops.sigmoid": (lambda: ending_in(ops.sigmoid), "unit"),
    "sigmoid inside call": (lambda: subclassed(layers.Dense(3), end=ops.sigmoid), "unit"),
    "a fraction": (lambda: ending_in(lambda x: ops.square(ops.sin(x))), "unit"),
    # Raw scores.
    "Dense": (lambda: ending_in(), "raw"),
    "a Dense behind a softmax": (
        lambda: ending_in(layers.Softmax(), layers.Dense(3)),
        "raw",
    ),
    "ReLU": (lambda: ending_in(layers.Dense(3, activation="relu")), "raw"),
    "zeros": (lambda: ending_in(layers.Dense(3, kernel_initializer="zeros")), "raw"),
    "log_softmax": (lambda: ending_in(layers.Activation("log_softmax")), "raw"),
    "ops on scores": (lambda: ending_in(lambda x: 3.0 * x), "raw"),
    "float32 behind": (lambda: ending_in(layers.Activation("linear", dtype="float32")), "raw"),
}


def form_of(model, key=None):
    trace = ModelTrace(model)
    values, error = probe_outputs(trace)
    assert error is None
    return OutputForm(trace, key, select(values, key))


@pytest.mark.parametrize("name", FORMS)
def test_the_form_of_an_output(name):
    make, expected = FORMS[name]
    assert form_of(make()).form == expected


def test_without_values_the_last_activation_alone_is_asked():
    def unprobed(model):
        return OutputForm(ModelTrace(model), None, None).form

    assert unprobed(softmax_dense()) == "softmax"
    assert unprobed(ending_in(layers.Activation("sigmoid"))) == "sigmoid"
    assert unprobed(ending_in()) == "raw"
    assert unprobed(ending_in(ops.softmax)) == "unknown"


def test_a_softmax_over_another_axis_is_no_softmax_of_classes():
    inputs = keras.Input((6, 4))
    found = form_of(keras.Model(inputs, layers.Softmax(axis=1)(inputs)))
    assert "Expected the classes on the last axis" in found.problem


def test_two_saturated_sigmoids_are_no_softmax():
    """Each row is (1, 0) or (0, 1): the sum alone would say softmax."""
    inputs = keras.Input((1,))
    both = layers.Concatenate()([inputs * 1e6, inputs * -1e6])
    assert form_of(keras.Model(inputs, layers.Activation("sigmoid")(both))).form == "sigmoid"


def test_the_probe_knows_tokens_open_sizes_and_moves_no_variable():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    image = keras.Input((None, None, 3), name="image")
    hidden = layers.GlobalAveragePooling1D()(layers.Embedding(3, 5)(tokens))
    pooled = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(image))
    outputs = {"a": layers.Dense(2)(hidden), "b": pooled}
    model = keras.Model({"tokens": tokens, "image": image}, outputs)
    before = [ops.convert_to_numpy(v.value).copy() for v in model.variables]
    values, error = probe_outputs(ModelTrace(model))
    assert error is None
    assert {name: value.shape for name, value in values.items()} == {"a": (2, 2), "b": (2, 3)}
    for one, other in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(one, ops.convert_to_numpy(other.value))
    assert len(np.unique(values["b"])) == 6  # two images that are not alike


def test_two_inputs_that_look_like_probabilities_by_chance_are_followed_by_eight():
    # The seed's numbers: 0.13, -0.13, 0.64, 0.10, -0.54, 0.36, 1.30, 0.95.
    x = keras.Input((1,))
    alone, with_others = x > 0.0, ops.logical_or(x <= 0.0, x > 1.0)
    both = layers.Concatenate()([ops.cast(alone, "float32"), ops.cast(with_others, "float32")])
    assert form_of(keras.Model(x, both)).form == "unit"  # the first two rows: (1, 0), (0, 1)
    assert form_of(keras.Model(x, x + 0.5)).form == "raw"  # the first two: 0.63, 0.37
    values, _ = probe_outputs(ModelTrace(keras.Model(x, layers.Softmax()(both * 3.0))))
    assert values.shape == (2, 2)  # 0.95 and 0.05: no class is on or off


def test_a_model_that_cannot_run_on_random_inputs_says_why():
    class Picky(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, inputs):
            if hasattr(inputs, "shape") and inputs.shape[0] == 2:
                raise RuntimeError("not two")
            return self.dense(inputs)

    model = Picky()
    model(np.zeros((1, 4), "float32"))
    values, error = probe_outputs(ModelTrace(model))
    assert values is None and "not two" in error


def test_rows_that_sum_to_one_nearly():
    values = np.exp(random_array(8, 5, seed=1).astype("float64"))
    values /= values.sum(axis=-1, keepdims=True)
    assert softmax_rows(values.astype("float32"))
    assert not softmax_rows(values.astype("float32") * 1.01)
    assert softmax_rows(values.astype("float16"))
    values[3] = [1.2, -0.2, 0, 0, 0]  # sums to 1 outside of [0, 1]
    assert not softmax_rows(values)
    assert not softmax_rows(np.ones((8, 1)))


def several(kind="dict"):
    inputs = keras.Input((4,))
    scores, boxes = layers.Dense(3)(inputs), layers.Dense(8, activation="sigmoid")(inputs)
    if kind == "list":
        return keras.Model(inputs, [boxes, scores])
    return keras.Model(inputs, {"boxes": boxes, "a_class": scores})


@pytest.mark.parametrize(
    ("kind", "key", "form"),
    [
        ("dict", "a_class", "raw"),
        ("dict", "boxes", "sigmoid"),
        ("list", 1, "raw"),
        ("list", 0, "sigmoid"),
        ("list", -1, "raw"),
    ],
)
def test_a_key_or_a_position_names_the_output(kind, key, form):
    model = several(kind)
    assert validated_key(ModelTrace(model).outputs, key, "model", "teacher_output") == key
    assert form_of(model, key).form == form


@pytest.mark.parametrize(
    ("kind", "key", "known"),
    [
        ("dict", "scores", "'a_class'"),
        ("dict", 0, "'a_class'"),
        ("list", 2, "[0, 1]"),
        ("list", "x", "[0, 1]"),
    ],
)
def test_a_wrong_key_names_the_right_ones(kind, key, known):
    with pytest.raises(ValueError) as error:
        validated_key(ModelTrace(several(kind)).outputs, key, "teacher 'T'", "teacher_output")
    assert_three_parts(
        error.value, f"teacher 'T' has no output {key!r}", "Expected one of", "Correct"
    )
    assert known in str(error.value)


def test_a_key_that_is_missing_or_too_much():
    with pytest.raises(ValueError) as error:
        validated_key(ModelTrace(several()).outputs, None, "student 'S'", "student_output")
    assert_three_parts(error.value, "student 'S' has the outputs", "Expected one", "Write")
    with pytest.raises(ValueError) as error:
        validated_key(ModelTrace(ending_in()).outputs, 0, "student 'S'", "student_output")
    assert_three_parts(error.value, "student_output=0", "Expected None", "Leave")
    assert output_keys(ModelTrace(ending_in()).outputs) == [None]
