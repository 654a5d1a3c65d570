"""The files that a student is exported to."""

import dataclasses

from keras_ktan.compression.settings import described, described_data
from keras_ktan.export import ExportResult, export_student
from keras_ktan.export.preparation import prepare_export

# From the formats of `compress` to the file's name and the precision of LiteRT.
_FORMATS = {
    "tf_saved_model": ("saved_model", "float32"),
    "litert": ("student.tflite", "float32"),
    "float16": ("student_float16.tflite", "float16"),
    "dynamic_int8": ("student_dynamic_int8.tflite", "dynamic_int8"),
    "int8": ("student_int8.tflite", "int8"),
    "onnx": ("student.onnx", "float32"),
}
_OPTIONS = ("agreement", "batch_size", "input_dtype", "max_examples", "output_dtype", "tolerance")
_INT8_OPTIONS = ("input_dtype", "output_dtype")


class StudentFiles:
    """What is to be exported, checked before the training.

    Args:
        formats: Names of formats.
        options: Optional dict of arguments of `export_student`.
        calibration_data: What `"int8"` is calibrated on.
        data: Inputs to compare the files on.
        record: What stands for the data in the run's folder, so that other data are noticed.

    Raises:
        ValueError: If a format or an option is not known, or an option would not be used.
    """

    def __init__(self, formats, options, calibration_data, data, record):
        formats = [formats] if isinstance(formats, str) else list(formats)
        unknown = [name for name in formats if name not in _FORMATS]
        if unknown or len(set(formats)) < len(formats):
            raise ValueError(
                f"Received formats={formats}. Expected some of {list(_FORMATS)}, each once, or "
                "none. Correct the names."
            )
        self.options = dict(options or {})
        unknown = sorted(set(self.options) - set(_OPTIONS))
        if unknown:
            raise ValueError(
                f"Received {unknown} in `export`. Expected some of {list(_OPTIONS)}. For others "
                "call `export_student` on the student that `compress` returns."
            )
        unused = [name for name in _INT8_OPTIONS if name in self.options and "int8" not in formats]
        if unused:
            raise ValueError(
                f"Received {unused} in `export` for formats={formats}, which do not use it. "
                "Expected 'int8' among them. Leave it out, or add the format."
            )
        self.formats = formats
        self._calibration_data = calibration_data
        self._data = data
        self._record = record

    def names(self):
        """Dict from formats to the files' names."""
        return {name: _FORMATS[name][0] for name in self.formats}

    def validate(self, student, folder):
        """Check what can be known before the training.

        Args:
            student: The student, trained or not.
            folder: `pathlib.Path` of the output folder.

        Raises:
            ValueError: If a format cannot hold the student, or the calibration data do not fit.
            ImportError: If a package is missing.
        """
        for format in self.formats:
            prepare_export(student, folder / _FORMATS[format][0], **self._arguments(format))

    def write(self, student, folder, say):
        """Export what is not there yet.

        Args:
            student: The trained student.
            folder: The `RunFolder`.
            say: Function that prints a line.

        Returns:
            A tuple: a dict from formats to `ExportResult`s, and one from the formats that failed
            to the errors.
        """
        results, errors = {}, {}
        for format in self.formats:
            name = _FORMATS[format][0]
            record = self._record_of(format)
            done = folder.file(format, record)
            if done is not None:
                results[format] = ExportResult(**{**done, "path": str(folder.path / name)})
                say(f"  {name}: there already")
                continue
            try:
                result = export_student(
                    student,
                    folder.path / name,
                    data=self._data,
                    verbose=False,
                    **self._arguments(format),
                )
                # `data` is another argument of `compress`.
                results[format] = dataclasses.replace(result, data="validation_data")
            # Whatever it is, the other files are written, and the caller raises it.
            except Exception as error:
                errors[format] = error
                say(f"  {name}: {type(error).__name__}")
                continue
            folder.add_file(format, name, record, dataclasses.asdict(results[format]))
            say(f"  {results[format]}")
        return results, errors

    def _arguments(self, format):
        precision = _FORMATS[format][1]
        options = {
            name: value
            for name, value in self.options.items()
            if format == "int8" or name not in _INT8_OPTIONS
        }
        if format == "int8":
            options["calibration_data"] = self._calibration_data
        return {"precision": precision, **options}

    def _record_of(self, format):
        arguments = {**self._arguments(format), "calibration_data": None}
        return {**described(arguments), "data": self._record if format == "int8" else None}


def record_of_calibration(calibration_data, data):
    """What stands for the calibration data in the run's folder.

    Args:
        calibration_data: What the user passed, or `None`.
        data: The training data, from which they are drawn then.

    Returns:
        What JSON can hold.
    """
    if calibration_data is None:
        return described_data(data)
    if hasattr(calibration_data, "shape") or isinstance(calibration_data, (dict, list, tuple)):
        return described(calibration_data)
    return described_data(calibration_data)
