"""Arrays on disk that grow in chunks; a chunk counts once it is on the disk for good."""

import errno
import json
import os
import pathlib
import shutil
import zlib

import numpy as np

# 2: the masks of the outputs lie beside them.
FORMAT = 2
_KEY_FILE = "key.json"
_CHUNKS_FILE = "chunks.jsonl"


class CacheFiles:
    """A directory with a key, one `.npy` file for each array, and a list of finished chunks.

    Args:
        directory: Path; made when something is written.
    """

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self._key_path = self.directory / _KEY_FILE
        self._chunks_path = self.directory / _CHUNKS_FILE

    def read_key(self):
        """The key of what lies here.

        Returns:
            A tuple `(key, arrays)`, or `(None, None)` where nothing lies here. `arrays` is a list
            of dicts with `"file"`, `"view"`, `"name"`, `"shape"` and `"dtype"`.

        Raises:
            ValueError: If the file cannot be read or was written in another format.
        """
        if not self._key_path.exists():
            return None, None
        try:
            content = json.loads(self._key_path.read_text(encoding="utf-8"))
            found, key, arrays = content["format"], content["key"], content["arrays"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"The file '{self._key_path}' cannot be read ({error}). Expected the key of a "
                f"TeacherCache. {self._remedy()}"
            ) from error
        if found != FORMAT:
            raise ValueError(
                f"The cache in '{self.directory}' has format {found!r}. Expected {FORMAT}. "
                f"{self._remedy()}"
            )
        return key, arrays

    def create(self, key, arrays):
        """Make empty arrays, and then the key that says they are there."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._chunks_path.unlink(missing_ok=True)
        for array in arrays:
            path = self.directory / array["file"]
            made = np.lib.format.open_memmap(
                path, mode="w+", dtype=np.dtype(array["dtype"]), shape=tuple(array["shape"])
            )
            made.flush()
            del made
        temporary = self._key_path.with_suffix(".tmp")
        content = {"format": FORMAT, "key": key, "arrays": arrays}
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._key_path)

    def chunks(self):
        """The finished chunks, in the order in which they were written.

        Returns:
            A list of dicts with `"view"`, `"start"`, `"stop"` and `"checksums"`.
        """
        if not self._chunks_path.exists():
            return []
        lines = self._chunks_path.read_bytes().split(b"\n")
        # What stands behind the last end of a line was cut off while it was written.
        try:
            return [json.loads(line) for line in lines[:-1]]
        except ValueError as error:
            raise ValueError(
                f"The file '{self._chunks_path}' is damaged ({error}). Expected one finished chunk "
                f"a line. {self._remedy()}"
            ) from error

    def require_space(self, missing):
        """Refuse to begin what the disk cannot hold.

        Args:
            missing: Bytes that are still to be written.

        Raises:
            OSError: If the disk has less space.
        """
        free = shutil.disk_usage(self.directory).free
        if free < missing:
            raise self._disk_full(missing, free)

    def write(self, arrays, view, start, values):
        """Write a chunk, wait until the disk has it, and only then count it.

        Plain writes and not a memory map: on a full disk a map ends the process, a write raises.

        Args:
            arrays: This view's entries of `read_key`.
            view: Name of the view.
            start: Number of the first row.
            values: Dict from files to arrays of these rows.

        Raises:
            OSError: If the disk is full. What was finished before stays finished.
        """
        checksums = {}
        try:
            for array in arrays:
                rows = np.ascontiguousarray(values[array["file"]])
                path = self.directory / array["file"]
                offset = self._open(array).offset
                with open(path, "r+b") as file:
                    file.seek(offset + start * rows[0].nbytes)
                    file.write(rows.data)
                    file.flush()
                    os.fsync(file.fileno())
                checksums[array["file"]] = zlib.crc32(rows)
            stop = start + len(rows)
            line = {"view": view, "start": start, "stop": stop, "checksums": checksums}
            self._append(line)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            missing = sum(value.nbytes for value in values.values())
            free = shutil.disk_usage(self.directory).free
            raise self._disk_full(missing, free) from error

    def _append(self, line):
        # A line that was cut off is overwritten.
        finished = b""
        if self._chunks_path.exists():
            content = self._chunks_path.read_bytes()
            finished = content[: content.rfind(b"\n") + 1]
            if len(finished) < len(content):
                os.truncate(self._chunks_path, len(finished))
        with open(self._chunks_path, "ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def open(self, arrays):
        """Memory maps of some arrays.

        Args:
            arrays: Entries of `read_key`.

        Returns:
            Dict from files to read-only arrays.

        Raises:
            ValueError: If a file is missing, truncated, or another array.
        """
        return {array["file"]: self._open(array) for array in arrays}

    def verify(self, opened):
        """Hold all that was written against the checksums taken then.

        Args:
            opened: Dict from all files to their arrays.

        Raises:
            ValueError: If a file holds something else.
        """
        for chunk in self.chunks():
            rows = slice(chunk["start"], chunk["stop"])
            for file, checksum in chunk["checksums"].items():
                if zlib.crc32(opened[file][rows]) != checksum:
                    raise ValueError(
                        f"The file '{self.directory / file}' holds something else in rows "
                        f"{rows.start} to {rows.stop - 1} than was written there. Expected the "
                        f"teacher's outputs. {self._remedy()}"
                    )

    def _open(self, array):
        path = self.directory / array["file"]
        try:
            opened = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(
                f"The file '{path}' cannot be read ({error}). Expected {array['shape']} numbers "
                f"of {array['dtype']}. {self._remedy()}"
            ) from error
        if list(opened.shape) != list(array["shape"]) or str(opened.dtype) != array["dtype"]:
            raise ValueError(
                f"The file '{path}' holds {opened.shape} numbers of {opened.dtype}. Expected "
                f"{array['shape']} of {array['dtype']}. {self._remedy()}"
            )
        return opened

    def _disk_full(self, missing, free):
        return OSError(
            errno.ENOSPC,
            f"The disk is full: {missing / 1e6:,.1f} MB are to be written and {free / 1e6:,.1f} MB "
            "are free. Expected room for all. Make room and call `fill` again, which goes on where "
            "it stopped; or use precision='float16' or fewer views in a new directory",
            str(self.directory),
        )

    def _remedy(self):
        return f"Delete the directory '{self.directory}' and call `fill` again."
