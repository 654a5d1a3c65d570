"""The search on the digits, at a tiny size."""

import pathlib
import re
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


@pytest.fixture
def example(monkeypatch):
    pytest.importorskip("sklearn", reason="the digits ship with scikit-learn (extra: examples)")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import tune_loss_weights

    return tune_loss_weights


def test_the_verdict_by_hand(example):
    # Differences 4 and 3 points: mean 3.5, sd 0.7071, standard error 0.5.
    told = example.verdict([0.94, 0.95], [0.90, 0.92])
    assert (
        told == "+3.50 ± 0.50 points (standard error over 2 seeds): the settings found are better."
    )
    told = example.verdict([0.90, 0.92], [0.94, 0.95])
    assert told.startswith("-3.50 ± 0.50") and told.endswith("are worse.")
    # Differences 2 and -1: mean 0.5, sd 2.1213, standard error 1.5.
    told = example.verdict([0.92, 0.90], [0.90, 0.91])
    assert told.startswith("+0.50 ± 1.50") and "chance does not explain" in told
    assert "one seed" in example.verdict([0.9], [0.8])


def test_the_whole_story_and_a_search_that_goes_on(example, tmp_path, monkeypatch, capsys):
    def run(trials):
        counts = ["--trials", trials, "--epochs", "1", "--teacher-epochs", "1", "--seeds", "1"]
        arguments = [*counts, "--output", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["tune_loss_weights.py", *arguments])
        example.main()
        return capsys.readouterr().out

    first, second = run("1"), run("2")
    line = r"^trial (\d): completed, (\d+\.\d+)% on the validation images; (.*)$"
    trials = re.findall(line, second, re.MULTILINE)
    assert re.findall(line, first, re.MULTILINE) == trials[:1]
    assert len(trials) == 2 and "temperature=" in trials[0][2] and "anchor=" not in trials[0][2]
    # The student that comes back is the one that scored best.
    best = max(float(score) for _, score, _ in trials)
    assert f"632 parameters, has {best:.2f}% on the validation images" in second
    assert "points with one seed" in second
