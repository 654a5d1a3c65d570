"""KerasTuner: the settings that give the best student. It needs the extra `tuner`."""

# First: it says what to install where the extra is missing.
from keras_ktan.tuner.hypermodel import KTANHyperModel

# isort: split
from keras_ktan.tuner.best_student import best_student

__all__ = ["KTANHyperModel", "best_student"]
