"""The normalised kernel against NumPy's singular values; who may change what."""

import keras
import numpy as np
import pytest
from helpers import (
    all_values,
    as_tensor,
    gradients,
    numerical_gradient,
    random_array,
    to_numpy,
    variable_gradients,
)
from keras import ops

from keras_ktan.layers.spectral_convolution import SpectralConvolution

SHAPES = [(None, 6, 5, 3), (None, 7, 3), (None, 9)]


def built(shape=(None, 6, 5, 3), filters=4, kernel_size=3, settled=False, seed=0, **kwargs):
    """A layer whose kernel is ours, far from norm one; settled: its power vector is exact."""
    layer = SpectralConvolution(filters, kernel_size, **kwargs)
    layer.build(shape)
    layer.kernel.assign(5 * random_array(*layer.kernel.shape, seed=seed))
    if layer.bias is not None:
        layer.bias.assign(random_array(filters, seed=seed + 1))
    if settled:
        settle(layer)
    return layer


def settle(layer):
    """Where the power iteration would end."""
    kernel = to_numpy(layer.kernel)
    layer.power_vector.assign(np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]))[2][:1].T)


def largest_singular_value(kernel):
    kernel = np.asarray(kernel, "float64")
    return np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]


def reference_convolution(inputs, kernel):
    """A `same` convolution with an odd window, spelled out."""
    if inputs.ndim == 2:
        return inputs @ kernel
    window = kernel.shape[:-2]
    padding = [(0, 0), *[(size // 2, size // 2) for size in window], (0, 0)]
    padded = np.pad(inputs, padding)
    outputs = np.zeros((*inputs.shape[:-1], kernel.shape[-1]))
    for offset in np.ndindex(*window):
        part = tuple(
            slice(start, start + size)
            for start, size in zip(offset, inputs.shape[1:-1], strict=True)
        )
        outputs += padded[(slice(None), *part)] @ kernel[offset]
    return outputs


@pytest.mark.parametrize("shape", SHAPES)
def test_the_normalised_kernel_has_largest_singular_value_one(shape):
    layer = built(shape)
    for _ in range(60):
        layer.advance_power_iteration()
    assert largest_singular_value(to_numpy(layer.kernel)) > 5
    normalised = to_numpy(layer.normalized_kernel())
    assert normalised.shape == tuple(layer.kernel.shape)
    np.testing.assert_allclose(largest_singular_value(normalised), 1.0, rtol=1e-4)


def test_each_iteration_comes_no_further_from_one():
    layer = built()
    norms = []
    for _ in range(30):
        norms.append(largest_singular_value(to_numpy(layer.normalized_kernel())))
        layer.advance_power_iteration()
    # The estimate is from below, so that the norm comes down to 1.
    assert norms[0] > 1.05
    assert all(later <= before + 1e-5 for before, later in zip(norms, norms[1:], strict=False))
    np.testing.assert_allclose(norms[-1], 1.0, rtol=1e-2)


def test_the_normalised_kernel_points_where_the_kernel_points():
    layer = built(settled=True)
    kernel = to_numpy(layer.kernel)
    np.testing.assert_allclose(
        to_numpy(layer.normalized_kernel()), kernel / largest_singular_value(kernel), rtol=1e-4
    )


def test_a_kernel_below_norm_one_is_scaled_up():
    layer = built(settled=True)
    layer.kernel.assign(0.01 * layer.kernel)
    np.testing.assert_allclose(
        largest_singular_value(to_numpy(layer.normalized_kernel())), 1.0, rtol=1e-4
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_forward_is_the_convolution_with_the_normalised_kernel(shape, kernel_size):
    layer = built(shape, kernel_size=kernel_size, settled=True)
    inputs = random_array(2, *shape[1:], seed=7)
    kernel = to_numpy(layer.kernel).astype("float64")
    expected = reference_convolution(inputs, kernel / largest_singular_value(kernel))
    outputs = to_numpy(layer(inputs))
    assert outputs.shape == (2, *shape[1:-1], 4) == layer.compute_output_shape((2, *shape[1:]))
    np.testing.assert_allclose(outputs, expected + to_numpy(layer.bias), atol=1e-4)


def test_without_bias_zero_goes_to_zero():
    layer = built(use_bias=False)
    assert [variable.name for variable in layer.variables] == ["kernel", "power_vector"]
    np.testing.assert_array_equal(to_numpy(layer(np.zeros((1, 6, 5, 3), "float32"))), 0.0)


@pytest.mark.parametrize("training", [True, False])
def test_a_forward_pass_changes_no_variable(training):
    layer = built()
    before = all_values(layer)
    inputs = random_array(2, 6, 5, 3)
    first = to_numpy(layer(inputs, training=training))
    second = to_numpy(layer(inputs, training=training))
    np.testing.assert_array_equal(first, second)
    for old, new in zip(before, all_values(layer), strict=True):
        np.testing.assert_array_equal(old, new)


def test_advancing_changes_the_power_vector_alone():
    layer = built()
    kernel, bias = to_numpy(layer.kernel).copy(), to_numpy(layer.bias).copy()
    power_vector = to_numpy(layer.power_vector).copy()
    layer.advance_power_iteration()
    np.testing.assert_array_equal(to_numpy(layer.kernel), kernel)
    np.testing.assert_array_equal(to_numpy(layer.bias), bias)
    # One iteration of the power method: K'K v, brought to length one.
    matrix = kernel.reshape(-1, 4).astype("float64")
    expected = matrix.T @ (matrix @ power_vector)
    np.testing.assert_allclose(
        to_numpy(layer.power_vector), expected / np.linalg.norm(expected), atol=1e-5
    )


def test_only_kernel_and_bias_are_trained():
    layer = built()
    assert [variable.name for variable in layer.trainable_variables] == ["kernel", "bias"]


@pytest.mark.parametrize("shape", [(None, 5, 4, 2), (None, 6)])
def test_the_gradient_passes_through_the_normalisation(shape):
    layer = built(shape, filters=3, settled=True)
    weights = random_array(*layer.kernel.shape, seed=5)
    (gradient,) = variable_gradients(
        lambda: ops.sum(as_tensor(weights) * layer.normalized_kernel()), [layer.kernel]
    )
    expected = numerical_gradient(
        lambda kernel: np.sum(weights * kernel) / largest_singular_value(kernel),
        to_numpy(layer.kernel),
    )
    np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())
    # A direction that a kernel's length cannot change: the gradient stands at right angles to it.
    inner = np.sum(gradient * to_numpy(layer.kernel))
    assert abs(inner) < 1e-3 * np.linalg.norm(gradient) * np.linalg.norm(to_numpy(layer.kernel))


def test_the_gradient_reaches_the_inputs():
    layer = built((None, 6), filters=3, settled=True)
    (gradient,) = gradients(lambda inputs: ops.sum(layer(inputs)), random_array(2, 6))
    kernel = to_numpy(layer.kernel)
    expected = (kernel / largest_singular_value(kernel)).sum(axis=1)
    np.testing.assert_allclose(gradient, [expected, expected], atol=1e-5)


def test_half_precision_normalises_in_full_precision():
    layer = built(settled=True, dtype="mixed_float16")
    # Squares and products of 500 are beyond float16.
    layer.kernel.assign(500 * random_array(*layer.kernel.shape, seed=3))
    settle(layer)
    np.testing.assert_allclose(
        largest_singular_value(to_numpy(layer.normalized_kernel())), 1.0, rtol=1e-4
    )
    outputs = layer(as_tensor(random_array(1, 6, 5, 3)))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"
    assert np.abs(to_numpy(outputs)).max() < 20


def test_config_round_trip():
    layer = SpectralConvolution(7, kernel_size=5, use_bias=False, name="logits_of")
    copy = SpectralConvolution.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    copy.build((None, 4, 4, 2))
    assert tuple(copy.kernel.shape) == (5, 5, 2, 7) and copy.bias is None
