"""Which maps everything passes through, and which one of them is the default."""

import keras
import numpy as np
import pytest
from helpers import assert_three_parts, random_array
from keras import layers, ops
from models import assert_same, snapshot

from keras_ktan.introspection import map_candidates
from keras_ktan.introspection.cuts import find_cuts
from keras_ktan.introspection.feature_maps import default_feature_map, feature_maps
from keras_ktan.introspection.model_trace import ModelTrace
from keras_ktan.introspection.substitution import confirm


def default(model):
    return default_feature_map(ModelTrace(model), "student")


def paths(model):
    return [entry.path for entry in feature_maps(model)]


def conv(filters, name, size=3, strides=1, activation="relu"):
    return layers.Conv2D(
        filters, size, strides=strides, padding="same", activation=activation, name=name
    )


def classifier(inputs, hidden):
    hidden = layers.GlobalAveragePooling2D(name="pool")(hidden)
    return keras.Model(inputs, layers.Dense(3, name="logits")(hidden))


class Block(layers.Layer):
    """A residual block whose sum no layer makes."""

    def __init__(self, filters, strides=1, **kwargs):
        super().__init__(**kwargs)
        self.strides = strides
        self.first = conv(filters, "first", strides=strides)
        self.second = conv(filters, "second", activation=None)
        self.shortcut = conv(filters, "shortcut", 1, strides, None) if strides > 1 else None

    def build(self, shape):
        self.first.build(shape)
        self.second.build(self.first.compute_output_shape(shape))
        if self.shortcut is not None:
            self.shortcut.build(shape)

    def call(self, inputs):
        hidden = self.second(self.first(inputs))
        return ops.relu(hidden + (inputs if self.shortcut is None else self.shortcut(inputs)))


class Residual(keras.Model):
    """Blocks one behind the other, in a subclassed model."""

    def __init__(self, bare=False, **kwargs):
        super().__init__(**kwargs)
        self.bare = bare
        self.stem = conv(4, "stem")
        self.steps = [
            Block(4, name="s1_b1"),
            Block(6, 2, name="s2_b1"),
            Block(6, name="s2_b2"),
            Block(8, 2, name="s3_b1"),
            Block(8, name="s3_b2"),
        ]
        self.pool, self.head = layers.GlobalAveragePooling2D(), layers.Dense(3, name="head")

    def call(self, inputs):
        hidden = self.stem(inputs)
        for step in self.steps:
            hidden = step(hidden)
        return hidden if self.bare else self.head(self.pool(hidden))


def residual(**kwargs):
    model = Residual(**kwargs)
    model(np.zeros((1, 16, 16, 1), "float32"))
    return model


ALL_BLOCKS = ["stem", "s1_b1", "s2_b1", "s2_b2", "s3_b1", "s3_b2"]


def test_blocks_whose_sums_no_layer_makes():
    model = residual()
    assert default(model) == "s2_b2"
    assert paths(model) == ALL_BLOCKS


def test_a_subclassed_backbone_inside_other_models():
    backbone = residual(bare=True, name="backbone")
    head = [layers.GlobalAveragePooling2D(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((16, 16, 1)), backbone, *head])
    assert default(model) == "backbone/s2_b2"
    inputs = keras.Input((16, 16, 1))
    model = keras.Model(inputs, head[1](head[0](backbone(inputs))))
    assert default(model) == "backbone/s2_b2"
    assert paths(model) == [f"backbone/{name}" for name in ALL_BLOCKS]
    assert default(backbone) == "s2_b2"


