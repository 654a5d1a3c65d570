"""Digests of a model: which teacher it is."""

import hashlib
import json

import keras

from keras_ktan.utils.array_digest import array_digest, combined
from keras_ktan.utils.finite import value_of

# What in a config says nothing of the outputs in inference.
_WITHOUT_INFLUENCE = ("build_config", "compile_config", "shared_object_id", "trainable")
# Where a functional model's config refers to its layers.
_REFERENCES = ("keras_history", "input_layers", "output_layers")


def weights_digest(model):
    """A digest of a model's weights, without their names and without random states.

    Args:
        model: A built `keras.Model`.

    Returns:
        Text.
    """
    weights = map(value_of, model.weights)
    return combined([array_digest(keras.ops.convert_to_numpy(weight)) for weight in weights])


def config_digest(model):
    """A digest of a model's config, or `None` for a subclassed model that has none.

    Layers' names are replaced by their order: the same code run twice in one process gives
    `conv2d_1` where it gave `conv2d`. Only where a name stands: an activation `"relu"` stays
    what it is in a layer that is called `relu`.
    """
    try:
        config = keras.saving.serialize_keras_object(model)
    except NotImplementedError:
        return None
    text = json.dumps(_Names().canonical(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def teacher_digest(model):
    """A digest of the weights and of the layers, which make of the same weights other outputs.

    Args:
        model: A built `keras.Model`.

    Returns:
        Text.
    """
    return f"{weights_digest(model)} {config_digest(model)}"


class _Names:
    """Numbers for the names of layers, in the order in which they appear."""

    def __init__(self):
        self._numbers = {}

    def canonical(self, value):
        """A part of a config without what has no influence, layers' names as numbers."""
        if isinstance(value, (list, tuple)):
            return [self.canonical(item) for item in value]
        if not isinstance(value, dict):
            return value
        is_layer = "class_name" in value and _is_layer(value)
        made = {}
        for key, item in value.items():
            if key in _WITHOUT_INFLUENCE:
                continue
            if key == "config" and is_layer:
                item = {**item, "name": self._number(item["name"])}
            elif key == "name" and is_layer:  # beside the config, in a functional model
                item = self._number(item)
            elif key in _REFERENCES:
                item = self._references(item)
            made[key] = item if key == "dtype" else self.canonical(item)
        return made

    def _number(self, name):
        return self._numbers.setdefault(name, f"layer {len(self._numbers)}")

    def _references(self, value):
        if isinstance(value, dict):
            return {key: self._references(item) for key, item in value.items()}
        if not isinstance(value, (list, tuple)):
            return value
        if len(value) == 3 and isinstance(value[0], str):  # a layer, its call, its output
            return [self._number(value[0]), *value[1:]]
        return [self._references(item) for item in value]


def _is_layer(serialized):
    """Whether an object's config is a layer's: losses, policies and the like have names, too."""
    config = serialized.get("config")
    return (
        isinstance(config, dict)
        and isinstance(config.get("name"), str)
        and (
            "trainable" in config
            or "build_config" in serialized
            or "inbound_nodes" in serialized  # an operation of a functional model
            or serialized["class_name"] == "InputLayer"
        )
    )
