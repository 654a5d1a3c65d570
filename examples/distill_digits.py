"""Make a small classifier of handwritten digits better: the whole story in a few minutes.

The digits are real scans that ship with scikit-learn (1,797 images of 8×8), so nothing is
downloaded. A convolutional teacher is trained, then one small student by four methods:
supervised, logit distillation, feature distillation, and KTAN, which has all terms.
All settings were chosen on the validation part; the test part is read once, at the end.
"""

import argparse
import json
import os
import pathlib
import platform

# First: it imports Keras without start-up lines.
from common.command_line import require, whole_number
from common.four_methods import METHODS, check_saved_model, format_table, train_student

# isort: split
import keras

import keras_ktan
from keras_ktan import FeaturePair, compression_report
from keras_ktan.plots import plot_training_curves
from keras_ktan_tasks.accuracy import accuracy
from keras_ktan_tasks.comparison import method_title
from keras_ktan_tasks.digits import (
    BATCH_SIZE,
    EPOCHS,
    STEPS_PER_EPOCH,
    STUDENT_FILTERS,
    TRAIN,
    load_data,
    make_classifier,
    make_optimizer,
    train_teacher,
)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=whole_number(1), default=3, help="runs of each method (default 3)"
    )
    parser.add_argument(
        "--epochs",
        type=whole_number(1),
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
    require(parser, arguments.output, "matplotlib", "sklearn")
    train, validation, test = load_data()

    print(f"teacher: {arguments.epochs} epochs on {TRAIN} images ...", flush=True)
    teacher = train_teacher(train, arguments.epochs)
    print(f"teacher: {accuracy(teacher, validation):.2%} on the validation part", flush=True)

    def make_student():
        return make_classifier(STUDENT_FILTERS, "student")

    students, histories = {method: [] for method in METHODS}, {method: [] for method in METHODS}
    total, done = arguments.seeds * len(METHODS), 0
    for seed in range(arguments.seeds):
        for method in METHODS:
            student, history, seconds = train_student(
                method,
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
            students[method].append(student)
            histories[method].append(history)
            done += 1
            print(
                f"[{done}/{total}] seed {seed}, {method_title(method)}: "
                f"{history['val_accuracy'][-1]:.2%} on the validation part, {seconds:.0f} s",
                flush=True,
            )

    teacher_accuracy = accuracy(teacher, test)
    accuracies = {
        method: [accuracy(model, test) for model in students[method]] for method in METHODS
    }
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
                    method: [run["val_accuracy"][-1] for run in histories[method]]
                    for method in METHODS
                },
            },
            indent=1,
        )
    )
    picture = arguments.output / "curves.png"
    plot_training_curves(
        {method_title(method): runs for method, runs in histories.items()},
        picture,
        title="One small student, four methods (digits, validation part)",
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
