"""The table and the picture of an experiment that `accuracy.py` ran; of several, one summary.

Differences are paired by seed: the same first weights and the same batches on both sides. Their
95 % interval is Student's t, which takes the differences for normal.
"""

import argparse
import json
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "examples"))

import numpy as np
from matplotlib.figure import Figure
from paired_interval import paired_interval

BASELINES = ("labels only", "softened logits")
# How `accuracy.py` reads them; the settings of runs that were made otherwise say so.
TEST_RULE = "once, when all runs were finished"
# Fewer are too few for the summary; the table of an experiment shows them.
SUMMARY_SEEDS = 5


def read_runs(folder):
    """What an experiment's folder holds.

    Args:
        folder: `pathlib.Path`.

    Returns:
        A tuple `(settings, measure, results, teacher)`: the recorded settings, which images were
        looked at (`"test"` or `"validation"`), a dict from ways to dicts from seeds to
        `(accuracy, seconds)`, and the teacher's accuracy.
    """
    settings = json.loads((folder / "settings.json").read_text())
    score = measure_of(settings)
    runs = _lines(folder / "runs.jsonl")
    tests = {(run["way"], run.get("seed")): run for run in _lines(folder / "test" / "runs.jsonl")}
    # The test images are read when all runs are finished; till then there are validation images.
    is_tested = bool(tests) and all((run["way"], run["seed"]) in tests for run in runs)
    results = {run["way"]: {} for run in runs}
    for run in runs:
        value = run[f"validation_{score}"]
        if is_tested:
            value = tests[run["way"], run["seed"]][f"test_{score}"]
        results[run["way"]][run["seed"]] = (value, run["seconds"])
    teacher = settings[f"teacher's validation {score}"]
    if is_tested:
        teacher = tests["teacher", None][f"test_{score}"]
    measure = "test" if is_tested else "validation"
    return settings, measure, results, teacher


def measure_of(settings):
    """What a model is judged by; runs of classifiers from before there was another do not say."""
    return settings.get("measure", "accuracy")


def accuracies_of(results):
    """The accuracies alone of what `read_runs` returned: dict from ways to dicts from seeds."""
    return {
        way: {seed: value for seed, (value, _) in found.items()} for way, found in results.items()
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


def format_table(settings, measure, results, teacher):
    """A Markdown table of all ways.

    Args:
        settings: As `read_runs` returned them, like the others.
        measure: `"test"` or `"validation"`.
        results: Dict from ways to dicts from seeds to `(accuracy, seconds)`.
        teacher: The teacher's accuracy.

    Returns:
        String.
    """
    accuracies = accuracies_of(results)
    headings = ["way", "seeds", f"{measure} {measure_of(settings)}, mean ± sd"]
    headings += [f"against {base}, 95 % interval" for base in BASELINES]
    headings += ["share of the gap closed", "seconds an epoch"]
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    lines.append(f"| teacher | 1 | {100 * teacher:.2f} | | | | |")
    labels = accuracies.get(BASELINES[0], {})
    for way, values in accuracies.items():
        numbers = 100 * np.array(list(values.values()))
        spread = f" ± {numbers.std(ddof=1):.2f}" if len(numbers) > 1 else ""
        row = [way, str(len(numbers)), f"{numbers.mean():.2f}{spread}"]
        for base in BASELINES:
            row.append("" if way == base else _difference(values, accuracies.get(base, {})))
        gain, _, count = paired_difference(values, labels)
        paired = [labels[seed] for seed in values if seed in labels]
        gap = teacher - np.mean(paired) if paired else 0.0
        row.append(f"{gain / gap:.0%}" if count and gap > 0 and way != BASELINES[0] else "")
        seconds = np.mean([seconds for _, seconds in results[way].values()])
        row.append(f"{seconds / settings['epochs']:.1f}")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _difference(values, base):
    mean, half, count = paired_difference(values, base)
    if not count:
        return ""
    if count < 2:
        return f"{100 * mean:+.2f} (1 seed)"
    return f"{100 * mean:+.2f} ({100 * (mean - half):+.2f} to {100 * (mean + half):+.2f})"


def describe(settings, measure):
    """What stands above the table: the setting of every number below."""
    sizes, names = settings["parameters"], {"accuracy": "Accuracies", "AP": "AP"}
    backend = settings["versions"]["backend"]
    cached = (
        "The teacher's outputs come from a `TeacherCache`"
        if settings["teacher_cache"]
        else "The teacher runs in every step"
    )
    rule = (
        f"the test images were read {settings.get('test images read', TEST_RULE)}"
        if measure == "test"
        else "the test images were not read"
    )
    return (
        f"{settings['title']}. {settings['note']} Teacher {sizes['teacher']:,} parameters, student "
        f"{sizes['student']:,}; {settings['epochs']} epochs of {settings['batch_size']} images a "
        f"step. {names[measure_of(settings)]} and differences in percent; {rule}. {cached}. "
        f"Machine: {settings['machine']}; {backend}, Keras {settings['versions']['keras']}; code "
        f"{settings['code']}."
    )


def draw(settings, measure, results, teacher, path):
    """Draw a bar for each way's mean and a dot for each seed.

    Args:
        settings: As `read_runs` returned them, like the others.
        measure: `"test"` or `"validation"`.
        results: Dict from ways to dicts from seeds to `(accuracy, seconds)`.
        teacher: The teacher's accuracy.
        path: Where to write the picture.
    """
    ways = list(results)[::-1]  # the first on top
    figure = Figure(figsize=(7.5, 1.2 + 0.34 * len(ways)), layout="constrained")
    axes = figure.subplots()
    numbers = [100 * np.array([value for value, _ in results[way].values()]) for way in ways]
    means = [values.mean() for values in numbers]
    axes.barh(ways, means, color="0.85")
    for place, values in enumerate(numbers):
        axes.plot(values, np.full(len(values), place), "o", color="C0", markersize=4, alpha=0.8)
    for base, style in zip(BASELINES, (":", "--"), strict=True):
        if base in ways:
            axes.axvline(means[ways.index(base)], color="0.4", linestyle=style, linewidth=1)
    axes.axvline(100 * teacher, color="C1", linewidth=1, label="teacher")
    lowest = min(values.min() for values in numbers)
    highest = max(100 * teacher, max(values.max() for values in numbers))
    margin = 0.05 * (highest - lowest) + 0.1
    # Bars that began at 0 would hide every difference; the axis says where it begins.
    axes.set_xlim(lowest - margin, highest + margin)
    axes.set(xlabel=f"{measure} {measure_of(settings)} in percent (the axis does not begin at 0)")
    axes.set_title(settings["title"], fontsize=10)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=130)


