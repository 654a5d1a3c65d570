"""One picture of several recipe experiments: each method's seeds, from both starts.

python benchmarks/recipe_picture.py FOLDER... --output docs/images/results.png
"""

import argparse
import pathlib
import textwrap

import numpy as np
from experiment_results import LIBRARY_BASELINE, accuracies_of, measure_of, read_runs
from matplotlib.figure import Figure

from keras_ktan_tasks.comparison import paired_interval

# What stands below each other, and the names that a method has from each start it was run from.
ROWS = {
    "supervised baseline": ("supervised", "slim, supervised"),
    "logit distillation": ("logit_distillation", "slim, logit distillation"),
    "keras.distillation": (LIBRARY_BASELINE,),
    "KTAN by default": ("KTAN, defaults", "slim, KTAN, defaults"),
}
STARTS = ("random start", "from the teacher's channels")


def draw(folders, path):
    """Draw a panel for each experiment: dots are seeds, bars the means with 95 % intervals.

    Args:
        folders: List of `pathlib.Path`, folders of recipe experiments.
        path: Where to write the picture.
    """
    figure = Figure(figsize=(1.0 + 3.1 * len(folders), 3.7), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(folders), sharey=True))
    for axes, folder in zip(panels, folders, strict=True):
        draw_panel(axes, *read_runs(folder))
    panels[0].set_yticks(range(len(ROWS)), ROWS)
    # The first on top, and room for a row that no start has.
    panels[0].set_ylim(len(ROWS) - 0.4, -0.6)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)


def draw_panel(axes, settings, measure, results, teacher):
    """One experiment, as `read_runs` returned it."""
    accuracies = accuracies_of(results)
    for place, methods in enumerate(ROWS.values()):
        for start, (method, title) in enumerate(zip(methods, STARTS, strict=False)):
            if method not in accuracies:  # not run: the row stays empty
                continue
            values = 100 * np.array(list(accuracies[method].values()))
            height = place + (start - 0.5) * 0.36
            axes.plot(values, np.full(len(values), height), "o", color=f"C{start}", alpha=0.3, ms=4)
            mean, half = paired_interval(values)
            axes.errorbar(
                mean,
                height,
                xerr=half if len(values) > 1 else None,
                fmt="D",
                ms=5,
                capsize=3,
                color=f"C{start}",
                label=None if place else title,
            )
    axes.axvline(100 * teacher, color="0.3", linewidth=1, label="teacher")
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"{measure} {measure_of(settings)}, %")
    axes.set_title("\n".join(textwrap.wrap(settings["title"], 34)), fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=pathlib.Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="where to write it")
    arguments = parser.parse_args(argv)
    draw(arguments.folders, arguments.output)


if __name__ == "__main__":
    main()
