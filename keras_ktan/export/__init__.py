"""Files to ship: SavedModel, LiteRT and ONNX, each checked after it is written."""

from keras_ktan.export.export_mismatch_error import ExportMismatchError
from keras_ktan.export.export_result import ExportResult
from keras_ktan.export.export_student import export_student

__all__ = ["ExportMismatchError", "ExportResult", "export_student"]
