"""Start Python scripts in processes of their own and wait for them, for a limited time."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time

TESTS = pathlib.Path(__file__).parent


def free_address():
    """An address on this machine that nobody listens on."""
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def run_together(script, argument_lists, backend, devices=1, timeout=420):
    """Run a script once for each list of arguments, all at the same time, on the CPU.

    Args:
        script: Path of the script.
        argument_lists: List of lists of arguments, one a process.
        backend: What `KERAS_BACKEND` is in these processes.
        devices: How many devices JAX is to make of this machine's CPU.
        timeout: Seconds after which all are ended and the test fails.

    Returns:
        A list of what each process printed.
    """
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "-1",
        # Nearly all of such a process's time is JAX compiling what then runs for milliseconds.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        # With these TensorFlow's fused convolution fails on a batch without an example, which
        # a replica gets when the last batch is small; a plain Keras model fails with it.
        "TF_ENABLE_ONEDNN_OPTS": "0",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for arguments in argument_lists
    ]
    end = time.monotonic() + timeout
    printed = []
    try:
        for process in processes:
            printed.append(process.communicate(timeout=max(1.0, end - time.monotonic()))[0])
    finally:
        # One that fails leaves the others waiting for it.
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    for process, text in zip(processes, printed, strict=True):
        assert process.returncode == 0, text[-3000:]
    return printed
