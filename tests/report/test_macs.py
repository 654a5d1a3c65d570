"""Multiply-accumulates of each kind of layer, counted by hand."""

import keras
import numpy as np
import pytest
from helpers import assert_three_parts
from keras import layers

from keras_ktan import compression_report, slim_student
from keras_ktan.report import measure_size
from keras_ktan.report.layer_macs import LAYER_RULES


def size_of(*parts, shape, **options):
    return measure_size(keras.Sequential([keras.Input(shape), *parts]), **options)


def functional(inputs, outputs):
    return measure_size(keras.Model(inputs, outputs))


class Cell(layers.Layer):
    """A recurrent cell of the user's own: it sees the input and the state."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1] + self.state_size, self.state_size))

    def call(self, inputs, states):
        (state,) = states
        joined = keras.ops.concatenate([inputs, state], axis=-1)
        new = keras.ops.tanh(keras.ops.matmul(joined, self.kernel))
        return new, [new]


# 5 steps of 4 values. A gate of 3 units sees 4 inputs and 3 states: 3 x (4 + 3) = 21.
RECURRENT = [
    (lambda: layers.SimpleRNN(3), 5 * 21),
    (lambda: layers.GRU(3), 5 * 3 * 21),
    (lambda: layers.GRU(3, reset_after=False, return_sequences=True), 5 * 3 * 21),
    (lambda: layers.LSTM(3), 5 * 4 * 21),
    (lambda: layers.LSTM(3, unroll=True, return_sequences=True), 5 * 4 * 21),
    (lambda: layers.LSTM(3, use_cudnn=False, go_backwards=True), 5 * 4 * 21),
    (lambda: layers.RNN(layers.LSTMCell(3)), 5 * 4 * 21),
    (lambda: layers.Bidirectional(layers.LSTM(3)), 2 * 5 * 4 * 21),
    (lambda: layers.Bidirectional(layers.GRU(3, return_sequences=True)), 2 * 5 * 3 * 21),
    # The second cell, of 2 units, takes the 3 outputs of the first: 4 x 2 x (3 + 2) = 40.
    (lambda: layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)]), 5 * (3 * 21 + 40)),
    (
        lambda: layers.RNN(
            layers.StackedRNNCells([layers.SimpleRNNCell(3), layers.SimpleRNNCell(2)])
        ),
        5 * (21 + 2 * (3 + 2)),
    ),
]


@pytest.mark.parametrize(("layer", "macs"), RECURRENT)
def test_recurrent_layers(layer, macs):
    size = size_of(layer(), shape=(5, 4))
    assert (size.macs, size.uncounted_layers) == (macs, ())


@pytest.mark.parametrize(
    ("shape", "layer", "macs"),
    [
        # 5 images of 8x8x2; at each of the 6x6 positions of 3 filters, 4 gates see a 3x3 window
        # of 2 channels and one of the 3 states.
        ((5, 8, 8, 2), lambda: layers.ConvLSTM2D(3, 3), 5 * 36 * 3 * 4 * 9 * (2 + 3)),
        (
            (5, 8, 8, 2),
            lambda: layers.ConvLSTM2D(3, 3, padding="same", strides=2, return_sequences=True),
            5 * 16 * 3 * 4 * 9 * 5,
        ),
        ((5, 8, 2), lambda: layers.ConvLSTM1D(3, 3), 5 * 6 * 3 * 4 * 3 * 5),
        ((2, 4, 4, 4, 1), lambda: layers.ConvLSTM3D(2, 3), 2 * 8 * 2 * 4 * 27 * 3),
        # Each of 2x3x4 positions of 5 channels is spread over 2x2x2 positions of 6 filters.
        ((2, 3, 4, 5), lambda: layers.Conv3DTranspose(6, 2, strides=2), 24 * 5 * 8 * 6),
        ((4, 4, 3), lambda: layers.Conv2DTranspose(5, 3, padding="same"), 16 * 3 * 9 * 5),
        # Per step a Dense from 7 to 4.
        ((6, 7), lambda: layers.TimeDistributed(layers.Dense(4)), 6 * 28),
        ((5, 8, 8, 1), lambda: layers.TimeDistributed(layers.Conv2D(2, 3)), 5 * 36 * 2 * 9),
        ((8, 8, 3), lambda: layers.SpectralNormalization(layers.Conv2D(5, 3)), 36 * 5 * 27),
        ((6, 7), lambda: layers.RMSNormalization(), 0),
        ((6, 7), lambda: layers.PReLU(), 0),
        ((6,), lambda: layers.ReversibleEmbedding(10, 3), 0),
    ],
)
def test_other_layers(shape, layer, macs):
    size = size_of(layer(), shape=shape)
    assert (size.macs, size.uncounted_layers) == (macs, ())


def test_an_embedding_in_reverse_is_a_product_with_the_table():
    tokens = keras.Input((6,), dtype="int32")
    embedding = layers.ReversibleEmbedding(10, 3)
    assert functional(tokens, embedding(embedding(tokens), reverse=True)).macs == 6 * 3 * 10


@pytest.mark.parametrize("by_name", [False, True])
def test_attention_over_another_sequence(by_name):
    query, value = keras.Input((6, 8)), keras.Input((5, 7))
    layer = layers.MultiHeadAttention(num_heads=2, key_dim=3, value_dim=4)
    made = layer(query=query, value=value) if by_name else layer(query, value)
    # Projections: queries 8 to 2x3, keys 7 to 2x3, values 7 to 2x4, out from 2x4 to 8.
    projections = 6 * 8 * 6 + 5 * 7 * 6 + 5 * 7 * 8 + 6 * 8 * 8
    # Two heads, 6x5 pairs: scores over 3 channels, then values of 4.
    products = 2 * 30 * 3 + 2 * 30 * 4
    size = functional([query, value], made)
    assert (size.macs, size.uncounted_layers) == (projections + products, ())


def test_attention_along_one_axis_of_a_map():
    inputs = keras.Input((4, 6, 8))
    layer = layers.MultiHeadAttention(num_heads=2, key_dim=3, attention_axes=(2,))
    # At each of 4 rows, 6x6 pairs.
    assert functional(inputs, layer(inputs, inputs)).macs == 4 * 24 * 8 * 6 + 4 * 2 * 36 * 6


def test_attention_along_both_axes_of_a_map():
    inputs = keras.Input((4, 6, 8))
    layer = layers.MultiHeadAttention(num_heads=2, key_dim=3)
    assert functional(inputs, layer(inputs, inputs)).macs == 4 * 24 * 8 * 6 + 2 * 24 * 24 * 6


def test_grouped_query_attention():
    inputs = keras.Input((6, 8))
    layer = layers.GroupQueryAttention(head_dim=3, num_query_heads=4, num_key_value_heads=2)
    # Queries and output 8 to 4x3 and back, keys and values 8 to 2x3; 4 heads of 36 pairs.
    projections = 2 * 6 * 8 * 12 + 2 * 6 * 8 * 6
    assert functional(inputs, layer(inputs, inputs)).macs == projections + 4 * 36 * (3 + 3)


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (lambda: layers.Attention(), 30 * 4 + 30 * 7),
        (lambda: layers.Attention(use_scale=True), 30 * 4 + 30 * 7),
        (lambda: layers.Attention(score_mode="concat"), 30 * 7),
        (lambda: layers.AdditiveAttention(), 30 * 4 + 30 * 7),
        (lambda: layers.AdditiveAttention(use_scale=False), 30 * 7),
    ],
)
def test_attention_without_projections(layer, macs):
    # 6x5 pairs; queries and keys of 4 channels, values of 7.
    query, value, key = keras.Input((6, 4)), keras.Input((5, 7)), keras.Input((5, 4))
    size = functional([query, value, key], layer()([query, value, key]))
    assert (size.macs, size.uncounted_layers) == (macs, ())


def test_attention_whose_values_are_the_keys_and_that_takes_masks():
    query, value = keras.Input((6,)), keras.Input((5,))
    tables = layers.Embedding(10, 4, mask_zero=True), layers.Embedding(10, 4, mask_zero=True)
    made = layers.Attention()([tables[0](query), tables[1](value)])
    assert functional([query, value], made).macs == 2 * 30 * 4


@pytest.mark.parametrize(("axes", "macs"), [(2, 5 * 6 * 4), ((2, 2), 5 * 6 * 4)])
def test_dot(axes, macs):
    first, second = keras.Input((5, 4)), keras.Input((6, 4))
    assert functional([first, second], layers.Dot(axes)([first, second])).macs == macs


def test_operations_between_layers():
    first, second = keras.Input((5, 4)), keras.Input((4, 6))
    product = keras.ops.matmul(first, second)
    gram = keras.ops.einsum("bij,bkj->bik", product, product)
    size = functional([first, second], layers.Dense(2)(gram + 1.0))
    assert size.macs == 5 * 4 * 6 + 5 * 5 * 6 + 5 * 5 * 2
    heads = keras.ops.reshape(first, (-1, 5, 2, 2))
    attended = keras.ops.dot_product_attention(heads, heads, heads)
    assert functional(first, attended).macs == 2 * 25 * (2 + 2)


def test_an_operation_of_a_nested_model_that_is_not_counted_is_named():
    inner_input = keras.Input((5, 4))
    inner = keras.Model(inner_input, keras.ops.tensordot(inner_input, np.ones((4, 3)), 1))
    inner = keras.Model(inner.input, inner.output, name="inner")
    inputs = keras.Input((5, 4))
    size = functional(inputs, inner(inputs))
    assert [path.startswith("inner/tensordot") for path in size.uncounted_layers] == [True]


def test_positions_that_a_reshape_folds_into_the_batch_count():
    inputs = keras.Input((6, 8))
    folded = layers.Dense(3)(keras.ops.reshape(inputs, (-1, 8)))
    made = keras.ops.reshape(folded, (-1, 6, 3))
    assert functional(inputs, made).macs == 6 * 8 * 3


def test_a_model_of_a_fixed_batch_is_counted_for_one_example():
    inputs = keras.Input(batch_shape=(4, 5, 4))
    size = functional(inputs, layers.LSTM(3, stateful=True)(inputs))
    assert size.macs == 5 * 4 * 21


def test_channels_first():
    model = keras.Sequential(
        [
            keras.Input((3, 8, 9)),
            layers.Conv2D(5, 3, data_format="channels_first"),
            layers.DepthwiseConv2D(3, data_format="channels_first"),
            layers.SeparableConv2D(4, 3, data_format="channels_first"),
        ]
    )
    expected = 6 * 7 * 5 * 27 + 4 * 5 * 5 * 9 + 2 * 3 * 5 * (9 + 4)
    assert measure_size(model).macs == expected


def test_the_width_of_an_open_axis_has_no_number():
    for layer in (layers.LSTM(3), layers.TimeDistributed(layers.Dense(2))):
        assert size_of(layer, shape=(None, 4)).macs is None
    tokens = size_of(layers.Embedding(9, 4), layers.GlobalAveragePooling1D(), shape=(None,))
    assert tokens.macs == 0


# Keras holds no public list of the layers with weights: these are all that it has, or a rule's.
def test_every_layer_of_keras_that_makes_weights_has_a_rule():
    inside_others = {layers.Bidirectional, layers.Pipeline, layers.Wrapper, layers.Layer}
    without = []
    for name in dir(layers):
        layer = getattr(layers, name)
        if not (isinstance(layer, type) and issubclass(layer, layers.Layer)):
            continue
        makes = any(
            "add_weight" in vars(known).get("build", known).__code__.co_names
            for known in layer.__mro__
            if hasattr(vars(known).get("build"), "__code__")
            and known.__module__.startswith("keras.")
            and known is not layers.Layer
        )
        if makes and layer not in inside_others and not set(layer.__mro__) & set(LAYER_RULES):
            without.append(name)
    assert without == []


@pytest.mark.parametrize(
    ("layer", "rule", "macs"),
    [
        # One product for each of the 4 + 3 values that each of 3 units sees.
        (
            lambda: layers.RNN(Cell(3)),
            {Cell: lambda call: call.input_shapes[0][-1] * 3 + 9},
            5 * (12 + 9),
        ),
        (
            lambda: layers.RNN([layers.LSTMCell(3), Cell(2)]),
            {Cell: lambda call: (call.input_shapes[0][-1] + 2) * call.output_shapes[0][-1]},
            5 * (4 * 21 + (3 + 2) * 2),
        ),
    ],
)
def test_a_cell_of_the_users_own(layer, rule, macs):
    unknown = size_of(layer(), shape=(5, 4))
    assert len(unknown.uncounted_layers) == 1 and "rnn" in unknown.uncounted_layers[0]
    size = size_of(layer(), shape=(5, 4), macs_rules=rule)
    assert (size.macs, size.uncounted_layers) == (macs, ())


class Mixing(layers.Layer):
    """A layer of the user's own: a Dense, and a product of its own with a weight."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inside = layers.Dense(4, name="inside")

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[1], shape[1]))
        self.inside.build(shape)

    def call(self, inputs):
        return keras.ops.einsum("bsc,st->btc", self.inside(inputs), self.matrix)


