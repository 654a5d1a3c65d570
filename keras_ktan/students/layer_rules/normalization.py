"""Normalisations, scales and preprocessing: one value for each channel."""

import numpy as np

from keras_ktan.students.channels import Channels
from keras_ktan.students.layer_rules.narrowing import Narrowing, weight


def _single_axis(layer):
    axis = layer.axis
    if isinstance(axis, (list, tuple)):
        return axis[0] if len(axis) == 1 else None
    return axis


def batch_normalization(call):
    """BatchNormalization: gamma, beta and the statistics of the kept channels."""
    layer = call.layer
    ids = call.ids(call.input, layer.axis)
    return Narrowing(
        [_same(call)],
        weight(layer.gamma, {0: ids}, "scale", 0)
        + weight(layer.beta, {0: ids})
        + weight(layer.moving_mean, {0: ids})
        + weight(layer.moving_variance, {0: ids}),
    )


def layer_normalization(call):
    """LayerNormalization, RMSNormalization: with fewer channels the statistics are others."""
    layer = call.layer
    axis = _single_axis(layer)
    if axis is None:
        call.keep_all(call.input)
        return Narrowing([call.input])
    ids = call.ids(call.input, axis)
    found = []
    for name, measures in (("gamma", "scale"), ("scale", "scale"), ("beta", None)):
        variable = getattr(layer, name, None)
        if hasattr(variable, "assign"):
            found += weight(variable, {0: ids}, measures, 0)
    return Narrowing([_same(call)], found)


def group_normalization(call):
    """GroupNormalization: a group's statistics need all of its channels, so groups stay whole."""
    layer, tensor = call.layer, call.input
    ids = call.ids(tensor, layer.axis)
    size = tensor.shape[layer.axis]
    groups = size if layer.groups == -1 else layer.groups
    config = {}
    if 1 < groups < size:
        grouped = ids.reshape(groups, -1)
        call.tie(np.repeat(grouped[:, :1], grouped.shape[1], axis=1), grouped)
    if groups > 1:
        per_group = size // groups
        config["groups"] = lambda selection, old: selection.count(ids) // per_group
    return Narrowing(
        [_same(call)],
        weight(layer.gamma, {0: ids}, "scale", 0) + weight(layer.beta, {0: ids}),
        config,
    )


def layer_scale(call):
    """LayerScale of `keras.applications`."""
    ids = call.ids(call.input, -1)
    return Narrowing([_same(call)], weight(call.layer.gamma, {0: ids}), {"projection_dim": ids})


def parametric_relu(call):
    """PReLU: a slope for each channel, and for each position unless axes are shared."""
    tensor = call.input
    alpha = call.layer.alpha
    if tensor.axis is None or alpha.shape[tensor.axis - 1] == 1:
        return Narrowing([tensor])
    return Narrowing([tensor], weight(alpha, {tensor.axis - 1: tensor.ids}))


def preprocessing(call):
    """Normalization, and Rescaling where it has a number for each channel: all stay."""
    for name in ("scale", "offset"):
        if type(call.layer).__name__ == "Rescaling" and np.size(getattr(call.layer, name)) > 1:
            call.keep_all(call.input)
    if type(call.layer).__name__ == "Normalization":
        call.keep_all(call.input)
    return Narrowing([_same(call)])


def _same(call):
    tensor = call.input
    return Channels(tensor.shape, tensor.axis, tensor.ids)


RULES = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "LayerScale": layer_scale,
    "PReLU": parametric_relu,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), layer_normalization),
    **dict.fromkeys(("Normalization", "Rescaling"), preprocessing),
}
