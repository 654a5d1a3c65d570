"""TeacherCache: the teacher's outputs, computed once."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_ktan.cache.arguments import (
    as_arrays,
    teacher_and_layers,
    validate_views,
    validated_label_views,
    validated_targets,
)
from keras_ktan.cache.cached_dataset import CachedDataset
from keras_ktan.cache.files import CacheFiles
from keras_ktan.cache.key import (
    config_digest,
    data_digest,
    teacher_digest,
    views_digest,
    weights_digest,
)
from keras_ktan.cache.teacher_forward import TeacherForward, count_of
from keras_ktan.introspection.feature_tap import FeatureTap
from keras_ktan.utils.numbers import validate_choice, validate_integer

_BATCHES_IN_A_CHUNK = 8


class TeacherCache:
    """Computes a frozen teacher's outputs and feature maps once and feeds `fit` from the disk.

    A teacher that does not change says the same of an image in every epoch. Its forward pass is
    most of what a step costs when the student is small. The cache runs it once for each image
    and each *view* of the image (an augmentation with a name, such as the mirrored image), keeps
    what came out in `.npy` files, and hands out batches that bring it along.

    Args:
        teacher: A `KTANDistiller`, whose teacher and paired layers are taken; or a built
            `keras.Model`.
        directory: Path of the cache, on a disk with room for
            images × views × bytes of the outputs and maps of one image.
        views: Dict from names to functions from a batch of NumPy images (or the structure of
            arrays that the models take) to the same batch, seen differently. Each image by
            itself, and the same each time. `None`: only the images as they are.
        layer_names: With a `keras.Model`: list of the paths of the layers whose maps are kept.
            `None`: none; enough for logit distillation.
        precision: `"float32"`, or `"float16"` for half the room at an error near 0.05 %.
        batch_size: Images in one forward pass of the teacher while the cache is filled.

    Raises:
        ValueError: If an argument is out of its range or a path names no layer.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_ktan import KTANDistiller, TeacherCache

    def classifier(filters, name):
        return keras.Sequential(
            [
                keras.Input((8, 8, 1), name="image"),
                keras.layers.Conv2D(filters, 3, activation="relu", name="features"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(10, name="logits"),
            ],
            name=name,
        )

    images, labels = np.random.rand(64, 8, 8, 1), np.random.randint(0, 10, 64)
    distiller = KTANDistiller(teacher=classifier(32, "teacher"), student=classifier(4, "student"))
    distiller.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    views = {"plain": lambda batch: batch, "mirrored": lambda batch: batch[:, :, ::-1]}
    cache = TeacherCache(distiller, "/tmp/teacher_cache", views=views)
    cache.fill(images, verbose=0)
    distiller.fit(cache.dataset(images, labels, batch_size=16, seed=0), epochs=2, verbose=0)
    ```

    Reference:
        - [Shen and Xing, 2021](https://arxiv.org/abs/2112.01528): soft labels kept for each view
    """

    def __init__(
        self,
        teacher: keras.Model,
        directory: str | os.PathLike,
        views: dict[str, Callable] | None = None,
        layer_names: Sequence[str] | None = None,
        precision: str = "float32",
        batch_size: int = 128,
    ):
        teacher, layer_names = teacher_and_layers(teacher, layer_names)
        views = {"plain": _unchanged} if views is None else views
        validate_choice("precision", precision, ("float32", "float16"))
        validate_views(views)
        batch_size = validate_integer("batch_size", batch_size, at_least=1)
        self.teacher = teacher
        self.layer_names = list(dict.fromkeys(layer_names or ()))
        self.views = dict(views)
        self.precision = precision
        self._batch_size = batch_size
        self._files = CacheFiles(directory)
        FeatureTap(teacher, self.layer_names, "teacher")  # a wrong path is an error now

    @property
    def directory(self) -> pathlib.Path:
        """Where the cache lies."""
        return self._files.directory

    def fill(self, images: Any, verbose: int = 1) -> None:
        """Run the teacher over each view of each image; go on where an earlier call stopped.

        Args:
            images: NumPy array (a memory map will do), or the structure of arrays that the
                models take, with the images along the first axis.
            verbose: 1 shows the progress, 0 nothing.

        Raises:
            ValueError: If the directory holds a cache of something else or a damaged one, or if the
                teacher's outputs are not finite, have no axis for the images, or do not fit in
                half precision.
            OSError: If the disk is full. What was finished stays.
        """
        images = as_arrays("images", images)
        count = count_of(images)
        layer_names, arrays = self._find(images)
        run = self._run(self.layer_names if arrays is None else layer_names)
        if arrays is None:
            key = self._key(images, self.layer_names)
            arrays = run.plan(images, self.precision)
            self._files.create(key, arrays)
        elif self._files.chunks():
            self._probe(run, arrays, self._files.open(arrays), images)
        finished = self._finished()
        row_bytes = sum(_row_bytes(array) for array in arrays) / len(self.views)
        left = sum(count - finished[view] for view in self.views)
        self._files.require_space(int(left * row_bytes))
        progress = keras.utils.Progbar(count * len(self.views), verbose=verbose, unit_name="image")
        progress.update(count * len(self.views) - left, finalize=not left)
        for view in self.views:
            own = [array for array in arrays if array["view"] == view]
            step = self._batch_size * _BATCHES_IN_A_CHUNK
            for start in range(finished[view], count, step):
                stop = min(start + step, count)
                self._files.write(own, view, start, run.compute(own, images, start, stop))
                progress.add(stop - start)

    def dataset(
        self,
        images: Any,
        labels: Any = None,
        batch_size: int = 32,
        seed: int = 0,
        sample_weight: np.ndarray | None = None,
        shuffle: bool = True,
        label_views: dict[str, Callable] | None = None,
    ) -> keras.utils.PyDataset:
        """Batches for `KTANDistiller.fit`, with the teacher's outputs.

        Every epoch draws an order and, for each image, one of the views; both follow from the
        seed and the epoch's number. All files are read once and held against the checksums that
        were taken when they were written.

        Args:
            images: The images that the cache was filled with.
            labels: Array or structure of arrays with the images along the first axis; `None`:
                training without labels.
            batch_size: Images in a batch; the last one may be smaller.
            seed: Whole number of 0 or more.
            sample_weight: Array `(images,)`, or `None`.
            shuffle: Whether the order is drawn; views are drawn in either case.
            label_views: Dict from names of views to functions of a batch of labels, for labels
                that move with the image: a mirrored image has mirrored boxes.

        Returns:
            A `keras.utils.PyDataset`.

        Raises:
            ValueError: If the cache is not complete, is damaged, or was made from another
                teacher, other images, layers or views.
        """
        images = as_arrays("images", images)
        count = count_of(images)
        batch_size = validate_integer("batch_size", batch_size, at_least=1)
        seed = validate_integer("seed", seed, at_least=0)
        labels, sample_weight = validated_targets(labels, sample_weight, count)
        label_views = validated_label_views(label_views, self.views)
        layer_names, arrays = self._find(images)
        finished = self._finished() if arrays else dict.fromkeys(self.views, 0)
        if any(finished[view] < count for view in self.views):
            raise ValueError(
                f"The cache in '{self.directory}' holds {sum(finished.values())} of "
                f"{count * len(self.views)} images in all views. Expected all of them. Call "
                "`fill(images)`, which goes on where it stopped."
            )
        opened = self._files.open(arrays)
        self._files.verify(opened)
        self._probe(self._run(layer_names), arrays, opened, images)
        stored = {view: {"outputs": {}, "maps": {}} for view in self.views}
        for array in arrays:
            kind, _, name = array["name"].partition(":")
            stored[array["view"]][kind][name] = opened[array["file"]]
        return CachedDataset(
            stored,
            teacher_digest(self.teacher),
            self.views,
            label_views,
            images,
            labels,
            sample_weight,
            batch_size,
            seed,
            shuffle,
        )

    def _key(self, images, layer_names):
        return {
            "teacher's weights": weights_digest(self.teacher),
            "teacher's config": config_digest(self.teacher),
            "layers": list(layer_names),
            "views": list(self.views),
            "what the views give": views_digest(self.views, images),
            "images": {"count": count_of(images), "digest": data_digest(images)},
            "precision": self.precision,
        }

    def _find(self, images):
        """The layers and arrays of the cache that lies here, `(None, None)` where there is none."""
        found, arrays = self._files.read_key()
        if found is None:
            return None, None
        # More maps than needed do no harm.
        holds_all = set(self.layer_names) <= set(found.get("layers", ()))
        layer_names = found["layers"] if holds_all else self.layer_names
        expected = self._key(images, layer_names)
        unlike = [part for part in expected if found.get(part) != expected[part]]
        if unlike:
            details = "; ".join(
                f"{part}: {_shortened(found.get(part))} there, {_shortened(expected[part])} here"
                for part in unlike
            )
            raise ValueError(
                f"The cache in '{self.directory}' was made from something else ({details}). "
                "Expected the same teacher, layers, images, views and precision. Use another "
                "directory, or delete this one and call `fill` again."
            )
        return layer_names, arrays

    def _finished(self):
        """How many images of each view are on the disk."""
        finished = dict.fromkeys(self.views, 0)
        for chunk in self._files.chunks():
            if chunk["start"] != finished[chunk["view"]]:
                raise ValueError(
                    f"The cache in '{self.directory}' lists rows from {chunk['start']} on of view "
                    f"'{chunk['view']}', but those before end at {finished[chunk['view']]}. "
                    "Expected one process to fill it. Delete the directory and call `fill` again."
                )
            finished[chunk["view"]] = chunk["stop"]
        return finished

    def _run(self, layer_names):
        return TeacherForward(self.teacher, layer_names, self.views, self._batch_size)

    def _probe(self, run, arrays, opened, images):
        """The teacher's code may have changed and its weights not."""
        name = run.first_difference(arrays, opened, images)
        if name is not None:
            raise ValueError(
                f"The teacher's {name} for the first images is not what the cache in "
                f"'{self.directory}' holds, though its weights are. Expected the same teacher; "
                "the code of its layers may have changed. Delete the directory and call `fill` "
                "again."
            )


def _unchanged(batch):
    return batch


def _row_bytes(array):
    return int(np.prod(array["shape"][1:], dtype="int64")) * np.dtype(array["dtype"]).itemsize


def _shortened(value):
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
