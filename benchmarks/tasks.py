"""The tasks of the experiments: their images, their models, the views of an image."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Task:
    """Images and models of one experiment.

    Args:
        train: Tuple `(images, labels)` of arrays.
        validation: The same, cut from the train split: all choices are made on it.
        load_test: Function without arguments that returns the test images and labels.
        views: Dict from names to functions of a batch of images, the augmentations.
        make_model: Function from a dict of arguments and a name to an untrained classifier whose
            last map is the layer `"features"`.
        note: A sentence that belongs beside every number.
        make_augmented: Function from a batch size and a seed to a `tf.data.Dataset` of the
            training images, differently moved in every epoch. `None`: the task has none.
    """

    train: tuple
    validation: tuple
    load_test: Callable
    views: dict
    make_model: Callable
    note: str
    make_augmented: Callable | None = None


def load_task(experiment, data_dir=None):
    """The task of an experiment.

    Args:
        experiment: An `Experiment`.
        data_dir: Folder of TFDS data sets; `None`: TFDS's own.

    Returns:
        A `Task`.
    """
    tasks = {"digits": _digits, "cifar10": _cifar10}
    if experiment.task not in tasks:
        raise ValueError(f"Received task={experiment.task!r}. Expected one of {list(tasks)}.")
    return tasks[experiment.task](data_dir, **experiment.data)


def _plain(images):
    return images


def _mirrored(images):
    return images[:, :, ::-1]


def _shift(rows, columns):
    """A view whose border is filled with the image's own reflection."""

    def shifted(images):
        margin = max(abs(rows), abs(columns))
        frame = (margin, margin)
        padded = np.pad(images, ((0, 0), frame, frame, (0, 0)), "reflect")
        height, width = images.shape[1:3]
        top, left = margin + rows, margin + columns
        return padded[:, top : top + height, left : left + width]

    return shifted


def _digits(data_dir):
    import distill_digits

    train, validation, test = distill_digits.load_data()
    return Task(
        train,
        validation,
        lambda: test,
        {"plain": _plain},
        lambda arguments, name: distill_digits.make_classifier(name=name, **arguments),
        "The digits of scikit-learn, 8×8 pixels.",
    )


def _cifar10(data_dir, image_size, train_images, validation_images, shifts=0):
    from cifar10_data import halve, load_cifar10, make_training_data, split_train
    from residual_network import make_classifier

    train, test, is_jpeg = load_cifar10(data_dir)
    if image_size == 16:
        train, test = ((halve(images), labels) for images, labels in (train, test))
    train, validation = split_train(train, train_images, validation_images)
    views = {"plain": _plain, "mirrored": _mirrored}
    for rows, columns in [(0, shifts), (0, -shifts), (shifts, 0), (-shifts, 0)] if shifts else []:
        move = _shift(rows, columns)
        views[f"moved {rows} {columns}"] = move
        views[f"mirrored and moved {rows} {columns}"] = lambda images, move=move: move(
            _mirrored(images)
        )
    return Task(
        train,
        validation,
        lambda: test,
        views,
        lambda arguments, name: make_classifier(image_size, name=name, **arguments),
        "The pixels were kept as JPEG: numbers differ slightly from those of the PNG original."
        if is_jpeg
        else "The pixels were kept without loss.",
        lambda batch_size, seed: make_training_data(*train, batch_size, seed, crops=True),
    )
