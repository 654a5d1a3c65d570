"""Errors before the first step.

Each says what was received, what was expected, and how to fix it.
"""

import difflib

import keras

from keras_ktan.introspection.model_inputs import input_names
from keras_ktan.introspection.model_trace import layers_by_path
from keras_ktan.losses.feature import takes_position_weights
from keras_ktan.training.student_loss import has_own_compute_loss
from keras_ktan.utils.finite import first_nonfinite
from keras_ktan.utils.numbers import is_number, is_schedule


def validate_models(teacher, student):
    """Two built models without a shared weight, and a teacher whose weights are numbers."""
    for role, model in (("teacher", teacher), ("student", student)):
        if not isinstance(model, keras.Model):
            raise ValueError(
                f"Received {role}={model!r}. Expected a keras.Model. Pass the model itself, for "
                "example what `keras.saving.load_model` returned."
            )
        if not model.built:
            raise ValueError(
                f"The {role} '{model.name}' is not built, so it has no weights yet. Expected a "
                "built model. Call it once on a batch of inputs, or give it an `Input`."
            )
    if teacher is student:
        raise ValueError(
            f"Received one model, '{teacher.name}', as teacher and as student. Expected two. "
            "Make a smaller model for the student, or a copy with `keras.models.clone_model`."
        )
    shared = {id(v) for v in teacher.variables} & {id(v) for v in student.variables}
    if shared:
        names = [v.path for v in teacher.variables if id(v) in shared]
        raise ValueError(
            f"The teacher and the student share the weights {names[:5]}. Expected none shared, "
            "because the teacher must not change. Build the student from layers of its own."
        )
    stateful = [
        path for path, layer in layers_by_path(teacher).items() if getattr(layer, "stateful", False)
    ]
    if stateful:
        raise ValueError(
            f"The teacher's layers {stateful[:5]} are stateful: what they say of a batch depends "
            "on the batches before. Expected a teacher that does not change. Build it with "
            "stateful=False and copy its weights."
        )
    bad = first_nonfinite(teacher.variables)
    if bad is not None:
        raise ValueError(
            f"The teacher's weight '{bad.path}' holds NaN or infinite values. Expected a trained "
            "teacher. Load a good checkpoint before you distil."
        )


def validate_outputs(trace, role):
    """A model whose outputs can be found."""
    if not keras.tree.flatten(trace.outputs):
        raise ValueError(
            f"The {role} '{trace.model.name}' returned no output. Expected at least one tensor. "
            "Return one from its `call`."
        )


def validate_inputs(teacher_trace, student_trace):
    """One batch goes into both models; an input that only one takes has a name."""
    traces = (teacher_trace, student_trace)
    taken = [keras.tree.flatten(trace.inputs) for trace in traces]
    names = [input_names(trace.model) for trace in traces]
    are_dicts = all(isinstance(trace.inputs, dict) for trace in traces)
    by_name = are_dicts or len(taken[0]) != len(taken[1])
    if by_name and None not in names and set(names[0]) != set(names[1]):
        shared = [name for name in names[0] if name in names[1]]
        if shared:
            taken = [
                [tensors[own.index(name)] for name in shared]
                for own, tensors in zip(names, taken, strict=True)
            ]
        elif are_dicts:
            raise ValueError(
                f"The teacher takes inputs named {sorted(names[0])} and the student "
                f"{sorted(names[1])}. Expected names in common, because one batch goes into both "
                "and an input that only one model takes is passed to it by its name. Rename the "
                "inputs of one."
            )
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in taken]
    if len(shapes[0]) != len(shapes[1]) or any(
        len(one) != len(other)
        or any(a != b for a, b in zip(one, other, strict=True) if None not in (a, b))
        for one, other in zip(*shapes, strict=True)
    ):
        raise ValueError(
            f"The teacher takes inputs of shapes {shapes[0]} and the student {shapes[1]}. Expected "
            "the same, because one batch goes into both. Put the resizing inside a model; give an "
            "input that only one model takes a name of its own, and the others the same names in "
            "both."
        )


def validate_weights(weights):
    """Numbers of 0 or more, or schedules, and not all of them 0."""
    for term, weight in weights.items():
        if is_schedule(weight):
            continue
        if not is_number(weight) or weight < 0:
            raise ValueError(
                f"Received {term}_loss_weight={weight!r}. Expected a number of 0 or more, or a "
                "keras.optimizers.schedules.LearningRateSchedule. Use 0 to switch the term off."
            )
    if all(is_number(weight) and weight == 0 for weight in weights.values()):
        raise ValueError(
            "Received 0 for every loss weight. Expected at least one above 0, or there is nothing "
            "to learn. Set `student_loss_weight=1.0`, for example."
        )


def validate_argument_names(unknown, known):
    """No argument of `compile` that there is not."""
    if unknown:
        name = next(iter(unknown))
        nearest = difflib.get_close_matches(name, known, n=3) or list(known)
        raise ValueError(
            f"Received {name}={unknown[name]!r} in `compile`, which has no such argument. Expected "
            f"one of its own; the nearest are {nearest}. Write `{nearest[0]}=...`."
        )


