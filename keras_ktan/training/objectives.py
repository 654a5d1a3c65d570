"""What each of the three networks minimises, in `keras.ops` only.

A backend's train step runs the models, asks here for each network's loss, and moves each
network's weights by the gradient of its own loss. The methods stand in the order of a step.
"""

import functools

import keras
from keras import ops

from keras_ktan.losses.adversarial import get_adversarial_loss
from keras_ktan.losses.feature import feature_loss
from keras_ktan.losses.reductions import mean_over_all, weighted_sum
from keras_ktan.training.forward_passes import ForwardPasses
from keras_ktan.training.padding import make_target
from keras_ktan.training.t2s_context import T2SContext
from keras_ktan.utils.numbers import is_active, is_schedule


class Objectives:
    """The loss terms of two models, as they were compiled.

    Args:
        pairing: The `Pairing` of the two models.
        temperature: Temperature of the softened probabilities.
        weights: Dict from `"student"`, `"logits"`, `"feature"`, `"adversarial"` to a number
            or a `keras.optimizers.schedules.LearningRateSchedule`.
        losses: Dict from `"logits"`, `"feature"`, `"adversarial"` to what `compile` was given.
        outputs: List of `ConnectedOutput`, the paired outputs.
    """

    def __init__(self, pairing, temperature, weights, losses, outputs):
        self.outputs = outputs
        # Outputs for each position (a detector's) say nothing of a whole image.
        whole = [output for output in outputs if output.per_image]
        self.head_output = next(iter(whole), None)
        self.condition = next((output for output in whole if output.kind != "regression"), None)
        self._temperature = temperature
        self._weights = weights
        self._logits_loss = losses["logits"]
        self.feature_loss = losses["feature"]
        self.adversarial_loss = get_adversarial_loss(losses["adversarial"])
        self.uses_student_loss = self.is_active("student")
        self.uses_maps = self.is_active("feature") or self.is_active("adversarial")
        self.uses_discriminator = self.is_active("adversarial")
        self.uses_teacher = self.uses_maps or self.is_active("logits")
        self.pairs = pairing.pairs if self.uses_maps else []
        self._discriminators = pairing.discriminators if self.uses_discriminator else []
        self.trains_t2s = any(not pair.teacher_to_student.selects for pair in self.pairs)
        self.teacher_paths = [pair.pair.teacher_layer_name for pair in self.pairs]
        self.uses_position_weights = any(
            pair.pair.position_weights is not None for pair in self.pairs
        )
        # Only paired outputs are looked at, and what position weights are made of.
        self.uses_teacher_outputs = self.uses_teacher and (
            bool(outputs) or self.uses_position_weights
        )
        self.forward_passes = ForwardPasses(
            pairing, self.pairs, self.uses_teacher, self.uses_teacher_outputs
        )

    def is_active(self, term):
        """Whether a term is computed at all: its weight is not the number 0."""
        return is_active(self._weights[term])

    def computed_terms(self):
        """Names of what is computed in a step, as the logs call it."""
        terms = ("student", "logits", "feature", "adversarial")
        names = [f"{term}_loss" for term in terms if self.is_active(term)]
        if self.trains_t2s:
            names.append("t2s_loss")
        if self.uses_discriminator:
            names += ["discriminator_loss", "discriminator_accuracy"]
        return names

    def student_forward(self, inputs, training=True):
        """The one student forward pass of a step; see `ForwardPasses.student`."""
        return self.forward_passes.student(inputs, training)

    def teacher_forward(self, inputs, outputs=None, maps=None):
        """The one teacher forward pass of a step; see `ForwardPasses.teacher`."""
        return self.forward_passes.teacher(inputs, outputs, maps)

    def observe_outputs(self, teacher, student):
        """Once per training step, before the losses: what is kept of the teacher's outputs.

        Args:
            teacher: What `teacher_forward` returned.
            student: What `student_forward` returned.
        """
        if teacher.outputs is not None:
            for output in self.outputs:
                output.observe(teacher, student)

    def project_features(self, teacher, student, student_loss):
        """T2S's maps, and what T2S minimises.

        Args:
            teacher: What `teacher_forward` returned.
            student: What `student_forward` returned.
            student_loss: Function from outputs to the scalar loss against the targets.

        Returns:
            A tuple of the `Target` of each pair, and of a dict with the sum of the objectives as
            `"t2s_loss"`. Both are empty where there is none.
        """
        if not self.uses_maps:
            return [], {}
        targets, total = self.targets(teacher, student), 0.0
        for pair, student_map, target in zip(self.pairs, student.maps, targets, strict=True):
            if pair.teacher_to_student.selects:
                continue  # nothing to learn
            context = T2SContext(
                inputs=student.inputs,
                teacher_map=target.teacher_map,
                student_map=student_map,
                teacher_mask=target.teacher_mask,
                mask=target.mask,
                student_loss=student_loss if self.uses_student_loss else _zero,
                class_student_loss=self._head_student_loss(student_loss),
                logits_loss=functools.partial(self._mean_logits_loss, teacher, student),
                class_logits_loss=functools.partial(self._head_logits_loss, teacher.outputs),
                feature_loss=functools.partial(
                    self._mean_feature_loss, pair, teacher.outputs, target.mask
                ),
            )
            loss = pair.objective.loss(target.map, context)
            total = total + ops.cast(loss, keras.config.floatx())
        return targets, {"t2s_loss": total} if self.trains_t2s else {}

    def targets(self, teacher, student):
        """T2S's maps, with what is padding in them.

        Args:
            teacher: What `teacher_forward` returned.
            student: What `student_forward` returned.

        Returns:
            The list of a `Target` for each pair.
        """
        return [
            make_target(pair, *maps_and_masks)
            for pair, *maps_and_masks in zip(
                self.pairs,
                teacher.maps,
                teacher.map_masks,
                student.maps,
                student.map_masks,
                strict=True,
            )
        ]

    def discriminator_forward(self, teacher_outputs, targets, student_maps, step):
        """The discriminators' logits: one forward pass over real and fake maps together.

        Args:
            teacher_outputs: The teacher's outputs.
            targets: The `Target` of each pair; its gradient is stopped here.
            student_maps: The student's maps, with gradient.
            step: Scalar int tensor that the noise follows from; `None`: no noise.

        Returns:
            A list of `(real_logits, fake_logits)`, one for each pair.
        """
        logits = []
        for pair, target, student_map in zip(self.pairs, targets, student_maps, strict=True):
            real = ops.cast(ops.stop_gradient(target.map), student_map.dtype)
            mask = target.mask
            mask = None if mask is None else ops.concatenate([mask, mask])
            condition = None
            if pair.conditional:
                condition = self.condition.teacher_probabilities(teacher_outputs)
                condition = ops.concatenate([condition, condition])
            both = pair.discriminator(
                ops.concatenate([real, student_map]), condition, step=step, mask=mask
            )
            logits.append(tuple(ops.split(both, 2)))
        return logits

    def discriminator_terms(self, logits, targets):
        """Dict with what the discriminators minimise, and how often they are right."""
        accuracies = [
            self.adversarial_loss.discriminator_accuracy(real, fake, target.mask, mean_over_all)
            for (real, fake), target in zip(logits, targets, strict=True)
        ]
        return {
            "discriminator_loss": self.discriminator_loss(logits, targets),
            "discriminator_accuracy": weighted_sum(
                [1 / len(accuracies)] * len(accuracies), accuracies
            ),
        }

    def discriminator_loss(self, logits, targets):
        """What the discriminators minimise."""
        return self._sum_over_pairs(
            self.adversarial_loss.discriminator_loss(real, fake, target.mask, mean_over_all)
            for (real, fake), target in zip(logits, targets, strict=True)
        )

    def distillation_terms(self, teacher, student, targets, logits):
        """The student's terms besides the loss against the targets, unweighted.

        Args:
            teacher: What `teacher_forward` returned.
            student: What `student_forward` returned.
            targets: The `Target` of each pair; its gradient is stopped here.
            logits: What `discriminator_forward` returned.

        Returns:
            Dict from the names of the active terms to scalar tensors.
        """
        terms = {}
        if self.is_active("logits"):
            terms["logits"] = self._mean_logits_loss(teacher, student, student.outputs)
        if self.is_active("feature"):
            terms["feature"] = self._sum_over_pairs(
                self._mean_feature_loss(
                    pair, teacher.outputs, target.mask, ops.stop_gradient(target.map), student_map
                )
                for pair, target, student_map in zip(self.pairs, targets, student.maps, strict=True)
            )
        if self.is_active("adversarial"):
            terms["adversarial"] = self._sum_over_pairs(
                self.adversarial_loss.generator_loss(fake, target.mask, mean_over_all)
                for (_, fake), target in zip(logits, targets, strict=True)
            )
        return terms

    def weighted_sum(self, terms, regularisation, step):
        """What the student minimises.

        Args:
            terms: Dict from names of terms to scalar tensors, unweighted.
            regularisation: List of the student's regularisers and `add_loss` terms.
            step: The student optimizer's iterations, for schedules.

        Returns:
            Scalar tensor.
        """
        weights = [self._weight(name, step) for name in terms] + [1] * len(regularisation)
        values = [*terms.values(), *(ops.sum(extra) for extra in regularisation)]
        return weighted_sum(weights, [ops.cast(part, keras.config.floatx()) for part in values])

    def advance_power_iterations(self):
        """Once per step: the discriminators' spectral norms follow their kernels."""
        for discriminator in self._discriminators:
            discriminator.advance_power_iterations()

    def _weight(self, name, step):
        weight = self._weights[name]
        if is_schedule(weight):
            return ops.cast(weight(step), keras.config.floatx())
        return weight

    def _sum_over_pairs(self, values):
        return weighted_sum([pair.weight for pair in self.pairs], list(values))

    def _mean_feature_loss(self, pair, teacher_outputs, mask, target, student_map):
        weigh = pair.pair.position_weights
        weights = None if weigh is None else ops.stop_gradient(weigh(teacher_outputs))
        return ops.mean(feature_loss(self.feature_loss, target, student_map, weights, mask))

    def _mean_logits_loss(self, teacher, student, outputs):
        # `outputs` may be others than the student's own; padding is where it was.
        means = [
            self._mean_over_batch(
                output,
                teacher.outputs,
                output.values("student", outputs),
                output.mask(teacher, student),
            )
            for output in self.outputs
        ]
        return weighted_sum([output.weight for output in self.outputs], means)

    def _mean_over_batch(self, output, teacher_outputs, values, mask=None):
        wanted = output.values("teacher", teacher_outputs)
        return ops.mean(output.loss(self._logits_loss, wanted, values, self._temperature, mask))

    def _head_logits_loss(self, teacher_outputs, values):
        return self._mean_over_batch(self.head_output, teacher_outputs, values)

    def _head_student_loss(self, student_loss):
        # Targets for several outputs cannot be compared with one alone.
        head = self.head_output
        if head is None or not head.is_single or not self.uses_student_loss:
            return None
        return lambda values: student_loss(head.as_student_output(values))


def _zero(outputs):
    return 0.0
