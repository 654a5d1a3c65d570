"""The search on the digits, at a tiny size."""

import re
import sys

import pytest

pytestmark = pytest.mark.graph


@pytest.fixture
def example():
    pytest.importorskip("sklearn", reason="the digits ship with scikit-learn (extra: examples)")
    import tune_loss_weights

    return tune_loss_weights


def test_the_conclusion_by_hand(example):
    # Differences 4, 3 and 3.5 points: sd 0.5, standard error 0.2887, times 4.3027 (two degrees of
    # freedom in a table of Student's t) is 1.242.
    better, worse = [0.94, 0.95, 0.945], [0.90, 0.92, 0.91]
    found = example.conclusion(better, worse)
    interval = "+3.50 points, 95% interval +2.26 to +4.74 (paired, 3 seeds)"
    assert found == f"{interval}: the settings found are better."
    found = example.conclusion(worse, better)
    assert found.startswith("-3.50 points, 95% interval -4.74 to -2.26") and "worse" in found
    # Differences 4 and 3: standard error 0.5, times 12.706 is 6.35.
    found = example.conclusion([0.94, 0.95], [0.90, 0.92])
    assert "interval -2.85 to +9.85" in found and "chance does not explain" in found
    assert "one seed" in example.conclusion([0.9], [0.8])


@pytest.mark.slow
def test_a_short_search(example, tmp_path, monkeypatch, capsys, eager):
    parts = [tuple(part[:32] for part in data) for data in example.load_data()]
    monkeypatch.setattr(example, "load_data", lambda: parts)
    counts = ["--trials", "1", "--epochs", "1", "--teacher-epochs", "1", "--seeds", "2"]
    arguments = ["tune_loss_weights.py", *counts, "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    example.main()
    printed = capsys.readouterr().out
    assert re.search(r"^trial 0: completed, \d+\.\d+% on the validation", printed, re.MULTILINE)
    assert "632 parameters" in printed and "(paired, 2 seeds)" in printed


@pytest.mark.long
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
    assert len(trials) == 2 and "temperature=" in trials[0][2] and "objective=" not in trials[0][2]
    # The student that comes back is the one that scored best.
    best = max(float(score) for _, score, _ in trials)
    assert f"632 parameters, has {best:.2f}% on the validation images" in second
    assert "points with one seed" in second and "keras_ktan/" not in second
