"""What a measurement is made on."""

import contextlib
import os
import platform

import keras


def describe_device():
    """What the backend computes on."""
    backend = keras.backend.backend()
    name = None
    if backend == "tensorflow":
        import tensorflow as tf

        for device in tf.config.list_physical_devices("GPU")[:1]:
            name = tf.config.experimental.get_device_details(device)["device_name"]
    elif backend == "jax":
        import jax

        device = jax.devices()[0]
        name = device.device_kind if device.platform != "cpu" else None
    else:
        import torch

        name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return name or f"{os.cpu_count()} CPU cores, {platform.machine()}"


def limit_threads(threads):
    """Let TensorFlow use so many threads in this process; 0: as many as it likes."""
    if threads:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


@contextlib.contextmanager
def traced(folder):
    """Let the backend's profiler write what runs meanwhile, kernels of a GPU included.

    Args:
        folder: A `pathlib.Path` to be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        context = tf.profiler.experimental.Profile(str(folder))
    elif backend == "jax":
        import jax

        context = jax.profiler.trace(str(folder))
    else:
        import torch

        handler = torch.profiler.tensorboard_trace_handler(str(folder))
        context = torch.profiler.profile(on_trace_ready=handler)
    with context:
        yield
