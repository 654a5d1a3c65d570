"""The examples that a file is compared on or calibrated with, whatever holds them."""

import keras
import numpy as np


def take_examples(data, argument, specs, structure, limit):
    """The first examples of arrays or of a data set, as one array for each input.

    Args:
        data: What `student.predict` takes: an array, a structure of arrays, or an iterable of
            batches (`x`, `(x, y)` or `(x, y, sample_weight)`).
        argument: The argument's name, for error messages.
        specs: Dict from input names to `keras.KerasTensor`.
        structure: The structure of the student's inputs.
        limit: The largest number of examples to take; `None` for all.

    Returns:
        A dict from input names to NumPy arrays.

    Raises:
        ValueError: If the data does not fit the inputs, is empty or holds a NaN.
    """
    if _is_arrays(data):
        batches = [data]
    elif hasattr(data, "__getitem__") and hasattr(data, "num_batches"):  # a PyDataset
        batches = (_inputs(data[index]) for index in range(data.num_batches or 0))
    elif hasattr(data, "__iter__"):
        batches = (_inputs(batch) for batch in data)
    else:
        raise ValueError(
            f"Received {argument} of type {type(data).__name__}. Expected arrays as "
            "`student.predict` takes them, or an iterable of batches. Pass one of them."
        )
    taken, count = [], 0
    for batch in batches:
        arrays = _by_name(batch, argument, specs, structure)
        left = None if limit is None else limit - count
        taken.append({name: array[:left] for name, array in arrays.items()})
        count += len(next(iter(taken[-1].values())))
        if limit is not None and count >= limit:
            break
    if not count:
        raise ValueError(
            f"Received {argument} without an example. Expected at least one. If it is an iterator, "
            "it may have been read to its end: make a new one."
        )
    return {name: np.concatenate([part[name] for part in taken]) for name in specs}


def random_examples(specs, layers, count, seed=0):
    """Random inputs of the right shapes and types, for want of real ones.

    Floats are drawn from a standard normal distribution. Integers stay below the size of the
    smallest embedding, or below 2 where there is none. An open axis is 64 long (our choice).

    Args:
        specs: Dict from input names to `keras.KerasTensor`.
        layers: The student's layers.
        count: How many examples.
        seed: Seed of the random numbers.

    Returns:
        A dict from input names to NumPy arrays.
    """
    generator = np.random.default_rng(seed)
    rows = [layer.input_dim for layer in layers if isinstance(layer, keras.layers.Embedding)]
    arrays = {}
    for name, spec in specs.items():
        shape = (count, *(64 if size is None else size for size in spec.shape[1:]))
        if "float" in spec.dtype:
            arrays[name] = generator.standard_normal(shape).astype(spec.dtype)
        else:
            arrays[name] = generator.integers(0, min(rows, default=2), shape).astype(spec.dtype)
    return arrays


def _is_arrays(data):
    leaves = keras.tree.flatten(data)
    return bool(leaves) and all(
        hasattr(leaf, "shape") and hasattr(leaf, "__array__") for leaf in leaves
    )


def _inputs(batch):
    return keras.utils.unpack_x_y_sample_weight(batch)[0]


def _by_name(data, argument, specs, structure):
    names = list(specs)
    if isinstance(data, dict) and set(data) == set(names):
        leaves = [data[name] for name in names]
    else:
        leaves = keras.tree.flatten(data)
    if len(leaves) != len(names):
        raise ValueError(
            f"Received {argument} with {len(leaves)} arrays. Expected one for each of the "
            f"student's inputs {names}, in the structure that `student.predict` takes "
            f"({keras.tree.map_structure(lambda tensor: tensor.shape, structure)})."
        )
    arrays = {
        name: _checked(_to_numpy(leaf), argument, name, specs[name])
        for name, leaf in zip(names, leaves, strict=True)
    }
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"Received {argument} with different numbers of examples: {lengths}. Expected as many "
            "for each input. Cut them to the same length."
        )
    return arrays


def _to_numpy(leaf):
    return leaf if isinstance(leaf, np.ndarray) else keras.ops.convert_to_numpy(leaf)


def _checked(array, argument, name, spec):
    expected = tuple(spec.shape)
    fits = len(array.shape) == len(expected) and all(
        wanted is None or wanted == found
        for wanted, found in zip(expected[1:], array.shape[1:], strict=True)
    )
    if not fits:
        raise ValueError(
            f"Received {argument} of shape {array.shape} for the input '{name}'. Expected "
            f"{expected}, where `None` may be any size. Give the examples that shape, the batch "
            "axis included."
        )
    array = array.astype(spec.dtype)
    if not np.all(np.isfinite(array)):
        raise ValueError(
            f"Received {argument} with a NaN or an infinite value for the input '{name}'. Expected "
            "finite numbers. Remove those examples."
        )
    return array
