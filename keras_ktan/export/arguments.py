"""Settles the arguments of `export_student` before any work begins."""

import pathlib

PRECISIONS = ("float32", "float16", "dynamic_int8", "int8")

_SUFFIXES = {".tflite": "litert", ".onnx": "onnx"}
_FORMATS = ("tf_saved_model", "litert", "onnx")
_BACKENDS = {
    "tf_saved_model": ("tensorflow", "jax"),
    "litert": ("tensorflow",),
    "onnx": ("tensorflow",),
}
_OF_KERAS = {".keras": "student.save", ".h5": "student.save_weights"}


def settle_format(filepath, format):
    """The format of a file: as asked for, or from the suffix.

    Args:
        filepath: Where to write.
        format: `"tf_saved_model"`, `"litert"`, `"onnx"` or `None`.

    Returns:
        The format.

    Raises:
        ValueError: If the format is unknown or the suffix says another one.
    """
    path = pathlib.Path(filepath)
    suffix = path.suffix.lower()
    if suffix in _OF_KERAS:
        raise ValueError(
            f"Received filepath='{path}'. Expected a name that ends in .tflite or .onnx, or a "
            f"folder. For a '{suffix}' file call `{_OF_KERAS[suffix]}`."
        )
    of_suffix = _SUFFIXES.get(suffix, "tf_saved_model")
    if format is None:
        return of_suffix
    if format not in _FORMATS:
        raise ValueError(
            f"Received format={format!r}. Expected one of {', '.join(_FORMATS)}, or None to take "
            "it from the suffix. For others call `student.export`, which checks nothing."
        )
    if format != of_suffix:
        wanted = {of: suffix for suffix, of in _SUFFIXES.items()}.get(format, "no such suffix")
        raise ValueError(
            f"Received format='{format}' for filepath='{path}'. Expected a name with {wanted}. "
            "Rename it, or leave `format` out."
        )
    return format


def check_backend(format, backend):
    """Check that a format can be written on this backend.

    Keras's own exporters are used. On PyTorch it has none for a SavedModel. Its ONNX exporters for
    JAX and PyTorch do not name the outputs, and LiteRT's converter reads TensorFlow's operations.

    Args:
        format: The settled format.
        backend: The name of Keras's backend.

    Raises:
        ValueError: If it cannot.
    """
    if backend not in _BACKENDS[format]:
        raise ValueError(
            f"Received the format '{format}' on the backend '{backend}'. Expected the backend "
            f"{' or '.join(repr(name) for name in _BACKENDS[format])}. Save the student as "
            "`.keras`, load it in a process with KERAS_BACKEND=tensorflow, and export it there."
        )


def checked_path(filepath, format):
    """The final path, if what stands there may be replaced.

    Args:
        filepath: Where to write.
        format: The settled format.

    Returns:
        An absolute `pathlib.Path`.

    Raises:
        ValueError: If something else stands there.
    """
    path = pathlib.Path(filepath).absolute()
    if format != "tf_saved_model":
        if path.is_dir():
            raise ValueError(
                f"Received filepath='{filepath}', which is a folder. Expected the name of a file. "
                "Choose another name."
            )
        return path
    if path.exists() and not path.is_dir():
        raise ValueError(
            f"Received filepath='{filepath}', which is a file. Expected a folder for a SavedModel "
            "(or a name that ends in .tflite or .onnx). Choose another name."
        )
    if path.is_dir() and any(path.iterdir()) and not (path / "saved_model.pb").exists():
        raise ValueError(
            f"Received filepath='{filepath}', a folder that holds something other than a "
            "SavedModel. Expected a new or empty folder, or a SavedModel to replace. Choose "
            "another name."
        )
    return path


def settle_precision(precision, format, calibration_data, input_dtype, output_dtype):
    """Check the arguments that only quantised files take.

    Args:
        precision: See `PRECISIONS`.
        format: The settled format.
        calibration_data: Examples or `None`.
        input_dtype: `"int8"`, `"uint8"`, `"float32"` or `None`.
        output_dtype: The same for the outputs.

    Raises:
        ValueError: If an argument is unknown, missing or would not be used.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"Received precision={precision!r}. Expected one of {PRECISIONS}.")
    if precision != "float32" and format != "litert":
        raise ValueError(
            f"Received precision='{precision}' for the format '{format}'. Expected 'float32': "
            "only LiteRT files are written in others. Choose a name that ends in .tflite."
        )
    if precision == "int8" and calibration_data is None:
        raise ValueError(
            "Received precision='int8' without `calibration_data`. Expected some hundred typical "
            "inputs, from which the ranges of all maps are measured. Pass training inputs, or "
            "choose precision='dynamic_int8', which needs none."
        )
    if precision == "int8":
        for argument, value in (("input_dtype", input_dtype), ("output_dtype", output_dtype)):
            if value not in (None, "float32", "int8", "uint8"):
                raise ValueError(
                    f"Received {argument}={value!r}. Expected 'int8', 'uint8' or 'float32'."
                )
        return
    given = {
        "calibration_data": calibration_data,
        "input_dtype": input_dtype,
        "output_dtype": output_dtype,
    }
    unused = [argument for argument, value in given.items() if value is not None]
    if unused:
        raise ValueError(
            f"Received {', '.join(unused)} with precision='{precision}', which does not use it. "
            "Expected precision='int8' with it. Leave it out, or choose that precision."
        )


def check_computation(format, computes_in_half):
    """Check that a format can hold what the student computes in.

    Args:
        format: The settled format.
        computes_in_half: Whether the student computes in 16 bits.

    Raises:
        ValueError: If it cannot.
    """
    if format == "litert" and computes_in_half:
        raise ValueError(
            "Received a student that computes in 16 bits (a mixed-precision policy). Expected "
            "float32: LiteRT has no operations for less. Build the student again after "
            "`keras.config.set_dtype_policy('float32')` and take over its weights by "
            "`set_weights`; precision='float16' then halves the file."
        )


def settle_limits(precision, computes_in_half, tolerance, agreement):
    """The largest difference and the smallest agreement allowed.

    Args:
        precision: See `PRECISIONS`.
        computes_in_half: Whether the student itself computes in 16 bits.
        tolerance: A number or `None` for the default.
        agreement: A number from 0 to 1 or `None` for the default.

    Returns:
        `(tolerance, agreement)`.

    Raises:
        ValueError: If a limit makes no sense.
    """
    quantised = precision in ("dynamic_int8", "int8")
    if tolerance is None:
        half = computes_in_half or precision == "float16"
        tolerance = float("inf") if quantised else 1e-2 if half else 1e-4
    if agreement is None:
        agreement = 0.98 if quantised else 0.0
    if not tolerance >= 0:
        raise ValueError(f"Received tolerance={tolerance}. Expected a number that is at least 0.")
    if not 0 <= agreement <= 1:
        raise ValueError(f"Received agreement={agreement}. Expected a share from 0 to 1.")
    return tolerance, agreement


def positive_integer(argument, value, optional=False):
    """Check an argument that counts something.

    Args:
        argument: Its name.
        value: What was received.
        optional: Whether it may be `None`.

    Raises:
        ValueError: If it is no positive integer.
    """
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"Received {argument}={value!r}. Expected a positive integer"
            f"{', or None for an open batch axis' if optional else ''}."
        )
