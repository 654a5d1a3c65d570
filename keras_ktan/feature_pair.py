"""FeaturePair: a teacher's map and the student's map that learns from it."""

from collections.abc import Callable

import keras

from keras_ktan.layers.discriminator import FeatureDiscriminator
from keras_ktan.layers.teacher_to_student import TeacherToStudent
from keras_ktan.losses.position_weights import function_to_config
from keras_ktan.utils.numbers import validate_number


class FeaturePair:
    """Which feature map of the student learns from which of the teacher.

    Choose maps that mean the same: the last ones of a stage, or the levels of two pyramids
    with the same stride. Their heights, widths, channels and ranks may differ. On CIFAR-10 the
    maps of the stage before the last gained more than the last ones ("Which map" in
    `docs/results.md`).

    Args:
        teacher_layer_name: Path of a teacher's layer: its name, `"outer/inner"` for a layer
            of a nested model, `"layer:key"` where a layer returns a dict or a list.
        student_layer_name: Path of a student's layer.
        weight: Number above 0: what this pair counts beside others.
        teacher_to_student: A `TeacherToStudent`; `None`: one is made.
        discriminator: A `FeatureDiscriminator`; `None`: one is made. Pairs may share one
            if their maps have the same number of channels.
        position_weights: Function, written with `keras.ops`, from the teacher's outputs to a
            tensor `(batch, height, width)` of numbers of 0 or more on the student's map: what
            each position counts in the feature loss beside the others of the same example.
            A detector's teacher knows where objects are; most of a picture is background.
            `None`: all positions count the same. The adversary has no such weights. An example
            whose weights are all 0 has no feature loss. If the distiller is to be saved,
            register the function with `keras.saving.register_keras_serializable`, or the class
            of an object with `__call__`, `get_config` and `from_config`.

    Layers that are given keep what they learned: make new ones for each distiller.

    Raises:
        ValueError: If an argument is of the wrong kind.

    Example:

    ```python
    import keras
    from keras_ktan import FeaturePair, TeacherToStudent

    pair = FeaturePair(
        "backbone/stage4_out", "stage3_out", teacher_to_student=TeacherToStudent(objective="task")
    )
    # Where a dense teacher has found a class, its map counts most.
    def confidence(outputs):
        return keras.ops.max(keras.ops.sigmoid(outputs["class_logits"]), axis=-1)

    level = FeaturePair("P3", "P3", position_weights=confidence)
    ```
    """

    def __init__(
        self,
        teacher_layer_name: str,
        student_layer_name: str,
        weight: float = 1.0,
        teacher_to_student: TeacherToStudent | None = None,
        discriminator: FeatureDiscriminator | None = None,
        position_weights: Callable | None = None,
    ):
        for name, value in {
            "teacher_layer_name": teacher_layer_name,
            "student_layer_name": student_layer_name,
        }.items():
            if not isinstance(value, str) or not value:
                raise ValueError(
                    f"Received {name}={value!r} in a FeaturePair. Expected the path of a layer as "
                    "a string, such as 'stage3_out' or 'backbone/stage3_out'."
                )
        self.weight = validate_number(
            "weight",
            weight,
            above=0,
            where=" in a FeaturePair",
            remedy="To do without a pair, leave it out of `feature_pairs`.",
        )
        for name, value, kind in (
            ("teacher_to_student", teacher_to_student, TeacherToStudent),
            ("discriminator", discriminator, FeatureDiscriminator),
        ):
            if value is not None and not isinstance(value, kind):
                raise ValueError(
                    f"Received {name}={value!r} in a FeaturePair. Expected a {kind.__name__} or "
                    f"None. Write `{name}={kind.__name__}(...)`."
                )
        if position_weights is not None and (
            isinstance(position_weights, keras.layers.Layer) or not callable(position_weights)
        ):
            raise ValueError(
                f"Received position_weights={position_weights!r} in a FeaturePair. Expected a "
                "function from the teacher's outputs to one number for each position, or None. A "
                "layer's weights would be neither trained nor saved. Write a function."
            )
        self.teacher_layer_name = teacher_layer_name
        self.student_layer_name = student_layer_name
        self.teacher_to_student = teacher_to_student
        self.discriminator = discriminator
        self.position_weights = position_weights

    def to_references(self, layers):
        """The arguments, with each layer replaced by its place in a list.

        Pairs may share a layer. Saved inside each pair it would come back as two.

        Args:
            layers: List of layers; those of this pair that are not yet in it are added.

        Returns:
            Dict of plain values.
        """
        config = {
            "teacher_layer_name": self.teacher_layer_name,
            "student_layer_name": self.student_layer_name,
            "weight": self.weight,
            "position_weights": function_to_config(self.position_weights),
        }
        for name in ("teacher_to_student", "discriminator"):
            layer = getattr(self, name)
            if layer is not None and not any(layer is known for known in layers):
                layers.append(layer)
            config[name] = next(
                (place for place, known in enumerate(layers) if known is layer), None
            )
        return config

    @classmethod
    def from_references(cls, config, layers, deserialize):
        """A pair from what `to_references` returned, the list it filled, and a way to read it."""
        config = dict(config)
        # Distillers that were saved before there were position weights have none.
        config["position_weights"] = deserialize(config.get("position_weights"))
        for name in ("teacher_to_student", "discriminator"):
            config[name] = None if config[name] is None else layers[config[name]]
        return cls(**config)


def as_feature_pairs(feature_pairs):
    """The pairs that a user gave, as a list.

    Args:
        feature_pairs: A `FeaturePair`, a list of them, or `None`.

    Returns:
        A list, or `None`.

    Raises:
        ValueError: If it is something else, or an empty list.
    """
    if feature_pairs is None:
        return None
    if isinstance(feature_pairs, FeaturePair):
        return [feature_pairs]
    if (
        not isinstance(feature_pairs, (list, tuple))
        or not feature_pairs
        or not all(isinstance(pair, FeaturePair) for pair in feature_pairs)
    ):
        raise ValueError(
            f"Received feature_pairs={feature_pairs!r}. Expected a FeaturePair, a list of them "
            "that is not empty, or None. Write "
            "`feature_pairs=FeaturePair(teacher_layer_name, student_layer_name)`."
        )
    return list(feature_pairs)
