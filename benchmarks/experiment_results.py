"""What an experiment's folder holds, and differences between its methods.

Differences are paired by seed: the same initial weights and the same batches on both sides. Their
95 % interval is Student's t, which takes the differences for normal.
"""

import json

from keras_ktan_tasks.comparison import paired_interval

BASELINES = ("supervised", "logit_distillation")
# Of the students that start from the teacher's channels, whose names begin alike.
SAME_START, SAME_START_BASELINE = "slim, ", "slim, logit distillation"
# The other library's; where a series has it, its methods stand beside it, too.
LIBRARY_BASELINE = "keras.distillation, KLDivergence object"


def read_runs(folder):
    """What an experiment's folder holds.

    Args:
        folder: `pathlib.Path`.

    Returns:
        A tuple `(settings, measure, results, teacher)`: the recorded settings, which images were
        looked at (`"test"` or `"validation"`), a dict from methods to dicts from seeds to
        `(accuracy, seconds)`, and the teacher's accuracy.
    """
    settings = json.loads((folder / "settings.json").read_text())
    score = measure_of(settings)
    runs = _lines(folder / "runs.jsonl")
    tests = {
        (run["method"], run.get("seed")): run for run in _lines(folder / "test" / "runs.jsonl")
    }
    # The test images are read when all runs are finished; till then there are validation images.
    is_tested = bool(tests) and all((run["method"], run["seed"]) in tests for run in runs)
    results = {run["method"]: {} for run in runs}
    for run in runs:
        value = run[f"validation_{score}"]
        if is_tested:
            value = tests[run["method"], run["seed"]][f"test_{score}"]
        results[run["method"]][run["seed"]] = (value, run["seconds"])
    teacher = settings[f"teacher's validation {score}"]
    if is_tested:
        teacher = tests["teacher", None][f"test_{score}"]
    measure = "test" if is_tested else "validation"
    return settings, measure, results, teacher


def measure_of(settings):
    """The measure of the runs; old runs of classifiers do not say."""
    return settings.get("measure", "accuracy")


def accuracies_of(results):
    """The accuracies alone of what `read_runs` returned: dict from methods to dicts from seeds."""
    return {
        method: {seed: value for seed, (value, _) in found.items()}
        for method, found in results.items()
    }


def paired_difference(values, base):
    """Mean difference over the seeds that both have, with half of its 95 % interval.

    Args:
        values: Dict from seeds to numbers.
        base: Likewise.

    Returns:
        A tuple `(mean, half width, number of seeds)`; the half width of fewer than 2 is NaN.
    """
    seeds = [seed for seed in values if seed in base]
    if not seeds:
        return float("nan"), float("nan"), 0
    return *paired_interval([values[seed] - base[seed] for seed in seeds]), len(seeds)


def format_difference(values, base):
    """What `paired_difference` finds, as a cell of a table.

    Args:
        values: Dict from seeds to numbers.
        base: Likewise.

    Returns:
        String, in percent; empty where no seed is paired.
    """
    mean, half, count = paired_difference(values, base)
    if not count:
        return ""
    if count < 2:
        return f"{100 * mean:+.2f} (1 seed)"
    return f"{100 * mean:+.2f} ({100 * (mean - half):+.2f} to {100 * (mean + half):+.2f})"


def _lines(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]
