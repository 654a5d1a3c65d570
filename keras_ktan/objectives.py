"""What each of the three players minimises, in `keras.ops` only.

A backend's train step runs the models, asks here for each player's loss, and moves
each player's weights by the gradient of its own loss.
"""

import functools

import keras
from keras import ops

from keras_ktan.anchors import Lesson
from keras_ktan.cached_dataset import require_maps
from keras_ktan.feature_tap import FeatureTap
from keras_ktan.losses import ADVERSARIAL_LOSSES, feature_matching_loss, softened_logits_loss


class Objectives:
    """The game as it was compiled.

    Args:
        teacher: The teacher.
        student: The student.
        connected_pairs: List of `ConnectedPair`.
        class_logits: A `ClassLogits`.
        temperature: Temperature of the softened probabilities.
        weights: Dict from `"student"`, `"logits"`, `"feature"`, `"adversarial"` to a number
            or a `keras.optimizers.schedules.LearningRateSchedule`.
        teacher_structure: What the teacher returns, a structure of any leaves.
        feature_loss: A name in `losses.FEATURE_LOSSES`.
        adversarial_loss: A name in `losses.ADVERSARIAL_LOSSES`.
    """

    def __init__(
        self,
        teacher,
        student,
        connected_pairs,
        class_logits,
        temperature,
        weights,
        teacher_structure,
        feature_loss,
        adversarial_loss,
    ):
        self._class_logits = class_logits
        self._temperature = temperature
        self._weights = weights
        self._teacher_structure = teacher_structure
        self._feature_loss = feature_loss
        self._adversarial_loss = ADVERSARIAL_LOSSES[adversarial_loss]
        self.uses_labels = self.active("student")
        self.uses_maps = self.active("feature") or self.active("adversarial")
        self.uses_discriminator = self.active("adversarial")
        self.uses_teacher = self.uses_maps or self.active("logits")
        self.pairs = connected_pairs if self.uses_maps else []
        self.teacher_paths = [pair.pair.teacher_layer_name for pair in self.pairs]
        # Only its class logits are looked at, and what says where an object is.
        self.weighs_positions = any(pair.pair.position_weights is not None for pair in self.pairs)
        self.uses_teacher_outputs = self.uses_teacher and (
            class_logits.usable or self.weighs_positions
        )
        student_paths = [pair.pair.student_layer_name for pair in self.pairs]
        self._teacher_tap = FeatureTap(teacher, self.teacher_paths, "teacher")
        self._student_tap = FeatureTap(student, student_paths, "student")

    def active(self, term):
        """Whether a term is computed at all: its weight is not the number 0."""
        weight = self._weights[term]
        is_schedule = isinstance(weight, keras.optimizers.schedules.LearningRateSchedule)
        return is_schedule or weight != 0

    def check_position_weights(self):
        """Weights of positions mean nothing where positions are averaged first."""
        if self._feature_loss == "pooled_cosine" and self.weighs_positions:
            raise ValueError(
                "Received feature_loss='pooled_cosine' and a FeaturePair with position_weights. "
                "Expected a feature loss that compares position by position. Use 'cosine'."
            )

    def check_anchors(self):
        """An anchor must have something to judge by."""
        for pair in self.pairs:
            if pair.anchor.name == "student_head" and not (
                self.uses_labels or self._class_logits.usable
            ):
                raise ValueError(
                    "Received anchor='student_head' with student_loss_weight=0 for models without "
                    "class logits. Expected labels or logits to judge R by. Use "
                    "anchor='reconstruction'."
                )

    def watch_teacher(self, inputs, outputs=None, maps=None):
        """The one teacher forward pass of a step; none for a batch that brings its results along.

        Args:
            inputs: The batch of inputs.
            outputs: Of a batch from a `TeacherCache`: dict from positions, as text, among the
                teacher's flattened outputs to tensors.
            maps: Of such a batch: dict from paths of the teacher's layers to tensors.

        Returns:
            A tuple `(outputs, maps)`, or `(None, [])` when no term needs the teacher.

        Raises:
            ValueError: If a batch from a cache lacks a map that a pair needs.
        """
        if not self.uses_teacher:
            return None, []
        if outputs is not None:
            return self._recall_teacher(outputs, maps)
        outputs, maps = self._teacher_tap(inputs, training=False)
        stop = ops.stop_gradient
        return keras.tree.map_structure(stop, outputs), [stop(feature) for feature in maps]

    def _recall_teacher(self, outputs, maps):
        require_maps(self.teacher_paths, maps)
        view = None
        if self.uses_teacher_outputs:
            flat = [_as_computed(outputs[str(place)]) for place in range(len(outputs))]
            view = keras.tree.pack_sequence_as(self._teacher_structure, flat)
        return view, [_as_computed(maps[path]) for path in self.teacher_paths]

    def run_student(self, inputs):
        """The one student forward pass of a step.

        Returns:
            A tuple `(outputs, maps)`.
        """
        return self._student_tap(inputs, training=True)

    def render_targets(self, inputs, teacher_view, student_maps, labels_loss):
        """T2S's rendering of the teacher's maps, and what T2S minimises.

        Args:
            inputs: The batch of inputs.
            teacher_view: What `watch_teacher` returned.
            student_maps: The student's maps.
            labels_loss: Function from outputs to the scalar loss against the labels.

        Returns:
            A tuple `(targets, loss)`: R for each pair, and the sum of the anchors' losses.
        """
        teacher_outputs, teacher_maps = teacher_view
        targets, total = [], 0.0
        for pair, teacher_map, student_map in zip(
            self.pairs, teacher_maps, student_maps, strict=True
        ):
            target = pair.teacher_to_student(teacher_map, size=ops.shape(student_map)[1:-1])
            lesson = Lesson(
                inputs=inputs,
                teacher_map=teacher_map,
                student_map=student_map,
                labels_loss=labels_loss if self.uses_labels else _nothing,
                class_labels_loss=self._class_labels_loss(labels_loss),
                imitation_loss=lambda outputs: self._imitation(teacher_outputs, outputs),
                class_imitation_loss=lambda logits: self._imitation_of_logits(
                    self._class_logits.select(teacher_outputs), logits
                ),
                matching_loss=functools.partial(self._match, pair, teacher_outputs),
            )
            total = total + ops.cast(pair.anchor.loss(target, lesson), keras.config.floatx())
            targets.append(target)
        return targets, total

    def judge(self, teacher_outputs, targets, student_maps, step):
        """The discriminators' verdicts: one forward pass a side.

        Args:
            teacher_outputs: The teacher's outputs.
            targets: R for each pair; its gradient is stopped here.
            student_maps: The student's maps, with gradient.
            step: Scalar int tensor; the noise is a function of it.

        Returns:
            A list of `(real, fake)` verdicts, one for each pair.
        """
        verdicts = []
        for pair, target, student_map in zip(self.pairs, targets, student_maps, strict=True):
            condition = self._class_probabilities(teacher_outputs) if pair.conditional else None
            real = pair.discriminator(ops.stop_gradient(target), condition, step=step, side=0)
            fake = pair.discriminator(student_map, condition, step=step, side=1)
            verdicts.append((real, fake))
        return verdicts

    def discriminator_loss(self, verdicts):
        """What the discriminators minimise: telling real from fake."""
        return self._sum_over_pairs(
            self._adversarial_loss.tell_apart(real, fake) for real, fake in verdicts
        )

    def discriminator_accuracy(self, verdicts):
        """Share of right verdicts, averaged over the pairs."""
        scores = [ops.mean(self._adversarial_loss.accuracy(real, fake)) for real, fake in verdicts]
        return sum(scores) / len(scores)

    def distillation_terms(self, teacher_outputs, student_outputs, targets, student_maps, verdicts):
        """The student's terms besides the labels, unweighted.

        Returns:
            Dict from the names of the active terms to scalar tensors.
        """
        terms = {}
        if self.active("logits"):
            terms["logits"] = self._imitation(teacher_outputs, student_outputs)
        if self.active("feature"):
            terms["feature"] = self._sum_over_pairs(
                self._match(pair, teacher_outputs, ops.stop_gradient(target), student_map)
                for pair, target, student_map in zip(self.pairs, targets, student_maps, strict=True)
            )
        if self.active("adversarial"):
            terms["adversarial"] = self._sum_over_pairs(
                self._adversarial_loss.fool_discriminator(fake) for _, fake in verdicts
            )
        return terms

    def total(self, terms, regularisation, step):
        """What the student minimises.

        Args:
            terms: Dict from names of terms to scalar tensors, unweighted.
            regularisation: List of the student's regularisers and `add_loss` terms.
            step: The student optimizer's iterations, for schedules.

        Returns:
            Scalar tensor.
        """
        parts = [self._weight(name, step) * value for name, value in terms.items()]
        parts += [ops.sum(extra) for extra in regularisation]
        return ops.sum(ops.stack([ops.cast(part, keras.config.floatx()) for part in parts]))

    def advance_power_iterations(self):
        """Once per step: the discriminators' spectral norms follow their kernels."""
        # Pairs may share a discriminator; it advances once.
        for discriminator in {
            id(pair.discriminator): pair.discriminator for pair in self.pairs
        }.values():
            discriminator.advance_power_iterations()

    def _weight(self, name, step):
        weight = self._weights[name]
        if isinstance(weight, keras.optimizers.schedules.LearningRateSchedule):
            return ops.cast(weight(step), keras.config.floatx())
        return weight

    def _sum_over_pairs(self, values):
        return sum(
            pair.weight * ops.mean(value) for pair, value in zip(self.pairs, values, strict=True)
        )

    def _match(self, pair, teacher_outputs, target, student_map):
        weigh = pair.pair.position_weights
        weights = None if weigh is None else ops.stop_gradient(weigh(teacher_outputs))
        return ops.mean(feature_matching_loss(self._feature_loss, target, student_map, weights))

    def _imitation(self, teacher_outputs, outputs):
        if not self._class_logits.usable:
            return 0.0
        select = self._class_logits.select
        return self._imitation_of_logits(select(teacher_outputs), select(outputs))

    def _imitation_of_logits(self, teacher_logits, logits):
        return ops.mean(
            softened_logits_loss(
                teacher_logits, logits, self._temperature, self._class_logits.activation
            )
        )

    def _class_labels_loss(self, labels_loss):
        # Labels for several outputs say nothing that a class head alone could be judged by.
        single = self._class_logits.usable and self._class_logits.logits_output is None
        return labels_loss if single and self.uses_labels else None

    def _class_probabilities(self, teacher_outputs):
        logits = ops.cast(self._class_logits.select(teacher_outputs), keras.config.floatx())
        if self._class_logits.activation == "softmax":
            return ops.softmax(logits, axis=-1)
        return ops.sigmoid(logits)


def _nothing(outputs):
    return 0.0


def _as_computed(tensor):
    """A tensor from the cache; half precision is only how it was kept."""
    tensor = ops.convert_to_tensor(tensor)
    if keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)):
        tensor = ops.cast(tensor, keras.config.floatx())
    return ops.stop_gradient(tensor)
