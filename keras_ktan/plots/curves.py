"""The curves of a training."""

import os

import numpy as np

from keras_ktan.plots.figure import figure_class


def plot_training_curves(
    histories: dict[str, list[dict]],
    filepath: str | os.PathLike,
    metric: str = "val_accuracy",
    title: str | None = None,
    baseline: tuple[str, float] | None = None,
) -> None:
    """Draw one curve a method, averaged over its runs, with a band of one standard deviation.

    Args:
        histories: Dict from a method's name to a list of `History.history` dicts, one a run.
        filepath: Where to write the picture; the ending says the format.
        metric: Which entry of the histories to draw.
        title: Optional title.
        baseline: Optional tuple `(label, value)` for a horizontal line, such as the teacher's.

    Raises:
        ValueError: If a history lacks the metric, or is empty.

    Example:

    ```python
    from keras_ktan.plots import plot_training_curves

    plot_training_curves({"supervised": [{"val_accuracy": [0.5, 0.7]}]}, "/tmp/curves.png")
    ```
    """
    figure = figure_class()(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    curves, edges = [], []
    for method, runs in histories.items():
        for run in runs:
            if metric not in run:
                raise ValueError(
                    f"The history of '{method}' has no '{metric}'. Expected one of {sorted(run)}. "
                    "Fit with `validation_data` for the `val_` entries, or name another metric."
                )
        length = min(len(run[metric]) for run in runs)
        values = np.array([run[metric][:length] for run in runs])
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        epochs = np.arange(1, length + 1)
        marker = "o" if length == 1 else None  # a line through one point shows nothing
        count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        (line,) = axes.plot(epochs, mean, marker=marker, label=f"{method} ({count})")
        curves.append(mean)
        edges += [mean - deviation, mean + deviation]
        axes.fill_between(
            epochs, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.15
        )
    if baseline is not None:
        axes.axhline(baseline[1], color="0.4", linestyle="--", label=baseline[0])
        edges.append(np.array([baseline[1]]))
    axes.set_ylim(*_limits(curves, edges))
    axes.set(xlabel="epoch", ylabel=metric, title=title)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(filepath, dpi=150)


def _limits(curves, edges):
    """The part of the y-axis to show.

    The second half of a training is where methods differ; the first epochs would hide it. So the
    end that the curves begin at is where it is in the second half; the other shows everything.

    Args:
        curves: List of arrays, the means of the methods.
        edges: List of arrays, of everything that is drawn.

    Returns:
        A tuple of the lower and the upper limit.
    """
    second_half = np.concatenate([curve[len(curve) // 2 :] for curve in curves])
    drawn = np.concatenate(edges)
    if all(curve[-1] >= curve[0] for curve in curves):
        lowest, highest = second_half.min(), drawn.max()
    else:
        lowest, highest = drawn.min(), second_half.max()
    margin = 0.1 * (highest - lowest) or 0.1
    return lowest - margin, highest + margin
