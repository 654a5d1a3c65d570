"""The command `keras-ktan`: reports on models and exports them, without a line of Python."""

import argparse
import pathlib
import sys
import warnings

import keras
import numpy as np

from keras_ktan.export import export_student
from keras_ktan.introspection.model_inputs import input_names
from keras_ktan.report import compression_report

_ARRAYS = (
    "a NumPy .npz file with the array x (the inputs; with several inputs, one array for each, "
    "named like the input)"
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: What stands after the command's name; `None` reads it from the command line.

    Returns:
        The exit code: 0 if all is well, 1 if something was refused or failed. What `argparse`
        does not understand ends the process with 2.
    """
    given = make_parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _say(f"warning: {_one_line(message)}")
        try:
            given.run(given)
        # Whatever a model, a file or a converter raises becomes one line and the code 1.
        except Exception as error:
            _say(f"error: {_one_line(error)}")
            return 1
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line.

    Returns:
        An `argparse.ArgumentParser`, whose results have the function `run`.
    """
    parser = argparse.ArgumentParser(
        prog="keras-ktan",
        description="Report on a student beside its teacher, or export it to a file to ship.",
        epilog="Models are .keras files and are loaded in Keras's safe mode: a file that holds "
        "code (a Lambda layer) is refused. Exit codes: 0 all is well, 1 refused or failed, with "
        "one line that says why, 2 the command line is wrong.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_report(commands)
    _add_export(commands)
    return parser


def _add_report(commands):
    report = commands.add_parser(
        "report",
        help="print how much smaller a student is, and how good",
        description="Print one table: parameters, MACs, bytes and memory of both models; with "
        "--data also accuracy, agreement and calibration.",
    )
    report.add_argument("teacher", type=pathlib.Path, help="the teacher, a .keras file")
    report.add_argument("student", type=pathlib.Path, help="the student, a .keras file")
    report.add_argument(
        "--data", type=pathlib.Path, metavar="FILE", help=f"{_ARRAYS} and the array y (the labels)"
    )
    report.add_argument(
        "--files",
        nargs="+",
        type=pathlib.Path,
        default=[],
        metavar="FILE",
        help="files exported from the student, to be measured as well",
    )
    report.add_argument(
        "--latency", action="store_true", help="time models and files on single examples, too"
    )
    report.add_argument(
        "--json", action="store_true", help="print every number as JSON in the place of the table"
    )
    report.set_defaults(run=_run_report)


def _add_export(commands):
    export = commands.add_parser(
        "export",
        help="write a student as a file to ship, and check it",
        description="Write a student in the format that the name says (.tflite: LiteRT, .onnx: "
        "ONNX, else the folder of a SavedModel), run the file by its own runtime, and compare it "
        "with the student. A file that differs is kept as NAME.failed.",
    )
    export.add_argument("student", type=pathlib.Path, help="the student, a .keras file")
    export.add_argument("output", type=pathlib.Path, help="where to write")
    precision = export.add_mutually_exclusive_group()
    for name, effect in (
        ("float16", "weights in 16 bits (LiteRT only)"),
        ("dynamic_int8", "weights in 8 bits (LiteRT only)"),
        ("int8", "weights and maps in 8 bits (LiteRT only); it needs --calibration"),
    ):
        precision.add_argument(
            f"--{name.replace('_', '-')}",
            dest="precision",
            action="store_const",
            const=name,
            help=effect,
        )
    export.add_argument(
        "--calibration",
        type=pathlib.Path,
        metavar="FILE",
        help=f"{_ARRAYS}: some hundred typical inputs, on which --int8 measures all ranges",
    )
    export.add_argument(
        "--data",
        type=pathlib.Path,
        metavar="FILE",
        help=f"{_ARRAYS}: inputs on which file and student are compared (default: those of "
        "--calibration, else random ones)",
    )
    export.add_argument(
        "--softmax", action="store_true", help="end in a softmax over the last axis"
    )
    export.add_argument(
        "--rescaling",
        nargs=2,
        type=float,
        metavar=("SCALE", "OFFSET"),
        help="begin with x * SCALE + OFFSET; the inputs of --calibration and --data are then what "
        "the file takes",
    )
    export.add_argument(
        "--batch-size", type=int, metavar="N", help="fix the size of the batch axis (default: open)"
    )
    for end in ("input", "output"):
        export.add_argument(
            f"--{end}-dtype",
            choices=("float32", "int8", "uint8"),
            help=f"what the {end}s are with --int8 (default: float32)",
        )
    export.add_argument(
        "--tolerance",
        type=float,
        metavar="SHARE",
        help="largest difference allowed, as a share of the output's size (default: 1e-4, 1e-2 "
        "with --float16, none in 8 bits)",
    )
    export.add_argument(
        "--agreement",
        type=float,
        metavar="SHARE",
        help="smallest share of equal answers allowed (default: 0.98 in 8 bits, else 0)",
    )
    export.set_defaults(run=_run_export, precision=None)


def _run_report(given):
    teacher, student = _load(given.teacher), _load(given.student)
    data = None
    if given.data is not None:
        arrays = _arrays(given.data)
        labels = arrays.pop("y", None)
        if labels is None:
            raise ValueError(
                f"Received '{given.data}' with the arrays {sorted(arrays)}. Expected the labels as "
                "the array y. Write it with np.savez(..., y=labels)."
            )
        data = _inputs(given.data, arrays, teacher), labels
    with warnings.catch_warnings():
        # What it warns of is in the report as well.
        warnings.filterwarnings("ignore", module=r"keras_ktan\.cli$")
        report = compression_report(
            teacher, student, data=data, files=given.files, latency=given.latency
        )
    print(report.to_json() if given.json else report)


def _run_export(given):
    student = _load(given.student)
    data = {
        name: None if path is None else _inputs(path, _arrays(path), student)
        for name, path in (("calibration_data", given.calibration), ("data", given.data))
    }
    result = export_student(
        student,
        given.output,
        precision=given.precision or "float32",
        softmax=given.softmax,
        rescaling=None if given.rescaling is None else tuple(given.rescaling),
        batch_size=given.batch_size,
        input_dtype=given.input_dtype,
        output_dtype=given.output_dtype,
        tolerance=given.tolerance,
        agreement=given.agreement,
        verbose=False,
        **data,
    )
    print(result)


def _load(path):
    # Keras ignores its safe mode in older formats, so these are not read at all.
    if path.suffix != ".keras":
        raise ValueError(
            f"Received the model '{path}'. Expected a .keras file, which can be loaded safely. "
            "Save the model by `model.save('model.keras')`."
        )
    if not path.exists():
        raise ValueError(
            f"Received the model '{path}', which is not there. Expected a .keras file."
        )
    # What a model was compiled with is not needed here, and may be of the user's own.
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _arrays(path):
    try:
        # A pickled array would run code.
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive.items())
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"Received '{path}', which cannot be read as arrays ({error}). Expected a NumPy .npz "
            "file of numbers. Write it with np.savez('data.npz', x=inputs, y=labels)."
        ) from error


def _inputs(path, arrays, model):
    arrays = {name: array for name, array in arrays.items() if name != "y"}
    if set(arrays) == {"x"}:
        return arrays["x"]
    names = input_names(model) or []
    if set(arrays) != set(names):
        raise ValueError(
            f"Received '{path}' with the arrays {sorted(arrays)}. Expected x, or one for each of "
            f"the inputs {names}. Name them so in np.savez(...)."
        )
    return arrays


def _one_line(message):
    return " ".join(str(message).split()) or type(message).__name__


def _say(line):
    print(f"keras-ktan: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
