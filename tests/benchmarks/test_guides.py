"""The tables of the guides: what they hold, and that a second run replaces a task's first one."""

import json
import pathlib

import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def guides(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return __import__("guides")


def record(task, method, seed, score, parameters=100):
    scores = {"accuracy in %": score}
    return {
        "task": task,
        "method": method,
        "seed": seed,
        "parameters": parameters,
        "scores": scores,
        "seconds": 1.0,
    }


RUNS = [
    record("text", "teacher", None, 97.04, 140_000),
    record("text", "supervised baseline", 0, 80.0),
    record("text", "supervised baseline", 1, 83.0),
    record("text", "supervised baseline", 2, 86.0),
]


def test_a_row_holds_mean_and_sample_deviation(guides):
    assert guides.table(RUNS).splitlines() == [
        "| method | parameters | accuracy in % |",
        "|---|---|---|",
        "| teacher | 140,000 | 97.0 |",
        "| supervised baseline | 100 | 83.0 ± 3.0 |",
    ]


def test_saved_runs_replace_those_of_the_same_task_alone(guides, tmp_path):
    guides.save("text", RUNS, tmp_path)
    guides.save("regression", [record("regression", "teacher", None, 3.5)], tmp_path)
    guides.save("text", RUNS[:2], tmp_path)
    kept = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [run["task"] for run in kept] == ["regression", "text", "text"]
    assert "80.0 |" in (tmp_path / "text.md").read_text()


@pytest.mark.slow
def test_every_method_of_a_task_runs(guides):
    runs = guides.run("multi_label", seeds=[0], epochs=1)
    # The adversary is a method of one task alone, and not of this one.
    methods = ["teacher", *(name for name in guides.METHODS if "adversary" not in name)]
    assert [run["method"] for run in runs] == methods
    teacher, *students = (run["parameters"] for run in runs)
    assert len(set(students)) == 1 and students[0] < teacher / 10