def test_a_rule_adds_to_the_layers_inside():
    teacher = keras.Sequential([keras.Input((6, 4)), Mixing(name="mixing"), Mixing(name="more")])
    student = keras.Sequential([keras.Input((6, 4)), layers.Dense(4)])
    report = compression_report(teacher, student)
    assert report.teacher.uncounted_layers == ("mixing", "more")
    assert report.teacher.macs == 2 * 6 * 16 and not report.macs_are_complete
    macs_line = next(line for line in str(report).splitlines() if line.startswith("MACs "))
    assert macs_line.split() == ["MACs", "192", "96", "-"]
    assert "leave out: mixing, more" in str(report)

    def rule(call):
        assert call.shapes_inside == {"inside": (1, 6, 4)}
        return 6 * 6 * call.output_shapes[0][-1]

    report = compression_report(teacher, student, macs_rules={Mixing: rule})
    assert report.teacher.macs == 2 * (6 * 16 + 36 * 4) and report.macs_are_complete
    assert "5.0" in str(report) and "leave out" not in str(report)


def test_a_rule_of_no_class_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    for rules in ({"Dense": len}, [layers.Dense], {layers.Dense: 3}):
        with pytest.raises(ValueError) as error:
            compression_report(model, model, macs_rules=rules)
        assert_three_parts(error.value, "macs_rules=", "Expected a dict", "Write, for example")


