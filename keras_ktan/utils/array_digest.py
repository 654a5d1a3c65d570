"""Digests of arrays that may be larger than memory."""

import hashlib

import keras
import numpy as np

_ROWS_AT_ONCE = 1024


class RowDigest:
    """A digest of an array that comes piece by piece along its first axis."""

    def __init__(self):
        self._bytes = hashlib.sha256()
        self._count = 0
        self._form = None

    def update(self, rows):
        """Take the next rows, all of one shape and data type."""
        self._form = (str(rows.dtype), tuple(rows.shape[1:]))
        self._count += len(rows)
        for start in range(0, len(rows), _ROWS_AT_ONCE):  # a memory map need not fit in memory
            self._bytes.update(np.ascontiguousarray(rows[start : start + _ROWS_AT_ONCE]).tobytes())

    def hexdigest(self):
        """The digest: the same, whatever the pieces were."""
        return combined([f"{self._count} rows of {self._form}", self._bytes.hexdigest()])


def array_digest(array):
    """A digest of one array's numbers, shape and data type."""
    digest = RowDigest()
    digest.update(array if array.ndim else array.reshape(1))
    return digest.hexdigest() if array.ndim else combined(["scalar", digest.hexdigest()])


def data_digest(data):
    """A digest of every number in a structure of arrays."""
    return combined([array_digest(array) for array in keras.tree.flatten(data)])


def combined(texts):
    """One digest of a list of texts."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
