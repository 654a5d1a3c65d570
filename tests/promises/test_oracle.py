"""An independent way to the same step: one loss under Keras's own `train_step`.

The oracle writes all terms down as a single `compute_loss`, in which every network's term sees
the others with stopped gradients, and leaves gradients and updates to Keras. With plain SGD and
simultaneous updates it must move every weight as the explicit step of each backend does.
"""

import keras
import numpy as np
import pytest
from keras import ops
from models import assert_changed, image_data, image_model, loss_from_logits

from keras_ktan import FeatureDiscriminator, FeaturePair, KTANDistiller, TeacherToStudent

RATES = {"student": 0.05, "t2s": 0.02, "discriminator": 0.01}


def make_networks(objective):
    teacher = image_model(12, "teacher", batch_norm=False, seed=1)
    student = image_model(
        4, "student", batch_norm=False, regularizer=keras.regularizers.L2(1e-2), seed=2
    )
    keras.utils.set_random_seed(3)
    pair = FeaturePair(
        "features",
        "features",
        teacher_to_student=TeacherToStudent(objective=objective),
        discriminator=FeatureDiscriminator(filters=6, noise_stddev=0.0),
    )
    return KTANDistiller(teacher, student, pair, temperature=3.0)


class Oracle(keras.Model):
    """The same networks; one loss; Keras's own train step."""

    def __init__(self, networks, objective):
        super().__init__()
        self.student = networks.student
        (self.t2s,) = networks.teacher_to_student_layers
        (self.discriminator,) = networks.discriminators
        self.objective = objective
        self.teacher_map = keras.Model(
            networks.teacher.inputs,
            [networks.teacher.output, networks.teacher.get_layer("features").output],
        )
        self.teacher_map.trainable = False
        self.student_map = keras.Model(
            self.student.inputs, [self.student.output, self.student.get_layer("features").output]
        )
        self.built = True

    def call(self, inputs, training=False):
        return self.student(inputs, training=training)

    def convolve(self, layer, inputs, stopped):
        """A spectrally normalised convolution, written out again."""
        kernel, bias = layer.kernel, layer.bias
        matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
        right = ops.ones((1, 1))  # one filter has one direction
        if layer.power_vector is not None:
            right = ops.convert_to_tensor(layer.power_vector)
            right = ops.stop_gradient(right / ops.norm(right))
        left = ops.matmul(matrix, right)
        left = ops.stop_gradient(left / ops.norm(left))
        kernel = kernel / ops.sum(left * ops.matmul(matrix, right))
        if stopped:
            kernel = ops.stop_gradient(kernel)
            bias = None if bias is None else ops.stop_gradient(ops.convert_to_tensor(bias))
        if len(inputs.shape) == 2:
            outputs = ops.matmul(inputs, kernel)
        else:
            outputs = ops.conv(inputs, kernel, padding="same")
        return outputs if bias is None else outputs + bias

    def logits_of(self, features, condition, stopped):
        size = ops.mean(ops.square(features), axis=(1, 2, 3), keepdims=True)
        hidden = features / ops.sqrt(size)
        biases = ops.convert_to_tensor(self.discriminator.biases)
        biases = ops.stop_gradient(biases) if stopped else biases
        for place, layer in enumerate(self.discriminator.hidden):
            hidden = self.convolve(layer, hidden, stopped) + biases[place]
            hidden = ops.leaky_relu(hidden, 0.2)
        logit = self.convolve(self.discriminator.logits, hidden, stopped)[..., 0]
        direction = self.convolve(self.discriminator.projection, condition, stopped)
        return logit + ops.sum(hidden * direction[:, None, None, :], axis=-1)

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        stop = ops.stop_gradient
        entropy = loss_from_logits()
        teacher_logits, teacher_map = map(stop, self.teacher_map(x))
        logits, features = self.student_map(x)

        def softened(scores):
            p, q = ops.log_softmax(teacher_logits / 3.0), ops.log_softmax(scores / 3.0)
            return 9.0 * ops.mean(ops.sum(ops.exp(p) * (p - q), axis=-1))

        rendered = ops.relu(ops.matmul(teacher_map, self.t2s.mix.kernel) + self.t2s.mix.bias)
        if self.objective == "student_head":
            head = self.student.get_layer("logits")
            kernel, bias = (stop(ops.convert_to_tensor(w)) for w in (head.kernel, head.bias))
            scores = ops.matmul(ops.mean(rendered, axis=(1, 2)), kernel) + bias
            objective = entropy(y, scores) + softened(scores)
        elif self.objective == "task":
            scores = self.t2s.objective_layer.head(ops.mean(rendered, axis=(1, 2)))
            objective = entropy(y, scores) + softened(scores)
        else:
            mix = self.t2s.objective_layer.decoder.mix
            rebuilt = ops.matmul(rendered, mix.kernel) + mix.bias
            objective = ops.mean(ops.square(rebuilt - teacher_map)) / ops.mean(
                ops.square(teacher_map)
            )
        target, condition = stop(rendered), ops.softmax(teacher_logits)

        def unit(maps):
            return maps / ops.sqrt(
                ops.maximum(ops.sum(ops.square(maps), axis=-1, keepdims=True), 1e-6)
            )

        match = ops.mean(1.0 - ops.sum(unit(target) * unit(features), axis=-1))
        generator_loss = ops.mean(ops.softplus(-self.logits_of(features, condition, stopped=True)))
        apart = 0.5 * (
            ops.mean(ops.softplus(-self.logits_of(target, condition, stopped=False)))
            + ops.mean(ops.softplus(self.logits_of(stop(features), condition, stopped=False)))
        )
        penalty = 1e-2 * ops.sum(ops.square(self.student.get_layer("features").kernel))
        student = (
            entropy(y, logits)
            + 0.7 * softened(logits)
            + 2.0 * match
            + 0.5 * generator_loss
            + penalty
        )
        # One optimizer at rate 1 moves all; each network's rate is a factor of its own term.
        return (
            RATES["student"] * student + RATES["t2s"] * objective + RATES["discriminator"] * apart
        )


