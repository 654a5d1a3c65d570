"""The loss of two models' outputs that are plain numbers."""

from typing import Any

from keras import ops

from keras_ktan.losses.reductions import (
    expand_mask,
    in_full_precision,
    mean_per_example,
    without_padding,
)


def scaled_squared_error(
    teacher_outputs: Any, student_outputs: Any, variance: Any, mask: Any = None
) -> Any:
    """Squared difference in units of the teacher's variance.

    Outputs of a regression have units of their own: a price and a share of it would count a
    million to one. Divided by how much the teacher's outputs vary, every dimension counts the
    same, and the loss has the size of the other terms: a student that always answers with the
    teacher's mean has 1. The scaling is our choice.

    Args:
        teacher_outputs: Tensor `(batch, ..., dimensions)`, or `(batch,)`.
        student_outputs: Tensor of the same shape.
        variance: Tensor `(dimensions,)`, or a scalar for outputs `(batch,)`. A dimension with
            variance 0 is not scaled.
        mask: Optional boolean tensor `(batch, ...)` without the dimensions: the positions that
            are no padding.

    Returns:
        Tensor `(batch,)`, averaged over the dimensions and over the axes between.

    Example:

    ```python
    import numpy as np
    from keras_ktan.losses import scaled_squared_error

    teacher, student = np.array([[1.0, 100.0]]), np.array([[2.0, 110.0]])
    print(scaled_squared_error(teacher, student, np.array([1.0, 100.0])))  # [1.0]
    ```
    """
    teacher, student, variance = in_full_precision(teacher_outputs, student_outputs, variance)
    scale = ops.where(variance > 0, variance, 1.0)
    teacher, student = without_padding(mask, teacher, student)
    values = ops.square(teacher - student) / scale
    return mean_per_example(values, None if mask is None else expand_mask(mask, values))
