"""Where on a feature map it matters most that the student is like its target."""

import inspect

import keras


def validate_position_weights(function, teacher_outputs, student_shape):
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
        found is None or found == wanted or (wanted is None and found != 1)
        for found, wanted in zip(shape, expected, strict=True)
    )
    if not fits:
        received = type(weights).__name__ if shape is None else f"the shape {tuple(shape)}"
        raise ValueError(
            f"position_weights of a FeaturePair returned {received}. Expected a tensor of the "
            f"shape {expected}: one weight for each position of the student's map. Reshape or "
            "pool what it returns."
        )


def function_to_config(function):
    """What a saved distiller holds of a function, or of an object that is called like one.

    Raises:
        ValueError: If loading could not find it again.
    """
    if function is None:
        return None
    is_function = inspect.isfunction(function)
    registered = function if is_function else type(function)
    name = keras.saving.get_registered_name(registered)
    needed = () if is_function else ("get_config", "from_config")
    if keras.saving.get_registered_object(name) is not registered or not all(
        callable(getattr(registered, method, None)) for method in needed
    ):
        raise ValueError(
            f"Received position_weights={function!r} in a FeaturePair of a distiller that is to be "
            "saved. Expected a function that loading can find again. Write "
            "`@keras.saving.register_keras_serializable()` above the function, or above the class "
            "of an object with `__call__`, `get_config` and `from_config`."
        )
    return keras.saving.serialize_keras_object(function)
