"""Visit the calls of a functional model in the order of the data."""

import dataclasses
import inspect
import typing

import keras

from keras_ktan.students.model_config import (
    Constant,
    Part,
    TensorReference,
    entry_name,
    graph_config,
    is_model,
    parse_arguments,
)


@dataclasses.dataclass(frozen=True)
class Node:
    """One call of a layer or an operation.

    Args:
        layer: The layer or operation.
        path: Its path, with nested models before it.
        config: Its entry in the model's config.
        location: Keys that lead to this entry.
        args: Arguments, with what was computed for their tensors, `Constant` and `Part`.
        kwargs: Named arguments, likewise.
        output_shapes: Dict from the outputs' numbers to their shapes, where somebody reads them.
    """

    layer: typing.Any
    path: str
    config: dict
    location: tuple
    args: list
    kwargs: dict
    output_shapes: dict


def walk(model, config, inputs, visit, location=(), prefix=""):
    """Visit every call of a model's layers and operations once.

    Args:
        model: A built Functional or Sequential model.
        config: Its config (see `model_config`).
        inputs: What stands for its inputs, flat.
        visit: Function of a `Node` that returns what stands for its outputs, as a flat list.
        location: Keys that lead to `config`.
        prefix: The model's path with a slash at the end; empty for the outermost.

    Returns:
        What stands for the model's outputs, flat.
    """
    graph = graph_config(model, config)
    places = {entry_name(entry): place for place, entry in enumerate(config["layers"])}
    operations = _operations(model)
    shapes = _output_shapes(graph, model, operations)
    known = dict(zip(_references(graph["input_layers"]), inputs, strict=True))
    waiting = [
        (entry_name(entry), number, node)
        for entry in graph["layers"]
        for number, node in enumerate(entry["inbound_nodes"])
    ]
    while waiting:
        later = []
        for name, number, data in waiting:
            at = (*location, "layers", places[name])
            data = parse_arguments(data, (*at, "inbound_nodes", number))
            if not _is_ready(data, known):
                later.append((name, number, data))
                continue
            data = _resolve(data, known)
            node = Node(
                layer=operations[name],
                path=prefix + name,
                config=config["layers"][places[name]],
                location=at,
                args=data["args"],
                kwargs=data["kwargs"],
                output_shapes=shapes.get((name, number), {}),
            )
            known.update({(name, number, i): output for i, output in enumerate(visit(node))})
        waiting = later
    return [known[key] for key in _output_keys(graph, operations)]


def input_names(model, config):
    """The names of a model's input layers, in the order of its inputs."""
    return [name for name, _, _ in _references(graph_config(model, config)["input_layers"])]


def _operations(model):
    """Layers and operations of a model by name."""
    found = {layer.name: layer for layer in model.layers}
    if not isinstance(model, keras.Sequential):
        found.update({operation.name: operation for operation in model.operations})
    return found


def _references(structure):
    """The keys (name, call, output) of a model's inputs or outputs, flat."""
    if isinstance(structure, dict):
        return [key for name in sorted(structure) for key in _references(structure[name])]
    if len(structure) == 3 and isinstance(structure[0], str):
        return [tuple(structure)]
    return [key for part in structure for key in _references(part)]


def _output_keys(graph, operations):
    """What `output_layers` means: nested Functional models count their calls from 1 there."""
    keys = []
    for name, call, output in _references(graph["output_layers"]):
        layer = operations[name]
        if is_model(layer) and not isinstance(layer, keras.Sequential):
            call -= 1
        keys.append((name, call, output))
    return keys


def _output_shapes(graph, model, operations):
    shapes = {}
    nodes = [entry["inbound_nodes"] for entry in graph["layers"]]
    for leaf in keras.tree.flatten(parse_arguments(nodes, ())):
        if isinstance(leaf, TensorReference):
            name, call, output = leaf.key
            shapes.setdefault((name, call), {})[output] = leaf.shape
    for key, tensor in zip(_output_keys(graph, operations), model.outputs, strict=True):
        name, call, output = key
        shapes.setdefault((name, call), {})[output] = tuple(tensor.shape)
    return shapes


def _is_ready(data, known):
    return all(
        leaf.key in known for leaf in keras.tree.flatten(data) if isinstance(leaf, TensorReference)
    )


def _resolve(data, known):
    return keras.tree.map_structure(
        lambda leaf: known[leaf.key] if isinstance(leaf, TensorReference) else leaf, data
    )


def _takes_training(layer):
    return "training" in inspect.signature(layer.call).parameters


def run(model, config, inputs, on_call, opens):
    """Compute a model's outputs call by call.

    Args:
        model: A built Functional or Sequential model.
        config: Its config (see `model_config`).
        inputs: Its inputs, flat.
        on_call: Function of the path of a layer and its first input, called before it runs.
        opens: Function that says whether a layer is a model to be opened.

    Returns:
        The outputs, flat.
    """

    def visit(node):
        tensors = [leaf for leaf in keras.tree.flatten(node.args) if keras.ops.is_tensor(leaf)]
        if opens(node.layer):
            return walk(node.layer, node.config["config"], tensors, visit, prefix=node.path + "/")
        if tensors:
            on_call(node.path, tensors[0])
        args, kwargs = keras.tree.map_structure(
            lambda leaf: leaf.value if isinstance(leaf, (Constant, Part)) else leaf,
            (node.args, node.kwargs),
        )
        if type(node.layer).__name__ == "GetItem":
            args = [args[0], tuple(args[1]) if isinstance(args[1], list) else args[1]]
        if isinstance(node.layer, keras.Layer) and _takes_training(node.layer):
            kwargs["training"] = False  # augmentation layers would augment otherwise
        return keras.tree.flatten(node.layer(*args, **kwargs))

    return walk(model, config, inputs, visit)
