"""A `FeaturePair` whose layers are built for two given models."""

from keras_ktan.introspection.activations import activation_behind
from keras_ktan.introspection.channel_importance import channels_to_select
from keras_ktan.introspection.data_format import validate_channels_last
from keras_ktan.introspection.feature_tap import find_layer, select_output, split_path
from keras_ktan.layers.discriminator import FeatureDiscriminator
from keras_ktan.layers.map_shapes import meeting_forms
from keras_ktan.layers.teacher_to_student import TeacherToStudent
from keras_ktan.losses.position_weights import validate_position_weights
from keras_ktan.training.t2s_objectives import attach_objective


class ConnectedPair:
    """A `FeaturePair` whose layers are built for two given models.

    Args:
        pair: The `FeaturePair`.
        teacher_trace: `ModelTrace` of the teacher.
        student_trace: `ModelTrace` of the student.
        units: Size of the paired output of rank 2 that a linear head of T2S would have; `None`
            where there is none.

    Raises:
        ValueError: If a path is wrong or if the shapes cannot meet.
    """

    def __init__(self, pair, teacher_trace, student_trace, units):
        self.pair = pair
        self.weight = pair.weight
        self.teacher_shape = _map_shape(teacher_trace, pair.teacher_layer_name, "teacher")
        self._found_shape = _map_shape(student_trace, pair.student_layer_name, "student")
        policy = student_trace.model.dtype_policy
        self.teacher_to_student = pair.teacher_to_student or TeacherToStudent(dtype=policy)
        channels, source = channels_to_select(
            pair, teacher_trace, student_trace, self._found_shape[-1]
        )
        if self.teacher_to_student.channels is not None:
            source = "those that were given"
        self.teacher_to_student.connect(
            self.teacher_shape,
            self._found_shape,
            activation=activation_behind(student_trace, *split_path(pair.student_layer_name)),
            teacher_activation=activation_behind(
                teacher_trace, *split_path(pair.teacher_layer_name)
            ),
            channels=channels,
        )
        # In the form in which it meets the teacher's map.
        self.student_shape = meeting_forms(self.teacher_shape, self._found_shape)[1].shape
        if pair.position_weights is not None:
            validate_position_weights(
                pair.position_weights, teacher_trace.outputs, self.student_shape
            )
        self.objective = attach_objective(
            self.teacher_to_student,
            student_trace.model,
            pair.student_layer_name,
            self.teacher_shape[-1],
            units,
            source,
        )
        self.discriminator = pair.discriminator or FeatureDiscriminator(dtype=policy)
        self.conditional = False  # until `connect_condition`
        if not self.discriminator.built:
            self.discriminator.build(self.student_shape)
            self.discriminator.built = True
        else:
            self._validate_shared_discriminator()

    def connect_condition(self, classes):
        """Settle whether the discriminator is conditional on the teacher's probabilities.

        Args:
            classes: Number of classes; `None` where there are no such probabilities.

        Raises:
            ValueError: If a condition was asked for and there is none, or if the discriminator
                was built for another.
        """
        wish, projection = self.discriminator.conditional, self.discriminator.projection
        if wish is True and classes is None:
            raise ValueError(
                "Received a FeatureDiscriminator with conditional=True for models without paired "
                "class outputs. Expected a classifier, because the condition is the teacher's "
                "class probabilities. Use conditional=False or say where they are with "
                "`output_pairs=OutputPair(...)`."
            )
        self.conditional = wish is not False and classes is not None
        if not self.conditional:
            return
        self.discriminator.condition_on(classes)
        known = projection.kernel.shape[0]
        if known != classes:
            raise ValueError(
                f"Received a FeatureDiscriminator that was built for {known} classes with models "
                f"of {classes} classes. Expected the same classes. Give the pair a new one."
            )

    def _validate_shared_discriminator(self):
        kernel = self.discriminator.hidden[0].kernel
        if len(kernel.shape) != len(self.student_shape):
            raise ValueError(
                f"One FeatureDiscriminator was given to student maps of rank "
                f"{len(self.student_shape)} and {len(kernel.shape)}. Expected the same rank. Give "
                "each pair a discriminator of its own."
            )
        if kernel.shape[-2] != self.student_shape[-1]:
            raise ValueError(
                f"One FeatureDiscriminator was given to student maps of {self.student_shape[-1]} "
                f"and {self.discriminator.hidden[0].kernel.shape[-2]} channels. Expected the same "
                "number. Give each pair a discriminator of its own."
            )

    def describe(self):
        """Lines for `summary()`."""
        t2s = self.teacher_to_student
        forms = [form.describe() for form in (t2s.teacher_form, t2s.student_form)]
        return (
            f"{self.pair.teacher_layer_name} {tuple(self.teacher_shape)}{forms[0]} -> "
            f"{self.pair.student_layer_name} {tuple(self._found_shape)}{forms[1]}, "
            f"weight {self.weight:g}, T2S objective {self.objective.describe()}, "
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
    shape = tuple(select_output(calls[0].output_specs, key, path).shape)
    if len(shape) > 2:
        validate_channels_last(trace, layer_path, calls[0].output_ids, role)
    return shape
