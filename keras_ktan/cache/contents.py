"""Whether what lies in a directory is the cache of this teacher, these images and these views."""

import functools

from keras_ktan.cache.key import views_digest
from keras_ktan.introspection.model_digest import config_digest, weights_digest
from keras_ktan.utils.messages import shortened


class CacheContents:
    """What a directory must hold for some images, and what it holds.

    Args:
        files: The `CacheFiles`.
        given: The `GivenData`.
        teacher: The `keras.Model`.
        views: Dict from names to functions of a batch.
        layer_names: Paths of the layers whose maps are wanted.
        precision: Data type of what is a float.
    """

    def __init__(self, files, given, teacher, views, layer_names, precision):
        self._files = files
        self._given = given
        self._teacher = teacher
        self._views = views
        self._layer_names = layer_names
        self._precision = precision

    @functools.cached_property
    def _digests(self):
        # The weights are read once, however often the key is compared.
        return weights_digest(self._teacher), config_digest(self._teacher)

    @functools.cached_property
    def _views_digest(self):
        return views_digest(self._views, self._given.images)

    @property
    def teacher_digest(self):
        """As `introspection.model_digest.teacher_digest` gives it."""
        weights, config = self._digests
        return f"{weights} {config}"

    def key(self, layer_names):
        """What the cache is for, as JSON.

        Args:
            layer_names: Paths of the layers whose maps it holds.

        Returns:
            A dict.
        """
        return {**self._key_without_views(layer_names), "what the views give": self._views_digest}

    def _key_without_views(self, layer_names):
        weights, config = self._digests
        return {
            "teacher's weights": weights,
            "teacher's config": config,
            "layers": list(layer_names),
            "views": list(self._views),
            "images": {"count": self._given.count, "digest": self._given.digest},
            "precision": self._precision,
        }

    def find(self, with_views=True):
        """The cache that lies here.

        Args:
            with_views: Whether what the views make of the images is compared, too.

        Returns:
            A tuple of the layers and the arrays, `(None, None)` where there is none.

        Raises:
            ValueError: If it was made from something else, or is damaged.
        """
        found, arrays = self._files.read_key()
        if found is None:
            return None, None
        # More maps than needed do no harm.
        holds_all = set(self._layer_names) <= set(found["layers"])
        layer_names = found["layers"] if holds_all else self._layer_names
        expected = (self.key if with_views else self._key_without_views)(layer_names)
        unlike = [part for part in expected if found.get(part) != expected[part]]
        if unlike:
            details = "; ".join(
                f"{part}: {shortened(found.get(part))} there, {shortened(expected[part])} here"
                for part in unlike
            )
            raise ValueError(
                f"The cache in '{self._files.directory}' was made from something else ({details}). "
                "Expected the same teacher, layers, images, views and precision. Use another "
                "directory, or delete this one and call `fill` again."
            )
        return layer_names, arrays

    def is_complete(self, arrays):
        """Whether every image is there in every view."""
        finished = self._files.finished(arrays)
        return all(rows == self._given.count for rows in finished.values())

    def require_complete(self, arrays):
        """Raise a `ValueError` where an image is missing.

        Args:
            arrays: What `find` gave.
        """
        if arrays and self.is_complete(arrays):
            return
        held = sum(self._files.finished(arrays).values()) if arrays else 0
        raise ValueError(
            f"The cache in '{self._files.directory}' holds {held} of "
            f"{self._given.count * len(self._views)} images in all views. Expected all of them. "
            "Call `fill(images)`, which goes on where it stopped."
        )

    def open(self, run, arrays, verify=True):
        """Open what is there, and compare a sample of it with the teacher as it is now.

        Args:
            run: A `TeacherForward`.
            arrays: What `find` gave.
            verify: Whether all of it is held against its checksums first.

        Returns:
            Dict from files to arrays.

        Raises:
            ValueError: If a file is damaged, or the teacher says something else now.
        """
        opened = self._files.open(arrays)
        if verify:
            self._files.verify(arrays, opened)
        finished = self._files.finished(arrays)
        # The teacher's code may have changed and its weights not.
        name = run.first_difference(arrays, opened, self._given.images, finished)
        if name is not None:
            raise ValueError(
                f"The teacher's {name} for some of the images is not what the cache in "
                f"'{self._files.directory}' holds, though its weights are. Expected the same "
                "teacher; the code of its layers may have changed. Delete the directory and call "
                "`fill` again."
            )
        return opened
