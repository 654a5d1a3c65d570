"""Callbacks for a distillation."""

from keras_ktan.callbacks.student_checkpoint import StudentCheckpoint

__all__ = ["StudentCheckpoint"]
