"""A few random inputs through a model, to see what its outputs look like."""

import functools

import keras
import numpy as np

# Two decide for most models; eight where two may look like something else by chance.
_COUNTS = (2, 8)
# Sizes for axes that a model leaves open: for images, and for sequences.
_OPEN_IMAGE, _OPEN_SEQUENCE = 64, 16


def probe_outputs(trace, seed=0):
    """A model's outputs for two random inputs, or for eight where two leave doubts.

    Floats are drawn from a normal distribution, whole numbers so that every `Embedding` of the
    model knows them. No variable changes.

    Args:
        trace: A `ModelTrace`.
        seed: Whole number.

    Returns:
        A tuple `(outputs, error)`: the structure of arrays and `None`; or `None` and what went
        wrong, for a model that cannot run on such inputs.
    """
    tokens = [
        layer.input_dim
        for layer in trace.layers.values()
        if isinstance(layer, keras.layers.Embedding)
    ]
    vocabulary = max(min(tokens, default=2), 2)
    for count in _COUNTS:
        generator = np.random.default_rng(seed)
        make = functools.partial(_random_input, generator, count, vocabulary)
        inputs = keras.tree.map_structure(make, trace.inputs)
        try:
            outputs = trace.model(inputs, training=False)
        except Exception as error:  # whatever a user's model raises on inputs of this kind
            # Keras puts the reason behind a heading and lists the arguments after it.
            return None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        outputs = keras.tree.map_structure(_to_numpy, outputs)
        if all(_is_decisive(values) for values in keras.tree.flatten(outputs)):
            break
    return outputs, None


def _is_decisive(values):
    """Whether these are no probabilities, or a softmax's that chance does not make."""
    if not within_unit_interval(values):
        return True
    # Classes that are on or off by themselves may sum to 1.
    return softmax_rows(values) and values.max() < 0.99


def _random_input(generator, count, vocabulary, spec):
    open_size = _OPEN_IMAGE if len(spec.shape) >= 4 else _OPEN_SEQUENCE
    shape = (count, *(size or open_size for size in spec.shape[1:]))
    dtype = keras.backend.standardize_dtype(spec.dtype)
    if dtype == "string":
        return np.full(shape, "a", dtype=object)
    if dtype == "bool":
        return np.ones(shape, "bool")
    if keras.backend.is_float_dtype(dtype):
        return keras.ops.cast(generator.normal(size=shape).astype("float32"), dtype)
    return keras.ops.cast(generator.integers(0, vocabulary, size=shape), dtype)


def _to_numpy(tensor):
    tensor = keras.ops.stop_gradient(keras.ops.convert_to_tensor(tensor))
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if keras.backend.is_float_dtype(dtype):
        # Half precision rounds the sum of a row; the array remembers by its type.
        wide = keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))
        return wide.astype("float16") if dtype in ("float16", "bfloat16") else wide
    return keras.ops.convert_to_numpy(tensor)


def softmax_rows(values):
    """Whether every row of the last axis is in [0, 1] and sums to 1.

    Args:
        values: Array `(batch, ..., classes)`.

    Returns:
        A bool; `False` for a single class, for which a row proves nothing.
    """
    if values.ndim < 2 or values.shape[-1] < 2 or not within_unit_interval(values):
        return False
    tolerance = 2e-2 if values.dtype == np.float16 else 1e-3
    sums = values.astype("float64").sum(axis=-1)
    return bool(np.all(np.abs(sums - 1.0) < tolerance))


def within_unit_interval(values):
    """Whether all values are in [0, 1]."""
    values = values.astype("float64")
    return bool(values.size and np.all(values >= -1e-6) and np.all(values <= 1.0 + 1e-3))
