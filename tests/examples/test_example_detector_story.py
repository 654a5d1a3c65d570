"""The detection example from end to end, on drawn shapes."""

import json
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.graph


@pytest.fixture
def story():
    pytest.importorskip("pycocotools", reason="AP is pycocotools' (extra: detection, or dev)")
    import distill_detector

    return distill_detector


@pytest.mark.slow
def test_a_short_run_logs_its_ap(story, tmp_path, capsys, monkeypatch, eager):
    # The table, the picture and the SavedModel are in the whole story.
    monkeypatch.setattr(story, "show", lambda *parts: None)
    monkeypatch.setattr(story, "QUICK_TEACHER", {"widths": (4, 4, 4, 4), "pyramid_width": 4})
    monkeypatch.setattr(story, "QUICK_STUDENT", {"widths": (4, 4, 4, 4), "pyramid_width": 4})
    story.main(
        ["--quick", "--output", str(tmp_path), "--methods", "KTAN", "--teacher-epochs", "1"]
        + ["--views", "1", "--epochs", "1", "--batch-size", "40"]
    )
    (run,) = map(json.loads, (tmp_path / "runs.jsonl").read_text().splitlines())
    assert run["method"] == "KTAN" and 0.0 <= run["validation"]["AP"] <= 1.0
    assert f"AP {run['tuning']['AP']:.3f} on the tuning" in capsys.readouterr().out
    terms = {"logits_loss", "feature_loss", "t2s_loss", "adversarial_loss", "discriminator_loss"}
    assert terms <= run["history"].keys()


