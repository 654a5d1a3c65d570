"""Arms of the search that the package does not have: losses, weights and targets of others' papers.

An arm that pays becomes part of the package; until then it is here, for TensorFlow alone.
"""

import keras
import numpy as np
from keras import ops

from keras_ktan import FeatureDiscriminator
from keras_ktan.losses import AdversarialLoss, feature_loss, softened_kl

# A control arm: the discriminator helps the student, so no sign is flipped.
COOPERATIVE = AdversarialLoss(
    generator=lambda fake: ops.softplus(-fake),
    discriminator=lambda real, fake: (ops.softplus(-real) + ops.softplus(-fake)) / 2.0,
)


class PenalisedDiscriminator(FeatureDiscriminator):
    """A discriminator that keeps how steep it is at its last maps.

    `penalty` is (R1 + R2) / 2, as Huang et al. (2024, arXiv 2501.05441) weigh it with γ: the mean
    squared gradient at the real maps and at the fake ones. Theirs is that of an image's logit; here
    it is that of a map's mean logit, with respect to the map as a vector of length 1. It comes on
    top of spectral normalisation and noise, which theirs has not.
    """

    penalty = None

    def __init__(self, **arguments):
        _require_tensorflow("A gradient penalty")
        super().__init__(**arguments)

    def call(self, features, condition=None, step=None, mask=None):
        import tensorflow as tf

        axes = tuple(range(1, len(features.shape)))
        square = ops.sum(ops.square(features), axis=axes, keepdims=True)
        features = features * ops.rsqrt(ops.maximum(square, 1e-12))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(features)
            logits = super().call(features, condition, step=step, mask=mask)
            score = ops.sum(ops.mean(logits, axis=axes[:-1]))
        slope = tape.gradient(score, features)
        # The batch holds as many real maps as fake ones: the mean over all is (R1 + R2) / 2.
        self.penalty = ops.mean(ops.sum(ops.square(slope), axis=axes))
        return logits


class RelativisticLoss(AdversarialLoss):
    """The relativistic paired loss: is a real map more real than the fake one beside it?

    Jolicoeur-Martineau, 2018 (arXiv 1807.00734). It belongs to one pair: what the student
    minimises needs the real logits, too, which the step shows to the discriminator's loss first.

    Args:
        discriminator: The pair's `PenalisedDiscriminator`, whose penalty is added to what it
            minimises; `None`: no penalty.
        weight: Number, the penalty's weight.
    """

    def __init__(self, discriminator=None, weight=1.0):
        _require_tensorflow("A relativistic loss")
        super().__init__(
            generator=lambda gap: ops.softplus(-gap),
            discriminator=lambda real, fake: ops.softplus(fake - real),
            accuracy=lambda real, fake: ops.cast(real > fake, real.dtype),
        )
        self.penalised, self.weight, self.real = discriminator, weight, None

    def discriminator_loss(self, real_logits, fake_logits, *args, **kwargs):
        self.real = real_logits
        loss = super().discriminator_loss(real_logits, fake_logits, *args, **kwargs)
        return loss if self.penalised is None else loss + self.weight * self.penalised.penalty

    def generator_loss(self, fake_logits, *args, **kwargs):
        gap = fake_logits - ops.stop_gradient(self.real)
        return super().generator_loss(gap, *args, **kwargs)


