"""A log of finished runs, so that a stopped experiment goes on where it stopped."""

import hashlib
import json
import os

import numpy as np


class RunLog:
    """Finished runs, one JSON line each, and the settings that all of them share.

    The settings lie in `settings.json`, the runs in `runs.jsonl`. A folder without recorded
    settings is started anew, with `resume` or without.

    Args:
        folder: `pathlib.Path` of the experiment; it is made if it is missing.
        settings: Dict of what the runs depend on, of values that JSON can hold.
        resume: Whether runs that are there already may be continued.

    Raises:
        ValueError: If there are runs and `resume` is false, if the recorded settings are
            missing or differ from `settings`, or if a finished line cannot be read.
    """

    def __init__(self, folder, settings, resume=False):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "runs.jsonl"
        self.settings_path = folder / "settings.json"
        has_runs = self.path.exists() and self.path.stat().st_size > 0
        if has_runs and not resume:
            raise ValueError(
                f"{self.path} holds finished runs. Expected an empty folder for a new "
                "experiment. Go on with these runs by --resume, or name another --output."
            )
        is_continued = resume and self.settings_path.exists()
        if has_runs and not is_continued:
            raise ValueError(
                f"{self.path} holds runs, but {self.settings_path} is missing. Expected it to say "
                "how they were made. Put it back, or name another --output."
            )
        self.runs = []
        if is_continued:
            self.settings = json.loads(self.settings_path.read_text())
            self._refuse_differences(settings)
            if has_runs:
                self.runs = self._read()
        else:
            self.settings = {}
            self._record(settings)

    def confirm(self, name, value):
        """Compare a setting that is known late with the recorded one, or record it.

        Args:
            name: String.
            value: What JSON can hold.

        Raises:
            ValueError: If another value is recorded.
        """
        if name in self.settings:
            self._refuse_differences({name: value})
        else:
            self._record({name: value})

    def find(self, **values):
        """The first run that has all of these values, or `None`."""
        for run in self.runs:
            if all(run.get(name) == value for name, value in values.items()):
                return run
        return None

    def append(self, run):
        """Write a finished run down for good.

        Args:
            run: Dict of values that JSON can hold.
        """
        with self.path.open("ab") as file:
            file.write((json.dumps(run) + "\n").encode())
            file.flush()
            # What was computed for minutes survives a power cut, too.
            os.fsync(file.fileno())
        self.runs.append(run)

    def _read(self):
        content = self.path.read_bytes()
        # Every line is written with its end, so a line without one was cut off.
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            print(f"{self.path}: the last line is half-written; it is dropped and its run redone.")
            # Cut the file as well, or the next run would be written behind the half line.
            with self.path.open("rb+") as file:
                file.truncate(len(whole))
        runs = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                runs.append(json.loads(line))
            except ValueError as error:
                raise ValueError(
                    f"{self.path}, line {number} is not JSON: {line[:60]!r}. Expected one run a "
                    "line. Delete the line to have its run done again."
                ) from error
        return runs

    def _refuse_differences(self, settings):
        differences = []
        for name, value in json.loads(json.dumps(settings)).items():
            recorded = self.settings.get(name, "not recorded")
            if recorded != value:
                differences.append(f"{name} was {recorded}, now {value}")
        if differences:
            raise ValueError(
                f"{self.settings_path} records other settings: {'; '.join(differences)}. Runs are "
                "compared only if they share them. Use the recorded ones, or another --output."
            )

    def _record(self, settings):
        self.settings.update(settings)
        # Replaced in one go: a stop in between leaves the old file or the new one.
        unfinished = self.settings_path.with_suffix(".part")
        unfinished.write_text(json.dumps(self.settings, indent=1) + "\n")
        unfinished.replace(self.settings_path)


def digest(arrays):
    """A short name for these very numbers."""
    checksum = hashlib.sha256()
    for array in arrays:
        checksum.update(np.ascontiguousarray(array))
    return checksum.hexdigest()[:16]
