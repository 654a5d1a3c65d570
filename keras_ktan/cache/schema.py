"""What the lists in a cache's directory may hold: nothing in them is taken on trust."""

import json

from keras_ktan.cache.array_files import is_array_entry


def parsed(content, path, remedy):
    """JSON from bytes.

    Args:
        content: Bytes of a file or of a line.
        path: The file, for the error.
        remedy: What to do about a damaged file.

    Returns:
        What stands there.

    Raises:
        ValueError: If it is no JSON.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"The file '{path}' is damaged ({error}). Expected JSON. {remedy}"
        ) from error


def require(fits, path, expected, remedy):
    """Raise a `ValueError` that names the file where it does not hold what it should."""
    if not fits:
        raise ValueError(f"The file '{path}' is damaged. Expected {expected}. {remedy}")


def is_key(content):
    """Whether a dict is what `CacheFiles.create` writes."""
    key, arrays = content.get("key"), content.get("arrays")
    if not isinstance(key, dict) or not isinstance(arrays, list) or not arrays:
        return False
    views, images = key.get("views"), key.get("images")
    if not _are_names(views) or not _are_names(key.get("layers")):
        return False
    if not isinstance(images, dict) or type(images.get("count")) is not int:
        return False
    if not all(_is_cached_array(array, views, images["count"]) for array in arrays):
        return False
    needed = {"outputs:0", *(f"maps:{layer}" for layer in key["layers"])}
    by_view = {view: [a["name"] for a in arrays if a["view"] == view] for view in views}
    files = {array["file"] for array in arrays}
    # Every view has the same outputs and maps, each once.
    return (
        len({tuple(names) for names in by_view.values()}) == 1
        and all(needed <= set(names) for names in by_view.values())
        and len(files) == len(arrays)
        and len({(array["view"], array["name"]) for array in arrays}) == len(arrays)
    )


def is_chunk(chunk, arrays):
    """Whether a line of the list of chunks fits the arrays.

    Args:
        chunk: What stands in the line.
        arrays: The arrays of the key.

    Returns:
        A `bool`.
    """
    if not isinstance(chunk, dict) or not isinstance(chunk.get("checksums"), dict):
        return False
    own = [array for array in arrays if array["view"] == chunk.get("view")]
    start, stop = chunk.get("start"), chunk.get("stop")
    return (
        bool(own)
        and type(start) is int
        and type(stop) is int
        and 0 <= start < stop <= own[0]["shape"][0]
        and set(chunk["checksums"]) == {array["file"] for array in own}
        and all(type(checksum) is int for checksum in chunk["checksums"].values())
    )


def _is_cached_array(array, views, count):
    return (
        is_array_entry(array)
        and array["shape"][0] == count
        and array.get("view") in views
        and isinstance(array.get("name"), str)
        and array["name"].startswith(("outputs:", "maps:"))
    )


def _are_names(value):
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
