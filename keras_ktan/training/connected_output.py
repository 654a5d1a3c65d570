"""A pair of outputs whose kind is settled: what each model's values are in the loss."""

import keras
from keras import ops

from keras_ktan.introspection.outputs import select
from keras_ktan.losses.logits import logits_loss
from keras_ktan.losses.regression import scaled_squared_error
from keras_ktan.training.padding import common_mask, mask_of_positions

# Probabilities below the first are taken for it, and those above the second, so that logarithm and
# gradient are finite, also where the loss is scaled. Half precision has no smaller ones.
_BOUNDS = {"float16": (2.0**-24, 1.0 - 2.0**-11), "bfloat16": (1e-30, 1.0 - 2.0**-8)}
_FULL_BOUNDS = (1e-30, 1.0 - 2.0**-23)


class ConnectedOutput:
    """A pair of outputs whose kind is settled.

    Args:
        candidate: The `OutputCandidate` that it was made from.
        kind: `"softmax"`, `"sigmoid"` or `"regression"`.
        probabilities: Dict from `"teacher"` and `"student"` to whether that model's values are
            probabilities, and no raw scores.
    """

    def __init__(self, candidate, kind, probabilities):
        self.kind = kind
        self.weight = candidate.weight
        self.name = candidate.name
        self.size = candidate.size
        self.rank = candidate.rank
        # Of the student: targets are then for this output alone.
        self.is_single = candidate.student_key is None
        self._keys = {"teacher": candidate.teacher_key, "student": candidate.student_key}
        self._probabilities = probabilities
        # `RunningVariance` of the teacher's values, for a regression; given by the distiller.
        self.variance = None

    @property
    def per_image(self):
        """Whether there is one row for each example, and not one for each position."""
        return self.rank == 2

    def values(self, role, outputs):
        """The scores of a model's output, from which temperature makes softened probabilities.

        Args:
            role: `"teacher"` or `"student"`.
            outputs: What that model returned.

        Returns:
            Tensor `(batch, ..., size)` in full precision: raw scores as they are, `log p` of a
            softmax's probabilities (a constant that cancels apart from it), `log p - log(1 - p)`
            of a sigmoid's; numbers of a regression as they are.
        """
        given = select(outputs, self._keys[role])
        values = ops.cast(given, keras.config.floatx())
        if not self._probabilities[role]:
            return values
        dtype = keras.backend.standardize_dtype(given.dtype)
        lowest, highest = _BOUNDS.get(dtype, _FULL_BOUNDS)
        values = ops.clip(values, lowest, highest if self.kind == "sigmoid" else 1.0)
        if self.kind == "softmax":
            return ops.log(values)
        return ops.log(values) - ops.log1p(-values)

    def mask(self, teacher, student):
        """Which positions of the output are padding in neither model.

        Args:
            teacher: The `Forward` of the teacher.
            student: That of the student.

        Returns:
            A boolean tensor `(batch, positions...)`, or `None` where nothing is padding.
        """
        masks = []
        for role, forward in (("teacher", teacher), ("student", student)):
            values = select(forward.outputs, self._keys[role])
            flat = keras.tree.flatten(forward.outputs)
            place = next(place for place, tensor in enumerate(flat) if tensor is values)
            masks.append(
                mask_of_positions(
                    forward.output_masks[place], values, f"output {self.name} of the {role}"
                )
            )
        return common_mask(*masks)

    def loss(self, loss, teacher_values, student_values, temperature, mask=None):
        """Distance of the student's values from the teacher's, a tensor `(batch,)`."""
        if self.kind == "regression" and isinstance(loss, str):
            variance = self.variance.result()
            return scaled_squared_error(teacher_values, student_values, variance, mask)
        return logits_loss(loss, teacher_values, student_values, temperature, self.kind, mask)

    def as_student_output(self, values):
        """What the labelled loss expects in the student's place: a helper head's scores, made
        probabilities where the student's are."""
        if not self._probabilities["student"]:
            return values
        values = ops.cast(values, keras.config.floatx())
        return ops.softmax(values, axis=-1) if self.kind == "softmax" else ops.sigmoid(values)

    def teacher_probabilities(self, outputs):
        """The teacher's probabilities, which a discriminator is conditional on."""
        if self._probabilities["teacher"]:
            return ops.cast(select(outputs, self._keys["teacher"]), keras.config.floatx())
        scores = self.values("teacher", outputs)
        return ops.softmax(scores, axis=-1) if self.kind == "softmax" else ops.sigmoid(scores)

    def observe(self, teacher, student):
        """Once per training step: the teacher's values enter their running variance."""
        if self.variance is not None:
            values = self.values("teacher", teacher.outputs)
            self.variance.update_state(values, self.mask(teacher, student))

    def describe(self):
        """A line for `summary()`."""
        held = ", ".join(
            f"{role} {'probabilities' if probabilities else 'raw scores'}"
            for role, probabilities in self._probabilities.items()
        )
        about = "" if self.kind == "regression" else f" ({held})"
        return f"{self.name}: {self.kind}{about}, weight {self.weight:g}"
