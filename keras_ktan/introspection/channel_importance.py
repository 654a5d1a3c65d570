"""Which channels of a map matter most, read from the weights that made it."""

import keras
import numpy as np
from keras import ops

from keras_ktan.introspection.feature_tap import split_path
from keras_ktan.introspection.layer_kinds import KEEPING_CHANNELS
from keras_ktan.utils.channel_record import channel_record_of

_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)
# What is added, or passes through, keeps its place among the channels.
_FOLLOWED = (
    *KEEPING_CHANNELS,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ELU,
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Subtract,
)


def channels_to_select(pair, teacher_trace, student_trace, count):
    """The teacher's channels that a T2S by selection keeps.

    Args:
        pair: A `FeaturePair`.
        teacher_trace: `ModelTrace` of the teacher.
        student_trace: `ModelTrace` of the student. One that `slim_student` made remembers which
            channels it kept.
        count: Channels of its map.

    Returns:
        A tuple of a sorted list of ints, or `None` where nothing says which channels matter, and
        of the words for what said so.
    """
    layer_path, _ = split_path(pair.student_layer_name)
    record = channel_record_of(student_trace.model, layer_path)
    if record is not None and pair.teacher_layer_name == pair.student_layer_name:
        kept = record.channels.get(_recorded_path(student_trace, pair.student_layer_name))
        if record.teacher_name == teacher_trace.model.name and kept is not None:
            return (list(kept) if len(kept) == count else None), "those that the student kept"
    layer_path, key = split_path(pair.teacher_layer_name)
    importance = channel_importance(teacher_trace, layer_path) if key is None else None
    if importance is None or count is None or count > len(importance):
        return None, ""
    return most_important(importance, count), "the most important ones"


def _recorded_path(trace, path):
    """A record counts the tensors of a layer where a path may name them."""
    layer_path, key = split_path(path)
    calls = trace.calls_of(layer_path)
    outputs = calls[-1].output_specs if calls else None
    if key is not None and isinstance(outputs, dict) and key in outputs:
        return f"{layer_path}:{sorted(outputs).index(key)}"
    return path


def channel_importance(trace, path):
    """How much each channel of a layer's output matters.

    It is |gamma| of the normalisation that the map comes out of, summed over the branches that
    are added; where there is none, the norm of the kernel's part that makes the channel.

    Args:
        trace: A `ModelTrace`.
        path: Path of a layer that returns one tensor.

    Returns:
        Array `(channels,)`, or `None` where neither is found.

    Reference:
        - [Liu et al., 2017](https://arxiv.org/abs/1708.06519): |gamma| as importance
    """
    calls = trace.calls_of(path)
    if not calls or len(calls[-1].output_ids) != 1:
        return None
    specs = keras.tree.flatten(calls[-1].output_specs)
    channels = specs[0].shape[-1]
    found = {"gamma": [], "kernel": []}
    _collect(trace, calls[-1].output_ids[0], channels, found, set())
    scores = found["gamma"] or found["kernel"]
    return np.sum(scores, axis=0) if scores else None


def most_important(importance, count):
    """The channels of highest importance, in their order.

    Args:
        importance: Array `(channels,)`.
        count: How many are wanted.

    Returns:
        A sorted list of ints; of equal ones the first are taken.
    """
    order = np.argsort(-np.asarray(importance), kind="stable")
    return sorted(int(channel) for channel in order[:count])


def _collect(trace, tensor_id, channels, found, seen):
    """Follow a tensor back to the layers that scale its channels."""
    if tensor_id in seen:
        return
    seen.add(tensor_id)
    call = trace.producer(tensor_id)
    if call is None:
        return
    layer = call.layer
    if isinstance(layer, _NORMALIZATIONS) and getattr(layer, "gamma", None) is not None:
        _note(found["gamma"], np.abs(_numpy(layer.gamma)).ravel(), channels)
        return
    kernel = _kernel(layer)
    if kernel is not None:
        _note(found["kernel"], kernel, channels)
        return
    if isinstance(layer, (*_FOLLOWED, *_NORMALIZATIONS)):
        for input_id, spec in zip(call.input_ids, call.input_specs, strict=True):
            if len(spec.shape) > 1 and spec.shape[-1] == channels:
                _collect(trace, input_id, channels, found, seen)


def _note(scores, values, channels):
    if len(values) == channels:
        scores.append(values)


def _kernel(layer):
    """Norm of the part of a layer's kernel that makes each output channel."""
    if isinstance(layer, (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)):
        kernel = _numpy(layer.pointwise_kernel)
    elif isinstance(layer, (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose)):
        kernel = np.swapaxes(_numpy(layer.kernel), -1, -2)
    elif isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)):
        kernel = _numpy(layer.kernel)
        kernel = kernel.reshape(*kernel.shape[:-2], -1)
    elif isinstance(
        layer, (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense)
    ):
        kernel = _numpy(layer.kernel)
    else:
        return None
    return np.sqrt(np.sum(np.square(kernel), axis=tuple(range(kernel.ndim - 1))))


def _numpy(variable):
    return ops.convert_to_numpy(ops.cast(variable, "float32"))