class GradientRatio(keras.callbacks.Callback):
    """Weighs the generator loss by the gradients that meet at the student's map.

    The weight is `ratio` times how much longer the gradient of the task (the loss against the
    labels and the logits loss) is than that of the generator loss, after Esser et al. (2021, arXiv
    2012.09841). Both lengths are averaged over the measurements. The student runs in inference mode
    for them: a measurement leaves its statistics alone.

    Args:
        ratio: Number.
        images: Array of training images.
        labels: Array of their labels.
        loss: A `keras.losses.Loss` against the labels.
        begin: Int, the first step with a weight.
        end: Int, the first step without one again.
        every: Int, steps between two measurements.
        momentum: Number, what the averages keep of themselves at a measurement.
        batch_size: Int, images of a measurement.
    """

    def __init__(
        self, ratio, images, labels, loss, begin, end, every=25, momentum=0.9, batch_size=128
    ):
        _require_tensorflow("A weight by the ratio of gradients")
        super().__init__()
        self.images, self.labels, self.loss = images, labels, loss
        self.every, self.momentum, self.batch_size = every, momentum, batch_size
        self.quotient = keras.Variable(0.0, trainable=False, name="quotient")
        self.schedule = _WeightOfRatio(self.quotient, ratio, begin, end)
        self.steps, self.lengths = 0, np.zeros(2)

    def on_train_batch_end(self, batch, logs=None):
        if self.steps % self.every == 0:
            count = len(self.images) - self.batch_size + 1
            start = self.steps * self.batch_size % max(1, count)
            rows = slice(start, start + self.batch_size)
            found = np.array(self.measure(self.images[rows], self.labels[rows]))
            # Both begin at 0, so that the quotient of the averages favours no measurement.
            self.lengths = self.momentum * self.lengths + (1.0 - self.momentum) * found
            self.quotient.assign(self.lengths[0] / max(self.lengths[1], 1e-12))
        self.steps += 1

    def measure(self, images, labels):
        """The lengths of the gradients at the student's map.

        Args:
            images: Array of images.
            labels: Array of their labels.

        Returns:
            A list of two numbers: of the task, and of the generator loss.
        """
        import tensorflow as tf

        objectives = self.model.objectives
        with tf.GradientTape(persistent=True) as tape:
            student = objectives.student_forward(ops.convert_to_tensor(images), training=False)
            teacher = objectives.teacher_forward(student.inputs)
            targets = objectives.targets(teacher, student)
            step = ops.convert_to_tensor(self.model.step_counter)
            logits = objectives.discriminator_forward(teacher.outputs, targets, student.maps, step)
            objectives.discriminator_loss(logits, targets)  # a relativistic loss keeps the logits
            terms = objectives.distillation_terms(teacher, student, targets, logits)
            task = self.loss(labels, student.outputs) + terms["logits"]
        return [
            float(ops.norm(ops.reshape(tape.gradient(term, student.maps[0]), (-1,))))
            for term in (task, terms["adversarial"])
        ]


def without_mistakes(batch):
    """A batch of a cached data set without the logits of what the teacher got wrong.

    They are all 0 there, which `kl_without_mistakes` leaves out. The teacher's maps stay.

    Args:
        batch: A tuple of inputs with a teacher's outputs, the logits of one classifier, and labels.

    Returns:
        Such a tuple.
    """
    x, labels = batch
    ((key, parts),) = x.items()
    logits = parts["output:0"]
    right = logits.argmax(-1) == labels.reshape(-1)
    return {key: {**parts, "output:0": logits * right[:, None]}}, labels


def kl_without_mistakes(temperature):
    """The logits loss for the batches of `without_mistakes`: 0 for what the teacher got wrong.

    The mean over a batch counts these zeros.

    Args:
        temperature: Number.

    Returns:
        A function of (teacher, student) logits.
    """

    def loss(teacher, student):
        says_something = ops.any(ops.not_equal(teacher, 0.0), axis=-1)
        divergence = softened_kl(teacher, student, temperature)
        return divergence * ops.cast(says_something, divergence.dtype)

    return loss


def discriminator_features(discriminator, normalized_mse=0.0):
    """A feature loss: how far the maps are apart in the discriminator's last hidden layer.

    After Salimans et al., 2016 (arXiv 1606.03498), who compare means over a batch; here each
    example is compared with its own target. The discriminator's logits are not used, nor its noise.

    Args:
        discriminator: The pair's `FeatureDiscriminator`.
        normalized_mse: Number, weight of the maps' own distance, which is added.

    Returns:
        A function of (target, feature map).
    """

    def hidden(features):
        axes = tuple(range(1, len(features.shape)))
        size = ops.mean(ops.square(features), axis=axes, keepdims=True)
        features = features * ops.rsqrt(ops.maximum(size, 1e-6))
        biases = ops.unstack(ops.convert_to_tensor(discriminator.biases), discriminator.depth)
        for layer, bias in zip(discriminator.hidden, biases, strict=True):
            features = ops.leaky_relu(layer(features) + bias, negative_slope=0.2)
        return features

    def loss(target, features):
        distance = feature_loss("normalized_mse", hidden(target), hidden(features))
        if normalized_mse:
            distance += normalized_mse * feature_loss("normalized_mse", target, features)
        return distance

    return loss


def _require_tensorflow(what):
    """The other backends compute no gradient inside of a call."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{what} was asked for on the {keras.backend.backend()} backend. Expected TensorFlow. "
            "Set KERAS_BACKEND=tensorflow."
        )


class _WeightOfRatio(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, quotient, ratio, begin, end):
        self._quotient, self._ratio, self._begin, self._end = quotient, ratio, begin, end

    def __call__(self, step):
        inside = ops.logical_and(step >= self._begin, step < self._end)
        return ops.cast(inside, "float32") * self._ratio * self._quotient
