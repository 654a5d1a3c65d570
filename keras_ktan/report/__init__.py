"""How much smaller a student is, and how good."""

from keras_ktan.report.compression_report import CompressionReport, compression_report
from keras_ktan.report.counted_call import CountedCall
from keras_ktan.report.exported_file import ExportedFile
from keras_ktan.report.latency import Latency
from keras_ktan.report.model_size import ModelSize, measure_size
from keras_ktan.report.quality import ClassLoss, ModelQuality

__all__ = [
    "ClassLoss",
    "CompressionReport",
    "CountedCall",
    "ExportedFile",
    "Latency",
    "ModelQuality",
    "ModelSize",
    "compression_report",
    "measure_size",
]
