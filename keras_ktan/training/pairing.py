"""What two models have to do with each other: their paired outputs and their paired maps."""

import warnings

from keras_ktan.introspection.cuts import map_calls
from keras_ktan.introspection.feature_maps import default_feature_map
from keras_ktan.introspection.model_trace import ModelTrace
from keras_ktan.training import validation
from keras_ktan.training.connected_pair import ConnectedPair
from keras_ktan.training.output_pairing import OutputPairing


class Pairing:
    """A teacher and a student, traced once, and the layers built that join them.

    Args:
        teacher: A built `keras.Model`.
        student: A built `keras.Model`.
        feature_pairs: List of `FeaturePair`, or `None`.
        output_pairs: List of `OutputPair`, or `None`.
        default_feature_pair: Function from the paths of two layers to a `FeaturePair`, for
            `feature_pairs=None`.
        default_output_pair: Function from two keys to an `OutputPair`, for `output_pairs=None`.

    Raises:
        ValueError: If a pair does not fit.
    """

    def __init__(
        self,
        teacher,
        student,
        feature_pairs,
        output_pairs,
        default_feature_pair,
        default_output_pair,
    ):
        self.teacher, self.student = teacher, student
        traces = [ModelTrace(model) for model in (teacher, student)]
        for trace, role in zip(traces, ("teacher", "student"), strict=True):
            validation.validate_outputs(trace, role)
        validation.validate_inputs(*traces)
        self.outputs = OutputPairing(*traces, output_pairs, default_output_pair)
        self.teacher_structure = traces[0].outputs
        self.student_loss_names = _loss_names(student, traces[1].outputs)
        # Outputs for each position (a detector's) say nothing of a whole image.
        units = self.outputs.head_units
        # Only a term that needs maps makes a failed search an error; `compile` knows.
        self.search_error = None
        # A model of vectors alone, such as an MLP, has no map that could be missed.
        self._have_maps = any(map_calls(trace) for trace in traces)
        if feature_pairs is None:
            try:
                names = [
                    default_feature_map(traces[0], "teacher"),
                    default_feature_map(traces[1], "student"),
                ]
                self.pairs = [ConnectedPair(default_feature_pair(*names), *traces, units)]
            except ValueError as error:
                self.pairs, self.search_error = [], str(error)
        else:
            self.pairs = [ConnectedPair(pair, *traces, units) for pair in feature_pairs]

    @property
    def teacher_to_student_layers(self):
        """The T2S layers, each once though pairs may share one."""
        return _unique(pair.teacher_to_student for pair in self.pairs)

    @property
    def discriminators(self):
        """The discriminators, each once though pairs may share one."""
        return _unique(pair.discriminator for pair in self.pairs)

    def warn_of_left_out(self, logits, features):
        """One warning of what nobody named and what is not distilled.

        Args:
            logits: Whether the weight of the logits loss was left to the models.
            features: Whether that of the feature loss was.
        """
        left_out = self.outputs.left_out_unnamed() if logits else []
        if features and self.search_error and self._have_maps:
            left_out.append(f"the feature maps ({self.search_error})")
        if left_out:
            warnings.warn(
                f"This is not distilled: {'; '.join(left_out)}. Name a partner with "
                "`KTANDistiller(..., output_pairs=OutputPair(teacher_output, student_output))` "
                "or `feature_pairs=FeaturePair(...)`, or say that it is meant: pass a weight of 0.",
                stacklevel=3,
            )

    def connect_condition(self, classes):
        """Tell the discriminators how many classes the teacher's probabilities are of.

        Args:
            classes: A number; `None` where there are no probabilities of whole examples.
        """
        for pair in self.pairs:
            pair.connect_condition(classes)

    def validate_objectives(self, objectives):
        """Refuse objectives that these models do not allow.

        Args:
            objectives: The `Objectives` of these pairs.

        Raises:
            ValueError: If a term wants what is not there.
        """
        validation.validate_t2s_objectives(objectives)
        validation.validate_position_weights(objectives)
        validation.validate_terms(objectives, self.search_error)

    def describe(self):
        """Lines for `summary()`."""
        lines = [f"  pair {pair.describe()}" for pair in self.pairs]
        if self.search_error:
            lines.append(f"  no pair: {self.search_error}")
        return lines + self.outputs.describe()


def _loss_names(student, outputs):
    """What Keras calls the losses of several outputs in the logs."""
    names = list(outputs) if isinstance(outputs, dict) else []
    names = names or list(getattr(student, "output_names", ()))
    return [f"{name}_loss" for name in names] if len(names) > 1 else []


def _unique(layers):
    return list({id(layer): layer for layer in layers}.values())
