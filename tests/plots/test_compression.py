"""The picture of what students cost and keep, read back from its parts."""

import pytest
from helpers import assert_three_parts
from matplotlib.figure import Figure

from keras_ktan.plots import plot_compression
from keras_ktan.report import CompressionReport, ModelQuality, ModelSize


def report(macs, accuracy, teacher=(10_000, 0.9), **options):
    def size(name, count):
        return ModelSize(name, count // 10, count, count * 4, **options)

    qualities = {
        "teacher": ModelQuality(accuracy=teacher[1]),
        "student": ModelQuality(accuracy=accuracy),
    }
    sizes = size("teacher", teacher[0]), size("student", macs)
    return CompressionReport(*sizes, qualities=qualities)


@pytest.mark.parametrize(("cost", "factor"), [("macs", 1), ("parameters", 0.1)])
def test_points_stand_where_the_reports_say(tmp_path, monkeypatch, cost, factor):
    drawn = []
    save = Figure.savefig

    def keep(figure, path, **options):
        drawn.append(figure)
        save(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    reports = {"small": report(500, 0.8), "large": report(2000, 0.88)}
    plot_compression(reports, tmp_path / "picture.png", cost=cost)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = drawn[0].axes
    points = [tuple(points.get_offsets()[0]) for points in axes.collections]
    assert points == [(500 * factor, 0.8), (2000 * factor, 0.88)]
    small, large = (float(points.get_sizes()[0]) for points in axes.collections)
    assert large - small == pytest.approx(260 * (1 - 50 / 200))
    assert [text.get_text() for text in axes.texts] == [
        "small, 1/20 of the teacher's",
        "large, 1/5 of the teacher's",
    ]
    assert axes.get_xscale() == "log" and list(axes.lines[0].get_ydata()) == [0.9, 0.9]


@pytest.mark.parametrize(
    ("reports", "cost", "parts"),
    [
        ({}, "macs", ("reports={}", "Expected a dict", "Write")),
        ({"a": report(5, 0.8)}, "latency", ("cost='latency'", "Expected one of", "Write")),
        ({"a": report(5, None)}, "macs", ("'a' has no accuracy", "Expected", "Pass `data`")),
        (
            {"a": report(5, 0.8, uncounted_layers=("x",))},
            "macs",
            ("'a' does not know the MACs", "Expected", "Pass `cost='parameters'`"),
        ),
        (
            {"a": report(5, 0.8), "b": report(5, 0.8, teacher=(10_000, 0.7))},
            "macs",
            ("2 different teachers", "Expected one teacher", "Draw"),
        ),
    ],
)
def test_reports_that_do_not_fit_are_refused(tmp_path, reports, cost, parts):
    with pytest.raises(ValueError) as error:
        plot_compression(reports, tmp_path / "picture.png", cost=cost)
    assert_three_parts(error.value, *parts)
