"""What a cache is for: digests of the teacher, of the data and of the views."""

import hashlib
import json

import keras
import numpy as np

from keras_ktan.introspection.model_trace import layers_by_path

# How many images show what a view does.
VIEW_SAMPLE = 8
_ROWS_AT_ONCE = 1024
# What in a config says nothing of the outputs in inference.
_WITHOUT_INFLUENCE = ("build_config", "compile_config", "shared_object_id", "trainable")


def weights_digest(model):
    """A digest of a model's weights, without their names and without random states."""
    digest = hashlib.sha256()
    for weight in model.weights:
        # As a tensor: TensorFlow's variables themselves warn when NumPy 2 reads them.
        tensor = keras.ops.stop_gradient(keras.ops.convert_to_tensor(weight))
        _update(digest, keras.ops.convert_to_numpy(tensor))
    return digest.hexdigest()


def config_digest(model):
    """A digest of a model's config, or `None` for a subclassed model that has none.

    Layers' names are replaced by their order: the same code run twice in one process gives
    `conv2d_1` where it gave `conv2d`.
    """
    try:
        config = keras.saving.serialize_keras_object(model)
    except NotImplementedError:
        return None
    names = {model.name: "model"}
    for layer in layers_by_path(model).values():
        names.setdefault(layer.name, f"layer {len(names)}")

    def add_inputs(value):
        # Sequential models do not count these among their layers.
        if isinstance(value, dict):
            if value.get("class_name") == "InputLayer":
                names.setdefault(value["config"]["name"], f"layer {len(names)}")
            for item in value.values():
                add_inputs(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                add_inputs(item)

    add_inputs(config)

    def canonical(value):
        if isinstance(value, dict):
            return {
                key: canonical(item) for key, item in value.items() if key not in _WITHOUT_INFLUENCE
            }
        if isinstance(value, (list, tuple)):
            return [canonical(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    text = json.dumps(canonical(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def data_digest(data):
    """A digest of every number in a structure of arrays."""
    digest = hashlib.sha256()
    for array in keras.tree.flatten(data):
        _update(digest, array)
    return digest.hexdigest()


def rows_of(data, rows):
    """A copy of some rows of each array in a structure, as Keras would feed them.

    Args:
        data: Structure of arrays.
        rows: Slice or array of positions.

    Returns:
        Structure of arrays, which a view may change in place.
    """
    return keras.tree.map_structure(lambda array: np.array(array[rows]), data)


def as_fed(data):
    """Floats in Keras's default precision, as `fit` makes of arrays."""
    floatx = keras.config.floatx()
    return keras.tree.map_structure(
        lambda array: array.astype(floatx) if np.issubdtype(array.dtype, np.floating) else array,
        data,
    )


def teacher_digest(model):
    """A digest of the weights and of the layers, which make of the same weights other outputs."""
    return f"{weights_digest(model)} {config_digest(model)}"


def views_digest(views, images):
    """A digest of what each view makes of the first images, and a check of the views.

    Args:
        views: Dict from names to functions of a batch.
        images: Structure of arrays.

    Returns:
        Text.

    Raises:
        ValueError: If a view gives something else each time, if an image's view depends on the
            other images of the batch, or if the views have unlike shapes.
    """
    count = min(VIEW_SAMPLE, len(keras.tree.flatten(images)[0]))
    made, described = {}, {}
    for name, view in views.items():
        made[name] = keras.tree.map_structure(np.asarray, view(rows_of(images, slice(0, count))))
        again = keras.tree.flatten(view(rows_of(images, slice(0, count))))
        each = [view(rows_of(images, slice(row, row + 1))) for row in range(count)]
        arrays = keras.tree.flatten(made[name])
        for place, array in enumerate(arrays):
            alone = [np.asarray(keras.tree.flatten(one)[place]) for one in each]
            # Alone and in a batch sums may be rounded unlike; the same call gives the same bits.
            if (
                len(array) != count
                or not np.array_equal(array, np.asarray(again[place]), equal_nan=True)
                or not _nearly_equal(array, np.concatenate(alone))
            ):
                raise ValueError(
                    f"The view '{name}' gave an image something else alone than in a batch of "
                    f"{count}. Expected a function that treats each image by itself and always in "
                    "the same way, because the teacher's outputs are kept for it. Take the random "
                    "numbers out, and name each outcome as a view of its own."
                )
        described[name] = [(array.shape, str(array.dtype)) for array in arrays]
    if len({str(shapes) for shapes in described.values()}) > 1:
        raise ValueError(
            f"The views give unlike shapes or dtypes: {described}. Expected the same from all, "
            "because images of several views share a batch. Crop or pad to one size."
        )
    return data_digest([made[name] for name in views])


def _nearly_equal(array, other):
    if not np.issubdtype(array.dtype, np.floating):
        return np.array_equal(array, other)
    size = np.max(np.abs(array), initial=0.0, where=np.isfinite(array))
    return array.shape == other.shape and np.allclose(
        array, other, rtol=1e-5, atol=1e-5 * size, equal_nan=True
    )


def _update(digest, array):
    digest.update(f"{array.dtype} {tuple(array.shape)}".encode())
    if array.ndim == 0:
        digest.update(array.tobytes())
        return
    for start in range(0, len(array), _ROWS_AT_ONCE):  # a memory map need not fit in memory
        digest.update(np.ascontiguousarray(array[start : start + _ROWS_AT_ONCE]).tobytes())
