"""The traffic signs example, at a tiny size and on made-up signs."""

import json
import sys

import keras
import numpy as np
import pytest

from keras_ktan.report import measure_size
from keras_ktan.students import slim_student


@pytest.fixture
def example():
    pytest.importorskip("sklearn", reason="the digits ship with scikit-learn (extra: examples)")
    import compress_traffic_signs

    return compress_traffic_signs


def made_up_signs(split, data_dir):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4, dtype="int32"), 6)
    images = generator.integers(0, 255, (24, 32, 32, 3)).astype("uint8")
    return images, labels, np.tile(np.arange(3), 8)


@pytest.mark.slow
def test_each_task_allows_a_twentieth_of_the_products(example, monkeypatch):
    monkeypatch.setattr(example.gtsrb, "load_gtsrb", made_up_signs)
    for task in (example.digits_task(), example.traffic_sign_task(None)):
        teacher = task.make_teacher()
        student = slim_student(
            teacher, target={"macs": example.SHARE_OF_MACS}, divisor=task.divisor
        )
        macs = [measure_size(model).macs for model in (teacher, student)]
        # At most a twentieth, and not far below it.
        assert macs[0] / 30 < macs[1] <= macs[0] / 20


def test_validation_images_are_cut_by_track(example, monkeypatch):
    monkeypatch.setattr(example.gtsrb, "load_gtsrb", made_up_signs)
    train, validation, test = example.traffic_sign_task(None).parts
    # One of the three tracks of each label, two images each; pixels as they are.
    assert [len(labels) for _, labels in (train, validation, test)] == [16, 8, 24]
    assert train[0].dtype == "float32" and train[0].max() > 1


def short_run(example, monkeypatch, output, *options):
    parts = tuple((images[:40], labels[:40]) for images, labels in example.digits.load_data())
    monkeypatch.setattr(example.digits, "load_data", lambda: parts)
    arguments = ["compress_traffic_signs.py", "--digits", "--quick", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", [*arguments, *options])
    example.main()


def test_a_stopped_example_goes_on(example, monkeypatch, tmp_path, capsys):
    calls = []

    def compress(teacher, *arguments, **named):
        calls.append((teacher, arguments, named))
        raise KeyboardInterrupt

    monkeypatch.setattr(example, "require", lambda *_: tmp_path.mkdir(exist_ok=True))
    monkeypatch.setattr(example, "compress", compress)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            short_run(example, monkeypatch, tmp_path)
    assert "teacher: trained already" in capsys.readouterr().out
    (first, _, named), (second, *_) = calls
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert second.compiled and named["target"] == {"macs": 1 / 20}
    assert named["formats"] == ("litert", "int8") and named["test_data"][0].shape == (40, 8, 8, 1)
    (tmp_path / "teacher.json").write_text(json.dumps({"epochs": 7}))
    with pytest.raises(SystemExit, match="other settings"):
        short_run(example, monkeypatch, tmp_path)


def test_missing_data_are_said_before_the_training(example, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(example, "require", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["example", "--data-dir", str(tmp_path)])
    with pytest.raises(SystemExit):
        example.main()
    assert "gtsrb/1.0.0 is not there" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["example", "--data-dir", str(tmp_path), "--digits"])
    with pytest.raises(SystemExit):
        example.main()
    assert "Leave it out, or --digits" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["ai_edge_litert", "sklearn"])
def test_a_missing_package_is_said_before_the_training(
    missing, example, monkeypatch, tmp_path, capsys
):
    for name in ("ai_edge_litert", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else sys)
    monkeypatch.setattr(sys, "argv", ["example", "--digits", "--output", str(tmp_path)])
    with pytest.raises(SystemExit):
        example.main()
    printed = capsys.readouterr().err
    assert missing in printed and 'pip install -e ".[all]"' in printed


@pytest.mark.slow
@pytest.mark.graph
def test_the_whole_story(example, monkeypatch, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert", reason="extra: export")
    short_run(example, monkeypatch, tmp_path)
    printed = capsys.readouterr().out
    file = tmp_path / "student" / "student_int8.tflite"
    assert f"The file to ship: {file}, {file.stat().st_size:,} bytes" in printed
    numbers = json.loads((tmp_path / "student" / "report.json").read_text())
    assert numbers["student"]["macs"] * 20 <= numbers["teacher"]["macs"]
    assert {"teacher", "student", "student_int8.tflite"} <= set(numbers["qualities"])
    assert keras.saving.load_model(tmp_path / "student" / "student.keras").count_params() > 0
