"""The picture of the recipes shows the seeds, their mean and its interval."""

import importlib
import pathlib

import numpy as np
from matplotlib.figure import Figure

BENCHMARKS = pathlib.Path(__file__).parent.parent.parent / "benchmarks"


def test_a_panel_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("recipe_picture")
    accuracies = {
        method: {0: 0.50 + 0.1 * place, 1: 0.52 + 0.1 * place}
        for place, methods in enumerate(module.ROWS.values())
        for method in methods
    }
    results = {
        method: {seed: (value, 1.0) for seed, value in values.items()}
        for method, values in accuracies.items()
    }
    axes = Figure().subplots()
    module.draw_panel(axes, {"title": "Tiny"}, "test", results, 0.9)
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [sorted(line.get_xdata()) for line in dots[:2]] == [[50.0, 52.0]] * 2
    assert dots[0].get_ydata()[0] < 0 < dots[1].get_ydata()[0]  # at random above the other start
    means = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
    # The third row is the other library's, which has no students from the teacher's channels.
    np.testing.assert_allclose(means, [51, 51, 61, 61, 71, 81, 81])
    # Half of the interval of two values 2 apart: 12.706 times their standard error, 1.
    caps = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "|"]
    np.testing.assert_allclose(sorted(caps)[0], 51 - 12.706, atol=1e-3)
    (teacher,) = [line for line in axes.lines if line.get_label() == "teacher"]
    assert list(teacher.get_xdata()) == [90.0, 90.0]


def test_a_method_that_was_not_run_leaves_its_row_empty(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("recipe_picture")
    results = {"supervised": {0: (0.5, 1.0)}, "KTAN, defaults": {0: (0.7, 1.0)}}
    axes = Figure().subplots()
    module.draw_panel(axes, {"title": "Tiny"}, "test", results, 0.9)
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [round(line.get_ydata()[0]) for line in dots] == [0, len(module.ROWS) - 1]
