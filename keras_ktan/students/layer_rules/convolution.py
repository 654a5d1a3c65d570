"""Convolutions: filters are new channels; depthwise ones pass theirs on."""

import numpy as np

from keras_ktan.students.channels import Channels
from keras_ktan.students.layer_rules.narrowing import Narrowing, weight

# Our choice: of many groups whole ones are dropped, few groups all become narrower.
_MANY_GROUPS = 8


def channel_axis(layer, rank):
    """The axis of the channels in the tensors of a layer that has a `data_format`."""
    return 1 if layer.data_format == "channels_first" else rank - 1


def _output(call, ids):
    shape = call.output_shape or call.input.shape
    return Channels(shape, channel_axis(call.layer, len(shape)), ids)


def convolution(call):
    """Conv1D, Conv2D, Conv3D, with groups or without."""
    layer, tensor = call.layer, call.input
    ids = call.ids(tensor, channel_axis(layer, tensor.rank))
    filters = call.new_channels(layer.filters)
    config = {"filters": filters}
    if layer.groups > 1:
        kernel_ids, groups = _tie_groups(call, ids, filters)
        if groups is not None:
            config["groups"] = groups
    else:
        kernel_ids = ids
    return Narrowing(
        [_output(call, filters)],
        weight(layer.kernel, {-2: kernel_ids, -1: filters}, "kernel", -1)
        + weight(layer.bias, {0: filters}),
        config,
    )


def _tie_groups(call, ids, filters):
    """Settle what becomes of the groups.

    Many groups stay whole: all channels that a group reads and makes are one decision. Few
    groups keep the same positions each.

    Returns:
        A tuple of the decisions of the kernel's input axis and of an edit of `groups`.
    """
    groups = call.layer.groups
    read = ids.reshape(groups, -1)
    made = filters.reshape(groups, -1)
    if groups < _MANY_GROUPS:
        for group in range(1, groups):
            call.tie(read[0], read[group])
            call.tie(made[0], made[group])
        return read[0], None
    for decisions in (read, made):
        call.tie(np.repeat(read[:, :1], decisions.shape[1], axis=1), decisions)
    per_group = read.shape[1]
    return call.kept(per_group), lambda selection, old: selection.count(ids) // per_group


def transposed_convolution(call):
    """Conv1DTranspose, Conv2DTranspose, Conv3DTranspose."""
    layer, tensor = call.layer, call.input
    ids = call.ids(tensor, channel_axis(layer, tensor.rank))
    filters = call.new_channels(layer.filters)
    return Narrowing(
        [_output(call, filters)],
        weight(layer.kernel, {-2: filters, -1: ids}, "kernel", -2)
        + weight(layer.bias, {0: filters}),
        {"filters": filters},
    )


def depthwise_convolution(call):
    """DepthwiseConv1D, DepthwiseConv2D: what is made from a channel stays with it."""
    layer, tensor = call.layer, call.input
    ids = call.ids(tensor, channel_axis(layer, tensor.rank))
    made = np.repeat(ids, layer.depth_multiplier)
    return Narrowing(
        [_output(call, made)],
        weight(layer.kernel, {-2: ids}) + weight(layer.bias, {0: made}),
    )


def separable_convolution(call):
    """SeparableConv1D, SeparableConv2D."""
    layer, tensor = call.layer, call.input
    ids = call.ids(tensor, channel_axis(layer, tensor.rank))
    filters = call.new_channels(layer.filters)
    inner = np.repeat(ids, layer.depth_multiplier)
    return Narrowing(
        [_output(call, filters)],
        weight(layer.depthwise_kernel, {-2: ids})
        + weight(layer.pointwise_kernel, {-2: inner, -1: filters}, "kernel", -1)
        + weight(layer.bias, {0: filters}),
        {"filters": filters},
    )


RULES = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), convolution),
    **dict.fromkeys(
        ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), transposed_convolution
    ),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), depthwise_convolution),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), separable_convolution),
}
