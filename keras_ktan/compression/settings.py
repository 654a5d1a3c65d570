"""What decides over a training, in a form that JSON can hold."""

import re

import keras
import numpy as np

from keras_ktan.cache.cached_dataset import CachedDataset
from keras_ktan.introspection.model_digest import config_digest, teacher_digest
from keras_ktan.utils.array_digest import data_digest


def described(value):
    """A value as numbers, texts, lists and dicts; arrays as a digest.

    Args:
        value: An argument of `compress`.

    Returns:
        What JSON can hold; equal for equal values, also in another process.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {_name(key): _without_counter(key, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "shape") and hasattr(value, "__array__"):
        return data_digest(np.atleast_1d(np.asarray(value)))
    if isinstance(value, type):
        return _name(value)
    if hasattr(value, "get_config"):
        return {"class": _name(type(value)), "config": described(value.get_config())}
    return _name(value) if callable(value) else _name(type(value))


def described_data(data):
    """What tells one data set from another without reading a data set to its end.

    Args:
        data: A tuple of arrays, or a data set.

    Returns:
        What JSON can hold.
    """
    if data is None:
        return None
    if isinstance(data, tuple):
        return data_digest([np.asarray(array) for array in keras.tree.flatten(data)])
    if isinstance(data, CachedDataset):
        return data.contents
    specification = getattr(data, "element_spec", None)
    batches = getattr(data, "num_batches", None)
    return [type(data).__name__, batches, None if specification is None else str(specification)]


def described_models(teacher, student):
    """The teacher with its weights, and the layers of a student that the user gave.

    Args:
        teacher: The teacher.
        student: The user's student or `None`.

    Returns:
        A dict.
    """
    layers = None
    if student is not None:
        shapes = [[list(variable.shape), variable.dtype] for variable in student.weights]
        layers = [config_digest(student), shapes]
    return {"teacher": teacher_digest(teacher), "student": layers}


def _without_counter(key, value):
    # Keras counts objects of a class that were made before: `adam_1`.
    if key == "name" and isinstance(value, str):
        return re.sub(r"_\d+$", "", value)
    return described(value)


def _name(value):
    if isinstance(value, str):
        return value
    name = getattr(value, "__qualname__", None) or repr(value)
    return f"{getattr(value, '__module__', '')}.{name}".lstrip(".")
