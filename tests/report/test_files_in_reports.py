"""Exported files in a report: found, and run by their own runtimes."""

import importlib

import keras
import numpy as np
import pytest
from helpers import assert_three_parts
from shown_scores import LABELS, two_models

from keras_ktan import compression_report, export_student
from keras_ktan.export import ExportResult, fresh_process
from keras_ktan.report.exported_file import exported_files


def test_files_are_found_and_measured(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "saved_model.pb").write_bytes(b"12345")
    (tmp_path / "student.tflite").write_bytes(b"123")
    (tmp_path / "a" / "student.tflite").write_bytes(b"1234")
    result = ExportResult(
        str(tmp_path / "student.tflite"), "litert", "float32", 3, 0.0, 1.0, 1, "data", {"x": (2, 1)}
    )
    one, folder = exported_files([result, tmp_path / "student"])
    assert (one.name, one.format, one.bytes, one.rescaling) == (
        "student.tflite",
        "litert",
        3,
        {"x": (2, 1)},
    )
    assert (folder.name, folder.format, folder.bytes) == ("student/", "tf_saved_model", 5)
    same = exported_files([result, str(tmp_path / "a" / "student.tflite")])
    assert [file.name for file in same] == [file.path for file in same]
    assert exported_files(None) == [] and len(exported_files(result)) == 1


def test_a_file_that_is_not_there_is_refused(tmp_path):
    teacher, student, _ = two_models()
    (tmp_path / "folder.tflite").mkdir()
    for name in ("student.tflite", "student", "folder.tflite"):
        with pytest.raises(ValueError) as error:
            compression_report(teacher, student, files=[tmp_path / name])
        assert_three_parts(error.value, name, "Expected the path of a file", "Export first")
    with pytest.raises(ValueError, match="student.save"):
        compression_report(teacher, student, files=["student.keras"])


def test_without_data_a_file_has_its_bytes_alone(tmp_path):
    teacher, student, _ = two_models()
    (tmp_path / "student.onnx").write_bytes(b"x" * 1234)
    text = str(compression_report(teacher, student, files=tmp_path / "student.onnx")).splitlines()
    assert text[0].split()[-1] == "student.onnx"
    assert next(line for line in text if line.startswith("file bytes")).split()[-1] == "1,234"


def test_a_relative_path_is_found_from_another_folder(tmp_path, monkeypatch):
    """The runtime's process has a folder of its own."""
    given = []

    def run_script(name, arguments, examples):
        given.append(arguments["path"])
        return {"logits": examples["x"], None: np.ones(1)}

    monkeypatch.setattr(fresh_process, "run_script", run_script)
    monkeypatch.setattr("keras_ktan.report.exported_file.require_packages", lambda format: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student.onnx").write_bytes(b"x")
    (file,) = exported_files("student.onnx")
    file.run({"x": np.ones((1, 3))}, timed_runs=1)
    assert given == [str(tmp_path / "student.onnx")]


def test_one_process_answers_and_is_timed(tmp_path, monkeypatch):
    """It may take seconds to begin."""
    started = []

    def run_script(name, arguments, examples):
        started.append((arguments["runs"], [len(array) for array in examples.values()]))
        # The seconds' name is none that an output could have.
        return {"seconds": student.predict(x, verbose=0), None: np.full(100, 0.002)}

    monkeypatch.setattr(fresh_process, "run_script", run_script)
    monkeypatch.setattr("keras_ktan.report.exported_file.require_packages", lambda format: None)
    teacher, student, x = two_models()
    (tmp_path / "student.onnx").write_bytes(b"x")
    file = tmp_path / "student.onnx"
    report = compression_report(teacher, student, (x, np.array(LABELS)), file, latency=True)
    assert started == [(100, [len(x)])]
    assert report.qualities["student.onnx"].agreement == report.qualities["student"].agreement
    assert report.latencies["student.onnx"].p50 == pytest.approx(2.0)


@pytest.mark.slow
def test_each_file_answers_in_its_own_runtime(tmp_path, monkeypatch):
    module = importlib.import_module("keras_ktan.report.compression_report")
    monkeypatch.setattr(module, "_TIMED_RUNS", 2)
    teacher, student, x = two_models()
    # A fixed batch of 3, which 8 examples do not fill; raw inputs of another range; a softmax.
    raw = (x + 4.0) * 8.0
    result = export_student(
        student,
        tmp_path / "small.tflite",
        data=raw,
        rescaling=(1 / 8, -4.0),
        softmax=True,
        batch_size=3,
        tolerance=1e-3,
        verbose=False,
    )
    assert list(result.rescaling.values()) == [(0.125, -4.0)]
    report = compression_report(teacher, student, (x, np.array(LABELS)), result, latency=True)
    quality, expected = report.qualities["small.tflite"], report.qualities["student"]
    assert (quality.accuracy, quality.agreement) == (5 / 8, 6 / 8)
    assert quality.calibration_error == pytest.approx(expected.calibration_error, abs=1e-3)
    assert report.latencies["small.tflite"].runs == 2
    # Somebody else's file, whose input has another name.
    wrong = keras.Sequential([keras.Input((6,), name="other"), keras.layers.Dense(3)])
    wrong.set_weights([-student.get_weights()[0], np.zeros(3)])
    wrong.export(tmp_path / "wrong", verbose=False)
    many = np.tile(x, (20, 1)), np.tile(LABELS, 20)
    with pytest.warns(UserWarning, match="The file wrong/ answers 25.0% of 160"):
        compression_report(teacher, student, many, tmp_path / "wrong")
