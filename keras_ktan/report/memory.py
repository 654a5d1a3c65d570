"""The memory that a model's maps need at the widest moment of a forward pass."""

import dataclasses
import math

import keras

from keras_ktan.introspection.data_flow import is_composite
from keras_ktan.report.numbers_of_bytes import bytes_per_value

_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


@dataclasses.dataclass(frozen=True)
class PeakMemory:
    """How much is alive at once.

    Args:
        bytes: Sum of the tensors that are alive at the widest moment; `None` where an axis is open.
        is_complete: Whether all tensors were seen. What a `call` outside Keras makes by operations
            of its own is not, so that the true number may be larger.
    """

    bytes: int | None
    is_complete: bool


def peak_activations(trace, batch_size=1):
    """Sum the tensors alive at the widest moment of a forward pass on one example.

    A tensor is alive from the call that makes it to the last one that takes it, the outputs to the
    end. During a call its inputs and its outputs are alive. Nothing is computed in place, and a
    layer of Keras is one step, in an attention with what it holds inside. A runtime that fuses
    layers needs less.

    Args:
        trace: A `ModelTrace` of batches of a known size, with operations.
        batch_size: That size.

    Returns:
        A `PeakMemory`.
    """
    steps = _steps(trace)
    begin, end, is_complete = _lifetimes(trace, steps)
    sizes = _sizes(trace)
    if any(sizes[tensor] is None for tensor in begin):
        return PeakMemory(None, is_complete)
    peak = 0
    for number, (call, inside) in enumerate(steps):
        alive = sum(sizes[tensor] for tensor in begin if begin[tensor] <= number <= end[tensor])
        peak = max(peak, alive + _more_inside(call, inside, sizes, begin))
    return PeakMemory(peak // batch_size, is_complete)


def _steps(trace):
    """The calls that are not looked into, each with the calls inside it."""
    steps = []  # (number, call, calls inside)
    for number, call in enumerate(trace.calls):
        inside = trace.calls[call.first_inside : number]
        if inside and is_composite(call.layer):
            continue
        while steps and steps[-1][0] >= call.first_inside:
            steps.pop()
        steps.append((number, call, inside))
    return [(call, inside) for _, call, inside in steps]


def _lifetimes(trace, steps):
    """The first and the last step at which each tensor is alive, and whether all were seen."""
    inputs = set(trace.input_ids)
    begin, end, is_complete = {}, {}, True
    for number, (call, _) in enumerate(steps):
        for tensor, spec in zip(call.input_ids, call.input_specs, strict=True):
            if tensor in inputs:
                begin.setdefault(tensor, 0)
            elif tensor not in begin:
                if not isinstance(call.layer, keras.layers.Layer):
                    continue  # a constant of an operation
                begin[tensor] = number
                is_complete &= keras.backend.standardize_dtype(spec.dtype) == "bool"
            end[tensor] = number
        for tensor in call.output_ids:
            begin.setdefault(tensor, number)
            end[tensor] = max(number, end.get(tensor, number))
    for tensor in trace.output_ids:
        is_complete &= tensor in begin or tensor in inputs
        if tensor in begin:
            end[tensor] = len(steps)
    return begin, end, is_complete


def _sizes(trace):
    found = {}

    def note(ids, specs):
        specs = [spec for spec in keras.tree.flatten(specs) if hasattr(spec, "shape")]
        for tensor, spec in zip(ids, specs, strict=True):
            found[tensor] = _bytes_of(spec)

    note(trace.input_ids, trace.inputs)
    for call in trace.calls:
        note(call.input_ids, call.input_specs)
        note(call.output_ids, call.output_specs)
    return found


def _bytes_of(spec):
    if any(size is None for size in spec.shape):
        return None
    return math.prod(spec.shape) * bytes_per_value(spec.dtype)


def _more_inside(call, inside, sizes, begin):
    """What an attention holds beside its inputs and outputs, at its widest moment."""
    if not isinstance(call.layer, _ATTENTION):
        return 0
    made = {other.layer.name: other for other in inside}
    if not {"query", "key", "value", "attention_output"} <= set(made):
        return 0
    query, key, value = (made[name].output_specs.shape for name in ("query", "key", "value"))
    axes = getattr(call.layer, "attention_axes", None) or range(1, len(query) - 2)
    per_value = bytes_per_value(made["query"].output_specs.dtype)
    scores = math.prod(query[:-1]) * math.prod(key[axis] for axis in axes) * per_value
    projected = sum(sizes[made[name].output_ids[0]] for name in ("query", "key", "value"))
    values = sizes[made["value"].output_ids[0]]
    mixed = math.prod(query[:-1]) * value[-1] * per_value
    # The output, which counts already, is there only in the last of these three moments.
    output = sum(sizes[tensor] for tensor in call.output_ids if tensor in begin)
    return max(projected + scores - output, values + scores + mixed - output, mixed)
