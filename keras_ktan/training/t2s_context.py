"""What an objective of T2S may use in one training step."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class T2SContext:
    """What an objective of T2S may use in one training step; each uses a part of it.

    Args:
        inputs: The batch of inputs.
        teacher_map: The teacher's feature map.
        student_map: The student's feature map.
        teacher_mask: Boolean tensor, where the teacher's map is no padding, or `None`.
        mask: Likewise of R and the student's map.
        student_loss: Function from outputs of the student's structure to the scalar loss against
            the targets of the batch.
        class_student_loss: The same for class logits alone; `None` if the targets are for more.
        logits_loss: The same against the teacher's outputs.
        class_logits_loss: The same for class logits alone.
        feature_loss: Function from a target map and a student map to a scalar.
    """

    inputs: Any = None
    teacher_map: Any = None
    student_map: Any = None
    teacher_mask: Any = None
    mask: Any = None
    student_loss: Callable | None = None
    class_student_loss: Callable | None = None
    logits_loss: Callable | None = None
    class_logits_loss: Callable | None = None
    feature_loss: Callable | None = None
