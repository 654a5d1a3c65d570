"""Which outputs of two models pair, and of what kind each pair is once there is a loss."""

from keras_ktan.introspection.output_probe import probe_outputs
from keras_ktan.introspection.outputs import OutputForm, output_keys, select, validated_key
from keras_ktan.training.connected_output import ConnectedOutput
from keras_ktan.training.loss_kinds import loss_kind, loss_of_output
from keras_ktan.training.output_kinds import holds_probabilities, inferred_kind, settle_kind
from keras_ktan.training.student_loss import has_own_compute_loss
from keras_ktan.utils.numbers import is_active


class OutputCandidate:
    """Two outputs that may be distilled, before their kind is known.

    Args:
        pair: The `OutputPair`.
        teacher_trace: `ModelTrace` of the teacher.
        student_trace: `ModelTrace` of the student.

    Raises:
        ValueError: If a key is wrong.
    """

    def __init__(self, pair, teacher_trace, student_trace):
        self.kind, self.weight = pair.kind, pair.weight
        student_key = pair.student_output
        if student_key is None and output_keys(student_trace.outputs) != [None]:
            student_key = pair.teacher_output
        self.teacher_key = validated_key(
            teacher_trace.outputs,
            pair.teacher_output,
            _what("teacher", teacher_trace),
            "teacher_output",
        )
        self.student_key = validated_key(
            student_trace.outputs, student_key, _what("student", student_trace), "student_output"
        )
        shapes = [
            tuple(select(trace.outputs, key).shape)
            for trace, key in ((teacher_trace, self.teacher_key), (student_trace, self.student_key))
        ]
        self.shapes = shapes
        self.rank = len(shapes[1])
        self.size = shapes[1][-1] if self.rank > 1 else None
        self.name = _name(self.teacher_key, self.student_key)
        self.unlike_grids = _unlike_grids(*shapes)
        self.problem = self.unlike_grids or _unlike_classes(*shapes)

    def key(self, role):
        """The key of the teacher's or of the student's output."""
        return self.teacher_key if role == "teacher" else self.student_key

    def arguments(self):
        """The pair's first arguments, as code."""
        keys = (self.teacher_key, self.student_key)
        return "".join(f"{key!r}, " for key in keys) if any(k is not None for k in keys) else ""


def _what(role, trace):
    return f"{role} '{trace.model.name}'"


def _name(teacher_key, student_key):
    if teacher_key == student_key:
        return "the single output" if teacher_key is None else f"the output {teacher_key!r}"
    keys = ["its single output" if key is None else repr(key) for key in (teacher_key, student_key)]
    return f"the pair of the teacher's {keys[0]} and the student's {keys[1]}"


def _unlike_grids(teacher, student):
    if len(teacher) != len(student):
        return None
    if all(a == b for a, b in zip(teacher[1:-1], student[1:-1], strict=True) if None not in (a, b)):
        return None
    return (
        f"The teacher's output has shape {teacher} and the student's {student}. Expected the same "
        "positions, because each is distilled by itself. Resize one of them inside its model (for "
        "example with `keras.layers.Resizing` or `UpSampling2D`), or leave the output out: "
        "`output_pairs=[]`."
    )


def _unlike_classes(teacher, student):
    if len(teacher) != len(student):
        return (
            f"The teacher's output has shape {teacher} and the student's {student}. Expected the "
            "same rank. Name outputs that mean the same with `output_pairs=OutputPair(...)`, or "
            "leave them out: `output_pairs=[]`."
        )
    if len(teacher) > 1 and teacher[-1] != student[-1]:
        return (
            f"The teacher scores {teacher[-1]} classes and the student {student[-1]}. Expected the "
            "same classes in the same order. Give the student as many outputs as the teacher has, "
            "or set `logits_loss_weight=0`."
        )
    return None


