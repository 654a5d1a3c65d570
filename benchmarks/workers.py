"""Runs of an experiment, one after another or side by side in processes of their own."""

import concurrent.futures
import dataclasses
import hashlib
import multiprocessing
import signal

from device import limit_threads
from experiment import read_experiment
from four_ways import accuracy
from run_log import digest
from runner import Runner
from tasks import load_task


def settings_of_way(way):
    """What all runs of a way share."""
    settings = dataclasses.asdict(way)
    del settings["name"], settings["seeds"]
    return settings


def weights_path(output, seed, way):
    """Where a finished student waits for the test images."""
    return (
        output
        / "students"
        / f"{hashlib.sha256(way.name.encode()).hexdigest()[:8]}-{seed}.weights.h5"
    )


def finished_run(runner, seed, way, output):
    """Train a student, keep its weights, and say what is logged of it."""
    student, history, seconds = runner.train(way, seed)
    place = weights_path(output, seed, way)
    place.parent.mkdir(parents=True, exist_ok=True)
    student.save_weights(place)
    return {
        "way": way.name,
        "seed": seed,
        "settings": settings_of_way(way),
        "validation_accuracy": accuracy(student, runner.validation),
        "seconds": round(seconds, 1),
        "history": {name: [round(v, 5) for v in kept] for name, kept in history.items()},
    }


def finished_runs(runner, left, output, workers, source):
    """Every run, as it is finished.

    Args:
        runner: A `Runner`; it trains what this process trains.
        left: List of `(seed, way)`.
        output: `pathlib.Path` where weights are kept.
        workers: Int. 1: this process trains; more: so many others do, side by side.
        source: Arguments of `start_worker`, for a worker to make its own `Runner` from.

    Yields:
        What is logged of a run.

    Raises:
        RuntimeError: If a run beside others failed; those that were running are yielded before.
    """
    if workers == 1:
        for seed, way in left:
            yield finished_run(runner, seed, way, output)
        return
    # Spawned: a fork of a process in which TensorFlow runs hangs.
    with concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), start_worker, source
    ) as pool:
        runs = {pool.submit(_run_here, seed, way.name, output): (seed, way) for seed, way in left}
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
        seed, way = runs[failed]
        error = RuntimeError(f"The run of '{way.name}' with seed {seed} failed.")
        raise error from failed.exception()


def start_worker(path, data_dir, shared, teacher, threads, weights):
    """Make this process's own `Runner`.

    Args:
        path: `pathlib.Path` of the experiment's file.
        data_dir: Folder of TFDS data sets, or `None`.
        shared: As for `Runner`, like `teacher`.
        teacher: `pathlib.Path` or `None`.
        threads: Threads of TensorFlow; 0: its own.
        weights: Digest of the teacher's weights; a worker must not train another one.
    """
    # Ctrl-C ends a worker at once; else it would go on with the next run.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    limit_threads(threads)
    experiment = read_experiment(path)
    global _runner_here
    _runner_here = Runner(experiment, load_task(experiment, data_dir), shared, teacher, verbose=0)
    found = digest(_runner_here.teacher.get_weights())
    if found != weights:
        raise ValueError(
            f"A worker has a teacher with the weights {found}. Expected those of the first "
            f"process, {weights}. Run with --workers 1."
        )


def _run_here(seed, name, output):
    way = next(way for way in _runner_here.experiment.ways if way.name == name)
    return finished_run(_runner_here, seed, way, output)
