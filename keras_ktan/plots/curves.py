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
    middles, is_rising = [], True
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
        (line,) = axes.plot(epochs, mean, marker=marker, label=f"{method} ({len(runs)} runs)")
        middles.append(mean[length // 2])
        is_rising = is_rising and mean[-1] >= mean[0]
        axes.fill_between(
            epochs, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.15
        )
    if baseline is not None:
        axes.axhline(baseline[1], color="0.4", linestyle="--", label=baseline[0])
    # The second half of a training is where methods differ; the first epochs would hide it.
    lowest, highest = axes.get_ylim()
    if is_rising:
        lowest = min(middles) - 0.1 * (highest - min(middles))
    else:
        highest = max(middles) + 0.1 * (max(middles) - lowest)
    axes.set_ylim(lowest, highest)
    axes.set(xlabel="epoch", ylabel=metric, title=title)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(filepath, dpi=150)
