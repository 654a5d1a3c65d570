"""OutputPair: a teacher's output and the student's output that learns from it."""

import keras

from keras_ktan.utils.numbers import validate_choice, validate_number

KINDS = ("auto", "softmax", "sigmoid", "regression")


@keras.saving.register_keras_serializable(package="keras_ktan")
class OutputPair:
    """Which output of the student learns from which output of the teacher, and as what.

    Classes (or the dimensions of a regression) lie on the last axis. What stands between it and
    the batch axis are positions: pixels, tokens, anchors, frames. Each is distilled by itself.

    Args:
        teacher_output: Key or position of the teacher's output. `None`: its single output.
        student_output: Key or position of the student's output. `None`: its single output, or
            the one with the teacher's key.
        kind: What the outputs mean. `"softmax"`: one class of many. `"sigmoid"`: classes that
            are independent of each other. `"regression"`: numbers, such as an embedding.
            `"auto"`: `compile` finds out from the outputs and from the loss, or asks.
        weight: Number above 0: what this pair counts beside others.

    Raises:
        ValueError: If an argument is of the wrong kind.

    Example:

    ```python
    from keras_ktan import OutputPair

    # A teacher with one head and a student with two.
    color = OutputPair(student_output="color")
    # Multi-label scores that count twice.
    tags = OutputPair("tags", "tags", kind="sigmoid", weight=2.0)
    ```
    """

    def __init__(
        self,
        teacher_output: str | int | None = None,
        student_output: str | int | None = None,
        kind: str = "auto",
        weight: float = 1.0,
    ):
        for name, value in {
            "teacher_output": teacher_output,
            "student_output": student_output,
        }.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
                raise ValueError(
                    f"Received {name}={value!r} in an OutputPair. Expected the key or the position "
                    "of an output, or None for a single output. Write "
                    f"`{name}='logits'`, for example."
                )
        validate_choice("kind", kind, KINDS)
        self.teacher_output = teacher_output
        self.student_output = student_output
        self.kind = kind
        self.weight = validate_number(
            "weight",
            weight,
            above=0,
            where=" in an OutputPair",
            remedy="To do without a pair, leave it out of `output_pairs`.",
        )

    def get_config(self) -> dict:
        return {
            "teacher_output": self.teacher_output,
            "student_output": self.student_output,
            "kind": self.kind,
            "weight": self.weight,
        }

    @classmethod
    def from_config(cls, config: dict) -> "OutputPair":
        return cls(**config)


def as_output_pairs(output_pairs):
    """The pairs that a user gave, as a list.

    Args:
        output_pairs: An `OutputPair`, a list of them (empty: no output is distilled), or `None`.

    Returns:
        A list, or `None`.

    Raises:
        ValueError: If it is something else.
    """
    if output_pairs is None:
        return None
    if isinstance(output_pairs, OutputPair):
        return [output_pairs]
    if not isinstance(output_pairs, (list, tuple)) or not all(
        isinstance(pair, OutputPair) for pair in output_pairs
    ):
        raise ValueError(
            f"Received output_pairs={output_pairs!r}. Expected an OutputPair, a list of them, or "
            "None. Write `output_pairs=OutputPair(teacher_output, student_output)`."
        )
    return list(output_pairs)
