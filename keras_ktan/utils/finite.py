"""The one way to look for NaN and infinite weights."""

import keras
import numpy as np
from keras import ops


def value_of(variable):
    """A variable's value as a tensor.

    TensorFlow's variables themselves warn when NumPy 2 reads them.

    Args:
        variable: A `keras.Variable`.

    Returns:
        A tensor without a gradient.
    """
    return ops.stop_gradient(ops.convert_to_tensor(variable))


def first_nonfinite(variables):
    """The first of some variables that holds a NaN or an infinite value.

    The device looks at the weights and sends back one truth value for each variable.

    Args:
        variables: List of `keras.Variable`.

    Returns:
        A `keras.Variable`, or `None`.
    """
    floats = [v for v in variables if keras.backend.is_float_dtype(v.dtype)]
    if not floats:
        return None
    finite = ops.stack([ops.all(ops.isfinite(value_of(variable))) for variable in floats])
    finite = ops.convert_to_numpy(finite)  # one wait for the device
    return None if finite.all() else floats[int(np.argmin(finite))]
