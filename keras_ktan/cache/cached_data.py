"""What a cache's batches are read from."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_ktan.cache.key import as_fed, rows_of


@dataclasses.dataclass(frozen=True)
class CachedData:
    """Images, labels and what the teacher made of each image in each view.

    Args:
        stored: Dict from views to a dict from `"outputs"` and `"maps"` to dicts of arrays.
        teacher: Digest of the teacher that made them.
        views: Dict from names to functions of a batch.
        images: Structure of arrays.
        labels: Structure of arrays, or `None`.
        sample_weight: Array or `None`.
        label_views: Dict from names of views to functions of a batch of labels.
    """

    stored: dict
    teacher: str | None
    views: dict[str, Callable]
    images: Any
    labels: Any = None
    sample_weight: Any = None
    label_views: dict[str, Callable] = dataclasses.field(default_factory=dict)

    @property
    def count(self):
        """How many images there are."""
        return len(keras.tree.flatten(self.images)[0])

    def narrowed(self, uses_outputs, maps):
        """The same data with a part of what the teacher made.

        Args:
            uses_outputs: Whether its outputs are wanted.
            maps: Names of the maps that are wanted, where there are such.

        Returns:
            `CachedData`.
        """
        stored = {
            view: {
                "outputs": parts["outputs"] if uses_outputs else {},
                "maps": {name: parts["maps"][name] for name in maps if name in parts["maps"]},
            }
            for view, parts in self.stored.items()
        }
        return dataclasses.replace(self, stored=stored)

    def read(self, view, rows):
        """Some images in one view.

        Args:
            view: Name of the view.
            rows: Array of positions.

        Returns:
            A tuple of the inputs, the teacher's part and the labels.
        """
        seen = self.views[view](rows_of(self.images, rows))
        inputs = as_fed(keras.tree.map_structure(np.asarray, seen))
        teacher = {
            kind: {key: np.asarray(array[rows]) for key, array in arrays.items()}
            for kind, arrays in self.stored[view].items()
        }
        if self.labels is None:
            return inputs, teacher, None
        labels = rows_of(self.labels, rows)
        if view in self.label_views:
            labels = keras.tree.map_structure(np.asarray, self.label_views[view](labels))
        return inputs, teacher, labels
