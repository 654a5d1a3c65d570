"""One training step on JAX, where state goes in and comes out as values."""

import jax
import keras
from keras import ops

from keras_ktan.acts_as_student import without_optimizer
from keras_ktan.cached_batch import plain_batch, plain_iterator, unpack
from keras_ktan.train_step.stateless_values import StatelessValues


class TrainStep:
    """`train_step`, `test_step` and `predict_step` of a `KTANDistiller` on JAX."""

    @property
    def non_trainable_variables(self):
        # The teacher's weights are an input of the compiled step. Left out, they would be
        # baked into the program as constants.
        return super().non_trainable_variables + self.teacher.variables

    def _symbolic_build(self, iterator=None, data_batch=None):
        super()._symbolic_build(iterator=iterator, data_batch=data_batch)
        if not self.uses_own_loss and self.student.compiled:
            # The student's own metrics make their variables when they first see data. Inside a
            # compiled step that is too late: what they count there would be lost.
            if data_batch is not None:
                data_batch = plain_batch(data_batch)
            with without_optimizer(self.student):
                self.student._symbolic_build(
                    iterator=plain_iterator(iterator or ()), data_batch=data_batch
                )

    def train_step(self, state, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x, *recalled = unpack(x)
        objectives, optimizer = self.objectives, self.optimizer
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            optimizer.variables,
            self.metrics_variables,
        )
        values = StatelessValues(*zip(groups, state, strict=True))
        (step,), _ = values.run(lambda: [ops.convert_to_tensor(optimizer.iterations)])
        teacher_view, _ = values.run(objectives.watch_teacher, x, *recalled)

        def run_student():
            y_pred, maps = objectives.run_student(x)
            # Read now: an anchor may run the student's layers again and overwrite them. The loss
            # against the labels, too: a student's own may hold regularisers of its weights.
            labels = {}
            if objectives.uses_labels:
                labels["student"] = self.labels_loss(x, y, y_pred, sample_weight)
            return y_pred, maps, self.regularisation(), labels

        student_variables = self.student_variables
        (y_pred, maps, regularisation, labels), pull_student, after = jax.vjp(
            lambda weights: values.run(run_student, variables=student_variables, values=weights),
            values.get(student_variables),
            has_aux=True,
        )
        values.keep(after, but=student_variables)

        gradients, others, targets = {}, {}, []
        if objectives.uses_maps:
            t2s_variables = self.t2s_variables

            def render_targets(weights):
                (targets, loss), after = values.run(
                    objectives.render_targets,
                    x,
                    teacher_view,
                    maps,
                    lambda outputs: self.anchor_labels_loss(x, y, outputs, sample_weight),
                    variables=t2s_variables,
                    values=weights,
                )
                return self._scaled(values, optimizer.t2s, loss), (targets, loss, after)

            gradients["t2s"], (targets, others["t2s_loss"], after) = jax.grad(
                render_targets, has_aux=True
            )(values.get(t2s_variables))
            values.keep(after, but=t2s_variables)

        verdicts, pull_verdicts = [], None
        if objectives.uses_discriminator:
            discriminator_variables = self.discriminator_variables

            def judge(weights, maps):
                return values.run(
                    objectives.judge,
                    teacher_view[0],
                    targets,
                    maps,
                    step,
                    variables=discriminator_variables,
                    values=weights,
                )[0]

            # One forward pass; it is pulled back twice, for each player by its own loss.
            verdicts, pull_verdicts = jax.vjp(judge, values.get(discriminator_variables), maps)
            others["discriminator_loss"], others["discriminator_accuracy"] = (
                objectives.discriminator_loss(verdicts),
                objectives.discriminator_accuracy(verdicts),
            )
            toward = jax.grad(
                lambda verdicts: self._scaled(
                    values, optimizer.discriminator, objectives.discriminator_loss(verdicts)
                )
            )(verdicts)
            gradients["discriminator"], _ = pull_verdicts(toward)

        def student_loss(y_pred, maps, regularisation, labels, verdicts):
            def terms_and_loss():
                terms = labels | objectives.distillation_terms(
                    teacher_view[0], y_pred, targets, maps, verdicts
                )
                return terms, objectives.total(terms, regularisation, step)

            (terms, loss), after = values.run(terms_and_loss)
            return self._scaled(values, optimizer.student, loss), (terms, loss, after)

        toward, (terms, loss, after) = jax.grad(
            student_loss, argnums=(0, 1, 2, 3, 4), has_aux=True
        )(y_pred, maps, regularisation, labels, verdicts)
        values.keep(after)
        toward_outputs, toward_maps, toward_regularisation, toward_labels, toward_verdicts = toward
        if pull_verdicts is not None:
            _, through_discriminator = pull_verdicts(toward_verdicts)
            toward_maps = jax.tree_util.tree_map(
                lambda one, other: one + other, toward_maps, through_discriminator
            )
        (gradients["student"],) = pull_student(
            (toward_outputs, toward_maps, toward_regularisation, toward_labels)
        )

        # All gradients were taken before any weight moves: the players move at once.
        for name, gradient in gradients.items():
            player, variables = getattr(optimizer, name), getattr(self, f"{name}_variables")
            moved, slots = player.stateless_apply(
                values.get(player.variables), gradient, values.get(variables)
            )
            values.put(variables, moved)
            values.put(player.variables, slots)
        _, after = values.run(objectives.advance_power_iterations)
        values.keep(after)
        logs = {f"{name}_loss": value for name, value in terms.items()} | others
        logs, after = values.run(self.log_step, x, y, y_pred, sample_weight, loss, logs)
        values.keep(after)
        return logs, tuple(values.get(group) for group in groups)

    def _scaled(self, values, player, loss):
        return values.run(player.scale_loss, loss)[0]

    def test_step(self, state, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(plain_batch(data))
        groups = (self.trainable_variables, self.non_trainable_variables, self.metrics_variables)
        values = StatelessValues(*zip(groups, state, strict=True))

        def run():
            y_pred = self.student(x, training=False)
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=False)
            return self.log_evaluation(x, y, y_pred, sample_weight, loss)

        logs, after = values.run(run)
        values.keep(after)
        return logs, tuple(values.get(group) for group in groups)

    def predict_step(self, state, data):
        groups = (self.trainable_variables, self.non_trainable_variables)
        values = StatelessValues(*zip(groups, state, strict=True))
        student = self.student
        own = (student.trainable_variables, student.non_trainable_variables)
        outputs, after = student.predict_step(
            tuple(values.get(group) for group in own), plain_batch(data)
        )
        values.put(own[1], after)
        return outputs, values.get(groups[1])
