"""How much smaller a student is."""

from keras_ktan.report.compression_report import CompressionReport, compression_report
from keras_ktan.report.counted_call import CountedCall
from keras_ktan.report.model_size import ModelSize, measure_size

__all__ = ["CompressionReport", "CountedCall", "ModelSize", "compression_report", "measure_size"]
