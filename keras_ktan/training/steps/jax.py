"""One training step on JAX, where state goes in and comes out as values."""

import jax
import keras
import numpy as np
from keras import ops

from keras_ktan.introspection.feature_tap import Forward
from keras_ktan.training.steps.stateless_values import StatelessValues
from keras_ktan.training.steps.teacher_weights import BatchWithTeacher, FunctionWithTeacher
from keras_ktan.training.student_loss import build_student_metrics, student_forward
from keras_ktan.utils.cached_batch import plain_batch, plain_iterator, unpack
from keras_ktan.utils.keras_internals import SymbolicBuildHook


class TrainStep(SymbolicBuildHook):
    """`train_step`, `test_step` and `predict_step` of a `KTANDistiller` on JAX."""

    replica_count = 1  # `keras.distribution` keeps one program for all devices

    def on_symbolic_build(self, iterator, data_batch):
        build_student_metrics(self, plain_iterator(iterator or (), self.student_inputs), data_batch)

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = FunctionWithTeacher(self.train_function, self)
        if isinstance(self.train_function, FunctionWithTeacher):
            self.train_function.take_weights()

    def train_step(self, state, data):
        data, teacher = data if isinstance(data, BatchWithTeacher) else (data, [])
        step = _Step(self, state, data, teacher)
        step.student_forward()
        step.teacher_forward()
        step.project_features()
        step.discriminator_forward()
        step.differentiate_student()
        step.apply_gradients()
        return step.log()

    def skip_step(self, state, iterator):
        """Read the batches of one call without a step, as a resumed training does."""
        for _ in range(self.steps_per_execution):
            next(iterator)
        return {}, state

    def random_state(self):
        """The random state that is no variable: none."""
        return np.zeros(0, "uint8")

    def set_random_state(self, state):
        """Nothing; see `random_state`."""

    def test_step(self, state, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(
            plain_batch(data, self.student_inputs)
        )
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
            tuple(values.get(group) for group in own), plain_batch(data, self.student_inputs)
        )
        values.put(own[1], after)
        return outputs, values.get(groups[1])


