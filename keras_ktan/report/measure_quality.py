"""Runs teacher, student and exported files on labelled data."""

import dataclasses

import keras
import numpy as np

from keras_ktan.introspection.model_inputs import select_inputs
from keras_ktan.introspection.outputs import output_keys, select
from keras_ktan.report.classification import Classification, single_scores
from keras_ktan.report.exported_file import scores_of
from keras_ktan.report.quality import (
    ModelQuality,
    classes_that_lost,
    expected_calibration_error,
    is_near_chance,
)


@dataclasses.dataclass
class MeasuredQuality:
    """What the data says.

    Args:
        examples: How many there are.
        qualities: Dict from `"teacher"`, `"student"` and the files' names to `ModelQuality`s.
        class_losses: List of `ClassLoss`.
        file_seconds: Dict from the files' names to arrays of seconds, where runs were timed.
        notes: Sentences on what was not measured.
        warnings: Sentences on what looks wrong.
    """

    examples: int
    qualities: dict = dataclasses.field(default_factory=dict)
    class_losses: list = dataclasses.field(default_factory=list)
    file_seconds: dict = dataclasses.field(default_factory=dict)
    notes: list = dataclasses.field(default_factory=list)
    warnings: list = dataclasses.field(default_factory=list)


def measure_quality(traces, x, y, files=(), timed_runs=0):
    """Run models and files on labelled data.

    Args:
        traces: Dict from `"teacher"` and `"student"` to `ModelTrace`s.
        x: Structure of arrays, the models' inputs.
        y: Structure of arrays, the labels.
        files: List of `ExportedFile`s.
        timed_runs: How many runs of the first example to time for each file that is run.

    Returns:
        A `MeasuredQuality`.

    Raises:
        ValueError: If models, labels or files do not belong together.
    """
    found = MeasuredQuality(examples=len(keras.tree.flatten(y)[0]))
    problem, task = single_scores(traces), None
    if problem is None:
        outputs = {role: _predicted(trace, x) for role, trace in traces.items()}
        labels = keras.tree.flatten(y)
        task = Classification(traces, outputs, labels[0] if len(labels) == 1 else labels)
        problem = task.problem
    if problem is not None:
        found.notes.append(
            "accuracy, agreement and calibration are measured for classifiers with one output and "
            f"one label an example; here {problem}"
        )
        _add_compiled_metrics(found, traces, x, y)
        if files:
            found.notes.append("what the files get on the data was not measured")
        return found
    for file in files:
        student = traces["student"].model
        inputs = file.inputs(student, select_inputs(student, x))
        computed, seconds = file.run(inputs, timed_runs)
        if seconds is not None:
            found.file_seconds[file.name] = seconds
        outputs[file.name] = scores_of(computed, task.classes)
    _compare(found, task, outputs)
    return found


def _predicted(trace, x):
    model = trace.model
    outputs = model.predict(select_inputs(model, x), verbose=0)
    return np.asarray(select(outputs, output_keys(trace.outputs)[0]))


def _compare(found, task, outputs):
    labels, answers = task.labels, {}
    for name, scores in outputs.items():
        # A file has what the student has at its end.
        role = "teacher" if name == "teacher" else "student"
        answers[name] = task.answers(scores, role)
        confidences = task.confidences(scores, role)
        correct = answers[name] == labels
        found.qualities[name] = ModelQuality(
            accuracy=float(np.mean(correct)),
            agreement=None
            if name == "teacher"
            else float(np.mean(answers[name] == answers["teacher"])),
            calibration_error=None
            if confidences is None
            else expected_calibration_error(confidences, correct),
        )
        if confidences is None and name in ("teacher", "student"):
            found.notes.append(
                f"the calibration of the {name} was not measured: a sigmoid scores each class by "
                "itself"
            )
    found.class_losses = classes_that_lost(labels, answers["teacher"], answers["student"])
    accuracies = {name: quality.accuracy for name, quality in found.qualities.items()}
    if is_near_chance(labels, answers["teacher"]):
        found.warnings.append(
            f"The teacher answers {accuracies['teacher']:.1%} of {len(labels)} examples, which "
            "chance does as well. It may get other inputs than it was trained on. Check the range "
            "of the inputs, the order of the classes and its weights."
        )
        return
    if is_near_chance(labels, answers["student"]):
        return
    for name in accuracies:
        if name not in ("teacher", "student") and is_near_chance(labels, answers[name]):
            found.warnings.append(
                f"The file {name} answers {accuracies[name]:.1%} of {len(labels)} examples, which "
                f"chance does as well, and the student {accuracies['student']:.1%}. If it was "
                "written with `rescaling`, pass the `ExportResult` instead of the path."
            )


def _add_compiled_metrics(found, traces, x, y):
    for role, trace in traces.items():
        model = trace.model
        metrics = {}
        if getattr(model, "compiled", False):
            metrics = model.evaluate(select_inputs(model, x), y, verbose=0, return_dict=True)
            metrics = {name: float(value) for name, value in metrics.items() if name != "loss"}
        if metrics:
            found.qualities[role] = ModelQuality(metrics=metrics)
        else:
            found.notes.append(
                f"the {role} was not compiled with metrics, so that nothing was measured on the "
                "data: `compile(loss=..., metrics=[...])`"
            )
