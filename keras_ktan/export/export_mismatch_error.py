"""The error of a file that does not compute what the student computes."""

from keras_ktan.export.export_result import ExportResult


class ExportMismatchError(RuntimeError):
    """An exported file differs from the student by more than is allowed.

    The file is kept under another name, so that it can be looked at but is not shipped.

    Args:
        message: What differs, by how much, and how to fix it.
        result: The `ExportResult` of the file, its `path` included.

    Example:

    ```python
    from keras_ktan.export import ExportMismatchError, ExportResult

    result = ExportResult("a.tflite.failed", "litert", "int8", 900, 0.3, 0.9, 500, "data")
    try:
        raise ExportMismatchError("90 % of the answers agree.", result)
    except ExportMismatchError as error:
        print(error.result.agreement)  # 0.9
    ```
    """

    def __init__(self, message: str, result: ExportResult):
        super().__init__(message)
        self.result = result
