"""The three kinds of loss of the game, one value per example.

Every function returns one number per example of the batch, in float32 also
under mixed precision, so that the caller decides how to average.
"""

import dataclasses
from collections.abc import Callable

import keras
from keras import ops

from keras_ktan.position_weights import weighted_mean_over_positions

# Keeps the direction of an all-zero position (a dead ReLU) defined without
# bending any other: maps in use have squared norms far above it.
_EPSILON = 1e-6


def _full_precision(*tensors):
    return [ops.cast(tensor, keras.config.floatx()) for tensor in tensors]


def _mean_per_example(values):
    return ops.mean(ops.reshape(values, (ops.shape(values)[0], -1)), axis=-1)


def softened_logits_loss(teacher_logits, student_logits, temperature, activation="softmax"):
    """Divergence of the student's softened probabilities from the teacher's.

    The wrong classes' probabilities say what a class looks like; a temperature
    above 1 makes them large enough to be learned. The factor T² keeps the gradient's
    size the same at every temperature.

    Args:
        teacher_logits: Tensor `(batch, ..., classes)` of raw scores.
        student_logits: Tensor of the same shape.
        temperature: Number above 0 that both are divided by.
        activation: `"softmax"` for one class of many, `"sigmoid"` for classes that
            are independent of each other.

    Returns:
        Tensor `(batch,)`: `T² · KL(teacher ‖ student)`, summed over the classes and
        averaged over the axes between (positions, anchors).

    Example:

    ```python
    import numpy as np
    from keras_ktan.losses import softened_logits_loss

    scores = np.array([[2.0, 0.0, -1.0]], "float32")
    print(softened_logits_loss(scores, scores, temperature=4.0))  # 0
    ```

    Reference:
        - [Hinton et al., 2015](https://arxiv.org/abs/1503.02531)
    """
    teacher_logits, student_logits = _full_precision(teacher_logits, student_logits)
    teacher_logits = teacher_logits / temperature
    student_logits = student_logits / temperature
    if activation == "softmax":
        teacher_log, student_log = (
            ops.log_softmax(teacher_logits, axis=-1),
            ops.log_softmax(student_logits, axis=-1),
        )
        divergence = ops.exp(teacher_log) * (teacher_log - student_log)
    else:
        on, off = ops.log_sigmoid(teacher_logits), ops.log_sigmoid(-teacher_logits)
        divergence = ops.exp(on) * (on - ops.log_sigmoid(student_logits)) + ops.exp(off) * (
            off - ops.log_sigmoid(-student_logits)
        )
    return _mean_per_example(ops.sum(divergence, axis=-1)) * temperature**2


def _unit(features, axes):
    square = ops.sum(ops.square(features), axis=axes, keepdims=True)
    return features * ops.rsqrt(ops.maximum(square, _EPSILON))


def _inner_axes(features):
    return tuple(range(1, len(features.shape)))


def _cosine(target, features):
    return 1.0 - ops.sum(_unit(target, -1) * _unit(features, -1), axis=-1)


def _mean_squared(target, features):
    return ops.square(target - features)


def _normalized_mean_squared(target, features):
    def unit_mean_square(tensor):
        square = ops.mean(ops.square(tensor), axis=_inner_axes(tensor), keepdims=True)
        return tensor * ops.rsqrt(ops.maximum(square, _EPSILON))

    return ops.square(unit_mean_square(target) - unit_mean_square(features))


def _pooled_cosine(target, features):
    def pool(tensor):
        axes = _inner_axes(tensor)[:-1]
        return ops.mean(tensor, axis=axes) if axes else tensor

    return _cosine(pool(target), pool(features))


FEATURE_LOSSES = {
    "cosine": _cosine,
    "mse": _mean_squared,
    "normalized_mse": _normalized_mean_squared,
    "pooled_cosine": _pooled_cosine,
}


