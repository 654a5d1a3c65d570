"""Find the width that makes a student of a wanted size."""

import dataclasses

# Widths are told apart down to a thousandth: less changes no channel of a usual model.
_STEPS = 10


@dataclasses.dataclass(frozen=True)
class SizeTarget:
    """A size that a student is to have at most.

    Args:
        measure: `"macs"` or `"parameters"`.
        wanted: A share of the teacher's (a float up to 1) or a whole number.
    """

    measure: str
    wanted: float | int

    def limit(self, teacher_size):
        """The number that must not be exceeded."""
        if isinstance(self.wanted, float):
            return self.wanted * teacher_size
        return self.wanted


def parse_target(target):
    """Check a target.

    Args:
        target: A dict such as `{"macs": 0.25}`.

    Returns:
        A `SizeTarget`.

    Raises:
        ValueError: If it says something else.
    """
    right_form = isinstance(target, dict) and len(target) == 1
    measure, wanted = next(iter(target.items())) if right_form else (None, None)
    share = isinstance(wanted, float) and 0 < wanted <= 1
    number = isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 1
    if measure not in ("macs", "parameters") or not (share or number):
        raise ValueError(
            f"`target={target!r}`. Expected a dict with one entry, 'macs' or 'parameters', that "
            "is a share of the teacher's (a float up to 1.0) or a whole number. Pass, for "
            "example, {'macs': 0.25} or {'parameters': 100_000}."
        )
    return SizeTarget(measure, wanted)


def size_of(model, measure):
    """The size of a model.

    Args:
        model: A built model.
        measure: `"macs"` or `"parameters"`.

    Returns:
        A whole number.

    Raises:
        ValueError: If an axis of the model's input is open, or if it multiplies in a layer that is
            not counted, so that its MACs are not known.
    """
    # Only a target needs the report and the tracing of models that it is made from.
    from keras_ktan.report import measure_size

    size = measure_size(model)
    if measure == "macs" and size.macs is None:
        raise ValueError(
            f"The MACs of '{model.name}' cannot be counted, because an axis of its input is "
            "open (`None`). Expected fixed sizes. Pass `target={'parameters': ...}`, or a teacher "
            "with a fixed input shape."
        )
    if measure == "macs" and size.uncounted_layers:
        raise ValueError(
            f"The MACs of '{model.name}' cannot be counted in {', '.join(size.uncounted_layers)}. "
            "Expected layers of the kinds that `compression_report` counts. Pass "
            "`target={'parameters': ...}`, or a `width`."
        )
    return getattr(size, measure)


def largest_student(teacher, target, make):
    """The widest student that is not above a target.

    The width is found by bisection, and the numbers are those of students that are built.

    Args:
        teacher: The teacher.
        target: A `SizeTarget`.
        make: Function from a width to a pair: a tuple that tells students apart, and a function
            without arguments that builds one.

    Returns:
        A tuple of the width and the student's size.

    Raises:
        ValueError: If the narrowest student is above the target.
    """
    measured = {}

    def size(width):
        key, build = make(width)
        if key not in measured:
            measured[key] = size_of(build(), target.measure)
        return measured[key]

    whole = size_of(teacher, target.measure)
    limit = target.limit(whole)
    if whole <= limit:
        return 1.0, whole
    low, high = 2.0**-_STEPS, 1.0
    least = size(low)
    if least > limit:
        raise ValueError(
            f"`target` asks for at most {limit:,.0f} {target.measure}, but the narrowest student "
            f"of '{teacher.name}' has {least:,}, since every width is at least the divisor and "
            "inputs and outputs stay. Expected a target that can be reached. Pass a larger one, "
            "`divisor=1`, or write a smaller student of your own."
        )
    best = low, least
    for _ in range(_STEPS):
        width = (low + high) / 2
        found = size(width)
        if found <= limit:
            low, best = width, (width, found)
        else:
            high = width
    return best
