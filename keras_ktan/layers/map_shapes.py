"""The forms in which maps of unlike ranks meet: a grid of tokens, or one pooled vector."""

import math

from keras import ops

from keras_ktan.losses.feature import mean_over_positions

# Before the patches of an image: none, a class token (ViT), one more to distil (DeiT), four
# registers, or these and a class token (DINOv2).
_EXTRA_TOKENS = (0, 1, 2, 4, 5)


class MapForm:
    """What becomes of one model's map before it meets the other's.

    Args:
        shape: Shape of the map, batch axis first.
        grid: Lengths that its tokens are folded to; `None`: it is not folded.
        extra_tokens: How many tokens stand before those of the grid.
        pooled: Whether it is averaged over its positions.
    """

    def __init__(self, shape, grid=None, extra_tokens=0, pooled=False):
        self.grid, self.extra_tokens, self.pooled = grid, extra_tokens, pooled
        if pooled:
            shape = (shape[0], shape[-1])
        elif grid is not None:
            shape = (shape[0], *grid, shape[-1])
        self.shape = tuple(shape)

    @property
    def changes(self):
        """Whether the map meets the other in another form than it has."""
        return self.pooled or self.grid is not None

    def apply(self, features, mask=None):
        """The map in this form.

        Args:
            features: Tensor `(batch, positions..., channels)`; one in this form already stays.
            mask: Boolean tensor `(batch, positions...)`: what is no padding; or `None`.

        Returns:
            A tuple of the map and its mask.
        """
        if not self.changes or len(features.shape) == len(self.shape):
            return features, mask
        if self.pooled:
            return mean_over_positions(features, mask), None
        features = ops.reshape(
            features[:, self.extra_tokens :], (-1, *self.grid, features.shape[-1])
        )
        if mask is not None:
            mask = ops.reshape(mask[:, self.extra_tokens :], (-1, *self.grid))
        return features, mask

    def describe(self):
        """A few words for `summary()`; empty where the map stays as it is."""
        if self.pooled:
            return " pooled"
        if self.grid is None:
            return ""
        behind = f" behind {self.extra_tokens} more" if self.extra_tokens else ""
        return f" as {'×'.join(map(str, self.grid))} tokens{behind}"


def meeting_forms(teacher_shape, student_shape):
    """In which forms two maps meet.

    Maps of one rank meet as they are. Tokens are folded to a grid where the other map is an
    image's: their number, less some class or register tokens in front, must be a grid of the
    image's proportions (a square where these are not known). Where one map is a vector, the other
    is averaged over its positions. Which tokens are extra is our choice: as few as possible.

    Args:
        teacher_shape: Shape of the teacher's map, batch axis first.
        student_shape: Shape of the student's map, batch axis first.

    Returns:
        A tuple of two `MapForm`, the teacher's and the student's; their shapes have one rank.

    Raises:
        ValueError: If the maps cannot meet.
    """
    shapes = (tuple(teacher_shape), tuple(student_shape))
    ranks = [len(shape) for shape in shapes]
    if not all(2 <= rank <= 5 for rank in ranks):
        raise _cannot_meet(shapes, "Expected ranks from 2 to 5")
    if ranks[0] == ranks[1]:
        return MapForm(shapes[0]), MapForm(shapes[1])
    if 2 in ranks:
        return tuple(MapForm(shape, pooled=len(shape) > 2) for shape in shapes)
    if sorted(ranks) != [3, 4]:
        raise _cannot_meet(shapes, "Expected one rank, tokens and an image's map, or a vector")
    tokens = shapes[ranks.index(3)]
    grid = find_grid(tokens[1], shapes[ranks.index(4)][1:-1])
    if grid is None:
        raise _cannot_meet(
            shapes,
            "Expected a number of tokens that is a grid of the image's proportions, or one with "
            f"{', '.join(map(str, _EXTRA_TOKENS[1:]))} tokens before it, as 197 is 1 + 14×14",
        )
    extra_tokens, lengths = grid
    return tuple(
        MapForm(shape, lengths, extra_tokens) if len(shape) == 3 else MapForm(shape)
        for shape in shapes
    )


def find_grid(count, positions):
    """The grid that a number of tokens stands for.

    Args:
        count: Number of tokens; `None` where it is not known.
        positions: Height and width of the map that it meets; either may be `None`.

    Returns:
        A tuple of the number of tokens before the grid and its `(height, width)`; `None` where
        there is no such grid.
    """
    if count is None:
        return None
    height, width = (1, 1) if None in positions else positions
    divisor = math.gcd(height, width)
    height, width = height // divisor, width // divisor
    for extra_tokens in _EXTRA_TOKENS:
        times = math.isqrt(max(count - extra_tokens, 0) // (height * width))
        found = (times * height, times * width)
        if math.prod(found) == count - extra_tokens and math.prod(found) > 1:
            return extra_tokens, found
    return None


def _cannot_meet(shapes, expected):
    return ValueError(
        f"Received a teacher's map of shape {shapes[0]} and a student's map of shape {shapes[1]}. "
        f"{expected}. Name layers whose outputs have the same rank, or add a Reshape layer to one."
    )
