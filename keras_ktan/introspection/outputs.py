"""Which output holds the class logits, and whether it really holds logits."""

import keras

_NORMALISED = {
    keras.activations.softmax: "softmax",
    keras.activations.sigmoid: "sigmoid",
    keras.activations.log_softmax: "log_softmax",
    keras.activations.hard_sigmoid: "hard_sigmoid",
    keras.ops.softmax: "softmax",
    keras.ops.sigmoid: "sigmoid",
    keras.ops.log_softmax: "log_softmax",
    keras.ops.hard_sigmoid: "hard_sigmoid",
}


def select_logits(outputs, logits_output):
    """The class logits among a model's outputs.

    Args:
        outputs: What the model returned.
        logits_output: `None` for a single output, else a key or a position.

    Returns:
        A tensor.
    """
    return outputs if logits_output is None else outputs[logits_output]


class ClassLogits:
    """Where two models' class logits are, checked against each other.

    Args:
        teacher_trace: `ModelTrace` of the teacher.
        student_trace: `ModelTrace` of the student.
        logits_output: Key or position of the output that holds them; `None`: the single
            output of rank 2, if that is what both models have.
        activation: `"softmax"`, `"sigmoid"`, or `None` for models without class logits.

    Raises:
        ValueError: If `logits_output` names no output.
    """

    def __init__(self, teacher_trace, student_trace, logits_output, activation):
        self.logits_output = logits_output
        self.activation = activation
        self.problem = None
        traces = {"teacher": teacher_trace, "student": student_trace}
        specs = [
            None if activation is None else _logits_spec(trace, logits_output, role)
            for role, trace in traces.items()
        ]
        self.found = all(spec is not None for spec in specs)
        self.classes = specs[1].shape[-1] if self.found else None
        # Per-position scores (a detector's) give no condition for whole images.
        self.per_image = self.found and len(specs[1].shape) == 2
        if self.found:
            # Only a term that needs logits makes a problem an error; `require_logits` does.
            self.problem = self._find_problem(*specs) or self._find_activation(traces)
        # Found, and logits indeed.
        self.usable = self.found and self.problem is None

    def _find_problem(self, teacher, student):
        if len(teacher.shape) != len(student.shape):
            return (
                f"The teacher's class scores have shape {tuple(teacher.shape)} and the student's "
                f"{tuple(student.shape)}. Expected the same rank. Name outputs that mean the same."
            )
        if teacher.shape[-1] != student.shape[-1]:
            return (
                f"The teacher scores {teacher.shape[-1]} classes and the student "
                f"{student.shape[-1]}. Expected the same classes in the same order. Give the "
                "student as many outputs as the teacher has, or set `logits_loss_weight=0`."
            )
        if self.activation == "softmax" and self.classes == 1:
            return (
                "Received models with a single class score and logits_activation='softmax'. A "
                "softmax over one class is always 1. Expected two or more classes, or "
                "logits_activation='sigmoid' for a yes or no, or None for no class at all."
            )
        return None

    def _find_activation(self, traces):
        for role, trace in traces.items():
            name = normalising_activation(trace, self.logits_output)
            if name is not None:
                return (
                    f"The {role}'s class scores come out of a {name}. Expected raw logits, "
                    "because a softened probability is computed from logits. Remove the "
                    f"activation of the {role}'s last layer (and compile with "
                    "`from_logits=True`), or set `logits_loss_weight=0`."
                )
        return None

    def select(self, outputs):
        """The class logits among a model's outputs."""
        return select_logits(outputs, self.logits_output)

    def require_logits(self):
        """Refuse what is no pair of class logits.

        Raises:
            ValueError: If the classes differ, or if a model's class scores come out of a
                softmax or a sigmoid.
        """
        if self.problem:
            raise ValueError(self.problem)


def normalising_activation(trace, logits_output):
    """The softmax or sigmoid that made a model's class scores.

    Args:
        trace: A `ModelTrace`.
        logits_output: Key or position of the output; `None` for a single output.

    Returns:
        Its name, or `None`.
    """
    flat = keras.tree.flatten(trace.outputs)
    wanted = select_logits(trace.outputs, logits_output)
    position = next(index for index, tensor in enumerate(flat) if tensor is wanted)
    call = trace.producer(trace.output_ids[position])
    if call is None:
        return None
    if isinstance(call.layer, keras.layers.Softmax):
        return "softmax"
    return _NORMALISED.get(getattr(call.layer, "activation", None))


def _logits_spec(trace, logits_output, role):
    outputs = trace.outputs
    if logits_output is None:
        if keras.tree.is_nested(outputs) or len(outputs.shape) != 2:
            return None
        return outputs
    if not keras.tree.is_nested(outputs):
        raise ValueError(
            f"Received logits_output={logits_output!r}, but the {role} '{trace.model.name}' has a "
            "single output. Expected None. Correct `logits_output`; leave it out for a model with "
            "one output."
        )
    try:
        return outputs[logits_output]
    except (KeyError, IndexError, TypeError):
        known = list(outputs) if isinstance(outputs, dict) else None
        if known is None:
            known = list(range(len(keras.tree.flatten(outputs))))
        raise ValueError(
            f"The {role} '{trace.model.name}' has no output {logits_output!r}. Expected one of "
            f"{known}. Correct `logits_output`; leave it out for a model with one output."
        ) from None


def validate_loss_on_logits(loss):
    """Refuse a cross-entropy that takes the logits for probabilities.

    Args:
        loss: The `loss` argument of `compile`.

    Raises:
        ValueError: If it is a Keras cross-entropy with `from_logits=False`.
    """
    if not isinstance(loss, str) and not callable(loss):
        return
    try:
        loss = keras.losses.get(loss)
    except ValueError:
        return  # an unknown name; Keras's own `compile` says so
    if isinstance(loss, keras.losses.Loss):
        name, from_logits = type(loss).__name__, loss.get_config().get("from_logits", True)
    else:
        name = getattr(loss, "__name__", "")
        is_kerass = getattr(keras.losses, name, None) is loss
        from_logits = not (is_kerass and name.endswith("crossentropy"))
    if not from_logits:
        kind = name
        if "_" in name:
            kind = "".join(part.capitalize() for part in name.split("_"))
        raise ValueError(
            f"Received loss={name!r}, which takes the student's outputs for probabilities, but "
            "they are logits. Expected `from_logits=True`. Write "
            f"`loss=keras.losses.{kind}(from_logits=True)`."
        )


_REGRESSION = (
    keras.losses.MeanSquaredError,
    keras.losses.MeanAbsoluteError,
    keras.losses.MeanAbsolutePercentageError,
    keras.losses.MeanSquaredLogarithmicError,
    keras.losses.Huber,
    keras.losses.LogCosh,
    keras.losses.CosineSimilarity,
)
_REGRESSION_NAMES = ("mse", "mae", "mape", "msle", "huber", "log_cosh", "logcosh")


def validate_loss_is_no_regression(loss):
    """Refuse to take a regressor's outputs for class logits.

    Args:
        loss: The `loss` argument of `compile`.

    Raises:
        ValueError: If it is a loss of regression.
    """
    name = loss if isinstance(loss, str) else getattr(loss, "name", type(loss).__name__)
    is_name = isinstance(loss, str) and (
        loss in _REGRESSION_NAMES or loss.lower().startswith("mean")
    )
    if is_name or isinstance(loss, _REGRESSION):
        raise ValueError(
            f"Received loss={name!r}, a loss of regression, for outputs that would be taken for "
            "class logits. Expected a loss of classification. For models without classes write "
            "`KTANDistiller(..., logits_activation=None)`."
        )
