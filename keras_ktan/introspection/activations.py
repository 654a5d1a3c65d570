"""The activation that a feature map comes out of."""

import keras
import numpy as np

from keras_ktan.introspection.feature_tap import select_output
from keras_ktan.introspection.layer_kinds import KEEPING_CHANNELS

# These change neither the sign nor the kind of what passes through them.
_TRANSPARENT = (*KEEPING_CHANNELS, keras.layers.Reshape, keras.layers.Permute)

# Layers of Keras whose `activation` is the last thing they do.
_ENDING_IN_THEIR_ACTIVATION = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)

# Activations that are layers without weights.
_ACTIVATION_LAYERS = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.Softmax,
)

# What comes out of these came out of the same activation as each of their inputs.
_SELECTING = (keras.layers.Concatenate, keras.layers.Maximum, keras.layers.Minimum)

_PROBE = np.concatenate([np.linspace(-8.0, 8.0, 33), [-100.0, 100.0]]).astype("float32")


def activation_behind(trace, path, key=None):
    """The activation that a layer's output comes out of.

    Layers that select or move values (pooling, dropout, padding, a reshape) are looked through,
    and so are nested models. A concatenation comes out of an activation if all its inputs come
    out of the same one. A sum or a product comes out of none.

    Args:
        trace: A `ModelTrace`.
        path: Path of a layer, without `:key`.
        key: Name or position of the output, for a layer that returns several.

    Returns:
        A function of a tensor, or `None` for none (or none that a layer shows). A layer is
        returned as a copy, and only if it holds no weights.
    """
    calls = trace.calls_of(path)
    if not calls:
        return None
    call = calls[-1]
    if not isinstance(call.layer, keras.Model):
        return _activation_of_call(trace, call)
    flat = keras.tree.flatten(call.output_specs)
    wanted = flat[0] if key is None else select_output(call.output_specs, key, path)
    chosen = [i for i, spec in zip(call.output_ids, flat, strict=True) if spec is wanted]
    return _activation_of_tensor(trace, chosen[0], not_by=call)


def activation_name(activation):
    """How an activation is shown to people.

    Args:
        activation: What `activation_behind` returned.

    Returns:
        A string, `"none"` for `None`.
    """
    if activation is None:
        return "none"
    if not isinstance(activation, keras.layers.Layer):
        return getattr(activation, "__name__", type(activation).__name__)
    if _same(activation, keras.activations.relu):
        return "relu"
    limit = getattr(activation, "max_value", None)
    name = type(activation).__name__
    return name if limit is None else f"{name}(max_value={limit:g})"


def _activation_of_tensor(trace, tensor_id, not_by=None):
    call = trace.producer(tensor_id)
    if call is None or call is not_by:
        return None
    return _activation_of_call(trace, call)


def _activation_of_call(trace, call):
    layer = call.layer
    if isinstance(layer, keras.Model):
        # It returns a tensor that no layer of it made, such as the sum of two.
        return None
    if isinstance(layer, _SELECTING):
        found = [_activation_of_tensor(trace, tensor_id, call) for tensor_id in call.input_ids]
        return found[0] if all(_same(found[0], other) for other in found[1:]) else None
    if isinstance(layer, keras.layers.TimeDistributed):
        layer = layer.layer
    if isinstance(layer, _TRANSPARENT) or _is_linear_activation(layer):
        return _activation_of_tensor(trace, call.input_ids[0], call) if call.input_ids else None
    if isinstance(layer, _ACTIVATION_LAYERS):
        return _copy(layer)
    if isinstance(layer, (keras.layers.Activation, *_ENDING_IN_THEIR_ACTIVATION)):
        return _usable(layer.activation)
    return None


def _is_linear_activation(layer):
    return (
        isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.linear
    )


def _usable(activation):
    if activation is None or activation is keras.activations.linear:
        return None
    if isinstance(activation, _ACTIVATION_LAYERS):
        return _copy(activation)
    # Another layer may hold weights, and these are the model's.
    return None if isinstance(activation, keras.layers.Layer) else activation


def _copy(layer):
    return type(layer).from_config(layer.get_config())


def _same(first, second):
    """Whether two activations are one function, however they were written."""
    if first is None or second is None:
        return first is second
    if first is second:
        return True
    probe = keras.ops.convert_to_tensor(_PROBE.reshape(1, -1))
    values = [keras.ops.convert_to_numpy(function(probe)) for function in (first, second)]
    return bool(np.array_equal(*values))
