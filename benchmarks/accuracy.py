"""How much each part of KTAN gains: every way of one experiment, seed by seed, and a table.

EXPERIMENT is the name of a file in benchmarks/experiments/, or the path of one: data set,
teacher, student, budget, seeds and the ways to train the student. All ways have the same first
weights, the same order of batches and the same number of epochs. Choices are made on validation
images cut from the train split; the test images are read once, when the last run is finished.

Every finished run is one line of OUTPUT/runs.jsonl, and the same command goes on where it was
stopped. Runs of another version of the code, of other settings or of another teacher are refused.
"""

import argparse
import dataclasses
import hashlib
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "examples"))

import keras
from device import describe_device
from experiment import FOLDER, experiment_names, read_experiment
from four_ways import accuracy, train_student
from progress import EpochReport, duration, seconds_left
from report import write_report
from run_log import RunLog, digest
from tasks import load_task

import keras_ktan
from keras_ktan import FeatureDiscriminator, FeaturePair, TeacherCache, TeacherToStudent
from keras_ktan.cached_batch import plain_batch
from keras_ktan.cached_dataset import CachedDataset

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEACHER_SEED = 1234


class PlainBatches(keras.utils.PyDataset):
    """The same batches without the teacher's part, for who runs the teacher himself.

    Keras calls `on_epoch_end` also after a first look at the data; so the epoch's number, which
    the order follows from, comes from a callback: `fit(data, callbacks=[data.callback])`.
    """

    def __init__(self, cached):
        super().__init__()
        self._cached = cached
        self.callback = keras.callbacks.LambdaCallback(on_epoch_begin=cached.begin_epoch)

    def __len__(self):
        return len(self._cached)

    def __getitem__(self, index):
        return plain_batch(self._cached[index])


