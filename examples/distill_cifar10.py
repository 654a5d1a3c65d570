"""Make a small classifier of CIFAR-10 better: four methods, one budget, runs that can be resumed.

A residual teacher is trained, then one small residual student by four methods: supervised,
logit distillation, feature distillation, and KTAN, which has all terms. Each finished run is one
line of OUTPUT/runs.jsonl; the same command with --resume goes on where it stopped. Training uses
the validation images only, which are cut from the train split; the test images are read once a
run, after it.

The images come through TensorFlow Datasets, which downloads them where they are missing. A
prepared copy may hold its pixels as JPEG, which is lossy: numbers then differ slightly from
those of the PNG original. The first image tells; the output and the table say what was found.
"""

import argparse
import pathlib

# First: it imports Keras without start-up lines.
from common.command_line import require, whole_number
from common.four_methods import METHODS, format_table, train_student

# isort: split
import keras
import tensorflow as tf

import keras_ktan
from keras_ktan import FeaturePair, compression_report
from keras_ktan.plots import plot_feature_maps, plot_training_curves
from keras_ktan_tasks.accuracy import accuracy
from keras_ktan_tasks.cifar10 import halve, load_cifar10, make_training_data, split_train
from keras_ktan_tasks.comparison import method_title
from keras_ktan_tasks.progress import EpochReport, duration, seconds_left
from keras_ktan_tasks.residual_network import make_classifier
from keras_ktan_tasks.run_log import RunLog, digest

TEACHER_SEED = 1234
# The first seed's students of these methods are kept, so that their maps can be drawn.
WITHOUT, WITH = "supervised", "KTAN"
MAP_IMAGES = 4
# The stage before the last: its map gains more than the last one does, and a constant weight
# is as good as one that decays (benchmarks/results/README.md, "The layer").
STAGE, FEATURE_LOSS, FEATURE_WEIGHT = "stage_2", "normalized_mse", 3.0
LEARNING_RATE, WEIGHT_DECAY = 4e-3, 1e-4


def make_optimizer(steps):
    """AdamW with cosine decay over so many steps."""
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    return keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY)


