"""Promise 9 with real kills: SIGKILL at random moments, and equal weights each time."""

import json
import os
import pathlib

import keras
import pytest
from processes import run_together

SCRIPT = pathlib.Path(__file__).parent / "killed_training.py"


@pytest.mark.reliability
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
@pytest.mark.parametrize(
    ("kills", "seed"),
    [
        pytest.param(5, 0, marks=pytest.mark.slow),
        pytest.param(20, 1, marks=pytest.mark.long),
    ],
)
def test_after_a_kill_at_a_random_moment_a_training_ends_alike(kills, seed, tmp_path):
    backend = keras.backend.backend()
    (printed,) = run_together(SCRIPT, [[tmp_path, kills, seed]], backend, timeout=900)
    reports = json.loads(printed.splitlines()[-1])["reports"]
    assert len(reports) == kills
    # Some may have ended before; most were hit while they trained or wrote.
    assert sum(report["killed"] for report in reports) > kills / 2
    assert [report for report in reports if not report["equal"]] == []
