"""keras_ktan: make a small Keras model as good as a big one taught it to be."""

from keras_ktan.discriminator import FeatureDiscriminator
from keras_ktan.distiller import KTANDistiller
from keras_ktan.feature_pair import FeaturePair
from keras_ktan.report import compression_report
from keras_ktan.student_export import export_student
from keras_ktan.teacher_cache import TeacherCache
from keras_ktan.teacher_to_student import TeacherToStudent

__version__ = "0.1.0"

__all__ = [
    "FeatureDiscriminator",
    "FeaturePair",
    "KTANDistiller",
    "TeacherCache",
    "TeacherToStudent",
    "compression_report",
    "export_student",
]
