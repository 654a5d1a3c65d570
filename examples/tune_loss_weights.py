"""Find loss weights for a small classifier of digits with KerasTuner, and say whether it helped.

A teacher is trained on the digits that ship with scikit-learn. A random search looks for the
weights of the distillation terms, how they change along the training, and the temperature,
on the validation images. Then students are trained anew with the settings found and with
plain logit distillation, seed by seed alike, and the test images are read once. With one
directory the same command goes on with a search that was stopped.
"""

import argparse
import pathlib

# First: it imports Keras without start-up lines.
from common.command_line import require, whole_number
from common.four_methods import train_student

# isort: split
import keras
import keras_tuner
import numpy as np

from keras_ktan import FeaturePair
from keras_ktan.tuner import KTANHyperModel, best_student
from keras_ktan_tasks.accuracy import accuracy
from keras_ktan_tasks.comparison import mean_and_deviation, paired_interval
from keras_ktan_tasks.digits import (
    BATCH_SIZE,
    EPOCHS,
    STEPS_PER_EPOCH,
    STUDENT_FILTERS,
    load_data,
    make_classifier,
    make_optimizer,
    train_teacher,
)

# What is searched. Adam hardly sees a factor common to all weights: that of the labels stays 1.
SEARCH_SPACE = {
    "student_loss_weight": 1.0,
    "logits_loss_ramp": ["constant", "falling"],
    "t2s_objective": "student_head",
    "feature_loss": "cosine",
    "adversarial_loss": "bce",
    "discriminator_filters": 16,
    "discriminator_noise": 2.0,
}


def make_hypermodel(teacher, epochs, seed):
    """What a tuner needs to know.

    Args:
        teacher: The trained teacher.
        epochs: Int, of each student.
        seed: Int, of the students' first weights.

    Returns:
        A `KTANHyperModel`.
    """

    def build_student(hp):
        keras.utils.set_random_seed(seed)
        return make_classifier(STUDENT_FILTERS, "student")

    return KTANHyperModel(
        build_student,
        teacher,
        compile_arguments=lambda hp: {
            "optimizer": make_optimizer(epochs),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "metrics": ["accuracy"],
        },
        training_steps=epochs * STEPS_PER_EPOCH,
        search_space=SEARCH_SPACE,
        feature_pairs=FeaturePair("features", "features"),
    )


def train_with_found_settings(hyperparameters, seed, teacher, train, validation, epochs):
    """Train a student with the settings that were found.

    Returns:
        The student, with the weights of the last epoch.
    """
    distiller = make_hypermodel(teacher, epochs, seed).build(hyperparameters)
    keras.utils.set_random_seed(seed)
    distiller.fit(
        *train, batch_size=BATCH_SIZE, epochs=epochs, validation_data=validation, verbose=0
    )
    return distiller.student


def train_by_logit_distillation(seed, teacher, train, validation, epochs):
    """Train a student by logit distillation: both weights 1, temperature 4.

    Returns:
        The student, with the weights of the last epoch.
    """
    student, _, _ = train_student(
        "logit_distillation",
        seed,
        teacher,
        lambda: make_classifier(STUDENT_FILTERS, "student"),
        train,
        validation,
        epochs,
        STEPS_PER_EPOCH,
        lambda: make_optimizer(epochs),
        feature_pairs=FeaturePair("features", "features"),
        batch_size=BATCH_SIZE,
    )
    return student


def conclusion(found, plain):
    """The comparison in words.

    Args:
        found: Test accuracies with the settings found, one a seed.
        plain: Those by logit distillation, same seeds.

    Returns:
        A string.
    """
    differences = 100 * (np.array(found) - np.array(plain))
    mean, reach = paired_interval(differences)
    if len(differences) < 2:
        return f"{mean:+.2f} points with one seed, which says nothing about chance."
    difference = (
        f"{mean:+.2f} points, 95% interval {mean - reach:+.2f} to {mean + reach:+.2f} (paired, "
        f"{len(differences)} seeds)"
    )
    if abs(mean) <= reach:
        return f"{difference}: no difference that chance does not explain."
    return f"{difference}: the settings found are {'better' if mean > 0 else 'worse'}."


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trials", type=whole_number(1), default=6, help="settings to try (default 6)"
    )
    parser.add_argument(
        "--epochs", type=whole_number(1), default=15, help="of each student (default 15)"
    )
    parser.add_argument(
        "--teacher-epochs",
        type=whole_number(1),
        default=EPOCHS,
        help=f"of the teacher (default {EPOCHS})",
    )
    parser.add_argument(
        "--seeds", type=whole_number(1), default=3, help="students for the comparison (default 3)"
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs/tune_loss_weights"),
        help="folder of the searches, one for each number of epochs",
    )
    arguments = parser.parse_args()
    require(parser, arguments.output, "tensorboard", "sklearn")
    epochs = arguments.epochs
    train, validation, test = load_data()
    teacher = train_teacher(train, arguments.teacher_epochs)
    print(f"teacher: {accuracy(teacher, validation):.2%} on the validation images", flush=True)

    tuner = keras_tuner.RandomSearch(
        make_hypermodel(teacher, epochs, seed=0),
        objective=keras_tuner.Objective("val_accuracy", "max"),
        max_trials=arguments.trials,
        seed=1,
        directory=arguments.output,
        project_name=f"{epochs}_epochs",
    )
    tuner.search(
        *train, batch_size=BATCH_SIZE, epochs=epochs, validation_data=validation, verbose=0
    )
    trials = sorted(tuner.oracle.trials.values(), key=lambda trial: trial.trial_id)
    for trial in trials:
        score = "" if trial.score is None else f", {trial.score:.2%} on the validation images"
        settings = {
            name: f"{value:.3g}" if isinstance(value, float) else value
            for name, value in trial.hyperparameters.values.items()
            if not name.startswith("keras_ktan/")  # what the search belongs to
            and (name not in SEARCH_SPACE or isinstance(SEARCH_SPACE[name], list))
        }
        shown = ", ".join(f"{name}={value}" for name, value in settings.items())
        print(f"trial {trial.trial_id}: {trial.status.lower()}{score}; {shown}")

    (best,) = tuner.get_best_hyperparameters()
    student = best_student(tuner)
    print(
        f"\nThe best student of the search, {student.count_params()} parameters, has "
        f"{accuracy(student, validation):.2%} on the validation images: the best of "
        f"{len(trials)}, and so better than it will be on others.",
        flush=True,
    )
    seeds = range(1, arguments.seeds + 1)  # the search had seed 0
    plain, found = (
        [train_one(seed, teacher, train, validation, epochs) for seed in seeds]
        for train_one in (
            train_by_logit_distillation,
            lambda seed, *data: train_with_found_settings(best, seed, *data),
        )
    )
    plain, found = ([accuracy(model, test) for model in models] for models in (plain, found))
    print(f"teacher: {accuracy(teacher, test):.2%} on the {len(test[1])} test images")
    for name, values in {"logit distillation": plain, "settings found": found}.items():
        mean, deviation = mean_and_deviation(values)
        print(f"{name}: {mean:.2%} ± {100 * deviation:.2f} (sd) on the test images")
    print(f"Settings found against logit distillation: {conclusion(found, plain)}")


if __name__ == "__main__":
    main()
