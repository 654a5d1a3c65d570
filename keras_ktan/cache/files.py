"""Arrays on disk that grow in chunks; a chunk counts once it is on the disk for good."""

import errno
import json
import os
import pathlib
import shutil
import zlib

import numpy as np

from keras_ktan.cache import array_files, schema
from keras_ktan.cache.lock import fill_lock
from keras_ktan.utils.atomic_file import write_atomically

# 3: names that no two fills share; digests of rows.
FORMAT = 3
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

    def make_directory(self):
        """Make the directory where there is none.

        Raises:
            ValueError: If a file stands there.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(
                f"Received directory='{self.directory}', which is a file or lies in one. Expected "
                "a directory. Use another path."
            ) from error

    def lock(self):
        """The right to write here, as a context; see `fill_lock`."""
        return fill_lock(self.directory)

    def read_key(self):
        """The key of what lies here.

        Returns:
            A tuple `(key, arrays)`, or `(None, None)` where nothing lies here. `arrays` is a list
            of dicts with `"file"`, `"view"`, `"name"`, `"shape"` and `"dtype"`.

        Raises:
            ValueError: If the file cannot be read, is damaged, or has another format.
        """
        content = self.read_json(_KEY_FILE, FORMAT)
        if content is None:
            return None, None
        schema.require(schema.is_key(content), self._key_path, "a cache's key", self.remedy())
        return content["key"], content["arrays"]

    def create(self, key, arrays):
        """Make empty arrays under new names, and then the key that says they are there.

        Args:
            key: Dict for JSON.
            arrays: Dicts as `read_key` gives them, with what a file's name ends with.

        Returns:
            The same list with the files' names.
        """
        token = array_files.new_token()
        arrays = [{**array, "file": f"{token}-{array['file']}"} for array in arrays]
        self._chunks_path.unlink(missing_ok=True)
        for array in arrays:
            array_files.create_array(self.directory, array)
        self.write_json(_KEY_FILE, {"format": FORMAT, "key": key, "arrays": arrays})
        return arrays

    def read_json(self, name, expected_format):
        """A dict from a file, `None` where there is none.

        Raises:
            ValueError: If it cannot be read or has another format.
        """
        path = self.directory / name
        content = self._read(path)
        if content is None:
            return None
        content = schema.parsed(content, path, self.remedy())
        found = content.get("format") if isinstance(content, dict) else None
        if type(found) is not int or found != expected_format:
            raise ValueError(
                f"The file '{path}' of the cache in '{self.directory}' has format {found!r}. "
                f"Expected {expected_format}. {self.remedy()}"
            )
        return content

    def write_json(self, name, content):
        """Write a dict beside its final name, and rename it."""

        def write(path):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)

        write_atomically(self.directory / name, write)

    def chunks(self, arrays):
        """The finished chunks, in the order in which they were written.

        Args:
            arrays: What `read_key` gave.

        Returns:
            A list of dicts with `"view"`, `"start"`, `"stop"` and `"checksums"`.

        Raises:
            ValueError: If the list cannot be read, is damaged, or leaves rows out.
        """
        content = self._read(self._chunks_path)
        # What stands behind the last end of a line was cut off while it was written.
        lines = [] if content is None else content.split(b"\n")[:-1]
        chunks, path, remedy = [], self._chunks_path, self.remedy()
        finished = {array["view"]: 0 for array in arrays}
        for line in lines:
            chunk = schema.parsed(line, path, remedy)
            fits = schema.is_chunk(chunk, arrays) and chunk["start"] == finished[chunk["view"]]
            schema.require(fits, path, "one finished chunk a line, without gaps", remedy)
            finished[chunk["view"]] = chunk["stop"]
            chunks.append(chunk)
        return chunks

    def finished(self, arrays):
        """How many images of each view are on the disk.

        Args:
            arrays: What `read_key` gave.

        Returns:
            Dict from views to ints.
        """
        finished = {array["view"]: 0 for array in arrays}
        for chunk in self.chunks(arrays):
            finished[chunk["view"]] = chunk["stop"]
        return finished

    def require_space(self, missing):
        """Refuse to begin what the disk cannot hold.

        Args:
            missing: Bytes that are still to be written.

        Raises:
            OSError: If the disk has less space.
        """
        if self.free_space() < missing:
            raise self._disk_full(missing)

    def free_space(self):
        """Bytes that the disk has left."""
        return shutil.disk_usage(self.directory).free

    def write(self, arrays, view, start, values):
        """Write a chunk, wait until the disk has it, and only then count it.

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
                array_files.write_rows(self.directory, array, start, rows)
                checksums[array["file"]] = zlib.crc32(rows)
            stop = start + len(rows)
            line = {"view": view, "start": start, "stop": stop, "checksums": checksums}
            self._append(line)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self._disk_full(sum(value.nbytes for value in values.values())) from error

    def _append(self, line):
        with array_files.open_for_writing(self._chunks_path, create=True) as file:
            content = file.read()
            file.seek(content.rfind(b"\n") + 1)  # a line that was cut off is overwritten
            file.truncate()
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def open(self, arrays):
        """Memory maps of some arrays. They stay what they are if the files are replaced.

        Args:
            arrays: Entries of `read_key`.

        Returns:
            Dict from files to read-only arrays.

        Raises:
            ValueError: If a file is missing, truncated, or another array.
        """
        return {
            array["file"]: array_files.open_array(self.directory, array, self.remedy())
            for array in arrays
        }

    def verify(self, arrays, opened):
        """Hold all that was written against the checksums taken then.

        Args:
            arrays: Entries of `read_key`.
            opened: Dict from all files to their arrays.

        Raises:
            ValueError: If a file holds something else.
        """
        for chunk in self.chunks(arrays):
            rows = slice(chunk["start"], chunk["stop"])
            for file, checksum in chunk["checksums"].items():
                if zlib.crc32(np.ascontiguousarray(opened[file][rows])) != checksum:
                    raise ValueError(
                        f"The file '{self.directory / file}' holds something else in rows "
                        f"{rows.start} to {rows.stop - 1} than was written there. Expected the "
                        f"teacher's outputs. {self.remedy()}"
                    )

    def remove_others(self, used):
        """Delete arrays that a killed process left, or that were replaced.

        Args:
            used: Names of the files that are in use.
        """
        for path in self.directory.iterdir():
            if array_files.NAME.fullmatch(path.name) and path.name not in used:
                path.unlink(missing_ok=True)

    def remedy(self):
        """What to do about damage."""
        return f"Delete the directory '{self.directory}' and call `fill` again."

    def _read(self, path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise array_files.unreadable(path, error) from error

    def _disk_full(self, missing):
        return OSError(
            errno.ENOSPC,
            f"The disk is full: {missing / 1e6:,.1f} MB are to be written and "
            f"{self.free_space() / 1e6:,.1f} MB are free. Expected room for all. Make room and "
            "call `fill` again, which goes on where it stopped; or use precision='float16' or "
            "fewer views in a new directory",
            str(self.directory),
        )
