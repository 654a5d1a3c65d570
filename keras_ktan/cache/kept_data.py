"""The images and labels of a data set, kept where any row can be read."""

import keras

from keras_ktan.cache.array_files import (
    array_entry,
    bytes_of,
    create_array,
    is_array_entry,
    new_token,
    write_rows,
)
from keras_ktan.cache.schema import require
from keras_ktan.cache.sources import Scan
from keras_ktan.utils.array_digest import array_digest

_FILE = "data.json"
_FORMAT = 1


class KeptData:
    """What a cache keeps of a data set, beside the teacher's outputs.

    Args:
        files: The `CacheFiles`.
    """

    def __init__(self, files):
        self._files = files

    def read(self):
        """The list of what is kept, `None` where nothing is.

        Returns:
            A dict with `"arrays"` and `"digests"`.

        Raises:
            ValueError: If it is damaged.
        """
        content = self._files.read_json(_FILE, _FORMAT)
        if content is None:
            return None
        arrays, digests = content.get("arrays"), content.get("digests")
        fits = (
            isinstance(arrays, list)
            and isinstance(digests, list)
            and len(arrays) == len(digests) > 0
            and all(isinstance(digest, str) for digest in digests)
            and all(is_array_entry(entry) for entry in arrays)
            and len({entry["file"] for entry in arrays}) == len(arrays)
        )
        path = self._files.directory / _FILE
        require(fits, path, "the list of a data set's arrays", self._files.remedy())
        return content

    def size(self):
        """Bytes of what is kept."""
        content = self.read()
        return sum(map(bytes_of, content["arrays"])) if content else 0

    def names(self):
        """Names of the files in use."""
        content = self.read()
        return {entry["file"] for entry in content["arrays"]} if content else set()

    def open(self, scan, verify=True):
        """What was kept of a data set.

        Args:
            scan: The data set's `Scan`.
            verify: Whether all of it is read and compared.

        Returns:
            A tuple of structures of memory maps, as `batches` yields them, or `None` where
            something else or nothing is kept.

        Raises:
            ValueError: If a file is damaged.
        """
        content = self.read()
        if content is None or content["digests"] != scan.digests:
            return None
        opened = self._files.open(content["arrays"])
        for (name, array), digest in zip(opened.items(), scan.digests, strict=True):
            right = not verify or array_digest(array) == digest
            path = self._files.directory / name
            require(right, path, "the images and labels of `fill`", self._files.remedy())
        return keras.tree.pack_sequence_as(scan.structure, list(opened.values()))

    def write(self, scan, parts):
        """Read a data set for the second time, and keep it.

        Args:
            scan: The `Scan` of the first time.
            parts: Iterator over the second one.

        Raises:
            ValueError: If the data were others this time.
        """
        token = new_token()
        entries = [
            array_entry(f"{token}-data_{place}.npy", (scan.count, *shape), dtype)
            for place, (shape, dtype) in enumerate(scan.forms)
        ]
        self._files.require_space(sum(map(bytes_of, entries)))
        for entry in entries:
            create_array(self._files.directory, entry)

        def written():
            start = 0
            for part in parts:
                rows = keras.tree.flatten(part)
                stop = start + len(rows[0])
                if stop <= scan.count:  # else the digest says so
                    for entry, array in zip(entries, rows, strict=True):
                        sync = stop == scan.count
                        write_rows(self._files.directory, entry, start, array, sync)
                start = stop
                yield part

        if Scan(written()).digests != scan.digests:
            raise ValueError(
                "The data set gave other images or labels, or another order, when it was read for "
                "the second time. Expected the same each time, because the teacher's outputs are "
                "kept by position. Leave `shuffle` and random augmentation out: "
                "`TeacherCache.dataset` shuffles, and augmentations are `views`."
            )
        content = {"format": _FORMAT, "arrays": entries, "digests": scan.digests}
        self._files.write_json(_FILE, content)
