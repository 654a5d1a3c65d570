"""What KerasTuner may vary in a KTAN training, and within what bounds."""

import difflib
import math

from keras_ktan.layers.teacher_to_student import T2S_OBJECTIVES
from keras_ktan.losses import ADVERSARIAL_LOSSES, FEATURE_LOSSES
from keras_ktan.utils.numbers import is_number, validate_choice

RAMPS = ("constant", "falling", "off")
# The three terms whose weight may also fall to 0 or be left out.
DISTILLATION_TERMS = ("logits", "feature", "adversarial")

# A range reaches as far below as above KTANDistiller's default, by the same factor.
DEFAULTS = {
    "student_loss_weight": (0.1, 10.0),
    "logits_loss_weight": (0.1, 10.0),
    "feature_loss_weight": (0.1, 10.0),
    "adversarial_loss_weight": (0.002, 0.2),
    "logits_loss_ramp": list(RAMPS),
    "feature_loss_ramp": list(RAMPS),
    "adversarial_loss_ramp": list(RAMPS),
    "temperature": (2.0, 8.0),
    "t2s_objective": [name for name in T2S_OBJECTIVES if name not in ("auto", None)],
    "feature_loss": list(FEATURE_LOSSES),
    "adversarial_loss": list(ADVERSARIAL_LOSSES),
    "discriminator_filters": [8, 16, 32],
    "discriminator_noise": (0.5, 8.0),
}
_WORDS = {
    "t2s_objective": [name for name in T2S_OBJECTIVES if name is not None],
    "feature_loss": list(FEATURE_LOSSES),
    "adversarial_loss": list(ADVERSARIAL_LOSSES),
    **{f"{term}_loss_ramp": list(RAMPS) for term in DISTILLATION_TERMS},
}


class SearchSpace:
    """The bounds of a search, checked, and how a trial draws from them.

    Args:
        narrowed: Dict from a name in `DEFAULTS` to a single value (fixed), a list (one of
            these), or, for numbers, a tuple `(low, high)` (between these, on a log scale).

    Raises:
        ValueError: If a name or a bound is wrong.
    """

    def __init__(self, narrowed=None):
        narrowed = dict(narrowed or {})
        for name in narrowed:
            if name not in DEFAULTS:
                near = difflib.get_close_matches(name, DEFAULTS, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(
                    f"Received search_space with {name!r}. Expected names among "
                    f"{sorted(DEFAULTS)}.{hint} What is not searched goes into "
                    "`compile_arguments`."
                )
        self._bounds = {
            name: _checked(name, narrowed.get(name, default)) for name, default in DEFAULTS.items()
        }

    def choices(self, name):
        """Every value that a hyperparameter of words may take."""
        bounds = self._bounds[name]
        return bounds if isinstance(bounds, list) else [bounds]

    def draw(self, hp):
        """The values of one trial.

        What belongs to one term and is of no use while that is off is inactive: no tuner spends
        trials on it. T2S's objective and the temperature serve several terms and are always drawn.

        Args:
            hp: A `keras_tuner.HyperParameters`.

        Returns:
            Dict from the names in `DEFAULTS` to values; `None` where inactive.

        Raises:
            ValueError: If a value lies outside of the bounds: the search was begun with others.
        """
        drawn = {name: self._draw(hp, name) for name in self._bounds if _term(name) is None}
        for term in DISTILLATION_TERMS:
            ramp = f"{term}_loss_ramp"
            drawn[ramp] = self._draw(hp, ramp)
            belongings = [name for name in self._bounds if _term(name) == term and name != ramp]
            on = [choice for choice in self.choices(ramp) if choice != "off"]
            if not on:
                # A condition that can never hold: KerasTuner would force it once.
                drawn.update(dict.fromkeys(belongings))
                continue
            with hp.conditional_scope(ramp, on):
                drawn.update({name: self._draw(hp, name) for name in belongings})
        return drawn

    def _draw(self, hp, name):
        bounds = self._bounds[name]
        if isinstance(bounds, tuple):
            low, high = bounds
            middle = math.sqrt(low * high)
            value = hp.Float(name, low, high, sampling="log", default=middle)
            inside = value is None or low <= value <= high
        elif isinstance(bounds, list):
            value = hp.Choice(name, bounds)
            inside = value is None or value in bounds
        else:
            value = hp.Fixed(name, bounds)
            inside = value is None or value == bounds
        if not inside:
            raise ValueError(
                f"Received {name}={value!r} from the tuner, where search_space says {bounds!r}. "
                "Expected the space that the search in this directory was begun with. Go on with "
                "that one, or begin anew with another `project_name` or `overwrite=True`."
            )
        return value


def _term(name):
    """The term that a hyperparameter is of no use without."""
    if name.startswith(("adversarial_", "discriminator_")):
        return "adversarial"
    if name.startswith("feature_"):
        return "feature"
    return "logits" if name.startswith("logits_") else None


def _checked(name, bounds):
    if isinstance(bounds, tuple) and name not in _WORDS and name != "discriminator_filters":
        if len(bounds) != 2 or not all(_is_positive(name, value) for value in bounds):
            raise _wrong(name, bounds, "a tuple of two numbers above 0")
        low, high = map(float, bounds)
        if not low < high:
            raise _wrong(name, bounds, "a lower bound below the upper one")
        return low, high
    if isinstance(bounds, (list, tuple)):
        if not bounds:
            raise _wrong(name, bounds, "at least one value")
        values = [_checked_value(name, value) for value in bounds]
        return values if len(values) > 1 else values[0]
    return _checked_value(name, bounds)


def _checked_value(name, value):
    if name in _WORDS:
        validate_choice(f"search_space[{name!r}]", value, _WORDS[name])
        return value
    if name == "discriminator_filters":
        if not is_number(value) or value != int(value) or value < 1:
            raise _wrong(name, value, "whole numbers of 1 or more")
        return int(value)
    if not _is_positive(name, value) and value != 0:
        raise _wrong(name, value, "a number, a list of numbers or a tuple of two")
    if value == 0 and name == "temperature":
        raise _wrong(name, value, "numbers above 0")
    return float(value)


def _is_positive(name, value):
    if is_number(value):
        return value > 0
    raise _wrong(name, value, "a number, a list of numbers or a tuple of two")


def _wrong(name, value, expected):
    default = DEFAULTS[name]
    return ValueError(
        f"Received search_space[{name!r}]={value!r}. Expected {expected}. "
        f"Leave it out for {default!r}, fix it with one value, or narrow it with a list"
        + (" or a range `(low, high)`." if isinstance(default, tuple) else ".")
    )
