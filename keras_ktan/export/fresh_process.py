"""Runs a script of this folder in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

_FOLDER = pathlib.Path(__file__).parent


class FreshProcessError(RuntimeError):
    """A script that ended with an error, or was ended by the system.

    Args:
        code: Its exit code.
        errors: What it wrote to standard error.
    """

    def __init__(self, code, errors):
        super().__init__(
            f"the process was ended by signal {-code}" if code < 0 else errors.strip()[-2000:]
        )
        self.errors = errors


def run_script(name, given, examples=None):
    """Run a script with a JSON file of arguments.

    Args:
        name: The script's file name.
        given: Dict of arguments.
        examples: Optional dict from names to NumPy arrays.

    Returns:
        A dict from names to the arrays that the script wrote, empty if it wrote none.

    Raises:
        FreshProcessError: If it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        files = {key: str(folder / key) for key in ("inputs.npz", "outputs.npz", "names.json")}
        given = dict(given, outputs=files["outputs.npz"], output_names=files["names.json"])
        if examples is not None:
            np.savez(files["inputs.npz"], *examples.values())
            given.update(inputs=files["inputs.npz"], names=list(examples))
        arguments = folder / "arguments.json"
        arguments.write_text(json.dumps(given), encoding="utf-8")
        ended = subprocess.run(
            # -P: the script's own folder holds modules named like packages (onnx).
            [sys.executable, "-P", str(_FOLDER / name), str(arguments)],
            capture_output=True,
            text=True,
            errors="replace",
            cwd=folder,
            # A GPU's memory belongs to the process that trains.
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        if ended.returncode:
            raise FreshProcessError(ended.returncode, ended.stderr)
        if not os.path.exists(files["outputs.npz"]):
            return {}
        names = json.loads(pathlib.Path(files["names.json"]).read_text(encoding="utf-8"))
        with np.load(files["outputs.npz"]) as outputs:
            return {name: outputs[f"arr_{index}"] for index, name in enumerate(names)}


def run_file(format, path, inputs, batch_size):
    """What an exported file computes in a process that has neither Keras nor this package.

    Args:
        format: The file's format.
        path: Where it is, a `pathlib.Path`.
        inputs: Dict from input names to NumPy arrays.
        batch_size: How many examples to run at once.

    Returns:
        A dict from output names to NumPy arrays.

    Raises:
        RuntimeError: If its runtime cannot run it.
    """
    return _run_file(format, path, inputs, batch_size=batch_size)


def time_file(format, path, inputs, batch_size, runs):
    """What `run_file` says, and how long the file's own runtime takes for the first example.

    Both in one process, because a runtime may take seconds to begin.

    Args:
        format: The file's format.
        path: Where it is, a `pathlib.Path`.
        inputs: Dict from input names to NumPy arrays. A single input may have another name in the
            file: Keras numbers those that nobody named, in each process anew.
        batch_size: How many examples to run at once.
        runs: How many times to run the first one, after a few that are not timed; 0: none.

    Returns:
        A tuple of a dict from output names to arrays, and an array of seconds, `None` without runs.

    Raises:
        RuntimeError: If its runtime cannot run it.
    """
    found = _run_file(format, path, inputs, batch_size=batch_size, any_name=True, runs=runs)
    seconds = found.pop(None, None)  # no output has this name
    return found, seconds


def _run_file(format, path, inputs, **options):
    # The script runs in another folder.
    given = {"format": format, "path": str(path.absolute()), **options}
    try:
        return run_script("run_file.py", given, inputs)
    except FreshProcessError as error:
        raise RuntimeError(
            f"The exported file does not run in its own runtime ({format}): {error}"
        ) from error
