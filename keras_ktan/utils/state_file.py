"""Arrays in one file that tells whether it is whole."""

import hashlib
import json
import os

import numpy as np

_MAGIC = b"keras_ktan state\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_LENGTH_BYTES = 8


class DamagedFileError(ValueError):
    """The file is not what `write_state` wrote."""


def write_state(path, description, arrays):
    """Write arrays and what describes them, and wait until the disk has them.

    A digest of everything stands at the end. Bytes are stored as they are in memory: nothing is
    run when they are read, and every dtype is kept.

    Args:
        path: Path of the file.
        description: Dict of what JSON can hold.
        arrays: List of NumPy arrays.
    """
    forms = [[str(array.dtype), list(array.shape)] for array in arrays]
    head = json.dumps({"description": description, "arrays": forms}).encode()
    digest = hashlib.sha256()
    with open(path, "wb") as file:

        def write(part):
            digest.update(part)
            file.write(part)

        write(_MAGIC)
        write(len(head).to_bytes(_LENGTH_BYTES, "little"))
        write(head)
        for array in arrays:
            write(np.ascontiguousarray(array).tobytes())
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())


def read_state(path):
    """Read what `write_state` wrote.

    Args:
        path: Path of the file.

    Returns:
        A tuple of the description and the list of arrays.

    Raises:
        DamagedFileError: If a byte is missing or is not what was written, or if the file cannot be
            read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise DamagedFileError(f"it cannot be read ({error.strerror})") from error
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if not body.startswith(_MAGIC):
        raise DamagedFileError("it does not begin as such a file does")
    if hashlib.sha256(body).digest() != digest:
        raise DamagedFileError("bytes are missing or changed")
    # From here on every byte is as it was written.
    start = len(_MAGIC) + _LENGTH_BYTES
    length = int.from_bytes(body[len(_MAGIC) : start], "little")
    head = json.loads(body[start : start + length])
    start += length
    arrays = []
    for dtype, shape in head["arrays"]:
        count = int(np.prod(shape, dtype="int64"))
        array = np.frombuffer(body, np.dtype(dtype), count, start)
        arrays.append(array.reshape(shape))
        start += array.nbytes
    return head["description"], arrays
