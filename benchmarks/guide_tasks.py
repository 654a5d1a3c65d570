"""The tasks of the guides in docs/guides: tiny data, a teacher, what counts as good.

Each teacher has seen more labelled examples than the student gets, as with a teacher that somebody
else has trained.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from scipy.ndimage import rotate
from sklearn.datasets import load_digits

TEACHER_EXAMPLES, STUDENT_EXAMPLES, TEST_EXAMPLES = 1000, 150, 500


@dataclasses.dataclass(frozen=True)
class Task:
    """A guide's task.

    Args:
        data: Function that returns inputs and targets, in a fixed order: first the teacher's
            examples, then the test's.
        teacher: Function that returns a new teacher.
        loss: What `compile` takes as loss.
        metrics: Function that returns new metrics, by their names in the table.
        width: Share of the teacher's channels that the student has.
        teacher_epochs: Passes of the teacher over its examples.
        student_epochs: Passes of each student over its own.
        with_adversary: Whether KTAN with an adversary is a method of its own.
    """

    data: Callable
    teacher: Callable
    loss: Callable
    metrics: Callable
    width: float
    teacher_epochs: int = 20
    student_epochs: int = 60
    with_adversary: bool = False


def _digits():
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order, :, :, None] / 16.0).astype("float32")
    return images, digits.target[order].astype("int32")


def _convolution(x, filters, strides, name):
    x = keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.layers.ReLU(name=name)(x)


def _convolutional(shape, units, output):
    """Three stages of two convolutions and a linear head."""
    inputs = x = keras.Input(shape, name="image")
    for stage, filters in enumerate((32, 64, 64), start=1):
        x = _convolution(x, filters, 1 if stage == 1 else 2, f"stage_{stage}_a")
        x = _convolution(x, filters, 1, f"stage_{stage}")
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(units, name=output)(x), name="teacher")


# Transfer learning: a backbone of keras.applications.


def _large_digits():
    images, labels = _digits()
    images = np.repeat(keras.ops.convert_to_numpy(keras.ops.image.resize(images, (32, 32))), 3, -1)
    return 2.0 * images - 1.0, labels


def _fine_tuned():
    backbone = keras.applications.MobileNet((32, 32, 3), 0.25, include_top=False, weights=None)
    x = keras.layers.GlobalAveragePooling2D()(backbone.output)
    return keras.Model(backbone.input, keras.layers.Dense(10, name="logits")(x), name="teacher")


# Multi-label: four properties of a digit, each of which may hold.


def _properties():
    images, labels = _digits()
    properties = [{0, 2, 4, 6, 8}, {5, 6, 7, 8, 9}, {0, 4, 6, 8, 9}, {2, 3, 5, 7}]
    rows = [[label in group for group in properties] for label in labels]
    return images, np.array(rows, "float32")


# Regression: by how many degrees was the digit turned?


def _turned():
    images, _ = _digits()
    angles = np.random.default_rng(1).uniform(-45, 45, len(images))
    turned = [
        rotate(image, angle, axes=(0, 1), reshape=False, order=1)
        for image, angle in zip(images, angles, strict=True)
    ]
    return np.stack(turned), (angles[:, None] / 45).astype("float32")


# Segmentation: discs, squares and triangles on noise.


def _shapes():
    generator = np.random.default_rng(2)
    count, size = TEACHER_EXAMPLES + TEST_EXAMPLES, 24
    rows, columns = np.mgrid[:size, :size]
    images = generator.normal(0, 0.25, (count, size, size, 1))
    masks = np.zeros((count, size, size), "int32")
    for image, mask in zip(images, masks, strict=True):
        for _ in range(3):
            y, x = generator.integers(4, size - 4, 2)
            radius, kind = generator.integers(3, 6), generator.integers(1, 4)
            down, across = rows - y, np.abs(columns - x)
            drawn = {
                1: down**2 + across**2 <= radius**2,
                2: (np.abs(down) < radius) & (across < radius),
                3: (np.abs(down) <= radius) & (2 * across <= down + radius),
            }[int(kind)]
            mask[drawn] = kind
            image[drawn, 0] += generator.uniform(0.4, 1.0)
    return images.astype("float32"), masks


def _unet():
    inputs = keras.Input((24, 24, 1), name="image")
    one = _convolution(_convolution(inputs, 16, 1, "down_1_a"), 16, 1, "down_1")
    two = _convolution(_convolution(one, 32, 2, "down_2_a"), 32, 1, "down_2")
    x = _convolution(_convolution(two, 64, 2, "bottom_a"), 64, 1, "bottom")
    x = keras.layers.Concatenate()([keras.layers.UpSampling2D()(x), two])
    x = _convolution(x, 32, 1, "up_2")
    x = keras.layers.Concatenate()([keras.layers.UpSampling2D()(x), one])
    x = _convolution(x, 16, 1, "up_1")
    return keras.Model(inputs, keras.layers.Conv2D(4, 1, name="logits")(x), name="teacher")


# Text: each digit as a sentence, one word for each pixel with ink.


def _sentences():
    images, labels = _digits()
    levels = np.ceil(images.reshape(len(images), 64) * 4).astype("int32")
    sentences = [4 * np.flatnonzero(row) + row[row > 0] for row in levels]
    longest = max(map(len, sentences))
    padded = [np.pad(sentence, (0, longest - len(sentence))) for sentence in sentences]
    return np.stack(padded).astype("int32"), labels


def _transformer(length=None):
    inputs = keras.Input((length,), dtype="int32", name="words")
    x = keras.layers.Embedding(257, 64, mask_zero=True, name="embedding")(inputs)
    for block in (1, 2):
        attended = keras.layers.MultiHeadAttention(4, 16, name=f"attention_{block}")(x, x)
        x = keras.layers.LayerNormalization()(keras.layers.Add()([x, attended]))
        hidden = keras.layers.Dense(128, activation="relu")(x)
        hidden = keras.layers.Dense(64)(hidden)
        x = keras.layers.LayerNormalization(name=f"block_{block}")(keras.layers.Add()([x, hidden]))
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(x), name="teacher")


class MeanDegrees(keras.metrics.MeanAbsoluteError):
    """Mean absolute error of an angle in units of 45 degrees."""

    def result(self):
        return 45 * super().result()


def _categorical():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _accuracy():
    return {"accuracy in %": keras.metrics.SparseCategoricalAccuracy()}


TASKS = {
    "transfer_learning": Task(
        _large_digits,
        _fine_tuned,
        _categorical,
        _accuracy,
        width=0.5,
        # Batch normalisation of MobileNet forgets its first statistics slowly.
        teacher_epochs=60,
        student_epochs=80,
    ),
    "multi_label": Task(
        _properties,
        lambda: _convolutional((8, 8, 1), 4, "logits"),
        lambda: keras.losses.BinaryCrossentropy(from_logits=True),
        lambda: {"labels that are right, in %": keras.metrics.BinaryAccuracy(threshold=0.0)},
        width=0.25,
    ),
    "regression": Task(
        _turned,
        lambda: _convolutional((8, 8, 1), 1, "angle"),
        keras.losses.MeanSquaredError,
        lambda: {"mean error in degrees (smaller is better)": MeanDegrees()},
        width=0.25,
    ),
    "segmentation": Task(
        _shapes,
        _unet,
        _categorical,
        lambda: {
            "pixels that are right, in %": keras.metrics.SparseCategoricalAccuracy(),
            "mean IoU in %": keras.metrics.MeanIoU(4, sparse_y_pred=False),
        },
        width=0.25,
        teacher_epochs=8,
        student_epochs=20,
        with_adversary=True,
    ),
    "text": Task(_sentences, _transformer, _categorical, _accuracy, width=0.25),
}
