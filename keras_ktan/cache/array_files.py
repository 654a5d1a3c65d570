"""`.npy` files of arrays whose shape is known, so that no header has to be parsed."""

import math
import os
import re
import secrets
import stat

import numpy as np

# Names are made here and never taken for paths.
NAME = re.compile(r"[0-9a-f]{8}-[a-z0-9_]+\.npy")
_O_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_O_BINARY = getattr(os, "O_BINARY", 0)


def new_token():
    """What the names of a group of new files begin with: no reader has opened one of them."""
    return secrets.token_hex(4)


def array_entry(name, shape, dtype):
    """What is known of a file before it is made.

    Args:
        name: File name that `NAME` matches.
        shape: Sequence of ints.
        dtype: Data type of a boolean, an integer or a float, as NumPy names it.

    Returns:
        A dict for JSON.
    """
    return {"file": name, "shape": [int(size) for size in shape], "dtype": str(np.dtype(dtype))}


def is_array_entry(entry):
    """Whether what JSON gave is what `array_entry` makes."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("file"), str)
        and NAME.fullmatch(entry["file"]) is not None
        and isinstance(entry.get("shape"), list)
        and len(entry["shape"]) > 0
        and all(type(size) is int and size >= 0 for size in entry["shape"])
        and isinstance(entry.get("dtype"), str)
        and re.fullmatch(r"bool|u?int(8|16|32|64)|float(16|32|64)", entry["dtype"]) is not None
    )


def bytes_of(entry):
    """How much room an array takes."""
    return math.prod(entry["shape"]) * np.dtype(entry["dtype"]).itemsize


def create_array(directory, entry):
    """Make a new file full of zeros. One that exists, or a link, is an error."""
    header = _header(entry)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _O_NOFOLLOW | _O_BINARY
    with open(os.open(directory / entry["file"], flags, 0o644), "wb") as file:
        file.write(header)
        file.truncate(len(header) + bytes_of(entry))


def write_rows(directory, entry, start, rows, sync=True):
    """Write some rows.

    Plain writes and not a memory map: on a full disk a map ends the process, a write raises.

    Args:
        directory: `pathlib.Path`.
        entry: What `array_entry` made.
        start: Number of the first row.
        rows: Array.
        sync: Whether to wait until the disk has all that was written to the file.
    """
    rows = np.ascontiguousarray(rows, entry["dtype"])
    with open_for_writing(directory / entry["file"]) as file:
        _require_form(directory / entry["file"], file, entry)
        file.seek(len(_header(entry)) + start * (rows.nbytes // max(len(rows), 1)))
        file.write(rows.data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def open_for_writing(path, create=False):
    """A file that is changed in place. Neither a link's target nor a file of two names is.

    Args:
        path: `pathlib.Path`.
        create: Whether it is made where it is missing.

    Returns:
        A binary file.

    Raises:
        ValueError: If it is a link, or no regular file.
    """
    flags = os.O_RDWR | _O_NOFOLLOW | _O_BINARY | (os.O_CREAT if create else 0)
    if path.is_symlink():
        raise _linked(path)
    file = open(os.open(path, flags, 0o644), "r+b")  # noqa: SIM115
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        file.close()
        raise _linked(path)
    return file


def open_array(directory, entry, remedy):
    """A read-only memory map of an array.

    Args:
        directory: `pathlib.Path`.
        entry: What `array_entry` made.
        remedy: What to do about a damaged file.

    Returns:
        Array.

    Raises:
        ValueError: If the file is missing, cannot be read, or is another array.
    """
    path = directory / entry["file"]
    try:
        with open(path, "rb") as file:
            _require_form(path, file, entry, remedy)
            dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
            if not bytes_of(entry):
                return np.empty(shape, dtype)
            return np.memmap(file, dtype, "r", len(_header(entry)), shape)
    except PermissionError as error:
        raise unreadable(path, error) from error
    except OSError as error:
        raise ValueError(
            f"The file '{path}' cannot be read ({error}). Expected {entry['shape']} numbers of "
            f"{entry['dtype']}. {remedy}"
        ) from error


def unreadable(path, error):
    """The error for a file that may be whole, but that this process may not open."""
    return ValueError(
        f"The file '{path}' may not be opened ({error}). Expected a file that this process may "
        "read. Change its permissions or the user; the cache itself may be whole."
    )


def _linked(path):
    return ValueError(
        f"The file '{path}' is a link, or has a second name elsewhere. Expected a file of the "
        "cache's own, because it is to be written. Delete the link and call `fill` again."
    )


def _require_form(path, file, entry, remedy="Delete the directory and call `fill` again."):
    header = _header(entry)
    size = os.fstat(file.fileno()).st_size
    if file.read(len(header)) != header or size != len(header) + bytes_of(entry):
        raise ValueError(
            f"The file '{path}' of {size} bytes is damaged or another array. Expected "
            f"{entry['shape']} numbers of {entry['dtype']}. {remedy}"
        )


def _header(entry):
    """The beginning of a `.npy` file: always the same bytes, so that nothing has to be parsed."""
    descr = np.dtype(entry["dtype"]).newbyteorder("<").str
    shape = "".join(f"{size}, " for size in entry["shape"])
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}"
    # A multiple of 64 bytes, as NumPy writes it.
    text = text.ljust(-(-(10 + len(text) + 1) // 64) * 64 - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
