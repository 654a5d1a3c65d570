"""`compress`: from a teacher and data to a folder with a small student, its files and a report."""

import json
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_ktan.compression.compression_result import CompressionResult
from keras_ktan.compression.method_table import better_baseline, method_table, method_title
from keras_ktan.compression.models import loss_and_metrics, validate_built, validate_target
from keras_ktan.compression.run_folder import RunFolder
from keras_ktan.compression.settings import described, described_data, described_models
from keras_ktan.compression.student_files import StudentFiles, record_of_calibration
from keras_ktan.compression.training import (
    METHODS,
    Training,
    bytes_needed,
    save_start,
    student_name,
)
from keras_ktan.compression.training_data import (
    as_batches,
    calibration_of,
    checked_data,
    inputs_of,
)
from keras_ktan.report import compression_report
from keras_ktan.report.table import as_text
from keras_ktan.students import slim_student
from keras_ktan.utils.numbers import validate_choice, validate_flag, validate_integer


def compress(
    teacher: keras.Model,
    data: Any,
    validation_data: Any,
    target: dict[str, float | int] | None,
    output: str | os.PathLike,
    epochs: int,
    *,
    student: keras.Model | None = None,
    slim: dict[str, Any] | None = None,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    loss: str | Callable | dict | list | None = None,
    metrics: list | dict | None = None,
    batch_size: int | None = None,
    formats: Sequence[str] = ("tf_saved_model", "litert", "int8"),
    calibration_data: Any = None,
    export: dict[str, Any] | None = None,
    test_data: Any = None,
    compare: bool = False,
    monitor: str | None = None,
    mode: str | None = None,
    seed: int = 0,
    verbose: bool = True,
) -> CompressionResult:
    """From a teacher and data to a folder with a small student, its files and a report.

    It does what you would write yourself: `slim_student`, `KTANDistiller` with its defaults,
    `StudentCheckpoint` and `ResumableBackup` in `fit`, `export_student`, `compression_report`.

    Called again with the same arguments after it was stopped, it goes on where it stood: a
    student is not made again, a method that is trained is not trained again, a file that is there
    is not written again. What decides over the training must be the same then. Formats,
    `calibration_data`, `export` and `compare` may change: they only say what else is to be done.

    What can be known before the training is checked there: the data, the names, the packages,
    the folder and the room on the disk. If an export fails, the student, the other files and the
    report are written first, and the error is raised afterwards.

    Args:
        teacher: A built, trained `keras.Model`.
        data: Training data: a tuple `(x, y)` or `(x, y, sample_weight)` of arrays, which are
            shuffled in an order that follows from the seed and the epoch; or a data set that is
            one epoch: a `keras.utils.PyDataset`, a `tf.data.Dataset`, or what
            `TeacherCache.dataset` returned.
        validation_data: Labelled data on which the best epoch is chosen: such a tuple, or a finite
            data set. It is held in memory for the report.
        target: As in `slim_student`: `{"macs": 0.05}` is a share of the teacher's,
            `{"parameters": 20_000}` a number. `None` with `student` or with a width in `slim`.
        output: The folder: a new or empty one, or that of a run that was stopped.
        epochs: How many, for each method.
        student: A student of your own in the place of `slim_student`'s.
        slim: Further arguments of `slim_student`, for example `{"drop_blocks": ["add_1"]}`.
        optimizer: The student's. Each method has a copy.
        loss: The labelled loss, as in `compile`. By default the teacher's own.
        metrics: As in `compile`. By default the teacher's own.
        batch_size: For arrays; 32 by default.
        formats: Which files to export: `"tf_saved_model"`, `"litert"`, `"float16"`,
            `"dynamic_int8"`, `"int8"` (the last four are LiteRT) and `"onnx"`. `()` for none.
        calibration_data: What `"int8"` is calibrated on. By default 512 training examples: drawn
            out of arrays, the first ones of a data set.
        export: Arguments of `export_student` for all files: `agreement`, `tolerance`,
            `max_examples`, `batch_size`; and for `"int8"` `input_dtype` and `output_dtype`.
        test_data: Labelled data for the report, read once at the end. By default the report is
            made on `validation_data`, on which the best epoch was chosen.
        compare: Whether to train the supervised baseline and logit distillation, too, from the
            same weights, for as many epochs and, with arrays, on the same batches.
        monitor: Name in the logs that decides which epoch is the best. By default the first
            metric whose name ends in "accuracy", on the validation data, else `"val_loss"`.
        mode: `"min"` or `"max"`, for a `monitor` whose name does not say which is better.
        seed: Seed of the order of arrays, of dropout, T2S and discriminator. It is Keras's global
            one that is set (`keras.utils.set_random_seed`).
        verbose: Whether to print what is done and a line for each epoch.

    Returns:
        A `CompressionResult`: the student, the report, and the paths of what the folder holds.

    Raises:
        ValueError: If an argument does not fit, if the target is not below the teacher's size or
            cannot be reached, if data cannot be read once an epoch or end early, or if the folder
            holds something other than a run with these settings.
        OSError: If the folder cannot be written or the disk is full.
        ImportError: If a format needs a package that is missing.
        ExportMismatchError: If a file differs from the student by more than is allowed; the
            student, the other files and the report are there.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_ktan import compress

    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(128, 8)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    teacher = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(2)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher.compile("adam", loss, metrics=["accuracy"])
    teacher.fit(x, y, epochs=2, verbose=0)
    result = compress(
        teacher, (x, y), (x, y), {"macs": 0.25}, "/tmp/compressed", epochs=1, formats=()
    )
    print(result.report)
    ```
    """
    # Keras's 0 and 1, too.
    verbose = validate_flag("verbose", bool(verbose) if verbose in (0, 1) else verbose)
    say = _print_line if verbose else _no_line
    validate_integer("epochs", epochs, at_least=1)
    validate_integer("seed", seed, at_least=0)
    validate_flag("compare", compare)
    if mode is not None:
        validate_choice("mode", mode, ("min", "max"))
    if batch_size is not None:
        validate_integer("batch_size", batch_size, at_least=1)
    validate_built("teacher", teacher)
    validate_target(teacher, student, target, slim)
    loss, metrics = loss_and_metrics(teacher, loss, metrics)
    data = checked_data("data", data)
    validation_data = checked_data("validation_data", validation_data)
    test_data = None if test_data is None else checked_data("test_data", test_data)
    batches = as_batches(data, batch_size, seed)
    settings = {
        **described_models(teacher, student),
        **{"target": described(target), "slim": described(slim), "epochs": epochs, "seed": seed},
        "data": described_data(data),
        "validation_data": described_data(validation_data),
        "test_data": described_data(test_data),
        "optimizer": described(keras.optimizers.get(optimizer)),
        **{"loss": described(loss), "metrics": described(metrics), "batch_size": batch_size},
        **{"monitor": monitor, "mode": mode},
    }
    files = _files(formats, export, calibration_data, data, validation_data, seed)
    folder = RunFolder(output, settings)

    if student is None:
        given = {"seed": seed, "verbose": verbose, **(slim or {})}
        student = slim_student(teacher, target=target, **given)
    files.validate(student, folder.path)
    save_start(student, folder)
    training = Training(
        teacher,
        student,
        batches,
        validation_data,
        epochs,
        optimizer,
        loss,
        metrics,
        monitor,
        mode,
        seed,
    )
    names = list(METHODS) if compare else ["KTAN"]
    _look_before(training, folder, len(names) + len(files.formats), say)

    say(f"training, {epochs} epochs a method, into {folder.path}")
    methods = {name: training.run(name, folder, say, test_data) for name in names}
    student.load_weights(folder.path / student_name("KTAN"))
    say("files")
    exported, errors = files.write(student, folder, say)
    report = _measured(
        teacher,
        student,
        data=validation_data if test_data is None else test_data,
        files=list(exported.values()),
        latency=True,
        stacklevel=3,
    )
    source = "validation_data" if test_data is None else "test_data"
    paths = _write_report(folder, report, methods, source, better_baseline(methods, training.mode))
    say(f"{report}\n\n{method_table(methods, markdown=False)}\n\nEverything is in {folder.path}")
    if errors:
        _raise_first(errors, folder.path)
    paths = {
        "student": folder.path / student_name("KTAN"),
        **{name: folder.path / file for name, file in files.names().items()},
        **paths,
    }
    return CompressionResult(student, report, paths, methods)


