"""Bring a map to another height and width on every backend."""

import keras
from keras import ops


def averaging_matrix(source_size, target_size):
    """The matrix that takes an axis of one length to another.

    Going down it averages areas, going up it interpolates linearly between
    the centres of the cells. The ratio need not be whole. Written in `keras.ops` with
    a gradient on every backend, which `image.resize("area")` has not.

    Args:
        source_size: Length of the axis as it is; an int or a scalar tensor.
        target_size: Length wanted; an int or a scalar tensor.

    Returns:
        Tensor `(target_size, source_size)` of type `keras.config.floatx()` whose rows sum to 1.

    Example:

    ```python
    from keras_ktan.layers.resize import averaging_matrix

    print(averaging_matrix(4, 2))  # [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    ```
    """
    dtype = keras.config.floatx()
    ratio = ops.cast(source_size, dtype) / ops.cast(target_size, dtype)
    target = ops.cast(ops.arange(target_size), dtype)[:, None]
    source = ops.cast(ops.arange(source_size), dtype)[None, :]
    overlap = ops.minimum((target + 1.0) * ratio, source + 1.0) - ops.maximum(
        target * ratio, source
    )
    area = ops.maximum(overlap, 0.0) / ratio
    last = ops.cast(source_size, dtype) - 1.0
    centre = ops.clip((target + 0.5) * ratio - 0.5, 0.0, last)
    linear = ops.maximum(1.0 - ops.abs(centre - source), 0.0)
    return ops.where(ratio >= 1.0, area, linear)


# A position of which less than this share shows no padding is padding itself; below it lies
# what rounding leaves of an area of 0.
_LEAST_SHARE = 1e-3


def resize_mask(mask, size):
    """The mask of a map that was resized.

    Args:
        mask: Boolean tensor `(batch, lengths...)`: where the map holds no padding.
        size: The lengths wanted.

    Returns:
        Boolean tensor `(batch, *size)`: where something of the map is seen.
    """
    return _shares(mask, size, keras.config.floatx())[..., 0] > _LEAST_SHARE


def _shares(mask, size, dtype):
    return resize_map(ops.expand_dims(ops.cast(mask, dtype), -1), size)


def resize_masked_map(features, size, mask):
    """Resize a map as `resize_map` does, of the positions alone that are no padding.

    Args:
        features: Tensor `(batch, lengths..., channels)`.
        size: The lengths wanted.
        mask: Boolean tensor `(batch, lengths...)`.

    Returns:
        Tensor `(batch, *size, channels)`; 0 where there is nothing but padding.
    """
    shown = ops.where(ops.expand_dims(mask, -1), features, ops.zeros_like(features))
    shares = _shares(mask, size, features.dtype)
    seen = shares > _LEAST_SHARE
    resized = resize_map(shown, size) / ops.where(seen, shares, ops.ones_like(shares))
    return ops.where(seen, resized, ops.zeros_like(resized))


def resize_map(features, size):
    """Resize the axes between batch and channels.

    Args:
        features: Tensor `(batch, lengths..., channels)`, of rank 2 to 5.
        size: The lengths wanted of the axes between.

    Returns:
        Tensor of the same rank.
    """
    for axis, wanted in enumerate(size, start=1):
        current = ops.shape(features)[axis]
        if isinstance(current, int) and isinstance(wanted, int) and current == wanted:
            continue
        matrix = ops.cast(averaging_matrix(current, wanted), features.dtype)
        axes = "n" + "hwd"[: len(features.shape) - 2] + "c"
        target = axes.replace(axes[axis], "p")
        features = ops.einsum(f"p{axes[axis]},{axes}->{target}", matrix, features)
    return features
