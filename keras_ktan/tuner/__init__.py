"""KerasTuner: the settings that give the best student. It needs the extra `tuner`."""

from keras_ktan.tuner.hypermodel import KTANHyperModel, best_student

__all__ = ["KTANHyperModel", "best_student"]