def _print_line(line):
    """Print a line at once, also into a file."""
    print(line, flush=True)


def _no_line(line):
    """Print nothing."""


def _files(formats, export, calibration_data, data, validation_data, seed):
    calibration = record = None
    if "int8" in formats:
        calibration = calibration_of(data, calibration_data, seed)
        record = record_of_calibration(calibration_data, data)
    elif calibration_data is not None:
        raise ValueError(
            f"Received calibration_data with formats={list(formats)}, which do not use it. "
            "Expected 'int8' among them. Leave it out, or add the format."
        )
    return StudentFiles(formats, export, calibration, inputs_of(validation_data), record)


def _look_before(training, folder, files, say):
    """What can be known before the training: the metrics, the room, and how good both are."""
    distiller = training.distiller("KTAN")
    training.settle_monitor(distiller)
    if hasattr(training.batches, "prepare_for"):
        training.batches.prepare_for(distiller)
    if folder.has_begun:
        return
    folder.require_room(bytes_needed(training, distiller, files))
    start = _measured(
        training.teacher, training.student, data=training.validation_data, stacklevel=4
    )
    # The table alone: which classes an untrained student gets wrong says nothing.
    say("\n".join(["before the training, on validation_data:", *as_text(start), ""]))


def _measured(*models, stacklevel, **arguments):
    """`compression_report`, whose warnings point to the line that calls `compress`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"keras_ktan\.compress$")
        report = compression_report(*models, **arguments)
    for warning in report.warnings:
        warnings.warn(warning, stacklevel=stacklevel)
    return report


def _write_report(folder, report, methods, source, better):
    remarks = [f"Measured on {report.examples} examples of `{source}`."]
    if source == "validation_data":
        remarks.append("The best epoch was chosen on them, so the student's numbers flatter it.")
    if better is not None:
        remarks.append(
            f"On the validation data {method_title(better)} did better than KTAN; its student "
            f"is `{student_name(better)}`."
        )
    text = "\n\n".join(
        ["# Compression report", report.to_markdown(), method_table(methods), " ".join(remarks)]
    )
    numbers = {**json.loads(report.to_json()), "data": source, "methods": methods}
    return {
        "report.md": folder.write_text("report.md", f"{text}\n"),
        "report.json": folder.write_text("report.json", f"{json.dumps(numbers, indent=1)}\n"),
    }


def _raise_first(errors, path):
    error = next(iter(errors.values()))
    error.add_note(
        f"Exports that failed: {', '.join(errors)}. The trained student, the other files and the "
        f"report are in {path}. Call `compress` again with other `formats`, `calibration_data` or "
        "`export`: only these files are written then."
    )
    raise error
