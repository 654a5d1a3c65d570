"""How much each part of KTAN gains: every method of one experiment, seed by seed, and a table.

EXPERIMENT is the name of a file in benchmarks/experiments/, or the path of one: data set,
teacher, student, budget, seeds and the methods to train the student. All methods have the same
initial weights, the same order of batches and the same number of epochs. Choices are made on
validation images cut from the train split; the test images are read once, when the last run is
finished.

Every finished run is one line of OUTPUT/runs.jsonl, and the same command goes on where it was
stopped. Runs of another version of the code, of other settings or of another teacher are refused.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import sys

# First: it imports Keras without start-up lines.
from keras_ktan_tasks import startup as startup

# isort: split
import keras
from device import describe_device, limit_threads
from experiment import FOLDER, experiment_names, read_experiment
from report import write_report
from runner import Runner, versions
from tasks import load_task
from workers import finished_runs, settings_of_method, started_workers, weights_path

from keras_ktan_tasks.progress import duration, seconds_left
from keras_ktan_tasks.run_log import RunLog, digest

ROOT = pathlib.Path(__file__).resolve().parent.parent


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
    # How many runs there are does not change any of them, and a method's own settings stand with
    # its runs: another method can be added later.
    del settings["seeds"], settings["methods"]
    return settings | {"versions": versions(), "code": code_digest()}


def find_run(log, seed, method):
    """The finished run of a method with a seed, or `None`.

    Raises:
        ValueError: If it was made with other settings.
    """
    run = log.find(seed=seed, method=method.name)
    if run is not None and run["settings"] != settings_of_method(method):
        raise ValueError(
            f"{log.path} holds a run of '{method.name}' with {run['settings']}, now it has "
            f"{settings_of_method(method)}. Expected the same. Give the method another name, or "
            "name another --output."
        )
    return run


def describe_runs(log, runner):
    """What the table says of all runs."""
    student = runner.make_student()
    log.confirm(
        "parameters",
        {"teacher": runner.teacher.count_params(), "student": student.count_params()},
    )
    log.confirm("machine", describe_device())
    task = runner.task
    log.confirm("note", task.note)
    log.confirm("measure", task.measure)
    name = f"teacher's validation {task.measure}"
    if name not in log.settings:
        # Once: its weights and the images are confirmed, and round-off may move an AP.
        log.confirm(name, task.score(runner.teacher, task.validation))


def plan_of(experiment, seeds):
    """The runs to do: seed by seed, so that a stopped experiment can be looked at."""
    return [
        (seed, method)
        for seed in range(experiment.first_seed, experiment.first_seed + seeds)
        for method in experiment.methods
        if method.seeds is None or seed < experiment.first_seed + method.seeds
    ]


def run_students(runner, plan, left, log, output, workers, pool, source):
    """Every run of the plan that is left."""
    if len(left) < len(plan):
        print(f"{len(plan) - len(left)} of {len(plan)} runs are finished already", flush=True)
    waiting = [method.name for _, method in left]
    with contextlib.closing(finished_runs(runner, left, output, pool, source)) as runs:
        for run in runs:
            # Runs beside others take longer.
            log.append({**run, "workers": workers})
            waiting.remove(run["method"])
            state = "done"
            if waiting:
                seconds = seconds_left(log.runs, waiting) / min(workers, len(waiting))
                state = f"about {duration(seconds)} left"
            print(
                f"[{len(plan) - len(waiting)}/{len(plan)}] seed {run['seed']}, {run['method']}: "
                f"{runner.task.measure} {run[f'validation_{runner.task.measure}']:.2%} on the "
                f"validation images, "
                f"{duration(run['seconds'])}; {state}",
                flush=True,
            )


def default_workers():
    """One for each CPU core: a small student's step keeps no more than one busy.

    Where the runs share an accelerator, or their threads cannot be limited, one after another.
    """
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return 1
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count())
    # Each holds TensorFlow and all images.
    return min(8, len(usable))


def read_test(runner, plan, output, settings):
    """How every finished run does on the test images, each read once."""
    log = RunLog(output / "test", settings, resume=True)
    left = [(seed, method) for seed, method in plan if not log.find(seed=seed, method=method.name)]
    teacher_left = not log.find(method="teacher")
    if not left and not teacher_left:
        return
    task = runner.task
    test, name = task.load_test(), f"test_{task.measure}"
    if teacher_left:
        log.append({"method": "teacher", name: task.score(runner.teacher, test)})
    for seed, method in left:
        student = runner.make_student(method)
        student.load_weights(weights_path(output, seed, method))
        log.append({"method": method.name, "seed": seed, name: task.score(student, test)})


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "experiment", help=f"one of {', '.join(experiment_names())}, or a path of a TOML file"
    )
    parser.add_argument(
        "--seeds", type=int, help="runs of each method (default: what the file says)"
    )
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="only these (default: all)")
    parser.add_argument(
        "--read-test",
        action="store_true",
        help="with --methods: these were all runs, so read the test images when they are finished",
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
    parser.add_argument(
        "--workers",
        type=int,
        help="runs side by side (default: one a CPU core with TensorFlow and no GPU, else 1)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        help="threads of TensorFlow for a run; 0: its own (default: 1 with several workers, else "
        "its own). Another number gives slightly other results, so a folder keeps to one",
    )
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
    known = [method.name for method in experiment.methods]
    unknown = [name for name in arguments.methods or () if name not in known]
    if unknown:
        parser.error(f"--methods: received {unknown}, expected some of {known}")
    names = tuple(arguments.methods or known)
    experiment = experiment.only(names)
    workers, threads = arguments.workers, arguments.threads
    is_tensorflow = keras.backend.backend() == "tensorflow"
    if threads and not is_tensorflow:
        parser.error("--threads: received a number, expected none; they are TensorFlow's")
    if workers is None:
        workers = default_workers()
    if workers < 1:
        parser.error(f"--workers: received {workers}, expected 1 or more")
    if threads is None:
        threads = 1 if workers > 1 and is_tensorflow else 0
    limit_threads(threads)
    output = arguments.output or pathlib.Path("runs/accuracy") / path.stem
    task = load_task(experiment, arguments.data_dir)
    settings = settings_of(experiment)
    plan = plan_of(experiment, seeds)
    shared = output.parent / "teachers"
    with contextlib.ExitStack() as stack:
        try:
            log = RunLog(output, settings, resume=True)
            log.confirm("pixels", digest(task.pixels))
            log.confirm("teacher was given", arguments.teacher is not None)
            if is_tensorflow:
                # On a student this small another number of threads moves a result by a point.
                log.confirm("threads of a run (--threads)", threads or "TensorFlow's own")
            left = [(seed, method) for seed, method in plan if not find_run(log, seed, method)]
            workers = max(1, min(workers, len(left)))
            pool = stack.enter_context(started_workers(workers, threads))
            runner = Runner(experiment, task, shared, arguments.teacher)
            weights = digest(runner.teacher.get_weights())
            log.confirm("teacher's weights", weights)
        except ValueError as error:
            parser.error(str(error))
        describe_runs(log, runner)
        source = (path, names, arguments.data_dir, shared, arguments.teacher, weights)
        run_students(runner, plan, left, log, output, workers, pool, source)
    if experiment.read_test and (arguments.methods is None or arguments.read_test):
        read_test(runner, plan, output, settings)
    print(write_report(output))


if __name__ == "__main__":
    main()
