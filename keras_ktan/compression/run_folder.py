"""The folder of a run, with what is finished in it."""

import errno
import json
import pathlib
import shutil
import tempfile

from keras_ktan.utils.atomic_file import remove_unfinished, write_atomically
from keras_ktan.utils.messages import shortened

_FORMAT = 1
_STATE = "state.json"
# What a process that was killed may have left unfinished; the students as well.
_WRITTEN = (_STATE, "start.state", "start.keras", "student.keras", "report.md", "report.json")


class RunFolder:
    """The output folder of `compress`, and a small file that says what is done.

    Args:
        path: The folder. It is made if it is missing.
        settings: Dict of what decides over the training.

    Raises:
        ValueError: If the folder holds something other than a run, or a run of other settings.
        OSError: If it cannot be written.
    """

    def __init__(self, path, settings):
        self.path = pathlib.Path(path).absolute()
        self._state_path = self.path / _STATE
        # As JSON gives it back.
        settings = json.loads(json.dumps(settings))
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(
                f"Received output='{path}', which is a file. Expected a folder. Choose another "
                "name."
            )
        self._state = self._read(settings) if self.path.exists() else None
        self.path.mkdir(parents=True, exist_ok=True)
        # Now, and not after the training.
        with tempfile.TemporaryFile(dir=self.path) as file:
            file.write(b"0" * 4096)
        if self._state is None:
            self._state = {
                "format": _FORMAT,
                "settings": settings,
                "methods": {},
                "files": {},
            }
        for name in [*_WRITTEN, *(path.name for path in self.path.glob("*.keras"))]:
            remove_unfinished(self.path / name)
        self._write()

    def _read(self, settings):
        if not self._state_path.is_file():
            found = sorted(entry.name for entry in self.path.iterdir())
            if found:
                raise ValueError(
                    f"Received output='{self.path}', a folder that holds {found[:3]} and no run of "
                    "`compress`. Expected a new or empty folder, or that of a stopped run. Choose "
                    "another name."
                )
            return None
        try:
            state = json.loads(self._state_path.read_text(encoding="utf-8"))
            if state["format"] != _FORMAT:
                raise ValueError(f"format {state['format']!r}")
            recorded, methods = state["settings"], state["methods"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"Received output='{self.path}', whose {_STATE} cannot be read ({error}). Expected "
                "what this version of `compress` wrote. Choose another folder."
            ) from error
        unlike = sorted(
            name for name in {*settings, *recorded} if settings.get(name) != recorded.get(name)
        )
        if not unlike:
            return state
        if not any(run["history"] for run in methods.values()):
            # No epoch was finished: a mistake is put right in the same folder.
            for entry in (*self.path.glob("*.backup*"), *self.path.glob("start.state")):
                entry.unlink()
            return None
        details = "; ".join(
            f"{name}: {shortened(recorded.get(name))} there, {shortened(settings.get(name))} here"
            for name in unlike
        )
        raise ValueError(
            f"Received output='{self.path}', the folder of a run with other settings ({details}). "
            "Expected the same ones, to go on with it. Pass them again, or choose another folder."
        )

    def _write(self):
        text = json.dumps(self._state, indent=1)
        self.write_text(_STATE, text)

    def write_text(self, name, text):
        """Write a text file that is there whole or not at all.

        Args:
            name: Its name in the folder.
            text: What it holds.

        Returns:
            Its path.
        """
        path = self.path / name
        write_atomically(path, lambda beside: pathlib.Path(beside).write_text(text, "utf-8"))
        return path

    def require_room(self, size):
        """Check that the disk has room.

        Args:
            size: Bytes that will be written, estimated.

        Raises:
            OSError: If it has not.
        """
        free = shutil.disk_usage(self.path).free
        if free < size:
            raise OSError(
                errno.ENOSPC,
                f"The disk has {free / 1e6:,.1f} MB left. Expected room for the backups, students "
                f"and files of this run, about {size / 1e6:,.1f} MB. Make room, or choose another "
                "`output`",
                str(self.path),
            )

    # What is done.

    @property
    def has_begun(self):
        """Whether an epoch was finished."""
        return any(run["history"] for run in self._state["methods"].values())

    def history(self, method):
        """The logs of the epochs that a method has finished; a list of dicts."""
        return self._state["methods"].get(method, {"history": []})["history"]

    def record_epoch(self, method, epoch, logs):
        """Write down an epoch's logs. One that is trained again replaces what was there.

        Args:
            method: The method's name.
            epoch: The epoch's number, from 0.
            logs: Dict of numbers.
        """
        run = self._state["methods"].setdefault(method, {"history": []})
        logs = {name: float(value) for name, value in logs.items()}
        run["history"] = [*run["history"][:epoch], logs]
        self._write()

    def finished(self, method):
        """What `finish` recorded of a method, or `None`."""
        return self._state["methods"].get(method, {}).get("finished")

    def finish(self, method, found):
        """Write down that a method is trained.

        Args:
            method: The method's name.
            found: Dict of what JSON can hold.
        """
        self._state["methods"][method]["finished"] = found
        self._write()

    def file(self, format, options):
        """What `add_file` recorded of a file that is still there.

        Args:
            format: Name of the format.
            options: How it is to be written; a dict.

        Returns:
            A dict, or `None` if it has to be written.
        """
        entry = self._state["files"].get(format)
        if entry is None or entry["options"] != json.loads(json.dumps(options)):
            return None
        return entry["result"] if pathlib.Path(self.path / entry["name"]).exists() else None

    def add_file(self, format, name, options, result):
        """Write down that a file is written and checked.

        Args:
            format: Name of the format.
            name: The file's name in the folder.
            options: How it was written; a dict.
            result: Dict of the fields of an `ExportResult`.
        """
        self._state["files"][format] = {"name": name, "options": options, "result": result}
        self._write()
