"""The tasks of the experiments: their images, models and measures."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from keras_ktan import slim_student
from keras_ktan_tasks.accuracy import accuracy


def describe_accuracy(model, task, logs):
    """How good a classifier in training is."""
    images, labels = task.validation
    # All of them would cost more than the training.
    return f"{accuracy(model, (images[:1000], labels[:1000])):.2%} on the validation images"


def classifier_compile_arguments():
    """What classifiers are compiled with."""
    return {
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }


def adamw(rate, steps, weight_decay):
    """AdamW with cosine decay over so many steps."""
    decay = keras.optimizers.schedules.CosineDecay(rate, steps)
    return keras.optimizers.AdamW(decay, weight_decay=weight_decay)


def slim_classifier(teacher, student, **arguments):
    """A student from the teacher's channels, named as the usual one."""
    return slim_student(teacher, name=student.name, **arguments)


@dataclasses.dataclass(frozen=True)
class Task:
    """Images and models of one experiment, and how a model is measured.

    The defaults are for a classifier.

    Args:
        train: Tuple of an array of images and a structure of arrays, the labels.
        validation: What `score` takes, cut from the train split: all choices are made on it.
        load_test: Function without arguments that returns the same of the test split.
        views: Dict from names to functions of a batch of images, the augmentations.
        make_model: Function from a dict of arguments and a name to an untrained model.
        note: A sentence that belongs beside every number.
        pixels: List of arrays by which the run log knows these images again.
        make_augmented: Function from a batch size and a seed to a `tf.data.Dataset` of the
            training images, augmented anew in each epoch. `None`: the task has none.
        measure: What `score` returns, as the tables call it.
        score: Function from a model and such data to a number between 0 and 1.
        describe: Function from a model in training, this task and the logs of an epoch to the
            words that say how good it is.
        make_optimizer: Function from a learning rate, steps and weight decay.
        compile_arguments: Function without arguments; more for `compile`, of the teacher and of
            every method.
        distiller_arguments: Dict of more for `KTANDistiller`.
        cache_precision: See `TeacherCache`.
        make_slim: Function of the teacher, the experiment's student and arguments of
            `slim_student` that returns a student from the teacher's channels.
    """

    train: tuple
    validation: object
    load_test: Callable
    views: dict
    make_model: Callable
    note: str
    pixels: list
    make_augmented: Callable | None = None
    measure: str = "accuracy"
    score: Callable = accuracy
    describe: Callable = describe_accuracy
    make_optimizer: Callable = adamw
    compile_arguments: Callable = classifier_compile_arguments
    distiller_arguments: dict = dataclasses.field(default_factory=dict)
    cache_precision: str = "float32"
    make_slim: Callable = slim_classifier


def load_task(experiment, data_dir=None):
    """The task of an experiment.

    Args:
        experiment: An `Experiment`.
        data_dir: Folder of TFDS data sets; `None`: TFDS's own.

    Returns:
        A `Task`.
    """
    tasks = {"digits": _digits, "cifar10": _cifar10, "gtsrb": _gtsrb, "detection": _detection}
    if experiment.task not in tasks:
        raise ValueError(f"Received task={experiment.task!r}. Expected one of {list(tasks)}.")
    return tasks[experiment.task](data_dir, **experiment.data)


def _classification(train, validation, *arguments, **more):
    return Task(
        train,
        validation,
        *arguments,
        **more,
        pixels=[*train, *validation],
    )


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


def _shifts(pixels):
    """Views by so many pixels in each of the four directions; 0: none."""
    directions = [(0, pixels), (0, -pixels), (pixels, 0), (-pixels, 0)] if pixels else []
    return {f"moved {rows} {columns}": _shift(rows, columns) for rows, columns in directions}


def _digits(data_dir):
    from keras_ktan_tasks.digits import load_data, make_classifier

    train, validation, test = load_data()
    return _classification(
        train,
        validation,
        lambda: test,
        {"plain": _plain},
        lambda arguments, name: make_classifier(name=name, **arguments),
        "The digits of scikit-learn, 8×8 pixels.",
    )


def _cifar10(data_dir, image_size, train_images, validation_images, shifts=0):
    from keras_ktan_tasks.cifar10 import halve, load_cifar10, make_training_data, split_train
    from keras_ktan_tasks.residual_network import make_classifier

    train, test, is_jpeg = load_cifar10(data_dir)
    if image_size == 16:
        train, test = ((halve(images), labels) for images, labels in (train, test))
    train, validation = split_train(train, train_images, validation_images)
    views = {"plain": _plain, "mirrored": _mirrored}
    for name, move in _shifts(shifts).items():
        views[name] = move
        views[f"mirrored and {name}"] = lambda images, move=move: move(_mirrored(images))
    return _classification(
        train,
        validation,
        lambda: test,
        views,
        lambda arguments, name: make_classifier(image_size, name=name, **arguments),
        "The pixels were kept as JPEG: numbers differ slightly from those of the PNG original."
        if is_jpeg
        else "The pixels were kept without loss.",
        make_augmented=lambda batch_size, seed: make_training_data(
            *train, batch_size, seed, crops=True
        ),
    )


def _gtsrb(data_dir, validation_share, shifts=0):
    from keras_ktan_tasks.cifar10 import make_training_data
    from keras_ktan_tasks.gtsrb import CLASSES, load_gtsrb, split_by_track
    from keras_ktan_tasks.residual_network import make_classifier

    images, labels, tracks = load_gtsrb("train", data_dir)
    train, validation = split_by_track(images, labels, tracks, validation_share)
    return _classification(
        train,
        validation,
        lambda: load_gtsrb("test", data_dir)[:2],
        # Never mirrored: some signs are mirror images of others.
        {"plain": _plain, **_shifts(shifts)},
        lambda arguments, name: make_classifier(
            images.shape[1], name=name, classes=CLASSES, **arguments
        ),
        "Frames scaled to 32×32; validation images are of tracks that are not trained on.",
        make_augmented=lambda batch_size, seed: make_training_data(
            *train, batch_size, seed, crops=True, mirrors=False
        ),
    )


def _detection(data_dir, **arguments):
    from detection_task import make_detection_task

    return make_detection_task(data_dir, {"plain": _plain}, **arguments)
