"""Parameters, multiplications and bytes, each counted by hand."""

import keras
import numpy as np
import pytest
from helpers import assert_three_parts
from keras import layers

from keras_ktan import compression_report


def size_of(*parts, shape):
    return compression_report(
        model := keras.Sequential([keras.Input(shape), *parts]), model
    ).student


@pytest.mark.parametrize(
    ("shape", "layer", "parameters", "macs"),
    [
        # Every output value of a convolution costs window x input channels of its group.
        ((8, 8, 3), lambda: layers.Conv2D(5, 3), 3 * 3 * 3 * 5 + 5, 6 * 6 * 5 * 27),
        ((8, 8, 3), lambda: layers.Conv2D(5, 3, padding="same"), 140, 8 * 8 * 5 * 27),
        ((9, 7, 3), lambda: layers.Conv2D(5, 3, strides=2, padding="same"), 140, 5 * 4 * 5 * 27),
        ((9, 7, 4), lambda: layers.Conv2D(6, (1, 3), groups=2), 6 * 6 + 6, 9 * 5 * 6 * 6),
        ((8, 8, 3), lambda: layers.Conv2D(5, 3, dilation_rate=2, use_bias=False), 135, 4 * 4 * 135),
        ((10, 4), lambda: layers.Conv1D(3, 5, strides=2), 63, 3 * 3 * 20),
        ((5, 5, 5, 2), lambda: layers.Conv3D(4, 2), 2 * 8 * 4 + 4, 4**3 * 4 * 16),
        ((8, 8, 3), lambda: layers.DepthwiseConv2D(3), 30, 6 * 6 * 3 * 9),
        (
            (8, 8, 3),
            lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, strides=2),
            9 * 6 + 6,
            3 * 3 * 6 * 9,
        ),
        ((8, 3), lambda: layers.DepthwiseConv1D(3), 12, 6 * 3 * 3),
        # Depthwise 3x3 to 3 channels, then 1x1 from 3 to 5.
        ((8, 8, 3), lambda: layers.SeparableConv2D(5, 3), 27 + 15 + 5, 6 * 6 * (27 + 15)),
        (
            (8, 8, 3),
            lambda: layers.SeparableConv2D(5, 3, strides=2, depth_multiplier=2),
            54 + 30 + 5,
            3 * 3 * (54 + 30),
        ),
        ((8, 3), lambda: layers.SeparableConv1D(5, 3), 9 + 15 + 5, 6 * (9 + 15)),
        # Every input value of a transposed one is spread over window x output channels.
        ((4, 4, 3), lambda: layers.Conv2DTranspose(5, 2, strides=2), 65, 4 * 4 * 3 * 4 * 5),
        ((4, 3), lambda: layers.Conv1DTranspose(5, 2, strides=2), 35, 4 * 3 * 2 * 5),
        ((7,), lambda: layers.Dense(4), 32, 28),
        ((6, 7), lambda: layers.Dense(4), 32, 6 * 28),
        ((2, 6, 7), lambda: layers.Dense(4, use_bias=False), 28, 12 * 28),
        ((6, 7), lambda: layers.EinsumDense("abc,cd->abd", (None, 4)), 28, 6 * 28),
        ((6, 7), lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 4)), 56, 6 * 56),
        ((6, 7), lambda: layers.EinsumDense("abc,bcd->abd", (6, 4)), 6 * 28, 6 * 28),
        ((6, 2, 4), lambda: layers.EinsumDense("abcd,cde->abe", (None, 5)), 40, 6 * 40),
        ((6, 7), lambda: layers.EinsumDense("...x,xy->...y", (4,)), 28, 6 * 28),
        ((7,), lambda: layers.EinsumDense("ab,bc->ac", 4), 28, 28),
        ((6, 7), lambda: layers.BatchNormalization(), 28, 0),
        ((6,), lambda: layers.Embedding(10, 3), 30, 0),
        ((6, 7), lambda: layers.Dropout(0.5), 0, 0),
    ],
)
def test_one_layer_by_hand(shape, layer, parameters, macs):
    size = size_of(layer(), shape=shape)
    assert (size.parameters, size.macs) == (parameters, macs)
    assert size.uncounted_layers == ()
    assert size.weight_bytes == 4 * parameters


def test_a_layer_that_is_called_twice_counts_twice_in_macs_and_once_in_weights():
    inputs = keras.Input((7,))
    shared = layers.Dense(7)
    model = keras.Model(inputs, shared(shared(inputs)))
    size = compression_report(model, model).student
    assert (size.macs, size.parameters) == (2 * 49, 56)


def functional_backbone():
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, layers.Conv2D(4, 3)(inputs), name="backbone")


def test_a_nested_model_counts_once():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            functional_backbone(),
            keras.Sequential([layers.Conv2D(2, 3)]),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    size = compression_report(model, model).student
    assert size.macs == 6 * 6 * 4 * 9 + 4 * 4 * 2 * 36 + 32 * 3
    assert size.parameters == 40 + 74 + 99
    assert size.uncounted_layers == ()


