"""What a model's output is: raw scores, or probabilities and of which kind.

Two witnesses are asked. The trace shows the layer that made the output, if a layer did. A few
random inputs show the values, however they are made: rows in [0, 1] that sum to 1 are a softmax's.
Values in [0, 1] alone prove nothing.
"""

import keras
import numpy as np

from keras_ktan.introspection.output_probe import softmax_rows, within_unit_interval

_ACTIVATIONS = {
    keras.activations.softmax: "softmax",
    keras.activations.sigmoid: "sigmoid",
    keras.activations.hard_sigmoid: "sigmoid",
    keras.ops.softmax: "softmax",
    keras.ops.sigmoid: "sigmoid",
    keras.ops.hard_sigmoid: "sigmoid",
}
# Others that are known, and make no probabilities.
_OTHERS = tuple(
    getattr(keras.activations, name)
    for name in ("linear", "relu", "relu6", "tanh", "softplus", "elu", "gelu", "silu", "selu")
) + (keras.activations.log_softmax, keras.ops.log_softmax, keras.ops.relu, keras.ops.tanh)
# These hand on the values as they are, in another shape or in the same one.
_TRANSPARENT = (
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Permute,
    keras.layers.Reshape,
)


def output_keys(outputs):
    """Keys or positions of a model's outputs; `[None]` for a single one."""
    if isinstance(outputs, dict):
        return list(outputs)
    if isinstance(outputs, (list, tuple)):
        return list(range(len(outputs)))
    return [None]


def select(outputs, key):
    """One output of what a model returned.

    Args:
        outputs: What the model returned.
        key: `None` for a single output, else a key or a position.

    Returns:
        A tensor.
    """
    return outputs if key is None else outputs[key]


def validated_key(outputs, key, what, argument):
    """A key that names one tensor of a model's outputs.

    Args:
        outputs: Structure of `keras.KerasTensor`.
        key: Key, position, or `None`.
        what: What the error calls the model.
        argument: Name of the argument that holds the key.

    Returns:
        The key; `None` for a model with a single output.

    Raises:
        ValueError: If there is no such output, or the key is needed and not given.
    """
    known = output_keys(outputs)
    single = known == [None]
    if single and key is not None:
        raise ValueError(
            f"Received {argument}={key!r} in an OutputPair, but the {what} has a single output. "
            f"Expected None. Leave `{argument}` out."
        )
    if key is None and not single:
        if len(known) > 1:
            raise ValueError(
                f"Received {argument}=None in an OutputPair, but the {what} has the outputs "
                f"{known}. Expected one of them. Write `{argument}={known[0]!r}`, for example."
            )
        key = known[0]
    try:
        found = select(outputs, key)
    except (KeyError, IndexError, TypeError):
        raise ValueError(
            f"The {what} has no output {key!r}. Expected one of {known}. Correct `{argument}`."
        ) from None
    if keras.tree.is_nested(found):
        raise ValueError(
            f"The output {key!r} of the {what} holds several tensors. Expected one. Return it at "
            "the top level of the model's outputs."
        )
    return key


def last_activation(trace, key):
    """The activation that a model's output comes out of.

    Args:
        trace: A `ModelTrace`.
        key: Key or position of the output; `None` for a single output.

    Returns:
        `"softmax"`, `"sigmoid"`, `"other"` for a known one that makes no probabilities, or `None`
        where no layer of Keras shows it.
    """
    flat = keras.tree.flatten(trace.outputs)
    wanted = select(trace.outputs, key)
    position = next(index for index, tensor in enumerate(flat) if tensor is wanted)
    call = trace.producer(trace.output_ids[position])
    while call is not None and isinstance(call.layer, _TRANSPARENT) and call.input_ids:
        source = trace.producer(call.input_ids[0])
        call = None if source is call else source
    if call is None:
        return None
    if isinstance(call.layer, keras.layers.Softmax):
        return "softmax"
    # Layers of other people may do something behind their activation.
    if not type(call.layer).__module__.startswith("keras."):
        return None
    activation = getattr(call.layer, "activation", None)
    if activation in _OTHERS:
        return "other"
    return _ACTIVATIONS.get(activation)


class OutputForm:
    """What one output of one model holds.

    Args:
        trace: `ModelTrace` of the model.
        key: Key or position of the output; `None` for a single output.
        values: Array: the output for a few random inputs; `None` where they could not be had.

    Attributes:
        form: `"softmax"` or `"sigmoid"`: probabilities. `"raw"`: anything else. `"unit"`: values in
            [0, 1] that no activation explains. `"unknown"`: neither witness says anything.
        problem: Why these are no probabilities over the last axis, or `None`.
    """

    def __init__(self, trace, key, values):
        self.key = key
        self.values = values
        self.activation = last_activation(trace, key)
        self.problem = None
        self.form = self._find_form()

    def _find_form(self):
        if self.values is None:
            known = {"softmax": "softmax", "sigmoid": "sigmoid", "other": "raw"}
            return known.get(self.activation, "unknown")
        values = np.asarray(self.values)
        if self.activation == "sigmoid":
            # First: two saturated classes may sum to 1.
            return "sigmoid"
        if softmax_rows(values):
            return "softmax"
        if self.activation == "softmax":
            self.problem = (
                f"come out of a softmax, but they do not sum to 1 over the last axis of the shape "
                f"(batch, {', '.join(map(str, values.shape[1:]))}). Expected the classes on the "
                "last axis. Move them there, for example with `keras.layers.Permute`."
            )
            return "softmax"
        # Zeros for all inputs are no probabilities of either kind: a head that begins at 0.
        if not within_unit_interval(values) or self.activation == "other" or not values.any():
            return "raw"
        return "unit"