class OutputPairing:
    """Two models' outputs that may be distilled.

    Args:
        teacher_trace: `ModelTrace` of the teacher.
        student_trace: `ModelTrace` of the student.
        output_pairs: List of `OutputPair`; `None`: single outputs, and those of the same key.
        default_pair: Function from two keys to an `OutputPair`, for `output_pairs=None`.

    Raises:
        ValueError: If a pair names an output that is not there, or if outputs have unlike grids.
    """

    def __init__(self, teacher_trace, student_trace, output_pairs, default_pair):
        self.named = output_pairs is not None
        self._traces = {"teacher": teacher_trace, "student": student_trace}
        self._output_names = list(getattr(student_trace.model, "output_names", ()))
        pairs = output_pairs
        if not self.named:
            pairs = [default_pair(*keys) for keys in _default_keys(*self._traces.values())]
        candidates = [OutputCandidate(pair, teacher_trace, student_trace) for pair in pairs]
        self.left_out = []
        for candidate in candidates:
            if candidate.unlike_grids and (self.named or len(candidates) == 1):
                raise ValueError(candidate.unlike_grids)
        if not self.named and len(candidates) > 1:
            unfit = [candidate for candidate in candidates if candidate.problem]
            self.left_out += [f"{candidate.name} ({candidate.problem})" for candidate in unfit]
            candidates = [candidate for candidate in candidates if not candidate.problem]
        self.candidates = candidates
        if output_pairs != []:
            self.left_out += self._without_partner(candidates)
        self.connected = None  # until `settle`
        self._unnamed = []

    @property
    def head_units(self):
        """Size of the first output of rank 2, for a linear head; `None` where there is none."""
        return next((c.size for c in self.candidates if c.rank == 2 and not c.problem), None)

    @property
    def student_names(self):
        """What `compile` may call the student's outputs."""
        return [*output_keys(self._traces["student"].outputs), *self._output_names]

    def _without_partner(self, candidates):
        lines = []
        for role, trace in self._traces.items():
            taken = [getattr(candidate, f"{role}_key") for candidate in candidates]
            positions = output_keys(trace.outputs)
            taken = [positions[key] if isinstance(key, int) else key for key in taken]
            free = [key for key in positions if key not in taken]
            said = "single output" if free == [None] else ", ".join(map(repr, free))
            lines += [f"the {role}'s {said}"] if free else []
        return lines

    def may_pair(self, loss):
        """Whether any outputs pair: with `loss=None` only those that were named."""
        return bool(self.candidates) and (self.named or loss is not None)

    def settle(self, loss, weights):
        """Find out the kind of each pair.

        Args:
            loss: The `loss` argument of `compile`; `None`: what the student was compiled with says
                the kinds.
            weights: Dict from terms to their weights.

        Returns:
            A list of `ConnectedOutput`; empty where no term looks at the teacher.

        Raises:
            ValueError: If a pair cannot be distilled and the logits loss is active. For the other
                terms, which may do without, such a pair is left out.
        """
        self.connected = []
        self._unnamed = [] if self.may_pair(loss) else [c.name for c in self.candidates]
        strict = is_active(weights["logits"])
        needed = strict or is_active(weights["feature"]) or is_active(weights["adversarial"])
        candidates = self.candidates if needed and self.may_pair(loss) else []
        values = self._probe(candidates)
        student = self._traces["student"].model
        if loss is None and not has_own_compute_loss(student):
            loss = getattr(student, "loss", None)  # what the student was compiled with
        for candidate in candidates:
            try:
                connected = self._connect(candidate, values, loss)
            except ValueError:
                if strict:
                    raise
                continue
            if connected is not None:
                self.connected.append(connected)
        return self.connected

    def _probe(self, candidates):
        if all(candidate.kind == "regression" for candidate in candidates):
            return dict.fromkeys(self._traces)
        return {role: probe_outputs(trace)[0] for role, trace in self._traces.items()}

    def _connect(self, candidate, values, loss):
        if candidate.problem:
            raise ValueError(candidate.problem)
        no_probabilities = dict.fromkeys(self._traces, False)
        if candidate.kind == "regression":
            return ConnectedOutput(candidate, "regression", no_probabilities)
        forms = {
            role: OutputForm(
                trace,
                candidate.key(role),
                None if values[role] is None else select(values[role], candidate.key(role)),
            )
            for role, trace in self._traces.items()
        }
        outputs = self._traces["student"].outputs
        loss = loss_kind(loss_of_output(loss, outputs, candidate.student_key, self._output_names))
        both = forms["teacher"], forms["student"]
        may_leave_out = not self.named and len(self.candidates) > 1
        if loss is None and may_leave_out and inferred_kind(*both, loss) is None:
            self._unnamed.append(f"{candidate.name} (it has no loss, which would say its kind)")
            return None
        kind = settle_kind(candidate.kind, *both, loss, candidate.name, candidate.arguments())
        if kind == "regression":
            return ConnectedOutput(candidate, kind, no_probabilities)
        _validate_classes(kind, candidate, loss)
        _validate_probed_grids(candidate, forms)
        probabilities = {
            role: holds_probabilities(kind, role, form, loss, candidate.name)
            for role, form in forms.items()
        }
        return ConnectedOutput(candidate, kind, probabilities)

    def left_out_unnamed(self):
        """Outputs that are not distilled, where nobody named any pair."""
        return [] if self.named else [*self._unnamed, *self.left_out]

    def describe(self):
        """Lines for `summary()`."""
        if self.connected is None:
            lines = [
                f"{candidate.name} {candidate.shapes[0]} -> {candidate.shapes[1]}, kind "
                f"{candidate.kind}"
                + (f", not usable: {candidate.problem}" if candidate.problem else "")
                for candidate in self.candidates
            ]
        else:
            lines = [output.describe() for output in self.connected]
        lines = [f"  output pair {line}" for line in lines] or ["  output pairs: none"]
        return lines + [f"  left out: {line}" for line in [*self._unnamed, *self.left_out]]


