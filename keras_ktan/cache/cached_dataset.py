"""The batches that a `TeacherCache` feeds to `fit`."""

import keras
import numpy as np

from keras_ktan.cache.read_ahead import ReadAhead
from keras_ktan.utils.array_digest import data_digest
from keras_ktan.utils.cached_batch import batch_key, mask_key, pack


class CachedDataset(keras.utils.PyDataset):
    """Batches of the student's inputs, each image in a view drawn for it, with what the teacher
    made of that very view.

    `TeacherCache.dataset` makes it. The order and the views are drawn anew in every epoch and
    follow from the seed and the epoch's number alone.

    Args:
        data: The `CachedData`.
        batch_size: Images in a batch.
        seed: Whole number.
        shuffle: Whether the order is drawn, too.
        workers: How many threads read batches.
    """

    def __init__(self, data, batch_size, seed, shuffle=True, workers=1):
        super().__init__()
        self._data = data
        self._fed = data
        self._key = batch_key(data.teacher)
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._drawn = None
        self._ahead = ReadAhead(self._batch, workers) if workers > 1 else None
        self.epoch = 0

    def __len__(self):
        return -(-self._data.count // self._batch_size)

    @property
    def contents(self):
        """What tells these batches from others, in a form that JSON can hold."""
        labels = self._data.labels
        return {
            "teacher": self._data.teacher,
            "views": list(self._data.views),
            "labels": None if labels is None else data_digest(labels),
            "order": [self._data.count, self._batch_size, self._seed, self._shuffle],
        }

    def on_epoch_end(self):
        self.epoch += 1

    def begin_epoch(self, epoch, logs=None):
        """Say which epoch comes; a training that is resumed goes on with its own order."""
        self.epoch = epoch

    def prepare_for(self, distiller):
        """Check that this is the distiller's teacher, and feed only what the distiller uses.

        Args:
            distiller: A compiled `KTANDistiller`.

        Raises:
            ValueError: If the teacher is another one, if a map is missing, or if the student
                augments its images.
        """
        objectives = distiller.objectives
        maps = next(iter(self._data.stored.values()))["maps"]
        objectives.forward_passes.validate_cache(self._data.teacher, maps)
        wanted = [*objectives.teacher_paths, *map(mask_key, objectives.teacher_paths)]
        self._fed = self._data.narrowed(objectives.uses_teacher_outputs, wanted)
        if self._ahead is not None:
            self._ahead.forget()

    def __getitem__(self, index):
        if self._ahead is not None and 0 <= index < len(self):
            return self._ahead.get(self.epoch, index, len(self))
        return self._batch(self.epoch, index)

    def _batch(self, epoch, index):
        order, drawn = self._draw(epoch)
        rows = order[index * self._batch_size : (index + 1) * self._batch_size]
        pieces, places = [], []
        for number, name in enumerate(self._data.views):
            at = np.flatnonzero(drawn[rows] == number)
            if len(at):
                pieces.append(self._fed.read(name, rows[at]))
                places.append(at)
        inputs, teacher, labels = _merge(pieces, places, len(rows))
        x = pack(inputs, teacher["outputs"], teacher["maps"], self._key)
        if labels is None:
            return (x,)
        if self._data.sample_weight is None:
            return x, labels
        return x, labels, np.asarray(self._data.sample_weight[rows])

    def _draw(self, epoch):
        # One variable, read once and written once: threads that prefetch may be reading.
        drawn = self._drawn
        if drawn is None or drawn[0] != epoch:
            generator = np.random.default_rng([self._seed, epoch])
            count = self._data.count
            order = np.arange(count)
            if self._shuffle:
                generator.shuffle(order)
            drawn = (epoch, order, generator.integers(0, len(self._data.views), count))
            self._drawn = drawn
        return drawn[1:]


def _merge(pieces, places, count):
    """Put the rows of several pieces back into one batch, each at its place."""
    if len(pieces) == 1:
        return pieces[0]

    def merge(*arrays):
        merged = np.empty((count, *arrays[0].shape[1:]), arrays[0].dtype)
        for array, place in zip(arrays, places, strict=True):
            merged[place] = array
        return merged

    return keras.tree.map_structure(merge, *pieces, none_is_leaf=False)
