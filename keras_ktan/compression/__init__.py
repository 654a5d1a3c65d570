"""The parts of `keras_ktan.compress`."""

from keras_ktan.compression.compression_result import CompressionResult

__all__ = ["CompressionResult"]
