"""TeacherCache: the teacher's outputs, computed once."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_ktan.cache.arguments import (
    teacher_and_layers,
    validate_views,
    validated_label_views,
    validated_targets,
)
from keras_ktan.cache.array_files import bytes_of
from keras_ktan.cache.cached_data import CachedData
from keras_ktan.cache.cached_dataset import CachedDataset
from keras_ktan.cache.contents import CacheContents
from keras_ktan.cache.files import CacheFiles
from keras_ktan.cache.given_data import GivenData
from keras_ktan.cache.teacher_forward import TeacherForward
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
            images × views × bytes of the outputs and maps of one image; and for the images and
            labels themselves where they come from a data set.
        views: Dict from names to functions from a batch of NumPy images (or the structure of
            arrays that the models take) to the same batch, seen differently. Each image by
            itself, and the same each time. `None`: only the images as they are.
        layer_names: With a `keras.Model`: list of the paths of the layers whose maps are kept.
            `None`: none; enough for logit distillation.
        precision: `"float32"`, or `"float16"` for half the room at an error near 0.05 %. It is
            measured while the cache is filled: small numbers, such as a softmax's probabilities,
            may lose more, and are then an error.
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

        One process at a time fills a directory. When it has written anything, all of it is read
        once more and held against its checksums.

        Args:
            images: NumPy array (a memory map will do), or the structure of arrays that the
                models take, with the images along the first axis. Or a finite, ordered
                `tf.data.Dataset` or a `keras.utils.PyDataset` of images, or of tuples
                `(images, labels)` or `(images, labels, sample_weight)`: it is read twice, must be
                the same both times, and is kept in the directory with its labels. A
                `tf.data.Dataset` may be batched or give image by image, as TFDS does with
                `as_supervised=True`: images with one axis less than the teacher's inputs come
                one by one. For a teacher without `inputs` (a subclassed one) batches are taken.
            verbose: 1 shows the progress, 0 nothing.

        Raises:
            ValueError: If the images come from a generator or an endless or shuffled data set; if
                the directory holds a cache of something else or a damaged one, or another
                process fills it; or if images or the teacher's outputs are not finite (-inf is
                allowed in outputs), have no axis for the images, or lose too much in half
                precision.
            OSError: If the disk is full. What was finished stays.
        """
        self._files.make_directory()
        given = GivenData(images, self.teacher, self._files, keeps=True)
        contents = self._contents(given)
        # Who only looks needs no right to write.
        layer_names, arrays = contents.find() if given.open(verify=False) else (None, None)
        writes = arrays is None or not contents.is_complete(arrays)
        if writes:
            with self._files.lock():
                layer_names, arrays = self._fill(contents, given, verbose)
        contents.require_complete(arrays)
        contents.open(self._run(layer_names), arrays, verify=writes)

    def _fill(self, contents, given, verbose):
        contents.find(with_views=False)  # before a data set is written
        given.keep()
        layer_names, arrays = contents.find()
        if arrays is None:
            layer_names = self.layer_names
            planned = self._run(layer_names).plan(given.images, self.precision)
            arrays = self._files.create(contents.key(layer_names), planned)
        run = self._run(layer_names)
        if self._files.chunks(arrays):
            contents.open(run, arrays, verify=False)
        self._files.remove_others({array["file"] for array in arrays} | given.file_names())
        finished = self._files.finished(arrays)
        row_bytes = sum(map(bytes_of, arrays)) / len(self.views) / given.count
        total = given.count * len(self.views)
        left = total - sum(finished.values())
        self._files.require_space(round(left * row_bytes))
        progress = keras.utils.Progbar(total, verbose=verbose, unit_name="image")
        progress.update(total - left, finalize=not left)
        step = self._batch_size * _BATCHES_IN_A_CHUNK
        for view in self.views:
            own = [array for array in arrays if array["view"] == view]
            for start in range(finished[view], given.count, step):
                stop = min(start + step, given.count)
                self._files.write(own, view, start, run.compute(own, given.images, start, stop))
                progress.add(stop - start)
        return layer_names, arrays

    def dataset(
        self,
        images: Any,
        labels: Any = None,
        batch_size: int = 32,
        seed: int = 0,
        sample_weight: Any = None,
        shuffle: bool = True,
        label_views: dict[str, Callable] | None = None,
        verify: bool = True,
        workers: int = 1,
    ) -> keras.utils.PyDataset:
        """Batches for `KTANDistiller.fit`, with the teacher's outputs.

        Every epoch draws an order and, for each image, one of the views; both follow from the
        seed and the epoch's number. A sample of the images, spread over the data, passes through
        the views and the teacher once more and is compared with what was kept.

        Args:
            images: What the cache was filled with. A data set is read once, and must give what it
                gave then.
            labels: Array or structure of arrays with the images along the first axis; `None`:
                those of the data set, or training without labels.
            batch_size: Images in a batch; the last one may be smaller.
            seed: Whole number of 0 or more.
            sample_weight: Array `(images,)`, or `None`: those of the data set, if any.
            shuffle: Whether the order is drawn; views are drawn in either case.
            label_views: Dict from names of views to functions of a batch of labels, for labels
                that move with the image: a mirrored image has mirrored boxes.
            verify: Whether all files are read and held against the checksums that were taken when
                they were written. `fill` has done so; for a large cache on a disk that you trust,
                `False` saves the time.
            workers: How many threads read batches. The order is the same with any number.

        Returns:
            A `keras.utils.PyDataset`.

        Raises:
            ValueError: If the cache is not complete, is damaged, or was made from another
                teacher, other images, layers or views; or if a data set gives other images or
                labels than `fill` has kept.
        """
        batch_size = validate_integer("batch_size", batch_size, at_least=1)
        seed = validate_integer("seed", seed, at_least=0)
        workers = validate_integer("workers", workers, at_least=1)
        label_views = validated_label_views(label_views, self.views)
        given = GivenData(images, self.teacher, self._files, keeps=False)
        contents = self._contents(given)
        contents.find(with_views=False)
        if not given.open(verify):
            raise ValueError(
                f"The cache in '{self.directory}' does not keep these images and labels. Expected "
                "the data set that it was filled with, giving the same as then. Call "
                "`fill(data_set)`, which keeps them; leave `shuffle` out of the data set."
            )
        labels, sample_weight = _targets(given, labels, sample_weight)
        layer_names, arrays = contents.find()
        contents.require_complete(arrays)
        opened = contents.open(self._run(layer_names), arrays, verify)
        stored = {view: {"outputs": {}, "maps": {}} for view in self.views}
        for array in arrays:
            kind, _, name = array["name"].partition(":")
            stored[array["view"]][kind][name] = opened[array["file"]]
        data = CachedData(
            stored,
            contents.teacher_digest,
            self.views,
            given.images,
            labels,
            sample_weight,
            label_views,
        )
        return CachedDataset(data, batch_size, seed, shuffle, workers)

    def _contents(self, given):
        return CacheContents(
            self._files, given, self.teacher, self.views, self.layer_names, self.precision
        )

    def _run(self, layer_names):
        return TeacherForward(self.teacher, layer_names, self.views, self._batch_size)


def _unchanged(batch):
    return batch


def _targets(given, labels, sample_weight):
    """Labels and sample weights: those of the data set, or those given beside the images."""
    own = dict(zip(("labels", "sample_weight"), given.targets, strict=False))
    for name, value in (("labels", labels), ("sample_weight", sample_weight)):
        if value is not None and name in own:
            raise ValueError(
                f"Received {name} beside a data set that holds some. Expected them once. Leave "
                f"`{name}` out."
            )
    return validated_targets(
        own.get("labels", labels), own.get("sample_weight", sample_weight), given.count
    )