def test_pycocotools_is_missed_before_the_training(story, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(SystemExit):
        story.parse_arguments(["--quick", "--output", str(tmp_path)])
    assert "pycocotools" in capsys.readouterr().err


@pytest.mark.long
def test_the_whole_story_and_its_resumption(story, tmp_path, capsys, monkeypatch):
    methods = ["supervised", "KTAN"]
    command = ["--quick", "--output", str(tmp_path), "--methods", *reversed(methods)]
    story.main(command)
    printed = capsys.readouterr().out
    assert "reloaded in a fresh process without keras_ktan, its boxes agree" in printed
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [run["method"] for run in runs] == methods
    table = (tmp_path / "table.md").read_text()
    assert table.strip() in printed
    for run in runs:
        assert f"| {run['method']} | {100 * run['validation']['AP']:.1f} ± 0.0 |" in table
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert results["teacher"][0]["AP50"] > 0.5  # it has learned to see shapes
    assert results["KTAN"] == [runs[1]["validation"]]
    # What each method learned from: the terms in its history.
    terms = [{name for name in run["history"] if name.endswith("_loss")} for run in runs]
    own = {"class_loss", "box_loss", "student_loss"}
    assert terms[0] == own
    maps = {"feature_loss", "t2s_loss", "adversarial_loss", "discriminator_loss"}
    assert terms[1] == own | maps | {"logits_loss"}
    assert (tmp_path / "detections.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "student" / "saved_model.pb").exists()

    teacher = (tmp_path / "teacher.keras").stat().st_mtime_ns
    # What is shown is known; only the runs count now.
    monkeypatch.setattr(story, "show", lambda *parts: None)
    story.main([*command, "--resume"])
    printed = capsys.readouterr().out
    assert "teacher: read from" in printed and "2 of 2 runs are finished already" in printed
    assert (tmp_path / "teacher.keras").stat().st_mtime_ns == teacher
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 2
    with pytest.raises(SystemExit):
        story.main(command)
    assert "holds finished runs" in capsys.readouterr().err


@pytest.mark.long
def test_the_methods_start_from_the_same_weights_and_batches(story, monkeypatch, tmp_path):
    import keras

    from keras_ktan_tasks.compact_detector import CompactDetector
    from keras_ktan_tasks.detection_data import make_shapes, make_views

    monkeypatch.setattr(story, "make_optimizer", lambda steps, rate: keras.optimizers.SGD(0.0))
    pictures, size = make_shapes(6, (32, 32), seed=2), (32, 32)
    teacher = CompactDetector(size, 2, (4, 4, 8, 8), 8, name="teacher")
    views = make_views(pictures, size, 2, seed=0)
    data = story.make_student_data(teacher, views, 4, tmp_path, verbose=0)

    def run(method, seed):
        pairs, weights = story.make_objectives(method, 3)
        student, history, _ = story.train_student(
            teacher,
            lambda: CompactDetector(size, 2, (4, 4, 4, 4), 4, name="student"),
            data,
            seed,
            1,
            3,
            (pairs, {**weights, "run_eagerly": True}),
            method,
        )
        # The weights do not move, so what the loss saw were the batches alone.
        weights = np.concatenate([np.ravel(value) for value in student.get_weights()])
        return weights, history["student_loss"][0]

    labels, ktan, other = run("supervised", 0), run("KTAN", 0), run("supervised", 1)
    np.testing.assert_array_equal(labels[0], ktan[0])
    assert labels[1] == pytest.approx(ktan[1], rel=1e-6)
    assert not np.array_equal(labels[0], other[0]) and labels[1] != pytest.approx(other[1])


def test_the_pyramid_and_the_sizes_are_those_asked_for(story):
    from keras_ktan_tasks.compact_detector import CompactDetector

    teacher = CompactDetector((144, 192), 3, **story.TEACHER)
    student = CompactDetector((144, 192), 3, **story.STUDENT)
    assert student.count_params() <= 300_000
    assert teacher.count_params() >= 8 * student.count_params()
    width = story.STUDENT["pyramid_width"]
    assert student.get_layer("P3").output.shape == (None, 18, 24, width)
    assert student.get_layer("P4").output.shape == (None, 9, 12, width)


def test_a_teacher_for_other_pictures_is_refused(story, tmp_path):
    from keras_ktan_tasks.compact_detector import CompactDetector
    from keras_ktan_tasks.run_log import RunLog

    def make(classes):
        return CompactDetector((32, 32), classes, (4, 4, 4, 4), 4)

    path = tmp_path / "teacher.keras"
    make(3).save(path)
    log = RunLog(tmp_path / "runs", {})
    with pytest.raises(ValueError, match="classes is 3, not 2.*Delete the file"):
        story.obtain_teacher(path, True, log, lambda: make(2), None, 1, 1, tmp_path / "backup")
    teacher = story.obtain_teacher(
        path, True, log, lambda: make(3), None, 1, 1, tmp_path / "backup"
    )
    assert teacher.settings["classes"] == 3 and "teacher" in log.settings


def test_wrong_sizes_end_at_once(story, tmp_path, capsys):
    with pytest.raises(SystemExit):
        story.parse_arguments(["--image-size", "100", "160", "--output", str(tmp_path)])
    assert "expected multiples of 16" in capsys.readouterr().err


def test_the_table_by_hand(story):
    import keras
    from common import detection_report

    names = ["AP", "AP50", "AP75", "AP cell"]

    def runs(*values):
        return [dict.fromkeys(names, value) for value in values]

    def model(units):
        return keras.Sequential([keras.Input((8,)), keras.layers.Dense(units, use_bias=False)])

    results = {
        "teacher": runs(0.6),
        "supervised": runs(0.4, 0.5),
        "KTAN": runs(0.45, 0.53),
    }
    costs = {
        "teacher": {"saved_model_bytes": 3000, "milliseconds": 9.0},
        "student": {"saved_model_bytes": 1000, "milliseconds": 2.0},
    }
    table = detection_report.format_results(results, costs, model(100), model(10), ["cell"])
    assert table.splitlines() == [
        "| | AP | AP50 | AP75 | AP cell | AP against the supervised baseline |",
        "|---|---|---|---|---|---|",
        "| teacher | 60.0 | 60.0 | 60.0 | 60.0 | |",
        "| supervised | 45.0 ± 7.1 | 45.0 ± 7.1 | 45.0 ± 7.1 | 45.0 ± 7.1 | |",
        # Gains of 5 and 3: mean 4, deviation √2, standard error 1.
        "| KTAN | 49.0 ± 5.7 | 49.0 ± 5.7 | 49.0 ± 5.7 | 49.0 ± 5.7 | +4.0 ± 1.0 (standard "
        "error) |",
        "",
        "| | teacher | student | times smaller |",
        "|---|---|---|---|",
        "| parameters | 800 | 80 | 10.0 |",
        "| MACs | 800 | 80 | 10.0 |",
        "| bytes of the SavedModel | 3,000 | 1,000 | 3.0 |",
        "| milliseconds an image | 9.0 | 2.0 | 4.5 |",
    ]


@pytest.mark.parametrize("changed", ["distillation", "width"])
def test_runs_with_other_weights_or_networks_are_not_gone_on_with(
    changed, story, tmp_path, monkeypatch, capsys
):
    command = ["--quick", "--output", str(tmp_path), "--resume"]
    story.parse_arguments(command)
    story.parse_arguments(command)  # nothing has changed
    if changed == "distillation":
        make_objectives = story.make_objectives

        def without_scores(method, steps):
            pairs, weights = make_objectives(method, steps)
            return pairs, weights | {"logits_loss_weight": 0.0}

        monkeypatch.setattr(story, "make_objectives", without_scores)
    else:
        monkeypatch.setitem(story.QUICK_STUDENT, "pyramid_width", 10)
    with pytest.raises(SystemExit):
        story.parse_arguments(command)
    printed = capsys.readouterr().err
    assert "records other settings" in printed
    assert ("objectives" if changed == "distillation" else "networks") in printed