def weights(networks):
    groups = (
        networks.student.trainable_variables,
        networks.teacher_to_student_layers[0].trainable_variables,
        networks.discriminators[0].trainable_variables,
    )
    return [
        [np.array(keras.ops.convert_to_numpy(variable)) for variable in group] for group in groups
    ]


@pytest.mark.promise(5)
@pytest.mark.parametrize("objective", ["student_head", "task", "reconstruction"])
def test_the_explicit_step_equals_the_oracle(objective, double_precision):
    explicit, networks = make_networks(objective), make_networks(objective)
    explicit.compile(
        optimizer=keras.optimizers.SGD(RATES["student"]),
        t2s_optimizer=keras.optimizers.SGD(RATES["t2s"]),
        discriminator_optimizer=keras.optimizers.SGD(RATES["discriminator"]),
        loss=loss_from_logits(),
        logits_loss_weight=0.7,
        feature_loss="cosine",
        feature_loss_weight=2.0,
        adversarial_loss_weight=0.5,
    )
    # Compiling settles the discriminator's condition, and makes its weights.
    networks.compile(loss=loss_from_logits(), adversarial_loss_weight=0.02)
    (one,), (other,) = explicit.discriminators, networks.discriminators
    other.set_weights(one.get_weights())
    oracle = Oracle(networks, objective)
    # TensorFlow 2.21's graph optimizer takes away the order between the oracle's reads of a weight
    # whose gradient is stopped and its update: now and then a step saw the moved weight. Eager
    # steps are in order. (In the graph of our own step every read and update stayed in order.)
    eager = keras.backend.backend() == "tensorflow"
    oracle.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=eager)
    start = weights(explicit)
    for step in range(4):
        images, labels = image_data(12, seed=step)
        explicit.train_on_batch(images, labels)
        oracle.train_on_batch(images, labels)
        networks.discriminators[0].advance_power_iterations()
    for before, one, other in zip(start, weights(explicit), weights(networks), strict=True):
        assert_changed(before, one)
        for mine, independent in zip(one, other, strict=True):
            np.testing.assert_allclose(mine, independent, rtol=1e-6, atol=1e-8)
