"""Operations of `keras.ops` in a functional model, as `get_config()` lists them."""

import numpy as np

from keras_ktan.students.channels import Channels
from keras_ktan.students.layer_rules.merging import (
    concatenation,
    einsum,
    elementwise,
    product,
    stack,
)
from keras_ktan.students.layer_rules.narrowing import LayerCall, Narrowing
from keras_ktan.students.layer_rules.reshaping import (
    local,
    permuted,
    reduced_channels,
    reshape,
    same_channels,
)
from keras_ktan.students.model_config import Part


def reduction(call):
    """Mean, Sum, Max and the like."""
    tensor = call.input
    axes = call.argument(1, "axis")
    if axes is None:
        axes = range(tensor.rank)
    elif isinstance(axes, int):
        axes = (axes,)
    keepdims = bool(call.argument(2, "keepdims", False))
    return Narrowing([reduced_channels(call, tensor, axes, keepdims)])


def transpose(call):
    """Transpose: the axes in another order, reversed if none is given."""
    tensor = call.input
    order = call.argument(1, "axes") or range(tensor.rank)[::-1]
    return Narrowing([permuted(tensor, [axis % tensor.rank for axis in order])])


def swap_axes(call):
    """Swapaxes."""
    tensor = call.input
    order = list(range(tensor.rank))
    one, other = call.argument(1, "axis1"), call.argument(2, "axis2")
    order[one], order[other] = order[other], order[one]
    return Narrowing([permuted(tensor, order)])


def pad(call):
    """Pad: other axes than the channels'."""
    tensor = call.input
    widths = call.argument(1, "pad_width", None)
    shape = call.output_shape
    unchanged = shape is not None and (
        tensor.axis is None or shape[tensor.axis] == tensor.shape[tensor.axis]
    )
    if unchanged and widths is not None:
        return Narrowing([Channels(shape, tensor.axis, tensor.ids)])
    return call.fixed_outputs()


def item(call):
    """`x[...]`: a part of the channels is a part of those that are kept."""
    tensor, shape = call.input, call.output_shape
    key = call.argument(1, "key")
    key = list(key) if isinstance(key, list) else [key]
    known = (Part, int, type(None), type(Ellipsis))
    if shape is None or not all(isinstance(part, known) for part in key):
        return call.fixed_outputs()
    if Ellipsis in key:
        at = key.index(Ellipsis)
        named = sum(part is not None for part in key) - 1
        key[at : at + 1] = [Part(slice(None), ())] * (tensor.rank - named)
    found = _part_of_channels(tensor, key)
    if found is None:
        return call.fixed_outputs()
    axis, part = found
    ids = tensor.ids[part.value]
    arguments = {}
    for name in ("start", "stop"):
        if getattr(part.value, name) is not None:
            arguments[*part.location, name] = _edit_of_bound(tensor.ids, ids, name)
    return Narrowing([Channels(shape, axis, ids)], arguments=arguments)


def _part_of_channels(tensor, key):
    """The channels' axis in the output and the `Part` that is taken; `None` if it is none."""
    read = made = 0
    for part in key:
        if part is None:
            made += 1
            continue
        if read == tensor.axis:
            is_range = isinstance(part, Part) and part.value.step in (None, 1)
            return (made, part) if is_range else None
        read += 1
        made += isinstance(part, Part)
    if tensor.axis is None:
        return None
    return made + tensor.axis - read, Part(slice(None), ())


def _edit_of_bound(ids, part, name):
    first = int(np.flatnonzero(ids == part[0])[0]) if len(part) else 0

    def edit(selection, old):
        start = selection.count(ids[:first])
        return start if name == "start" else start + selection.count(part)

    return edit


def split(call):
    """Split: at given places, or into parts that keep the same positions each."""
    tensor = call.input
    parts = call.argument(1, "indices_or_sections")
    axis = call.argument(2, "axis", 0) % tensor.rank
    if not tensor.along(axis):
        return _split_elsewhere(call, tensor, parts, axis)
    if isinstance(parts, int):
        sections = np.split(tensor.ids, parts)
        for section in sections[1:]:
            call.tie(sections[0], section)
        config = {}
    else:
        sections = np.split(tensor.ids, parts)
        config = {"indices_or_sections": _edit_of_places(tensor.ids)}
    outputs = [
        Channels((*tensor.shape[:axis], len(ids), *tensor.shape[axis + 1 :]), axis, ids)
        for ids in sections
    ]
    return Narrowing(outputs, config=config)


def _split_elsewhere(call, tensor, parts, axis):
    size = tensor.shape[axis]
    if size is None:
        return call.fixed_outputs()
    sizes = [len(part) for part in np.split(np.arange(size), parts)]
    shapes = [(*tensor.shape[:axis], size, *tensor.shape[axis + 1 :]) for size in sizes]
    return Narrowing([Channels(shape, tensor.axis, tensor.ids) for shape in shapes])


def _edit_of_places(ids):
    return lambda selection, old: [selection.count(ids[:place]) for place in old]


# fmt: off
_UNARY = [
    "Relu", "Relu6", "Sigmoid", "SparseSigmoid", "Softplus", "Softsign", "SoftShrink",
    "SparsePlus", "Silu", "Squareplus", "LogSigmoid", "LeakyRelu", "HardSigmoid", "HardSilu",
    "Elu", "Selu", "Gelu", "Celu", "TanhShrink", "HardTanh", "HardShrink", "Threshold",
    "Softmax", "LogSoftmax", "Absolute", "Abs", "Cast", "Ceil", "Clip", "Conj", "Copy", "Cos",
    "Cosh", "Exp", "Expm1", "Floor", "Identity", "Log", "Log10", "Log1p", "Log2", "Negative",
    "Reciprocal", "Round", "Rsqrt", "Sign", "Sin", "Sinh", "Sqrt", "Square", "StopGradient",
    "Tan", "Tanh", "Erf", "Normalize", "ZerosLike", "OnesLike", "NanToNum",
]
# fmt: on

# fmt: off
_BINARY = [
    "Add", "Subtract", "Multiply", "Divide", "TrueDivide", "DivideNoNan", "FloorDivide",
    "Power", "Maximum", "Minimum", "Mod", "Where", "Equal", "NotEqual", "Greater",
    "GreaterEqual", "Less", "LessEqual", "LogicalAnd", "LogicalOr", "Logaddexp",
]
# fmt: on

# fmt: off
_REDUCTIONS = [
    "Mean", "Sum", "Max", "Min", "Amax", "Amin", "Prod", "Var", "Std", "Median", "Logsumexp",
    "Any", "All",
]
# fmt: on

RULES = {
    **dict.fromkeys(_UNARY, same_channels),
    **dict.fromkeys(_BINARY, elementwise),
    **dict.fromkeys(_REDUCTIONS, reduction),
    **dict.fromkeys(("MaxPool", "AveragePool", "Resize"), local),
    **dict.fromkeys(("Reshape", "ExpandDims", "Squeeze", "Ravel"), reshape),
    "BroadcastTo": LayerCall.fixed_outputs,
    "Concatenate": concatenation,
    "Stack": stack,
    "Transpose": transpose,
    "Swapaxes": swap_axes,
    "Pad": pad,
    "GetItem": item,
    "Split": split,
    "Matmul": product,
    "Einsum": einsum,
}
