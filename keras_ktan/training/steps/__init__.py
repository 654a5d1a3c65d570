"""The one place that differs between backends: gradients, and which weights they move."""

import importlib

import keras

BACKENDS = ("tensorflow", "jax", "torch")

if keras.backend.backend() not in BACKENDS:
    raise ImportError(
        f"keras_ktan cannot train on the backend '{keras.backend.backend()}'. Expected one of "
        f"{BACKENDS}. Set the environment variable KERAS_BACKEND before the first import of keras."
    )

# Only the backend that Keras runs on is imported.
TrainStep = importlib.import_module(
    f"keras_ktan.training.steps.{keras.backend.backend()}"
).TrainStep

__all__ = ["TrainStep"]
