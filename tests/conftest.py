"""Quiet backends and a fresh Keras for every test."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import pytest
from backend_limits import why_not
from models import use_double_precision
from promise_record import validate_promises

BACKEND = keras.backend.backend()


def pytest_configure(config):
    if BACKEND == "jax":
        _compile_quickly(config)


# The slowest first: one left for the end would run while the other process has nothing to do.
SLOW_FILES = (
    "test_example_detector_story.py",
    "test_distiller.py",
    "test_step_time.py",
    "test_hypermodel.py",
    "test_teacher_cache.py",
    "test_accuracy_benchmark.py",
    "test_example_cifar10.py",
    "test_divergence_guard.py",
    "test_example_digits.py",
    "test_step.py",
    "test_equal_to_student_fit.py",
    "test_documentation.py",
)


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    for item in items:
        reason = why_not(item, BACKEND)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
        validate_promises(item)


def pytest_collection_finish():
    # Keras and KerasTuner collect garbage again and again; what the imports left is none.
    gc.freeze()


def _compile_quickly(config):
    """Nearly all the time of JAX on a CPU goes into compiling: do less of it, and once.

    The tests' programs run for milliseconds, so optimising them costs more than it gains. What
    is compiled stays in pytest's cache directory for the next run.
    """
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True)
def fresh_keras():
    """Names and policies of one test do not reach the next."""
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True)
def eager_steps(request):
    """Steps run eagerly on TensorFlow, where a compiled graph is not what a test is about.

    Tracing a step takes seconds, and a test takes a few steps. `@pytest.mark.graph` compiles.
    """
    if BACKEND != "tensorflow" or request.node.get_closest_marker("graph"):
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def double_precision():
    """A test in float64; see `use_double_precision`."""
    if BACKEND == "jax":
        import jax

        had_x64 = jax.config.jax_enable_x64
    use_double_precision()
    assert keras.backend.standardize_dtype(keras.ops.ones(1).dtype) == "float64"
    yield
    keras.config.set_floatx("float32")
    if BACKEND == "jax":
        jax.config.update("jax_enable_x64", had_x64)
