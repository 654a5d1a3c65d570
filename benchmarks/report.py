"""The table and the picture of an experiment that `accuracy.py` ran; of several, one summary.

Differences are paired by seed: the same initial weights and the same batches on both sides. Their
95 % interval is Student's t, which takes the differences for normal.
"""

import argparse
import pathlib
import shutil

import numpy as np
from experiment_results import (
    BASELINES,
    LIBRARY_BASELINE,
    SAME_START,
    SAME_START_BASELINE,
    accuracies_of,
    format_difference,
    measure_of,
    paired_difference,
    read_runs,
)
from matplotlib.figure import Figure

from keras_ktan_tasks.comparison import method_title

# How `accuracy.py` reads them; the settings of runs that were made otherwise say so.
TEST_RULE = "once, when all runs were finished"


def format_table(settings, measure, results, teacher):
    """A Markdown table of all methods.

    Args:
        settings: As `read_runs` returned them, like the others.
        measure: `"test"` or `"validation"`.
        results: Dict from methods to dicts from seeds to `(accuracy, seconds)`.
        teacher: The teacher's accuracy.

    Returns:
        String.
    """
    accuracies = accuracies_of(results)
    headings = ["method", "seeds", f"{measure} {measure_of(settings)}, mean ± sd"]
    further = (LIBRARY_BASELINE, SAME_START_BASELINE)
    bases = [*BASELINES, *(base for base in further if base in accuracies)]
    headings += [f"against {method_title(base)}, 95 % interval" for base in bases]
    headings += ["share of the gap closed", "seconds an epoch"]
    lines = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    lines.append(f"| teacher | 1 | {100 * teacher:.2f} |" + " |" * (len(headings) - 3))
    labels = accuracies.get(BASELINES[0], {})
    for method, values in accuracies.items():
        numbers = 100 * np.array(list(values.values()))
        spread = f" ± {numbers.std(ddof=1):.2f}" if len(numbers) > 1 else ""
        row = [method_title(method), str(len(numbers)), f"{numbers.mean():.2f}{spread}"]
        for base in bases:
            starts_alike = base != SAME_START_BASELINE or method.startswith(SAME_START)
            is_compared = method != base and starts_alike
            row.append(format_difference(values, accuracies.get(base, {})) if is_compared else "")
        gain, _, count = paired_difference(values, labels)
        paired = [labels[seed] for seed in values if seed in labels]
        gap = teacher - np.mean(paired) if paired else 0.0
        row.append(f"{gain / gap:.0%}" if count and gap > 0 and method != BASELINES[0] else "")
        seconds = np.mean([seconds for _, seconds in results[method].values()])
        row.append(f"{seconds / settings['epochs']:.1f}")
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


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
    """Draw a bar for each method's mean and a dot for each seed.

    Args:
        settings: As `read_runs` returned them, like the others.
        measure: `"test"` or `"validation"`.
        results: Dict from methods to dicts from seeds to `(accuracy, seconds)`.
        teacher: The teacher's accuracy.
        path: Where to write the picture.
    """
    methods = list(results)[::-1]  # the first on top
    figure = Figure(figsize=(7.5, 1.2 + 0.34 * len(methods)), layout="constrained")
    axes = figure.subplots()
    numbers = [
        100 * np.array([value for value, _ in results[method].values()]) for method in methods
    ]
    means = [values.mean() for values in numbers]
    axes.barh([method_title(method) for method in methods], means, color="0.85")
    for place, values in enumerate(numbers):
        axes.plot(values, np.full(len(values), place), "o", color="C0", markersize=4, alpha=0.8)
    for base, style in zip(BASELINES, (":", "--"), strict=True):
        if base in methods:
            axes.axvline(means[methods.index(base)], color="0.4", linestyle=style, linewidth=1)
    axes.axvline(100 * teacher, color="C1", linewidth=1, label="teacher")
    lowest = min(values.min() for values in numbers)
    highest = max(100 * teacher, max(values.max() for values in numbers))
    margin = 0.05 * (highest - lowest) + 0.1
    # Bars that began at 0 would hide every difference; the axis says where it begins.
    axes.set_xlim(lowest - margin, highest + margin)
    axes.set(xlabel=f"{measure} {measure_of(settings)} in percent (the axis does not begin at 0)")
    figure.suptitle(
        settings["title"], fontsize=10
    )  # over the names, too: long titles need the room
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
        "--best",
        type=pathlib.Path,
        help="write the ten best methods of a search to this file instead",
    )
    instead.add_argument(
        "--candidates",
        type=pathlib.Path,
        help="write how the methods of one experiment do beside --default to this file instead",
    )
    parser.add_argument(
        "--default",
        default="selection",
        metavar="METHOD",
        help="with --candidates: the method that the others stand beside (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    # Here, so that it is no part of the code that `accuracy.py` holds its runs to.
    from summaries import format_best, format_candidates, format_summary

    if arguments.best:
        arguments.best.write_text(format_best(arguments.folders))
        print(arguments.best.read_text())
    elif arguments.summary:
        arguments.summary.write_text(format_summary(arguments.folders))
        print(arguments.summary.read_text())
    elif len(arguments.folders) > 1:
        parser.error("received several folders. Expected one, or --summary FILE or --best FILE")
    elif arguments.candidates:
        text = format_candidates(arguments.folders[0], arguments.default)
        arguments.candidates.write_text(text)
        print(text)
    else:
        print(write_report(arguments.folders[0], arguments.output))


if __name__ == "__main__":
    main()
