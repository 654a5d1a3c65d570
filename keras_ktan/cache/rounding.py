"""A teacher's numbers as they are kept, and what half precision loses of them."""

import keras
import numpy as np

# Half precision rounds at 0.05 % at most; more means that values vanish.
LARGEST_ERROR = 0.005


def rounded(value, array, row):
    """A batch's numbers as they are kept.

    Args:
        value: What the teacher gave.
        array: The entry of the array that keeps it.
        row: Number of the first image, for the errors.

    Returns:
        Array.

    Raises:
        ValueError: If there is a NaN, or an infinite value other than -inf in an output, which
            masks a class; or if half precision loses too much.
    """
    if not is_float(value):
        return value
    where = f"for images {row} to {row + len(value) - 1} in view '{array['view']}'"
    what = f"The teacher's {array['name']} {where}"
    value = value if value.dtype in ("float16", "float32", "float64") else value.astype("float32")
    known = np.isfinite(value)
    if not np.all(known) and not _masks_classes(value, array["name"]):
        raise ValueError(
            f"{what} holds NaN or infinite values. Expected numbers (or -inf in an output, for a "
            "class that the teacher masks). Look at these images and at the teacher."
        )
    with np.errstate(over="ignore", under="ignore"):  # looked at in the next lines
        kept = value.astype(array["dtype"])
    if not np.array_equal(np.isfinite(kept), known):
        raise ValueError(
            f"{what} reaches {np.max(np.abs(value), where=known, initial=0):.4g}. Expected at most "
            "65504, the largest number of half precision. Use precision='float32' in a new "
            "directory."
        )
    error = _relative_error(value, kept, known, array["name"].startswith("outputs:"))
    if error > LARGEST_ERROR:
        raise ValueError(
            f"{what} loses {error:.1%} of its numbers' size in half precision, because many are "
            f"too small for it. Expected at most {LARGEST_ERROR:.1%}; a softmax's probabilities "
            "are such numbers. Use precision='float32' in a new directory, or a teacher that ends "
            "with its logits."
        )
    return kept


def is_float(array):
    """Whether an array holds floats of any kind."""
    return keras.backend.is_float_dtype(str(array.dtype))


def _masks_classes(value, name):
    """Whether what is not finite is -inf, beside at least one number in each row of classes."""
    return (
        name.startswith("outputs:")
        and value.ndim > 1
        and not np.any(np.isnan(value) | (value == np.inf))
        and np.all(np.any(np.isfinite(value), axis=-1))
    )


def _relative_error(value, kept, known, each):
    """How much is lost: of each number on average, or of an image's map as a whole.

    The losses take logarithms of outputs, so the smallest count. In a map they vanish beside the
    others.
    """
    value = np.where(known, value, 0.0).astype("float64")
    difference = np.abs(np.where(known, kept, 0.0).astype("float64") - value)
    if each:
        sizes = np.abs(value)
    else:
        axes = tuple(range(1, value.ndim))
        difference, sizes = (np.sqrt(np.sum(a * a, axis=axes)) for a in (difference, value))
    counted = sizes > 0
    return float(np.mean(difference[counted] / sizes[counted])) if np.any(counted) else 0.0