class _Step:
    """The stages of one training step, and the values that go from stage to stage.

    Args:
        distiller: The `KTANDistiller`.
        state: The values of all variables, as Keras hands them over.
        data: A batch.
        teacher: The values of the teacher's variables; `[]` where the step needs no teacher.
    """

    def __init__(self, distiller, state, data, teacher):
        self.distiller = distiller
        self.objectives, self.optimizer = distiller.objectives, distiller.optimizer
        x, self.y, self.sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self.objectives.forward_passes.validate_cached(x)
        self.batch_inputs, *self.cached = unpack(x)
        self.x = distiller.student_inputs(x)
        self.groups = (
            distiller.trainable_variables,
            distiller.non_trainable_variables,
            self.optimizer.variables,
            distiller.metrics_variables,
        )
        groups = [*zip(self.groups, state, strict=True)]
        if teacher:
            groups.append((distiller.teacher.variables, teacher))
        self.values = StatelessValues(*groups)
        self.gradients, self.others = {}, {}
        self.targets, self.logits, self._pull_logits = [], [], None

    def student_forward(self):
        variables = self.distiller.student_variables

        def forward(weights):
            (made, others), after = self.values.run(
                self._run_student, variables=variables, values=weights
            )
            return made, (others, after)

        made, self._pull_student, (others, after) = jax.vjp(
            forward, self.values.get(variables), has_aux=True
        )
        self.outputs, self.maps, self.regularisation, self.student_terms = made
        self.student = Forward(self.outputs, self.maps, *others)
        self.values.keep(after, but=variables)

    def _run_student(self):
        (outputs, maps, *others), regularisation, terms = student_forward(
            self.distiller, self.batch_inputs, self.x, self.y, self.sample_weight
        )
        return (outputs, maps, regularisation, terms), others

    def teacher_forward(self):
        self.teacher, _ = self.values.run(
            self.objectives.teacher_forward, self.student.inputs, *self.cached
        )
        _, after = self.values.run(self.objectives.observe_outputs, self.teacher, self.student)
        self.values.keep(after)

    def project_features(self):
        variables = self.distiller.t2s_variables

        def project(weights):
            (targets, losses), after = self.values.run(
                self.objectives.project_features,
                self.teacher,
                self.student,
                lambda outputs: self.distiller.untracked_student_loss(
                    self.x, self.y, outputs, self.sample_weight
                ),
                variables=variables,
                values=weights,
            )
            return self._scaled("t2s", losses["t2s_loss"]), (targets, losses, after)

        if not self.objectives.trains_t2s:
            self.targets, _ = self.values.run(
                self.objectives.project_features, self.teacher, self.student, None
            )[0]
            return
        self.gradients["t2s"], (self.targets, losses, after) = jax.grad(project, has_aux=True)(
            self.values.get(variables)
        )
        self.others |= losses
        self.values.keep(after, but=variables)

    def discriminator_forward(self):
        objectives = self.objectives
        if not objectives.uses_discriminator:
            return
        variables = self.distiller.discriminator_variables
        (counter,), _ = self.values.run(
            lambda: [ops.convert_to_tensor(self.distiller.step_counter)]
        )

        def forward(weights, maps):
            return self.values.run(
                objectives.discriminator_forward,
                self.teacher.outputs,
                self.targets,
                maps,
                counter,
                variables=variables,
                values=weights,
            )[0]

        # One forward pass; it is pulled back twice, for each network by its own loss.
        self.logits, self._pull_logits = jax.vjp(forward, self.values.get(variables), self.maps)
        self.others |= objectives.discriminator_terms(self.logits, self.targets)
        toward_logits = jax.grad(
            lambda logits: self._scaled(
                "discriminator", objectives.discriminator_loss(logits, self.targets)
            )
        )(self.logits)
        self.gradients["discriminator"], _ = self._pull_logits(toward_logits)

    def differentiate_student(self):
        arguments = (
            self.outputs,
            self.maps,
            self.regularisation,
            self.student_terms,
            self.logits,
        )
        toward, (self.terms, self.loss, after) = jax.grad(
            self._student_objective, argnums=(0, 1, 2, 3, 4), has_aux=True
        )(*arguments)
        self.values.keep(after)
        toward_outputs, toward_maps, toward_regularisation, toward_terms, toward_logits = toward
        if self._pull_logits is not None:
            _, through_discriminator = self._pull_logits(toward_logits)
            toward_maps = jax.tree_util.tree_map(
                lambda one, other: one + other, toward_maps, through_discriminator
            )
        (self.gradients["student"],) = self._pull_student(
            (toward_outputs, toward_maps, toward_regularisation, toward_terms)
        )

    def _student_objective(self, outputs, maps, regularisation, student_terms, logits):
        def terms_and_loss():
            iterations = ops.convert_to_tensor(self.optimizer.iterations)
            terms = student_terms | self.objectives.distillation_terms(
                self.teacher,
                self.student._replace(outputs=outputs, maps=maps),
                self.targets,
                logits,
            )
            return terms, self.objectives.weighted_sum(terms, regularisation, iterations)

        (terms, loss), after = self.values.run(terms_and_loss)
        return self._scaled("student", loss), (terms, loss, after)

    def _scaled(self, network, loss):
        return self.values.run(getattr(self.optimizer, network).scale_loss, loss)[0]

    def apply_gradients(self):
        # All gradients were taken before any weight moves.
        for network, gradient in self.gradients.items():
            optimizer = getattr(self.optimizer, network)
            variables = getattr(self.distiller, f"{network}_variables")
            moved, slots = optimizer.stateless_apply(
                self.values.get(optimizer.variables), gradient, self.values.get(variables)
            )
            self.values.put(variables, moved)
            self.values.put(optimizer.variables, slots)
        _, after = self.values.run(self._advance)
        self.values.keep(after)

    def _advance(self):
        self.objectives.advance_power_iterations()
        self.distiller.step_counter.assign_add(1)

    def log(self):
        logs = {f"{name}_loss": value for name, value in self.terms.items()} | self.others
        logs, after = self.values.run(
            self.distiller.log_step,
            self.x,
            self.y,
            self.outputs,
            self.sample_weight,
            self.loss,
            logs,
        )
        self.values.keep(after)
        return logs, tuple(self.values.get(group) for group in self.groups)
