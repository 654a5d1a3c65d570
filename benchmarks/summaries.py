"""Several experiments beside each other, and the methods of a search beside its baselines."""

import numpy as np
from experiment_results import (
    BASELINES,
    SAME_START,
    SAME_START_BASELINE,
    accuracies_of,
    format_difference,
    measure_of,
    paired_difference,
    read_runs,
)

from keras_ktan_tasks.comparison import method_title

# Fewer are too few for the summary; the table of an experiment shows them.
SUMMARY_SEEDS = 5


def format_summary(folders):
    """The main methods of several experiments beside each other.

    Args:
        folders: List of `pathlib.Path`, folders of experiments.

    Returns:
        A Markdown table: mean ± sd, and the difference to logit distillation with its interval, of
        every method that has all seeds in one of the experiments, or at least `SUMMARY_SEEDS`.
    """
    columns, rows = [], {}
    for folder in folders:
        settings, measure, results, teacher = read_runs(folder)
        accuracies = accuracies_of(results)
        most = max(len(values) for values in accuracies.values())
        columns.append(f"{settings['title']}: {measure} {measure_of(settings)}, {most} seeds")
        rows.setdefault("teacher", {})[folder] = f"{100 * teacher:.2f}"
        for method, values in accuracies.items():
            if len(values) < min(most, SUMMARY_SEEDS):
                continue
            numbers = 100 * np.array(list(values.values()))
            cell = f"{numbers.mean():.2f} ± {numbers.std(ddof=1):.2f}"
            if method not in BASELINES:
                cell += f"; {format_difference(values, accuracies[BASELINES[1]])}"
            if len(values) < most:
                cell += f"; {len(values)} seeds"
            rows.setdefault(method, {})[folder] = cell
    lines = [f"| method | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for method, cells in rows.items():
        row = [method_title(method), *(cells.get(folder, "") for folder in folders)]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def format_best(folders, most=10):
    """The methods of a search that did best against logit distillation, over several experiments.

    Args:
        folders: List of `pathlib.Path`, folders of experiments with the same methods.
        most: How many methods to show.

    Returns:
        A Markdown table of the methods that were run in every experiment with a seed of softened
        logits, best first, by the mean over the experiments of the mean paired difference; and
        the names of the others.

    Raises:
        ValueError: If an experiment has no runs with logit distillation.
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
            {method: paired_difference(values, base) for method, values in accuracies.items()}
        )
    common = [
        method
        for method in differences[0]
        if all(method in found and found[method][2] for found in differences)
    ]

    def mean(method):
        return float(np.mean([found[method][0] for found in differences]))

    lines = [f"| method | mean | {' | '.join(titles)} |", "|---" * (len(folders) + 2) + "|"]
    for method in sorted(common, key=mean, reverse=True)[:most]:
        cells = [
            f"{100 * difference:+.2f} ({count} seed{'s' if count > 1 else ''})"
            for difference, _, count in (found[method] for found in differences)
        ]
        lines.append(
            f"| {method_title(method)} | {100 * mean(method):+.2f} | {' | '.join(cells)} |"
        )
    others = sorted({method for found in differences for method in found} - set(common))
    if others:
        lines += ["", f"Not in every experiment: {'; '.join(others)}."]
    return "\n".join(lines) + "\n"


def format_candidates(folder, default):
    """What settings do beside a default, from either start of the student, best first.

    Args:
        folder: `pathlib.Path`, the folder of an experiment.
        default: Name of the method that is the default; the students from the teacher's channels
            have one of the same name with `SAME_START` before it.

    Returns:
        A Markdown table for each start, under a heading.

    Raises:
        ValueError: If neither start has a run of it.
    """
    settings, measure, results, _ = read_runs(folder)
    accuracies = accuracies_of(results)
    starts = {
        "From a random start": (default, BASELINES[1]),
        "From the teacher's channels": (SAME_START + default, SAME_START_BASELINE),
    }
    parts = [f"{settings['title']}, {settings['epochs']} epochs; {measure} {measure_of(settings)}."]
    if not any(base in accuracies for base, _ in starts.values()):
        raise ValueError(
            f"{folder} has no run of '{default}' from either start. Expected one to compare with. "
            f"Received {sorted(accuracies)}. Run it, or name another with --default."
        )
    headings = ("setting", "seeds", f"{measure}, mean", "above the default, each seed", "mean")
    headings += ("above logit distillation, mean", "seconds an epoch")
    for title, (base, logits) in starts.items():
        if base not in accuracies:
            continue
        is_slim = base.startswith(SAME_START)
        differences = {
            name: paired_difference(values, accuracies[base])[0]
            for name, values in accuracies.items()
            if name.startswith(SAME_START) == is_slim
        }
        # What has no seed in common with the default stands last.
        order = sorted(differences, key=lambda name: np.nan_to_num(-differences[name], nan=np.inf))
        lines = [f"## {title}", "", f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
        for name in order:
            values, bases = accuracies[name], accuracies[base]
            shared = sorted(values.keys() & bases.keys())
            seconds = np.mean([seconds for _, seconds in results[name].values()])
            above_logits = paired_difference(values, accuracies.get(logits, {}))[0]
            row = [
                method_title(name).removeprefix(SAME_START),
                str(len(values)),
                f"{100 * np.mean(list(values.values())):.2f}",
                ", ".join(f"{100 * (values[seed] - bases[seed]):+.2f}" for seed in shared),
                _points(differences[name]),
                _points(above_logits),
                f"{seconds / settings['epochs']:.1f}",
            ]
            if name == base:
                row[3:5] = "", ""
            if name == logits:
                row[5] = ""
            lines.append(f"| {' | '.join(row)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _points(difference):
    return "" if np.isnan(difference) else f"{100 * difference:+.2f}"
