"""What a cache is for: the rows that are looked at, and what the views make of them."""

import math

import keras
import numpy as np

from keras_ktan.utils.array_digest import RowDigest, combined

# How many images at least show what a view does and what a teacher says, if there are so many.
SMALLEST_SAMPLE = 64


def sample_of(count):
    """Some of so many rows, spread over all of them: the same each time, more where more are.

    Args:
        count: Number of all rows.

    Returns:
        Array of ascending positions: one drawn from each of equal parts of the data.
    """
    size = min(count, max(SMALLEST_SAMPLE, math.isqrt(count)))
    edges = np.arange(size + 1) * count // max(size, 1)
    return np.random.default_rng(0).integers(edges[:-1], edges[1:])


def rows_of(data, rows):
    """A copy of some rows of each array in a structure, as Keras would feed them.

    Args:
        data: Structure of arrays.
        rows: Slice or array of positions.

    Returns:
        Structure of arrays, which a view may change in place.
    """
    return keras.tree.map_structure(lambda array: np.array(array[rows]), data)


def as_fed(data):
    """Floats in Keras's default precision, as `fit` makes of arrays."""
    floatx = keras.config.floatx()
    return keras.tree.map_structure(
        lambda array: array.astype(floatx) if np.issubdtype(array.dtype, np.floating) else array,
        data,
    )


def views_digest(views, images):
    """A digest of what each view makes of a sample of the images, and a check of the views.

    Args:
        views: Dict from names to functions of a batch.
        images: Structure of arrays.

    Returns:
        Text.

    Raises:
        ValueError: If a view gives something else each time, if an image's view depends on the
            other images of the batch, or if the views have unlike shapes.
    """
    sample = sample_of(len(keras.tree.flatten(images)[0]))
    digests = {name: {} for name in views}
    for start in range(0, len(sample), SMALLEST_SAMPLE):
        rows = sample[start : start + SMALLEST_SAMPLE]
        described = {}
        for name, view in views.items():
            arrays = _seen(name, view, images, rows)
            described[name] = [(array.shape, str(array.dtype)) for array in arrays]
            for place, array in enumerate(arrays):
                digests[name].setdefault(place, RowDigest()).update(array)
        if len({str(shapes) for shapes in described.values()}) > 1:
            raise ValueError(
                f"The views give unlike shapes or dtypes: {described}. Expected the same from "
                "all, because images of several views share a batch. Crop or pad to one size."
            )
    return combined([digest.hexdigest() for made in digests.values() for digest in made.values()])


def _seen(name, view, images, rows):
    """What a view makes of some images, the same alone, in a batch and the next time."""
    arrays = [np.asarray(array) for array in keras.tree.flatten(view(rows_of(images, rows)))]
    again = keras.tree.flatten(view(rows_of(images, rows)))
    each = [keras.tree.flatten(view(rows_of(images, rows[i : i + 1]))) for i in range(len(rows))]
    for place, array in enumerate(arrays):
        alone = np.concatenate([np.asarray(one[place]) for one in each])
        # Alone and in a batch sums may be rounded unlike; the same call gives the same bits.
        if (
            array.ndim == 0
            or len(array) != len(rows)
            or not np.array_equal(array, np.asarray(again[place]), equal_nan=_is_float(array))
            or not _nearly_equal(array, alone)
        ):
            raise ValueError(
                f"The view '{name}' gave an image something else alone than in a batch of "
                f"{len(rows)}. Expected a function that treats each image by itself and always in "
                "the same way, because the teacher's outputs are kept for it. Take the random "
                "numbers out, and name each outcome as a view of its own."
            )
    return arrays


def _is_float(array):
    return np.issubdtype(array.dtype, np.floating)


def _nearly_equal(array, other):
    if not _is_float(array):
        return np.array_equal(array, other)
    size = np.max(np.abs(array), initial=0.0, where=np.isfinite(array))
    return array.shape == other.shape and np.allclose(
        array, other, rtol=1e-5, atol=1e-5 * size, equal_nan=True
    )
