"""Resizing against matrices written out by hand and against an independent NumPy version."""

import keras
import numpy as np
import pytest
from helpers import as_tensor, gradients, random_array, to_numpy
from keras import ops

from keras_ktan.layers.resize import averaging_matrix, resize_map


def reference_resize(values, size):
    """One axis to another length: exact areas going down, `np.interp` going up."""
    values = np.asarray(values, "float64")
    if size <= len(values):
        # Every cell in `size` parts; then a cell of the target is len(values) parts.
        return np.repeat(values, size).reshape(size, len(values)).mean(axis=1)
    centres = (np.arange(size) + 0.5) * len(values) / size - 0.5
    return np.interp(centres, np.arange(len(values)), values)


def reference_map(features, size):
    for axis, wanted in enumerate(size, start=1):
        features = np.apply_along_axis(reference_resize, axis, features, wanted)
    return features


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (4, 2, [[1 / 2, 1 / 2, 0, 0], [0, 0, 1 / 2, 1 / 2]]),
        # A target cell is 1.5 source cells wide: the middle one is shared.
        (3, 2, [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]),
        (5, 3, [[3 / 5, 2 / 5, 0, 0, 0], [0, 1 / 5, 3 / 5, 1 / 5, 0], [0, 0, 0, 2 / 5, 3 / 5]]),
        (4, 1, [[1 / 4] * 4]),
        # Centres at -1/6, 1/2 and 7/6; the outer two are held at the ends.
        (2, 3, [[1, 0], [1 / 2, 1 / 2], [0, 1]]),
        # Centres at -1/4, 1/4, 3/4, 5/4.
        (2, 4, [[1, 0], [3 / 4, 1 / 4], [1 / 4, 3 / 4], [0, 1]]),
        (1, 3, [[1], [1], [1]]),
        (3, 3, np.eye(3)),
    ],
)
def test_matrices_by_hand(source, target, expected):
    np.testing.assert_allclose(to_numpy(averaging_matrix(source, target)), expected, atol=1e-6)


@pytest.mark.parametrize("source", [1, 3, 16, 33])
def test_rows_sum_to_one_and_nothing_is_negative(source):
    for target in (1, 2, 5, 16, 31, 64):
        matrix = to_numpy(averaging_matrix(source, target))
        assert matrix.shape == (target, source)
        np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-5)
        assert np.all(matrix >= 0)


def test_random_sizes_against_an_independent_version():
    generator = np.random.default_rng(0)
    for _ in range(20):
        source, target = (int(size) for size in generator.integers(1, 40, 2))
        values = generator.normal(size=source)
        found = to_numpy(averaging_matrix(source, target)).astype("float64") @ values
        np.testing.assert_allclose(
            found, reference_resize(values, target), atol=2e-5, err_msg=f"{source} to {target}"
        )


def test_sizes_may_be_tensors():
    found = averaging_matrix(ops.convert_to_tensor(5, "int32"), ops.convert_to_tensor(3, "int32"))
    np.testing.assert_allclose(to_numpy(found), to_numpy(averaging_matrix(5, 3)), atol=1e-6)


@pytest.mark.parametrize("size", [(4, 4), (3, 2), (5, 7), (1, 1)])
def test_going_down_keeps_the_mean(size):
    features = random_array(2, 9, 7, 3)
    resized = to_numpy(resize_map(as_tensor(features), size))
    np.testing.assert_allclose(resized.mean((1, 2)), features.mean((1, 2)), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 6, 8, 3), (3, 4)),
        ((2, 7, 5, 3), (3, 2)),
        ((2, 3, 4, 3), (8, 5)),
        ((2, 9, 3, 2), (4, 7)),  # down in height, up in width
        ((2, 3, 9, 2), (7, 4)),  # and the other way round
        ((2, 6, 5, 2), (6, 3)),  # one axis stays
        ((3, 10, 4), (7,)),
        ((3, 4, 4), (11,)),
    ],
)
def test_maps_against_an_independent_version(shape, size):
    features = random_array(*shape)
    resized = to_numpy(resize_map(as_tensor(features), size))
    np.testing.assert_allclose(resized, reference_map(features, size), atol=1e-5)


def test_vectors_have_nothing_to_resize():
    features = random_array(3, 5)
    np.testing.assert_array_equal(to_numpy(resize_map(as_tensor(features), ())), features)


def test_an_equal_size_changes_no_bit():
    features = random_array(2, 5, 3, 4)
    np.testing.assert_array_equal(to_numpy(resize_map(as_tensor(features), (5, 3))), features)


@pytest.mark.parametrize("size", [(2, 3), (11, 9), (2, 9), (5, 7)])
def test_a_constant_map_stays_constant(size):
    resized = to_numpy(resize_map(ops.full((1, 5, 7, 2), 3.0), size))
    assert resized.shape == (1, *size, 2)
    np.testing.assert_allclose(resized, 3.0, rtol=1e-5)


def test_half_precision_stays_half_precision():
    features = ops.cast(random_array(1, 4, 4, 2), "float16")
    resized = resize_map(features, (2, 2))
    assert keras.backend.standardize_dtype(resized.dtype) == "float16"
    full = reference_map(to_numpy(features), (2, 2))
    np.testing.assert_allclose(to_numpy(resized), full, atol=2e-3)


@pytest.mark.parametrize("size", [(2, 3), (8, 9)])
def test_the_gradient_is_the_transposed_matrices(size):
    features, weights = random_array(1, 5, 4, 2), random_array(1, *size, 2, seed=1)
    (gradient,) = gradients(
        lambda values: ops.sum(resize_map(values, size) * as_tensor(weights)), features
    )
    rows = np.stack([reference_resize(unit, size[0]) for unit in np.eye(5)], axis=1)
    columns = np.stack([reference_resize(unit, size[1]) for unit in np.eye(4)], axis=1)
    expected = np.einsum("ph,qw,npqc->nhwc", rows, columns, weights)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
