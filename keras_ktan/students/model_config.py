"""Read the graph of a model from its config, edit the config, build from it."""

import copy
import dataclasses

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class TensorReference:
    """A symbolic tensor in the arguments of a call.

    Args:
        key: Tuple of the layer's name, the number of its call and the number of the output.
        shape: The tensor's shape.
    """

    key: tuple
    shape: tuple


@dataclasses.dataclass(frozen=True)
class Constant:
    """An array in the arguments of a call.

    Args:
        value: The array.
        location: Keys that lead to its values in the config.
    """

    value: np.ndarray
    location: tuple


@dataclasses.dataclass(frozen=True)
class Part:
    """A slice in the arguments of a call.

    Args:
        value: The slice.
        location: Keys that lead to its `start`, `stop` and `step` in the config.
    """

    value: slice
    location: tuple


def is_model(layer):
    """Whether a layer is a model, whose layers are looked at one by one."""
    return isinstance(layer, keras.Model)


def validate_is_graph(model, path=""):
    """Refuse what has no graph: a subclassed model, or one that was never built.

    Args:
        model: A `keras.Model`.
        path: Its path in the teacher; empty for the teacher itself.

    Raises:
        ValueError: If `get_config()` cannot say how the model's tensors are connected.
    """
    what = f"the model '{path}' inside the teacher" if path else f"the teacher '{model.name}'"
    try:
        inputs, outputs = model.inputs, model.outputs
    except (AttributeError, ValueError):
        inputs = outputs = None
    if not inputs or not outputs:
        raise ValueError(
            f"`slim_student` received {what}, a {type(model).__name__}, which is subclassed or "
            "has not been built, so nothing says how its tensors are connected. Expected a "
            "Functional or Sequential model that has been built. Build it (for Sequential: begin "
            "with `keras.Input`), rewrite it as a Functional model, or pass "
            "`rules={" + type(model).__name__ + ": function}` where it is a layer of the "
            "teacher; otherwise write a student of your own and pass it to `KTANDistiller`."
        )


def model_config(model):
    """A model's config, with every nested model as a plain Functional or Sequential one.

    Subclasses of Functional models with constructors of their own (as KerasHub's backbones are)
    have a config that does not list their layers; they are written as what they are inside.

    Args:
        model: A built Functional or Sequential model.

    Returns:
        A dict for `build_from_config`.
    """
    config = model.get_config()
    if "layers" not in config:
        config = keras.Model(model.input, model.output, name=model.name).get_config()
    layers = {layer.name: layer for layer in model.layers}
    for entry in config["layers"]:
        layer = layers.get(entry_name(entry))  # operations are no layers
        if is_model(layer) and is_graph(layer):
            inner = model_config(layer)
            if not isinstance(layer, keras.Sequential) and "layers" not in layer.get_config():
                plain = keras.Model(layer.input, layer.output, name=layer.name)
                entry.update(keras.saving.serialize_keras_object(plain))
            entry["config"] = inner
    return config


def is_graph(model):
    """Whether a model's tensors and how they are connected are known."""
    try:
        validate_is_graph(model)
    except ValueError:
        return False
    return True


def graph_config(model, config):
    """A config that says how the tensors of a model are connected.

    Args:
        model: A built Functional or Sequential model.
        config: What `model_config` made of it.

    Returns:
        `config`, or for a Sequential model the config of the same layers as a Functional one.
    """
    if "input_layers" in config:
        return config
    return keras.Model(model.inputs, model.outputs, name=model.name).get_config()


def entry_name(entry):
    """The name of a layer or operation in a model's config."""
    return entry.get("name") or entry["config"]["name"]


def parse_arguments(value, location):
    """Serialised arguments of a call with references and constants in their places.

    Args:
        value: A part of `inbound_nodes`.
        location: Keys that lead to it in the config.

    Returns:
        The arguments, with `TensorReference`, `Constant` and `Part` in them.
    """
    if isinstance(value, dict):
        kind = value.get("class_name")
        if kind == "__keras_tensor__":
            name, node, output = value["config"]["keras_history"]
            return TensorReference((name, node, output), tuple(value["config"]["shape"]))
        if kind in ("__numpy__", "__tensor__"):
            array = np.array(value["config"]["value"], dtype=value["config"]["dtype"])
            return Constant(array, (*location, "config", "value"))
        if kind == "__slice__":
            part = slice(*(value["config"][key] for key in ("start", "stop", "step")))
            return Part(part, (*location, "config"))
        if kind == "__ellipsis__":
            return Ellipsis
        return {key: parse_arguments(v, (*location, key)) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [parse_arguments(v, (*location, number)) for number, v in enumerate(value)]
    return value


def edited_config(config, edits):
    """A copy of a config with other values.

    Args:
        config: What `model_config` returned.
        edits: Dict from locations (tuples of keys) to new values.

    Returns:
        The copy, without what was recorded about building and compiling.
    """
    config = copy.deepcopy(config)
    for location, value in edits.items():
        holder = config
        for key in location[:-1]:
            holder = holder[key]
        holder[location[-1]] = value
    _forget_what_was_built(config)
    return config


def _forget_what_was_built(value):
    # A layer would be built with the shape in `build_config` before it meets its narrower input,
    # and a nested model that was compiled would get an optimizer.
    if isinstance(value, dict):
        for key in ("build_config", "build_input_shape", "compile_config"):
            value.pop(key, None)
        for inner in value.values():
            _forget_what_was_built(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _forget_what_was_built(inner)


def seeded_config(config, seed):
    """A copy of a config whose initializers have seeds, another one each.

    Args:
        config: A model's config.
        seed: An integer.

    Returns:
        The copy.
    """
    config = copy.deepcopy(config)
    numbers = np.random.default_rng(seed)

    def visit(value):
        if isinstance(value, dict):
            if value.get("module") == "keras.initializers" and "seed" in value["config"]:
                value["config"]["seed"] = int(numbers.integers(2**31))
            for inner in value.values():
                visit(inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                visit(inner)

    visit(config)
    return config


def build_from_config(teacher, config):
    """A model of the teacher's kind.

    Args:
        teacher: The model the config was read from.
        config: The edited config.

    Returns:
        A built `keras.Model`.
    """
    plain = not isinstance(teacher, keras.Sequential) and "layers" not in teacher.get_config()
    with keras.saving.custom_object_scope(_own_classes(teacher)):
        return (keras.Model if plain else type(teacher)).from_config(config)


def _own_classes(model):
    """Classes of layers that Keras may not know, by name."""
    found = {}
    for layer in model.layers:
        if is_model(layer) and is_graph(layer):
            found.update(_own_classes(layer))
        elif not type(layer).__module__.startswith("keras."):
            found[type(layer).__name__] = type(layer)
    return found