def validate_loss_weights(loss_weights, outputs):
    """`loss_weights` is Keras's: of the student's outputs, and not of the distillation's terms."""
    if not isinstance(loss_weights, dict):
        return
    terms = {"student", "logits", "feature", "adversarial"}
    terms |= {f"{term}_loss" for term in terms}
    for name in sorted((terms - set(outputs)) & set(loss_weights)):
        argument = f"{name.removesuffix('_loss')}_loss_weight"
        raise ValueError(
            f"Received loss_weights={loss_weights!r}. Expected the names of the student's outputs, "
            "as in `keras.Model.compile`. The weight of a term of the distillation is an argument "
            f"of its own: write `{argument}={loss_weights[name]!r}`."
        )


def validate_targets(x, y):
    """Targets, where the loss or a metric wants them and the data has no place for them."""
    leaves = keras.tree.flatten(x)
    is_arrays = bool(leaves) and all(hasattr(leaf, "dtype") for leaf in leaves)
    if y is None and is_arrays:
        raise ValueError(
            "Received `fit(x)` without y, but `compile` was given a loss or metrics that compare "
            "the student's outputs with targets. Expected both. Pass `y`; to distil without "
            "targets compile with `student_loss_weight=0` and without metrics."
        )


def validate_student_loss(student, metrics, weighted_metrics, loss_weights):
    """`loss=None`: the student has a loss and metrics of its own."""
    has_own = has_own_compute_loss(student)
    if not has_own and type(student).train_step is not keras.Model.train_step:
        raise ValueError(
            f"Received loss=None, and the student '{student.name}' trains by a `train_step` of its "
            "own, which a distiller cannot run. Expected a student with `compute_loss`. Move its "
            "loss there, or pass `loss=...`."
        )
    if not student.compiled and not has_own:
        raise ValueError(
            f"Received loss=None, and the student '{student.name}' is not compiled and has no "
            "`compute_loss` of its own. Expected a loss from one of them. Pass `loss=...`, or "
            "compile the student first."
        )
    for name, value in {
        "metrics": metrics,
        "weighted_metrics": weighted_metrics,
        "loss_weights": loss_weights,
    }.items():
        if value is not None:
            raise ValueError(
                f"Received {name}={value!r} together with loss=None. With loss=None the student's "
                f"own loss and metrics are used. Expected no `{name}` here. Pass it to the "
                "student's `compile`, or pass `loss` as well."
            )


def validate_trainable(student):
    """Something to train."""
    if not student.trainable_variables:
        raise ValueError(
            f"The student '{student.name}' has no trainable weights. Expected at least one. Set "
            "`student.trainable = True` (or that of some of its layers) before `compile`."
        )


def validate_optimized_variables(variables, optimizer):
    """The student's trainable weights are those that `compile` made the optimizer for."""
    known = {id(variable) for variable in optimizer.split_variables()[0]}
    now = {id(variable) for variable in variables}
    if known == now:
        return
    names = [variable.path for variable in variables if id(variable) not in known]
    frozen = len(known - now)
    raise ValueError(
        f"The student's trainable weights have changed since `compile`: {len(names)} were unfrozen "
        f"{names[:3]} and {frozen} frozen. Expected the same, because the optimizer was made for "
        "those. Call `compile` again."
    )


def validate_terms(objectives, search_error):
    """Every term asked for can be computed with these models."""
    if objectives.is_active("logits") and not objectives.outputs:
        raise ValueError(
            "Received a logits_loss_weight that is not 0, but no output of the teacher is paired "
            "with one of the student. Expected a pair of outputs: single ones and those of the "
            "same key pair by themselves where `compile` is given a loss. Name them with "
            "`KTANDistiller(..., output_pairs=OutputPair(...))`, or set `logits_loss_weight=0`."
        )
    if objectives.uses_maps and not objectives.pairs:
        raise ValueError(
            f"{search_error} Or leave `feature_loss_weight` and `adversarial_loss_weight` out: "
            "without maps they are 0."
        )


def validate_position_weights(objectives):
    """Weights of positions mean nothing where positions are averaged first."""
    if objectives.uses_position_weights and not takes_position_weights(objectives.feature_loss):
        raise ValueError(
            f"Received feature_loss={objectives.feature_loss!r} and a FeaturePair with "
            "position_weights. Expected a named feature loss that compares position by position. "
            "Use 'cosine'."
        )


def validate_t2s_objectives(objectives):
    """An objective of T2S must have a loss to compute."""
    head = objectives.head_output
    for pair in objectives.pairs:
        if pair.objective.name == "student_head" and not (
            objectives.uses_student_loss or objectives.outputs
        ):
            raise ValueError(
                "Received objective='student_head' of T2S with student_loss_weight=0 for models "
                "without paired outputs. Expected targets or outputs that the student's head can "
                "be compared with. Use objective='reconstruction'."
            )
        if pair.teacher_to_student.objective != "task":
            continue
        if head is None or head.size != pair.objective.classes:
            raise ValueError(
                "Received objective='task' for a TeacherToStudent, but `compile` found no paired "
                f"output of {pair.objective.classes} classes that the linear head can learn. "
                "Expected one of rank 2 whose kind is known. Name it with "
                "`output_pairs=OutputPair(..., kind='softmax')`, or use "
                "objective='reconstruction'."
            )


def validate_cached_steps(steps_per_epoch):
    """Refuse `steps_per_epoch` beside the data set of a cache.

    Args:
        steps_per_epoch: What `fit` was given.

    Raises:
        ValueError: If it is not `None`.
    """
    if steps_per_epoch is not None:
        raise ValueError(
            f"Received steps_per_epoch={steps_per_epoch} with a data set of a TeacherCache. "
            "Expected None, because it draws a new order for each pass over the images. Leave it "
            "out, and use fewer or more `epochs`."
        )
