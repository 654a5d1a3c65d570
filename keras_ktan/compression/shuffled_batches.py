"""Batches of arrays whose order follows from a seed and the epoch's number."""

import keras
import numpy as np


class ShuffledBatches(keras.utils.PyDataset):
    """Arrays in a new order in each epoch, the same in each process and for each method.

    `fit` with arrays draws the order from the state of the process, so that a training that is
    resumed, or a baseline, sees other batches.

    Args:
        arrays: Tuple `(x, y)` or `(x, y, sample_weight)` of structures of arrays.
        batch_size: Examples in a batch; the last one may be smaller.
        seed: Whole number.
    """

    def __init__(self, arrays, batch_size, seed):
        super().__init__()
        self._arrays = arrays
        self._batch_size = batch_size
        self._seed = seed
        self._count = len(keras.tree.flatten(arrays)[0])
        self.begin_epoch(0)

    def __len__(self):
        return -(-self._count // self._batch_size)

    def begin_epoch(self, epoch):
        """Draw the order of an epoch; `KTANDistiller.fit` calls it."""
        generator = np.random.default_rng((self._seed, epoch))
        self._order = generator.permutation(self._count)

    def __getitem__(self, index):
        rows = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return keras.tree.map_structure(lambda array: array[rows], self._arrays)
