"""Callbacks for a distillation."""

from keras_ktan.callbacks.divergence_guard import DivergenceGuard
from keras_ktan.callbacks.resumable_backup import ResumableBackup
from keras_ktan.callbacks.student_checkpoint import StudentCheckpoint

__all__ = ["DivergenceGuard", "ResumableBackup", "StudentCheckpoint"]
