"""The one place that differs between backends: gradients, and who moves by them."""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_ktan.train_step.tensorflow import TrainStep
else:
    raise ImportError(
        f"keras_ktan has no train step for the backend '{keras.backend.backend()}' yet. "
        "Set the environment variable KERAS_BACKEND=tensorflow before the first import of keras."
    )

__all__ = ["TrainStep"]