class Bypassed(keras.Model):
    """The sums are made by the model, where no layer's output is one."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale
        self.stem, self.branch = conv(4, "stem", activation=None), conv(4, "branch")
        self.halved, self.last = conv(5, "half", strides=2), conv(6, "last")
        self.pool, self.head = layers.GlobalAveragePooling2D(), layers.Dense(3, name="head")

    def call(self, inputs):
        hidden = self.stem(inputs)
        hidden = self.scale * hidden + self.branch(hidden)
        return self.head(self.pool(self.last(self.halved(hidden))))


@pytest.mark.parametrize("scale", [1.0, 0.05, -1.0])
def test_a_branch_that_the_trace_takes_for_a_cut_is_refuted(scale):
    model = Bypassed(scale)
    model(np.zeros((1, 8, 8, 1), "float32"))
    trace = ModelTrace(model)
    cuts = {cut.path: cut for cut in find_cuts(trace)}
    assert not cuts["branch"].certain and cuts["half"].certain
    assert confirm(trace, [cuts["branch"]]) == [False]
    assert confirm(trace, [cuts["stem"]]) == [True]
    assert confirm(trace, [cuts[name] for name in ("stem", "branch", "half", "last")]) == [
        True,
        False,
        True,
        True,
    ]
    assert default(model) == "stem"
    assert paths(model) == ["stem", "half", "last"]


def test_a_map_that_never_changes_proves_nothing():
    model = Bypassed()
    model(np.zeros((1, 8, 8, 1), "float32"))
    model.stem.kernel.assign(ops.zeros_like(model.stem.kernel))
    trace = ModelTrace(model)
    stem = next(cut for cut in find_cuts(trace) if cut.path == "stem")
    assert confirm(trace, [stem]) == [False]


@pytest.mark.parametrize("written", ["layers", "operators"])
def test_a_functional_model_is_followed_without_running_it(written, monkeypatch):
    monkeypatch.setattr(map_candidates, "confirm", None)

    def add(first, second):
        return layers.Add()([first, second]) if written == "layers" else first + second

    inputs = keras.Input((16, 16, 1))
    hidden = conv(4, "stem")(inputs)
    for stage, filters in enumerate((4, 6, 8)):
        for block in range(2):
            name = f"s{stage}_b{block}"
            hidden = conv(filters, f"{name}_in", 1, 2 if stage and not block else 1)(hidden)
            hidden = add(hidden, conv(filters, f"{name}_conv", activation=None)(hidden))
            hidden = layers.ReLU(name=name)(hidden)
    model = classifier(inputs, hidden)
    assert default(model) == "s1_b1"
    expected = [
        f"s{stage}_b{block}{end}" for stage in range(3) for block in range(2) for end in ("_in", "")
    ]
    assert paths(model) == ["stem", *expected]


def test_the_expanded_maps_inside_inverted_residual_blocks_are_not_taken():
    inputs = keras.Input((16, 16, 1))
    hidden = conv(4, "stem", strides=2)(inputs)
    for number, (filters, strides) in enumerate([(4, 1), (6, 2), (6, 1), (8, 2)]):
        start = hidden
        hidden = conv(24, f"b{number}_expand", 1)(hidden)
        hidden = layers.DepthwiseConv2D(
            3, strides, padding="same", activation="relu", name=f"b{number}_depthwise"
        )(hidden)
        hidden = conv(filters, f"b{number}_project", 1, activation=None)(hidden)
        if start.shape == hidden.shape:
            hidden = layers.Add(name=f"b{number}_add")([start, hidden])
    model = classifier(inputs, hidden)
    assert "b3_expand" in paths(model)  # everything passes it, in the same stage
    assert default(model) == "b2_add"


def test_the_expanded_maps_of_blocks_without_a_sum_are_not_taken():
    sizes = [("in", 4, 2), ("expand_1", 24, 1), ("project_1", 6, 1), ("expand_2", 24, 1)]
    convs = [conv(filters, name, strides=strides) for name, filters, strides in sizes]
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            *convs,
            conv(8, "next", strides=2),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    assert default(model) == "project_1"


def test_a_stage_that_ends_wider_than_it_began_keeps_its_last_map():
    convs = [conv(4, "a"), conv(4, "b"), conv(8, "c"), layers.MaxPooling2D(), conv(8, "d")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *convs, layers.Flatten(), layers.Dense(2)])
    assert default(model) == "c"


def test_padding_and_dropout_make_no_maps():
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            conv(4, "first"),
            layers.Dropout(0.2, name="drop"),
            layers.ZeroPadding2D(2, name="pad"),
            layers.Conv2D(4, 3, strides=2, name="second"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    assert default(model) == "first"
    assert paths(model) == ["first", "second"]


@pytest.mark.parametrize("head", ["keepdims", "pooled by a layer"])
def test_one_position_is_no_map(head):
    inputs = keras.Input((8, 8, 1))
    hidden = conv(6, "last", strides=2)(conv(4, "first")(inputs))
    if head == "keepdims":
        hidden = layers.GlobalAveragePooling2D(keepdims=True)(hidden)
    else:
        hidden = layers.AveragePooling2D(4)(hidden)
    hidden = conv(16, "dense", 1)(hidden)
    model = keras.Model(inputs, layers.Flatten()(conv(3, "logits", 1)(hidden)))
    assert default(model) == "first"
    assert paths(model) == ["first", "last"]


def test_convolutions_without_padding_make_no_stages():
    valid = [layers.Conv2D(4, 3, name=f"conv_{number}") for number in range(3)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *valid, layers.Flatten(), layers.Dense(2)])
    # 6, 4 and 2 positions along an axis are one stage; of one stage the last map is taken.
    assert default(model) == "conv_2"


@pytest.mark.parametrize("axes", [1, 3])
def test_sequences_and_volumes(axes):
    convolution = {1: layers.Conv1D, 3: layers.Conv3D}[axes]
    pooling = {1: layers.GlobalAveragePooling1D, 3: layers.GlobalAveragePooling3D}[axes]
    size = {1: (32,), 3: (8, 8, 8)}[axes]
    steps = [
        convolution(4, 3, strides, padding="same", name=name)
        for name, strides in (("a", 1), ("b", 2), ("c", 1), ("d", 2))
    ]
    model = keras.Sequential([keras.Input((*size, 2)), *steps, pooling(), layers.Dense(2)])
    maps = feature_maps(model)
    assert [(entry.path, entry.stride) for entry in maps] == [
        ("a", 1),
        ("b", 2),
        ("c", 2),
        ("d", 4),
    ]
    assert maps.default.path == "c"


class TransformerBlock(layers.Layer):
    """As in Keras's tutorials, with sums between its layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")
        self.norms = [layers.LayerNormalization(name=f"norm_{number}") for number in range(2)]
        self.dense = layers.Dense(8, activation="relu", name="dense")

    def build(self, shape):
        self.attention.build(shape, shape)
        for part in (*self.norms, self.dense):
            part.build(shape)

    def call(self, inputs):
        normed = self.norms[0](inputs)
        inputs = inputs + self.attention(normed, normed)
        return inputs + self.dense(self.norms[1](inputs))


