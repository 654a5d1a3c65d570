"""How many channels of each kind a student keeps."""

import dataclasses
import fnmatch
import math

from keras_ktan.students.channels import smallest_step

DEFAULT_DIVISOR = 8


@dataclasses.dataclass(frozen=True)
class WidthPlan:
    """The factor of each part of a teacher, and what the widths are rounded to.

    Args:
        width: A factor, or a dict from patterns of paths to factors.
        divisor: What the widths are multiples of; `None` for 8 where the teacher's are.
    """

    width: float | dict
    divisor: int | None

    def scaled(self, factor):
        """The plan with another factor for all layers."""
        return dataclasses.replace(self, width=factor)

    def counts(self, spaces):
        """How many decisions of each space stay.

        Args:
            spaces: List of `Space`.

        Returns:
            A list of integers.

        Raises:
            ValueError: If a pattern matches nothing, or tied layers have unlike factors.
        """
        if isinstance(self.width, dict):
            self._validate_patterns(spaces)
        return [self._count(space) for space in spaces]

    def _count(self, space):
        size, factor = len(space.ids), self._factor(space)
        if factor == 1:
            return size
        step = smallest_step(self._divisor(space), space.channels_per_decision)
        wanted = math.floor(size * factor / step + 0.5) * step
        return min(size, max(step, wanted))

    def _divisor(self, space):
        if self.divisor is not None:
            return self.divisor
        widths = [len(space.ids) * count for count in space.channels_per_decision]
        return DEFAULT_DIVISOR if all(w % DEFAULT_DIVISOR == 0 for w in widths) else 1

    def _factor(self, space):
        if not isinstance(self.width, dict):
            return self.width
        factors = {}
        for path in space.paths:
            pattern = self._pattern(path)
            if pattern is not None:
                factors.setdefault(self.width[pattern], path)
        if len(factors) > 1:
            (one, first), (other, second) = list(factors.items())[:2]
            raise ValueError(
                f"`width` gives '{first}' the factor {one} and '{second}' the factor {other}, "
                "but the channels of these layers meet in a sum or a shared layer and have to be "
                "equally many. Expected one factor for both. Change the patterns, or order them "
                "so that the same one comes first for both."
            )
        return next(iter(factors), 1.0)

    def _pattern(self, path):
        for pattern in self.width:
            if fnmatch.fnmatchcase(path, pattern):
                return pattern
        return None

    def _validate_patterns(self, spaces):
        paths = dict.fromkeys(path for space in spaces for path in space.paths)
        used = {self._pattern(path) for path in paths}
        for pattern in self.width:
            if pattern not in used:
                raise ValueError(
                    f"The pattern '{pattern}' of `width` decides about no layer whose channels "
                    f"can be fewer. Expected patterns for some of {list(paths)[:10]}..., of which "
                    "the first that matches counts. Correct or remove the pattern."
                )


def validate_width(width):
    """Check a factor or a dict of factors.

    Args:
        width: What the caller gave.

    Raises:
        ValueError: If it is not a number above 0 and up to 1, or a dict of such.
    """
    factors = width.values() if isinstance(width, dict) else [width]
    if isinstance(width, dict) and not width:
        raise ValueError(
            "`width` is an empty dict. Expected patterns of paths with their factors, such as "
            "{'stage_2*': 0.5, '*': 0.25}, or one factor for all layers."
        )
    for factor in factors:
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor <= 1:
            raise ValueError(
                f"`width` contains {factor!r}. Expected numbers above 0 and up to 1: the share of "
                "the teacher's channels that the student keeps. Pass 0.25 for a quarter."
            )


def validate_divisor(divisor):
    """Check a divisor.

    Args:
        divisor: What the caller gave.

    Raises:
        ValueError: If it is neither `None` nor a whole number of at least 1.
    """
    if divisor is None:
        return
    if isinstance(divisor, bool) or not isinstance(divisor, int) or divisor < 1:
        raise ValueError(
            f"`divisor={divisor!r}`. Expected a whole number of at least 1, or `None` for 8 "
            "where the teacher's widths are multiples of 8. Pass 1 to allow every width."
        )
