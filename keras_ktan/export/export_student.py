"""`export_student`: one file to ship, checked after it is written."""

import dataclasses
import os
import shutil
from collections.abc import Sequence
from typing import Any

import keras

from keras_ktan.export.atomic_path import beside, bytes_of, move_into_place
from keras_ktan.export.examples import random_examples
from keras_ktan.export.export_mismatch_error import ExportMismatchError
from keras_ktan.export.export_result import ExportResult
from keras_ktan.export.fresh_process import run_file
from keras_ktan.export.litert import write_litert
from keras_ktan.export.onnx import write_onnx
from keras_ktan.export.preparation import prepare_export, take_for
from keras_ktan.export.saved_model import write_saved_model
from keras_ktan.export.verification import differences, student_outputs

_RANDOM_EXAMPLES = 32
_BATCH = 32


def export_student(
    student: keras.Model,
    filepath: str | os.PathLike,
    format: str | None = None,
    *,
    data: Any = None,
    output_names: Sequence[str] | None = None,
    batch_size: int | None = None,
    rescaling: Any = None,
    softmax: bool | Sequence[str] = False,
    precision: str = "float32",
    calibration_data: Any = None,
    input_dtype: str | None = None,
    output_dtype: str | None = None,
    tolerance: float | None = None,
    agreement: float | None = None,
    max_examples: int = 512,
    verbose: bool = True,
) -> ExportResult:
    """Write a student as a file to ship, and check that the file computes what it does.

    The inputs have the names of the `Input` layers, and the outputs those of the layers (or the
    keys of the dict) that make them. The file is written under another name, loaded by its own
    runtime (TensorFlow, LiteRT's interpreter, ONNX Runtime) in a process without Keras, and
    compared with `student.predict`. Only if they agree does it get its name, so that a file
    that stood there before outlives an export that fails.

    A difference is counted as a share of the output's largest absolute value. An answer is the
    argmax over the last axis, at each position. For an output of a single value it is the value
    itself, which agrees within 5 % of the output's size (our choice).

    Args:
        student: A built `keras.Model`.
        filepath: Where to write. A name that ends in `.tflite` or `.onnx` is a file in that
            format, any other one the folder of a SavedModel.
        format: `"tf_saved_model"`, `"litert"` or `"onnx"`; `None` takes it from the suffix.
        data: Examples to compare on: arrays as `student.predict` takes them, or an iterable of
            batches. With `rescaling` they are inputs of the file, before it. By default
            `calibration_data`, else random inputs, which `ExportResult.data` tells.
        output_names: Optional list of names for the outputs, in order.
        batch_size: A fixed size of the batch axis, which some phones want. By default it is open.
        rescaling: A scale, or `(scale, offset)`, each one number or one for each channel: the
            file computes `x * scale + offset` first, so that it takes raw pixels. With several
            inputs, a dict from their names.
        softmax: Whether to end in a softmax over the last axis. With several outputs, a list of
            the names that get one.
        precision: For LiteRT. `"float32"`; `"float16"` (weights in 16 bits: half the size);
            `"dynamic_int8"` (weights in 8 bits: a quarter); `"int8"` (maps in 8 bits, too, which
            is what fast integer hardware wants; it needs `calibration_data`).
        calibration_data: For `"int8"`: typical inputs of the file, as in `data`. A few hundred
            will do. The ranges of all maps are measured on them.
        input_dtype: For `"int8"`: `"int8"` or `"uint8"` inputs; floats by default.
        output_dtype: For `"int8"`: `"int8"` or `"uint8"` outputs; floats by default.
        tolerance: The largest difference allowed. By default 1e-4 in float32 (1e-2 if the student
            computes in 16 bits), 1e-2 in float16, none in 8 bits.
        agreement: The smallest share of equal answers allowed. By default 0.98 in 8 bits, else 0.
        max_examples: How many examples are compared, and how many calibrate, at most.
        verbose: Whether to print the result.

    Returns:
        An `ExportResult`.

    Raises:
        ValueError: If an argument is unknown or does not fit, before anything is written; also if
            the format cannot express the student.
        ImportError: If a package of the extra `export` is missing.
        ExportMismatchError: If the file differs from the student by more than is allowed. It is
            kept with `.failed` after its name.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_ktan import export_student

    student = keras.Sequential(
        [keras.Input((4,), name="measurements"), keras.layers.Dense(3, name="logits")]
    )
    data = np.random.default_rng(0).normal(size=(100, 4)).astype("float32")
    result = export_student(student, "/tmp/student", data=data)
    print(result.examples)  # 100
    ```
    """
    prepared = prepare_export(
        student,
        filepath,
        format,
        output_names=output_names,
        batch_size=batch_size,
        rescaling=rescaling,
        softmax=softmax,
        precision=precision,
        calibration_data=calibration_data,
        input_dtype=input_dtype,
        output_dtype=output_dtype,
        tolerance=tolerance,
        agreement=agreement,
        max_examples=max_examples,
    )
    model, path, format = prepared.model, prepared.path, prepared.format
    calibration = prepared.calibration
    examples, source = _examples(model, data, calibration, max_examples)
    expected = student_outputs(model, examples)

    with beside(path) as written:
        if format == "litert":
            types = (input_dtype, output_dtype)
            write_litert(model, written, precision, batch_size, calibration, types)
        else:
            write = write_onnx if format == "onnx" else write_saved_model
            write(model, written, batch_size)
        found = run_file(format, written, examples, batch_size or _BATCH)
        compared = differences(expected, found)
        result = ExportResult(
            path=str(path),
            format=format,
            precision=precision,
            bytes=bytes_of(written),
            largest_difference=max(difference for difference, _ in compared.values()),
            agreement=min(share for _, share in compared.values()),
            examples=len(next(iter(examples.values()))),
            data=source,
            rescaling=model.rescaling(),
        )
        _keep_or_set_aside(written, path, compared, prepared.limits, result)
    if verbose:
        print(result)
    return result


def _examples(model, data, calibration, limit):
    if data is not None:
        return take_for(model, data, "data", limit), "data"
    if calibration is not None:
        return calibration, "calibration_data"
    count = min(limit, _RANDOM_EXAMPLES)
    drawn = random_examples(model.specs(), model.layers_of_student(), count)
    return model.undo_rescaling(drawn), "random"


def _keep_or_set_aside(written, path, compared, limits, result):
    tolerance, agreement = limits
    wrong = [
        f"'{name}': largest difference {difference:.2e} of the output's size, "
        f"{share:.1%} of the answers agree"
        for name, (difference, share) in compared.items()
        if difference > tolerance or share < agreement
    ]
    if not wrong:
        move_into_place(written, path)
        return
    failed = path.with_name(f"{path.name}.failed")
    if failed.is_dir():
        shutil.rmtree(failed)
    os.replace(written, failed)
    raise ExportMismatchError(
        f"The exported file does not compute what the student computes, on {result.examples} "
        f"examples ({result.data}): {'; '.join(wrong)}. Allowed are a difference of {tolerance} "
        f"and at least {agreement:.1%}. The file is kept as '{failed}'. {_advice(result)}",
        dataclasses.replace(result, path=str(failed)),
    )


def _advice(result):
    if result.data == "random":
        return "Pass real inputs as `data`: on random ones answers are close calls."
    if result.precision == "int8":
        return (
            "Give more, or more typical, `calibration_data` (in the range that the file takes), "
            "choose precision='dynamic_int8' or 'float16', or set `agreement` and `tolerance`."
        )
    return "Choose a higher precision, or set `tolerance` and `agreement`."
