"""The distiller of one method of an experiment."""

import keras
from candidate_arms import (
    COOPERATIVE,
    GradientRatio,
    PenalisedDiscriminator,
    RelativisticLoss,
    discriminator_features,
    kl_without_mistakes,
)

from keras_ktan import FeatureDiscriminator, FeaturePair, KTANDistiller, TeacherToStudent


def make_distiller(method, teacher, student, task, optimizer, steps):
    """A compiled distiller.

    Args:
        method: A `Method`.
        teacher: The teacher.
        student: The student.
        task: The `Task`.
        optimizer: The student's optimizer.
        steps: Int, steps of the whole training.

    Returns:
        A tuple of a `KTANDistiller` and a list of callbacks that its `fit` needs.
    """
    given = task.compile_arguments()
    if method.defaults:
        distiller = KTANDistiller(teacher, student, **task.distiller_arguments)
        if method.feature:
            given = {**given, "feature_loss_weight": weight_over_training(method.feature, steps)}
        distiller.compile(optimizer, **given)
        return distiller, []
    kind = FeatureDiscriminator if method.gradient_penalty is None else PenalisedDiscriminator
    pairs = [
        FeaturePair(
            pair["layer"],
            pair["layer"],
            weight=pair["weight"],
            teacher_to_student=TeacherToStudent(pair["objective"], trainable=pair["trainable"]),
            discriminator=kind(**method.discriminator),
        )
        for pair in method.pairs()
    ]
    weight, callbacks = _adversarial_weight(method, task, given, steps)
    distiller = KTANDistiller(
        teacher, student, pairs, temperature=method.temperature, **task.distiller_arguments
    )
    distiller.compile(
        optimizer,
        logits_loss=_logits_loss(method),
        logits_loss_weight=weight_over_training(method.logits, steps),
        feature_loss=_feature_loss(method, pairs),
        feature_loss_weight=weight_over_training(method.feature, steps),
        adversarial_loss=_adversarial_loss(method, pairs),
        adversarial_loss_weight=weight,
        **_other_optimizers(method),
        **given,
    )
    return distiller, callbacks


def weight_over_training(weight, steps):
    """A weight of a `Method` as `KTANDistiller.compile` takes it.

    Args:
        weight: See `Method`.
        steps: Steps of the whole training.

    Returns:
        A number or a schedule.
    """
    schedules = keras.optimizers.schedules
    match weight:
        case {"decaying": start}:
            return schedules.CosineDecay(start, steps)
        case {"early": start}:
            return schedules.PiecewiseConstantDecay([steps // 3], [start, 0.0])
        case {"value": value, "from": first, "to": last}:
            boundaries = [int(first * steps), int(last * steps)]
            return schedules.PiecewiseConstantDecay(boundaries, [0.0, value, 0.0])
        case dict():
            raise ValueError(
                f"Received the weight {weight}. Expected a number, 'decaying', 'early', or "
                "'value', 'from' and 'to'. Correct the file."
            )
    return weight


def _adversarial_weight(method, task, given, steps):
    match method.adversarial:
        case {"ratio": ratio, "from": first, "to": last}:
            callback = GradientRatio(
                ratio, *task.train, given["loss"], int(first * steps), int(last * steps)
            )
            return callback.schedule, [callback]
    return weight_over_training(method.adversarial, steps), []


def _logits_loss(method):
    if method.teacher_mistakes:
        return method.logits_loss
    return kl_without_mistakes(method.temperature)


def _feature_loss(method, pairs):
    match method.feature_loss:
        case "discriminator":
            return discriminator_features(pairs[0].discriminator)
        case "normalized_mse + discriminator":
            return discriminator_features(pairs[0].discriminator, normalized_mse=3.0)
    return method.feature_loss


def _adversarial_loss(method, pairs):
    if method.discriminator_training == "cooperative":
        return COOPERATIVE
    if method.adversarial_loss == "relativistic":
        penalised = None if method.gradient_penalty is None else pairs[0].discriminator
        return RelativisticLoss(penalised, method.gradient_penalty)
    return method.adversarial_loss


def _other_optimizers(method):
    arguments, rate = {}, method.discriminator_learning_rate
    if method.discriminator_training == "frozen":
        arguments["discriminator_optimizer"] = keras.optimizers.SGD(0.0)
    elif rate is not None:
        arguments["discriminator_optimizer"] = keras.optimizers.Adam(rate, beta_1=0.5)
    if method.t2s_learning_rate is not None:
        arguments["t2s_optimizer"] = keras.optimizers.Adam(method.t2s_learning_rate)
    return arguments
