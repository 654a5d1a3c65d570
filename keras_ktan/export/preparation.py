"""What `export_student` checks before it writes anything."""

import dataclasses
import pathlib

import keras

from keras_ktan.export import arguments
from keras_ktan.export.examples import take_examples
from keras_ktan.export.requirements import require_packages
from keras_ktan.export.serving_model import ServingModel


@dataclasses.dataclass(frozen=True)
class PreparedExport:
    """An export whose arguments fit together.

    Args:
        model: The `ServingModel` to write.
        path: Where to.
        format: The settled format.
        limits: The largest difference and the smallest agreement allowed.
        calibration: Dict from input names to arrays, or `None`.
    """

    model: ServingModel
    path: pathlib.Path
    format: str
    limits: tuple[float, float]
    calibration: dict | None


def prepare_export(
    student,
    filepath,
    format=None,
    *,
    output_names=None,
    batch_size=None,
    rescaling=None,
    softmax=False,
    precision="float32",
    calibration_data=None,
    input_dtype=None,
    output_dtype=None,
    tolerance=None,
    agreement=None,
    max_examples=512,
):
    """Check the arguments of `export_student` without writing anything.

    Args:
        student: See `export_student`, as for the others.
        filepath: See there.
        format: See there.
        output_names: See there.
        batch_size: See there.
        rescaling: See there.
        softmax: See there.
        precision: See there.
        calibration_data: See there.
        input_dtype: See there.
        output_dtype: See there.
        tolerance: See there.
        agreement: See there.
        max_examples: See there.

    Returns:
        A `PreparedExport`.

    Raises:
        ValueError: If an argument is unknown or does not fit.
        ImportError: If a package of the extra `export` is missing.
    """
    if not isinstance(student, keras.Model):
        raise ValueError(
            f"Received a student of type {type(student).__name__}. Expected a `keras.Model`."
        )
    format = arguments.settle_format(filepath, format)
    path = arguments.checked_path(filepath, format)
    arguments.settle_precision(precision, format, calibration_data, input_dtype, output_dtype)
    arguments.positive_integer("batch_size", batch_size, optional=True)
    arguments.positive_integer("max_examples", max_examples)
    model = ServingModel(student, output_names, rescaling, softmax)
    arguments.check_backend(format, keras.backend.backend())
    arguments.check_computation(format, _in_half(model))
    limits = arguments.settle_limits(precision, _in_half(model), tolerance, agreement)
    require_packages(format)
    calibration = _calibration(model, calibration_data, max_examples, batch_size)
    return PreparedExport(model, path, format, limits, calibration)


def take_for(model, data, argument, limit):
    """Examples for a model, by its inputs' names; see `take_examples`.

    Args:
        model: A `ServingModel`.
        data: What holds them.
        argument: The argument's name, for error messages.
        limit: The largest number of examples to take.

    Returns:
        A dict from input names to NumPy arrays.
    """
    return take_examples(data, argument, model.specs(), model.input_structure(), limit)


def _in_half(model):
    return any(
        getattr(layer, "compute_dtype", None) in ("float16", "bfloat16")
        for layer in model.layers_of_student()
    )


def _calibration(model, data, limit, batch_size):
    if data is None:
        return None
    taken = take_for(model, data, "calibration_data", limit)
    count = len(next(iter(taken.values())))
    if batch_size and count < batch_size:
        raise ValueError(
            f"Received {count} examples of calibration_data with batch_size={batch_size}. Expected "
            "at least one batch. Give more, or a smaller `batch_size`."
        )
    return taken
