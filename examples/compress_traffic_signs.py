"""From a teacher to a checked file in 8 bits: traffic signs, or digits in five minutes.

A convolutional teacher is trained; `compress` makes a student of at most a twentieth of its
multiply-accumulates, trains it with KTAN, writes it as LiteRT files and checks and compares
everything. Run the same command again after a stop: it goes on where it stood.

Traffic signs are GTSRB (43 classes, 32×32, https://benchmark.ini.rub.de) as a data set of
TensorFlow Datasets; validation images are cut by track, and the test images are read once, at the
end. `--digits` takes the scans that ship with scikit-learn in their place.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Callable

# First: it imports Keras without start-up lines.
from common.command_line import require, whole_number

# isort: split
import keras
import numpy as np

from keras_ktan import compress
from keras_ktan_tasks import digits, gtsrb, residual_network
from keras_ktan_tasks.progress import EpochReport

SHARE_OF_MACS = 1 / 20
VALIDATION_SHARE = 0.2  # of the tracks
QUICK_IMAGES = 300


@dataclasses.dataclass
class Task:
    """What is to be recognised.

    Args:
        parts: Tuples `(images, labels)` for training, validation and test.
        make_teacher: Function without arguments that returns a model of logits.
        teacher_rate: Learning rate of the teacher.
        student_rate: Learning rate of the student.
        divisor: What the student's widths are multiples of.
        batch_size: Images in a batch.
        epochs: Epochs of the teacher and of the student.
    """

    parts: tuple
    make_teacher: Callable
    teacher_rate: float
    student_rate: float
    divisor: int
    batch_size: int
    epochs: int


def digits_task():
    """The digits of scikit-learn and a teacher of 56,874 parameters."""
    return Task(
        tuple(digits.load_data()),
        lambda: digits.make_classifier(digits.TEACHER_FILTERS, "teacher"),
        teacher_rate=4e-3,
        student_rate=1e-2,
        divisor=1,
        batch_size=digits.BATCH_SIZE,
        epochs=digits.EPOCHS,
    )


def traffic_sign_task(data_dir):
    """GTSRB and a residual teacher."""
    images, labels, tracks = gtsrb.load_gtsrb("train", data_dir)
    parts = gtsrb.split_by_track(images, labels, tracks, VALIDATION_SHARE)
    test = gtsrb.load_gtsrb("test", data_dir)[:2]
    return Task(
        tuple((part.astype("float32"), answers) for part, answers in (*parts, test)),
        lambda: residual_network.make_classifier(32, 2, 32, "teacher", gtsrb.CLASSES),
        teacher_rate=2e-3,
        student_rate=4e-3,
        # The twentieth of the products is less than a quarter of the channels.
        divisor=2,
        batch_size=64,
        epochs=30,
    )


def few(parts, count):
    """Some images of each part, drawn, for a trial."""
    order = np.random.default_rng(0).permutation
    return tuple(
        (images[rows], labels[rows])
        for images, labels in parts
        for rows in [order(len(labels))[:count]]
    )


def make_optimizer(rate, task, epochs):
    """Adam with cosine decay."""
    steps = -(-len(task.parts[0][1]) // task.batch_size) * epochs
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))


def trained_teacher(task, epochs, folder):
    """The teacher, trained once; a stopped training goes on with the epoch where it stopped."""
    path, record = folder / "teacher.keras", folder / "teacher.json"
    train, validation, _ = task.parts
    settings = {"epochs": epochs, "images": len(train[1]), "rate": task.teacher_rate}
    if record.exists() and json.loads(record.read_text()) != settings:
        raise SystemExit(
            f"{record} is of a teacher with other settings: {record.read_text()}. Expected "
            f"{settings}. Name another --output."
        )
    record.write_text(json.dumps(settings))
    if path.exists():
        print(f"teacher: trained already, {path}", flush=True)
        return keras.saving.load_model(path)
    print(f"teacher: {epochs} epochs on {len(train[1]):,} images", flush=True)
    keras.utils.set_random_seed(1234)
    teacher = task.make_teacher()
    teacher.compile(
        make_optimizer(task.teacher_rate, task, epochs),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    teacher.fit(
        *train,
        task.batch_size,
        epochs,
        verbose=0,
        validation_data=validation,
        callbacks=[
            EpochReport("teacher"),
            keras.callbacks.BackupAndRestore(folder / "teacher_backup"),
        ],
    )
    # Renamed when it is whole: it stands for a finished training.
    teacher.save(folder / "unfinished.keras")
    (folder / "unfinished.keras").replace(path)
    return teacher


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--digits", action="store_true", help="digits in the place of GTSRB")
    parser.add_argument(
        "--data-dir",
        type=pathlib.Path,
        help="folder of TensorFlow Datasets that holds gtsrb/1.0.0 (default: this folder)",
    )
    parser.add_argument(
        "--epochs",
        type=whole_number(1),
        help="epochs of the teacher and of the student (default 30; digits 40)",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="also train the student by its labels alone and by logit distillation",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"a trial: {QUICK_IMAGES} images, one epoch, no limit on what the 8 bits may change",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder for teacher, student, files and report (default runs/traffic_signs, or "
        "runs/compressed_digits)",
    )
    arguments = parser.parse_args()
    if arguments.digits and arguments.data_dir:
        parser.error("--data-dir is of the traffic signs. Leave it out, or --digits")
    if arguments.output is None:
        name = "compressed_digits" if arguments.digits else "traffic_signs"
        arguments.output = pathlib.Path("runs") / (name + "_quick" * arguments.quick)
    data = "sklearn" if arguments.digits else "tensorflow_datasets"
    require(parser, arguments.output, "ai_edge_litert", data)
    if not arguments.digits:
        folder = (arguments.data_dir or pathlib.Path(".")) / "gtsrb" / "1.0.0"
        if not folder.is_dir():
            parser.error(
                f"--data-dir: {folder} is not there. Name the folder of TensorFlow Datasets that "
                "holds it, or take --digits"
            )
    return arguments


def main():
    arguments = parse_arguments()
    task = digits_task() if arguments.digits else traffic_sign_task(arguments.data_dir)
    epochs = 1 if arguments.quick else arguments.epochs or task.epochs
    if arguments.quick:
        task.parts = few(task.parts, QUICK_IMAGES)
    train, validation, test = task.parts
    teacher = trained_teacher(task, epochs, arguments.output)
    result = compress(
        teacher,
        train,
        validation,
        target={"macs": SHARE_OF_MACS},
        output=arguments.output / "student",
        epochs=epochs,
        slim={"divisor": task.divisor},
        optimizer=make_optimizer(task.student_rate, task, epochs),
        batch_size=task.batch_size,
        formats=("litert", "int8"),
        export={"agreement": 0.0} if arguments.quick else None,
        test_data=test,
        compare=arguments.compare,
    )
    file = result.paths["int8"]
    print(f"The file to ship: {file}, {file.stat().st_size:,} bytes")
    print(f"The report: {result.paths['report.md']}")


if __name__ == "__main__":
    main()
