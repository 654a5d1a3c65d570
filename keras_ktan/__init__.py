"""keras_ktan: make a small Keras 3 model out of a big one, inside `compile` and `fit`."""

from keras_ktan.cache import TeacherCache
from keras_ktan.compress import compress
from keras_ktan.distiller import KTANDistiller
from keras_ktan.export import export_student
from keras_ktan.feature_pair import FeaturePair
from keras_ktan.introspection.feature_maps import feature_maps
from keras_ktan.layers.discriminator import FeatureDiscriminator
from keras_ktan.layers.teacher_to_student import TeacherToStudent
from keras_ktan.output_pair import OutputPair
from keras_ktan.report import compression_report
from keras_ktan.students import slim_student

__version__ = "0.1.0"

__all__ = [
    "FeatureDiscriminator",
    "FeaturePair",
    "KTANDistiller",
    "OutputPair",
    "TeacherCache",
    "TeacherToStudent",
    "compress",
    "compression_report",
    "export_student",
    "feature_maps",
    "slim_student",
]
