"""The feature losses: how far the student's map is from its target."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_ktan.losses.reductions import (
    expand_mask,
    in_full_precision,
    is_loss_function,
    mean_per_example,
    unreduced,
    weighted_mean_over_positions,
    without_padding,
)

# Keeps the direction of an all-zero position (a dead ReLU) defined without
# bending any other: maps in use have squared norms far above it.
_EPSILON = 1e-6


def _unit(features, axes):
    square = ops.sum(ops.square(features), axis=axes, keepdims=True)
    return features * ops.rsqrt(ops.maximum(square, _EPSILON))


def _inner_axes(features):
    return tuple(range(1, len(features.shape)))


def _cosine(target, features, mask=None):
    return 1.0 - ops.sum(_unit(target, -1) * _unit(features, -1), axis=-1)


def _mean_squared(target, features, mask=None):
    return ops.square(target - features)


def _normalized_mean_squared(target, features, mask=None):
    def unit_mean_square(tensor):
        square = ops.square(tensor)
        if mask is not None:
            square = mean_per_example(square, expand_mask(mask, tensor))
            square = ops.expand_dims(square, _inner_axes(tensor))
        else:
            square = ops.mean(square, axis=_inner_axes(tensor), keepdims=True)
        return tensor * ops.rsqrt(ops.maximum(square, _EPSILON))

    return ops.square(unit_mean_square(target) - unit_mean_square(features))


def _pooled_cosine(target, features, mask=None):
    def pool(tensor):
        return mean_over_positions(tensor, mask)

    return _cosine(pool(target), pool(features))


def mean_over_positions(tensor, mask=None):
    """A map's mean over its positions.

    Args:
        tensor: Tensor `(batch, ..., channels)`.
        mask: Optional boolean tensor `(batch, ...)`: the positions that count.

    Returns:
        Tensor `(batch, channels)`.
    """
    axes = _inner_axes(tensor)[:-1]
    if mask is None or not axes:
        return ops.mean(tensor, axis=axes) if axes else tensor
    mask = expand_mask(mask, tensor)
    total = ops.sum(ops.where(mask, tensor, ops.zeros_like(tensor)), axis=axes)
    return total / ops.maximum(ops.sum(ops.cast(mask, tensor.dtype), axis=axes), 1)


FEATURE_LOSSES = {
    "cosine": _cosine,
    "mse": _mean_squared,
    "normalized_mse": _normalized_mean_squared,
    "pooled_cosine": _pooled_cosine,
}


def feature_loss(
    loss: str | Callable | keras.losses.Loss,
    target: Any,
    features: Any,
    position_weights: Any = None,
    mask: Any = None,
) -> Any:
    """Distance of the student's feature map from its target.

    Args:
        loss: `"cosine"`: one minus the cosine between the channel vectors of each
            position. `"mse"`: squared difference. `"normalized_mse"`: the same after
            both maps of an example were brought to mean square 1. `"pooled_cosine"`:
            the cosine between the maps' averages over all positions. Or a
            `keras.losses.Loss`, or a function of (target, features) that returns
            `(batch,)` or `(batch, positions...)`.
        target: Tensor `(batch, ..., channels)`: the teacher's map as T2S projects it.
        features: Tensor of the same shape: the student's map.
        position_weights: Optional tensor `(batch, ...)` without the channels: what each
            position counts beside the others. For the names that compare position by
            position.
        mask: Optional boolean tensor `(batch, ...)` without the channels: the positions that are
            no padding. The others enter neither the distances nor the norms.

    Returns:
        Tensor `(batch,)`, averaged over positions (and channels for the squares).

    Example:

    ```python
    from keras import ops
    from keras_ktan.losses import feature_loss

    target = ops.ones((2, 4, 4, 8))
    print(feature_loss("mse", target, 3.0 * target))  # [4, 4]
    ```
    """
    if mask is not None and len(features.shape) == 2:
        mask = None  # a vector has no positions
    if mask is not None:
        target, features = without_padding(mask, target, features)
    if not isinstance(loss, str):
        return unreduced(loss, mask)(target, features)
    target, features = in_full_precision(target, features)
    distances = FEATURE_LOSSES[loss](target, features, mask)
    if position_weights is None:
        if mask is None or len(distances.shape) == 1:
            return mean_per_example(distances)
        return mean_per_example(distances, expand_mask(mask, distances))
    if mask is not None:
        position_weights = ops.where(mask, position_weights, 0.0)
    if len(distances.shape) == len(features.shape):
        distances = ops.mean(distances, axis=-1)
    return weighted_mean_over_positions(distances, position_weights)


def validate_feature_loss(loss):
    """Check what `compile` was given.

    Raises:
        ValueError: If it is no name, `keras.losses.Loss` or function.
    """
    if isinstance(loss, str) and loss in FEATURE_LOSSES:
        return
    if isinstance(loss, str) or not is_loss_function(loss):
        raise ValueError(
            f"Received feature_loss={loss!r}. Expected one of {sorted(FEATURE_LOSSES)}, a "
            "keras.losses.Loss or a function of (target, features). Write "
            "`feature_loss='cosine'`, for example."
        )


def takes_position_weights(loss):
    """Whether a feature loss compares position by position."""
    return isinstance(loss, str) and loss != "pooled_cosine"
