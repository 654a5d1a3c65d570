"""One process alone fills a directory."""

import contextlib
import json
import os
import socket
import time

from keras_ktan.cache.array_files import open_for_writing

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

_LOCK_FILE = "fill.lock"


@contextlib.contextmanager
def fill_lock(directory):
    """Hold the right to fill a cache; the system takes it back from a process that ends.

    Args:
        directory: `pathlib.Path` that exists.

    Yields:
        Nothing.

    Raises:
        ValueError: If another process (or another thread of this one) holds it.
    """
    with open_for_writing(directory / _LOCK_FILE, create=True) as file:
        try:
            _lock(file.fileno())
        except OSError as error:
            raise ValueError(
                f"The cache in '{directory}' is being filled by {_holder(file)}. Expected one "
                "process at a time. Wait for it, or use another directory."
            ) from error
        file.truncate(0)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.ctime()}
        file.write(json.dumps(holder).encode())
        file.flush()
        yield  # closing the file gives the lock back


def _lock(descriptor):
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    # What is locked cannot be read there, so a place behind the text.
    os.lseek(descriptor, 2**20, os.SEEK_SET)
    msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    os.lseek(descriptor, 0, os.SEEK_SET)


def _holder(file):
    try:
        holder = json.loads(file.read(1000))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # it has not written its name yet
        return "another process"
