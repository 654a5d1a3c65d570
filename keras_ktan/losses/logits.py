"""The logits losses: how far the student's outputs are from the teacher's."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_ktan.losses.reductions import (
    expand_mask,
    in_full_precision,
    is_loss_function,
    mean_per_example,
    unreduced,
    without_padding,
)

# Keeps the standard deviation of equal logits away from 0.
_EPSILON = 1e-6


def softened_kl(
    teacher_logits: Any,
    student_logits: Any,
    temperature: float,
    kind: str = "softmax",
    mask: Any = None,
) -> Any:
    """Divergence of the student's softened probabilities from the teacher's.

    The wrong classes' probabilities say what a class looks like; a temperature
    above 1 makes them large enough to be learned. The factor T² keeps the gradient's
    size the same at every temperature.

    Args:
        teacher_logits: Tensor `(batch, ..., classes)` of raw scores.
        student_logits: Tensor of the same shape.
        temperature: Number above 0 that both are divided by.
        kind: `"softmax"` for one class of many, `"sigmoid"` for classes that
            are independent of each other.
        mask: Optional boolean tensor `(batch, ...)` without the classes: the positions that are
            no padding.

    Returns:
        Tensor `(batch,)`: `T² · KL(teacher ‖ student)`, summed over the classes and
        averaged over the axes between (positions, anchors).

    Example:

    ```python
    import numpy as np
    from keras_ktan.losses import softened_kl

    scores = np.array([[2.0, 0.0, -1.0]], "float32")
    print(softened_kl(scores, scores, temperature=4.0))  # 0
    ```

    Reference:
        - [Hinton et al., 2015](https://arxiv.org/abs/1503.02531)
    """
    teacher_logits, student_logits = (
        # The gradient of a product is fewer operations than that of a quotient.
        logits * (1.0 / temperature)
        for logits in in_full_precision(teacher_logits, student_logits)
    )
    if kind == "softmax":
        teacher_log, student_log = (
            ops.log_softmax(teacher_logits, axis=-1),
            ops.log_softmax(student_logits, axis=-1),
        )
        divergence = _share_of_divergence(teacher_log, student_log)
    else:
        on, off = ops.log_sigmoid(teacher_logits), ops.log_sigmoid(-teacher_logits)
        divergence = _share_of_divergence(
            on, ops.log_sigmoid(student_logits)
        ) + _share_of_divergence(off, ops.log_sigmoid(-student_logits))
    return mean_per_example(ops.sum(divergence, axis=-1), mask) * temperature**2


def _share_of_divergence(teacher_log, student_log):
    """p·log(p/q) from the logarithms; 0 where p is 0: a teacher may mask classes by -inf."""
    probability = ops.exp(teacher_log)
    # Chosen before the product, because 0 times infinity is no number, nor is its gradient.
    difference = ops.where(probability > 0, teacher_log - student_log, 0.0)
    return probability * difference


def standardized_kl(
    teacher_logits: Any,
    student_logits: Any,
    temperature: float,
    kind: str = "softmax",
    mask: Any = None,
) -> Any:
    """Divergence of softened probabilities after both models' logits were standardised.

    Each example's logits are brought to mean 0 and standard deviation 1 over the classes before
    they are softened, so that the student need not reach the size of the teacher's logits.

    Args:
        teacher_logits: Tensor `(batch, ..., classes)` of raw scores.
        student_logits: Tensor of the same shape.
        temperature: Number above 0 that the standardised logits are divided by.
        kind: `"softmax"`; independent classes have no common scale to be standardised by.
        mask: As in `softened_kl`.

    Returns:
        Tensor `(batch,)`, as `softened_kl` of the standardised logits.

    Reference:
        - [Sun et al., 2024](https://arxiv.org/abs/2403.01427)
    """

    def standardized(logits):
        # Classes that are masked by -inf stay so and do not count.
        known = ops.isfinite(logits)
        values = ops.where(known, logits, 0.0)
        count = ops.maximum(ops.sum(ops.cast(known, logits.dtype), axis=-1, keepdims=True), 1.0)
        centred = ops.where(known, values - ops.sum(values, axis=-1, keepdims=True) / count, 0.0)
        variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / count
        # The root has no gradient at 0.
        deviation = ops.sqrt(ops.maximum(variance, _EPSILON**2))
        return ops.where(known, centred / (deviation + _EPSILON), logits)

    teacher_logits, student_logits = in_full_precision(teacher_logits, student_logits)
    return softened_kl(
        standardized(teacher_logits), standardized(student_logits), temperature, mask=mask
    )


def pearson(
    teacher_logits: Any,
    student_logits: Any,
    temperature: float,
    kind: str = "softmax",
    mask: Any = None,
) -> Any:
    """One minus the correlation of both models' softened probabilities.

    It is the sum of two terms, each times T²: correlation over the classes of an example, and
    correlation over the examples of the batch for each class. The student may differ from the
    teacher by a shift and a scale.

    Args:
        teacher_logits: Tensor `(batch, ..., classes)` of raw scores.
        student_logits: Tensor of the same shape.
        temperature: Number above 0 that both are divided by.
        kind: `"softmax"` or `"sigmoid"`: what makes probabilities of the logits.
        mask: As in `softened_kl`. Over the examples, a position is averaged for those alone in
            which it is no padding.

    Returns:
        Tensor `(batch,)`. The term over the examples is the same for all of them.

    Reference:
        - [Huang et al., 2022](https://arxiv.org/abs/2205.10536)
    """
    make = ops.softmax if kind == "softmax" else ops.sigmoid
    teacher, student = (
        make(logits / temperature) for logits in in_full_precision(teacher_logits, student_logits)
    )
    over_classes = mean_per_example(1.0 - _correlation(teacher, student, axis=-1), mask)
    if mask is None:
        over_examples = ops.mean(1.0 - _correlation(teacher, student, axis=0))
    else:
        distances = 1.0 - _correlation(teacher, student, axis=0, mask=expand_mask(mask, teacher))
        # `(positions..., classes)`: a position that is padding in every example does not count.
        shown = ops.cast(expand_mask(ops.any(mask, axis=0), distances), distances.dtype)
        over_examples = ops.sum(distances * shown) / ops.maximum(ops.sum(shown), 1.0)
    return (over_classes + over_examples) * temperature**2


def _correlation(one, other, axis, mask=None):
    one, other = _centred(one, axis, mask), _centred(other, axis, mask)
    product = ops.sum(one * other, axis=axis)
    sizes = ops.sum(ops.square(one), axis=axis) * ops.sum(ops.square(other), axis=axis)
    # Below the square of a probability's rounding error there is nothing to correlate.
    return product * ops.rsqrt(ops.maximum(sizes, 1e-16))


def _centred(values, axis, mask):
    """Differences from the mean along an axis; padding is 0 and enters no mean."""
    if mask is None:
        return values - ops.mean(values, axis=axis, keepdims=True)
    shown = ops.cast(mask, values.dtype)
    count = ops.maximum(ops.sum(shown, axis=axis, keepdims=True), 1.0)
    return (values - ops.sum(values * shown, axis=axis, keepdims=True) / count) * shown


LOGITS_LOSSES = {"kl": softened_kl, "standardized_kl": standardized_kl, "pearson": pearson}


def logits_loss(
    loss: str | Callable | keras.losses.Loss,
    teacher_logits: Any,
    student_logits: Any,
    temperature: float,
    kind: str = "softmax",
    mask: Any = None,
) -> Any:
    """Distance of the student's logits from the teacher's.

    Args:
        loss: A name in `LOGITS_LOSSES`, a `keras.losses.Loss`, or a function of raw (teacher,
            student) logits that returns `(batch,)` or `(batch, positions...)`.
        teacher_logits: Tensor `(batch, ..., classes)` of raw scores.
        student_logits: Tensor of the same shape.
        temperature: Number above 0. It belongs to the named losses alone.
        kind: `"softmax"` or `"sigmoid"`.
        mask: Optional boolean tensor `(batch, ...)` without the classes: the positions that are
            no padding.

    Returns:
        Tensor `(batch,)`.
    """
    teacher_logits, student_logits = without_padding(mask, teacher_logits, student_logits)
    if isinstance(loss, str):
        return LOGITS_LOSSES[loss](teacher_logits, student_logits, temperature, kind, mask)
    return unreduced(loss, mask)(teacher_logits, student_logits)


def validate_logits_loss(loss, kinds=("softmax",)):
    """Check what `compile` was given.

    Args:
        loss: The argument.
        kinds: The kinds of the paired outputs.

    Raises:
        ValueError: If it is no name, `keras.losses.Loss` or function, or a name that these kinds
            do not allow.
    """
    if isinstance(loss, str) and loss in LOGITS_LOSSES:
        if loss != "kl" and kinds and set(kinds) == {"regression"}:
            raise ValueError(
                f"Received logits_loss={loss!r} for outputs of regression. Expected classes: a "
                "regression has no softened probabilities. Leave `logits_loss` out for the squared "
                "difference in units of the teacher's variance, or pass a function."
            )
        if loss == "standardized_kl" and "sigmoid" in kinds:
            raise ValueError(
                "Received logits_loss='standardized_kl' for independent classes (sigmoid). "
                "Expected classes of which one is right, because each example's logits are "
                "standardised over its classes. Write `logits_loss='kl'`."
            )
        return
    if isinstance(loss, str) or not is_loss_function(loss):
        raise ValueError(
            f"Received logits_loss={loss!r}. Expected one of {sorted(LOGITS_LOSSES)}, a "
            "keras.losses.Loss or a function of (teacher, student) logits. Write "
            "`logits_loss='kl'`, for example."
        )
