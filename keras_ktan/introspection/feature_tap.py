"""Find layers by path and catch their outputs during one forward pass."""

import collections
import contextlib
import difflib
import functools
import threading

import keras

from keras_ktan.introspection.layer_calls import intercept_calls, is_intercepted
from keras_ktan.introspection.masks import call_with_masks, read_masks
from keras_ktan.introspection.model_trace import ambiguous_paths, layers_by_path


def split_path(path):
    """Split `"backbone/fpn:P3"` into the layer's path and the output's key.

    Args:
        path: A path of layer names, with `:key` behind it for a layer that
            returns a dict (`key` is a name) or a list (`key` is a position).

    Returns:
        A tuple `(layer_path, key)`; `key` is `None` where there is none.
    """
    layer_path, separator, key = path.partition(":")
    return layer_path, (key if separator else None)


def select_output(outputs, key, path):
    """One tensor of what a layer returned.

    Args:
        outputs: What the layer returned.
        key: `None`, or the name or position of the tensor wanted.
        path: The path as the caller wrote it, for the error.

    Returns:
        A tensor.

    Raises:
        ValueError: If the key is missing, or needed and not given.
    """
    if key is None:
        if keras.tree.is_nested(outputs):
            raise ValueError(
                f"The layer at '{path}' returns several tensors ({_keys(outputs)}), and the "
                "path names none of them. Expected one tensor. Add the one you want to the "
                f"path: '{path}:{_keys(outputs)[0]}'."
            )
        return outputs
    if isinstance(outputs, dict) and key in outputs:
        return outputs[key]
    if isinstance(outputs, (list, tuple)) and key.isdigit() and int(key) < len(outputs):
        return outputs[int(key)]
    if keras.tree.is_nested(outputs):
        raise ValueError(
            f"No output '{key}' at '{path}'. Expected one of {_keys(outputs)}. "
            "Correct the part of the path behind the colon."
        )
    raise ValueError(
        f"The layer at '{path}' returns a single tensor, but the path asks for its output "
        f"'{key}'. Expected a path without a colon. Remove ':{key}'."
    )


def _keys(outputs):
    if isinstance(outputs, dict):
        return list(outputs)
    return [str(position) for position in range(len(outputs))]


def find_layer(model, path, role):
    """The layer of a model that a path names.

    Args:
        model: A `keras.Model`.
        path: A path without `:key`.
        role: `"teacher"` or `"student"`, for the error.

    Returns:
        A `keras.layers.Layer`.

    Raises:
        ValueError: If there is no such layer (the error names the nearest ones),
            or if several layers answer to the path.
    """
    layers = layers_by_path(model)
    if path not in layers:
        last = path.rsplit("/", 1)[-1]
        same_name = [known for known in layers if known.rsplit("/", 1)[-1] == last]
        nearest = (same_name + difflib.get_close_matches(path, layers, n=5, cutoff=0.4))[:5]
        raise ValueError(
            f"No layer '{path}' in the {role} '{model.name}'. Expected the path of one of its "
            f"layers; the nearest are {nearest or list(layers)[-5:]}. Correct "
            f"`{role}_layer_name`; layers of nested models are written 'outer/inner'."
        )
    count = ambiguous_paths(model).get(path, 1)
    if count > 1:
        raise ValueError(
            f"{count} layers of the {role} '{model.name}' are called '{path}'. Expected a path "
            "that names one. Give these layers names of their own."
        )
    return layers[path]


Forward = collections.namedtuple(
    "Forward", ["outputs", "maps", "map_masks", "output_masks", "inputs"], defaults=[None]
)
Forward.__doc__ = """What one forward pass of a model gave.

`outputs` is the model's own structure, `maps` the list of the caught tensors, and the masks are
flat lists, one boolean tensor or `None` for each map and for each output. `inputs` is what the
model was given, augmented where it augments.
"""


