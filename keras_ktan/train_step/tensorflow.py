"""One training step on TensorFlow."""

import keras
import tensorflow as tf


class TrainStep:
    """`train_step` and `predict_step` of a `KTANDistiller` on TensorFlow."""

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        objectives = self.objectives
        optimizer = self.optimizer
        step = optimizer.iterations
        replicas = tf.distribute.get_strategy().num_replicas_in_sync

        # Keras divides a loss by the number of replicas; here it counts in full until the end.
        def labels_loss(outputs):
            return self.labels_loss(x, y, outputs, sample_weight) * replicas

        def anchor_labels_loss(outputs):
            return self.anchor_labels_loss(x, y, outputs, sample_weight) * replicas

        teacher_view = objectives.watch_teacher(x)
        others = {}
        # Each tape records what its player's gradient must pass through and no more: the
        # student's passes through the discriminator, the discriminator's ends at the maps.
        student_tape, t2s_tape, discriminator_tape = (tf.GradientTape() for _ in range(3))
        with student_tape:
            y_pred, maps = objectives.run_student(x)
            # Read now: an anchor may run the student's layers again and overwrite them.
            regularisation = self.regularisation()
            terms = {"student": labels_loss(y_pred)} if objectives.uses_labels else {}
            with t2s_tape:
                targets, t2s_loss = objectives.render_targets(
                    x, teacher_view, maps, anchor_labels_loss
                )
                t2s_objective = _scaled(optimizer.t2s, t2s_loss, replicas)
            verdicts = []
            with discriminator_tape:
                if objectives.uses_discriminator:
                    verdicts = objectives.judge(teacher_view[0], targets, maps, step)
                    others["discriminator_loss"] = objectives.discriminator_loss(verdicts)
                    others["discriminator_accuracy"] = objectives.discriminator_accuracy(verdicts)
                    discriminator_objective = _scaled(
                        optimizer.discriminator, others["discriminator_loss"], replicas
                    )
            terms.update(
                objectives.distillation_terms(teacher_view[0], y_pred, targets, maps, verdicts)
            )
            loss = objectives.total(terms, regularisation, step)
            student_objective = _scaled(optimizer.student, loss, replicas)

        # All gradients are taken before any weight moves: the players move at once.
        moves = [(optimizer.student, student_tape, student_objective, self.student_variables)]
        if objectives.uses_maps:
            others["t2s_loss"] = t2s_loss
            moves.append((optimizer.t2s, t2s_tape, t2s_objective, self.t2s_variables))
        if objectives.uses_discriminator:
            moves.append(
                (
                    optimizer.discriminator,
                    discriminator_tape,
                    discriminator_objective,
                    self.discriminator_variables,
                )
            )
        gradients = [tape.gradient(goal, variables) for _, tape, goal, variables in moves]
        for (player, _, _, variables), gradient in zip(moves, gradients, strict=True):
            player.apply(gradient, variables)
        objectives.advance_power_iterations()

        logs = {f"{name}_loss": value for name, value in terms.items()} | others
        return self.log_step(x, y, y_pred, sample_weight, loss, logs)

    def predict_step(self, data):
        return self.student.predict_step(data)


def _scaled(optimizer, loss, replicas):
    """What is differentiated: this replica's share, scaled against float16's underflow."""
    share = loss / replicas if replicas > 1 else loss
    return share if optimizer is None else optimizer.scale_loss(share)
