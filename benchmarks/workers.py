"""Runs of an experiment, one after another or side by side in processes of their own."""

import concurrent.futures
import dataclasses
import hashlib
import multiprocessing

from experiment import read_experiment
from four_ways import accuracy
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


def limit_threads(threads):
    """Let TensorFlow use so many threads in this process; 0: as many as it likes."""
    if threads:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


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
    """
    if workers == 1:
        for seed, way in left:
            yield finished_run(runner, seed, way, output)
        return
    # Spawned: a fork of a process in which TensorFlow runs hangs.
    with concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), start_worker, source
    ) as pool:
        runs = [pool.submit(_run_here, seed, way.name, output) for seed, way in left]
        try:
            for run in concurrent.futures.as_completed(runs):
                yield run.result()
        finally:
            for run in runs:
                run.cancel()


def start_worker(path, data_dir, shared, teacher, threads):
    """Make this process's own `Runner`; the teacher is trained and its cache full already."""
    limit_threads(threads)
    experiment = read_experiment(path)
    global _runner_here
    _runner_here = Runner(experiment, load_task(experiment, data_dir), shared, teacher)


def _run_here(seed, name, output):
    way = next(way for way in _runner_here.experiment.ways if way.name == name)
    return finished_run(_runner_here, seed, way, output)
