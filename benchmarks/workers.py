"""Runs of an experiment, one after another or side by side in processes of their own."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import multiprocessing
import signal

from device import limit_threads
from experiment import read_experiment
from orphans import end_with_parent
from runner import Runner
from tasks import load_task

from keras_ktan_tasks.run_log import digest


def settings_of_method(method):
    """What all runs of a method share."""
    settings = dataclasses.asdict(method)
    del settings["name"], settings["seeds"]
    return settings


def weights_path(output, seed, method):
    """Where a finished student waits for the test images."""
    return (
        output
        / "students"
        / f"{hashlib.sha256(method.name.encode()).hexdigest()[:8]}-{seed}.weights.h5"
    )


def finished_run(runner, seed, method, output):
    """Train a student, keep its weights, and say what is logged of it."""
    student, history, seconds = runner.train(method, seed)
    place = weights_path(output, seed, method)
    place.parent.mkdir(parents=True, exist_ok=True)
    student.save_weights(place)
    return {
        "method": method.name,
        "seed": seed,
        "settings": settings_of_method(method),
        f"validation_{runner.task.measure}": runner.task.score(student, runner.task.validation),
        "seconds": round(seconds, 1),
        "history": {name: [round(v, 5) for v in kept] for name, kept in history.items()},
    }


@contextlib.contextmanager
def started_workers(count, threads):
    """Processes that run side by side; they start at once, while this one trains a teacher.

    Args:
        count: Int. 1: none, this process does all runs itself.
        threads: Threads of TensorFlow in each; 0: its own.

    Yields:
        A `concurrent.futures.Executor`, or `None`.
    """
    if count == 1:
        yield None
        return
    # Spawned: a fork of a process in which TensorFlow runs hangs.
    with concurrent.futures.ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), _prepare_process, (threads,)
    ) as pool:
        for _ in range(count):
            pool.submit(int)  # a process is only started for a task
        yield pool


def finished_runs(runner, left, output, pool, source):
    """Every run, as it is finished.

    Args:
        runner: A `Runner`; it trains what this process trains.
        left: List of `(seed, method)`.
        output: `pathlib.Path` where weights are kept.
        pool: What `started_workers` yielded.
        source: Arguments of `_make_runner`, for a worker to make its own `Runner` from.

    Yields:
        What is logged of a run.

    Raises:
        RuntimeError: If a run beside others failed; those that were running are yielded before.
    """
    if pool is None:
        for seed, method in left:
            yield finished_run(runner, seed, method, output)
        return
    runs = {
        pool.submit(_run_here, source, seed, method.name, output): (seed, method)
        for seed, method in left
    }
    failed = None
    try:
        for run in concurrent.futures.as_completed(runs):
            if run.cancelled():
                continue
            if run.exception() is None:
                yield run.result()
                continue
            failed = failed or run
            for other in runs:
                other.cancel()
    finally:
        for run in runs:
            run.cancel()
    if failed:
        seed, method = runs[failed]
        error = RuntimeError(f"The run of '{method.name}' with seed {seed} failed.")
        raise error from failed.exception()


def _prepare_process(threads):
    # Ctrl-C ends a worker at once; else it would go on with the next run.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()
    limit_threads(threads)


@functools.cache
def _make_runner(path, names, data_dir, shared, teacher, weights):
    """This process's own `Runner`.

    Args:
        path: `pathlib.Path` of the experiment's file.
        names: Tuple of the methods' names.
        data_dir: Folder of TFDS data sets, or `None`.
        shared: As for `Runner`, like `teacher`.
        teacher: `pathlib.Path` or `None`.
        weights: Digest of the teacher's weights; a worker must not train another one.
    """
    experiment = read_experiment(path).only(names)
    runner = Runner(experiment, load_task(experiment, data_dir), shared, teacher, verbose=0)
    found = digest(runner.teacher.get_weights())
    if found != weights:
        raise ValueError(
            f"A worker has a teacher with the weights {found}. Expected those of the first "
            f"process, {weights}. Run with --workers 1."
        )
    return runner


def _run_here(source, seed, name, output):
    runner = _make_runner(*source)
    method = next(method for method in runner.experiment.methods if method.name == name)
    return finished_run(runner, seed, method, output)
