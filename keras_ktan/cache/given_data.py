"""The images that a `TeacherCache` was given: arrays as they are, a data set as it was kept."""

import keras

from keras_ktan.cache.arguments import as_arrays
from keras_ktan.cache.kept_data import KeptData
from keras_ktan.cache.sources import Scan, batches, is_array_structure
from keras_ktan.utils.array_digest import data_digest
from keras_ktan.utils.data_ends import validate_ends


class GivenData:
    """Images, with their labels where a data set holds them.

    Args:
        data: Structure of arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset`.
        teacher: The `keras.Model`.
        files: The `CacheFiles`.
        keeps: Whether a data set may be written to the disk.

    Raises:
        ValueError: If the data are of another kind, endless, or empty.
    """

    def __init__(self, data, teacher, files, keeps):
        self._kept = KeptData(files)
        self._scan, self._parts = None, None
        if is_array_structure(data):
            images = as_arrays("images", data)
            self._parts = (images,)
            self.count = len(keras.tree.flatten(images)[0])
            self.digest = data_digest(images)
            return
        # Where tf.data does not know, `Scan` has a limit.
        validate_ends("images", data)
        self._read = lambda: batches(data, teacher)
        self._scan = Scan(self._read(), files.free_space() + self._kept.size() if keeps else None)
        self.count, self.digest = self._scan.count, self._scan.images_digest

    def open(self, verify=True):
        """Whether every row can be read: of arrays always, of a data set where it was kept.

        Args:
            verify: Whether what was kept is read and compared.

        Returns:
            A `bool`.

        Raises:
            ValueError: If a file is damaged.
        """
        if self._parts is None:
            self._parts = self._kept.open(self._scan, verify)
        return self._parts is not None

    def keep(self):
        """Read a data set again and write it to the disk, unless that was done."""
        if not self.open():
            self._kept.write(self._scan, self._read())
            self.open(verify=False)

    def file_names(self):
        """Names of the files with what is kept."""
        return self._kept.names()

    @property
    def is_data_set(self):
        """Whether it was no structure of arrays."""
        return self._scan is not None

    @property
    def images(self):
        """Structure of arrays."""
        return self._parts[0]

    @property
    def targets(self):
        """Labels and sample weights of a data set, as far as it has them."""
        return self._parts[1:]
