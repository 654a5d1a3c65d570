"""Which channels matter most."""

import keras
import numpy as np

NAMES = ("gamma", "activation", "random")


def choose(graph, counts, importance, data=None, seed=None):
    """Keep the most important channels.

    Args:
        graph: A `ChannelGraph`.
        counts: How many decisions of each of its spaces stay.
        importance: A name or a function; see `slim_student`.
        data: A batch of inputs for `"activation"`.
        seed: Seed for `"random"`.

    Returns:
        A `Selection`.
    """
    decisions = graph.decisions
    kernels = kernel_scores(graph)
    scores = _scores(graph, importance, data, seed)
    chosen = []
    for space, count in zip(decisions.spaces(), counts, strict=True):
        first, second = scores[space.ids], kernels[space.ids]
        if np.isnan(first).any():
            first = second
        # Equal scores: the norm of the kernels decides, then the order of the channels.
        order = np.lexsort((np.arange(len(first)), -second, -first))
        chosen.append(np.sort(space.ids[order[:count]]))
    return decisions.select(chosen)


def _scores(graph, importance, data, seed):
    """For each decision a number, NaN where this kind of importance says nothing."""
    if callable(importance):
        return function_scores(graph, importance)
    if importance == "random":
        return np.random.default_rng(seed).random(len(graph.decisions))
    if importance == "activation":
        return activation_scores(graph, data)
    return gamma_scores(graph)


def gamma_scores(graph):
    """|gamma| of the normalisations, summed over all that a channel goes through."""
    return _summed(graph, "scale", np.abs)


def kernel_scores(graph):
    """The norm of the kernels that make a channel, summed; 0 where there are none."""
    return np.nan_to_num(_summed(graph, "kernel", np.square))


def _summed(graph, measures, function):
    total = _Total(graph)
    for weight in graph.weights.values():
        if weight.measures != measures or weight.measured_axis not in weight.axes:
            continue
        values = function(keras.ops.convert_to_numpy(weight.variable).astype("float64"))
        others = tuple(i for i in range(values.ndim) if i != weight.measured_axis)
        values = values.sum(axis=others)
        values = np.sqrt(values) if measures == "kernel" else values
        total.add(weight.axes[weight.measured_axis], values)
    return total.values()


def activation_scores(graph, data):
    """Root mean square of a channel in what the layers with kernels read, summed.

    Args:
        graph: A `ChannelGraph`.
        data: A batch of the teacher's inputs.

    Returns:
        An array with a number for each decision, NaN where nobody reads it.
    """
    total = _Total(graph)
    for channels, values in graph.values_read(data):
        others = tuple(i for i in range(values.ndim) if i != channels.axis)
        total.add(channels.ids, np.sqrt(np.mean(np.square(values), axis=others)))
    return total.values()


def function_scores(graph, function):
    """What a function of a layer says, summed over the layers of a channel."""
    total = _Total(graph)
    for record in graph.tensors:
        layer, channels = record.layer, record.channels
        if not isinstance(layer, keras.Layer) or channels.ids is None:
            continue
        values = function(layer)
        if values is None:
            continue
        values = np.asarray(values, dtype="float64")
        if values.shape != channels.ids.shape or not np.isfinite(values).all():
            raise ValueError(
                f"`importance` returned an array of the shape {values.shape} for the layer "
                f"'{record.path}', which makes {len(channels.ids)} channels. Expected a finite "
                "number for each channel, or `None` where it says nothing. Correct the function."
            )
        total.add(channels.ids, values)
    return total.values()


class _Total:
    """Sums over the channels of each decision."""

    def __init__(self, graph):
        self._roots = graph.decisions.roots(np.arange(len(graph.decisions)))
        self._sums = np.zeros(len(self._roots))
        self._known = np.zeros(len(self._roots), dtype=bool)

    def add(self, ids, values):
        np.add.at(self._sums, self._roots[ids], values)
        self._known[self._roots[ids]] = True

    def values(self):
        return np.where(self._known, self._sums, np.nan)[self._roots]


def validate_importance(importance, data):
    """Check the choice of importance.

    Args:
        importance: What the caller gave.
        data: The batch, if any.

    Raises:
        ValueError: If the name is unknown, or `data` and the name do not go together.
    """
    if not callable(importance) and importance not in NAMES:
        raise ValueError(
            f"`importance={importance!r}`. Expected one of {NAMES} or a function of a layer that "
            "returns a number for each of its output channels, or `None`. Correct the name."
        )
    if (importance == "activation") != (data is not None):
        raise ValueError(
            f"`importance={importance!r}` and `data` {'given' if data is not None else 'missing'}. "
            "Expected a batch of the teacher's inputs with 'activation', and none otherwise. "
            "Pass `importance='activation', data=inputs`, or drop `data`."
        )