def token_model(masked=False, style="layer"):
    inputs = keras.Input((10,), dtype="int32", name="tokens")
    hidden = layers.Embedding(20, 8, mask_zero=masked, name="embedding")(inputs)
    for number in range(3):
        if style == "layer":
            hidden = TransformerBlock(name=f"block_{number}")(hidden)
            continue
        normed = layers.LayerNormalization()(hidden)
        attended = layers.MultiHeadAttention(2, 4)(normed, normed)
        hidden = layers.Add(name=f"block_{number}_attended")([hidden, attended])
        dense = layers.Dense(8)(layers.LayerNormalization()(hidden))
        hidden = layers.Add(name=f"block_{number}")([hidden, dense])
    hidden = layers.LayerNormalization(name="final")(hidden)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(hidden)))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("style", ["layer", "functional"])
def test_tokens_of_a_transformer_before_the_last_block(style, masked):
    model = token_model(masked, style)
    assert default(model) == "block_1"
    blocks = [f"block_{number}" for number in range(3)]
    if style == "functional":
        blocks = [name for block in blocks for name in (f"{block}_attended", block)]
    assert paths(model) == ["embedding", *blocks, "final"]


def test_a_convolutional_stem_does_not_stand_for_a_transformer():
    inputs = keras.Input((16, 16, 1))
    hidden = conv(8, "patches", 4, 4)(conv(4, "stem", strides=2)(inputs))
    hidden = layers.Reshape((4, 8), name="tokens")(hidden)
    for number in range(2):
        hidden = TransformerBlock(name=f"block_{number}")(hidden)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(hidden)))
    assert default(model) == "block_0"


def unet():
    inputs = keras.Input((16, 16, 1))
    skip = conv(4, "down_1")(inputs)
    inner = conv(8, "down_2")(layers.MaxPooling2D(name="pool_1")(skip))
    hidden = conv(16, "bottom")(layers.MaxPooling2D(name="pool_2")(inner))
    hidden = layers.Concatenate(name="join_2")([layers.UpSampling2D(name="up_2")(hidden), inner])
    hidden = conv(8, "up_conv_2")(hidden)
    hidden = layers.Concatenate(name="join_1")([layers.UpSampling2D(name="up_1")(hidden), skip])
    hidden = conv(4, "up_conv_1")(hidden)
    return keras.Model(inputs, conv(2, "mask", 1, activation=None)(hidden))


def test_a_unet_with_skip_connections():
    model = unet()
    assert paths(model) == ["down_1", "join_1", "up_conv_1", "mask"]
    # The scores themselves are the last of them.
    assert default(model) == "up_conv_1"


def test_an_autoencoder_without_skip_connections():
    strides = [conv(4, "down_1", strides=2), conv(8, "down_2", strides=2)]
    up = [layers.UpSampling2D(), conv(8, "up_1"), layers.UpSampling2D(), conv(2, "up_2")]
    assert default(keras.Sequential([keras.Input((16, 16, 1)), *strides, *up])) == "up_1"


def test_a_detector_with_maps_of_several_strides():
    inputs = keras.Input((32, 32, 1))
    first = conv(8, "c3", strides=2)(conv(4, "c2", strides=2)(inputs))
    second = conv(8, "c4", strides=2)(first)
    head = conv(5, "head")
    outputs = {
        "p3": layers.Reshape((-1, 5), name="flat_3")(head(first)),
        "p4": layers.Reshape((-1, 5), name="flat_4")(head(second)),
    }
    assert default(keras.Model(inputs, outputs)) == "c3"


