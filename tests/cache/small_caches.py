"""Caches of a tiny teacher of vectors, for tests of what lies on the disk."""

import keras
import numpy as np

from keras_ktan import TeacherCache

COUNT = 20
NUMBER_VIEWS = {"plain": lambda batch: batch, "turned": lambda batch: batch[:, ::-1]}


def small_teacher(units=4, seed=0, activation="relu", name="teacher", dtype=None):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(units, activation=activation, name="hidden", dtype=dtype)(inputs)
    return keras.Model(inputs, keras.layers.Dense(2)(hidden), name=name)


def vectors(count=COUNT):
    return np.random.default_rng(4).normal(size=(count, 3)).astype("float32")


def small_cache(directory, **arguments):
    # 8 batches of one image are a chunk: three chunks a view.
    arguments = {
        "teacher": small_teacher(),
        "views": NUMBER_VIEWS,
        "layer_names": ["hidden"],
        "batch_size": 1,
        **arguments,
    }
    return TeacherCache(arguments.pop("teacher"), directory, **arguments)


def array_file(directory, end):
    """The file of an array; its name begins with what no other fill has."""
    (path,) = directory.glob(f"*-{end}.npy")
    return path