def _default_keys(teacher_trace, student_trace):
    teacher, student = (output_keys(trace.outputs) for trace in (teacher_trace, student_trace))
    if teacher == [None] or student == [None]:
        if len(teacher) == len(student) == 1:
            return [(teacher[0], student[0])]
        return []
    return [
        (key, key)
        for key in student
        if key in teacher
        and all(hasattr(trace.outputs[key], "shape") for trace in (teacher_trace, student_trace))
    ]


def _validate_classes(kind, candidate, loss):
    axis = loss.axis if loss is not None and kind == loss.family == "softmax" else -1
    if axis not in (-1, candidate.rank - 1):
        raise ValueError(
            f"Received loss={loss.name!r} with the classes of {candidate.name} on axis {axis} of "
            f"its shape {candidate.shapes[1]}. Expected them on the last axis, because every "
            "position is distilled by itself. Move them there in both models, for example with "
            "`keras.layers.Permute`, and leave `axis` out."
        )
    if candidate.rank == 1:
        raise ValueError(
            f"Received kind={kind!r} for {candidate.name} of shape {candidate.shapes[1]}. Expected "
            "classes on the last axis. Write `kind='regression'`, or keep the axis of the single "
            "score: (batch, 1)."
        )
    if kind == "softmax" and candidate.size == 1:
        raise ValueError(
            f"Received models with a single class score for {candidate.name}, kind 'softmax'. A "
            "softmax over one class is always 1. Expected two or more classes, or kind='sigmoid' "
            "and a binary loss for a yes or no, or kind='regression' for a number."
        )


def _validate_probed_grids(candidate, forms):
    """Sizes that the models leave open show when they run."""
    # Not the batch: one model may have been shown more inputs than the other.
    shapes = [(None, *f.values.shape[1:]) for f in forms.values() if f.values is not None]
    if len(shapes) == 2 and shapes[0] != shapes[1]:
        raise ValueError(_unlike_grids(*shapes) or _unlike_classes(*shapes))
