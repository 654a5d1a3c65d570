"""The batches that a `TeacherCache` feeds to `fit`."""

import keras
import numpy as np

from keras_ktan.cache.key import as_fed, rows_of, teacher_digest
from keras_ktan.utils.cached_batch import mask_key, pack


class CachedDataset(keras.utils.PyDataset):
    """Batches of the student's inputs, each image in a view drawn for it, with what the teacher
    made of that very view.

    `TeacherCache.dataset` makes it. The order and the views are drawn anew in every epoch and
    follow from the seed and the epoch's number alone.

    Args:
        stored: Dict from views to a dict from `"outputs"` and `"maps"` to dicts of arrays.
        teacher: Digest of the teacher that made them.
        views: Dict from names to functions of a batch.
        label_views: Dict from names of views to functions of a batch of labels.
        images: Structure of arrays.
        labels: Structure of arrays, or `None`.
        sample_weight: Array or `None`.
        batch_size: Images in a batch.
        seed: Whole number.
        shuffle: Whether the order is drawn, too.
    """

    def __init__(
        self,
        stored,
        teacher,
        views,
        label_views,
        images,
        labels,
        sample_weight,
        batch_size,
        seed,
        shuffle,
    ):
        super().__init__()
        self._stored = stored
        self._fed = stored
        self._teacher = teacher
        self._views = views
        self._label_views = label_views
        self._images = images
        self._labels = labels
        self._sample_weight = sample_weight
        self._count = len(keras.tree.flatten(images)[0])
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._drawn = None
        self.epoch = 0

    def __len__(self):
        return -(-self._count // self._batch_size)

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
        if teacher_digest(distiller.teacher) != self._teacher:
            raise ValueError(
                f"The cache was filled by a teacher with other weights or layers than '"
                f"{distiller.teacher.name}' has. Expected the distiller's own teacher as it is "
                "now. Fill a cache from this distiller in a new directory."
            )
        objectives = distiller.objectives
        objectives.forward_passes.validate_cached(next(iter(self._stored.values()))["maps"])
        wanted = [*objectives.teacher_paths, *map(mask_key, objectives.teacher_paths)]
        self._fed = {
            name: {
                "outputs": parts["outputs"] if objectives.uses_teacher_outputs else {},
                "maps": {path: parts["maps"][path] for path in wanted if path in parts["maps"]},
            }
            for name, parts in self._stored.items()
        }

    def __getitem__(self, index):
        order, drawn = self._draw(self.epoch)
        rows = order[index * self._batch_size : (index + 1) * self._batch_size]
        pieces, places = [], []
        for number, name in enumerate(self._views):
            at = np.flatnonzero(drawn[rows] == number)
            if len(at):
                pieces.append(self._read(name, rows[at]))
                places.append(at)
        inputs, teacher, labels = _merge(pieces, places, len(rows))
        x = pack(inputs, teacher["outputs"], teacher["maps"])
        batch = [x] if labels is None else [x, labels]
        if self._sample_weight is not None:
            batch.append(self._sample_weight[rows])
        return tuple(batch)

    def _read(self, name, rows):
        """The inputs, the teacher's part and the labels of some images in one view."""
        inputs = as_fed(
            keras.tree.map_structure(np.asarray, self._views[name](rows_of(self._images, rows)))
        )
        teacher = {
            kind: {key: array[rows] for key, array in arrays.items()}
            for kind, arrays in self._fed[name].items()
        }
        if self._labels is None:
            return inputs, teacher, None
        labels = rows_of(self._labels, rows)
        if name in self._label_views:
            labels = keras.tree.map_structure(np.asarray, self._label_views[name](labels))
        return inputs, teacher, labels

    def _draw(self, epoch):
        if self._drawn is None or self._drawn[0] != epoch:
            generator = np.random.default_rng([self._seed, epoch])
            order = np.arange(self._count)
            if self._shuffle:
                generator.shuffle(order)
            # One assignment: a thread that prefetches may be reading.
            self._drawn = (epoch, order, generator.integers(0, len(self._views), self._count))
        return self._drawn[1:]


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
