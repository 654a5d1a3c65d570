"""The models, the target and the loss of a run, checked before any work begins."""

import keras

from keras_ktan.students.target import parse_target, size_of


def validate_built(name, model):
    """Check that a model is a built `keras.Model`.

    Args:
        name: The argument's name.
        model: What was received.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(model, keras.Model) or not model.built:
        what = "that is not built" if isinstance(model, keras.Model) else type(model).__name__
        raise ValueError(
            f"Received a {name} {what}. Expected a built `keras.Model`. Call it on a batch, or "
            "begin it with an `Input`; a teacher must be trained as well."
        )


def validate_target(teacher, student, target, slim):
    """Check what says how small the student is to be.

    Args:
        teacher: The teacher.
        student: The user's student or `None`.
        target: As `slim_student` takes it, or `None`.
        slim: Further arguments of `slim_student`, or `None`.

    Raises:
        ValueError: If it says nothing, two things, or that nothing is to be made smaller.
    """
    if student is not None:
        validate_built("student", student)
        if target is not None or slim is not None:
            raise ValueError(
                f"Received target={target!r} and slim={slim!r} with a `student`. Expected None, "
                "because they say how `slim_student` makes one. Leave them out, or the student."
            )
        return
    inside = sorted({"target", "teacher"} & set(slim or {}))
    if inside:
        raise ValueError(
            f"Received {inside} in `slim`. Expected the other arguments of `slim_student`. Pass "
            "`target` and `teacher` to `compress` itself."
        )
    if (target is None) == ("width" not in (slim or {})):
        raise ValueError(
            f"Received target={target!r} and slim={slim!r}. Expected a `target`, such as "
            "{'macs': 0.05}, or a width in `slim`, such as {'width': 0.25}, and not both."
        )
    if target is None:
        return
    wanted = parse_target(target)
    whole = size_of(teacher, wanted.measure)
    if wanted.limit(whole) >= whole:
        raise ValueError(
            f"Received target={target!r} for the teacher '{teacher.name}', which has {whole:,} "
            f"{wanted.measure}. Expected less than that: nothing would be made smaller. Pass a "
            "share below 1.0, or a smaller number."
        )


def loss_and_metrics(teacher, loss, metrics):
    """The labelled loss and the metrics: as given, or else the teacher's own.

    Args:
        teacher: The teacher.
        loss: As `compile` takes it, or `None`.
        metrics: Likewise.

    Returns:
        A tuple of both.

    Raises:
        ValueError: If there is no loss.
    """
    is_compiled = bool(getattr(teacher, "compiled", False))
    if loss is None:
        loss = teacher.loss if is_compiled else None
    if loss is None:
        raise ValueError(
            "Received loss=None and a teacher that was compiled without one. Expected the loss "
            "that the student is trained with. Pass `loss=...` and `metrics=[...]`."
        )
    if metrics is None and is_compiled:
        config = teacher.get_compile_config() or {}
        metrics = keras.saving.deserialize_keras_object(config.get("metrics"))
    return loss, metrics
