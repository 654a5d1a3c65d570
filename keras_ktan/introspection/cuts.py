"""Cuts: the feature maps through which everything in a model passes.

A map is a cut if the outputs depend on the inputs through this map alone. The calls of a trace
say which tensors are still needed behind each layer, and a layer behind which only its own output
is needed makes a cut. Operations between layers, such as the sum in `inputs + layer(inputs)`, are
not traced. Where one of them could lead around a map, the cut is not `certain`, and
`substitution.confirms` has to test it.
"""

import collections
import math

import keras

from keras_ktan.introspection.data_flow import data_flow
from keras_ktan.introspection.layer_kinds import HIDING
from keras_ktan.introspection.model_trace import ambiguous_paths

Cut = collections.namedtuple(
    "Cut", ["path", "layer", "spec", "position", "tensor_id", "source", "certain"]
)
Cut.__doc__ = """A map through which everything passes, as far as the trace shows.

`position` is the number of the call that made it in `trace.calls`. `source` is the tensor that it
was made of, where that is one that no other traced call takes, else `None`: if this map is a cut,
so is that one. `certain` says that no untraced operation could lead around it.
"""

# Their output is no other map than their input, or has holes in training.
_NO_MAP_OF_THEIR_OWN = (
    keras.layers.InputLayer,
    *HIDING,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
    keras.layers.Identity,
)

# Layers that only prepare the inputs, though some of them hold weights.
_PREPROCESSING = (keras.layers.Normalization, keras.layers.Rescaling)


def is_map(spec):
    """Whether a tensor is a feature map: floats at more than one position.

    Args:
        spec: A tensor or a `keras.KerasTensor`.

    Returns:
        A boolean. An axis of unknown length counts as more than one position.
    """
    shape = getattr(spec, "shape", None)
    if shape is None or not 3 <= len(shape) <= 5 or shape[-1] is None:
        return False
    positions = math.prod(2 if size is None else size for size in shape[1:-1])
    return positions > 1 and "float" in keras.backend.standardize_dtype(spec.dtype)


def find_cuts(trace):
    """The cuts of a model, as far as its trace shows.

    Args:
        trace: A `ModelTrace`.

    Returns:
        A list of `Cut`, in the order in which the model makes them.
    """
    nodes = data_flow(trace)
    found = []
    _cuts_of(nodes, trace.output_ids, certain=True, found=found)
    runs = collections.Counter(id(call.layer) for call in trace.calls)
    ambiguous = ambiguous_paths(trace.model)
    first_weights = min(
        (
            position
            for position, call in enumerate(trace.calls)
            if call.layer.weights and not isinstance(call.layer, _PREPROCESSING)
        ),
        default=len(trace.calls),
    )
    cuts = []
    for position, tensor_id, source, certain in sorted(found, key=lambda entry: entry[0]):
        call = trace.calls[position]
        if (
            position >= first_weights
            and runs[id(call.layer)] == 1
            and call.path not in ambiguous
            and not isinstance(call.layer, _NO_MAP_OF_THEIR_OWN)
        ):
            key, spec = _output(call, tensor_id)
            if spec is not None and is_map(spec):
                path = call.path if key is None else f"{call.path}:{key}"
                cuts.append(Cut(path, call.layer, spec, position, tensor_id, source, certain))
    return cuts


def map_calls(trace):
    """The calls that made feature maps, cuts or not, in order.

    Args:
        trace: A `ModelTrace`.

    Returns:
        A list of positions in `trace.calls`. Left out are layers inside a layer of Keras's own,
        such as the projections of an attention, and padding, whose sizes mean nothing.
    """
    positions = []

    def collect(nodes):
        for node in nodes:
            if node.inside:
                collect(node.inside)
            if node.position is not None:
                positions.append(node.position)

    collect(data_flow(trace))
    return [
        position
        for position in positions
        if not isinstance(trace.calls[position].layer, _NO_MAP_OF_THEIR_OWN)
        and any(is_map(spec) for spec in keras.tree.flatten(trace.calls[position].output_specs))
    ]


def _output(call, tensor_id):
    """The key and the spec of one output of a call; `(None, None)` if no path can name it."""
    outputs = call.output_specs
    if not keras.tree.is_nested(outputs):
        return None, outputs
    items = outputs.items() if isinstance(outputs, dict) else enumerate(outputs)
    items = [(str(key), value) for key, value in items if hasattr(value, "shape")]
    if len(items) != len(call.output_ids):
        return None, None
    # `keras.tree` flattens a dict in the order of its sorted keys.
    items = sorted(items) if isinstance(outputs, dict) else items
    return next(
        item for item, made in zip(items, call.output_ids, strict=True) if made == tensor_id
    )


def _cuts_of(nodes, output_ids, certain, found):
    """Append `(position, tensor_id, source, certain)` where one tensor alone is still needed."""
    first, last, untraced = _lifetimes(nodes, output_ids)
    readers = collections.Counter(tensor_id for node in nodes for tensor_id in set(node.needs))
    readers.update(output_ids)
    alive = [0] * (len(nodes) + 1)
    for tensor_id, begin in first.items():
        alive[begin] += 1
        alive[last[tensor_id]] -= 1
    needed = 0
    for number, node in enumerate(nodes):
        needed += alive[number]
        # A tensor that an earlier call made was only handed on (a dropout in inference).
        own = [made for made in node.makes if first.get(made) == number and made not in node.needs]
        lasting = [made for made in own if last[made] > number]
        if needed > len(lasting) or len(lasting) > 1:
            continue
        # None lasting: an untraced operation may take the output.
        chosen = lasting or own
        if len(chosen) != 1 or node.position is None:
            continue
        is_certain = certain and bool(lasting) and untraced <= number
        if node.inside:
            _cuts_of(node.inside, node.makes, certain=False, found=found)
            # The layer itself is named, not the part of it that made the same tensor.
            found[:] = [entry for entry in found if entry[1] != chosen[0]]
        is_chained = len(node.needs) == 1 and readers[node.needs[0]] == 1
        source = node.needs[0] if is_chained else None
        found.append((node.position, chosen[0], source, is_certain))


def _lifetimes(nodes, output_ids):
    """When each tensor is first seen and last needed, and when the last untraced one appears."""
    first, last, constant, untraced = {}, {}, set(), -1
    for number, node in enumerate(nodes):
        for tensor_id in node.needs:
            if tensor_id not in first and tensor_id not in constant:
                first[tensor_id] = number
                untraced = number
            last[tensor_id] = number
        for tensor_id in node.makes:
            if tensor_id in first or tensor_id in constant:
                continue
            if node.needs and not constant.issuperset(node.needs):
                first[tensor_id] = last[tensor_id] = number
            else:
                constant.add(tensor_id)
    for tensor_id in output_ids:
        if tensor_id not in first and tensor_id not in constant:
            untraced = len(nodes)
        last[tensor_id] = len(nodes)
    return first, {tensor_id: last[tensor_id] for tensor_id in first}, untraced
