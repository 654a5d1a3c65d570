"""The digits example, at a tiny size."""

import json
import sys

import numpy as np
import pytest

from keras_ktan_tasks.comparison import method_title

pytestmark = pytest.mark.graph


@pytest.fixture
def digits():
    pytest.importorskip("sklearn", reason="the digits ship with scikit-learn (extra: examples)")
    import distill_digits

    return distill_digits


def test_the_split_has_no_image_twice(digits):
    parts = digits.load_data()
    assert [len(labels) for _, labels in parts] == [1000, 297, 500]
    images = np.concatenate([images for images, _ in parts])
    assert images.min() == 0.0 and images.max() == 1.0
    from sklearn.datasets import load_digits

    def fingerprint(images):
        return np.sort(np.asarray(images, "float64").reshape(1797, 64) @ np.arange(1.0, 65.0) ** 2)

    np.testing.assert_allclose(
        fingerprint(images * 16.0), fingerprint(load_digits().images), rtol=1e-6
    )


def test_the_student_is_small_enough(digits):
    from keras_ktan_tasks.digits import STUDENT_FILTERS, TEACHER_FILTERS, make_classifier

    teacher = make_classifier(TEACHER_FILTERS, "teacher")
    student = make_classifier(STUDENT_FILTERS, "student")
    assert teacher.count_params() == 56874
    assert teacher.count_params() >= 20 * student.count_params()


def test_a_short_run_writes_what_it_prints(digits, tmp_path, monkeypatch, capsys, eager):
    parts = [tuple(part[:64] for part in data) for data in digits.load_data()]
    monkeypatch.setattr(digits, "load_data", lambda: parts)
    # Exporting, and reading in a process of its own, is in the whole story.
    monkeypatch.setattr(digits.keras.Model, "export", lambda *arguments, **more: None)
    monkeypatch.setattr(digits, "check_saved_model", lambda *arguments: 0.0)
    arguments = ["distill_digits.py", "--seeds", "1", "--epochs", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    digits.main()
    table = (tmp_path / "table.md").read_text()
    assert table.split("```")[2].strip() in capsys.readouterr().out
    accuracies = json.loads((tmp_path / "results.json").read_text())["student_accuracies"]
    assert list(accuracies) == ["supervised", "logit_distillation", "feature_distillation", "KTAN"]
    for method, (accuracy,) in accuracies.items():
        assert f"| {method_title(method)} | {accuracy:.2%} ± 0.00 |" in table


@pytest.mark.parametrize("missing", ["module", "folder"])
def test_what_is_missing_is_said_before_the_training(
    missing, digits, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "output"
    if missing == "module":
        monkeypatch.setitem(sys.modules, "matplotlib", None)
    else:
        output.write_text("a file")
    monkeypatch.setattr(sys, "argv", ["distill_digits.py", "--output", str(output)])
    monkeypatch.setattr(digits, "train_teacher", None)  # a call would fail
    with pytest.raises(SystemExit):
        digits.main()
    expected = {"module": 'pip install -e ".[all]"', "folder": "cannot write to"}[missing]
    assert expected in capsys.readouterr().err


@pytest.mark.long
def test_the_whole_story(digits, tmp_path, monkeypatch, capsys):
    arguments = ["distill_digits.py", "--seeds", "1", "--epochs", "2", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    digits.main()
    printed = capsys.readouterr().out
    assert "its predictions agree" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    table = (tmp_path / "table.md").read_text()
    assert table.split("```")[2].strip() in printed
    for method, (accuracy,) in results["student_accuracies"].items():
        assert f"| {method_title(method)} | {accuracy:.2%} ± 0.00 |" in table
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "student" / "saved_model.pb").exists()


@pytest.mark.long
def test_the_methods_start_from_the_same_weights_and_batches(digits):
    import keras
    from common import four_methods

    from keras_ktan_tasks.digits import STUDENT_FILTERS, TEACHER_FILTERS, make_classifier

    train, validation, _ = digits.load_data()
    train = tuple(part[:64] for part in train)
    teacher = make_classifier(TEACHER_FILTERS, "teacher")

    def run(method, seed):
        rate = keras.optimizers.SGD(0.0)
        student, history, _ = four_methods.train_student(
            method,
            seed,
            teacher,
            lambda: make_classifier(STUDENT_FILTERS, "student"),
            train,
            tuple(part[:32] for part in validation),
            1,
            4,
            lambda: rate,
            batch_size=16,
        )
        return [weight.numpy() for weight in student.trainable_weights], history

    first, labels = run("supervised", 0)
    second, ktan = run("KTAN", 0)
    third, _ = run("KTAN", 1)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(not np.array_equal(one, other) for one, other in zip(first, third, strict=True))
    # The same batches in the same order give the same labelled loss.
    np.testing.assert_allclose(labels["student_loss"], ktan["student_loss"], rtol=1e-6)


def test_the_table_by_hand(digits):
    from common.four_methods import format_table

    table = format_table({"supervised": [0.90, 0.92], "KTAN": [0.94, 0.95]}, teacher_accuracy=0.99)
    # Gains 4 and 3 points: mean 3.5, sd 0.7071, standard error 0.5; gap 99 - 91 = 8 points.
    assert "| teacher | 99.00% | | |" in table
    assert "| supervised | 91.00% ± 1.41 | | |" in table
    assert "| KTAN | 94.50% ± 0.71 | +3.50 ± 0.50 (standard error) | 44% |" in table


def test_curves_need_the_metric_they_draw(tmp_path):
    from keras_ktan.plots import plot_training_curves

    with pytest.raises(ValueError, match="has no 'val_accuracy'. Expected one of .'loss'."):
        plot_training_curves({"labels": [{"loss": [1.0]}]}, tmp_path / "curves.png")
