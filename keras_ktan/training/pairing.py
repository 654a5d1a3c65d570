"""What two models have to do with each other: their class logits and their paired maps."""

from keras_ktan.introspection.feature_maps import default_feature_map
from keras_ktan.introspection.model_trace import ModelTrace
from keras_ktan.introspection.outputs import (
    ClassLogits,
    validate_loss_is_no_regression,
    validate_loss_on_logits,
)
from keras_ktan.training import validation
from keras_ktan.training.connected_pair import ConnectedPair


class Pairing:
    """A teacher and a student, traced once, and the layers built that join them.

    Args:
        teacher: A built `keras.Model`.
        student: A built `keras.Model`.
        feature_pairs: List of `FeaturePair`, or `None`.
        default_pair: Function from the paths of two layers to a `FeaturePair`, for
            `feature_pairs=None`.
        logits_output: See `KTANDistiller`.
        logits_activation: See `KTANDistiller`.

    Raises:
        ValueError: If a pair does not fit or the classes are unlike.
    """

    def __init__(
        self, teacher, student, feature_pairs, default_pair, logits_output, logits_activation
    ):
        self.teacher, self.student = teacher, student
        traces = [ModelTrace(model) for model in (teacher, student)]
        for trace, role in zip(traces, ("teacher", "student"), strict=True):
            validation.validate_outputs(trace, role)
        validation.validate_inputs(*traces)
        self.class_logits = ClassLogits(*traces, logits_output, logits_activation)
        self.teacher_structure = traces[0].outputs
        self.student_loss_names = _loss_names(student, traces[1].outputs)
        # Scores per position (a detector's) say nothing of a whole image.
        logits = self.class_logits
        classes = logits.classes if logits.usable and logits.per_image else None
        # Only a term that needs maps makes a failed search an error; `compile` knows.
        self.search_error = None
        if feature_pairs is None:
            try:
                names = [
                    default_feature_map(traces[0], "teacher"),
                    default_feature_map(traces[1], "student"),
                ]
                self.pairs = [ConnectedPair(default_pair(*names), *traces, classes)]
            except ValueError as error:
                self.pairs, self.search_error = [], str(error)
        else:
            self.pairs = [ConnectedPair(pair, *traces, classes) for pair in feature_pairs]

    @property
    def teacher_to_student_layers(self):
        """The T2S layers, each once though pairs may share one."""
        return _unique(pair.teacher_to_student for pair in self.pairs)

    @property
    def discriminators(self):
        """The discriminators, each once though pairs may share one."""
        return _unique(pair.discriminator for pair in self.pairs)

    def validate_objectives(self, objectives, loss):
        """Refuse objectives that these models do not allow.

        Args:
            objectives: The `Objectives` of these pairs.
            loss: The loss as `compile` was given it.

        Raises:
            ValueError: If a term wants what is not there.
        """
        objectives.validate_t2s_objectives()
        objectives.validate_position_weights()
        validation.validate_terms(objectives, self.class_logits, self.search_error)
        if objectives.is_active("logits"):
            validate_loss_on_logits(loss)
        if objectives.uses_teacher and self.class_logits.usable:
            validate_loss_is_no_regression(loss)

    def describe(self):
        """Lines for `summary()`."""
        lines = [f"  pair {pair.describe()}" for pair in self.pairs]
        if self.search_error:
            lines.append(f"  no pair: {self.search_error}")
        logits = self.class_logits
        found = f"{logits.classes} classes" if logits.usable else "none"
        lines.append(f"  class logits: {found}")
        return lines


def _loss_names(student, outputs):
    """What Keras calls the losses of several outputs in the logs."""
    names = list(outputs) if isinstance(outputs, dict) else []
    names = names or list(getattr(student, "output_names", ()))
    return [f"{name}_loss" for name in names] if len(names) > 1 else []


def _unique(layers):
    return list({id(layer): layer for layer in layers}.values())
