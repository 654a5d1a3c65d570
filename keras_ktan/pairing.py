"""What two models have to do with each other: their class logits and their paired maps."""

from keras_ktan import validation
from keras_ktan.class_logits import ClassLogits, refuse_regression, require_loss_on_logits
from keras_ktan.feature_map_search import last_feature_map
from keras_ktan.feature_pair import ConnectedPair, FeaturePair
from keras_ktan.model_trace import ModelTrace


class Pairing:
    """A teacher and a student, looked at once, and the layers built that join them.

    Args:
        teacher: A built `keras.Model`.
        student: A built `keras.Model`.
        feature_pairs: List of `FeaturePair`, or `None` for each model's last map.
        logits_output: See `KTANDistiller`.
        logits_activation: See `KTANDistiller`.

    Raises:
        ValueError: If a pair does not fit or the classes are unlike.
    """

    def __init__(self, teacher, student, feature_pairs, logits_output, logits_activation):
        traces = [ModelTrace(model) for model in (teacher, student)]
        for trace, role in zip(traces, ("teacher", "student"), strict=True):
            validation.check_trace(trace, role)
        validation.check_inputs(*traces)
        self.class_logits = ClassLogits(*traces, logits_output, logits_activation)
        self.teacher_structure = traces[0].outputs
        outputs = traces[1].outputs
        names = list(outputs) if isinstance(outputs, dict) else []
        names = names or list(getattr(student, "output_names", ()))
        # What Keras calls the losses of several outputs in the logs.
        self.student_loss_names = [f"{name}_loss" for name in names] if len(names) > 1 else []
        # Only a term that needs maps makes a failed search an error; `compile` knows.
        self.search_error = None
        if feature_pairs is None:
            try:
                names = [
                    last_feature_map(traces[0], "teacher"),
                    last_feature_map(traces[1], "student"),
                ]
                feature_pairs = [FeaturePair(*names)]
            except ValueError as error:
                feature_pairs, self.search_error = [], str(error)
        # Scores per position (a detector's) say nothing of a whole image.
        logits = self.class_logits
        classes = logits.classes if logits.usable and logits.per_image else None
        self.pairs = [ConnectedPair(pair, *traces, classes) for pair in feature_pairs]

    @property
    def teacher_to_student_layers(self):
        """The T2S layers, each once though pairs may share one."""
        return _unique(pair.teacher_to_student for pair in self.pairs)

    @property
    def discriminators(self):
        """The discriminators, each once though pairs may share one."""
        return _unique(pair.discriminator for pair in self.pairs)

    def check_game(self, objectives, loss):
        """Refuse a game that these models cannot play.

        Args:
            objectives: The `Objectives` of these pairs.
            loss: The loss against the labels as `compile` was given it.

        Raises:
            ValueError: If a term wants what is not there.
        """
        objectives.check_anchors()
        objectives.check_position_weights()
        validation.check_terms(objectives, self.class_logits, self.search_error)
        if objectives.active("logits"):
            require_loss_on_logits(loss)
        if objectives.uses_teacher and self.class_logits.usable:
            refuse_regression(loss)

    def describe(self):
        """Lines for `summary()`."""
        lines = [f"  pair {pair.describe()}" for pair in self.pairs]
        if self.search_error:
            lines.append(f"  no pair: {self.search_error}")
        logits = self.class_logits
        found = f"{logits.classes} classes" if logits.usable else "none"
        lines.append(f"  class logits: {found}")
        return lines


def _unique(layers):
    return list({id(layer): layer for layer in layers}.values())
