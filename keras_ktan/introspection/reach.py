"""Whether a layer's map has any influence on what its model returns."""

import keras
import numpy as np

from keras_ktan.introspection.feature_tap import FeatureTap
from keras_ktan.introspection.model_trace import symbolic_input

# For axes whose length is open: long enough for the strides of most models.
_OPEN_AXIS = 32


def leads_to_outputs(model, path):
    """Whether another map at a path makes another output.

    Operations between layers are not seen from outside, so the model runs: once as it is, and
    then with other numbers put in place of the map. No variable changes.

    Args:
        model: A built `keras.Model`.
        path: Path of a layer that runs once.

    Returns:
        `False` if no output changed. `True` if one did, and where the model cannot be run on
        numbers made up for it.
    """
    tap = FeatureTap(model, [path], "student")
    generator = np.random.default_rng(0)
    try:
        specs = symbolic_input(model)
        inputs = keras.tree.map_structure(lambda spec: _made_up(spec, generator), specs)
        outputs, (features,) = tap(inputs)
        features = keras.ops.convert_to_numpy(features)
        for size in (1.0, 100.0):  # a ReLU may hide what is small
            other = features + size * generator.normal(size=features.shape)
            other = keras.ops.convert_to_tensor(other.astype(features.dtype))
            changed, _ = tap(inputs, substitutes={path: other})
            if not _same(outputs, changed):
                return True
    except Exception:
        return True  # the training itself says what is wrong with such a model
    return False


def _made_up(spec, generator):
    shape = [2, *(length or _OPEN_AXIS for length in spec.shape[1:])]
    if not keras.backend.is_float_dtype(spec.dtype):
        return keras.ops.ones(shape, dtype=spec.dtype)  # 0 may stand for padding
    return keras.ops.convert_to_tensor(generator.normal(size=shape).astype(spec.dtype))


def _same(first, second):
    pairs = zip(keras.tree.flatten(first), keras.tree.flatten(second), strict=True)
    return all(
        np.array_equal(*(np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in pair))
        for pair in pairs
    )
