"""The teacher's forward pass over views of images, and its results as they are kept."""

import keras
import numpy as np

from keras_ktan.cache.array_files import array_entry
from keras_ktan.cache.key import as_fed, rows_of, sample_of
from keras_ktan.cache.rounding import is_float, rounded
from keras_ktan.introspection.feature_tap import FeatureTap
from keras_ktan.introspection.model_inputs import select_inputs
from keras_ktan.utils.cached_batch import mask_key

# Machines, backends and batch sizes round differently, half precision more so; another
# teacher is further away.
_PROBE_TOLERANCE = 0.02


class TeacherForward:
    """Runs a teacher over views of images, batch by batch.

    Args:
        teacher: A built `keras.Model`.
        layer_names: Paths of the layers whose maps are wanted beside the outputs.
        views: Dict from names to functions of a batch of images.
        batch_size: Images in one forward pass.
    """

    def __init__(self, teacher, layer_names, views, batch_size):
        self._tapped = _TappedTeacher(teacher, layer_names)
        self._views = views
        self._batch_size = batch_size

    def plan(self, images, precision):
        """The arrays that hold all images in all views, from what the first images give.

        Args:
            images: Structure of arrays with the images along the first axis.
            precision: Data type of what is a float.

        Returns:
            A list of dicts as `CacheFiles` takes them.

        Raises:
            ValueError: If an output has no axis for the images.
        """
        count = count_of(images)
        rows = min(count, self._batch_size)
        made = self._tapped.predict_on_batch(
            self._see(next(iter(self._views)), images, slice(0, rows))
        )
        arrays = []
        for number, view in enumerate(self._views):
            for place, (name, value) in enumerate(made.items()):
                if value.ndim == 0 or len(value) != rows:
                    raise ValueError(
                        f"The teacher's {name} has shape {value.shape} for {rows} images. Expected "
                        "the images along the first axis, because they are kept one by one. Such a "
                        "teacher must run in every step; do without the cache."
                    )
                dtype = precision if is_float(value) else value.dtype
                file = f"view_{number}_array_{place}.npy"
                entry = array_entry(file, (count, *value.shape[1:]), dtype)
                arrays.append({**entry, "view": view, "name": name})
        return arrays

    def compute(self, arrays, images, start, stop):
        """What the teacher says of some images in one view.

        Args:
            arrays: Those of the view, as `plan` gave them.
            images: Structure of arrays.
            start: Number of the first image.
            stop: One more than the number of the last.

        Returns:
            Dict from files to arrays of these rows.

        Raises:
            ValueError: If a shape is another than for the first images, if a number is not
                finite, or if half precision loses too much.
        """
        parts = {array["file"]: [] for array in arrays}
        for row in range(start, stop, self._batch_size):
            rows = slice(row, min(row + self._batch_size, stop))
            view = arrays[0]["view"]
            seen = self._see(view, images, rows)
            _validate_seen(seen, view, row)
            made = self._tapped.predict_on_batch(seen)
            for array in arrays:
                value = made[array["name"]]
                expected = [rows.stop - rows.start, *array["shape"][1:]]
                if list(value.shape) != expected:
                    raise ValueError(
                        f"The teacher's {array['name']} has shape {value.shape} for images {row} "
                        f"to {rows.stop - 1}. Expected {expected} as for the first images. Such a "
                        "teacher must run in every step; do without the cache."
                    )
                parts[array["file"]].append(rounded(value, array, row))
        return {file: np.concatenate(pieces) for file, pieces in parts.items()}

    def first_difference(self, arrays, opened, images, finished):
        """Look at a sample of the images once more and compare with what was kept of them.

        The sample is spread over the data and over the views; see `sample_of`.

        Args:
            arrays: Of all views.
            opened: Dict from files to arrays.
            images: Structure of arrays.
            finished: Dict from views to how many of the first images are kept.

        Returns:
            The name of an output or map that is another now, or `None`.
        """
        for number, view in enumerate(self._views):
            own = [array for array in arrays if array["view"] == view]
            sample = sample_of(finished[view])[number :: len(self._views)]
            for start in range(0, len(sample), self._batch_size):
                rows = sample[start : start + self._batch_size]
                seen = keras.tree.map_structure(
                    keras.ops.convert_to_tensor, self._see(view, images, rows)
                )
                # Not `predict_on_batch`: so few images are not worth compiling.
                made = self._tapped(seen)
                for array in own:
                    stored = opened[array["file"]][rows]
                    name = array["name"]
                    if name not in made or not _alike(
                        stored, keras.ops.convert_to_numpy(made[name])
                    ):
                        return name
        return None

    def _see(self, view, images, rows):
        seen = self._views[view](rows_of(images, rows))
        return as_fed(keras.tree.map_structure(np.asarray, seen))


class _TappedTeacher(keras.Model):
    """A teacher with its taps as a model of its own, so that Keras compiles it."""

    def __init__(self, teacher, layer_names):
        # The teacher itself says to what its inputs are cast.
        super().__init__(name="teacher_run", autocast=False)
        self.teacher = teacher
        self._paths = list(layer_names)
        self._tap = FeatureTap(teacher, layer_names, "teacher")
        self.built = True

    def call(self, inputs):
        forward = self._tap.forward(select_inputs(self.teacher, inputs), training=False)
        flat = keras.tree.flatten(forward.outputs)
        made = {f"outputs:{place}": tensor for place, tensor in enumerate(flat)}
        made |= {f"maps:{path}": map_ for path, map_ in zip(self._paths, forward.maps, strict=True)}
        masks = {f"outputs:{mask_key(place)}": m for place, m in enumerate(forward.output_masks)}
        for path, mask in zip(self._paths, forward.map_masks, strict=True):
            masks[f"maps:{mask_key(path)}"] = mask
        return made | {name: mask for name, mask in masks.items() if mask is not None}


def count_of(images):
    """How many images a structure of arrays holds."""
    return len(keras.tree.flatten(images)[0])


def _validate_seen(seen, view, row):
    """A layer may turn NaN into a number: then nothing would show that the image is spoilt."""
    for array in keras.tree.flatten(seen):
        if is_float(array) and not np.all(np.isfinite(array)):
            raise ValueError(
                f"The images {row} to {row + len(array) - 1} in view '{view}' hold NaN or infinite "
                "values. Expected numbers. Look at these images and at the view."
            )


def _alike(stored, value):
    stored, value = np.asarray(stored, "float64"), np.asarray(value, "float64")
    known = np.isfinite(stored)
    if stored.shape != value.shape or not np.array_equal(stored[~known], value[~known]):
        return False
    size = np.max(np.abs(stored), initial=np.finfo("float16").tiny, where=known)
    difference = np.abs(np.where(known, stored, 0.0) - np.where(known, value, 0.0))
    return bool(np.all(difference <= _PROBE_TOLERANCE * size))  # False for NaN
