"""Layers without weights: they pass channels on, move them, or fold other axes into them."""

import numpy as np

from keras_ktan.students.channels import Channels
from keras_ktan.students.layer_rules.narrowing import LayerCall, Narrowing


def same_channels(call):
    """Every channel is treated alike, and none is mixed with another."""
    tensor = call.input
    shape = call.output_shape or tensor.shape
    return Narrowing([Channels(shape, tensor.axis, tensor.ids)])


def reduction(call):
    """Global pooling, and means, sums and maxima over axes that are no channels."""
    layer, tensor = call.layer, call.input
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    reduced = range(2, tensor.rank) if channels_first else range(1, tensor.rank - 1)
    return Narrowing([reduced_channels(call, tensor, reduced, layer.keepdims)])


def reduced_channels(call, tensor, axes, keepdims):
    """The `Channels` of a tensor that is reduced over axes."""
    axes = {axis % tensor.rank for axis in axes}
    shape = tuple(
        1 if axis in axes else size
        for axis, size in enumerate(tensor.shape)
        if keepdims or axis not in axes
    )
    if tensor.axis is None or tensor.axis in axes:
        return call.graph.fixed(shape)
    before = 0 if keepdims else sum(axis < tensor.axis for axis in axes)
    return Channels(shape, tensor.axis - before, tensor.ids)


def flatten(call):
    """Flatten: the channels come again at each position."""
    tensor = call.input
    if getattr(call.layer, "data_format", None) == "channels_first" and tensor.rank > 2:
        # Keras moves the channels to the end first.
        order = (0, *range(2, tensor.rank), 1)
        tensor = permuted(tensor, order)
    shape = call.output_shape
    if shape is None:
        return call.fixed_outputs()
    return Narrowing([reshaped(call, tensor, shape)])


def reshape(call):
    """Reshape, as a layer or an operation, and what adds or removes axes of size 1."""
    shape = call.output_shape
    if shape is None:
        return call.fixed_outputs()
    output = reshaped(call, call.input, shape)
    config = {}
    for key in ("target_shape", "newshape"):
        if call.config.get(key) is not None:
            config[key] = _edit_of_shape(output, call.input)
    return Narrowing([output], config=config)


def _edit_of_shape(output, tensor):
    def edit(selection, old):
        new = list(old)
        if output.axis is not None:
            from_end = output.axis - output.rank
            if new[from_end] != -1:
                new[from_end] = selection.count(output.ids)
        return new

    return edit


def reshaped(call, tensor, shape):
    """The `Channels` of a tensor in another shape.

    The decision of every entry is written out and reshaped. If the entries then differ along one
    axis only, that is where the channels are. If an axis was split, as into heads, the decisions
    along its last part are tied over the other parts.

    Args:
        call: The `LayerCall`.
        tensor: `Channels`.
        shape: The new shape, the batch first.

    Returns:
        `Channels`.
    """
    if not call.is_open(tensor):
        return call.graph.fixed(shape)
    old_sizes = [size or 1 for size in tensor.shape[1:]]
    new_sizes = [size or 1 for size in shape[1:]]
    if np.prod(old_sizes) != np.prod(new_sizes):
        if tensor.along(-1) and shape[-1] == tensor.shape[-1]:
            return Channels(shape, len(shape) - 1, tensor.ids)  # positions join the batch
        call.keep_all(tensor)
        return call.graph.fixed(shape)
    spread = [1] * len(old_sizes)
    spread[tensor.axis - 1] = -1
    entries = np.broadcast_to(tensor.ids.reshape(spread), old_sizes).reshape(new_sizes)
    for axis in _likely_axes(new_sizes):
        along = _along(entries, axis)
        if np.array_equal(np.broadcast_to(_spread(along, axis, entries.ndim), new_sizes), entries):
            return Channels(shape, axis + 1, along)
    rows = entries.reshape(-1, new_sizes[-1])
    if shape[-1] is None:
        call.keep_all(tensor)
        return call.graph.fixed(shape)
    for row in np.unique(rows, axis=0):
        call.tie(rows[0], row)
    return Channels(shape, len(shape) - 1, rows[0])


def _likely_axes(sizes):
    # Axes of size 1 fit only a tensor of one channel: the last axis is the usual place for it.
    order = sorted(range(len(sizes)), key=lambda axis: (sizes[axis] == 1, -axis))
    return order


def _along(entries, axis):
    index = [0] * entries.ndim
    index[axis] = slice(None)
    return entries[tuple(index)]


def _spread(values, axis, rank):
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def permuted(tensor, order):
    """The `Channels` of a tensor with its axes in another order (the batch's among them)."""
    shape = tuple(tensor.shape[axis] for axis in order)
    if tensor.axis is None:
        return Channels(shape)
    return Channels(shape, order.index(tensor.axis), tensor.ids)


def permute(call):
    """Permute."""
    return Narrowing([permuted(call.input, (0, *call.layer.dims))])


def repeat_vector(call):
    """RepeatVector: a vector becomes a sequence of it."""
    tensor = call.input
    shape = (tensor.shape[0], call.layer.n, tensor.shape[1])
    return Narrowing([Channels(shape, 2, call.ids(tensor, -1))])


def local(call):
    """Padding, cropping, pooling, resizing: positions change and channels do not."""
    tensor = call.input
    shape = call.output_shape or tensor.shape
    return Narrowing([Channels(shape, tensor.axis, tensor.ids)])


# fmt: off
_SAME = [
    "Activation", "ReLU", "LeakyReLU", "ELU", "Softmax", "Dropout", "SpatialDropout1D",
    "SpatialDropout2D", "SpatialDropout3D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
    "ActivityRegularization", "Identity", "Masking", "StochasticDepth", "UnitNormalization",
]
# fmt: on

# fmt: off
_AUGMENTATION = [
    "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomCrop",
    "RandomContrast", "RandomBrightness", "RandomShear", "RandomHue", "RandomSaturation",
    "RandomSharpness", "RandomColorJitter", "RandomColorDegeneration", "RandomGrayscale",
    "RandomInvert", "RandomPosterization", "RandomErasing", "RandomGaussianBlur",
    "RandomPerspective", "RandomElasticTransform", "RandAugment", "AugMix", "AutoContrast",
    "Equalization", "Solarization", "CenterCrop", "Resizing",
]
# fmt: on

_LOCAL = [
    f"{kind}{rank}D"
    for kind in ("ZeroPadding", "Cropping", "UpSampling", "MaxPooling", "AveragePooling")
    for rank in (1, 2, 3)
] + [f"Adaptive{kind}Pooling{rank}D" for kind in ("Average", "Max") for rank in (1, 2, 3)]

_GLOBAL = [f"Global{kind}Pooling{rank}D" for kind in ("Average", "Max") for rank in (1, 2, 3)]

# Layers without weights, of which nothing becomes narrower.
_FIXED = ["CategoryEncoding", "Discretization", "Dot", "HashedCrossing", "Hashing"]

RULES = {
    **dict.fromkeys(_SAME, same_channels),
    **dict.fromkeys((*_AUGMENTATION, *_LOCAL), local),
    **dict.fromkeys(_GLOBAL, reduction),
    **dict.fromkeys(_FIXED, LayerCall.fixed_outputs),
    "Flatten": flatten,
    "Reshape": reshape,
    "Permute": permute,
    "RepeatVector": repeat_vector,
}
