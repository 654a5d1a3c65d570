"""Operations of `keras.ops` in a functional model, as `get_config()` lists them."""

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
    """`x[...]`: parts of the channels are ranges of the kept ones."""
    tensor = call.input
    key = call.args[1] if len(call.args) > 1 else call.kwargs.get("key")
    key = list(key) if isinstance(key, (list, tuple)) else [key]
    if any(not (part is None or part is Ellipsis or isinstance(part, (int, slice))) for part in key):
        return call.fixed_outputs()
    if Ellipsis in key:
        at = key.index(Ellipsis)
        named = sum(part is not None and part is not Ellipsis for part in key)
        key[at : at + 1] = [slice(None)] * (tensor.rank - named)
    found = _item_axis(tensor, key)
    shape = call.output_shape
    if tensor.axis is None or found is None or shape is None:
        return call.fixed_outputs()
    position, axis, part = found
    if part == slice(None):
        return Narrowing([Channels(shape, axis, tensor.ids)])
    return call.fixed_outputs()


def _item_axis(tensor, key):
    """Where the channels' axis is in the key and in the output, and its part of the key."""
    read = made = 0
    for position, part in enumerate(key):
        if part is None:
            made += 1
            continue
        if read == tensor.axis:
            return (position, made, part) if isinstance(part, slice) else None
        read += 1
        made += isinstance(part, slice)
    if tensor.axis is None:
        return None
    return len(key), made + tensor.axis - read, slice(None)


def split(call):
    """Split: equal parts of the channels keep the same positions each."""
    tensor = call.input
    parts = call.argument(1, "indices_or_sections")
    axis = call.argument(2, "axis", 0) % tensor.rank
    if not isinstance(parts, int):
        return call.fixed_outputs()
    numbers = range(parts)
    shape = list(tensor.shape)
    if shape[axis] is not None:
        shape[axis] //= parts
    if tensor.axis is None or not tensor.along(axis):
        return Narrowing([Channels(tuple(shape), tensor.axis, tensor.ids) for _ in numbers])
    sections = tensor.ids.reshape(parts, -1)
    for section in sections[1:]:
        call.tie(sections[0], section)
    return Narrowing([Channels(tuple(shape), axis, section) for section in sections])




_UNARY = ["Relu", "Relu6", "Sigmoid", "SparseSigmoid", "Softplus", "Softsign", "SoftShrink", "SparsePlus", "Silu", "Squareplus", "LogSigmoid", "LeakyRelu", "HardSigmoid", "HardSilu", "Elu", "Selu", "Gelu", "Celu", "TanhShrink", "HardTanh", "HardShrink", "Threshold", "Softmax", "LogSoftmax", "Absolute", "Abs", "Cast", "Ceil", "Clip", "Conj", "Copy", "Cos", "Cosh", "Exp", "Expm1", "Floor", "Identity", "Log", "Log10", "Log1p", "Log2", "Negative", "Reciprocal", "Round", "Rsqrt", "Sign", "Sin", "Sinh", "Sqrt", "Square", "StopGradient", "Tan", "Tanh", "Erf", "Normalize", "ZerosLike", "OnesLike", "NanToNum"]

_BINARY = ["Add", "Subtract", "Multiply", "Divide", "TrueDivide", "DivideNoNan", "FloorDivide", "Power", "Maximum", "Minimum", "Mod", "Where", "Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual", "LogicalAnd", "LogicalOr", "Logaddexp"]

_REDUCTIONS = ["Mean", "Sum", "Max", "Min", "Amax", "Amin", "Prod", "Var", "Std", "Median", "Logsumexp", "Any", "All"]

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
