"""Training and validation data, checked before the long work and in a repeatable order."""

import keras
import numpy as np

from keras_ktan.cache import TeacherCache
from keras_ktan.cache.cached_dataset import CachedDataset
from keras_ktan.cache.key import as_fed
from keras_ktan.compression.shuffled_batches import ShuffledBatches
from keras_ktan.utils.data_ends import validate_ends

_CALIBRATION_EXAMPLES = 512


def checked_data(name, data):
    """Check that data can be read once in each epoch.

    Args:
        name: The argument's name; `"data"` may come from a `TeacherCache`.
        data: What the user passed.

    Returns:
        A tuple of NumPy arrays, or the data set.

    Raises:
        ValueError: If it cannot be read again, has no end, no example or no labels.
    """
    if isinstance(data, tuple):
        return _checked_arrays(name, data)
    _validate_not_of_a_cache(name, data)
    if hasattr(data, "__next__"):
        raise ValueError(
            f"Received {name} of type {type(data).__name__}, which can be read only once. Expected "
            "data that begins anew in each epoch. Pass a tuple `(x, y)` of arrays, a "
            "`keras.utils.PyDataset` or a `tf.data.Dataset`."
        )
    is_data_set = hasattr(data, "__iter__") or hasattr(data, "num_batches")
    if not is_data_set or isinstance(data, (dict, list, str)) or hasattr(data, "shape"):
        raise ValueError(
            f"Received {name} of type {type(data).__name__}. Expected a tuple `(x, y)` of arrays "
            "or a data set of such batches. Pass one of them."
        )
    validate_ends(name, data)
    # A tf.data.Dataset says what it holds without being read.
    is_empty = number_of_batches(data) == 0
    batch = None if is_empty else getattr(data, "element_spec", None) or first_batch(data)
    if batch is None:
        raise ValueError(
            f"Received {name} without a batch. Expected at least one. Look at what fills it."
        )
    if keras.utils.unpack_x_y_sample_weight(batch)[1] is None:
        raise ValueError(
            f"Received {name} without labels. Expected batches `(x, y)` or "
            "`(x, y, sample_weight)`. Put the labels into the data set."
        )
    return data


def as_batches(data, batch_size, seed):
    """What `fit` trains on.

    Args:
        data: What `checked_data` returned.
        batch_size: Examples in a batch for arrays, or `None`.
        seed: Seed of the order of arrays.

    Returns:
        A `ShuffledBatches` for arrays; a data set as it is.

    Raises:
        ValueError: If a data set comes with a `batch_size`.
    """
    if isinstance(data, tuple):
        return ShuffledBatches(data, batch_size or 32, seed)
    if batch_size is not None:
        raise ValueError(
            f"Received batch_size={batch_size} with `data` that is a {type(data).__name__}. "
            "Expected None, because a data set makes its batches itself. Leave it out."
        )
    return data


def number_of_batches(data):
    """How many batches an epoch has, or `None` where the data set does not tell."""
    if hasattr(data, "num_batches"):
        return data.num_batches
    if hasattr(data, "cardinality"):
        count = int(data.cardinality())
        return count if count >= 0 else None
    return len(data) if hasattr(data, "__len__") else None


def first_batch(data):
    """A few examples to try the models on.

    Args:
        data: What `checked_data` returned.

    Returns:
        A tuple as `fit` takes it from a data set; `None` if there is no batch.
    """
    if isinstance(data, tuple):
        return keras.tree.map_structure(lambda array: array[:32], data)
    return data[0] if hasattr(data, "num_batches") else next(iter(data), None)


def calibration_of(data, calibration_data, seed):
    """What an export in int8 is calibrated on.

    Args:
        data: The training data.
        calibration_data: What the user passed, or `None`.
        seed: Seed that draws examples out of arrays, which may be sorted by class.

    Returns:
        What `export_student` takes.

    Raises:
        ValueError: If it would be the data set of a `TeacherCache`.
    """
    if isinstance(data if calibration_data is None else calibration_data, CachedDataset):
        what = "no `calibration_data`" if calibration_data is None else "as `calibration_data`"
        raise ValueError(
            f"Received the data set of a TeacherCache and {what} for the format 'int8'. Expected "
            "some hundred of the student's inputs, because the data set holds the teacher's "
            "outputs as well. Pass `calibration_data=images[:512]`."
        )
    if calibration_data is not None:
        return calibration_data
    if not isinstance(data, tuple):
        return data
    count = len(keras.tree.flatten(data)[0])
    rows = np.random.default_rng(seed).permutation(count)[:_CALIBRATION_EXAMPLES]
    return keras.tree.map_structure(lambda array: array[np.sort(rows)], data[0])


def inputs_of(data):
    """The inputs alone, or a data set as it is, for `export_student`."""
    return data[0] if isinstance(data, tuple) else data


def _validate_not_of_a_cache(name, data):
    if isinstance(data, TeacherCache):
        wanted = "cache.dataset(images, labels)" if name == "data" else "(images, labels)"
        raise ValueError(
            f"Received {name} of type TeacherCache. Expected batches or arrays. Pass `{wanted}`."
        )
    if isinstance(data, CachedDataset) and name != "data":
        raise ValueError(
            f"Received the data set of a TeacherCache as {name}. Expected the examples themselves: "
            "the data set holds the teacher's outputs as well, which the training alone uses. Pass "
            "`(images, labels)`."
        )


def _checked_arrays(name, data):
    if len(data) not in (2, 3):
        raise ValueError(
            f"Received {name} as a tuple of {len(data)}. Expected `(x, y)` or "
            "`(x, y, sample_weight)`. Put several inputs into a list or a dict of their own."
        )
    arrays = keras.tree.map_structure(np.asarray, data)
    lengths = sorted({len(array) if array.ndim else 0 for array in keras.tree.flatten(arrays)})
    if len(lengths) != 1 or lengths == [0]:
        raise ValueError(
            f"Received {name} whose arrays have {lengths} examples. Expected as many labels as "
            "inputs, and at least one. Cut them to the same length."
        )
    return as_fed(arrays)