def test_what_a_users_call_multiplies_by_itself_is_said():
    class Gram(layers.Layer):
        def call(self, inputs):
            return keras.ops.matmul(inputs, keras.ops.swapaxes(inputs, 1, 2))

    model = keras.Sequential([keras.Input((6, 4)), Gram(), layers.Dense(2)])
    report = compression_report(model, model)
    assert report.student.unseen_classes == ("Gram",)
    assert "what Gram multiply by operations" in str(report)
    plain = keras.Sequential([keras.Input((6, 4)), layers.Dense(2)])
    assert compression_report(plain, plain).student.unseen_classes == ()


@pytest.mark.slow
def test_layer_scale_of_keras_applications():
    net = keras.applications.ConvNeXtTiny(
        weights=None, input_shape=(32, 32, 3), include_top=False, include_preprocessing=False
    )
    size = measure_size(net)
    macs, channels, side = 8 * 8 * 96 * 3 * 16, 96, 8
    for blocks, width in ((3, 96), (3, 192), (9, 384), (3, 768)):
        if width != channels:
            side //= 2
            macs += side * side * width * channels * 4
            channels = width
        # A depthwise window of 7x7, then to four times the width and back.
        macs += blocks * side * side * width * (49 + 8 * width)
    assert (size.macs, size.uncounted_layers) == (macs, ())


def test_a_share_of_macs_that_are_not_known_is_refused():
    inputs = keras.Input((5, 8))
    lookup = np.ones((8, 16), "float32")
    hidden = layers.Dense(16, activation="relu")(keras.ops.tensordot(inputs, lookup, 1))
    teacher = keras.Model(inputs, layers.Dense(3)(hidden), name="teacher")
    with pytest.raises(ValueError) as error:
        slim_student(teacher, target={"macs": 0.5})
    assert_three_parts(error.value, "'teacher' cannot be counted in", "Expected", "Pass")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "published"),
    [
        # Multiply-adds in millions: Howard et al., 2019; Tan and Le, 2019.
        ("MobileNetV3Small", 224, 56),
        ("EfficientNetB0", 224, 390),
    ],
)
def test_published_numbers(name, size, published):
    net = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3))
    found = measure_size(net)
    assert found.uncounted_layers == ()
    assert found.macs / 1e6 == pytest.approx(published, rel=0.03)
