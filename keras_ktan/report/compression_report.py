"""`compression_report`: one table to decide by."""

import dataclasses
import json
import warnings
from typing import Any

import keras

from keras_ktan.introspection.model_inputs import select_inputs
from keras_ktan.introspection.model_trace import ModelTrace
from keras_ktan.report.exported_file import exported_files
from keras_ktan.report.labelled_data import labelled_arrays
from keras_ktan.report.latency import device_name, latency_of, one_example, time_in_turns
from keras_ktan.report.measure_quality import measure_quality
from keras_ktan.report.model_size import ModelSize, measure_size, validate_macs_rules
from keras_ktan.report.remarks import remarks
from keras_ktan.report.table import as_markdown, as_text
from keras_ktan.utils.channel_record import channel_record_of

_TIMED_RUNS = 100


@dataclasses.dataclass(frozen=True)
class CompressionReport:
    """Teacher beside student; `print` it for a table.

    Args:
        teacher: `ModelSize` of the teacher.
        student: `ModelSize` of the student.
        kept_widths: For a student of `slim_student`, dict from the paths of its layers with
            weights to tuples `(channels kept, the teacher's channels)`; else empty.
        files: Tuple of `ExportedFile`s.
        qualities: Dict from `"teacher"`, `"student"` and the files' names to `ModelQuality`s;
            empty without data.
        latencies: Dict from the same names to `Latency`s; empty unless asked for.
        class_losses: Tuple of `ClassLoss`es: the classes that lost most.
        examples: How many examples the data has.
        device: What the models' latency was measured on; `None` if it was not.
        notes: Tuple of sentences on what was not measured.
        warnings: Tuple of sentences on what looks wrong.
    """

    teacher: ModelSize
    student: ModelSize
    kept_widths: dict = dataclasses.field(default_factory=dict)
    files: tuple = ()
    qualities: dict = dataclasses.field(default_factory=dict)
    latencies: dict = dataclasses.field(default_factory=dict)
    class_losses: tuple = ()
    examples: int = 0
    device: str | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def macs_are_complete(self):
        """Whether no layer with weights is left out of the MACs of either model."""
        return not (self.teacher.uncounted_layers or self.student.uncounted_layers)

    def __str__(self):
        return "\n".join(as_text(self) + remarks(self))

    def to_markdown(self):
        """The report as a Markdown table with a list of remarks."""
        return "\n".join([*as_markdown(self), "", *(f"- {line}" for line in remarks(self))])

    def to_json(self):
        """Every number of the report as JSON; the fields are this object's."""
        return json.dumps(dataclasses.asdict(self), indent=2)


