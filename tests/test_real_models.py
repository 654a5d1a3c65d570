"""The networks of `keras.applications`, with the feature map that is right for each.

The paths come from reading the architectures: the last output of the blocks of stride 16, where
everything passes, before anything that already belongs to the next stage.
"""

import keras
import pytest
from keras import layers

from keras_ktan.introspection.feature_maps import default_feature_map, feature_maps
from keras_ktan.introspection.model_trace import ModelTrace

# Name: arguments, path, shape without the batch.
SMALL = {
    "ResNet50": ({}, "conv4_block6_out", (14, 14, 1024)),
    "MobileNet": ({"alpha": 0.25}, "conv_pw_11_relu", (14, 14, 128)),
    # Not block_13_expand_relu, which has six times the channels.
    "MobileNetV2": ({"alpha": 0.35}, "block_12_add", (14, 14, 32)),
    # Not the logits, which have 1×1 positions.
    "MobileNetV3Small": ({"input_shape": (224, 224, 3)}, "expanded_conv_7_add", (14, 14, 48)),
    "EfficientNetB0": ({}, "block5c_add", (14, 14, 112)),
    # The sums of its blocks are no layers: the first layer behind the last of them.
    "ConvNeXtTiny": (
        {},
        "convnext_tiny_downsampling_block_2/convnext_tiny_downsampling_layernorm_2",
        (14, 14, 384),
    ),
}
LARGE = {
    "ResNet101": ({}, "conv4_block23_out", (14, 14, 1024)),
    "ResNet152": ({}, "conv4_block36_out", (14, 14, 1024)),
    # The last block of each stage halves the map already.
    "ResNet50V2": ({}, "conv4_block5_out", (14, 14, 1024)),
    "ResNet101V2": ({}, "conv4_block22_out", (14, 14, 1024)),
    # The transition's convolution, before its pooling.
    "DenseNet121": ({}, "pool4_conv", (14, 14, 512)),
    "DenseNet169": ({}, "pool4_conv", (14, 14, 640)),
    "DenseNet201": ({}, "pool4_conv", (14, 14, 896)),
    "MobileNetV3Large": ({"input_shape": (224, 224, 3)}, "expanded_conv_11_add", (14, 14, 112)),
    "EfficientNetB3": ({}, "block5e_add", (19, 19, 136)),
    "EfficientNetV2B0": ({}, "block5e_add", (14, 14, 112)),
    "EfficientNetV2S": ({}, "block5i_add", (24, 24, 160)),
    "ConvNeXtSmall": (
        {},
        "convnext_small_downsampling_block_2/convnext_small_downsampling_layernorm_2",
        (14, 14, 384),
    ),
    "InceptionV3": ({}, "mixed7", (17, 17, 768)),
    "InceptionResNetV2": ({}, "block17_20_ac", (17, 17, 1088)),
    # The sum at the end of block 12; block 13 halves the map.
    "Xception": ({}, "add_10", (19, 19, 728)),
    # Each cell takes the outputs of the two before it: only at its end does all pass one map.
    "NASNetMobile": ({}, "activation_187", (7, 7, 1056)),
    "VGG16": ({}, "block5_conv3", (14, 14, 512)),
    "VGG19": ({}, "block5_conv4", (14, 14, 512)),
}
# Where that map is what the network without its head returns: the one before it.
WITHOUT_HEAD = {"NASNetMobile": "normal_concat_12"}


def build(name, arguments, **more):
    return getattr(keras.applications, name)(weights=None, **(arguments | more))


def assert_default(model, path, shape):
    trace = ModelTrace(model)
    assert default_feature_map(trace, "student") == path
    (call,) = trace.calls_of(path)
    assert tuple(call.output_specs.shape) == (None, *shape)


def check_with_head(name, arguments, path, shape):
    whole = build(name, arguments, classes=10)
    assert_default(whole, path, shape)
    return whole.input_shape


def check_backbone(name, arguments, path, shape, size):
    """Without its head, and as the backbone of a Sequential and a Functional model."""
    backbone = build(name, arguments, include_top=False, input_shape=size[1:])
    assert_default(backbone, WITHOUT_HEAD.get(name, path), shape)
    head = [layers.GlobalAveragePooling2D(), layers.Dense(10)]
    nested = keras.Sequential([keras.Input(size[1:]), backbone, *head])
    assert_default(nested, f"{backbone.name}/{path}", shape)
    inputs = keras.Input(size[1:])
    outputs = layers.Dense(3)(layers.Flatten()(backbone(layers.Rescaling(1 / 255.0)(inputs))))
    assert_default(keras.Model(inputs, outputs), f"{backbone.name}/{path}", shape)


@pytest.mark.parametrize("name", SMALL)
def test_the_map_of_a_small_network(name):
    check_with_head(name, *SMALL[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "MobileNetV3Small"])
def test_the_map_of_a_small_backbone(name):
    check_backbone(name, *SMALL[name], size=(None, 224, 224, 3))


@pytest.mark.long
@pytest.mark.parametrize("name", LARGE)
def test_the_map_of_a_large_network(name):
    size = check_with_head(name, *LARGE[name])
    keras.backend.clear_session()
    check_backbone(name, *LARGE[name], size=size)


@pytest.mark.long
@pytest.mark.parametrize("name", ["ResNet50", "EfficientNetB0", "ConvNeXtTiny"])
def test_the_map_of_a_larger_backbone(name):
    check_backbone(name, *SMALL[name], size=(None, 224, 224, 3))


@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small"])
def test_a_backbone_whose_input_has_no_size(name):
    arguments = {key: value for key, value in SMALL[name][0].items() if key != "input_shape"}
    maps = feature_maps(build(name, arguments, include_top=False))
    assert maps.default.path == SMALL[name][1]
    assert maps.default.shape == (None, None, None, SMALL[name][2][-1])
    assert maps.default.stride == 16


def test_the_maps_of_a_resnet_are_what_its_blocks_return():
    maps = feature_maps(build("ResNet50", {}))
    blocks = [
        f"conv{stage}_block{block}_out"
        for stage, count in ((2, 3), (3, 4), (4, 6), (5, 3))
        for block in range(1, count + 1)
    ]
    assert [entry.path for entry in maps] == ["conv1_relu", "pool1_pool", *blocks]
    assert [entry.stride for entry in maps] == [2, 4] + [4] * 3 + [8] * 4 + [16] * 6 + [32] * 3
    assert {entry.activation for entry in maps} == {"relu"}
    assert [entry.path for entry in maps if entry.is_default] == ["conv4_block6_out"]
