"""What the unit tests share: gradients on every backend, and plain NumPy beside Keras."""

import re

import keras
import numpy as np
from keras import ops


def to_numpy(tensor):
    """A tensor or a variable as a NumPy array, without its gradient."""
    if isinstance(tensor, keras.Variable):
        # TensorFlow's variables themselves warn when NumPy 2 reads them.
        tensor = ops.stop_gradient(ops.convert_to_tensor(tensor))
    return np.asarray(ops.convert_to_numpy(tensor))


def as_tensor(values):
    """Numbers as a float32 tensor."""
    return ops.convert_to_tensor(np.asarray(values, "float32"))


def random_array(*shape, seed=0):
    """Normal numbers in float32, the same for the same seed."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def gradients(function, *arrays):
    """The gradients of a scalar function of tensors.

    Args:
        function: Function from as many tensors as there are arrays to a scalar tensor.
        *arrays: Where to take the gradients.

    Returns:
        A list of NumPy arrays, one for each argument; zeros where it has no influence.
    """
    arrays = [np.asarray(array, "float32") for array in arrays]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        found = tape.gradient(value, tensors, unconnected_gradients="zero")
    elif backend == "jax":
        import jax

        found = jax.grad(function, argnums=tuple(range(len(arrays))))(*arrays)
    else:
        import torch

        tensors = [ops.convert_to_tensor(array).requires_grad_() for array in arrays]
        value = function(*tensors)
        found = torch.autograd.grad(value, tensors, allow_unused=True)
        found = [
            torch.zeros_like(tensor) if gradient is None else gradient
            for tensor, gradient in zip(tensors, found, strict=True)
        ]
    return [to_numpy(gradient) for gradient in found]


def variable_gradients(function, variables):
    """The gradients of a scalar function with respect to Keras variables.

    Args:
        function: Function without arguments that reads the variables.
        variables: List of `keras.Variable`.

    Returns:
        A list of NumPy arrays; zeros where a variable has no influence.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = function()
        found = tape.gradient(
            value, [variable.value for variable in variables], unconnected_gradients="zero"
        )
    elif backend == "jax":
        import jax

        def stateless(values):
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return function()

        found = jax.grad(stateless)([variable.value for variable in variables])
    else:
        import torch

        values = [variable.value for variable in variables]
        found = torch.autograd.grad(function(), values, allow_unused=True)
        found = [
            torch.zeros_like(value) if gradient is None else gradient
            for value, gradient in zip(values, found, strict=True)
        ]
    return [to_numpy(gradient) for gradient in found]


def numerical_gradient(function, array, step=1e-6):
    """Central differences of a scalar function of a NumPy array, in float64."""
    array = np.array(array, "float64")
    result = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        moved = array.copy()
        moved[index] += step
        above = function(moved)
        moved[index] -= 2 * step
        result[index] = (above - function(moved)) / (2 * step)
    return result


def all_values(*layers):
    """Copies of all variables of some layers and models."""
    return [to_numpy(variable).copy() for layer in layers for variable in layer.variables]


def assert_three_parts(error, came, expected, remedy):
    """An error says what came, what was expected and how to put it right, in this order."""
    text = str(error)
    position = 0
    for part, words in (("what came", came), ("expected", expected), ("the remedy", remedy)):
        match = re.search(re.escape(words), text[position:])
        assert match, f"{part}: no {words!r} (from here on) in: {text}"
        position += match.end()
    assert "Expected" in text
