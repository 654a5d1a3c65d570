"""Counts the multiply-accumulates of one forward pass, call by call."""

import dataclasses
import functools
import math

import keras

from keras_ktan.introspection.model_trace import sublayers
from keras_ktan.report.counted_call import CountedCall
from keras_ktan.report.layer_macs import (
    LAYER_RULES,
    NAMED_LAYER_RULES,
    no_products,
    output_size,
)
from keras_ktan.report.operation_macs import OPERATION_RULES


@dataclasses.dataclass(frozen=True)
class CountedMacs:
    """What was counted, and what was not.

    Args:
        macs: Multiply-accumulates for one example; `None` where an axis of a map is open.
        uncounted: Paths of layers and operations that multiply, or hold weights, in a way that no
            rule knows.
        unseen: Names of classes outside Keras that have a `call` of their own. What they multiply
            there is not seen.
    """

    macs: int | None
    uncounted: tuple[str, ...]
    unseen: tuple[str, ...]


def count_macs(trace, batch_size=1, rules=None):
    """Count the multiply-accumulates of one forward pass on one example.

    Args:
        trace: A `ModelTrace` of batches of a known size, with operations.
        batch_size: That size.
        rules: Optional dict from layer classes to functions of a `CountedCall`.

    Returns:
        A `CountedMacs`.
    """
    find = functools.partial(find_rule, rules=rules or {})
    done = []  # one (number of the call, macs, what is not counted) for each outermost call
    for number, call in enumerate(trace.calls):
        macs, uncounted = 0, []
        while done and done[-1][0] >= call.first_inside:
            _, inner_macs, inner_uncounted = done.pop()
            macs += inner_macs
            uncounted = inner_uncounted + uncounted
        own = _own_macs(call, trace.calls[call.first_inside : number], find)
        if isinstance(call.layer, keras.layers.RNN):
            # How often a backend calls the cell while it traces the loop says nothing.
            macs, uncounted = 0, []
        if own is None:
            uncounted.append(call.path)
        done.append((number, macs + (own or 0), uncounted))
    total = sum(macs for _, macs, _ in done)
    uncounted = [path for _, _, paths in done for path in paths] + _never_called(trace, find)
    return CountedMacs(
        macs=None if math.isnan(total) else int(total) // batch_size,
        uncounted=tuple(dict.fromkeys(uncounted)),
        unseen=_unseen(trace, find),
    )


def find_rule(layer, rules):
    """The rule for a layer or an operation.

    Args:
        layer: The layer or the operation.
        rules: Dict from layer classes to the user's rules, which are asked first.

    Returns:
        A function of a `CountedCall`, or `None`.
    """
    for table in (rules, LAYER_RULES):
        for known in type(layer).__mro__:
            if known in table:
                return table[known]
    if type(layer).__module__.partition(".")[0] != "keras":
        return None
    if not isinstance(layer, keras.Layer):
        # What is not in the table adds, compares or moves values.
        return OPERATION_RULES.get(type(layer).__name__, no_products)
    return NAMED_LAYER_RULES.get(type(layer).__name__)


def _own_macs(call, calls_inside, find):
    """What a call multiplies beside the calls inside it; `None` where nobody knows."""
    rule = find(call.layer)
    if rule is None:
        return None if _own_weights(call.layer) else 0
    if rule is no_products:
        return 0
    taken, made = _shapes(call.input_specs), _shapes(call.output_specs)
    if any(size is None for shape in taken + made for size in shape):
        return float("nan")

    def macs_of_cell(cell, shape):
        cell_rule = find(cell)
        if cell_rule is None:
            return None
        step = CountedCall(cell, [shape], [(*shape[:-1], output_size(cell))])
        return cell_rule(dataclasses.replace(step, macs_of_cell=macs_of_cell))

    inside = {
        other.layer.name: _shapes(other.output_specs)[0]
        for other in calls_inside
        if _shapes(other.output_specs)
    }
    return rule(CountedCall(call.layer, taken, made, inside, macs_of_cell))


def _shapes(specs):
    return [tuple(leaf.shape) for leaf in keras.tree.flatten(specs) if hasattr(leaf, "shape")]


def _own_weights(layer):
    inner = {id(weight) for child in sublayers(layer) for weight in child.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]


def _never_called(trace, find):
    """Layers whose weights are used without a call, by a fused kernel for example, or not at all.

    Whoever was called and has a rule answers for the layers inside it.
    """
    known = {id(call.layer) for call in trace.calls}

    def answer_for(layer):
        for child in sublayers(layer):
            if id(child) not in known:
                known.add(id(child))
                answer_for(child)

    for call in trace.calls:
        if find(call.layer) is not None:
            answer_for(call.layer)
    return [
        path
        for path, layer in trace.layers.items()
        if id(layer) not in known and _own_weights(layer) and find(layer) is not no_products
    ]


def _unseen(trace, find):
    """Classes whose `call` Keras did not write: operations in there are no calls of layers."""
    names = {
        type(layer).__name__
        for layer in [trace.model, *(call.layer for call in trace.calls)]
        if isinstance(layer, keras.layers.Lambda)
        or getattr(type(layer).call, "__module__", "").partition(".")[0] != "keras"
        if find(layer) is None
    }
    return tuple(sorted(names))