def feature_matching_loss(name, target, features, position_weights=None):
    """Distance of the student's feature map from its target.

    Args:
        name: `"cosine"`: one minus the cosine between the channel vectors of each
            position. `"mse"`: squared difference. `"normalized_mse"`: the same after
            both maps of an example were brought to mean square 1. `"pooled_cosine"`:
            the cosine between the maps' averages over all positions.
        target: Tensor `(batch, ..., channels)`: the teacher's map as T2S renders it.
        features: Tensor of the same shape: the student's map.
        position_weights: Optional tensor `(batch, ...)` without the channels: what each
            position counts beside the others. Not for `"pooled_cosine"`.

    Returns:
        Tensor `(batch,)`, averaged over positions (and channels for the squares).
    """
    target, features = _full_precision(target, features)
    distances = FEATURE_LOSSES[name](target, features)
    if position_weights is None:
        return _mean_per_example(distances)
    if len(distances.shape) == len(features.shape):
        distances = ops.mean(distances, axis=-1)
    return weighted_mean_over_positions(distances, position_weights)


@dataclasses.dataclass(frozen=True)
class AdversarialLoss:
    """One way to play the game between discriminator and student.

    Args:
        on_real: Function from verdicts on the teacher's maps to the discriminator's loss.
        on_fake: Function from verdicts on the student's maps to the discriminator's loss.
        fool: Function from verdicts on the student's maps to the student's loss.
        boundary: A verdict above it says "the teacher's".
    """

    on_real: Callable
    on_fake: Callable
    fool: Callable
    boundary: float

    def tell_apart(self, real_verdicts, fake_verdicts):
        """What the discriminator minimises.

        Args:
            real_verdicts: Tensor `(batch, ...)`, verdicts on the teacher's maps.
            fake_verdicts: Tensor `(batch, ...)`, verdicts on the student's maps.

        Returns:
            Tensor `(batch,)`: the mean of the two sides.
        """
        real, fake = _full_precision(real_verdicts, fake_verdicts)
        return _mean_per_example(self.on_real(real) + self.on_fake(fake)) / 2.0

    def fool_discriminator(self, fake_verdicts):
        """What the student minimises.

        Args:
            fake_verdicts: Tensor `(batch, ...)`, verdicts on the student's maps.

        Returns:
            Tensor `(batch,)`.
        """
        (fake,) = _full_precision(fake_verdicts)
        return _mean_per_example(self.fool(fake))

    def accuracy(self, real_verdicts, fake_verdicts):
        """Share of right verdicts: 0.5 is guessing, 1 means the game is lost for the student.

        Args:
            real_verdicts: Tensor `(batch, ...)`, verdicts on the teacher's maps.
            fake_verdicts: Tensor `(batch, ...)`, verdicts on the student's maps.

        Returns:
            Tensor `(batch,)`.
        """
        real, fake = _full_precision(real_verdicts, fake_verdicts)
        right = ops.cast(real > self.boundary, real.dtype)
        return _mean_per_example(right + ops.cast(fake <= self.boundary, fake.dtype)) / 2.0


ADVERSARIAL_LOSSES = {
    # Goodfellow et al., 2014 (arXiv 1406.2661), with the student's side non-saturating.
    "bce": AdversarialLoss(
        on_real=lambda real: ops.softplus(-real),
        on_fake=ops.softplus,
        fool=lambda fake: ops.softplus(-fake),
        boundary=0.0,
    ),
    # Mao et al., 2017 (arXiv 1611.04076), with labels 1 for real and 0 for fake.
    "least_squares": AdversarialLoss(
        on_real=lambda real: ops.square(real - 1.0),
        on_fake=ops.square,
        fool=lambda fake: ops.square(fake - 1.0),
        boundary=0.5,
    ),
    # Lim and Ye, 2017 (arXiv 1705.02894).
    "hinge": AdversarialLoss(
        on_real=lambda real: ops.relu(1.0 - real),
        on_fake=lambda fake: ops.relu(1.0 + fake),
        fool=lambda fake: -fake,
        boundary=0.0,
    ),
}
