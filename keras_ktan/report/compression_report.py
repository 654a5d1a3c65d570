"""What was compressed: parameters, multiplications and bytes of teacher and student."""

import collections
import dataclasses
import math

import keras
import numpy as np

from keras_ktan.introspection.model_trace import ModelTrace
from keras_ktan.utils.channel_record import channel_record_of


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """One model's size.

    Args:
        name: The model's name.
        parameters: Number of weights, trained or not.
        macs: Multiply-accumulates of one forward pass on one example in convolutions and
            matrix products; `None` where an axis of a map is open.
        weight_bytes: Bytes of the weights in the types they are kept in.
        uncounted_layers: Paths of layers that hold weights and whose multiplications are
            not in `macs`.
    """

    name: str
    parameters: int
    macs: int | None
    weight_bytes: int
    uncounted_layers: tuple[str, ...]


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
                lines.append(f"{label:<12}{big:>14,}{small:>14,}{big / max(small, 1):>16.1f}")
        for role, size in (("teacher", self.teacher), ("student", self.student)):
            if size.uncounted_layers:
                lines.append(f"MACs of the {role} leave out: {', '.join(size.uncounted_layers)}")
        shares = collections.Counter(
            round(kept / total, 2) for kept, total in self.kept_widths.values()
        )
        if shares:
            counts = ", ".join(f"{share:g} in {count}" for share, count in sorted(shares.items()))
            lines.append(f"share of the channels kept, in how many layers: {counts}")
        return "\n".join(lines)


def compression_report(teacher: keras.Model, student: keras.Model) -> CompressionReport:
    """How much smaller the student is.

    Multiply-accumulates (MACs) are counted in convolutions, transposed, depthwise and separable
    ones, in `Dense`, `EinsumDense` and in what is made of them; activations, normalisation,
    pooling and the products inside attention are not counted. A layer of another kind that
    holds weights is named in the report.

    Args:
        teacher: A built `keras.Model`.
        student: A built `keras.Model`.

    Returns:
        A `CompressionReport`.

    Raises:
        ValueError: If a model is not built.

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
    traces = ModelTrace(teacher), ModelTrace(student)
    return CompressionReport(*map(_measure, traces), _kept_widths(*traces))


def _kept_widths(teacher_trace, student_trace):
    """Channels of the student's layers beside the teacher's, where a record says they are kept."""
    record = channel_record_of(student_trace.model)
    if record is None or record.teacher_name != teacher_trace.model.name:
        return {}
    widths = {}
    for path, kept in record.channels.items():
        layer = teacher_trace.layers.get(path)
        calls = teacher_trace.calls_of(path) if layer is not None and layer.weights else ()
        shape = getattr(calls[-1].output_specs, "shape", None) if calls else None
        if shape and not isinstance(layer, keras.Model):
            widths[path] = (len(kept), shape[-1])
    return widths


def _measure(trace):
    model = trace.model
    macs, uncounted = 0, []
    for call in trace.calls:
        own = _own_weights(call.layer, trace)
        if not own or isinstance(call.layer, _WITHOUT_PRODUCTS):
            continue
        count = _macs(call)
        if count is None:
            uncounted.append(call.path)
        elif macs is not None:
            macs = None if math.isnan(count) else macs + int(count)
    called = {id(call.layer) for call in trace.calls}
    for path, layer in trace.layers.items():
        # Weights that are used without their layer being called: fused kernels, for example.
        if id(layer) not in called and layer.weights and not isinstance(layer, _WITHOUT_PRODUCTS):
            uncounted.append(path)
    return ModelSize(
        name=model.name,
        parameters=model.count_params(),
        macs=macs,
        weight_bytes=sum(int(np.prod(w.shape)) * _bytes_per_value(w.dtype) for w in model.weights),
        uncounted_layers=tuple(dict.fromkeys(uncounted)),
    )


_WITHOUT_PRODUCTS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.Embedding,
    keras.layers.Normalization,
    keras.layers.PReLU,
)


def _own_weights(layer, trace):
    inner = {
        id(weight)
        for path, other in trace.layers.items()
        if other is not layer and path.startswith(_path_of(layer, trace) + "/")
        for weight in other.weights
    }
    return [weight for weight in layer.weights if id(weight) not in inner]


def _path_of(layer, trace):
    return next(path for path, known in trace.layers.items() if known is layer)


def _positions(shape):
    """Positions between batch and channels; NaN where an axis is open."""
    return math.prod(float("nan") if size is None else size for size in shape)


def _macs(call):
    layer = call.layer
    if not hasattr(call.output_specs, "shape"):
        return None
    taken, made = call.input_specs[0].shape, call.output_specs.shape
    channels_last = keras.config.image_data_format() == "channels_last"
    inner = slice(1, -1) if channels_last else slice(2, None)
    if isinstance(layer, (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)):
        kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
        return kernels * _positions(made[inner])
    if isinstance(layer, (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose)):
        return math.prod(layer.kernel.shape) * _positions(taken[inner])
    if isinstance(
        layer,
        (
            keras.layers.Conv1D,
            keras.layers.Conv2D,
            keras.layers.Conv3D,
            keras.layers.DepthwiseConv1D,
            keras.layers.DepthwiseConv2D,
        ),
    ):
        return math.prod(layer.kernel.shape) * _positions(made[inner])
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.kernel.shape) * _positions(made[1:-1])
    if isinstance(layer, keras.layers.EinsumDense):
        # Each entry of the kernel meets every position that its axes do not name.
        terms, _ = layer.equation.split("->")
        axes, kernel_axes = terms.split(",")
        named = axes.replace("...", "")
        # The axes that the dots stand for come first or, in "ab...", last.
        dots = ["."] * (len(taken) - len(named))
        axes = list(axes.partition("...")[0]) + dots + list(axes.partition("...")[2])
        free = [
            size
            for axis, size in list(zip(axes, taken, strict=True))[1:]  # without the batch
            if axis not in kernel_axes
        ]
        return math.prod(layer.kernel.shape) * _positions(free)
    return None


def _bytes_per_value(dtype):
    if dtype == "bool":
        return 1
    return {"bfloat16": 2}.get(dtype) or np.dtype(dtype).itemsize
