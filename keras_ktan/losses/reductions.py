"""From values at every position to one number per example, in full precision."""

import functools
import operator

import keras
from keras import ops


def in_full_precision(*tensors):
    """The tensors in `keras.config.floatx()`, also under mixed precision."""
    return [ops.cast(tensor, keras.config.floatx()) for tensor in tensors]


def mean_per_example(values, mask=None):
    """The mean over all axes but the first.

    Args:
        values: Tensor `(batch, ...)`.
        mask: Optional boolean tensor of the same shape: which values count. An example of which
            none counts has mean 0.

    Returns:
        Tensor `(batch,)`.
    """
    if mask is not None and len(values.shape) > 1:
        return weighted_mean_over_positions(
            ops.where(mask, values, 0.0), ops.cast(mask, values.dtype)
        )
    axes = tuple(range(1, len(values.shape)))
    return ops.mean(values, axis=axes) if axes else values


def mean_over_all(values, mask=None):
    """The mean over the examples of `mean_per_example`, as one reduction where it can be."""
    return ops.mean(values if mask is None else mean_per_example(values, mask))


def weighted_sum(weights, values):
    """The sum of some scalars, each times its weight.

    Nothing is multiplied by the number 1 or added to 0: in every step each would be an operation,
    and more in its gradient.

    Args:
        weights: List of numbers or scalar tensors.
        values: List of as many scalar tensors.

    Returns:
        Scalar tensor; 0 where there are none.
    """
    weighted = [
        value if isinstance(weight, (int, float)) and weight == 1 else weight * value
        for weight, value in zip(weights, values, strict=True)
    ]
    return functools.reduce(operator.add, weighted) if weighted else ops.zeros(())


def weighted_mean_over_positions(values, weights):
    """Mean of a map of distances in which some positions count more than others.

    Args:
        values: Tensor `(batch, ...positions)`.
        weights: Tensor of the same shape, 0 or more; their sum does not matter.

    Returns:
        Tensor `(batch,)`; 0 for an example whose weights are all 0, NaN for one with a weight
        below 0, at which `fit` stops.
    """
    axes = tuple(range(1, len(values.shape)))
    weights = ops.stop_gradient(ops.cast(weights, values.dtype))
    # Of open sizes nothing was known before; an axis of 1 would count too little in the sum.
    weights = ops.broadcast_to(weights, ops.shape(values))
    total = ops.sum(weights, axis=axes)
    # Divided first: a sum of very small weights would lose its precision.
    share = weights / ops.expand_dims(ops.where(total > 0, total, 1.0), axes)
    mean = ops.sum(values * share, axis=axes)
    # A weight below 0 would push the student away from its target without any bound.
    return ops.where(ops.any(weights < 0, axis=axes), float("nan"), mean)


def unreduced(loss, mask=None):
    """A function of (teacher, student) tensors from what a user gave as one.

    Args:
        loss: A `keras.losses.Loss`, whose `call` is taken without its reduction, or a function.
        mask: Optional boolean tensor `(batch, positions...)`: which positions are no padding.

    Returns:
        A function that returns a tensor `(batch,)`, the mean of what the loss returned over all
        axes but the first.
    """
    function = loss.call if isinstance(loss, keras.losses.Loss) else loss

    def per_example(teacher, student):
        values = function(*in_full_precision(teacher, student))
        shape = getattr(values, "shape", ())
        if len(shape) == 0:
            raise ValueError(
                f"The distillation loss {loss!r} returned a scalar. Expected one value per "
                "example: a tensor `(batch,)` or `(batch, positions...)`. Leave out its mean."
            )
        if mask is None or len(mask.shape) == 1:
            return values if len(shape) == 1 else mean_per_example(values)
        if len(shape) < len(mask.shape):
            raise ValueError(
                f"The distillation loss {loss!r} returned values of shape {tuple(shape)} where "
                f"positions are padded (mask of shape {tuple(mask.shape)}). Expected a value for "
                "each position, `(batch, positions...)`, because padding must not count. Leave out "
                "its mean over the positions."
            )
        return mean_per_example(values, expand_mask(mask, values))

    return per_example


def expand_mask(mask, values):
    """A mask `(batch, positions...)` in the shape of a tensor `(batch, positions..., more...)`."""
    mask = ops.expand_dims(mask, tuple(range(len(mask.shape), len(values.shape))))
    return ops.broadcast_to(ops.cast(mask, "bool"), ops.shape(values))


def without_padding(mask, *tensors):
    """The tensors `(batch, positions..., channels)`, 0 where there is padding.

    Not only left out of the means: padding may hold anything, a NaN, too.
    """
    if mask is None:
        return tensors
    return [
        ops.where(expand_mask(mask, tensor), tensor, ops.zeros_like(tensor)) for tensor in tensors
    ]


def is_loss_function(value):
    """Whether a value is a `keras.losses.Loss` or a function, not a class."""
    return isinstance(value, keras.losses.Loss) or (callable(value) and not isinstance(value, type))
