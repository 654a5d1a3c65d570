"""Which channels of a model are kept or dropped together."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Channels:
    """What one tensor of the teacher is made of.

    Args:
        shape: The tensor's shape, the batch first; `None` where a size is open.
        axis: The axis along which the tensor may become narrower; `None` where there is none.
        ids: The decision that each entry of that axis depends on.
    """

    shape: tuple
    axis: int | None = None
    ids: np.ndarray | None = None

    @property
    def rank(self):
        return len(self.shape)

    def along(self, axis):
        """Whether the tensor may become narrower along `axis` (which may be negative)."""
        return self.axis is not None and axis % self.rank == self.axis


@dataclasses.dataclass(frozen=True)
class Block:
    """Channels that one layer makes, such as a convolution's filters.

    Args:
        path: The layer's path.
        ids: The decision of each channel.
    """

    path: str
    ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Space:
    """Decisions among which a choice is made: they belong to the same blocks.

    Args:
        ids: The decisions, in the order of their channels.
        paths: The paths of the layers whose channels depend on them.
        channels_per_decision: For each of these layers, how many channels one decision stands
            for: more than one where the groups of a convolution stay whole.
    """

    ids: np.ndarray
    paths: tuple
    channels_per_decision: tuple


class Decisions:
    """Keep or drop, one decision for all channels that must agree.

    Every channel that a layer makes begins with a decision of its own. Where tensors are added,
    the decisions of their channels become one (`tie`); where all channels must stay, as in a
    model's outputs, they are marked so (`keep_all`). It is a union-find structure.
    """

    def __init__(self):
        self.blocks = []
        self._parents = []
        self._kept = set()

    def new(self, size):
        """`size` new decisions."""
        first = len(self._parents)
        self._parents.extend(range(first, first + size))
        return np.arange(first, first + size)

    def new_block(self, path, size):
        """The decisions of `size` channels that the layer at `path` makes."""
        ids = self.new(size)
        self.blocks.append(Block(path, ids))
        return ids

    def tie(self, first, second):
        """Make one decision of each pair."""
        for one, other in zip(np.ravel(first), np.ravel(second), strict=True):
            one, other = self._root(one), self._root(other)
            if one != other:
                self._parents[max(one, other)] = min(one, other)

    def keep_all(self, ids):
        """Mark decisions as settled: the channels stay."""
        self._kept.update(int(i) for i in np.unique(ids))

    def are_kept(self, ids):
        """Whether all of these channels are known to stay."""
        kept = {self._root(i) for i in self._kept}
        return all(self._root(i) in kept for i in np.unique(ids))

    def roots(self, ids):
        """For each decision the one that stands for all that are tied to it."""
        flat = [self._root(i) for i in np.ravel(ids)]
        return np.array(flat, dtype="int64").reshape(np.shape(ids))

    def __len__(self):
        return len(self._parents)

    def _root(self, i):
        i = int(i)
        while self._parents[i] != i:
            self._parents[i] = self._parents[self._parents[i]]
            i = self._parents[i]
        return i

    def spaces(self):
        """The choices that are open.

        Decisions which belong to the same blocks are one space. So tensors that are added to a
        concatenation get one choice for each part of it.

        Returns:
            A list of `Space`.
        """
        kept = {self._root(i) for i in self._kept}
        members = {}
        for number, block in enumerate(self.blocks):
            for root in self.roots(block.ids):
                if root not in kept:
                    counts = members.setdefault(int(root), {})
                    counts[number] = counts.get(number, 0) + 1
        grouped = {}
        for root, counts in members.items():
            grouped.setdefault(tuple(sorted(counts.items())), []).append(root)
        return [
            Space(
                ids=np.array(roots),
                paths=tuple(self.blocks[number].path for number, _ in key),
                channels_per_decision=tuple(count for _, count in key),
            )
            for key, roots in grouped.items()
        ]

    def select(self, chosen):
        """Settle all decisions.

        Args:
            chosen: For each of `spaces()` the decisions to keep.

        Returns:
            A `Selection`.
        """
        keep = np.ones(len(self), dtype=bool)
        for space, ids in zip(self.spaces(), chosen, strict=True):
            keep[space.ids] = False
            keep[ids] = True
        return Selection(keep[self.roots(np.arange(len(self)))])


class Selection:
    """Settled decisions.

    Args:
        keep: For each decision whether its channels stay.
    """

    def __init__(self, keep):
        self._keep = keep

    def positions(self, ids):
        """The positions of an axis that stay."""
        return np.flatnonzero(self._keep[ids])

    def count(self, ids):
        """How many of an axis stay."""
        return int(self._keep[ids].sum())


def smallest_step(divisor, channels_per_decision):
    """How many decisions make a number of channels that `divisor` divides, in every block."""
    return math.lcm(*(divisor // math.gcd(divisor, count) for count in channels_per_decision))
