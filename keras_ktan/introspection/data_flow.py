"""How data flows through a traced model: who needs which tensors and makes which."""

import collections

import keras

from keras_ktan.introspection.model_trace import sublayers

Node = collections.namedtuple("Node", ["position", "layer", "needs", "makes", "inside"])
Node.__doc__ = """One step of a model: a layer's call, or an operation between layers.

`position` is the number of the call in `trace.calls`, `None` for an operation; `layer` is the
layer, for an operation the model that has it. `needs` and `makes` identify tensors. `inside`
holds the nodes of the calls inside it where what happens there cannot be followed.
"""


def data_flow(trace):
    """The steps of a model in order.

    A model or a layer that can be followed inside is replaced by its inner steps. One that has
    operations of its own between its layers is a single step. In a Functional model such
    operations are known, and are steps, too.

    Args:
        trace: A `ModelTrace`.

    Returns:
        A list of `Node`.
    """
    inner_ids = {}

    def inside_of(layer):
        if id(layer) not in inner_ids:
            inner_ids[id(layer)] = found = set()
            for child in sublayers(layer):
                found |= {id(child)} | inside_of(child)
        return inner_ids[id(layer)]

    nodes = []
    for position, call in enumerate(trace.calls):
        inner = []
        # A call ends after the calls inside it, so that these stand right before it.
        known = inside_of(call.layer)
        while nodes and id(nodes[-1].layer) in known:
            inner.append(nodes.pop())
        inner.reverse()
        needs, makes = _needs(call), list(call.output_ids)
        if not is_composite(call.layer):
            inner = []
        inner = _with_operations(call.layer, inner, needs, makes, trace.calls)
        if inner and _is_closed(inner, needs, makes):
            nodes.extend(inner)
        else:
            nodes.append(Node(position, call.layer, needs, makes, inner))
    return _with_operations(trace.model, nodes, [], trace.output_ids, trace.calls)


def is_composite(layer):
    """Whether a layer is looked into: a model, or a layer of the user's with layers of its own.

    Args:
        layer: A `keras.layers.Layer`.

    Returns:
        A boolean. Keras's own layers, such as an attention, are taken as a whole.
    """
    if isinstance(layer, keras.Model):
        return True
    return type(layer).__module__.split(".")[0] != "keras" and bool(sublayers(layer))


def _needs(call):
    # Masks, which say where there is no data, are no features.
    return [
        tensor_id
        for tensor_id, spec in zip(call.input_ids, call.input_specs, strict=True)
        if keras.backend.standardize_dtype(spec.dtype) != "bool"
    ]


def _is_closed(inner, needs, makes):
    """Whether nothing happens inside a call but the inner steps on each other's outputs."""
    known = set(needs)
    for node in inner:
        if not known.issuperset(node.needs):
            return False
        known.update(node.makes)
    return known.issuperset(makes)


def _with_operations(model, nodes, input_ids, output_ids, calls):
    """The steps of a Functional model with the operations that it has between its layers."""
    operations = getattr(model, "operations", [])
    if all(isinstance(operation, keras.layers.Layer) for operation in operations):
        return nodes
    known = _traced_ids(model, nodes, input_ids, output_ids, calls)
    made_at = {}
    for number, node in enumerate(nodes):
        for tensor_id in node.makes:
            made_at.setdefault(tensor_id, number)
    placed = collections.defaultdict(list)
    for operation in operations:
        if isinstance(operation, keras.layers.Layer):
            continue
        taken = [id(tensor) for tensor in keras.tree.flatten(operation.input)]
        if not known.keys() >= set(taken):
            continue
        needs = [known[tensor] for tensor in taken]
        number = max((made_at.get(tensor_id, -1) for tensor_id in needs), default=-1)
        makes = []
        for tensor in keras.tree.flatten(operation.output):
            # No layer takes it: it gets a name of its own.
            makes.append(known.setdefault(id(tensor), ("between", id(tensor))))
            made_at.setdefault(makes[-1], number)
        placed[number].append(Node(None, model, needs, makes, []))
    ordered = placed[-1]
    for number, node in enumerate(nodes):
        ordered += [node, *placed[number]]
    return ordered


def _traced_ids(model, nodes, input_ids, output_ids, calls):
    """From the symbolic tensors of a Functional model to the tensors of its trace."""
    known = {}

    def link(symbolic, traced):
        symbolic = keras.tree.flatten(symbolic)
        if len(symbolic) == len(traced):
            for tensor, tensor_id in zip(symbolic, traced, strict=True):
                known.setdefault(id(tensor), tensor_id)

    runs = collections.Counter(id(node.layer) for node in nodes if node.position is not None)
    own = {id(operation) for operation in model.operations}
    for node in nodes:
        # A nested model's tensors are those of its own graph, not of this one.
        is_layer = node.position is not None and not isinstance(node.layer, keras.Model)
        if is_layer and id(node.layer) in own and runs[id(node.layer)] == 1:
            call = calls[node.position]
            link(node.layer.input, call.input_ids)
            link(node.layer.output, call.output_ids)
    link(model.inputs, input_ids)
    link(model.outputs, output_ids)
    return known
