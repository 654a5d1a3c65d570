"""What students cost and what they keep."""

import os

from keras_ktan.plots.figure import figure_class

_COSTS = {
    "macs": "multiply-accumulates of one example",
    "parameters": "parameters",
    "weight_bytes": "bytes of the weights",
}


def plot_compression(
    reports: dict,
    filepath: str | os.PathLike,
    cost: str = "macs",
    title: str | None = None,
) -> None:
    """Draw accuracy against cost, one point a student, and the teacher's as a line.

    The size of a point says how many parameters the student has.

    Args:
        reports: Dict from a student's name to its `CompressionReport`, with data, of one teacher.
        filepath: Where to write the picture; the ending says the format.
        cost: `"macs"`, `"parameters"` or `"weight_bytes"`.
        title: Optional title.

    Raises:
        ValueError: If there is no report, if one has no accuracy or no such cost, or if the
            teachers differ.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_ktan import compression_report
    from keras_ktan.plots import plot_compression

    def model(units):
        layers = [keras.layers.Dense(units), keras.layers.Dense(2)]
        return keras.Sequential([keras.Input((8,)), *layers])

    x = np.random.default_rng(0).normal(size=(1000, 8)).astype("float32")
    teacher = model(100)
    data = x, np.argmax(teacher.predict(x, verbose=0), axis=1)
    reports = {str(units): compression_report(teacher, model(units), data) for units in (5, 20)}
    plot_compression(reports, "/tmp/compression.png")
    ```
    """
    teacher_accuracy, teacher_cost = _validate(reports, cost)
    figure = figure_class()(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    largest = max(report.student.parameters for report in reports.values())
    highest = max(report.qualities["student"].accuracy for report in reports.values())
    for name, report in reports.items():
        spent = getattr(report.student, cost)
        accuracy = report.qualities["student"].accuracy
        area = 40 + 260 * report.student.parameters / max(largest, 1)
        axes.scatter(spent, accuracy, s=area, alpha=0.7, zorder=3)
        below = accuracy == highest  # above it may stand the teacher's line
        axes.annotate(
            f"{name}, 1/{teacher_cost / max(spent, 1):.3g} of the teacher's",
            (spent, accuracy),
            xytext=(0, -16 if below else 12),
            textcoords="offset points",
            ha="center",
            va="top" if below else "bottom",
            fontsize=8,
        )
    unit = "MACs" if cost == "macs" else cost.replace("_", " ")
    label = f"teacher: {teacher_accuracy:.1%}, {teacher_cost:,} {unit}"
    axes.axhline(teacher_accuracy, color="0.4", linestyle="--", label=label)
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.2)
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:.1%}")
    axes.set(xlabel=f"{_COSTS[cost]} (log scale)", ylabel="accuracy", title=title)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(filepath, dpi=150)


def _validate(reports, cost):
    """The teacher's accuracy and cost."""
    if cost not in _COSTS:
        raise ValueError(
            f"Received cost={cost!r}. Expected one of {sorted(_COSTS)}. Write `cost='macs'`, for "
            "example."
        )
    if not isinstance(reports, dict) or not reports:
        raise ValueError(
            f"Received reports={reports!r}. Expected a dict from students' names to their "
            "`CompressionReport`s. Write `{student.name: compression_report(...)}`."
        )
    teachers = set()
    for name, report in reports.items():
        qualities = [report.qualities.get(role) for role in ("teacher", "student")]
        if any(quality is None or quality.accuracy is None for quality in qualities):
            raise ValueError(
                f"The report of '{name}' has no accuracy. Expected one of classifiers on labelled "
                "data. Pass `data` to `compression_report`."
            )
        sizes = report.teacher, report.student
        is_known = cost != "macs" or report.macs_are_complete
        if not is_known or any(getattr(size, cost) is None for size in sizes):
            raise ValueError(
                f"The report of '{name}' does not know the MACs of both models. Expected fixed "
                "input sizes and layers that are counted. Pass `cost='parameters'`, or count the "
                "layers with `macs_rules`."
            )
        teachers.add((qualities[0].accuracy, getattr(report.teacher, cost)))
    if len(teachers) > 1:
        raise ValueError(
            f"Received reports with {len(teachers)} different teachers or data sets. Expected one "
            "teacher on one data set. Draw a picture for each."
        )
    return teachers.pop()
