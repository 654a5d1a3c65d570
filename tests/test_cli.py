"""The command `keras-ktan`."""

import configparser
import json
import re
import warnings

import keras
import numpy as np
import pytest
from printed_commands import ROOT

import keras_ktan_startup
from keras_ktan import cli


def classifier(units, name, classes=3):
    layers = [keras.layers.Dense(units, activation="relu"), keras.layers.Dense(classes)]
    return keras.Sequential([keras.Input((4,), name="measured"), *layers], name=name)


@pytest.fixture
def files(tmp_path):
    """A teacher, a student and labelled data, as files."""
    models = {"teacher": classifier(16, "teacher"), "student": classifier(4, "student")}
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    y = np.argmax(models["teacher"].predict(x, verbose=0), axis=-1)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    np.savez(tmp_path / "inputs.npz", measured=x)
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def test_the_command_is_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    line = config["options.entry_points"]["console_scripts"].strip()
    assert line == "keras-ktan = keras_ktan_startup:main" and callable(keras_ktan_startup.main)
    assert config["options"]["py_modules"] == "keras_ktan_startup"


def test_a_report_is_printed(files, capsys):
    assert cli.main(["report", files["teacher"], files["student"]]) == 0
    # 4 * 16 + 16 * 3 against 4 * 4 + 4 * 3 products.
    assert re.search(r"MACs +112 +28 +4\.0", capsys.readouterr().out)
    arguments = ["report", files["teacher"], files["student"], "--data", files["data"], "--json"]
    assert cli.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["qualities"]["teacher"]["accuracy"] == 1.0
    student = keras.saving.load_model(files["student"])
    with np.load(files["data"]) as data:
        answers = np.argmax(student.predict(data["x"], verbose=0), axis=-1)
        expected = float(np.mean(answers == data["y"]))
    assert found["qualities"]["student"]["accuracy"] == pytest.approx(expected)


def test_a_warning_is_said_once(files, tmp_path, capsys):
    with np.load(files["data"]) as data:
        np.savez(tmp_path / "shifted.npz", x=data["x"], y=(data["y"] + 1) % 3)
    shifted = ["--data", str(tmp_path / "shifted.npz")]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert cli.main(["report", files["teacher"], files["student"], *shifted]) == 0
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("The teacher answers 0.0% of 50") == 1


def test_what_export_is_asked_for(files, capsys, monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "export_student", lambda *given, **named: calls.append((given, named)))
    command = ["export", files["student"], "out.tflite", "--int8", "--calibration", files["data"]]
    command += ["--data", files["inputs"], "--rescaling", "0.5", "-1", "--input-dtype", "uint8"]
    assert cli.main([*command, "--agreement", "0.9", "--batch-size", "1", "--softmax"]) == 0
    ((student, path), named) = calls[0]
    assert student.name == "student" and str(path) == "out.tflite"
    assert named["calibration_data"].shape == named["data"]["measured"].shape == (50, 4)
    del named["calibration_data"], named["data"]
    assert named == {
        "precision": "int8",
        "softmax": True,
        "rescaling": (0.5, -1.0),
        "batch_size": 1,
        "input_dtype": "uint8",
        "output_dtype": None,
        "tolerance": None,
        "agreement": 0.9,
        "verbose": False,
    }


def errors_of(arguments, capsys):
    assert cli.main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("keras-ktan: error: ")
    return line


def test_what_fails_is_one_line_and_exit_code_1(files, tmp_path, capsys):
    report = ["report", files["teacher"]]
    assert "which is not there" in errors_of([*report, "nowhere.keras"], capsys)
    assert "Expected a .keras file" in errors_of([*report, "student.h5"], capsys)
    (tmp_path / "torn.keras").write_bytes(b"PK")
    assert "torn.keras" in errors_of([*report, str(tmp_path / "torn.keras")], capsys)
    data = [*report, files["student"], "--data"]
    assert "as the array y" in errors_of([*data, files["inputs"]], capsys)
    np.savez(tmp_path / "objects.npz", x=np.array([{}]), y=np.ones(1))
    assert "cannot be read as arrays" in errors_of([*data, str(tmp_path / "objects.npz")], capsys)
    (tmp_path / "text.npz").write_text("x, y")
    assert "cannot be read" in errors_of([*data, str(tmp_path / "text.npz")], capsys)
    np.savez(tmp_path / "named.npz", image=np.ones((2, 4)), y=np.ones(2))
    line = errors_of([*data, str(tmp_path / "named.npz")], capsys)
    assert "['image']. Expected x, or one for each of the inputs ['measured']" in line
    export = ["export", files["student"], str(tmp_path / "out.tflite")]
    assert "precision='int8' without `calibration_data`" in errors_of([*export, "--int8"], capsys)
    assert "ends in .tflite or .onnx" in errors_of([*export[:2], "out.keras"], capsys)
    assert not (tmp_path / "out.tflite").exists()


def test_a_file_that_holds_code_is_refused(files, tmp_path, capsys):
    code = keras.layers.Lambda(lambda x: x + 1)
    keras.Sequential([keras.Input((4,)), code]).save(tmp_path / "code.keras")
    line = errors_of(["report", files["teacher"], str(tmp_path / "code.keras")], capsys)
    assert "lambda" in line and "disallowed" in line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["distil"],
        ["report", "teacher.keras"],
        ["export", "a.keras", "b.tflite", "--int8", "--float16"],
        ["export", "a.keras", "b.tflite", "--batch-size", "many"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: keras-ktan" in capsys.readouterr().err


def options(parser):
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for name, command in action.choices.items():
                yield from ((f"{name} {text}", found) for text, found in options(command))
        else:
            yield action.option_strings[-1] if action.option_strings else action.dest, action


def test_help_explains_every_option():
    unexplained = [name for name, action in options(cli.make_parser()) if not action.help]
    assert unexplained == []
    names = [name for name, _ in options(cli.make_parser())]
    assert {"report --json", "report student", "export --int8", "export --calibration"} < {*names}


@pytest.mark.slow
@pytest.mark.graph
def test_a_file_in_8_bits(files, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert", reason="extra: export")
    output = tmp_path / "out.tflite"
    command = ["export", files["student"], str(output), "--int8", "--calibration", files["data"]]
    assert cli.main([*command, "--agreement", "0.5"]) == 0
    assert "litert, int8" in capsys.readouterr().out
    assert output.stat().st_size > 0
