"""How many bytes the values of a type take."""

import keras
import numpy as np


def bytes_per_value(dtype):
    """How many bytes a value of a Keras type takes.

    Args:
        dtype: A type as Keras names it.

    Returns:
        An int.
    """
    dtype = keras.backend.standardize_dtype(dtype)
    if dtype == "bool":
        return 1
    return {"bfloat16": 2}.get(dtype) or np.dtype(dtype).itemsize
