"""How much smaller a student is."""

from keras_ktan.report.compression_report import CompressionReport, ModelSize, compression_report

__all__ = ["CompressionReport", "ModelSize", "compression_report"]
