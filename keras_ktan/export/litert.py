"""Writes LiteRT files by TensorFlow's converter."""

import pathlib
import re
import tempfile

from keras_ktan.export.fresh_process import FreshProcessError, run_script
from keras_ktan.export.saved_model import write_saved_model


def write_litert(model, path, precision, batch_size=None, calibration=None, types=(None, None)):
    """Write a model as a LiteRT (`.tflite`) file.

    Only LiteRT's own operations are allowed: those of TensorFlow need a runtime that no phone
    has by itself.

    Args:
        model: A `ServingModel`.
        path: File to write to, a `pathlib.Path`.
        precision: `"float32"`, `"float16"`, `"dynamic_int8"` or `"int8"`.
        batch_size: The size of the batch axis; open when it is `None`.
        calibration: For `"int8"`, a dict from input names to NumPy arrays.
        types: For `"int8"`, the types of the inputs and of the outputs: `"int8"`, `"uint8"` or
            `None` for floats.

    Raises:
        ValueError: If the model cannot be converted.
        OSError: If the disk is full.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = pathlib.Path(folder, "model")
        write_saved_model(model, saved, batch_size)
        given = {
            "saved_model": str(saved),
            "path": str(path),
            "precision": precision,
            "batch_size": batch_size,
            "input_dtype": types[0],
            "output_dtype": types[1],
        }
        try:
            run_script("convert_litert.py", given, calibration)
        except FreshProcessError as error:
            _raise(error, model, precision)


def _raise(error, model, precision):
    if "OSError: [Errno " in error.errors:
        # The disk's fault, not the model's.
        raise OSError(error.errors.strip().splitlines()[-1]) from error
    raise ValueError(
        f"The model '{model.student.name}' cannot be converted to LiteRT in {precision} "
        f"({_reason(error)}). Expected layers that LiteRT's own operations can express. A fixed "
        "batch (`batch_size=1`) and `unroll=True` in recurrent layers often help; so does "
        "`precision='dynamic_int8'` where full int8 lacks an operation."
    ) from error


def _reason(error):
    # One line of interest in a dump of the whole graph: which operation, and why.
    found = re.search(r"'tf\.[^\n]*|failed to legalize[^\n]*", error.errors)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (found.group() if found else lines[-1] if lines else "no reason given")[:300]
