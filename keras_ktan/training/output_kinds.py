"""What kind a pair of outputs is: from what both outputs hold and from the student's loss.

Raw scores and probabilities are never mixed up silently: where the witnesses contradict each
other or say nothing, there is an error and no guess.
"""

_REMEDY = (
    "Name the kind: `output_pairs=OutputPair({arguments}kind='softmax')` (one class of many), "
    "'sigmoid' (independent classes) or 'regression' (numbers), or leave the output out "
    "(`output_pairs=[]`), or set `logits_loss_weight=0`."
)


def settle_kind(kind, teacher, student, loss, label, arguments):
    """The kind of a pair, checked against everything that is known.

    Args:
        kind: `OutputPair.kind`.
        teacher: `OutputForm` of the teacher's output.
        student: `OutputForm` of the student's output.
        loss: `LossKind` of the student's output; `None` where it has no loss.
        label: What errors call the pair, such as `"the output 'logits'"`.
        arguments: The pair's first arguments as code, such as `"'logits', "`.

    Returns:
        `"softmax"`, `"sigmoid"` or `"regression"`.

    Raises:
        ValueError: If nobody knows the kind, or if what is known does not go together.
    """
    remedy = _REMEDY.format(arguments=arguments)
    for role, output in (("teacher", teacher), ("student", student)):
        if output.problem and kind != "regression":
            raise ValueError(f"The {role}'s values of {label} {output.problem}")
    if kind == "auto":
        kind = inferred_kind(teacher, student, loss)
        if kind is None:
            raise ValueError(
                f"It is not clear what {label} means: {_evidence(teacher, student, loss)}. "
                f"Expected a softmax, a sigmoid, or a loss that says which it is. {remedy}"
            )
    if kind != "regression" and _contradicts(kind, teacher.form, student.form, loss):
        raise ValueError(
            f"Received kind={kind!r} for {label}, but {_evidence(teacher, student, loss)}. "
            f"Expected models and a loss that mean the same. {remedy}"
        )
    return kind


def inferred_kind(teacher, student, loss):
    """The kind of a pair that follows from what is known, whether or not that goes together.

    Args:
        teacher: `OutputForm` of the teacher's output.
        student: `OutputForm` of the student's output.
        loss: `LossKind` of the student's output; `None` where it has no loss.

    Returns:
        A kind, or `None`.
    """
    forms = {teacher.form, student.form}
    family = None if loss is None else loss.family
    if "softmax" in forms:
        return "softmax"
    if family in ("softmax", "sigmoid", "regression"):
        return family
    if "sigmoid" in forms and (loss is None or family == "overlap"):
        return "sigmoid"
    return None


def _contradicts(kind, teacher, student, loss):
    other = "sigmoid" if kind == "softmax" else "softmax"
    if other in (teacher, student):
        return True
    family = None if loss is None else loss.family
    # A softmax's probabilities may be trained by any loss; raw scores mean what the loss says.
    return student != kind and family not in (None, kind, "overlap")


def _evidence(teacher, student, loss):
    words = {
        "softmax": "come out of a softmax",
        "sigmoid": "come out of a sigmoid",
        "raw": "are raw scores",
        "unit": "lie in [0, 1] without a visible activation",
        "unknown": "could not be looked at",
    }
    said = "it has no loss" if loss is None else f"the loss is {loss.name!r}"
    if loss is not None and loss.family is None:
        said += ", which keras_ktan does not know"
    return (
        f"the teacher's values {words[teacher.form]}, the student's {words[student.form]}, {said}"
    )


def holds_probabilities(kind, role, output, loss, label):
    """Whether a model's output of a settled kind holds probabilities, and no raw scores.

    Args:
        kind: `"softmax"` or `"sigmoid"`.
        role: `"teacher"` or `"student"`.
        output: `OutputForm` of that model's output.
        loss: `LossKind` of the student's output, or `None`.
        label: What errors call the pair.

    Returns:
        A bool.

    Raises:
        ValueError: If it is not known, or if the student's loss takes the other.
    """
    form = output.form
    takes = None if loss is None else loss.takes
    if role == "teacher" and (kind, form, takes) != ("sigmoid", "unit", "probabilities"):
        takes = None  # it says nothing of a model that it does not train
    if form == "unit" and kind == "softmax" and takes is not None:
        form = "raw"  # rows that do not sum to 1
    if form in ("unit", "unknown") and takes is not None:
        form = kind if takes == "probabilities" else "raw"
    if form in ("unit", "unknown"):
        raise ValueError(
            f"It is not clear whether the {role}'s values of {label} are probabilities or raw "
            "scores: no layer shows an activation, and the values for random inputs leave it open. "
            "Expected one of them to be visible. End the model in "
            f"`keras.layers.Activation({kind!r})`, or in a layer without an activation for raw "
            "scores."
        )
    probabilities = form == kind
    if role == "teacher":
        return probabilities
    if probabilities and takes == "logits":
        raise ValueError(
            f"Received loss={loss.name!r} with from_logits=True, but the student's values of "
            f"{label} are probabilities: they come out of a {kind}. Expected a loss on "
            "probabilities. Leave out `from_logits=True`, or remove the student's last activation."
        )
    if not probabilities and takes == "probabilities":
        raise ValueError(
            f"Received loss={loss.name!r}, which takes the student's outputs for probabilities, "
            f"but the values of {label} are raw scores. Expected `from_logits=True`. Write "
            f"`loss=keras.losses.{_class_name(loss.name)}(from_logits=True)`, or end the student "
            f"in a {kind}."
        )
    return probabilities


def _class_name(name):
    if "_" not in name:
        return name
    return "".join(part.capitalize() for part in name.split("_"))
