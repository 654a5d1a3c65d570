"""What `export_student` wrote, and how the file compares with the student."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """An exported file and what its own runtime computed.

    Args:
        path: Where the file or folder is, as a string.
        format: `"tf_saved_model"`, `"litert"` or `"onnx"`.
        precision: `"float32"`, `"float16"`, `"dynamic_int8"` or `"int8"`.
        bytes: Size on disk. For a folder, of all its files.
        largest_difference: The largest absolute difference between the file's outputs and
            the student's, divided by the largest absolute value of that output.
        agreement: The share of answers that are the same, from 0 to 1; see `export_student`.
            With several outputs, the smallest share.
        examples: How many examples were compared.
        data: Where they came from: `"data"`, `"calibration_data"` or `"random"`; from `compress`
            always `"validation_data"`.
        rescaling: Dict from input names to the `(scale, offset)` that the file begins with, each
            a number or a list; `None` without `rescaling`.

    Example:

    ```python
    from keras_ktan.export import ExportResult

    result = ExportResult("student.tflite", "litert", "int8", 52_000, 0.02, 0.996, 500, "data")
    print(result)
    ```
    """

    path: str
    format: str
    precision: str
    bytes: int
    largest_difference: float
    agreement: float
    examples: int
    data: str
    rescaling: dict | None = None

    def __str__(self):
        source = "random inputs" if self.data == "random" else f"examples of `{self.data}`"
        return (
            f"{self.path}: {self.format}, {self.precision}, {self.bytes:,} bytes. Compared with "
            f"the student on {self.examples} {source}: largest difference "
            f"{self.largest_difference:.1e} of the output's size, "
            f"{self.agreement:.1%} of the answers agree."
        )
