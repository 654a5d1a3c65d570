"""Where on a feature map it matters most that the student is like its target."""

import keras
from keras import ops


def check_position_weights(function, teacher_outputs, student_shape):
    """Ask a pair's `position_weights` once, symbolically, whether they fit the student's map.

    Args:
        function: See `FeaturePair`.
        teacher_outputs: Structure of `keras.KerasTensor`, what the teacher returns.
        student_shape: Tuple, the shape of the student's map.

    Raises:
        ValueError: If they do not fit.
    """
    expected = tuple(student_shape[:-1])
    if len(expected) == 1:
        raise ValueError(
            f"Received position_weights in a FeaturePair whose student map has the shape "
            f"{tuple(student_shape)}. Expected a map with positions, such as (None, 8, 8, 64). "
            "Leave `position_weights` out."
        )
    try:
        weights = function(teacher_outputs)
    except Exception as error:
        error.add_note(
            "`position_weights` of a FeaturePair was called with symbolic tensors, the teacher's "
            "outputs. Write it with `keras.ops` alone."
        )
        raise
    shape = getattr(weights, "shape", None)
    fits = shape is not None and len(shape) == len(expected)
    fits = fits and all(
        None in (found, wanted) or found == wanted
        for found, wanted in zip(shape, expected, strict=True)
    )
    if not fits:
        received = type(weights).__name__ if shape is None else f"the shape {tuple(shape)}"
        raise ValueError(
            f"position_weights of a FeaturePair returned {received}. Expected a tensor of the "
            f"shape {expected}: one weight for each position of the student's map. Reshape or "
            "pool what it returns."
        )


def weighted_mean_over_positions(values, weights):
    """Mean of a map of distances in which some positions count more than others.

    Args:
        values: Tensor `(batch, ...positions)`.
        weights: Tensor of the same shape, 0 or more; their sum does not matter.

    Returns:
        Tensor `(batch,)`; 0 for an example whose weights are all 0.
    """
    axes = tuple(range(1, len(values.shape)))
    weights = ops.stop_gradient(ops.cast(weights, values.dtype))
    total = ops.sum(weights, axis=axes)
    # Divided first: a sum of very small weights would lose its precision.
    share = weights / ops.expand_dims(ops.where(total > 0, total, 1.0), axes)
    return ops.sum(values * share, axis=axes)


def function_to_config(function):
    """What a saved distiller holds of a function.

    Raises:
        ValueError: If loading could not find it again.
    """
    if function is None:
        return None
    name = keras.saving.get_registered_name(function)
    if keras.saving.get_registered_object(name) is not function:
        raise ValueError(
            f"Received position_weights={function!r} in a FeaturePair of a distiller that is to be "
            "saved. Expected a function that loading can find again. Write "
            "`@keras.saving.register_keras_serializable()` above it."
        )
    return keras.saving.serialize_keras_object(function)
