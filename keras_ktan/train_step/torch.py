"""One training step on torch."""

import keras
import torch
from keras import ops

from keras_ktan.cached_batch import plain_batch, unpack


class TrainStep:
    """`train_step` and `predict_step` of a `KTANDistiller` on torch."""

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x, *recalled = unpack(x)
        objectives, optimizer = self.objectives, self.optimizer
        step = optimizer.iterations

        def labels_loss(outputs):
            return self.labels_loss(x, y, outputs, sample_weight)

        def anchor_labels_loss(outputs):
            return self.anchor_labels_loss(x, y, outputs, sample_weight)

        with torch.no_grad():
            teacher_view = objectives.watch_teacher(x, *recalled)
        y_pred, maps = objectives.run_student(x)
        # Read now: an anchor may run the student's layers again and overwrite them.
        regularisation = self.regularisation()
        terms = {"student": labels_loss(y_pred)} if objectives.uses_labels else {}
        # T2S's anchor sees the student's maps at most with stopped gradients; its loss is
        # differentiated by T2S's weights alone.
        targets, t2s_loss = objectives.render_targets(x, teacher_view, maps, anchor_labels_loss)
        others, verdicts, moves = {}, [], []
        if objectives.uses_discriminator:
            verdicts = objectives.judge(teacher_view[0], targets, maps, step)
            others["discriminator_loss"] = objectives.discriminator_loss(verdicts)
            others["discriminator_accuracy"] = objectives.discriminator_accuracy(verdicts)
            moves.append(
                (
                    optimizer.discriminator,
                    others["discriminator_loss"],
                    self.discriminator_variables,
                )
            )
        if objectives.uses_maps:
            others["t2s_loss"] = t2s_loss
            moves.append((optimizer.t2s, t2s_loss, self.t2s_variables))
        terms.update(
            objectives.distillation_terms(teacher_view[0], y_pred, targets, maps, verdicts)
        )
        loss = objectives.total(terms, regularisation, step)
        moves.append((optimizer.student, loss, self.student_variables))

        # All gradients are taken before any weight moves: the players move at once.
        # `torch.autograd.grad` touches only the weights it is given, `backward` all of them.
        gradients = [
            torch.autograd.grad(
                player.scale_loss(goal),
                [variable.value for variable in variables],
                retain_graph=goal is not loss,
                allow_unused=True,
            )
            for player, goal, variables in moves
        ]
        with torch.no_grad():
            for (player, _, variables), gradient in zip(moves, gradients, strict=True):
                player.apply(gradient, variables)
            objectives.advance_power_iterations()
            logs = {f"{name}_loss": value for name, value in terms.items()} | others
            logs = {name: ops.stop_gradient(value) for name, value in logs.items()}
            return self.log_step(x, y, y_pred, sample_weight, ops.stop_gradient(loss), logs)

    def predict_step(self, data):
        return self.student.predict_step(plain_batch(data))
