"""What goes wrong is an error, and never a file under the final name."""

import errno
import importlib
import pathlib

import keras
import numpy as np
import pytest
from exported import classifier, photos, two_heads

from keras_ktan.export import ExportMismatchError, export_student, preparation

# Inside the package a function has the module's name.
MODULE = importlib.import_module("keras_ktan.export.export_student")

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="LiteRT and ONNX are written on TensorFlow"
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def content(path):
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in files}


def stand_in(path, text=b"an older export"):
    """A file of an earlier export, or a SavedModel's folder, as far as names go."""
    if not path.suffix:
        path.mkdir()
        path /= "saved_model.pb"
    path.write_bytes(text)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("student.tflite", marks=pytest.mark.slow),
        pytest.param("student", marks=pytest.mark.long),
        pytest.param("student.onnx", marks=pytest.mark.long),
    ],
)
def test_a_file_that_computes_something_else_is_set_aside_and_the_old_one_stays(
    name, tmp_path, monkeypatch
):
    for package in ("ai_edge_litert", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package, reason="extra: export")
    path = tmp_path / name
    student, data = classifier(4), photos(10)
    stand_in(path)
    before = content(path)

    class Tampered(preparation.ServingModel):
        def call(self, inputs):
            return {key: value * 1.001 for key, value in super().call(inputs).items()}

    monkeypatch.setattr(preparation, "ServingModel", Tampered)
    with pytest.raises(ExportMismatchError, match="largest difference 1.0.e-03") as error:
        export_student(student, path, data=data, verbose=False)
    assert names(tmp_path) == [name, f"{name}.failed"] and content(path) == before
    result = error.value.result
    assert result.path == f"{path}.failed" and result.agreement == 1.0
    assert result.largest_difference == pytest.approx(1e-3, rel=0.1)


def test_a_tolerance_of_nothing_leaves_nothing_under_the_final_name(tmp_path):
    for package in ("tf2onnx", "onnxruntime"):
        pytest.importorskip(package, reason="extra: export")
    student, path = classifier(8), tmp_path / "student.onnx"
    with pytest.raises(ExportMismatchError, match="Allowed are a difference of 0.0"):
        export_student(student, path, data=photos(), tolerance=0.0, verbose=False)
    assert names(tmp_path) == ["student.onnx.failed"]
    # The default allows round-off.
    export_student(student, path, data=photos(), verbose=False)
    assert names(tmp_path) == ["student.onnx", "student.onnx.failed"]


@pytest.mark.slow
def test_answers_that_disagree_are_an_error_in_eight_bits(tmp_path):
    """Calibrated on a range that is not the data's, int8 loses the answers."""
    pytest.importorskip("ai_edge_litert", reason="extra: export")
    with pytest.raises(ExportMismatchError, match="at least 98.0%.*calibration_data"):
        export_student(
            classifier(64),
            tmp_path / "student.tflite",
            precision="int8",
            data=photos(),
            calibration_data=photos() / 100,
            verbose=False,
        )
    assert names(tmp_path) == ["student.tflite.failed"]


