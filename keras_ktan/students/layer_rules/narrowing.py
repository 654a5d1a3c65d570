"""What a rule is given, and what it answers."""

import dataclasses
import typing

import keras
import numpy as np

from keras_ktan.students.channels import Channels
from keras_ktan.students.model_config import Constant


@dataclasses.dataclass(frozen=True)
class NarrowedWeight:
    """A variable of the teacher and what its axes belong to.

    Args:
        variable: The variable.
        axes: Dict from axes (not negative) to the decisions of their entries. Other axes stay.
        measures: What the variable says about the channels of `measured_axis`: `"scale"` for a
            normalisation's gamma, `"kernel"` for a kernel whose norm tells, or `None`.
        measured_axis: That axis.
        factor: Optional function of a `Selection`: a number that the kept values are multiplied
            by.
    """

    variable: typing.Any
    axes: dict
    measures: str | None = None
    measured_axis: int | None = None
    factor: typing.Callable | None = None


@dataclasses.dataclass(frozen=True)
class Narrowing:
    """A rule's answer for one call of one layer.

    Args:
        outputs: List of `Channels`, one for each tensor that the layer returns.
        weights: List of `NarrowedWeight`. Variables that are not listed stay whole.
        config: Dict from keys of the layer's config (a tuple of keys for an inner one) to
            decisions, whose number the entry is, or to a function of (selection, old value).
        arguments: Dict from locations of constants in the call's arguments to functions of
            (selection, old value).
    """

    outputs: list
    weights: list = dataclasses.field(default_factory=list)
    config: dict = dataclasses.field(default_factory=dict)
    arguments: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """One call of a layer or an operation.

    Args:
        graph: The `ChannelGraph` under construction.
        layer: The layer or operation.
        path: Its path in the teacher.
        args: Its arguments, with `Channels` where tensors are.
        kwargs: Its named arguments, likewise.
        config: Its config.
        output_shapes: Dict from the outputs' numbers to their shapes, as far as they are known.
    """

    graph: typing.Any
    layer: typing.Any
    path: str
    args: list
    kwargs: dict
    config: dict
    output_shapes: dict

    @property
    def inputs(self):
        """The `Channels` of all tensors among the arguments; masks are left out."""
        return [leaf for leaf in self.operands if isinstance(leaf, Channels)]

    @property
    def operands(self):
        """All leaves of the arguments; masks are left out."""
        named = {name: v for name, v in self.kwargs.items() if not name.endswith("mask")}
        return keras.tree.flatten([self.args, named])

    @property
    def input(self):
        """The `Channels` of the first tensor."""
        return self.inputs[0]

    @property
    def output_shape(self):
        """The shape of the first output; `None` if nobody reads it."""
        return self.output_shapes.get(0)

    def rule_for(self, layer, path):
        """The rule for another layer, such as one inside a wrapper."""
        return self.graph.rule_for(layer, path)

    def argument(self, position, name, default=None):
        """An argument by position or name, or from the config of the operation."""
        if position is not None and len(self.args) > position:
            return self.args[position]
        if name in self.kwargs:
            return self.kwargs[name]
        return self.config.get(name, default)

    def new_channels(self, size, name="channels"):
        """Decisions for `size` channels that the layer makes.

        Args:
            size: How many.
            name: Tells several kinds of channels of one layer apart.

        Returns:
            An array of decisions, the same one at each call of the layer.
        """
        return self.graph.new_channels(self.layer, self.path, size, name)

    def tie(self, first, second):
        """Make the decisions of two axes one, entry by entry."""
        self.graph.decisions.tie(first, second)

    def keep_all(self, *tensors):
        """Let tensors stay as wide as they are.

        Args:
            *tensors: `Channels`.
        """
        for tensor in tensors:
            if tensor.ids is not None:
                self.graph.decisions.keep_all(tensor.ids)

    def is_open(self, tensor):
        """Whether a tensor may become narrower, as far as is known by now."""
        return tensor.ids is not None and not self.graph.decisions.are_kept(tensor.ids)

    def kept(self, size):
        """Decisions for `size` entries that all stay."""
        ids = self.graph.decisions.new(size)
        self.graph.decisions.keep_all(ids)
        return ids

    def ids(self, tensor, axis=-1):
        """The decisions along an axis of a tensor.

        Where the tensor's channels lie on another axis, they all stay, and so does this axis.

        Args:
            tensor: `Channels`.
            axis: The axis, which may be negative.

        Returns:
            An array of decisions.
        """
        if tensor.along(axis):
            return tensor.ids
        self.keep_all(tensor)
        return self.kept(tensor.shape[axis])

    def output_channels(self, ids, axis=-1):
        """The `Channels` of the first output.

        Args:
            ids: The decisions along its axis of channels.
            axis: That axis, which may be negative.

        Returns:
            `Channels`.
        """
        shape = self.output_shape or (*self.input.shape[:-1], len(ids))
        return Channels(shape, axis % len(shape), ids)

    def fixed_outputs(self):
        """`Narrowing` that keeps everything the call reads and makes as wide as it is."""
        self.keep_all(*self.inputs)
        numbers = range(max(self.output_shapes, default=0) + 1)
        return Narrowing(
            [self.graph.fixed(self.output_shapes.get(number, ())) for number in numbers]
        )


def weight(variable, axes, measures=None, measured_axis=None, factor=None):
    """A `NarrowedWeight`; axes may be negative.

    Args:
        variable: The variable, or `None` where the layer has none.
        axes: Dict from axes to decisions.
        measures: See `NarrowedWeight`.
        measured_axis: See `NarrowedWeight`.
        factor: See `NarrowedWeight`.

    Returns:
        A list with it, empty for `None`.
    """
    if variable is None:
        return []
    rank = len(variable.shape)
    axes = {axis % rank: np.asarray(ids) for axis, ids in axes.items()}
    if measured_axis is not None:
        measured_axis %= rank
    return [NarrowedWeight(variable, axes, measures, measured_axis, factor)]


def is_constant(value):
    """Whether an argument is an array."""
    return isinstance(value, Constant)
