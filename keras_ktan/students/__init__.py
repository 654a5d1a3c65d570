"""Students that are made from their teacher."""

from keras_ktan.students.slim import slim_student

__all__ = ["slim_student"]
