"""Data sets as images: read from the beginning as often as needed, the same each time."""

import keras
import numpy as np

from keras_ktan.introspection.model_inputs import input_names
from keras_ktan.utils.array_digest import RowDigest, combined
from keras_ktan.utils.cached_batch import key_of

# Images that come one by one are put together to so many.
_IMAGES_AT_ONCE = 256


def is_array_structure(data):
    """Whether data are arrays, which every row can be taken from, and no data set.

    Args:
        data: What a `TeacherCache` was given.

    Returns:
        A `bool`; `False` for a `tf.data.Dataset` or a `keras.utils.PyDataset`.

    Raises:
        ValueError: If the data can be read once only, or are of another kind.
    """
    if isinstance(data, keras.utils.PyDataset) or _is_tf_data(data):
        return False
    leaves = keras.tree.flatten(data)
    if all(hasattr(leaf, "__array__") or isinstance(leaf, (int, float)) for leaf in leaves):
        return True
    what = next(leaf for leaf in leaves if not hasattr(leaf, "__array__"))
    once = hasattr(what, "__next__") or callable(what)
    raise ValueError(
        f"Received images of type {type(what).__name__}"
        f"{', which can be read once only' if once else ''}. Expected arrays, a finite "
        "tf.data.Dataset or a keras.utils.PyDataset, because the images are read again. Put them "
        "into arrays, or write a PyDataset that gives batch number i."
    )


def batches(data, teacher):
    """Read a data set from its beginning.

    Args:
        data: A `tf.data.Dataset` or a `keras.utils.PyDataset`.
        teacher: The `keras.Model` whose inputs say whether images come one by one.

    Yields:
        Tuples `(x, y, sample_weight)` of structures of arrays with one row for each image;
        shorter ones where there are no weights or labels.

    Raises:
        ValueError: If an element is none of numbers, or unlike the first one.
    """
    first = None
    for part in _grouped(data, teacher):
        part = keras.tree.map_structure(_as_numbers, part)
        flat = keras.tree.flatten(part)
        form = [(array.shape[1:], str(array.dtype)) for array in flat]
        lengths = {len(array) for array in flat}
        first = form if first is None else first
        if len(lengths) != 1 or form != first:
            raise ValueError(
                f"Received a batch of shapes {[array.shape for array in flat]} and types "
                f"{[str(array.dtype) for array in flat]} after one of {first}. Expected the same "
                "for every image, and as many labels as images. Resize or pad in the data set."
            )
        yield part


class Scan:
    """What was seen of a data set in one pass.

    Args:
        parts: Iterator over what `batches` yields.
        limit: Bytes that may be kept; `None`: any number.

    Raises:
        ValueError: If there are no data, or more than the limit.
    """

    def __init__(self, parts, limit=None):
        self.count, size = 0, 0
        self.structure, digests = None, None
        for part in parts:
            flat = keras.tree.flatten(part)
            if digests is None:
                digests = [RowDigest() for _ in flat]
                self.structure = part
                self.forms = [(array.shape[1:], array.dtype) for array in flat]
            for digest, array in zip(digests, flat, strict=True):
                digest.update(array)
            self.count += len(flat[0])
            size += sum(array.nbytes for array in flat)
            if limit is not None and size > limit:
                raise ValueError(
                    f"Received a data set of more than {self.count:,} images, {size / 1e6:,.1f} "
                    f"MB, which goes on. Expected at most the {limit / 1e6:,.1f} MB that the disk "
                    "has free, because its images are kept. Make room, or cut an endless data set "
                    "with `take(n)`."
                )
        if not self.count:
            raise ValueError("Received a data set without images. Expected at least one. Fill it.")
        self.digests = [digest.hexdigest() for digest in digests]
        count = len(keras.tree.flatten(self.structure[0]))
        self.images_digest = combined(self.digests[:count])


def _is_tf_data(data):
    return hasattr(data, "as_numpy_iterator") and hasattr(data, "cardinality")


def _grouped(data, teacher):
    """Elements as tuples, images that come one by one put together."""
    if isinstance(data, keras.utils.PyDataset):
        for index in range(data.num_batches):
            yield _unpacked(data[index], teacher)
        return
    waiting, single = [], None
    for element in data.as_numpy_iterator():
        element = _unpacked(element, teacher)
        single = _is_one_image(element[0], teacher) if single is None else single
        if not single:
            yield element
            continue
        waiting.append(element)
        if len(waiting) == _IMAGES_AT_ONCE:
            yield _stacked(waiting)
            waiting = []
    if waiting:
        yield _stacked(waiting)


def _unpacked(element, teacher):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(element)
    names = input_names(teacher) or ()
    labels = {"label", "labels", "objects"} & set(x if isinstance(x, dict) else ())
    if key_of(x) is not None:
        raise ValueError(
            "Received what `TeacherCache.dataset` made as the images of a cache. Expected the "
            "images themselves. Pass what that cache was filled with."
        )
    if labels - set(names) and y is None:
        raise ValueError(
            f"Received elements that are a dict of {sorted(x)}. Expected tuples of images and "
            "labels. Load the data with `as_supervised=True`, or "
            "`map(lambda element: (element['image'], element['label']))`."
        )
    if sample_weight is not None and y is None:
        raise ValueError(
            "Received a data set with sample weights and without labels. Expected both or "
            "neither. Leave the weights out."
        )
    return tuple(part for part in (x, y, sample_weight) if part is not None)


def _is_one_image(x, teacher):
    """Whether a `tf.data.Dataset` gives image by image: by the axes of the teacher's inputs."""
    inputs = getattr(teacher, "inputs", None)
    names = input_names(teacher)
    if isinstance(x, dict) and names:
        ranks = dict(zip(names, (len(tensor.shape) for tensor in inputs), strict=True))
        missing = {ranks[name] - np.ndim(x[name]) for name in set(names) & set(x)}
    elif inputs and len(inputs) == len(keras.tree.flatten(x)):
        arrays = zip(inputs, keras.tree.flatten(x), strict=True)
        missing = {len(tensor.shape) - np.ndim(array) for tensor, array in arrays}
    else:
        return False  # as `fit` takes it
    if missing not in ({0}, {1}):
        shapes = [np.shape(array) for array in keras.tree.flatten(x)]
        raise ValueError(
            f"Received a tf.data.Dataset with images of shapes {shapes}. Expected the axes of the "
            f"teacher's inputs, {[tuple(tensor.shape) for tensor in inputs]}, or one less where "
            "the images are not batched. `map` the images to this form; the views see it, too."
        )
    return missing == {1}


def _stacked(elements):
    shapes = [[np.shape(a) for a in keras.tree.flatten(element)] for element in elements]
    unlike = next((other for other in shapes if other != shapes[0]), None)
    if unlike is not None:
        raise ValueError(
            f"Received images of unlike shapes, {shapes[0]} and {unlike}. Expected one shape. "
            "Resize or pad in the data set."
        )
    return keras.tree.map_structure(lambda *arrays: np.stack(arrays), *elements)


def _as_numbers(leaf):
    array = np.asarray(keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else leaf)
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"Received elements with {array.dtype} of shape {array.shape}. Expected numbers with "
            "one row for each image. Encode text, and make ragged or sparse tensors dense in the "
            "data set."
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)
