"""Make a small classifier of handwritten digits better: the whole story in a few minutes.

The digits are real scans that ship with scikit-learn (1,797 images of 8×8), so nothing is
downloaded. A convolutional teacher is trained, then one small student four ways: on the
labels only, with the teacher's softened logits, with its feature map, and with all of KTAN.
All settings were chosen on the validation part; the test part is read once, at the end.
"""

import argparse
import json
import os
import pathlib
import platform

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from four_ways import FOUR_WAYS, accuracy, check_saved_model, format_table, train_student
from sklearn.datasets import load_digits

import keras_ktan
from keras_ktan import FeaturePair, compression_report
from keras_ktan.plots import plot_training_curves

TRAIN, VALIDATION = 1000, 297  # the other 500 are the test part
BATCH_SIZE = 32
STEPS_PER_EPOCH = -(-TRAIN // BATCH_SIZE)
EPOCHS = 40
LEARNING_RATE = 3e-2
TEACHER_FILTERS, STUDENT_FILTERS = (32, 64, 64), (6, 8)


def load_data():
    """The digits in a fixed order, cut into train, validation and test.

    Returns:
        Three tuples `(images, labels)`; images are `(count, 8, 8, 1)` between 0 and 1.
    """
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order, :, :, None] / 16.0).astype("float32")
    labels = digits.target[order].astype("int32")
    cuts = (TRAIN, TRAIN + VALIDATION)
    return list(zip(np.split(images, cuts), np.split(labels, cuts), strict=True))


def make_classifier(filters, name):
    """Convolutions with batch normalisation; the second one halves the image.

    Args:
        filters: Tuple of channel counts, one a convolution.
        name: The model's name.

    Returns:
        A `keras.Model` that returns logits. Its maps are the layers `"map_1"`, `"map_2"` and so
        on; the last one is `"features"`.
    """
    inputs = keras.Input((8, 8, 1), name="image")
    hidden = inputs
    for index, count in enumerate(filters):
        hidden = keras.layers.Conv2D(
            count, 3, strides=2 if index == 1 else 1, padding="same", use_bias=False
        )(hidden)
        hidden = keras.layers.BatchNormalization()(hidden)
        last = index == len(filters) - 1
        hidden = keras.layers.ReLU(name="features" if last else f"map_{index + 1}")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(hidden), name=name)


def make_optimizer(epochs, rate=LEARNING_RATE):
    """Adam with cosine decay."""
    decay = keras.optimizers.schedules.CosineDecay(rate, epochs * STEPS_PER_EPOCH)
    return keras.optimizers.Adam(decay)


def train_teacher(train, epochs):
    """The teacher, trained on the labels."""
    keras.utils.set_random_seed(1234)
    teacher = make_classifier(TEACHER_FILTERS, "teacher")
    teacher.compile(
        optimizer=make_optimizer(epochs, rate=4e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    teacher.fit(*train, batch_size=BATCH_SIZE, epochs=epochs, verbose=0)
    return teacher


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each way (default 3)")
    parser.add_argument(
        "--epochs",
        type=int,
        default=EPOCHS,
        help=f"epochs of the teacher and each student (default {EPOCHS})",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs/digits"),
        help="folder for the table, the picture, the numbers and the SavedModel",
    )
    arguments = parser.parse_args()
    if arguments.seeds < 1 or arguments.epochs < 1:
        parser.error("--seeds and --epochs must be 1 or more")
    arguments.output.mkdir(parents=True, exist_ok=True)
    train, validation, test = load_data()

    print(f"teacher: {arguments.epochs} epochs on {TRAIN} images ...", flush=True)
    teacher = train_teacher(train, arguments.epochs)
    print(f"teacher: {accuracy(teacher, validation):.2%} on the validation part", flush=True)

    def make_student():
        return make_classifier(STUDENT_FILTERS, "student")

    students, histories = {way: [] for way in FOUR_WAYS}, {way: [] for way in FOUR_WAYS}
    total, done = arguments.seeds * len(FOUR_WAYS), 0
    for seed in range(arguments.seeds):
        for way in FOUR_WAYS:
            student, history, seconds = train_student(
                way,
                seed,
                teacher,
                make_student,
                train,
                validation,
                arguments.epochs,
                STEPS_PER_EPOCH,
                lambda: make_optimizer(arguments.epochs),
                feature_pairs=FeaturePair("features", "features"),
                batch_size=BATCH_SIZE,
            )
            students[way].append(student)
            histories[way].append(history)
            done += 1
            print(
                f"[{done}/{total}] seed {seed}, {way}: "
                f"{history['val_accuracy'][-1]:.2%} on the validation part, {seconds:.0f} s",
                flush=True,
            )

    teacher_accuracy = accuracy(teacher, test)
    accuracies = {way: [accuracy(model, test) for model in students[way]] for way in FOUR_WAYS}
    report = compression_report(teacher, students["KTAN"][0])
    table = format_table(accuracies, teacher_accuracy)
    print(f"\n{report}\n\n{table}\n")
    (arguments.output / "table.md").write_text(f"```\n{report}\n```\n\n{table}\n")
    (arguments.output / "results.json").write_text(
        json.dumps(
            {
                "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
                "versions": {module.__name__: module.__version__ for module in (keras, keras_ktan)},
                "epochs": arguments.epochs,
                "seeds": list(range(arguments.seeds)),
                "teacher_accuracy": teacher_accuracy,
                "student_accuracies": accuracies,
                "validation_accuracies": {
                    way: [run["val_accuracy"][-1] for run in histories[way]] for way in FOUR_WAYS
                },
            },
            indent=1,
        )
    )
    picture = arguments.output / "curves.png"
    plot_training_curves(
        histories,
        picture,
        title="One small student, four ways (digits, validation part)",
        baseline=("teacher", accuracy(teacher, validation)),
    )
    saved_model = arguments.output / "student"
    student = students["KTAN"][0]
    student.export(saved_model, verbose=False)
    difference = check_saved_model(saved_model, student, test[0])
    if difference > 1e-4:
        raise SystemExit(f"The SavedModel differs from the student by {difference:.2g}.")
    print(
        f"SavedModel of the KTAN student: {saved_model}; reloaded in a fresh process without "
        f"keras_ktan, its predictions agree (largest difference {difference:.1e})."
    )
    print(f"Training curves: {picture}; all numbers: {arguments.output / 'results.json'}")


if __name__ == "__main__":
    main()