def test_the_output_of_a_layer_that_returns_several():
    class Pair(layers.Layer):
        def call(self, inputs):
            return {"map": inputs * 2.0, "mean": ops.mean(inputs, axis=(1, 2))}

    inputs = keras.Input((8, 8, 1))
    hidden = Pair(name="pair")(conv(4, "first")(inputs))["map"]
    model = classifier(inputs, conv(6, "last", strides=2)(hidden))
    assert paths(model) == ["first", "pair:map", "last"]
    assert default(model) == "pair:map"


def test_a_layer_that_runs_twice_is_not_named():
    inputs = keras.Input((8, 8, 1))
    shared = conv(1, "shared")
    hidden = shared(shared(conv(1, "first")(inputs)))
    assert paths(classifier(inputs, conv(6, "last", strides=2)(hidden))) == ["first", "last"]


def test_two_inputs_that_meet_late():
    first, second = keras.Input((8, 8, 1), name="left"), keras.Input((8, 8, 1), name="right")
    joined = layers.Concatenate(name="join")([conv(4, "l")(first), conv(4, "r")(second)])
    model = classifier([first, second], conv(4, "last", strides=2)(joined))
    assert paths(model) == ["join", "last"]


def test_an_input_without_a_size():
    inputs = keras.Input((None, None, 3))
    hidden = conv(4, "last", strides=2)(conv(4, "middle", strides=2)(conv(4, "first")(inputs)))
    maps = feature_maps(classifier(inputs, hidden))
    assert [entry.stride for entry in maps] == [1, 2, 4]
    assert maps.default.path == "middle"
    assert maps.default.shape == (None, None, None, 4)


def test_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    assert default(residual()) == "s2_b2"


def test_an_embedding_is_listed_and_not_the_default():
    steps = [layers.Embedding(20, 4, name="embedding"), layers.LSTM(5), layers.Dense(2)]
    maps = feature_maps(keras.Sequential([keras.Input((10,)), *steps]))
    assert [entry.path for entry in maps] == ["embedding"] and maps.default is None


def test_what_a_recurrent_layer_returns_at_each_step():
    steps = [layers.Embedding(20, 4), layers.LSTM(6, return_sequences=True, name="states")]
    model = keras.Sequential([keras.Input((10,)), *steps, layers.LSTM(5), layers.Dense(2)])
    assert default(model) == "states"


def test_a_translator_whose_sentences_have_no_length():
    """A cell runs as often as there are steps, and in the trace another number of times."""
    words = [keras.Input((None,), dtype="int32", name=name) for name in ("source", "target")]
    source, target = (layers.Embedding(9, 4, mask_zero=True)(tokens) for tokens in words)
    _, *state = layers.LSTM(6, return_state=True)(source)
    said = layers.LSTM(6, return_sequences=True, name="said")(target, initial_state=state)
    said = layers.GRU(5, return_sequences=True, name="again")(said)
    maps = feature_maps(keras.Model(words, layers.Dense(9, name="words")(said)))
    assert [(entry.path, entry.shape) for entry in maps] == [
        ("said", (None, None, 6)),
        ("again", (None, None, 5)),
        ("words", (None, None, 9)),
    ]


@pytest.mark.parametrize("kind", ["table", "vectors"])
def test_a_model_without_maps(kind):
    steps = [layers.Dense(4), layers.Dense(2)]
    if kind == "vectors":
        steps = [layers.Embedding(9, 4), layers.GlobalAveragePooling1D(), *steps]
    model = keras.Sequential([keras.Input((1,)), *steps])
    assert list(feature_maps(model)) == [] and feature_maps(model).default is None
    with pytest.raises(ValueError) as error:
        default(model)
    assert_three_parts(
        error.value, "the student", "Expected a FeaturePair", "Name one: `feature_pairs="
    )
    assert "candidates are: none" in str(error.value)


def test_nothing_changes_and_nothing_stays_behind():
    model = residual()
    before, data = snapshot(model), random_array(2, 16, 16, 1)
    expected = ops.convert_to_numpy(model(data))
    feature_maps(model)
    assert_same(before, snapshot(model))
    np.testing.assert_array_equal(ops.convert_to_numpy(model(data)), expected)
    assert all("call" not in vars(step) for step in model.steps)


def test_it_prints_as_a_table():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            conv(4, "first"),
            conv(6, "last", strides=2, activation=None),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    assert str(feature_maps(model)) == (
        "path   shape            stride  activation\n"
        "first  (None, 8, 8, 4)  1       relu        default\n"
        "last   (None, 4, 4, 6)  2       none"
    )


def test_an_unbuilt_model_is_refused():
    with pytest.raises(ValueError, match="is not built"):
        feature_maps(Residual())