@pytest.mark.reliability
@pytest.mark.parametrize("moment", ["writing", "renaming"])
@pytest.mark.parametrize("name", ["student", "student.tflite", "student.onnx"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(name, moment, tmp_path, monkeypatch):
    path, student = tmp_path / name, classifier(4)
    stand_in(path)
    before = content(path)
    full = OSError(errno.ENOSPC, "No space left on device")

    def write(model, written, *arguments):
        stand_in(written, b"half of a file")
        if moment == "writing":
            raise full

    def rename(source, target):
        if pathlib.Path(target) == path and ".old" not in str(source):
            raise full
        real_rename(source, target)

    real_rename = MODULE.os.replace
    logits = student.predict(photos(4), verbose=0)
    monkeypatch.setattr(preparation, "require_packages", lambda format: None)
    monkeypatch.setattr(MODULE, "run_file", lambda *_: {"logits": logits})
    for writer in ("write_saved_model", "write_litert", "write_onnx"):
        monkeypatch.setattr(MODULE, writer, write)
    if moment == "renaming":
        monkeypatch.setattr(MODULE.os, "replace", rename)
    with pytest.raises(OSError, match="No space left"):
        export_student(student, path, data=photos(4), verbose=False)
    assert names(tmp_path) == [name] and content(path) == before
    # With room on the disk the same export goes through.
    monkeypatch.setattr(MODULE.os, "replace", real_rename)
    moment = "neither"
    export_student(student, path, data=photos(4), verbose=False)
    assert names(tmp_path) == [name]
    assert list(content(path).values()) == [b"half of a file"]


@pytest.mark.reliability
def test_a_converter_that_crashes_does_not_take_the_student_with_it(tmp_path, monkeypatch):
    from keras_ktan.export import fresh_process

    pytest.importorskip("ai_edge_litert", reason="extra: export")
    crash = tmp_path / "scripts"
    crash.mkdir()
    (crash / "convert_litert.py").write_text("import os, signal\nos.kill(os.getpid(), 11)\n")
    monkeypatch.setattr(fresh_process, "_FOLDER", crash)
    with pytest.raises(ValueError, match=r"LiteRT in float32 \(the process was ended by signal 11"):
        export_student(classifier(4), tmp_path / "files" / "student.tflite", verbose=False)
    assert names(tmp_path / "files") == []


@pytest.mark.slow
def test_what_litert_has_no_operation_for_is_named(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="extra: export")
    tokens = keras.Input((6, 3), name="steps")
    student = keras.Model(tokens, keras.layers.Dense(2)(keras.layers.GRU(4)(tokens)))
    path = tmp_path / "student.tflite"
    with pytest.raises(ValueError, match="tf.TensorListReserve.*batch_size=1"):
        export_student(student, path, verbose=False)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "package"),
    [("student.tflite", "ai_edge_litert"), ("student.onnx", "tf2onnx"), ("student", "tensorflow")],
)
def test_a_missing_package_is_named_with_the_extra_before_any_work(
    name, package, tmp_path, monkeypatch
):
    # Whether the others are installed does not matter here.
    real_import = importlib.import_module

    def import_module(module):
        if module == package:
            raise ImportError(f"No module named '{module}'")
        return None if module in ("onnx", "onnxruntime") else real_import(module)

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.setattr(MODULE, "student_outputs", lambda *_: pytest.fail("work began"))
    with pytest.raises(ImportError, match=rf"`{package}`.*pip install \"keras-ktan\[export\]\""):
        export_student(classifier(4), tmp_path / name)
    assert names(tmp_path) == []


def image(**options):
    return {"student": classifier(4), "name": "a.tflite", **options}


