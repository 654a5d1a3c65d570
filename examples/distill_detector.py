"""Make a small object detector better: four methods, one budget, runs that can be resumed.

A compact FCOS detector is trained as the teacher, then one that is many times smaller by four
methods: supervised, logit distillation of every position's scores, feature distillation, and
KTAN, which has all terms. The pictures come from a TFDS data set with the
features of `voc`; with --quick they are drawn shapes. A part of the train split is cut off for
tuning; the validation split is read once a run, after it.

Each finished run is one line of OUTPUT/runs.jsonl; the same command with --resume goes on where
it stopped, and the teacher is trained once.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import time

# First: it imports Keras without start-up lines.
from common.command_line import require, whole_number
from common.detection_report import draw_detections, export_with_decoding, format_results
from common.four_methods import METHODS, check_saved_model

# isort: split
import keras
import numpy as np
import tensorflow as tf

import keras_ktan
from keras_ktan import FeaturePair, KTANDistiller, TeacherCache, TeacherToStudent
from keras_ktan_tasks.compact_detector import CompactDetector
from keras_ktan_tasks.comparison import method_title
from keras_ktan_tasks.detection import (
    LOGITS_ARGUMENTS,
    VIEWS_SEED,
    describe_losses,
    evaluate,
    make_optimizer,
)
from keras_ktan_tasks.detection_data import (
    SHAPE_NAMES,
    as_network_input,
    load_pictures,
    make_shapes,
    make_training_data,
    make_views,
    split_pictures,
)
from keras_ktan_tasks.progress import EpochReport, duration, seconds_left
from keras_ktan_tasks.run_log import RunLog, digest

# What is paired: what the box head sees of each level before its last layer. The logits say what
# an object is, and these maps where it ends.
PAIRED_LAYERS = ["box_head_P3", "box_head_P4"]
TEACHER_SEED = 1234
TEACHER_EPOCHS, VIEWS, STUDENT_EPOCHS = 100, 24, 12
TEACHER_RATE, STUDENT_RATE = 2e-3, 16e-3
# How they were chosen: benchmarks/results/README.md.
LOGITS_WEIGHT, FEATURE_WEIGHT, ADVERSARY_WEIGHT = 10.0, 0.3, 0.001
TEMPERATURE = 1.0
TEACHER = {"widths": (24, 48, 96, 128), "pyramid_width": 96, "depth": 2, "head_depth": 2}
STUDENT = {"widths": (8, 12, 24, 24), "pyramid_width": 24, "box_weight": 3.0}
QUICK_TEACHER = {"widths": (16, 24, 48, 64), "pyramid_width": 48}
QUICK_STUDENT = {"widths": (6, 8, 12, 16), "pyramid_width": 12}


def networks(is_quick):
    """The arguments of the teacher's and of the student's `CompactDetector`."""
    return (QUICK_TEACHER, QUICK_STUDENT) if is_quick else (TEACHER, STUDENT)


def make_objectives(method, steps):
    """One method's pairs and loss weights.

    The weights of features and adversary decay to 0. The logits' loss is a mean over all
    positions, of which few hold an object: hence its large weight.

    Args:
        method: One of `METHODS`.
        steps: Steps of the whole training.

    Returns:
        A tuple of a list of `FeaturePair` and a dict of arguments for `KTANDistiller.compile`.
    """

    def decaying(weight):
        return keras.optimizers.schedules.CosineDecay(weight, steps)

    has_logits, has_features, has_adversary = METHODS[method]
    # The student's own head sees, by the boxes that it makes of a map, what the map is worth.
    pairs = [
        FeaturePair(layer, layer, teacher_to_student=TeacherToStudent(objective="student_head"))
        for layer in PAIRED_LAYERS
    ]
    return pairs, {
        "logits_loss_weight": LOGITS_WEIGHT if has_logits else 0.0,
        "feature_loss_weight": decaying(FEATURE_WEIGHT) if has_features else 0.0,
        "adversarial_loss_weight": decaying(ADVERSARY_WEIGHT) if has_adversary else 0.0,
    }


def describe_objectives():
    """The methods' settings in values that JSON can hold, for the run log."""

    def value(weight):
        is_schedule = isinstance(weight, keras.optimizers.schedules.LearningRateSchedule)
        return weight.get_config() if is_schedule else weight

    described = {"temperature": TEMPERATURE, "rates": [TEACHER_RATE, STUDENT_RATE]}
    for method in METHODS:
        pairs, weights = make_objectives(method, 1)
        described[method] = {name: value(weight) for name, weight in weights.items()}
        described[method]["pairs"] = [
            [pair.teacher_layer_name, pair.student_layer_name, pair.teacher_to_student.objective]
            for pair in pairs
        ]
    return described


