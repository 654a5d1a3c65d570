"""Inputs and labels of a data set, as arrays."""

import keras
import numpy as np

from keras_ktan.utils.data_ends import validate_ends


def labelled_arrays(data):
    """Everything that a data set holds.

    Args:
        data: A tuple `(x, y)` or `(x, y, sample_weight)` of arrays, or a finite iterable of such
            batches: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a list.

    Returns:
        A tuple `(x, y, is_weighted)`: two structures of NumPy arrays, and whether there were
        sample weights.

    Raises:
        ValueError: If there are no labels, no example, no end, or inputs and labels differ in
            number.
    """
    parts = [keras.utils.unpack_x_y_sample_weight(batch) for batch in _batches(data)]
    if not parts:
        raise ValueError(
            "Received data without an example. Expected at least one. If it is an iterator, it may "
            "have been read to its end: make a new one."
        )
    if any(y is None for _, y, _ in parts):
        raise ValueError(
            "Received data without labels. Expected pairs of inputs and labels. Pass "
            "`data=(x, y)`, or a data set of such batches."
        )
    x = keras.tree.map_structure(_joined, *(part[0] for part in parts))
    y = keras.tree.map_structure(_joined, *(part[1] for part in parts))
    lengths = {len(array) for array in keras.tree.flatten((x, y))}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"Received data with {sorted(lengths)} inputs and labels. Expected as many labels as "
            "inputs, and at least one. Cut them to the same length."
        )
    return x, y, any(weight is not None for *_, weight in parts)


def _batches(data):
    if isinstance(data, tuple):
        return [data]
    validate_ends("data", data)
    if hasattr(data, "__getitem__") and hasattr(data, "num_batches"):  # a PyDataset
        return (data[index] for index in range(data.num_batches))
    if hasattr(data, "__iter__") and not hasattr(data, "shape"):
        return data
    raise ValueError(
        f"Received data of type {type(data).__name__}. Expected a tuple `(x, y)` of arrays or "
        "an iterable of such batches. Pass one of them."
    )


def _joined(*parts):
    arrays = [
        part if isinstance(part, np.ndarray) else np.asarray(keras.ops.convert_to_numpy(part))
        for part in parts
    ]
    return np.concatenate(arrays)
