"""Whether two models are classifiers, and what they answer."""

import numpy as np

from keras_ktan.introspection.output_probe import softmax_rows
from keras_ktan.introspection.outputs import OutputForm, output_keys, select
from keras_ktan.training.loss_kinds import loss_kind, loss_of_output


def single_scores(traces):
    """Why the models are no classifiers of one label, as far as their outputs' shapes say.

    Args:
        traces: Dict from `"teacher"` and `"student"` to `ModelTrace`s.

    Returns:
        A sentence, or `None` if both give one row of scores.

    Raises:
        ValueError: If they score different numbers of classes.
    """
    sizes = {}
    for role, trace in traces.items():
        keys = output_keys(trace.outputs)
        if len(keys) != 1:
            return f"the {role} has {len(keys)} outputs"
        shape = getattr(select(trace.outputs, keys[0]), "shape", ())
        if len(shape) != 2:
            return f"the {role}'s output has the shape (batch, {', '.join(map(str, shape[1:]))})"
        sizes[role] = shape[1]
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"The teacher scores {sizes['teacher']} classes and the student {sizes['student']}. "
            "Expected the same classes in the same order. Pass models of one task, or leave out "
            "`data`."
        )
    return None


class Classification:
    """What labels and outputs of two classifiers mean.

    Args:
        traces: Dict from `"teacher"` and `"student"` to `ModelTrace`s.
        outputs: Dict from the same names to arrays `(examples, classes)`.
        labels: What the data holds: class numbers, or rows of zeros with a single one.

    Attributes:
        labels: Array of class numbers; `None` where it is no classification.
        problem: Why not, or `None`.

    Raises:
        ValueError: If a label is no class of the models.
    """

    def __init__(self, traces, outputs, labels):
        self.classes = outputs["student"].shape[-1]
        self.forms, families, takes = {}, set(), {}
        for role, trace in traces.items():
            key = output_keys(trace.outputs)[0]
            loss = _loss_kind(trace, key)
            families.add(loss.family if loss else None)
            takes[role] = loss.takes if loss else None
            self.forms[role] = _form(trace, key, outputs[role], takes[role])
        evidence = families | set(self.forms.values())
        self.labels, self.problem = None, None
        labels = np.asarray(labels) if not isinstance(labels, (dict, list, tuple)) else None
        if labels is None:
            self.problem = "the labels are several arrays"
        elif "regression" in families and "softmax" not in evidence:
            self.problem = "a model was compiled with a loss of regression"
        elif self.classes == 1 and "sigmoid" not in evidence:
            self.problem = "nothing says that the single output is the score of a yes or no"
        elif self.classes == 1 and "unit" in self.forms.values():
            self.problem = "it is not clear whether an output is a probability or a raw score"
        elif (
            self.classes > 1
            and labels.ndim == 2
            and labels.shape[1] > 1
            and ("sigmoid" in evidence)
        ):
            self.problem = "there may be several labels an example"
        else:
            self.labels = _class_numbers(labels, self.classes)
            if self.labels is None:
                self.problem = "the labels are neither class numbers nor one-hot rows"

    def answers(self, scores, role):
        """The class numbers that scores of a model (or of a file made from it) stand for."""
        if self.classes > 1:
            return np.argmax(scores, axis=-1)
        threshold = 0.5 if self.forms[role] == "sigmoid" else 0.0
        return (scores[:, 0] > threshold).astype(int)

    def confidences(self, scores, role):
        """The probabilities of the answers; `None` where a sigmoid scores each class by itself."""
        scores = np.asarray(scores, "float64")
        if self.classes == 1:
            raw = self.forms[role] != "sigmoid"
            yes = 1 / (1 + np.exp(-np.clip(scores[:, 0], -500, 500))) if raw else scores[:, 0]
            return np.maximum(yes, 1 - yes)
        if self.forms[role] == "sigmoid":
            return None
        if not softmax_rows(scores):
            powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
            scores = powers / powers.sum(axis=-1, keepdims=True)
        return scores.max(axis=-1)


def _loss_kind(trace, key):
    model = trace.model
    if not getattr(model, "compiled", False):
        return None
    names = list(getattr(model, "output_names", ()))
    return loss_kind(loss_of_output(getattr(model, "loss", None), trace.outputs, key, names))


def _form(trace, key, values, takes):
    # The type tells the tolerance: half precision rounds the sum of a row.
    half = str(values.dtype) in ("float16", "bfloat16")
    form = OutputForm(trace, key, values.astype("float16") if half else values).form
    if form == "unit" and values.shape[-1] == 1 and takes is not None:
        return "sigmoid" if takes == "probabilities" else "raw"
    return form


def _class_numbers(labels, classes):
    if labels.ndim == 2 and labels.shape[1] == classes > 1:
        one_hot = np.all((labels == 0) | (labels == 1)) and np.all(labels.sum(axis=1) == 1)
        return np.argmax(labels, axis=1) if one_hot else None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iufb" or np.any(labels != np.round(labels)):
        return None
    known = max(classes, 2)
    if labels.min() < 0 or labels.max() >= known:
        raise ValueError(
            f"Received labels from {labels.min()} to {labels.max()} for models that score "
            f"{known} classes. Expected class numbers from 0 to {known - 1}. Pass the labels that "
            "the models were trained on."
        )
    return labels.astype(int)
