"""A compact detector that starts from the channels of another."""

from keras_ktan import slim_student
from keras_ktan.students.layer_rules import LayerCall
from keras_ktan_tasks.compact_detector import BoxesFromDistances, CompactDetector, ScoreLogits

# They make the outputs, which stay as wide as they are.
RULES = {kind: LayerCall.fixed_outputs for kind in (BoxesFromDistances, ScoreLogits)}


def slim_detector(teacher, box_weight, name="student", **arguments):
    """A narrower copy of a detector, with its own loss and decoding.

    `slim_student` returns a plain Functional model, whose layers remember the channels they kept.

    Args:
        teacher: A `CompactDetector`.
        box_weight: What the boxes' loss counts in the copy's training.
        name: The copy's name.
        **arguments: Passed on to `slim_student`.

    Returns:
        A `CompactDetector`.
    """
    network = slim_student(teacher, name=f"{name}_network", rules=RULES, **arguments)
    settings = {**teacher.settings, "box_weight": box_weight}
    return CompactDetector(**settings, network=network, name=name)
