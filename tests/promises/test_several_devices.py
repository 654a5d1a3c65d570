"""Promise 10: several devices and several processes do what one device does.

Each run is a process with a backend of its own, whatever the backend of this session.
"""

import importlib.util

import numpy as np
import pytest
from processes import TESTS, free_address, run_together

pytestmark = pytest.mark.graph

SCRIPT = TESTS / "several_devices_script.py"
ROUND_OFF = {"rtol": 1e-5, "atol": 1e-6}


def on(package):
    """Both marks of a test on a backend: it counts for that, and is left out without it."""

    def mark(test):
        missing = importlib.util.find_spec(package) is None
        skip = pytest.mark.skipif(missing, reason=f"{package} is not installed")
        return pytest.mark.own_processes(package)(skip(test))

    return mark


def read(folder, name):
    with np.load(folder / f"{name}.npz") as arrays:
        return dict(arrays)


def assert_same_numbers(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.all(np.isfinite(value)), name
        np.testing.assert_allclose(found[name], value, **ROUND_OFF, err_msg=name)


def assert_all_learned(numbers):
    """Every weight of every network has moved by far more than round-off."""
    for name, value in numbers.items():
        if name.startswith("start: "):
            moved = np.max(np.abs(numbers[name.replace("start", "end", 1)] - value))
            assert moved > 1e-4, (name, moved)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas")
    run_together(SCRIPT, [["replicas", folder]], backend="tensorflow")
    return folder


@pytest.mark.promise(10)
@on("tensorflow")
@pytest.mark.parametrize("loss", ["given_loss", "own_loss"])
def test_two_replicas_of_a_mirrored_strategy_equal_one_device(replicas, loss):
    one, two = read(replicas, f"{loss}_one"), read(replicas, f"{loss}_two")
    assert_all_learned(one)
    assert "evaluate: weighted_accuracy" in one
    assert not any("discriminator" in name for name in one if name.startswith("evaluate"))
    assert_same_numbers(two, one)


@pytest.mark.long
@pytest.mark.promise(10)
@on("tensorflow")
def test_replicas_draw_noise_of_their_own(replicas):
    # Each got the same images as the one device: with shared noise the numbers would agree.
    one, two = (
        read(replicas, f"noise_{count}")["step: discriminator_loss"] for count in ("one", "two")
    )
    assert abs(float(one[0] - two[0])) > 1e-4


@pytest.mark.promise(10)
@on("tensorflow")
def test_on_replicas_a_distiller_without_distillation_is_student_fit(replicas):
    # With batch normalisation and an uneven last batch Keras's own numbers are the measure.
    assert_same_numbers(read(replicas, "distiller"), read(replicas, "student"))


@pytest.mark.promise(10)
@on("tensorflow")
def test_compile_outside_of_the_scope_of_the_strategy_is_an_error(replicas):
    message = (replicas / "outside.txt").read_text()
    assert "outside of the `tf.distribute.Strategy`" in message
    assert "with strategy.scope()" in message


@pytest.fixture(scope="module")
def devices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    run_together(SCRIPT, [["devices", folder]], backend="jax", devices=2)
    return folder


@pytest.mark.promise(10)
@on("jax")
def test_data_parallel_over_two_devices_equals_one_device(devices):
    one, two = read(devices, "one"), read(devices, "two")
    assert_all_learned(one)
    assert_same_numbers(two, one)


@pytest.mark.long
@pytest.mark.promise(10)
@on("jax")
def test_two_processes_equal_one_process_with_the_same_global_batch(devices, tmp_path):
    address = free_address()
    run_together(
        SCRIPT, [["processes", tmp_path, address, process] for process in (0, 1)], backend="jax"
    )
    first, second = read(tmp_path, "process_0"), read(tmp_path, "process_1")
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)
    assert_same_numbers(first, read(devices, "one"))
