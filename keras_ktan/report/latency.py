"""How long one example takes."""

import dataclasses
import os
import platform
import time

import keras
import numpy as np

from keras_ktan.export.examples import random_examples
from keras_ktan.introspection.model_trace import layers_by_path, symbolic_input

_WARM_UP = 5


@dataclasses.dataclass(frozen=True)
class Latency:
    """Times of single examples.

    Args:
        p50: The median, in milliseconds.
        p95: What 95 % of the runs stay below, in milliseconds.
        runs: How many were timed.
    """

    p50: float
    p95: float
    runs: int


def latency_of(seconds):
    """The percentiles of some times.

    Args:
        seconds: Times of single runs.

    Returns:
        A `Latency`.
    """
    p50, p95 = np.percentile(np.asarray(seconds) * 1000, [50, 95])
    return Latency(float(p50), float(p95), len(seconds))


def time_in_turns(calls, runs):
    """Time some functions, one after the other in each round, so that a slow moment meets all.

    Args:
        calls: Dict from names to functions without arguments.
        runs: How many rounds to time.

    Returns:
        A dict from names to lists of seconds.
    """
    seconds = {name: [] for name in calls}
    for turn in range(_WARM_UP + runs):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn >= _WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def one_example(model):
    """One random example for a model.

    Args:
        model: A built `keras.Model`.

    Returns:
        The structure of arrays that the model takes, of batch size 1.
    """
    structure = symbolic_input(model, 1)
    specs = {str(index): spec for index, spec in enumerate(keras.tree.flatten(structure))}
    arrays = random_examples(specs, layers_by_path(model).values(), 1)
    return keras.tree.pack_sequence_as(structure, list(arrays.values()))


def device_name():
    """The backend, its first device and the processor, for people."""
    devices = keras.distribution.list_devices()
    return (
        f"{keras.backend.backend()} on {devices[0] if devices else 'an unknown device'}, "
        f"{_processor()}, {os.cpu_count()} cores"
    )


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            named = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    except OSError:  # not on Linux
        named = []
    return next(iter(named), platform.processor() or platform.machine())