def test_a_subclassed_model_counts_as_a_functional_one():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = {"body": [functional_backbone()], "head": layers.Dense(3)}

        def call(self, inputs):
            return self.parts["head"](self.parts["body"][0](inputs))

    model = Own()
    model(np.zeros((2, 8, 8, 1), "float32"))
    size = compression_report(model, model).student
    assert (size.macs, size.parameters) == (6 * 6 * 4 * 9 + 6 * 6 * 12, 40 + 15)


class Scale(layers.Layer):
    """A layer of the user's own, with a weight."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.factor


class Wrapper(layers.Layer):
    """A layer of the user's own whose weights all belong to a layer inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = layers.Dense(4, name="inside")

    def build(self, shape):
        self.inside.build(shape)

    def call(self, inputs):
        return self.inside(inputs)


class TwoOutputs(layers.Layer):
    """A layer with weights that returns several tensors."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.factor, inputs


def test_a_layer_of_another_kind_that_holds_weights_is_named():
    size = size_of(layers.Dense(4), Scale(name="scale"), Wrapper(name="wrapper"), shape=(3,))
    assert size.uncounted_layers == ("scale",)
    assert size.macs == 12 + 16


def test_a_named_layer_may_return_several_tensors():
    inputs = keras.Input((3,))
    first, _ = TwoOutputs(name="both")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(first))
    size = compression_report(model, model).student
    assert size.uncounted_layers == ("both",) and size.macs == 6


class Borrowing(layers.Layer):
    """A layer of the user's own that uses the weights of one inside without calling it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = layers.Dense(4, name="inside")

    def build(self, shape):
        self.inside.build(shape)

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.inside.kernel)


def test_weights_that_work_without_their_layer_being_called_are_named():
    size = size_of(Borrowing(name="borrowing"), layers.Dense(2), shape=(3,))
    assert size.macs == 8
    assert len(size.uncounted_layers) == 1 and size.uncounted_layers[0].startswith("borrowing")


@pytest.mark.parametrize("shape", [(None, 8, 3), (None, None, 3)])
def test_an_open_input_size_has_no_number_of_macs(shape):
    teacher = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(5, 3)])
    student = keras.Sequential([keras.Input(shape), layers.Conv2D(5, 3)])
    report = compression_report(teacher, student)
    assert report.teacher.macs == 6 * 6 * 135
    assert report.student.macs is None
    assert report.student.parameters == 140
    macs_line = next(line for line in str(report).splitlines() if line.startswith("MACs"))
    assert macs_line.split() == ["MACs", "4,860", "open", "size", "-"]


def test_an_open_size_after_a_pooling_does_not_matter():
    model = keras.Sequential(
        [keras.Input((None, None, 3)), layers.GlobalAveragePooling2D(), layers.Dense(4)]
    )
    assert compression_report(model, model).student.macs == 12


@pytest.mark.parametrize(
    ("policy", "bytes_per_weight"),
    [("float32", 4), ("mixed_float16", 4), ("float16", 2), ("bfloat16", 2), ("float64", 8)],
)
def test_bytes_are_those_of_the_type_the_weights_are_kept_in(policy, bytes_per_weight):
    size = size_of(layers.Dense(4, dtype=policy), shape=(7,))
    assert size.weight_bytes == 32 * bytes_per_weight
    assert (size.parameters, size.macs) == (32, 28)


def test_bytes_of_a_quantised_model():
    model = keras.Sequential([keras.Input((7,)), layers.Dense(4)])
    model.quantize("int8")
    size = compression_report(model, model).student
    # The kernel in one byte each; a float32 scale and a float32 bias for each unit.
    assert size.weight_bytes == 28 + 4 * 4 + 4 * 4
    assert size.macs == 28


def test_the_report_prints_both_and_how_many_times_smaller():
    teacher = keras.Sequential([keras.Input((8,)), layers.Dense(500)], name="big")
    student = keras.Sequential([keras.Input((8,)), Scale(name="scale"), layers.Dense(5)])
    report = compression_report(teacher, student)
    assert report.teacher.name == "big"
    rows = {line.split("  ")[0]: line.split() for line in str(report).splitlines()}
    assert rows["parameters"][-3:] == ["4,500", "53", f"{4500 / 53:.1f}"]
    assert rows["MACs"][-3:] == ["4,000", "40", "-"]
    assert rows["weight bytes"][-3:] == ["18,000", "212", f"{18000 / 212:.1f}"]
    assert "MACs of the student leave out: scale" in str(report)
    assert "teacher leave out" not in str(report)


def test_measuring_changes_nothing():
    model = keras.Sequential([keras.Input((8, 2)), layers.BatchNormalization(), layers.Dense(2)])
    before = [np.array(weight) for weight in model.get_weights()]
    compression_report(model, model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_unbuilt_model_is_refused():
    built = keras.Sequential([keras.Input((8,)), layers.Dense(2)])
    with pytest.raises(ValueError) as error:
        compression_report(built, keras.Sequential([layers.Dense(2)], name="fresh"))
    assert_three_parts(
        error.value, "'fresh' is not built", "Expected a built model", "Call it once"
    )
