"""The cuts of a model in the order in which they are wanted as its feature map."""

import math

import keras

from keras_ktan.introspection.cuts import find_cuts, map_calls
from keras_ktan.introspection.data_flow import is_composite
from keras_ktan.introspection.substitution import concrete_shapes, confirm

# From one stage to the next the number of positions changes by this or more. Our choice: 35 and
# 33 positions of a convolution without padding are one stage; a stride of 2 along one of two axes
# makes another.
_STAGE_RATIO = 1.5

# How many candidates are run. Our choice; a classifier of `keras.applications` needs one.
_MOST_TESTS = 12

# Each block of a stage ends in one of these, so that its channels are the stage's.
_MERGING = (keras.layers.Add, keras.layers.Concatenate)

_ATTENTION = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
    keras.layers.AdditiveAttention,
)

# What these make of a map is the same map, ready for the next layer.
_PASSING_ON = (
    keras.layers.BatchNormalization,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ELU,
)


class MapCandidates:
    """The cuts of a model, the sizes of its maps, and which cut to prefer.

    Args:
        trace: A `ModelTrace`.
    """

    def __init__(self, trace):
        self.trace = trace
        found = find_cuts(trace)
        # Of all maps, cuts or not: the call and the concrete shape, in order.
        self._maps = {
            position: shape
            for position, shape in (_shapes(trace) if found else {}).items()
            if _positions(shape) > 1
        }
        self.cuts = [cut for cut in found if cut.position in self._maps]

    def shape(self, cut):
        """The shape of a cut's map, with a length for every axis but the batch."""
        return self._maps[cut.position]

    def default(self):
        """The first `Cut` that holds, in order of preference, or `None`."""
        order = self._by_preference()[:_MOST_TESTS]
        # Nearly always the first one holds, and one example less is half of the time.
        for tested in (order[:1], order[1:]):
            for cut, holds in zip(tested, self._hold(tested), strict=True):
                if holds:
                    return cut
        return None

    def confirmed(self, default):
        """The cuts that hold, without those that only a normalization or activation reads.

        Args:
            default: What `default()` returned.

        Returns:
            A list of `Cut`, in order.
        """
        shown = []
        for chain in self._confirmed_chains(default):
            for cut, following in zip(chain, [*chain[1:], None], strict=False):
                is_passed_on = (
                    following is not None
                    and isinstance(following.layer, _PASSING_ON)
                    and following.spec.shape == cut.spec.shape
                )
                if cut is default or not is_passed_on:
                    shown.append(cut)
        return shown

    def _confirmed_chains(self, default):
        """Cuts made one of the other, each chain as far as it is known to hold.

        If one in a chain holds, those before it do: two tests, of its last and its first one, say
        most of what there is to know.
        """
        chains = []
        for cut in self.cuts:
            if chains and cut.source is not None and cut.source == chains[-1][-1].tensor_id:
                chains[-1].append(cut)
            else:
                chains.append([cut])
        tested = list({id(cut): cut for chain in chains for cut in (chain[0], chain[-1])}.values())
        tested = [cut for cut in tested if cut is not default]
        holding = {id(default)}
        for begin in range(0, len(tested), _MOST_TESTS):
            some = tested[begin : begin + _MOST_TESTS]
            holding.update(
                id(cut) for cut, holds in zip(some, self._hold(some), strict=True) if holds
            )
        for chain in chains:
            known = [
                number for number, cut in enumerate(chain) if cut.certain or id(cut) in holding
            ]
            yield chain[: max(known, default=-1) + 1]

    def _hold(self, cuts):
        unsure = [cut for cut in cuts if not cut.certain]
        results = iter(confirm(self.trace, unsure) if unsure else [])
        return [cut.certain or next(results) for cut in cuts]

    def _by_preference(self):
        # An embedding only looks its vectors up.
        cuts = [cut for cut in self.cuts if not isinstance(cut.layer, keras.layers.Embedding)]
        outputs = [cut for cut in cuts if cut.tensor_id in self.trace.output_ids]
        inner = [cut for cut in cuts if cut.tensor_id not in self.trace.output_ids]
        order = self._preferred(inner) + inner[::-1] + outputs[::-1]
        return list({cut.position: cut for cut in order}.values())

    def _preferred(self, cuts):
        """The cuts of the part of the model that the default is to come from."""
        boundary = self._boundary()
        attention = [
            position
            for position, call in enumerate(self.trace.calls)
            if isinstance(call.layer, _ATTENTION)
        ]
        if attention and (boundary is None or min(attention) > boundary):
            return [cut for cut in cuts if cut.position < max(attention)][::-1]
        if boundary is None:
            return []
        size = _positions(self._maps[boundary])
        stage = [cut for cut in cuts if _ratio(_positions(self.shape(cut)), size) < _STAGE_RATIO]
        expanded = [cut for cut in stage if self._is_expanded(cut, stage)]
        return [cut for cut in stage if cut not in expanded][::-1] + expanded[::-1]

    def _is_expanded(self, cut, stage):
        """Whether it has more channels than its stage's blocks return, and than a later map."""
        returned = [
            other.spec.shape[-1]
            for other in stage
            if isinstance(other.layer, _MERGING) or is_composite(other.layer)
        ]
        channels = cut.spec.shape[-1]
        if returned and channels <= max(returned):
            return False
        return any(
            other.spec.shape[-1] < channels
            for other in self.cuts
            if other.position > cut.position and other.tensor_id not in self.trace.output_ids
        )

    def _boundary(self):
        """The position of the last map before the last stage; `None` if there is one stage."""
        maps = list(self._maps.items())
        for (position, before), (later, after) in zip(maps[-2::-1], maps[:0:-1], strict=True):
            ratio = _ratio(_positions(before), _positions(after))
            if ratio >= _STAGE_RATIO and not _erodes(self.trace.calls[later]):
                return position
        return None


def _shapes(trace):
    """The concrete shape of the map that each call made, by its position."""
    specs = {
        position: [
            tuple(leaf.shape) for leaf in keras.tree.flatten(trace.calls[position].output_specs)
        ]
        for position in map_calls(trace)
    }
    if any(None in shape[1:] for shapes in specs.values() for shape in shapes):
        measured = concrete_shapes(trace)
        specs = {position: measured[position] for position in specs}
    # Of a layer with several outputs the first map stands for its size.
    return {
        position: next(shape for shape in shapes if 3 <= len(shape) <= 5)
        for position, shapes in specs.items()
    }


def _erodes(call):
    """Whether a map is smaller than its input only because its layer does not pad."""
    strides = getattr(call.layer, "strides", None)
    strides = strides if isinstance(strides, (list, tuple)) else (strides,)
    if set(strides) != {1}:
        return False
    taken, made = call.input_specs[0].shape, keras.tree.flatten(call.output_specs)[0].shape
    return taken[1:-1] != made[1:-1]


def _positions(shape):
    return math.prod(shape[1:-1])


def _ratio(one, other):
    return max(one, other) / min(one, other)
