"""One training step on torch."""

import keras
import numpy as np
import torch
from keras import ops

from keras_ktan.training.student_loss import student_forward
from keras_ktan.utils.cached_batch import plain_batch, unpack


class TrainStep:
    """`train_step` and `predict_step` of a `KTANDistiller` on torch."""

    replica_count = 1

    def fit(self, *args, **kwargs):
        if not self.compiled:
            return super().fit(*args, **kwargs)  # Keras says so
        # The step is not compiled, so hooks would be set at every step.
        with self.objectives.forward_passes.attached():
            return super().fit(*args, **kwargs)

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self.objectives.forward_passes.validate_cached(x)
        x, *cached = unpack(x)
        batch = (self.student_inputs(x), y, sample_weight)
        student, regularisation, terms = student_forward(self, x, *batch)
        outputs = student.outputs
        with torch.no_grad():
            teacher = self.objectives.teacher_forward(student.inputs, *cached)
            self.objectives.observe_outputs(teacher, student)
        # T2S's objective sees the student's maps at most with stopped gradients; its loss is
        # differentiated by T2S's weights alone.
        targets, t2s_losses = self._project_features(*batch, teacher, student)
        logits, discriminator_losses = self._discriminator_forward(
            teacher.outputs, targets, student.maps
        )
        terms |= self.objectives.distillation_terms(teacher, student, targets, logits)
        loss = self.objectives.weighted_sum(terms, regularisation, self.optimizer.iterations)
        others = t2s_losses | discriminator_losses
        self._apply_gradients(others, loss)
        with torch.no_grad():
            logs = {f"{name}_loss": value for name, value in terms.items()} | others
            logs = {name: ops.stop_gradient(value) for name, value in logs.items()}
            return self.log_step(*batch[:2], outputs, sample_weight, ops.stop_gradient(loss), logs)

    def _project_features(self, x, y, sample_weight, teacher, student):
        return self.objectives.project_features(
            teacher,
            student,
            lambda outputs: self.untracked_student_loss(x, y, outputs, sample_weight),
        )

    def _discriminator_forward(self, teacher_outputs, targets, maps):
        objectives = self.objectives
        if not objectives.uses_discriminator:
            return [], {}
        logits = objectives.discriminator_forward(teacher_outputs, targets, maps, self.step_counter)
        return logits, objectives.discriminator_terms(logits, targets)

    def _apply_gradients(self, others, loss):
        # The student's last: its gradient frees the graph.
        losses = {network: others.get(f"{network}_loss") for network in ("discriminator", "t2s")}
        losses["student"] = loss
        moves = [
            # Keras would walk through all layers for a model's variables.
            (getattr(self.optimizer, network), objective, self.optimizer.variables_of(network))
            for network, objective in losses.items()
            if objective is not None
        ]
        # All gradients are taken before any weight moves.
        # `torch.autograd.grad` touches only the weights it is given, `backward` all of them.
        gradients = [
            torch.autograd.grad(
                optimizer.scale_loss(objective),
                [variable.value for variable in variables],
                retain_graph=objective is not loss,
                allow_unused=True,
            )
            for optimizer, objective, variables in moves
        ]
        with torch.no_grad():
            for (optimizer, _, variables), gradient in zip(moves, gradients, strict=True):
                optimizer.apply(gradient, variables)
            self.objectives.advance_power_iterations()
            self.step_counter.assign_add(1)

    def skip_step(self, data):
        """Leave out a batch, as a resumed training does."""
        return {}

    def random_state(self):
        """The random state that is no variable: torch's own, from which unseeded dropout draws."""
        states = [torch.get_rng_state()]
        if torch.cuda.is_available():
            states += torch.cuda.get_rng_state_all()
        return np.concatenate([state.numpy() for state in states])

    def set_random_state(self, state):
        """Take back what `random_state` returned, as far as the same devices are here."""
        state = torch.from_numpy(np.array(state))
        size = len(torch.get_rng_state())
        torch.set_rng_state(state[:size])
        if torch.cuda.is_available() and len(state) > size:
            devices = state[size:].split(len(torch.cuda.get_rng_state()))
            torch.cuda.set_rng_state_all(list(devices)[: torch.cuda.device_count()])

    def predict_step(self, data):
        return self.student.predict_step(plain_batch(data, self.student_inputs))