def loss_from_logits():
    """Every way's loss against the labels."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def weight_over_training(weight, steps):
    """A weight of a `Way` as `KTANDistiller.compile` takes it.

    Args:
        weight: A number, `{"falling": number}` or `{"early": number}`.
        steps: Steps of the whole training.

    Returns:
        A number or a schedule.
    """
    schedules = keras.optimizers.schedules
    match weight:
        case {"falling": start}:
            return schedules.CosineDecay(start, steps)
        case {"early": start}:
            return schedules.PiecewiseConstantDecay([steps // 3], [start, 0.0])
    return weight


class Runner:
    """Trains the teacher and the students of one experiment.

    Args:
        experiment: An `Experiment`.
        task: Its `Task`.
        shared: `pathlib.Path` of the folder where experiments share teachers and caches.
        teacher: `pathlib.Path` of a trained teacher's file; `None`: it is trained once and kept
            in `shared`.
    """

    def __init__(self, experiment, task, shared, teacher=None):
        self.experiment = experiment
        self.task = task
        self.steps_per_epoch = -(-len(task.train[1]) // experiment.batch_size)
        self.steps = self.steps_per_epoch * experiment.epochs
        self.validation = (task.validation[0].astype("float32"), task.validation[1])
        # A look at all of them after each epoch would cost more than the training.
        self.watched = tuple(part[:1000] for part in self.validation)
        self.teacher_epochs = experiment.teacher_epochs or experiment.epochs
        if teacher is None:
            self._place = self._name_teacher(shared)
            self.teacher = self._obtain_teacher()
        else:
            self.teacher = keras.saving.load_model(teacher)
            self._refuse_another_network(teacher)
            self._place = shared / digest(self.teacher.get_weights())
        self.cache = None
        if experiment.teacher_cache:
            layers = sorted({layer for way in experiment.ways for layer in way.layers})
            self.cache = TeacherCache(
                self.teacher,
                f"{self._place}-{'-'.join(layers)}",
                views=task.views,
                layer_names=layers,
            )
            self.cache.fill(task.train[0])

    def _refuse_another_network(self, path):
        wanted = self.task.make_model(self.experiment.teacher, "teacher").count_params()
        if self.teacher.count_params() != wanted:
            raise ValueError(
                f"{path} holds a model of {self.teacher.count_params():,} parameters. Expected the "
                f"experiment's teacher, {wanted:,}. Name another file with --teacher."
            )

    def _name_teacher(self, shared):
        """Where its files lie: what it depends on names them, so equal teachers are one."""
        experiment, task = self.experiment, self.task
        teacher = {
            name: getattr(experiment, name)
            for name in ("task", "teacher", "batch_size", "weight_decay")
        }
        teacher["epochs"] = self.teacher_epochs
        teacher["pixels"] = digest(task.train)
        teacher["rate"] = experiment.teacher_learning_rate
        teacher["versions"] = versions()
        if not experiment.teacher_augmented:
            teacher["views"] = list(task.views)
        elif task.make_augmented is None:
            raise ValueError(
                f"Received teacher_augmented = true with task = {experiment.task!r}. Expected a "
                "task that can move its images. Leave it out."
            )
        else:
            # How they are moved, told by the first of them.
            moved = next(iter(task.make_augmented(experiment.batch_size, TEACHER_SEED)))
            teacher["views"] = digest([keras.ops.convert_to_numpy(part) for part in moved])
        return shared / hashlib.sha256(repr(teacher).encode()).hexdigest()[:16]

    def make_student(self):
        """An untrained student."""
        return self.task.make_model(self.experiment.student, "student")

    def make_optimizer(self, rate, epochs):
        """AdamW with cosine decay over a whole run."""
        decay = keras.optimizers.schedules.CosineDecay(rate, epochs * self.steps_per_epoch)
        return keras.optimizers.AdamW(decay, weight_decay=self.experiment.weight_decay)

    def make_data(self, seed):
        """The batches of a run, the same for every way."""
        if self.cache is None:
            return self.make_plain_data(seed)
        return self.cache.dataset(*self.task.train, self.experiment.batch_size, seed)

    def make_plain_data(self, seed):
        """Batches in the same views and order without a teacher's part."""
        nothing = {view: {"outputs": {}, "maps": {}} for view in self.task.views}
        images, labels = self.task.train
        untaught = CachedDataset(
            nothing,
            None,
            self.task.views,
            {},
            images,
            labels,
            None,
            self.experiment.batch_size,
            seed,
            True,
        )
        return PlainBatches(untaught)

    def _obtain_teacher(self):
        path = self._place.with_suffix(".keras")
        if path.exists():
            return keras.saving.load_model(path)
        experiment = self.experiment
        print(f"teacher: {self.teacher_epochs} epochs ...", flush=True)
        keras.utils.set_random_seed(TEACHER_SEED)
        teacher = self.task.make_model(experiment.teacher, "teacher")
        teacher.compile(
            self.make_optimizer(experiment.teacher_learning_rate, self.teacher_epochs),
            loss=loss_from_logits(),
            metrics=["accuracy"],
        )
        callbacks = [EpochReport("teacher")]
        if experiment.teacher_augmented:
            data = self.task.make_augmented(experiment.batch_size, TEACHER_SEED)
        else:
            data = self.make_plain_data(TEACHER_SEED)
            callbacks.append(data.callback)
        teacher.fit(
            data,
            epochs=self.teacher_epochs,
            validation_data=self.watched,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.keras")
        teacher.save(unfinished)
        unfinished.replace(path)
        return teacher

    def train(self, way, seed):
        """One student.

        Args:
            way: A `Way`.
            seed: Int.

        Returns:
            A tuple of the student, its history and the seconds of `fit`.
        """
        if way.through == "keras.distillation":
            return self._train_through_keras(way, seed)
        data = self.make_data(seed)
        pairs = [
            FeaturePair(
                layer,
                layer,
                teacher_to_student=TeacherToStudent(anchor=None if anchor == "none" else anchor),
                discriminator=FeatureDiscriminator(**way.discriminator),
            )
            for layer, anchor in way.layers.items()
        ]
        callbacks = [] if self.cache else [data.callback]
        more = {}
        if way.discriminator_learning_rate is not None:
            more["discriminator_optimizer"] = keras.optimizers.Adam(
                way.discriminator_learning_rate, beta_1=0.5
            )
        if way.t2s_learning_rate is not None:
            more["t2s_optimizer"] = keras.optimizers.Adam(way.t2s_learning_rate)
        return train_student(
            "labels only",  # whose weights are all replaced below
            seed,
            self.teacher,
            self.make_student,
            data,
            self.watched,
            self.experiment.epochs,
            self.steps_per_epoch,
            lambda: self.make_optimizer(self.experiment.learning_rate, self.experiment.epochs),
            feature_pairs=pairs,
            temperature=way.temperature,
            callbacks=[*callbacks, EpochReport(f"seed {seed}, {way.name}")],
            logits_loss_weight=weight_over_training(way.logits, self.steps),
            feature_loss_weight=weight_over_training(way.feature, self.steps),
            adversarial_loss_weight=weight_over_training(way.adversarial, self.steps),
            feature_loss=way.feature_loss,
            adversarial_loss=way.adversarial_loss,
            **more,
        )

    def _train_through_keras(self, way, seed):
        keras.utils.set_random_seed(seed)
        student = self.make_student()
        distiller = keras.distillation.Distiller(
            self.teacher,
            student,
            [keras.distillation.LogitsDistillation(temperature=way.temperature)],
        )
        distiller.compile(
            self.make_optimizer(self.experiment.learning_rate, self.experiment.epochs),
            loss=loss_from_logits(),
            metrics=["accuracy"],
        )
        keras.utils.set_random_seed(seed)
        start = time.perf_counter()
        data = self.make_plain_data(seed)
        history = distiller.fit(
            data,
            epochs=self.experiment.epochs,
            validation_data=self.watched,
            callbacks=[data.callback, EpochReport(f"seed {seed}, {way.name}")],
            shuffle=False,
            verbose=0,
        )
        return student, history.history, time.perf_counter() - start


def versions():
    """Versions that a number depends on."""
    return {module.__name__: module.__version__ for module in (keras_ktan, keras)} | {
        "backend": keras.backend.backend()
    }


def code_digest():
    """A short name for this version of the project's code: of every module that was imported."""
    files = {
        pathlib.Path(module.__file__).resolve()
        for module in sys.modules.values()
        if getattr(module, "__file__", None)
    }
    checksum = hashlib.sha256()
    # torch has modules that name a file which does not exist.
    own = (path for path in files if path.is_relative_to(ROOT) and path.is_file())
    for path in sorted(own):
        checksum.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return checksum.hexdigest()[:16]


def settings_of(experiment):
    """What all runs of an experiment share."""
    settings = dataclasses.asdict(experiment)
    # How many runs there are does not change any of them, and a way's own settings stand with
    # its runs: another way can be added later.
    del settings["seeds"], settings["ways"]
    return settings | {"versions": versions(), "code": code_digest()}


def settings_of_way(way):
    """What all runs of a way share."""
    settings = dataclasses.asdict(way)
    del settings["name"], settings["seeds"]
    return settings


def find_run(log, seed, way):
    """The finished run of a way with a seed, or `None`.

    Raises:
        ValueError: If it was made with other settings.
    """
    run = log.find(seed=seed, way=way.name)
    if run is not None and run["settings"] != settings_of_way(way):
        raise ValueError(
            f"{log.path} holds a run of '{way.name}' with {run['settings']}, now it has "
            f"{settings_of_way(way)}. Expected the same. Give the way another name, or name "
            "another --output."
        )
    return run


def plan_of(experiment, seeds, names):
    """The runs to do: seed by seed, so that a stopped experiment can be looked at."""
    ways = [way for way in experiment.ways if names is None or way.name in names]
    return [
        (seed, way)
        for seed in range(experiment.first_seed, experiment.first_seed + seeds)
        for way in ways
        if way.seeds is None or seed < experiment.first_seed + way.seeds
    ]


def run_students(runner, plan, log, output):
    """Every run of the plan that the log does not hold yet."""
    left = [(seed, way) for seed, way in plan if not find_run(log, seed, way)]
    if len(left) < len(plan):
        print(f"{len(plan) - len(left)} of {len(plan)} runs are finished already", flush=True)
    for index, (seed, way) in enumerate(left, start=1):
        student, history, seconds = runner.train(way, seed)
        place = weights_path(output, seed, way)
        place.parent.mkdir(parents=True, exist_ok=True)
        student.save_weights(place)
        log.append(
            {
                "way": way.name,
                "seed": seed,
                "settings": settings_of_way(way),
                "validation_accuracy": accuracy(student, runner.validation),
                "seconds": round(seconds, 1),
                "history": {name: [round(v, 5) for v in kept] for name, kept in history.items()},
            }
        )
        waiting = [later.name for _, later in left[index:]]
        print(
            f"[{len(plan) - len(waiting)}/{len(plan)}] seed {seed}, {way.name}: "
            f"{log.runs[-1]['validation_accuracy']:.2%} on the validation images, "
            f"{duration(seconds)}; "
            + (f"about {duration(seconds_left(log.runs, waiting))} left" if waiting else "done"),
            flush=True,
        )


def weights_path(output, seed, way):
    """Where a finished student waits for the test images."""
    return (
        output
        / "students"
        / f"{hashlib.sha256(way.name.encode()).hexdigest()[:8]}-{seed}.weights.h5"
    )


def read_test(runner, plan, output, settings):
    """The test accuracy of every finished run, each read once."""
    log = RunLog(output / "test", settings, resume=True)
    left = [(seed, way) for seed, way in plan if not log.find(seed=seed, way=way.name)]
    teacher_left = not log.find(way="teacher")
    if not left and not teacher_left:
        return
    images, labels = runner.task.load_test()
    test = (images.astype("float32"), labels)
    if teacher_left:
        log.append({"way": "teacher", "test_accuracy": accuracy(runner.teacher, test)})
    student = runner.make_student()
    for seed, way in left:
        student.load_weights(weights_path(output, seed, way))
        log.append({"way": way.name, "seed": seed, "test_accuracy": accuracy(student, test)})


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "experiment", help=f"one of {', '.join(experiment_names())}, or a path of a TOML file"
    )
    parser.add_argument("--seeds", type=int, help="runs of each way (default: what the file says)")
    parser.add_argument("--ways", nargs="+", metavar="WAY", help="only these (default: all)")
    parser.add_argument(
        "--read-test",
        action="store_true",
        help="with --ways: these were all runs, so read the test images when they are finished",
    )
    parser.add_argument(
        "--teacher",
        type=pathlib.Path,
        help=".keras file of a trained teacher (default: trained once, then kept beside OUTPUT)",
    )
    parser.add_argument("--data-dir", help="folder of TFDS data sets (default: TFDS's own)")
    parser.add_argument(
        "--output", type=pathlib.Path, help="folder (default: runs/accuracy/EXPERIMENT)"
    )
    parser.add_argument("--threads", type=int, default=0, help="threads of TensorFlow; 0: its own")
    arguments = parser.parse_args(argv)
    path = pathlib.Path(arguments.experiment)
    if path.suffix != ".toml":
        path = FOLDER / f"{arguments.experiment}.toml"
    if not path.exists():
        parser.error(f"received {arguments.experiment}, expected one of {experiment_names()}")
    experiment = read_experiment(path)
    seeds = experiment.seeds if arguments.seeds is None else arguments.seeds
    if seeds < 1:
        parser.error(f"--seeds: received {seeds}, expected 1 or more")
    known = [way.name for way in experiment.ways]
    unknown = [name for name in arguments.ways or () if name not in known]
    if unknown:
        parser.error(f"--ways: received {unknown}, expected some of {known}")
    if arguments.threads:
        if keras.backend.backend() != "tensorflow":
            parser.error("--threads: received a number, expected none; they are TensorFlow's")
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    output = arguments.output or pathlib.Path("runs/accuracy") / path.stem
    task = load_task(experiment, arguments.data_dir)
    settings = settings_of(experiment)
    try:
        log = RunLog(output, settings, resume=True)
        log.confirm("pixels", digest([*task.train, *task.validation]))
        runner = Runner(experiment, task, output.parent / "teachers", arguments.teacher)
        log.confirm("teacher's weights", digest(runner.teacher.get_weights()))
        log.confirm("teacher was given", arguments.teacher is not None)
    except ValueError as error:
        parser.error(str(error))
    student = runner.make_student()
    log.confirm(
        "parameters",
        {"teacher": runner.teacher.count_params(), "student": student.count_params()},
    )
    log.confirm("machine", describe_device())
    log.confirm("note", task.note)
    log.confirm("teacher's validation accuracy", accuracy(runner.teacher, runner.validation))
    plan = plan_of(experiment, seeds, arguments.ways)
    try:
        for seed, way in plan:
            find_run(log, seed, way)
    except ValueError as error:
        parser.error(str(error))
    run_students(runner, plan, log, output)
    if experiment.read_test and (arguments.ways is None or arguments.read_test):
        read_test(runner, plan, output, settings)
    print(write_report(output))


if __name__ == "__main__":
    main()
