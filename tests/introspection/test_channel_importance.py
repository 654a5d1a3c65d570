"""Which channels of a map matter most, against sums written down by hand."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_ktan.introspection.channel_importance import channel_importance, most_important
from keras_ktan.introspection.model_trace import ModelTrace

GAMMAS = {
    "norm_1": [0.5, -2.0, 0.1, 0.0],
    "norm_2": [1.0, 0.5, -0.2, 0.0],
    "norm_3": [0.0, 0.25, 4.0, -0.5],
}


def residual_stage():
    """Two blocks are added to a shortcut: three normalisations make the last map."""
    inputs = keras.Input((8, 8, 3))
    hidden = layers.BatchNormalization(name="norm_1")(layers.Conv2D(4, 1, name="short")(inputs))
    for block in ("2", "3"):
        inner = layers.Conv2D(4, 3, padding="same", name=f"conv_{block}")(hidden)
        inner = layers.BatchNormalization(name=f"norm_{block}")(inner)
        hidden = layers.ReLU(name=f"out_{block}")(layers.Add()([inner, hidden]))
    hidden = layers.GlobalAveragePooling2D()(hidden)
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    for name, gamma in GAMMAS.items():
        model.get_layer(name).gamma.assign(gamma)
    return model


def test_gammas_of_added_branches_are_summed():
    trace = ModelTrace(residual_stage())
    expected = np.abs(list(GAMMAS.values())).sum(0)
    np.testing.assert_allclose(channel_importance(trace, "out_3"), expected, rtol=1e-6)
    np.testing.assert_allclose(
        channel_importance(trace, "out_2"),
        np.abs([GAMMAS["norm_1"], GAMMAS["norm_2"]]).sum(0),
        rtol=1e-6,
    )


def test_inside_a_nested_model_and_of_the_nested_model_itself():
    inner = residual_stage()
    stage = keras.Model(inner.inputs, inner.get_layer("out_3").output, name="stage")
    model = keras.Sequential([keras.Input((8, 8, 3)), stage, layers.GlobalAveragePooling2D()])
    expected = np.abs(list(GAMMAS.values())).sum(0)
    for path in ("stage", "stage/out_3"):
        np.testing.assert_allclose(channel_importance(ModelTrace(model), path), expected)


@pytest.mark.parametrize(
    ("layer", "attribute", "norms"),
    [
        (layers.Conv2D(3, 1), "kernel", [3.0, 1.0, 2.0]),
        (layers.Dense(3), "kernel", [3.0, 1.0, 2.0]),
        (layers.SeparableConv2D(3, 2), "pointwise_kernel", [3.0, 1.0, 2.0]),
        (layers.Conv2DTranspose(3, 1), "kernel", [3.0, 1.0, 2.0]),
        (layers.DepthwiseConv2D(1), "kernel", [3.0, 1.0]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_without_a_normalisation_the_norm_of_the_kernel_counts(layer, attribute, norms):
    model = keras.Sequential([keras.Input((4, 4, 2)), layer, layers.ReLU(name="map")])
    kernel = np.zeros(getattr(layer, attribute).shape)
    for channel, norm in enumerate(norms):
        # 0.6² + 0.8² = 1, over the two input channels where there are two.
        if isinstance(layer, layers.Conv2DTranspose):
            kernel[0, 0, channel] = [0.6 * norm, -0.8 * norm]
        elif isinstance(layer, layers.DepthwiseConv2D):
            kernel[0, 0, channel, 0] = -norm
        else:
            kernel[..., 0, channel], kernel[..., 1, channel] = 0.6 * norm, -0.8 * norm
    getattr(layer, attribute).assign(kernel)
    importance = channel_importance(ModelTrace(model), "map")
    np.testing.assert_allclose(importance, norms, rtol=1e-6)


def test_a_map_that_nothing_known_made_has_none():
    class Doubled(layers.Layer):
        def call(self, inputs):
            return 2.0 * inputs

    model = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(3, 1), Doubled(name="map")])
    assert channel_importance(ModelTrace(model), "map") is None


@pytest.mark.parametrize(
    ("importance", "count", "expected"),
    [([1.0, 3.0, 2.0], 2, [1, 2]), ([1.0, 1.0, 1.0], 2, [0, 1]), ([0.0, 5.0], 1, [1])],
)
def test_the_most_important_are_kept_in_their_order(importance, count, expected):
    assert most_important(importance, count) == expected
