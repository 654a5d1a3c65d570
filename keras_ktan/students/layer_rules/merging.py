"""Tensors that meet: sums and products tie channels, concatenations join them."""

import keras
import numpy as np

from keras_ktan.students.channels import Channels
from keras_ktan.students.layer_rules.narrowing import Narrowing, is_constant


def elementwise(call):
    """Add, Subtract, Multiply, Average, Maximum, Minimum and operations like them.

    Sizes are broadcast. Channels of the same position become one decision.
    """
    operands = [
        leaf
        for leaf in call.operands
        if isinstance(leaf, Channels) or (is_constant(leaf) and leaf.value.ndim)
    ]
    shapes = [_shape(operand) for operand in operands]
    shape = call.output_shape or broadcast_shapes(shapes)
    axis = _common_axis(call, operands, shapes, shape)
    if axis is None:
        call.keep_all(*call.inputs)
        return Narrowing([call.graph.fixed(shape)])
    ids, arguments = None, {}
    for operand, own in zip(operands, shapes, strict=True):
        own_axis = axis - len(shape) + len(own)
        if own_axis < 0 or own[own_axis] != shape[axis]:
            continue  # broadcast along the channels
        if is_constant(operand):
            continue
        own_ids = call.ids(operand, own_axis)
        if ids is None:
            ids = own_ids
        else:
            call.tie(ids, own_ids)
    for operand, own in zip(operands, shapes, strict=True):
        own_axis = axis - len(shape) + len(own)
        if is_constant(operand) and own_axis >= 0 and own[own_axis] == shape[axis]:
            arguments[operand.location] = _sliced_constant(operand, own_axis, ids)
    return Narrowing([Channels(shape, axis, ids)], arguments=arguments)


def _shape(operand):
    return operand.shape if isinstance(operand, Channels) else operand.value.shape


def broadcast_shapes(shapes):
    """The shape of what is made of several by broadcasting; `None` where a size is open."""
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(
        next((size for size in sizes if size != 1), 1) for sizes in zip(*padded, strict=True)
    )


def _common_axis(call, operands, shapes, shape):
    """The axis of the output along which the operands' channels lie, if they agree."""
    axes = set()
    for operand, own in zip(operands, shapes, strict=True):
        if isinstance(operand, Channels) and call.is_open(operand):
            axis = operand.axis + len(shape) - len(own)
            if own[operand.axis] == shape[axis]:
                axes.add(axis)
    return axes.pop() if len(axes) == 1 else None


def _sliced_constant(constant, axis, ids):
    def edit(selection, old):
        return np.take(constant.value, selection.positions(ids), axis=axis).tolist()

    return edit


def concatenation(call):
    """Concatenate: side by side."""
    tensors = call.inputs
    axis = call.argument(None, "axis", -1)
    shape = call.output_shape
    rank = tensors[0].rank
    along = axis % rank
    shape = shape or tuple(
        sum(t.shape[i] for t in tensors) if i == along else size
        for i, size in enumerate(tensors[0].shape)
    )
    if len(tensors) < len(keras.tree.flatten(call.args)):
        return call.fixed_outputs()  # constants among them
    axis = _open_axis(call, tensors)
    if axis is None:
        return call.fixed_outputs()
    if along == axis:
        ids = np.concatenate([call.ids(tensor, along) for tensor in tensors])
        return Narrowing([Channels(shape, along, ids)])
    return Narrowing([Channels(shape, axis, _tied(call, tensors, axis))])


def _open_axis(call, tensors):
    """The axis along which the first of the tensors that may become narrower does so."""
    return next((tensor.axis for tensor in tensors if call.is_open(tensor)), None)


def _tied(call, tensors, axis):
    """The channels of tensors that become parts of one along another axis: they are the same."""
    ids = call.ids(tensors[0], axis)
    for tensor in tensors[1:]:
        call.tie(ids, call.ids(tensor, axis))
    return ids


def stack(call):
    """Stack: a new axis; the channels of all are the same."""
    tensors, shape = call.inputs, call.output_shape
    if len(tensors) < len(keras.tree.flatten(call.args)) or shape is None:
        return call.fixed_outputs()
    new = call.argument(None, "axis", 0) % len(shape)
    axis = _open_axis(call, tensors)
    if axis is None:
        return call.fixed_outputs()
    return Narrowing([Channels(shape, axis + (new <= axis), _tied(call, tensors, axis))])


def product(call):
    """Matmul: the axes that are summed over are tied."""
    if len(call.inputs) != 2 or min(tensor.rank for tensor in call.inputs) < 2:
        return call.fixed_outputs()
    first, second = call.inputs
    letters = "ABCDEFGHIJKLMNOPQRSTUVW"[: max(first.rank, second.rank) - 2]
    terms = [
        letters[len(letters) - first.rank + 2 :] + "xy",
        letters[len(letters) - second.rank + 2 :] + "yz",
    ]
    return contraction(call, terms, letters + "xz")


def einsum(call):
    """Einsum of two tensors."""
    equation = call.argument(0, "subscripts")
    if not isinstance(equation, str):
        equation = call.config.get("subscripts", "")
    equation = equation.replace(" ", "")
    terms, _, made = equation.partition("->")
    terms = terms.split(",")
    if "." in equation or not made or len(call.inputs) != len(terms):
        return call.fixed_outputs()
    return contraction(call, terms, made)


def contraction(call, terms, made):
    """A product of tensors written as an einsum.

    Args:
        call: The `LayerCall`.
        terms: The letters of each tensor's axes.
        made: The letters of the output's axes.

    Returns:
        A `Narrowing`.
    """
    tensors = call.inputs
    narrow = dict.fromkeys(
        term[t.axis] for term, t in zip(terms, tensors, strict=True) if call.is_open(t)
    )
    by_letter = {}
    for letter in narrow:
        found = [
            call.ids(tensor, term.index(letter))
            for term, tensor in zip(terms, tensors, strict=True)
            if letter in term
        ]
        if any(len(ids) != len(found[0]) for ids in found):
            return call.fixed_outputs()
        for ids in found[1:]:
            call.tie(found[0], ids)
        by_letter[letter] = found[0]
    shape = call.output_shape or (None,) * len(made)
    left = [letter for letter in by_letter if letter in made]
    if len(left) == 1:
        return Narrowing([Channels(shape, made.index(left[0]), by_letter[left[0]])])
    for letter in left:
        call.graph.decisions.keep_all(by_letter[letter])
    return Narrowing([call.graph.fixed(shape)])


RULES = {
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"), elementwise),
    "Concatenate": concatenation,
}
