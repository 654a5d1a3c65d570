"""What was compressed: parameters, multiplications and bytes of teacher and student."""

import collections
import dataclasses

import keras

from keras_ktan.introspection.model_trace import ModelTrace
from keras_ktan.report.model_size import ModelSize, measure_size, validate_macs_rules
from keras_ktan.utils.channel_record import channel_record_of


@dataclasses.dataclass(frozen=True)
class CompressionReport:
    """Teacher beside student; `print` it for a table.

    Args:
        teacher: `ModelSize` of the teacher.
        student: `ModelSize` of the student.
        kept_widths: For a student of `slim_student`, dict from the paths of its layers with
            weights to tuples `(channels kept, the teacher's channels)`; else empty.
    """

    teacher: ModelSize
    student: ModelSize
    kept_widths: dict = dataclasses.field(default_factory=dict)

    @property
    def macs_are_complete(self):
        """Whether no layer with weights is left out of the MACs of either model."""
        return not (self.teacher.uncounted_layers or self.student.uncounted_layers)

    def __str__(self):
        lines = [f"{'':<12}{'teacher':>14}{'student':>14}{'times smaller':>16}"]
        for label, field in (
            ("parameters", "parameters"),
            ("MACs", "macs"),
            ("weight bytes", "weight_bytes"),
        ):
            big, small = getattr(self.teacher, field), getattr(self.student, field)
            if big is None or small is None:
                lines.append(f"{label:<12}{'input size is open; not counted':>44}")
            else:
                ratio = f"{big / max(small, 1):.1f}"
                if field == "macs" and not self.macs_are_complete:
                    ratio = "-"
                lines.append(f"{label:<12}{big:>14,}{small:>14,}{ratio:>16}")
        for role, size in (("teacher", self.teacher), ("student", self.student)):
            if size.uncounted_layers:
                lines.append(f"MACs of the {role} leave out: {', '.join(size.uncounted_layers)}")
        unseen = sorted({*self.teacher.unseen_classes, *self.student.unseen_classes})
        if unseen:
            lines.append(
                f"MACs leave out what {', '.join(unseen)} multiply by operations in their own "
                "`call`, if anything: `macs_rules` counts it"
            )
        shares = collections.Counter(
            round(kept / total, 2) for kept, total in self.kept_widths.values()
        )
        if shares:
            counts = ", ".join(f"{share:g} in {count}" for share, count in sorted(shares.items()))
            lines.append(f"share of the channels kept, in how many layers: {counts}")
        return "\n".join(lines)


def compression_report(
    teacher: keras.Model, student: keras.Model, macs_rules: dict | None = None
) -> CompressionReport:
    """How much smaller the student is.

    Multiply-accumulates (MACs) are counted where products are summed: in convolutions of every
    kind, `Dense` and `EinsumDense`, recurrent layers (the cell's products in every step), attention
    (the projections and the two products), `Dot`, and the operations `matmul`, `einsum` and
    `dot_product_attention` between the layers of a Functional model. Activations, normalisation,
    pooling and multiplications value by value are not counted. Where a layer of another kind
    multiplies or holds weights, the report names it and gives no ratio of the MACs.

    Args:
        teacher: A built `keras.Model`.
        student: A built `keras.Model`.
        macs_rules: Optional dict from layer classes to functions of a
            `keras_ktan.report.CountedCall` that return the layer's own MACs, for layers of your
            own.

    Returns:
        A `CompressionReport`.

    Raises:
        ValueError: If a model is not built, or `macs_rules` is no such dict.

    Example:

    ```python
    import keras
    from keras_ktan import compression_report

    def model(units):
        return keras.Sequential([keras.Input((8,)), keras.layers.Dense(units)])

    report = compression_report(model(100), model(10))
    print(report.student.macs)  # 80
    ```
    """
    validate_macs_rules(macs_rules)
    sizes = [measure_size(model, macs_rules) for model in (teacher, student)]
    return CompressionReport(*sizes, _kept_widths(teacher, student))


def _kept_widths(teacher, student):
    """Channels of the student's layers beside the teacher's, where a record says they are kept."""
    record = channel_record_of(student)
    if record is None or record.teacher_name != teacher.name:
        return {}
    teacher_trace = ModelTrace(teacher)
    widths = {}
    for path, kept in record.channels.items():
        layer = teacher_trace.layers.get(path)
        calls = teacher_trace.calls_of(path) if layer is not None and layer.weights else ()
        shape = getattr(calls[-1].output_specs, "shape", None) if calls else None
        if shape and not isinstance(layer, keras.Model):
            widths[path] = (len(kept), shape[-1])
    return widths
