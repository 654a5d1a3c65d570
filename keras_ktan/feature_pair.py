"""FeaturePair: a teacher's map, a student's map, and what joins them."""

import numbers

import keras

from keras_ktan.discriminator import FeatureDiscriminator
from keras_ktan.feature_map_search import activation_behind
from keras_ktan.feature_tap import find_layer, select_output, split_path
from keras_ktan.position_weights import check_position_weights, function_to_config
from keras_ktan.teacher_to_student import TeacherToStudent


class FeaturePair:
    """Which feature map of the student learns from which of the teacher.

    Choose maps that mean the same: the last ones of a stage, or the levels of two pyramids
    with the same stride. Their heights, widths and channels may differ. On CIFAR-10 the maps of
    the stage before the last taught more than the last ones, "The layer" in
    `benchmarks/results/README.md`.

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
        "backbone/stage4_out", "stage3_out", teacher_to_student=TeacherToStudent(anchor="task")
    )
    # Where a dense teacher has found a class, its map counts most.
    def confidence(outputs):
        return keras.ops.max(keras.ops.sigmoid(outputs["class_logits"]), axis=-1)

    level = FeaturePair("P3", "P3", position_weights=confidence)
    ```
    """

    def __init__(
        self,
        teacher_layer_name,
        student_layer_name,
        weight=1.0,
        teacher_to_student=None,
        discriminator=None,
        position_weights=None,
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
        if (
            isinstance(weight, bool)
            or not isinstance(weight, numbers.Real)
            or not 0 < weight < float("inf")
        ):
            raise ValueError(
                f"Received weight={weight!r} in a FeaturePair. Expected a number above 0. To do "
                "without a pair, leave it out of `feature_pairs`."
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
        self.weight = float(weight)
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


class ConnectedPair:
    """A `FeaturePair` whose layers are built for two given models.

    Args:
        pair: The `FeaturePair`.
        teacher_trace: `ModelTrace` of the teacher.
        student_trace: `ModelTrace` of the student.
        classes: Number of classes, or `None` where the models have no class logits.

    Raises:
        ValueError: If a path is wrong or if the shapes cannot meet.
    """

    def __init__(self, pair, teacher_trace, student_trace, classes):
        self.pair = pair
        self.weight = pair.weight
        self.teacher_shape = _map_shape(teacher_trace, pair.teacher_layer_name, "teacher")
        self.student_shape = _map_shape(student_trace, pair.student_layer_name, "student")
        if pair.position_weights is not None:
            check_position_weights(pair.position_weights, teacher_trace.outputs, self.student_shape)
        policy = student_trace.model.dtype_policy
        self.teacher_to_student = pair.teacher_to_student or TeacherToStudent(dtype=policy)
        self.teacher_to_student.connect(
            self.teacher_shape,
            self.student_shape,
            activation_behind(student_trace, *split_path(pair.student_layer_name)),
        )
        self.anchor = self.teacher_to_student.attach_anchor(
            student_trace.model, pair.student_layer_name, self.teacher_shape[-1], classes
        )
        self.discriminator = pair.discriminator or FeatureDiscriminator(dtype=policy)
        if self.discriminator.conditional is True and classes is None:
            raise ValueError(
                "Received a FeatureDiscriminator with conditional=True for models without class "
                "logits. Expected a classifier, because the condition is the teacher's class "
                "probabilities. Use conditional=False or say where the logits are with "
                "`logits_output`."
            )
        self.conditional = self.discriminator.conditional is not False and classes is not None
        if not self.discriminator.built:
            self.discriminator.build(
                self.student_shape, (None, classes) if self.conditional else None
            )
            self.discriminator.built = True
        else:
            self._check_shared_discriminator(classes)

    def _check_shared_discriminator(self, classes):
        kernel = self.discriminator.hidden[0].kernel
        if len(kernel.shape) != len(self.student_shape):
            raise ValueError(
                f"One FeatureDiscriminator was given to student maps of rank "
                f"{len(self.student_shape)} and {len(kernel.shape)}. Expected the same rank. Give "
                "each pair a discriminator of its own."
            )
        projection = self.discriminator.projection
        known = projection.kernel.shape[0] if projection.built else None
        if self.conditional and known != classes:
            raise ValueError(
                f"Received a FeatureDiscriminator that was built for {known or 'no'} classes with "
                f"models of {classes} classes. Expected the same classes. Give the pair a new one."
            )
        if kernel.shape[-2] != self.student_shape[-1]:
            raise ValueError(
                f"One FeatureDiscriminator was given to student maps of {self.student_shape[-1]} "
                f"and {self.discriminator.hidden[0].kernel.shape[-2]} channels. Expected the same "
                "number. Give each pair a discriminator of its own."
            )

    def describe(self):
        """Lines for `summary()`."""
        return (
            f"{self.pair.teacher_layer_name} {tuple(self.teacher_shape)} -> "
            f"{self.pair.student_layer_name} {tuple(self.student_shape)}, "
            f"weight {self.weight:g}, anchor {self.anchor.describe()}, "
            f"discriminator {'conditional' if self.conditional else 'unconditional'}"
            + ("" if self.pair.position_weights is None else ", positions weighted")
        )


def _map_shape(trace, path, role):
    layer_path, key = split_path(path)
    find_layer(trace.model, layer_path, role)
    calls = trace.calls_of(layer_path)
    if len(calls) != 1:
        raise ValueError(
            f"The layer '{layer_path}' of the {role} '{trace.model.name}' ran {len(calls)} times "
            "in one forward pass. Expected exactly once, so that its feature map is one tensor. "
            "Name a layer that runs once, such as the one behind it."
        )
    return tuple(select_output(calls[0].output_specs, key, path).shape)
