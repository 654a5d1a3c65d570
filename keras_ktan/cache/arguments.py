"""What a `TeacherCache` is given: looked at before anything is computed or written."""

import keras
import numpy as np


def teacher_and_layers(teacher, layer_names):
    """The model to run and the paths of its layers, from a distiller or from both.

    Args:
        teacher: A `KTANDistiller` or a built `keras.Model`.
        layer_names: List of paths, or `None`.

    Returns:
        A tuple `(keras.Model, list of paths or None)`.

    Raises:
        ValueError: If they do not go together, or the model is not built.
    """
    if hasattr(teacher, "teacher_paths"):  # a distiller: it stands above this module
        if layer_names is not None:
            raise ValueError(
                f"Received layer_names={layer_names!r} together with a KTANDistiller. Expected "
                "only one of them, because the distiller's pairs name the layers. Leave "
                "`layer_names` out, or pass `distiller.teacher`."
            )
        layer_names = teacher.teacher_paths
        teacher = teacher.teacher
    if not isinstance(teacher, keras.Model) or not teacher.built:
        raise ValueError(
            f"Received teacher={teacher!r}. Expected a KTANDistiller or a built keras.Model. "
            "Pass the distiller that is to be trained."
        )
    if isinstance(layer_names, str):
        raise ValueError(
            f"Received layer_names={layer_names!r}. Expected a list of paths. Write "
            f"`layer_names=[{layer_names!r}]`."
        )
    return teacher, layer_names


def validate_views(views):
    """Raise a `ValueError` for anything but a dict from names to functions."""
    if (
        not isinstance(views, dict)
        or not views
        or not all(isinstance(name, str) and callable(view) for name, view in views.items())
    ):
        raise ValueError(
            f"Received views={views!r}. Expected a dict from names to functions of a batch. "
            "Write `views={'plain': lambda batch: batch}`, for example."
        )


def validated_targets(labels, sample_weight, count):
    """Labels and sample weights as arrays of one row for each image.

    Args:
        labels: Array, structure of arrays, or `None`.
        sample_weight: Array or `None`.
        count: Number of the images.

    Returns:
        A tuple `(labels, sample_weight)`.

    Raises:
        ValueError: If a length is another one, or weights come without labels.
    """
    if labels is not None:
        labels = as_arrays("labels", labels, count)
    if sample_weight is not None and labels is None:
        raise ValueError(
            "Received sample_weight without labels. Expected both or neither, because sample "
            "weights act on the loss against the labels alone. Leave `sample_weight` out."
        )
    if sample_weight is not None:
        sample_weight = as_arrays("sample_weight", sample_weight, count)
    return labels, sample_weight


def validated_label_views(label_views, views):
    """Functions of labels by the names of the views.

    Args:
        label_views: Dict or `None`.
        views: Dict from the names of the cache's views.

    Returns:
        A dict.

    Raises:
        ValueError: If a name is none of the views'.
    """
    label_views = dict(label_views or {})
    unknown = set(label_views) - set(views)
    if unknown:
        raise ValueError(
            f"Received label_views for {sorted(unknown)}. Expected names of views, which are "
            f"{list(views)}. Correct the names."
        )
    return label_views


def as_arrays(name, data, count=None):
    """Arrays with one length; memory maps stay memory maps.

    Args:
        name: What the error calls them.
        data: Array or structure of arrays.
        count: The length that is expected; `None`: any above 0.

    Returns:
        The same structure of NumPy arrays.

    Raises:
        ValueError: If the lengths differ, are 0, or are not `count`.
    """
    data = keras.tree.map_structure(
        lambda array: array if isinstance(array, np.ndarray) else np.asarray(array), data
    )
    arrays = keras.tree.flatten(data)
    if any(array.dtype.kind == "O" for array in arrays):
        raise ValueError(
            f"Received {name} of Python objects. Expected arrays of numbers. Convert them with "
            "`np.asarray`; rows of unlike lengths must be padded."
        )
    lengths = {len(array) if array.ndim else 0 for array in arrays}
    if len(lengths) != 1 or 0 in lengths or count not in (None, *lengths):
        raise ValueError(
            f"Received {name} of lengths {sorted(lengths)}. Expected arrays of one length above 0"
            f"{'' if count is None else f', that of the images, {count}'}. Pass one row for each "
            "image."
        )
    return data