INT8 = {"precision": "int8"}
BAD = {
    "calibration data of another shape": (
        lambda: image(**INT8, calibration_data=photos()[:, :4]),
        ("calibration_data of shape (60, 4, 8, 3)", "Expected (None, 8, 8, 3)", "Give"),
    ),
    "calibration data without the batch axis": (
        lambda: image(**INT8, calibration_data=photos()[0]),
        ("calibration_data of shape (8, 8, 3)", "Expected (None, 8, 8, 3)", "batch axis"),
    ),
    "calibration data with a NaN": (
        lambda: image(**INT8, calibration_data=np.full((3, 8, 8, 3), np.nan)),
        ("calibration_data with a NaN", "Expected finite", "Remove"),
    ),
    "too little calibration data for the batch": (
        lambda: image(**INT8, calibration_data=photos(3), batch_size=4),
        ("3 examples of calibration_data", "Expected at least one batch", "Give more"),
    ),
    "int8 without calibration data": (
        lambda: image(**INT8),
        ("without `calibration_data`", "Expected some hundred", "Pass training inputs"),
    ),
    "calibration data that nothing uses": (
        lambda: image(calibration_data=photos()),
        ("calibration_data with precision='float32'", "Expected", "Leave it out"),
    ),
    "integer inputs of a float file": (
        lambda: image(input_dtype="uint8"),
        ("input_dtype with precision='float32'", "Expected", "Leave it out"),
    ),
    "data that was read to its end": (
        lambda: image(data=iter([])),
        ("data without an example", "Expected at least one", "make a new one"),
    ),
    "data for one of two inputs": (
        lambda: {"student": two_heads(), "name": "a", "data": photos()},
        ("data with 1 arrays", "Expected one for each of the student's inputs", "structure"),
    ),
    "inputs of different lengths": (
        lambda: {
            "student": two_heads(),
            "name": "a",
            "data": {"photo": photos(3), "aside": np.zeros((2, 4))},
        },
        ("{'photo': 3, 'aside': 2}", "Expected as many", "Cut them"),
    ),
    "a softmax after a softmax": (
        lambda: {"student": classifier(4, activation="softmax"), "name": "a", "softmax": True},
        ("a softmax for the output 'logits'", "Expected logits", "Leave `softmax` out"),
    ),
    "a softmax that could mean either output": (
        lambda: {"student": two_heads(), "name": "a", "softmax": True},
        ("softmax=True for a student with the outputs", "Expected the names", "softmax=["),
    ),
    "a softmax on no output": (
        lambda: {"student": two_heads(), "name": "a", "softmax": ["classes"]},
        ("softmax=['classes']", "Expected some of the outputs", "Correct"),
    ),
    "rescaling by nothing": (
        lambda: image(rescaling=0.0),
        ("rescaling=0.0", "Expected a scale other than 0", "1 / 255"),
    ),
    "rescaling for as many channels as there are not": (
        lambda: image(rescaling=([1.0, 2.0], 0.0)),
        ("rescaling=([1.0, 2.0], 0.0)", "Expected a scale", "1 / 255"),
    ),
    "a suffix of another format": (
        lambda: image(format="onnx"),
        ("format='onnx' for filepath=", "Expected a name with .onnx", "Rename"),
    ),
    "a format that nobody checks": (
        lambda: {"student": classifier(4), "name": "a", "format": "openvino"},
        ("format='openvino'", "Expected one of", "student.export"),
    ),
    "a suffix of Keras's": (
        lambda: {"student": classifier(4), "name": "a.keras"},
        ("a.keras", "Expected a name", "student.save"),
    ),
    "an unknown precision": (
        lambda: image(precision="int4"),
        ("precision='int4'", "Expected one of", "dynamic_int8"),
    ),
    "a precision that a format does not have": (
        lambda: {"student": classifier(4), "name": "a.onnx", "precision": "float16"},
        ("precision='float16' for the format 'onnx'", "Expected 'float32'", "Choose"),
    ),
    "a batch of nothing": (
        lambda: image(batch_size=0),
        ("batch_size=0", "Expected a positive integer", "None for an open"),
    ),
    "a share above one": (
        lambda: image(agreement=98),
        ("agreement=98", "Expected a share", "0 to 1"),
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_an_error_in_three_parts_before_anything_is_written(
    bad, tmp_path, monkeypatch
):
    for package in ("ai_edge_litert", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package, reason="extra: export")
    make, parts = BAD[bad]
    arguments = make()
    for writer in ("write_saved_model", "write_litert", "write_onnx"):
        monkeypatch.setattr(MODULE, writer, lambda *_: pytest.fail("conversion began"))
    with pytest.raises(ValueError) as error:
        export_student(arguments.pop("student"), tmp_path / arguments.pop("name"), **arguments)
    for part in parts:
        assert part in str(error.value)
    assert names(tmp_path) == []


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.png").write_bytes(b"dear")
    with pytest.raises(ValueError, match="holds something other than a SavedModel"):
        export_student(classifier(4), tmp_path / "photos", verbose=False)
    assert content(tmp_path / "photos") == {"photos/holiday.png": b"dear"}


def test_a_student_with_a_nan_is_not_shipped(tmp_path):
    student = classifier(4)
    student.get_layer("logits").bias.assign(np.full(5, np.nan))
    with pytest.raises(ValueError, match="computes a NaN.*'logits'"):
        export_student(student, tmp_path / "student", verbose=False)
    assert names(tmp_path) == []