def write_report(folder, output=None):
    """Write `table.md` and `dots.png`, and copy the runs where the output is another folder.

    Args:
        folder: `pathlib.Path` of an experiment.
        output: `pathlib.Path`; `None`: the same folder.

    Returns:
        The text of `table.md`.
    """
    found = read_runs(folder)
    text = f"{describe(*found[:2])}\n\n{format_table(*found)}\n"
    output = output or folder
    output.mkdir(parents=True, exist_ok=True)
    (output / "table.md").write_text(text)
    draw(*found, output / "dots.png")
    if output != folder:
        for name in ("settings.json", "runs.jsonl", "test/runs.jsonl"):
            if (folder / name).exists():
                (output / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(folder / name, output / name)
    return text


def format_summary(folders):
    """The main ways of several experiments beside each other.

    Args:
        folders: List of `pathlib.Path`, folders of experiments.

    Returns:
        A Markdown table: mean ± sd, and the difference to softened logits with its interval, of
        every way that has all seeds in one of the experiments, or at least `SUMMARY_SEEDS`.
    """
    columns, rows = [], {}
    for folder in folders:
        settings, measure, results, teacher = read_runs(folder)
        accuracies = accuracies_of(results)
        most = max(len(values) for values in accuracies.values())
        columns.append(f"{settings['title']}: {measure} {measure_of(settings)}, {most} seeds")
        rows.setdefault("teacher", {})[folder] = f"{100 * teacher:.2f}"
        for way, values in accuracies.items():
            if len(values) < min(most, SUMMARY_SEEDS):
                continue
            numbers = 100 * np.array(list(values.values()))
            cell = f"{numbers.mean():.2f} ± {numbers.std(ddof=1):.2f}"
            if way not in BASELINES:
                cell += f"; {_difference(values, accuracies[BASELINES[1]])}"
            if len(values) < most:
                cell += f"; {len(values)} seeds"
            rows.setdefault(way, {})[folder] = cell
    lines = [f"| way | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for way, cells in rows.items():
        lines.append(f"| {way} | {' | '.join(cells.get(folder, '') for folder in folders)} |")
    return "\n".join(lines) + "\n"


def format_best(folders, most=10):
    """The ways of a search that did best against softened logits, over several experiments.

    Args:
        folders: List of `pathlib.Path`, folders of experiments with the same ways.
        most: How many ways to show.

    Returns:
        A Markdown table of the ways that were run in every experiment with a seed of softened
        logits, best first, by the mean over the experiments of the mean paired difference; and
        the names of the others.

    Raises:
        ValueError: If an experiment has no runs with softened logits.
    """
    titles, differences = [], []
    for folder in folders:
        settings, measure, results, _ = read_runs(folder)
        titles.append(f"{settings['title']} ({measure} images)")
        if BASELINES[1] not in results:
            raise ValueError(
                f"{folder} has no run of '{BASELINES[1]}'. Expected one to compare with. Run it."
            )
        accuracies = accuracies_of(results)
        base = accuracies.pop(BASELINES[1])
        differences.append(
            {way: paired_difference(values, base) for way, values in accuracies.items()}
        )
    common = [
        way
        for way in differences[0]
        if all(way in found and found[way][2] for found in differences)
    ]

    def mean(way):
        return float(np.mean([found[way][0] for found in differences]))

    lines = [f"| way | mean | {' | '.join(titles)} |", "|---" * (len(folders) + 2) + "|"]
    for way in sorted(common, key=mean, reverse=True)[:most]:
        cells = [
            f"{100 * found[way][0]:+.2f} ({found[way][2]} seed{'s' if found[way][2] > 1 else ''})"
            for found in differences
        ]
        lines.append(f"| {way} | {100 * mean(way):+.2f} | {' | '.join(cells)} |")
    others = sorted({way for found in differences for way in found} - set(common))
    if others:
        lines += ["", f"Not in every experiment: {'; '.join(others)}."]
    return "\n".join(lines) + "\n"


def _lines(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", type=pathlib.Path, nargs="+", help="output folders of accuracy.py"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder for the report of one experiment (default: the same folder)",
    )
    instead.add_argument(
        "--summary", type=pathlib.Path, help="write one table of all folders to this file instead"
    )
    instead.add_argument(
        "--best", type=pathlib.Path, help="write the ten best ways of a search to this file instead"
    )
    arguments = parser.parse_args(argv)
    if arguments.best:
        arguments.best.write_text(format_best(arguments.folders))
        print(arguments.best.read_text())
    elif arguments.summary:
        arguments.summary.write_text(format_summary(arguments.folders))
        print(arguments.summary.read_text())
    elif len(arguments.folders) > 1:
        parser.error("received several folders. Expected one, or --summary FILE or --best FILE")
    else:
        print(write_report(arguments.folders[0], arguments.output))


if __name__ == "__main__":
    main()
