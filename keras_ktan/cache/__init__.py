"""TeacherCache: the teacher's outputs, computed once."""

from keras_ktan.cache.teacher_cache import TeacherCache

__all__ = ["TeacherCache"]