def make_student_data(teacher, views, batch_size, directory, verbose=1, layer_names=PAIRED_LAYERS):
    """Batches that bring along what the teacher said of them, computed once for all runs.

    Args:
        teacher: The trained teacher.
        views: What `make_views` returned.
        batch_size: Int.
        directory: Where the teacher's outputs are kept.
        verbose: 1 shows the progress, 0 nothing.
        layer_names: The teacher's layers whose maps are kept.

    Returns:
        Function from a seed to batches.
    """
    images, truth = views
    # Half precision: half the room, and far finer than the two models differ.
    cache = TeacherCache(
        teacher, directory, layer_names=layer_names, precision="float16", batch_size=32
    )
    cache.fill(images, verbose=verbose)
    return lambda seed: cache.dataset(images, truth, batch_size=batch_size, seed=seed)


def train_student(teacher, make_student, data, seed, epochs, steps, objectives, label, **arguments):
    """Train a new student by one method with one seed.

    The seed fixes the student's initial weights and the batches, so that the methods start alike.

    Args:
        teacher: The trained teacher.
        make_student: Function without arguments that builds the student.
        data: What `make_student_data` returned.
        seed: Int.
        epochs: Int.
        steps: Steps of the whole run.
        objectives: The pairs and weights that `make_objectives` returned.
        label: What is running, for the lines that say where it stands.
        **arguments: More for `KTANDistiller`.

    Returns:
        A tuple of the student, the history and the seconds that `fit` took.
    """
    pairs, weights = objectives
    keras.utils.set_random_seed(seed)
    student = make_student()
    distiller = KTANDistiller(
        teacher,
        student,
        pairs,
        **{
            **LOGITS_ARGUMENTS,
            "temperature": TEMPERATURE,
            **arguments,
        },
    )
    # No loss: a detector knows its own.
    distiller.compile(**{"optimizer": make_optimizer(steps, STUDENT_RATE), **weights})
    batches = data(seed)
    keras.utils.set_random_seed(seed)
    start = time.perf_counter()
    history = distiller.fit(
        batches, epochs=epochs, callbacks=[EpochReport(label, describe=describe_losses)], verbose=0
    )
    return student, history.history, time.perf_counter() - start


