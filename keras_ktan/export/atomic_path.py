"""Files and folders that appear under their name only once they are complete."""

import contextlib
import os
import pathlib
import shutil
import tempfile


@contextlib.contextmanager
def beside(path):
    """A path in a hidden folder next to `path`, removed at the end with what is left in it.

    Being on the same disk, what is written there can be renamed in one step.

    Args:
        path: The final path, a `pathlib.Path`.

    Yields:
        A `pathlib.Path` with the same name in the hidden folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(source, path):
    """Rename a complete file or folder to its final path, replacing what stands there.

    Args:
        source: What `beside` gave and somebody has written.
        path: The final path.
    """
    if not path.is_dir():
        os.replace(source, path)
        return
    # No system call replaces a folder that is not empty: the old one steps aside, and comes
    # back if the new one cannot take its place.
    old = source.with_name(f"{source.name}.old")
    os.replace(path, old)
    try:
        os.replace(source, path)
    except BaseException:
        os.replace(old, path)
        raise


def bytes_of(path):
    """The size of a file, or of all files in a folder.

    Args:
        path: A `pathlib.Path`.

    Returns:
        An int.
    """
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