def obtain_teacher(path, log, make_teacher, make_data, validation_data, epochs, steps):
    """The teacher of this experiment: read if it was kept, else trained and kept.

    Args:
        path: `pathlib.Path` of the `.keras` file.
        log: `RunLog`; it records which teacher the runs had.
        make_teacher: Function without arguments that builds it.
        make_data: Function from a seed to training data.
        validation_data: A `tf.data.Dataset`.
        epochs: Int.
        steps: Steps of the whole training.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If it is not the teacher of the runs in the log.
    """
    # A file that is there without a record is a stopped or an earlier experiment's.
    if "teacher" in log.settings and path.exists():
        print(f"teacher: read from {path}", flush=True)
        teacher = keras.saving.load_model(path)
    else:
        print(f"teacher: {epochs} epochs ...", flush=True)
        data = make_data(TEACHER_SEED)
        teacher = make_teacher()
        teacher.compile(
            optimizer=make_optimizer(steps),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        teacher.fit(
            data,
            epochs=epochs,
            validation_data=validation_data,
            callbacks=[EpochReport("teacher")],
            shuffle=False,  # the data set shuffles itself
            verbose=0,
        )
        teacher.save(path)
    log.confirm("teacher", digest(teacher.get_weights()))
    return teacher


def parse_arguments(argv=None):
    """The command line; see --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def add(option, help, **how):
        parser.add_argument(
            option, help=f"{help} (default: {how.pop('shown', '%(default)s')})", **how
        )

    one_or_more = {"type": whole_number(1), "metavar": "N"}
    add("--data-dir", "folder of TFDS data sets", shown="TFDS's own; downloads if need be")
    add("--train-images", "training images", default=10000, **one_or_more)
    add(
        "--validation-images",
        "images cut from the rest of the train split, for the look after each epoch",
        default=2000,
        **one_or_more,
    )
    add(
        "--image-size",
        "height and width; 16 takes means of 2x2 pixels",
        type=int,
        choices=(16, 32),
        default=16,
    )
    add("--teacher-depth", "teacher: residual blocks in each of 3 stages", default=2, **one_or_more)
    add("--teacher-width", "teacher: channels of its first stage", default=24, **one_or_more)
    add("--student-depth", "student: residual blocks in each of 3 stages", default=1, **one_or_more)
    add("--student-width", "student: channels of its first stage", default=8, **one_or_more)
    add("--epochs", "epochs of the teacher and of each student", default=15, **one_or_more)
    add("--batch-size", "images a step", default=128, **one_or_more)
    add("--no-crops", "mirror only, without random crops", shown="both", action="store_true")
    add("--temperature", "softens both models' probabilities", type=float, default=4.0)
    add("--seeds", "runs of each method, with seeds from 0 on", default=3, **one_or_more)
    add(
        "--methods",
        "the methods to run, of: " + ", ".join(f'"{method}"' for method in METHODS),
        nargs="+",
        choices=list(METHODS),
        default=list(METHODS),
        metavar="METHOD",
        shown="all",
    )
    add(
        "--output",
        "folder for runs.jsonl, settings.json, the models, table.md, curves.png and maps.png",
        type=pathlib.Path,
        default=pathlib.Path("runs/cifar10"),
    )
    add(
        "--resume",
        "go on with the runs in OUTPUT; the settings must be the recorded ones, but --seeds and "
        "--methods may ask for more",
        shown="refuse a folder with runs",
        action="store_true",
    )
    arguments = parser.parse_args(argv)
    if not 0 < arguments.temperature < float("inf"):
        parser.error(f"--temperature: received {arguments.temperature}, expected a number above 0")
    require(parser, arguments.output, "matplotlib", "tensorflow_datasets")
    # In the order of the table, each once.
    arguments.methods = [method for method in METHODS if method in arguments.methods]
    # What a run depends on; how many runs there are and where they lie is not part of it.
    apart = ("data_dir", "seeds", "methods", "output", "resume")
    settings = {name: value for name, value in vars(arguments).items() if name not in apart}
    settings["maps"] = [STAGE, FEATURE_LOSS, FEATURE_WEIGHT]
    settings["versions"] = {
        module.__name__: module.__version__ for module in (keras_ktan, keras, tf)
    }
    try:
        log = RunLog(arguments.output, settings, arguments.resume)
    except ValueError as error:
        parser.error(str(error))
    return arguments, log


class KeepDistiller(keras.callbacks.Callback):
    """Writes the distiller when its training ends: the models and what T2S and D learned.

    Args:
        path: `pathlib.Path` of the `.keras` file.
    """

    def __init__(self, path):
        super().__init__()
        self._path = path

    def on_train_end(self, logs=None):
        self.model.save(self._path)


def kept(output, method):
    """Where the distiller of a method's first seed is kept."""
    return output / f"distiller_{method}.keras"


def draw_maps(output, images):
    """Draw the maps of the students that were kept, if there are both.

    Args:
        output: `pathlib.Path` of the folder; `maps.png` is written there.
        images: Array of images, none of which was trained on.

    Returns:
        A sentence about what was drawn, or why nothing was.
    """
    missing = [method for method in (WITHOUT, WITH) if not kept(output, method).exists()]
    if missing:
        return f"Feature maps: not drawn, seed 0 was not run in this folder with {missing}."
    without, distiller = (
        keras.saving.load_model(kept(output, method)) for method in (WITHOUT, WITH)
    )
    plot_feature_maps(
        distiller,
        images.astype("float32"),
        output / "maps.png",
        without.student,
        title=f"Energy of the maps of {STAGE} (CIFAR-10, validation images)",
    )
    return f"Feature maps: {output / 'maps.png'}"


def run_students(arguments, log, teacher, make_student, make_data, validation_data, test, steps):
    """Every run that the log does not hold yet; each is logged when it is finished.

    Args:
        arguments: The command line.
        log: `RunLog`.
        teacher: The trained teacher.
        make_student: Function without arguments that builds a student.
        make_data: Function from a seed to training data.
        validation_data: A `tf.data.Dataset`.
        test: Tuple `(images, labels)`, read once after each run.
        steps: Steps of a whole run.
    """
    plan = [(seed, method) for seed in range(arguments.seeds) for method in arguments.methods]
    left = [(seed, method) for seed, method in plan if not log.find(seed=seed, method=method)]
    if len(left) < len(plan):
        print(f"{len(plan) - len(left)} of {len(plan)} runs are finished already", flush=True)
    for index, (seed, method) in enumerate(left, start=1):
        callbacks = [EpochReport(f"seed {seed}, {method_title(method)}")]
        if seed == 0 and method in (WITHOUT, WITH):
            callbacks.append(KeepDistiller(kept(arguments.output, method)))
        student, history, seconds = train_student(
            method,
            seed,
            teacher,
            make_student,
            make_data(seed),
            validation_data,
            arguments.epochs,
            steps // arguments.epochs,
            lambda: make_optimizer(steps),
            feature_pairs=FeaturePair(STAGE, STAGE),
            feature_weight=FEATURE_WEIGHT,
            temperature=arguments.temperature,
            callbacks=callbacks,
            feature_loss=FEATURE_LOSS,
        )
        log.append(
            {
                "method": method,
                "seed": seed,
                "test_accuracy": accuracy(student, test),
                "validation_accuracy": history["val_accuracy"][-1],
                "seconds": round(seconds, 1),
                "student_parameters": student.count_params(),
                "teacher_parameters": teacher.count_params(),
                "history": history,
            }
        )
        waiting = [later for _, later in left[index:]]
        print(
            f"[{len(plan) - len(waiting)}/{len(plan)}] seed {seed}, {method_title(method)}: "
            f"{history['val_accuracy'][-1]:.2%} on the validation images, {duration(seconds)}; "
            + (f"about {duration(seconds_left(log.runs, waiting))} left" if waiting else "done"),
            flush=True,
        )


def main(argv=None):
    arguments, log = parse_arguments(argv)
    epochs, size, output = arguments.epochs, arguments.image_size, arguments.output
    train, test, is_jpeg = load_cifar10(arguments.data_dir)
    if size == 16:
        train, test = ((halve(images), labels) for images, labels in (train, test))
    train, validation = split_train(train, arguments.train_images, arguments.validation_images)
    log.confirm("pixels", digest([*train, *validation, *test]))
    pixels = (
        "The pixels were kept as JPEG: numbers differ slightly from those of the PNG original."
        if is_jpeg
        else "The pixels were kept without loss."
    )
    print(
        f"CIFAR-10 at {size}×{size}: {len(train[1]):,} training, {len(validation[1]):,} "
        f"validation, {len(test[1]):,} test images. {pixels}\n"
        "Stop it when you like: the same command with --resume goes on.",
        flush=True,
    )

    def make_data(seed):
        return make_training_data(*train, arguments.batch_size, seed, not arguments.no_crops)

    def make_student():
        return make_classifier(size, arguments.student_depth, arguments.student_width, "student")

    def make_teacher():
        return make_classifier(size, arguments.teacher_depth, arguments.teacher_width, "teacher")

    looked_at = (validation[0].astype("float32"), validation[1])
    validation_data = tf.data.Dataset.from_tensor_slices(looked_at).batch(500)
    steps = epochs * -(-len(train[1]) // arguments.batch_size)
    teacher = obtain_teacher(
        output / "teacher.keras", log, make_teacher, make_data, validation_data, epochs, steps
    )
    teacher_validation = accuracy(teacher, validation)
    print(f"teacher: {teacher_validation:.2%} on the validation images", flush=True)
    run_students(arguments, log, teacher, make_student, make_data, validation_data, test, steps)

    seeds = range(arguments.seeds)
    runs = {
        method: [log.find(seed=seed, method=method) for seed in seeds]
        for method in arguments.methods
    }
    report = compression_report(teacher, make_student())
    accuracies = {method: [run["test_accuracy"] for run in found] for method, found in runs.items()}
    table = format_table(accuracies, accuracy(teacher, test))
    heading = (
        f"CIFAR-10 at {size}×{size}, {len(train[1]):,} training images, {epochs} epochs, seeds: "
        f"{arguments.seeds}; accuracy on {len(test[1]):,} test images. {pixels}"
    )
    print(f"\n{report}\n\n{heading}\n\n{table}\n")
    (output / "table.md").write_text(f"```\n{report}\n```\n\n{heading}\n\n{table}\n")
    picture = output / "curves.png"
    plot_training_curves(
        {method_title(method): [run["history"] for run in found] for method, found in runs.items()},
        picture,
        title="One small student, four methods (CIFAR-10, validation images)",
        baseline=("teacher", teacher_validation),
    )
    print(f"Training curves: {picture}; one line a run: {log.path}")
    print(draw_maps(output, validation[0][:MAP_IMAGES]))


if __name__ == "__main__":
    main()
