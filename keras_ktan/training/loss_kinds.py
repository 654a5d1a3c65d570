"""What a loss against the targets says about the outputs that it is computed from."""

import dataclasses
import functools

import keras

from keras_ktan.utils.keras_internals import loss_axis

# What Keras's losses are for. Dice and Tversky take probabilities of either kind.
_FAMILIES = {
    "softmax": (
        "CategoricalCrossentropy",
        "SparseCategoricalCrossentropy",
        "CategoricalFocalCrossentropy",
        "CategoricalGeneralizedCrossEntropy",
        "CategoricalHinge",
        "KLDivergence",
    ),
    "sigmoid": ("BinaryCrossentropy", "BinaryFocalCrossentropy", "Hinge", "SquaredHinge"),
    "regression": (
        "MeanSquaredError",
        "MeanAbsoluteError",
        "MeanAbsolutePercentageError",
        "MeanSquaredLogarithmicError",
        "Huber",
        "LogCosh",
        "Poisson",
        "CosineSimilarity",
    ),
    "overlap": ("Dice", "Tversky"),
}
_ON_PROBABILITIES = ("CategoricalGeneralizedCrossEntropy", "KLDivergence", "Dice", "Tversky")


@dataclasses.dataclass(frozen=True)
class LossKind:
    """What a loss says about an output.

    Args:
        name: What the error calls the loss.
        family: `"softmax"`, `"sigmoid"`, `"regression"`, `"overlap"` (probabilities of either
            kind), or `None` for a loss that nobody knows.
        takes: `"logits"`, `"probabilities"`, or `None` where the loss does not say.
        axis: The axis of the classes.
    """

    name: str
    family: str | None = None
    takes: str | None = None
    axis: int = -1


def loss_kind(loss):
    """What is known of the loss of one output.

    Args:
        loss: A name, a `keras.losses.Loss`, a function, or `None`.

    Returns:
        A `LossKind`; `None` for an output without a loss.

    Raises:
        ValueError: If Keras knows no loss of that name.
    """
    if isinstance(loss, (list, tuple)) and len(loss) == 1:
        loss = loss[0]
    if loss is None:
        return None
    if isinstance(loss, str):
        return dataclasses.replace(loss_kind(keras.losses.get(loss)), name=loss)
    if isinstance(loss, keras.losses.Loss):
        return _kind_of_object(loss)
    return _kind_of_function(loss)


def _kind_of_object(loss):
    for family, names in _FAMILIES.items():
        for name in names:
            if isinstance(loss, getattr(keras.losses, name, ())):
                takes = _takes(name, getattr(loss, "from_logits", None))
                return LossKind(type(loss).__name__, family, takes, loss_axis(loss))
    return LossKind(type(loss).__name__)


def _kind_of_function(function):
    given = {}
    while isinstance(function, functools.partial):
        given = {**function.keywords, **given}
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)
    if getattr(keras.losses, name, None) is not function:
        return LossKind(name)
    for family, classes in _FAMILIES.items():
        for class_name in classes:
            if name.replace("_", "") == class_name.lower():
                takes = _takes(class_name, given.get("from_logits", False))
                return LossKind(name, family, takes, given.get("axis", -1))
    return LossKind(name)


def _takes(name, from_logits):
    if name in _ON_PROBABILITIES:
        return "probabilities"
    if name.lower().endswith("crossentropy"):
        return "logits" if from_logits else "probabilities"
    return None


def loss_of_output(loss, outputs, key, names):
    """The part of `compile`'s `loss` that belongs to one output of the student.

    Args:
        loss: The argument of `compile`.
        outputs: Structure of `keras.KerasTensor`, the student's outputs.
        key: Key or position of the output; `None` for a single output.
        names: The student's `output_names`, or an empty list.

    Returns:
        A name, a `keras.losses.Loss`, a function, or `None`.
    """
    if not isinstance(loss, (dict, list, tuple)):
        return loss
    flat = keras.tree.flatten(outputs)
    if len(flat) == 1 and len(loss) == 1:
        return next(iter(loss.values())) if isinstance(loss, dict) else loss[0]
    wanted = outputs if key is None else outputs[key]
    place = next(index for index, tensor in enumerate(flat) if tensor is wanted)
    if isinstance(loss, dict):
        keys = [key, *([names[place]] if place < len(names) else [])]
        return next((loss[name] for name in keys if name in loss), None)
    return loss[place] if place < len(loss) else None
