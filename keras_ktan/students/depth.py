"""A shallower copy of a teacher: residual blocks hand on what they are given."""

import fnmatch

import keras

from keras_ktan.introspection.model_trace import layers_by_path
from keras_ktan.students.model_config import (
    TensorReference,
    build_from_config,
    edited_config,
    entry_name,
    graph_config,
    is_model,
    model_config,
    parse_arguments,
)


def without_blocks(teacher, patterns):
    """Leave the branches of residual blocks out.

    A residual block adds what its layers compute to what it was given. Without these layers it
    hands on what it was given, so that every later layer still finds maps of the right kind.

    Args:
        teacher: A built Functional model; nested models are looked into.
        patterns: List of patterns of paths, as in `fnmatch`, of the additions at the ends of the
            blocks.

    Returns:
        A model with the teacher's name and weights, and without the layers that are used no more.

    Raises:
        ValueError: If a pattern matches no addition of a block and its own input.
    """
    if isinstance(patterns, str) or not patterns:
        raise ValueError(
            f"Received drop_blocks={patterns!r}. Expected a list of paths of Add layers. Write "
            f"`drop_blocks=[{patterns or 'add_1'!r}]`, for example."
        )
    known, matched = [], set()
    config = _shortened(teacher, model_config(teacher), "", patterns, known, matched)
    idle = [pattern for pattern in patterns if pattern not in matched]
    if idle:
        raise ValueError(
            f"Received drop_blocks with {idle}, which match no addition in '{teacher.name}'. "
            f"Expected paths of the additions that end residual blocks; there are {known}. "
            "Correct them."
        )
    shallow = build_from_config(teacher, edited_config(config, {}))
    weights = layers_by_path(teacher)
    for path, layer in layers_by_path(shallow).items():
        if not is_model(layer) and layer.weights:
            layer.set_weights(weights[path].get_weights())
    return shallow


def _shortened(model, config, prefix, patterns, known, matched):
    """The config with every reference to a matched addition turned to the block's input."""
    sequential = isinstance(model, keras.Sequential)
    if not sequential:
        config = graph_config(model, config)
    layers = {layer.name: layer for layer in model.layers}
    instead = {}
    for entry in config["layers"]:
        path = f"{prefix}{entry_name(entry)}"
        layer = layers.get(entry_name(entry))
        if layer is not None and is_model(layer):
            entry["config"] = _shortened(
                layer, entry["config"], f"{path}/", patterns, known, matched
            )
        # The layer, or the operation that `+` leaves in a graph. What else a pattern such as
        # "stage_2*" matches stays.
        elif entry["class_name"] == "Add":
            known.append(path)
            found = [pattern for pattern in patterns if fnmatch.fnmatchcase(path, pattern)]
            matched.update(found)
            if found:
                instead[entry_name(entry)] = _shortcut(config, entry, path)
    return config if sequential else _redirected(config, instead)


def _inputs(entry):
    """References to the tensors that an entry takes."""
    found = []
    for node in entry["inbound_nodes"]:
        arguments = parse_arguments(node, ())
        found += [
            leaf for leaf in keras.tree.flatten(arguments) if isinstance(leaf, TensorReference)
        ]
    return found


def _needed(config, names):
    """Names of some layers and of all whose outputs they are computed from."""
    entries = {entry_name(entry): entry for entry in config["layers"]}
    needed, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += [reference.key[0] for reference in _inputs(entries[name])]
    return needed


def _shortcut(config, entry, path):
    """The history of the tensor that a block was given, which its branch computes from."""
    inputs = _inputs(entry)
    handed_on = [
        reference
        for reference in inputs
        if all(
            other is reference or reference.key[0] in _needed(config, [other.key[0]])
            for other in inputs
        )
    ]
    if len(entry["inbound_nodes"]) != 1 or len(inputs) < 2 or len(handed_on) != 1:
        raise ValueError(
            f"Received drop_blocks with '{path}', which adds {[ref.key[0] for ref in inputs]}. "
            "Expected the sum of a block's input as it is and of what the block makes of it. "
            "A block that changes the size of its input cannot be left out; name others."
        )
    return handed_on[0].key


def _redirected(config, instead):
    """A config without the additions in `instead` and without what then leads to no output."""

    def resolve(history):
        history = list(history)
        while history[0] in instead:
            history = list(instead[history[0]])
        return history

    def visit(value):
        if isinstance(value, dict):
            if value.get("class_name") == "__keras_tensor__":
                value["config"]["keras_history"] = resolve(value["config"]["keras_history"])
                return
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for inner in value:
                visit(inner)

    for entry in config["layers"]:
        visit(entry["inbound_nodes"])
    config["output_layers"] = _mapped(config["output_layers"], resolve)
    ends = [*_histories(config["output_layers"]), *_histories(config["input_layers"])]
    used = _needed(config, [history[0] for history in ends])
    config["layers"] = [entry for entry in config["layers"] if entry_name(entry) in used]
    return config


def _is_history(value):
    return isinstance(value, (list, tuple)) and len(value) == 3 and isinstance(value[0], str)


def _mapped(value, function):
    if _is_history(value):
        return function(value)
    if isinstance(value, dict):
        return {key: _mapped(inner, function) for key, inner in value.items()}
    return [_mapped(inner, function) for inner in value]


def _histories(value):
    if _is_history(value):
        return [value]
    inner = value.values() if isinstance(value, dict) else value
    return [history for one in inner for history in _histories(one)]