def compression_report(
    teacher: keras.Model,
    student: keras.Model,
    data: Any = None,
    files: Any = None,
    *,
    latency: bool = False,
    macs_rules: dict | None = None,
) -> CompressionReport:
    """How much smaller the student is, how much of the teacher it keeps, and what the files do.

    Multiply-accumulates (MACs) are counted where products are summed: in convolutions of every
    kind, `Dense` and `EinsumDense`, recurrent layers (the cell's products in every step), attention
    (the projections and the two products), `Dot`, and the operations `matmul`, `einsum` and
    `dot_product_attention` between the layers of a Functional model. Activations, normalisation,
    pooling and multiplications value by value are not counted. Where a layer of another kind
    multiplies or holds weights, the report names it and gives no ratio of the MACs.

    The peak of the activations is the sum of the tensors that are alive at the widest moment of a
    forward pass on one example, if nothing is computed in place. Runtimes that fuse layers need
    less.

    On `data`, classifiers with one output and one label an example are compared by accuracy, by how
    often they agree with the teacher, and by their expected calibration error (15 bins; Guo et al.,
    2017). The exported files answer, too, each in its own runtime. For other models the metrics
    that they were compiled with are shown, and the report says what was not measured.

    Args:
        teacher: A built `keras.Model`.
        student: A built `keras.Model`.
        data: Optional labelled data: a tuple `(x, y)` of arrays, or a finite data set of such
            batches. It is held in memory. Labels are class numbers or one-hot rows. Sample weights
            are not used.
        files: Optional list of files made from the student: paths, or the `ExportResult`s of
            `export_student`. A file that rescales its inputs needs the latter.
        latency: Whether to time single examples: 100 runs of `predict_on_batch` for the models, in
            turns, and of its own runtime on the CPU for each file.
        macs_rules: Optional dict from layer classes to functions of a
            `keras_ktan.report.CountedCall` that return the layer's own MACs, for layers of your
            own.

    Returns:
        A `CompressionReport`. A teacher whose accuracy is no better than chance (a binomial test at
        1 %) gets a warning.

    Raises:
        ValueError: If a model is not built, if models, data and files do not belong together, or
            if `macs_rules` is no such dict.
        ImportError: If a file's runtime is not installed.

    Example:

    ```python
    import keras
    from keras_ktan import compression_report

    def model(units):
        return keras.Sequential([keras.Input((8,)), keras.layers.Dense(units)])

    report = compression_report(model(100), model(10))
    print(report.student.macs)  # 80
    ```

    Reference:
        - Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks",
          [arXiv 1706.04599](https://arxiv.org/abs/1706.04599) (2017)
    """
    validate_macs_rules(macs_rules)
    models = {"teacher": teacher, "student": student}
    sizes = {role: measure_size(model, macs_rules) for role, model in models.items()}
    found = {"kept_widths": _kept_widths(teacher, student)}
    files = exported_files(files)
    x, file_seconds = None, {}
    if data is not None:
        x, y, is_weighted = labelled_arrays(data)
        traces = {role: ModelTrace(model) for role, model in models.items()}
        quality = measure_quality(traces, x, y, files, _TIMED_RUNS if latency else 0)
        file_seconds = quality.file_seconds
        notes = ["sample weights were not used"] if is_weighted else []
        found.update(
            qualities=quality.qualities,
            class_losses=tuple(quality.class_losses),
            examples=quality.examples,
            notes=tuple(notes + quality.notes),
            warnings=tuple(quality.warnings),
        )
        for warning in quality.warnings:
            warnings.warn(warning, stacklevel=2)
    if latency:
        found.update(latencies=_latencies(models, x, files, file_seconds), device=device_name())
    return CompressionReport(**sizes, files=tuple(files), **found)


def _latencies(models, x, files, file_seconds):
    if x is None:
        # Both get the same example, unless one of them takes an input more.
        x = one_example(max(models.values(), key=lambda model: len(getattr(model, "inputs", ()))))
    x = keras.tree.map_structure(lambda array: array[:1], x)
    calls = {
        role: lambda model=model: model.predict_on_batch(select_inputs(model, x))
        for role, model in models.items()
    }
    seconds = time_in_turns(calls, _TIMED_RUNS)
    student = models["student"]
    for file in files:
        # Most have been timed when they ran on the data.
        seconds[file.name] = file_seconds.get(file.name)
        if seconds[file.name] is None:
            inputs = file.inputs(student, select_inputs(student, x))
            _, seconds[file.name] = file.run(inputs, _TIMED_RUNS)
    return {name: latency_of(values) for name, values in seconds.items()}


def _kept_widths(teacher, student):
    """Channels of the student's layers beside the teacher's, where a record says they are kept."""
    record = channel_record_of(student)
    if record is None or record.teacher_name != teacher.name:
        return {}
    teacher_trace = ModelTrace(teacher)
    widths = {}
    for path, kept in record.channels.items():
        if channel_record_of(student, path) is not record:
            continue
        layer = teacher_trace.layers.get(path)
        calls = teacher_trace.calls_of(path) if layer is not None and layer.weights else ()
        shape = getattr(calls[-1].output_specs, "shape", None) if calls else None
        if shape and not isinstance(layer, keras.Model):
            widths[path] = (len(kept), shape[-1])
    return widths