class FeatureTap:
    """Runs a model once and brings back chosen layers' outputs with its own.

    Args:
        model: The `keras.Model` to run.
        paths: The paths of the layers to catch, with `:key` where a layer returns
            several tensors.
        role: `"teacher"` or `"student"`, for the errors.

    Raises:
        ValueError: If a path names no layer.

    Example:

    ```python
    import keras
    from keras_ktan.introspection.feature_tap import FeatureTap

    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, name="hidden"), keras.layers.Dense(2)]
    )
    outputs, (hidden,) = FeatureTap(model, ["hidden"], "student")(keras.ops.ones((5, 4)))
    print(hidden.shape)  # (5, 3)
    ```
    """

    def __init__(self, model, paths, role):
        self.model = model
        self.paths = list(paths)
        self.role = role
        self._layers = {}
        for path in self.paths:
            layer_path, _ = split_path(path)
            self._layers[layer_path] = find_layer(model, layer_path, role)
        self._thread = None  # the thread in which `attached` is active
        self._catch = None  # what an attached tap does with a layer's call, during a forward pass

    @contextlib.contextmanager
    def attached(self):
        """Listen to the layers for a whole training instead of coming and going at every step.

        For steps that are not compiled: coming and going sets attributes of each layer. Calls
        outside of this tap's forward passes run as they would without it.

        Yields:
            Nothing. On leaving, also by an exception, every layer is as it was.
        """
        if self._thread is not None:  # a training within a callback of another
            yield
            return

        def listen(layer_path):
            def on_call(call, args, kwargs):
                if self._catch is None:
                    return call(*args, **kwargs)
                return self._catch(layer_path, call, args, kwargs)

            return on_call

        with intercept_calls(self._hooks(listen)):
            self._thread = threading.get_ident()
            try:
                yield
            finally:
                self._thread = None

    def _hooks(self, listen):
        return [(layer, listen(layer_path)) for layer_path, layer in self._layers.items()]

    def __call__(self, inputs, training=False, substitutes=None):
        """Run the model once.

        Args:
            inputs: What the model takes.
            training: Passed on to the model.
            substitutes: Optional dict from paths to tensors that the model is to go on
                with in place of what the layers at these paths make.

        Returns:
            A tuple `(outputs, maps)`: the model's outputs and the list of the caught
            tensors, in the order of `paths`.

        Raises:
            ValueError: If a layer ran not at all, or more than once.
        """
        return self.forward(inputs, training, substitutes)[:2]

    def forward(self, inputs, training=False, substitutes=None):
        """Run the model once, and note the masks as well.

        Args:
            inputs: What the model takes.
            training: Passed on to the model.
            substitutes: See `__call__`.

        Returns:
            A `Forward`.

        Raises:
            ValueError: If a layer ran not at all, or more than once.
        """
        substitutes = substitutes or {}
        caught = {layer_path: [] for layer_path in self._layers}

        def catch(layer_path, call, args, kwargs):
            outputs, masks = call_with_masks(self._layers[layer_path], call, args, kwargs)
            for path, tensor in substitutes.items():
                if split_path(path)[0] == layer_path:
                    outputs = _replace_output(outputs, split_path(path)[1], tensor)
            caught[layer_path].append((outputs, masks))
            return outputs

        with self._catching(catch):
            outputs = self.model(inputs, training=training)
        maps, map_masks = [], []
        for path in self.paths:
            layer_path, key = split_path(path)
            if len(caught[layer_path]) != 1:
                raise ValueError(
                    f"The layer '{layer_path}' of the {self.role} '{self.model.name}' ran "
                    f"{len(caught[layer_path])} times in one forward pass. Expected exactly "
                    "once, so that its feature map is one tensor. Name a layer that runs once, "
                    "such as the one behind it."
                )
            made, masks = caught[layer_path][0]
            maps.append(select_output(made, key, path))
            places = [id(tensor) for tensor in keras.tree.flatten(made)]
            map_masks.append(masks[places.index(id(maps[-1]))])
        return Forward(outputs, maps, map_masks, read_masks(outputs), inputs)

    @contextlib.contextmanager
    def _catching(self, catch):
        """Hand the calls of the layers to `catch` for one forward pass."""
        is_attached = self._thread == threading.get_ident()
        # Quantising a layer in a callback, or giving it another `call`, takes the stand-in away.
        if not is_attached or not all(map(is_intercepted, self._layers.values())):
            hooks = self._hooks(lambda layer_path: functools.partial(catch, layer_path))
            with intercept_calls(hooks):
                yield
            return
        before, self._catch = self._catch, catch
        try:
            yield
        finally:
            self._catch = before


def _replace_output(outputs, key, tensor):
    if key is None:
        return tensor
    if isinstance(outputs, dict):
        return {name: tensor if name == key else value for name, value in outputs.items()}
    return type(outputs)(
        tensor if str(position) == key else value for position, value in enumerate(outputs)
    )