def obtain_teacher(path, is_given, log, make_teacher, data, epochs, steps, backup):
    """The teacher: read if it was kept, else trained and kept.

    Args:
        path: `pathlib.Path` of the `.keras` file.
        is_given: Whether the caller named the file; another experiment's teacher is refused.
        log: `RunLog`; it records which teacher the runs had.
        make_teacher: Function without arguments that builds it.
        data: Function from a seed to training data.
        epochs: Int.
        steps: Steps of the whole training.
        backup: Folder where a stopped training goes on from.

    Returns:
        A `CompactDetector`.

    Raises:
        ValueError: If it is not the teacher of the runs in the log, or is made for others.
    """
    if path.exists() and (is_given or "teacher" in log.settings):
        print(f"teacher: read from {path}", flush=True)
        teacher = keras.saving.load_model(path)
    else:
        print(f"teacher: {epochs} epochs ...", flush=True)
        batches = data(TEACHER_SEED)
        teacher = make_teacher()
        teacher.compile(optimizer=make_optimizer(steps, TEACHER_RATE))
        teacher.fit(
            batches,
            epochs=epochs,
            callbacks=[
                EpochReport("teacher", describe=describe_losses),
                # A plain model: `ResumableBackup` is for a distiller.
                keras.callbacks.BackupAndRestore(backup),
            ],
            shuffle=False,  # the data set shuffles itself
            verbose=0,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        teacher.save(path)
    wanted = make_teacher().settings
    differences = [
        f"{name} is {teacher.settings[name]}, not {wanted[name]}"
        for name in ("image_size", "classes")
        if teacher.settings[name] != wanted[name]
    ]
    if differences:
        raise ValueError(
            f"{path} holds a teacher for other pictures: {'; '.join(differences)}. Expected one "
            "that fits. Delete the file or name another with --teacher."
        )
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
    add(
        "--dataset",
        "folder of a prepared TFDS data set, or a TFDS name such as voc/2007, with voc's features",
        default="../shared/data/tfds/bccd/1.0.0",
    )
    add("--data-dir", "folder of TFDS data sets, for a name", shown="TFDS's own")
    add("--train-split", "pictures to train on and to tune on", default="train")
    add("--validation-split", "pictures that are read once a run, after it", default="val")
    add("--held-out", "pictures of the train split cut off for tuning", default=41, **one_or_more)
    add(
        "--image-size",
        "height and width that pictures are scaled to, multiples of 16",
        nargs=2,
        default=(144, 192),
        **one_or_more,
    )
    add("--teacher", "the teacher's file", type=pathlib.Path, shown="OUTPUT/teacher.keras")
    add("--teacher-epochs", "epochs of the teacher", default=TEACHER_EPOCHS, **one_or_more)
    add(
        "--views",
        "augmented versions of each picture for the students",
        default=VIEWS,
        **one_or_more,
    )
    add("--epochs", "a student's passes over all versions", default=STUDENT_EPOCHS, **one_or_more)
    add("--batch-size", "pictures a step", default=8, **one_or_more)
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
    add("--quick", "small networks on drawn shapes, for a look", shown="no", action="store_true")
    add(
        "--output",
        "folder for runs.jsonl, settings.json, teacher.keras, students, table.md, results.json, "
        "detections.png and the SavedModel",
        type=pathlib.Path,
        default=pathlib.Path("runs/detection"),
    )
    add(
        "--resume",
        "go on with the runs in OUTPUT; the settings must be the recorded ones, but --seeds and "
        "--methods may ask for more",
        shown="refuse a folder with runs",
        action="store_true",
    )
    arguments = parser.parse_args(argv)
    arguments.image_size = tuple(arguments.image_size)
    if arguments.quick:
        # What --quick settles, a caller may still choose otherwise.
        quick = {"image_size": (64, 96), "held_out": 16, "teacher_epochs": 30}
        for name, value in {**quick, "views": 6, "epochs": 3, "seeds": 1}.items():
            if getattr(arguments, name) == parser.get_default(name):
                setattr(arguments, name, value)
        arguments.dataset = "shapes"
    require(parser, arguments.output, "matplotlib", "pycocotools")
    if not arguments.quick:
        require(parser, arguments.output, "tensorflow_datasets")
    if any(size % 16 for size in arguments.image_size):
        parser.error(f"--image-size: received {arguments.image_size}, expected multiples of 16")
    # In the order of the table, each once.
    arguments.methods = [method for method in METHODS if method in arguments.methods]
    apart = ("data_dir", "seeds", "methods", "output", "resume", "teacher")
    settings = {name: value for name, value in vars(arguments).items() if name not in apart}
    settings["dataset"] = pathlib.Path(arguments.dataset).name
    # What the source says is a setting too: runs of other networks or weights are others.
    settings["networks"] = networks(arguments.quick)
    settings["objectives"] = describe_objectives()
    settings["versions"] = {
        module.__name__: module.__version__ for module in (keras_ktan, keras, tf)
    }
    try:
        log = RunLog(arguments.output, settings, arguments.resume)
    except ValueError as error:
        parser.error(str(error))
    return arguments, log


def load_parts(arguments):
    """Training, tuning and validation pictures, and the names of the classes."""
    size = arguments.image_size
    if arguments.quick:
        names, validation = SHAPE_NAMES, make_shapes(32, size, seed=1)
        pictures = make_shapes(96, size, seed=0)
    else:
        # Kept a little larger than the network's input, so that a window can come closer.
        kept = tuple(5 * length // 3 for length in size)
        pictures, names = load_pictures(
            arguments.dataset, arguments.train_split, kept, arguments.data_dir
        )
        validation, _ = load_pictures(
            arguments.dataset, arguments.validation_split, kept, arguments.data_dir
        )
    return (*split_pictures(pictures, arguments.held_out), validation, names)


def run_students(arguments, log, teacher, make_student, data, parts, steps):
    """Every run that the log does not hold yet; each is logged when it is finished.

    Args:
        arguments: The command line.
        log: `RunLog`.
        teacher: The trained teacher.
        make_student: Function without arguments that builds a student.
        data: What `make_student_data` returned.
        parts: Tuple of tuning pictures, validation pictures and class names.
        steps: Steps of a whole run.
    """
    tuning, validation, names = parts
    plan = [(seed, method) for seed in range(arguments.seeds) for method in arguments.methods]
    left = [(seed, method) for seed, method in plan if not log.find(seed=seed, method=method)]
    if len(left) < len(plan):
        print(f"{len(plan) - len(left)} of {len(plan)} runs are finished already", flush=True)
    for index, (seed, method) in enumerate(left, start=1):
        label = f"seed {seed}, {method_title(method)}"
        student, history, seconds = train_student(
            teacher,
            make_student,
            data,
            seed,
            arguments.epochs,
            steps,
            make_objectives(method, steps),
            label,
        )
        student.save(student_path(arguments.output, method, seed))
        tuned = evaluate(student, tuning, arguments.image_size, names)
        log.append(
            {
                "method": method,
                "seed": seed,
                "validation": evaluate(student, validation, arguments.image_size, names),
                "tuning": tuned,
                "seconds": round(seconds, 1),
                "history": history,
            }
        )
        waiting = [later for _, later in left[index:]]
        print(
            f"[{len(plan) - len(waiting)}/{len(plan)}] {label}: AP {tuned['AP']:.3f} on the tuning "
            f"pictures, {duration(seconds)}; "
            + (f"about {duration(seconds_left(log.runs, waiting))} left" if waiting else "done"),
            flush=True,
        )


def student_path(output, method, seed):
    """Where a run's student is kept."""
    folder = output / "students"
    folder.mkdir(exist_ok=True)
    return folder / f"{method}_{seed}.keras"


def title_of(dataset):
    """A data set's name, from its folder `.../name/version`, or as it is."""
    path = pathlib.Path(dataset)
    return path.parent.name if path.name[:1].isdigit() and path.is_dir() else dataset


def show(arguments, log, teacher, students, parts):
    """The table, the numbers, the picture, and the shipped student checked.

    Args:
        arguments: The command line.
        log: `RunLog`.
        teacher: The trained teacher.
        students: Dict from each method to its student of seed 0; the last one is shipped.
        parts: Tuple of validation pictures and class names.
    """
    validation, names = parts
    size, output = arguments.image_size, arguments.output
    images, _ = as_network_input(validation, size)
    seeds = range(arguments.seeds)
    results = {"teacher": [evaluate(teacher, validation, size, names)]}
    results |= {
        method: [log.find(seed=seed, method=method)["validation"] for seed in seeds]
        for method in arguments.methods
    }
    shipped = students[arguments.methods[-1]]
    costs = {
        "teacher": export_with_decoding(teacher, output / "teacher", images[:1]),
        "student": export_with_decoding(shipped, output / "student", images[:1]),
    }
    table = format_results(results, costs, teacher, shipped, names)
    heading = (
        f"{title_of(arguments.dataset)} at {size[0]}×{size[1]}; students: "
        f"{arguments.epochs} passes over {arguments.views} versions of each picture, seeds: "
        f"{arguments.seeds}; AP in percent on {len(validation)} validation pictures, mean ± sd."
    )
    print(f"\n{heading}\n\n{table}\n")
    (output / "table.md").write_text(f"{heading}\n\n{table}\n")
    (output / "results.json").write_text(
        json.dumps(
            {
                "machine": f"{os.cpu_count()} CPU cores, {platform.machine()}",
                "settings": log.settings,
                "class_names": names,
                "results": results,
                "costs": costs,
            },
            indent=1,
        )
    )
    columns = {"truth": {"boxes": validation.boxes, "classes": validation.labels}}
    shown = np.arange(min(3, len(validation)))
    for method in dict.fromkeys((arguments.methods[0], arguments.methods[-1])):
        found = students[method].predict(images[shown], verbose=0)
        columns[f"student: {method_title(method)}"] = {
            **found,
            "boxes": found["boxes"] / [*size, *size],
        }
    picture = output / "detections.png"
    draw_detections(validation.images[shown], columns, names, picture)
    difference = check_saved_model(output / "student", shipped, images[:16])
    if difference > 1e-3:  # pixels
        raise SystemExit(f"The SavedModel differs from the student by {difference:.2g}.")
    print(
        f"SavedModel of the student ({method_title(arguments.methods[-1])}), decoding inside: "
        f"{output / 'student'}; reloaded in a fresh process without keras_ktan, its boxes agree "
        f"(largest difference {difference:.1e}).\n"
        f"Picture: {picture}; all numbers: {output / 'results.json'}"
    )


def main(argv=None):
    arguments, log = parse_arguments(argv)
    size, output = arguments.image_size, arguments.output
    train, tuning, validation, names = load_parts(arguments)
    log.confirm("pixels", digest([train.images, tuning.images, validation.images]))
    print(
        f"{arguments.dataset} at {size[0]}×{size[1]}: {len(train)} training, {len(tuning)} tuning, "
        f"{len(validation)} validation pictures; classes: {', '.join(names)}.\n"
        "Stop it when you like: the same command with --resume goes on.",
        flush=True,
    )
    teacher_arguments, student_arguments = networks(arguments.quick)

    def make_teacher():
        return CompactDetector(size, len(names), **teacher_arguments, name="teacher")

    def make_student():
        return CompactDetector(size, len(names), **student_arguments, name="student")

    def teacher_data(seed):
        return make_training_data(train, size, arguments.batch_size, seed)

    backup, per_epoch = output / "teacher_backup", -(-len(train) // arguments.batch_size)
    if not arguments.resume:
        for folder in (backup, output / "teacher_cache"):  # another experiment's
            shutil.rmtree(folder, ignore_errors=True)
    teacher = obtain_teacher(
        arguments.teacher or output / "teacher.keras",
        arguments.teacher is not None,
        log,
        make_teacher,
        teacher_data,
        arguments.teacher_epochs,
        arguments.teacher_epochs * per_epoch,
        backup,
    )
    tuned = evaluate(teacher, tuning, size, names)
    print(f"teacher: AP {tuned['AP']:.3f}, AP50 {tuned['AP50']:.3f} on the tuning pictures")
    print(f"the teacher looks at {arguments.views} versions of each picture ...", flush=True)
    views = make_views(train, size, arguments.views, VIEWS_SEED)
    run_students(
        arguments,
        log,
        teacher,
        make_student,
        make_student_data(teacher, views, arguments.batch_size, output / "teacher_cache"),
        (tuning, validation, names),
        arguments.epochs * -(-len(views[0]) // arguments.batch_size),
    )
    students = {
        method: keras.saving.load_model(student_path(output, method, 0))
        for method in arguments.methods
    }
    show(arguments, log, teacher, students, (validation, names))


if __name__ == "__main__":
    main()
