"""Object detection as a task of `accuracy.py`, measured by AP."""

import pathlib

from tasks import Task

from keras_ktan_tasks.compact_detector import CompactDetector
from keras_ktan_tasks.detection import (
    LOGITS_ARGUMENTS,
    VIEWS_SEED,
    describe_losses,
    evaluate,
    make_optimizer,
)
from keras_ktan_tasks.detection_data import (
    SHAPE_NAMES,
    load_pictures,
    make_shapes,
    make_training_data,
    make_views,
    split_pictures,
)
from keras_ktan_tasks.slim_detector import slim_detector

SHAPES = "shapes"


def make_detection_task(data_dir, views, dataset, image_size, versions, held_out):
    """The task.

    Args:
        data_dir: Folder of TFDS data sets; `None`: TFDS's own.
        views: Dict with the one view of a picture: its versions were moved beforehand.
        dataset: A TFDS name, the folder `name/version` of a data set in `data_dir`, or
            `"shapes"` for pictures that are drawn.
        image_size: Height and width of the networks' input.
        versions: Int, augmented versions of each picture for the students.
        held_out: Int, pictures of the train split that choices are made on.

    Returns:
        A `Task`. Its test pictures are those of the split `val`.
    """
    size = tuple(image_size)

    def load(split):
        if dataset == SHAPES:
            count, seed = (96, 0) if split == "train" else (32, 1)
            return make_shapes(count, size, seed), SHAPE_NAMES
        # Kept a little larger than the network's input, so that a window can come closer.
        kept = tuple(5 * length // 3 for length in size)
        folder = pathlib.Path(data_dir or ".") / dataset
        return load_pictures(str(folder) if folder.is_dir() else dataset, split, kept, data_dir)

    pictures, names = load("train")
    train, validation = split_pictures(pictures, held_out)
    images, truth = make_views(train, size, versions, VIEWS_SEED)

    def make_model(arguments, name):
        return CompactDetector(size, len(names), **arguments, name=name)

    def make_slim(teacher, student, **arguments):
        box_weight = student.settings["box_weight"]
        return slim_detector(teacher, box_weight, name=student.name, **arguments)

    return Task(
        (images, truth),
        validation,
        lambda: load("val")[0],
        views,
        make_model,
        f"{len(train)} training pictures at {size[0]}×{size[1]}, {versions} versions of each.",
        pixels=[
            images,
            *truth.values(),
            validation.images,
            validation.boxes,
            validation.labels,
        ],
        make_augmented=lambda batch_size, seed: make_training_data(train, size, batch_size, seed),
        measure="AP",
        score=lambda model, data: evaluate(model, data, size, names)["AP"],
        describe=lambda model, task, logs: describe_losses(logs),
        make_optimizer=lambda rate, steps, decay: make_optimizer(steps, rate, decay),
        # No loss: a detector knows its own.
        compile_arguments=dict,
        distiller_arguments=LOGITS_ARGUMENTS,
        # Half the room, and far finer than the two models differ.
        cache_precision="float16",
        make_slim=make_slim,
    )
