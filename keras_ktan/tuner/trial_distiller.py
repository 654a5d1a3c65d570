"""The distiller of one trial of a search, and what a search keeps of its pairs."""

from keras_ktan.distiller import KTANDistiller
from keras_ktan.feature_pair import FeaturePair, as_feature_pairs
from keras_ktan.introspection.feature_maps import default_feature_map
from keras_ktan.introspection.model_trace import ModelTrace
from keras_ktan.layers.discriminator import FeatureDiscriminator
from keras_ktan.layers.teacher_to_student import TeacherToStudent


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
        A `KTANDistiller`.

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
    return KTANDistiller(
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
