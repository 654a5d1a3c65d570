"""The one way to check a number that a user passes."""

import math
import numbers

import keras


def is_number(value):
    """Whether a value is a finite real number; NumPy's count, booleans do not."""
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(float(value))
    )


def is_schedule(value):
    """Whether a value is a number that follows from the step."""
    return isinstance(value, keras.optimizers.schedules.LearningRateSchedule)


def is_active(weight):
    """Whether a term with this weight is computed at all: it is not the number 0."""
    return is_schedule(weight) or weight != 0


def validate_number(name, value, *, at_least=None, above=None, at_most=None, where="", remedy):
    """Check that a value is a finite number within bounds.

    Args:
        name: The argument's name.
        value: What was received. A `bool` is no number; a NumPy scalar is one.
        at_least: The smallest number allowed, or `None`.
        above: A number that must be exceeded, or `None`.
        at_most: The largest number allowed, or `None`.
        where: What the argument belongs to, such as `" in a FeaturePair"`.
        remedy: A sentence that says how to fix it.

    Returns:
        The value as a `float`.

    Raises:
        ValueError: If it is not.
    """
    if is_number(value) and _is_within(value, at_least, above, at_most):
        return float(value)
    expected = f"a number {_bounds(at_least, above, at_most)}".rstrip()
    raise ValueError(f"Received {name}={value!r}{where}. Expected {expected}. {remedy}")


def validate_integer(name, value, *, at_least, where="", remedy=None):
    """Check that a value is a whole number of at least a given size.

    Args:
        name: The argument's name.
        value: What was received. A `bool` is no number; a NumPy integer is one.
        at_least: The smallest number allowed.
        where: What the argument belongs to, such as `" for the discriminator"`.
        remedy: A sentence that says how to fix it; `None`: an example.

    Returns:
        The value as an `int`.

    Raises:
        ValueError: If it is not.
    """
    if (
        isinstance(value, numbers.Integral)
        and not isinstance(value, bool)
        and int(value) >= at_least
    ):
        return int(value)
    remedy = remedy or f"Write `{name}={max(at_least, 1)}`, for example."
    raise ValueError(
        f"Received {name}={value!r}{where}. Expected a whole number of {at_least} or more. {remedy}"
    )


def validate_flag(name, value):
    """Check that a value is a truth value.

    Args:
        name: The argument's name.
        value: What was received.

    Returns:
        The value.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(value, bool):
        raise ValueError(
            f"Received {name}={value!r}. Expected True or False. Write `{name}=False`, for example."
        )
    return value


def validate_choice(name, value, choices):
    """Check that a value is one of a few words.

    Args:
        name: The argument's name.
        value: What was received.
        choices: The words allowed.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(
            f"Received {name}={value!r}. Expected one of {sorted(choices)}. "
            f"Write `{name}={sorted(choices)[0]!r}`, for example."
        )


def _is_within(value, at_least, above, at_most):
    return (
        (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (at_most is None or value <= at_most)
    )


def _bounds(at_least, above, at_most):
    bounds = []
    if at_least is not None:
        bounds.append(f"of {at_least:g} or more")
    if above is not None:
        bounds.append(f"above {above:g}")
    if at_most is not None:
        bounds.append(f"up to {at_most:g}")
    return " and ".join(bounds)
