"""The distiller of one trial of a search: small on disk, compiled once."""

import keras
import keras_tuner

from keras_ktan.distiller import KTANDistiller
from keras_ktan.feature_pair import FeaturePair, as_feature_pairs
from keras_ktan.introspection.feature_maps import default_feature_map
from keras_ktan.introspection.model_trace import ModelTrace
from keras_ktan.layers.discriminator import FeatureDiscriminator
from keras_ktan.layers.teacher_to_student import TeacherToStudent


class _WithoutTeacher(keras.Model):
    """What a trial learned: the student, T2S, the discriminators and their optimizers."""

    def __init__(self, distiller):
        super().__init__(name="trial")
        self.student = distiller.student
        self.teacher_to_student_layers = distiller.teacher_to_student_layers
        self.discriminators = distiller.discriminators
        self.output_variances = distiller.output_variances
        self.optimizer = distiller.optimizer
        self.built = True


class TrialDistiller(KTANDistiller):
    """A `KTANDistiller` whose weights on disk hold everything but the teacher.

    A search writes the weights of every trial, and the teacher is the same in all of them and
    larger than the rest. Everything else is kept, so that a trial can go on later.

    Args:
        *args: See `KTANDistiller`.
        **kwargs: See `KTANDistiller`.
    """

    def compile(self, *args, **kwargs):
        if self.compiled:
            # KerasTuner does so when the tuner has an optimizer, a loss or metrics, and would
            # leave all other arguments at their defaults.
            raise keras_tuner.errors.FatalValueError(
                "Received a second call of `compile` for the distiller of a trial. Expected one, "
                "because a second one loses the searched weights. Give optimizer, loss and metrics "
                "to KTANHyperModel as `compile_arguments`, and not to the tuner."
            )
        super().compile(*args, **kwargs)

    def save_weights(self, filepath, *args, **kwargs):
        _WithoutTeacher(self).save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath, *args, **kwargs):
        _WithoutTeacher(self).load_weights(filepath, *args, **kwargs)


def make_trial_distiller(teacher, student, pairs, drawn, **distiller_arguments):
    """The distiller of what a search drew, with layers of its own.

    Args:
        teacher: A built `keras.Model`.
        student: Likewise.
        pairs: What `pairs_without_layers` returned; `None`: each model's default feature map.
        drawn: Dict from the names of the search space to values; `"temperature"` and
            `"t2s_objective"` must be there.
        **distiller_arguments: More for `KTANDistiller`.

    Returns:
        A `TrialDistiller`.

    Raises:
        ValueError: If the models do not allow it.
    """
    if pairs is None:
        models = {"teacher": teacher, "student": student}
        names = [default_feature_map(ModelTrace(model), role) for role, model in models.items()]
        pairs = [{"teacher_layer_name": names[0], "student_layer_name": names[1]}]
    discriminator = {
        ours: drawn[name]
        for ours, name in (
            ("filters", "discriminator_filters"),
            ("noise_stddev", "discriminator_noise"),
        )
        if drawn.get(name) is not None
    }
    policy = student.dtype_policy
    return TrialDistiller(
        teacher,
        student,
        [
            FeaturePair(
                **pair,
                teacher_to_student=TeacherToStudent(drawn["t2s_objective"], dtype=policy),
                discriminator=FeatureDiscriminator(**discriminator, dtype=policy),
            )
            for pair in pairs
        ],
        temperature=drawn["temperature"],
        **distiller_arguments,
    )


def pairs_without_layers(feature_pairs):
    """What a search keeps of its pairs: each trial makes layers of its own.

    Args:
        feature_pairs: A `FeaturePair`, a list of them, or `None`.

    Returns:
        A list of dicts of arguments for `FeaturePair`, or `None`.

    Raises:
        ValueError: If a pair has a layer.
    """
    pairs = as_feature_pairs(feature_pairs)
    if pairs is None:
        return None
    if any(pair.teacher_to_student or pair.discriminator for pair in pairs):
        raise ValueError(
            "Received a FeaturePair with a TeacherToStudent or a FeatureDiscriminator of its own. "
            "Expected none, because they would carry what they learned from trial to trial. Leave "
            "them out; `search_space` has T2S's objective and the discriminator."
        )
    return [
        {
            "teacher_layer_name": pair.teacher_layer_name,
            "student_layer_name": pair.student_layer_name,
            "weight": pair.weight,
            "position_weights": pair.position_weights,
        }
        for pair in pairs
    ]
