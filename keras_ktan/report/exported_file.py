"""Exported files in a report: their size, and what their own runtime computes."""

import dataclasses
import pathlib

import numpy as np

from keras_ktan.export.arguments import settle_format
from keras_ktan.export.atomic_path import bytes_of
from keras_ktan.export.examples import take_examples
from keras_ktan.export.export_result import ExportResult
from keras_ktan.export.fresh_process import time_file
from keras_ktan.export.requirements import require_packages
from keras_ktan.export.serving_model import ServingModel

_BATCH = 32


@dataclasses.dataclass(frozen=True)
class ExportedFile:
    """One file made from the student.

    Args:
        name: What the report calls it: the file's name, a folder's with a slash at the end.
        path: Where it is.
        format: `"tf_saved_model"`, `"litert"` or `"onnx"`.
        bytes: Its size on disk, for a folder that of all its files.
        rescaling: `ExportResult.rescaling`: what the file does to its inputs first.
    """

    name: str
    path: str
    format: str
    bytes: int
    rescaling: dict | None = None

    def inputs(self, student, x):
        """The student's inputs by name, in the range that the file takes.

        Args:
            student: The student.
            x: Structure of arrays as `student.predict` takes them.

        Returns:
            A dict from names to arrays.
        """
        model = ServingModel(student, rescaling=self.rescaling)
        arrays = take_examples(x, "data", model.specs(), model.input_structure(), limit=None)
        undone = model.undo_rescaling(arrays)
        return {name: array.astype(arrays[name].dtype) for name, array in undone.items()}

    def run(self, inputs, timed_runs=0):
        """What the file's runtime computes and how long it takes, in a process of its own.

        Args:
            inputs: Dict from names to arrays.
            timed_runs: How many runs of the first example to time.

        Returns:
            A tuple of the list of output arrays and the array of seconds, `None` without timed
            runs.
        """
        require_packages(self.format)
        path = pathlib.Path(self.path)
        found, seconds = time_file(self.format, path, inputs, _BATCH, timed_runs)
        return list(found.values()), seconds


def exported_files(files):
    """Find the files that a user passes.

    Args:
        files: A list of paths or `ExportResult`s; one of them; `None`.

    Returns:
        A list of `ExportedFile`.

    Raises:
        ValueError: If one is not there or is no file of a known format.
    """
    if files is None:
        return []
    if isinstance(files, (str, pathlib.PurePath, ExportResult)):
        files = [files]
    found = [_exported_file(file) for file in files]
    names = [file.name for file in found]
    return [
        file if names.count(file.name) == 1 else dataclasses.replace(file, name=file.path)
        for file in found
    ]


def _exported_file(file):
    path = pathlib.Path(file.path if isinstance(file, ExportResult) else file)
    format = settle_format(path, None)
    if not path.exists() or path.is_dir() != (format == "tf_saved_model"):
        raise ValueError(
            f"Received the file '{path}' in `files`, where no {format} is. Expected the path of a "
            "file that `export_student` wrote, or the `ExportResult` it returned. Export first."
        )
    name = f"{path.name}/" if path.is_dir() else path.name
    rescaling = getattr(file, "rescaling", None)
    return ExportedFile(name, str(path), format, bytes_of(path), rescaling)


def scores_of(outputs, classes):
    """The one output of a classifier's file.

    Args:
        outputs: List of arrays.
        classes: How many scores an example has.

    Returns:
        The array.

    Raises:
        ValueError: If the file gives something else.
    """
    shapes = [np.shape(array) for array in outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] != classes:
        raise ValueError(
            f"Received a file whose outputs have the shapes {shapes}. Expected one of "
            f"(examples, {classes}), as the student gives it. Pass files made from this student."
        )
    return outputs[0]
