"""Files that are there whole or not at all."""

import os
import pathlib
import re
import uuid


def write_atomically(filepath, write):
    """Write a file beside its final name, and rename it when it is complete.

    A process that is killed while it writes leaves the former file as it was.

    Args:
        filepath: Path of the file. Where it is no local path (`"gs://..."`), it is written in
            place: there is nothing to rename.
        write: Function from a path to `None` that writes the file there.
    """
    if "://" in str(filepath):
        write(str(filepath))
        return
    final = pathlib.Path(filepath)
    # The end of the name says the format.
    beside = final.with_name(f".{uuid.uuid4().hex[:8]}.{final.name}")
    try:
        write(str(beside))
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, final)
    finally:
        beside.unlink(missing_ok=True)


def remove_unfinished(filepath):
    """Remove what a killed process left beside a file that it was writing.

    Args:
        filepath: Path that `write_atomically` was given. No other process may be writing it.
    """
    final = pathlib.Path(filepath)
    left = re.compile(rf"\.[0-9a-f]{{8}}\.{re.escape(final.name)}")
    for path in final.parent.iterdir():
        if left.fullmatch(path.name):
            path.unlink(missing_ok=True)
