"""The log of finished runs, and how long the others will take."""

import json

import pytest

from keras_ktan_tasks.progress import seconds_left
from keras_ktan_tasks.run_log import RunLog

pytestmark = pytest.mark.graph

SETTINGS = {"epochs": 2, "sizes": (1, 2)}
RUN = {"method": "KTAN", "seed": 0, "test_accuracy": 0.5}


def test_a_resumed_log_knows_the_finished_runs_and_goes_on(tmp_path):
    RunLog(tmp_path, SETTINGS).append(RUN)
    log = RunLog(tmp_path, SETTINGS, resume=True)
    assert log.runs == [RUN]
    assert log.find(method="KTAN", seed=0) == RUN
    assert log.find(method="KTAN", seed=1) is None
    log.append({**RUN, "seed": 1})
    lines = log.path.read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [0, 1]


def test_finished_runs_are_refused_without_resume(tmp_path):
    log = RunLog(tmp_path, SETTINGS)
    RunLog(tmp_path, {"epochs": 3})  # no run yet: nothing to lose
    log.append(RUN)
    with pytest.raises(ValueError, match="finished runs.* --resume, or name another --output"):
        RunLog(tmp_path, SETTINGS)
    assert json.loads((tmp_path / "settings.json").read_text()) == {"epochs": 3}


def test_a_half_written_last_line_is_dropped_with_a_notice(tmp_path, capsys):
    log = RunLog(tmp_path, SETTINGS)
    log.append(RUN)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + b'{"method": "labels on')
    resumed = RunLog(tmp_path, SETTINGS, resume=True)
    assert "half-written" in capsys.readouterr().out
    assert resumed.runs == [RUN]
    resumed.append({**RUN, "seed": 1})
    assert log.path.read_bytes() == whole + whole.replace(b'"seed": 0', b'"seed": 1')


def test_a_whole_last_line_is_kept_without_a_notice(tmp_path, capsys):
    RunLog(tmp_path, SETTINGS).append(RUN)
    RunLog(tmp_path, SETTINGS, resume=True)
    assert capsys.readouterr().out == ""


def test_other_settings_are_refused_by_name(tmp_path):
    RunLog(tmp_path, SETTINGS).append(RUN)
    with pytest.raises(ValueError, match="other settings: epochs was 2, now 3. .*another --output"):
        RunLog(tmp_path, {**SETTINGS, "epochs": 3}, resume=True)
    with pytest.raises(ValueError, match="crops was not recorded, now True"):
        RunLog(tmp_path, {**SETTINGS, "crops": True}, resume=True)


def test_a_late_setting_is_recorded_and_then_compared(tmp_path):
    RunLog(tmp_path, SETTINGS).confirm("pixels", "abc")
    log = RunLog(tmp_path, SETTINGS, resume=True)
    log.confirm("pixels", "abc")
    with pytest.raises(ValueError, match="pixels was abc, now def"):
        log.confirm("pixels", "def")


def test_runs_without_their_settings_are_refused(tmp_path):
    log = RunLog(tmp_path, SETTINGS)
    log.append(RUN)
    log.settings_path.unlink()
    with pytest.raises(ValueError, match="settings.json is missing"):
        RunLog(tmp_path, SETTINGS, resume=True)


def test_a_damaged_line_is_named(tmp_path):
    log = RunLog(tmp_path, SETTINGS)
    log.append(RUN)
    log.path.write_text("{no json\n" + log.path.read_text())
    with pytest.raises(ValueError, match="line 1 is not JSON.*Delete the line"):
        RunLog(tmp_path, SETTINGS, resume=True)


def test_the_time_left_is_estimated_for_each_method():
    runs = [
        {"method": "a", "seconds": 10},
        {"method": "a", "seconds": 20},
        {"method": "b", "seconds": 60},
    ]
    assert seconds_left(runs, ["a", "b", "b"]) == 15 + 60 + 60
    assert seconds_left(runs, ["c"]) == 30
    assert seconds_left(runs, []) == 0
