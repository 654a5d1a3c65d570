"""The student as a file that runs without this package."""

from keras_ktan.export.student_export import export_student

__all__ = ["export_student"]
