"""What stands in an exported file is the student, in each format, where keras_ktan is not."""

import dataclasses

import keras
import numpy as np
import pytest
from exported import classifier, photos, run_where_keras_ktan_is_not, two_heads

from keras_ktan.export import export_student

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="LiteRT and ONNX are written on TensorFlow"
)

SUFFIXES = {"saved_model": "", "litert": ".tflite", "onnx": ".onnx"}
PACKAGES = {"saved_model": [], "litert": ["ai_edge_litert"], "onnx": ["tf2onnx", "onnxruntime"]}


def needs(kind):
    for package in PACKAGES[kind]:
        pytest.importorskip(package, reason="extra: export")


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("kind", "batch_size"),
    [
        pytest.param("saved_model", None, marks=pytest.mark.slow),
        pytest.param("litert", None, marks=pytest.mark.slow),
        pytest.param("litert", 2, marks=pytest.mark.long),
        ("onnx", None),
        pytest.param("onnx", 2, marks=pytest.mark.long),
    ],
)
def test_a_file_has_names_and_computes_what_the_student_does(kind, batch_size, tmp_path):
    needs(kind)
    student, generator = two_heads(), np.random.default_rng(1)
    aside = generator.normal(size=(7, 4)).astype("float32")
    path = tmp_path / f"student{SUFFIXES[kind]}"
    result = export_student(
        student, path, data=[photos(7), aside], batch_size=batch_size, verbose=False
    )
    assert result.path == str(path) and result.examples == 7 and result.data == "data"
    assert result.largest_difference <= 1e-4 and result.agreement == 1.0

    inputs = {"photo": photos(2), "aside": aside[:2]}
    takes, found = run_where_keras_ktan_is_not(kind, path, inputs, tmp_path)
    assert takes == {"photo": [batch_size, 8, 8, 3], "aside": [batch_size, 4]}
    logits, box = student.predict([photos(2), aside[:2]], verbose=0)
    assert set(found) == {"logits", "box"}
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["box"], box, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["litert", "onnx"])
def test_rescaling_stands_before_the_student_and_a_softmax_after_it(kind, tmp_path):
    needs(kind)
    student = classifier(8)
    pixels = np.round(photos(6) * 255)
    scale, offset = [1 / 50, 1 / 100, 1 / 255], [-0.5, 0.25, 0.0]
    path = tmp_path / f"student{SUFFIXES[kind]}"
    export_student(
        student, path, data=pixels, rescaling=(scale, offset), softmax=True, verbose=False
    )
    _, found = run_where_keras_ktan_is_not(kind, path, {"image": pixels}, tmp_path)
    taken = pixels * np.float32(scale) + np.float32(offset)
    expected = softmax(student.predict(taken, verbose=0))
    np.testing.assert_allclose(found["logits"], expected, atol=1e-5)
    # The student itself was not touched.
    assert student.layers[0].name == "image" and student.layers[-1].name == "logits"


@pytest.mark.long
def test_weights_of_fewer_bits_make_smaller_files_that_still_agree(tmp_path):
    needs("litert")
    student, data = classifier(64), photos()
    exported = {
        precision: export_student(
            student,
            tmp_path / f"{precision}.tflite",
            precision=precision,
            data=data,
            calibration_data=photos(40, seed=9) if precision == "int8" else None,
            verbose=False,
        )
        for precision in ("float32", "float16", "dynamic_int8", "int8")
    }
    sizes = {name: result.bytes for name, result in exported.items()}
    assert sizes == {name: (tmp_path / f"{name}.tflite").stat().st_size for name in exported}
    assert sizes["float16"] < 0.6 * sizes["float32"]
    assert sizes["dynamic_int8"] < 0.4 * sizes["float32"]
    assert sizes["int8"] < 0.4 * sizes["float32"]
    differences = [exported[name].largest_difference for name in exported]
    # Fewer bits are worse, and no file is secretly another one's precision.
    assert 0 <= differences[0] < 1e-4 < differences[1] * 10 < differences[3] * 10
    assert differences[1] < 1e-2 and differences[3] < 0.2
    assert all(result.agreement >= 0.98 for result in exported.values())


@pytest.mark.slow
def test_an_integer_file_takes_pixels_as_they_are_and_answers_on_a_grid(tmp_path):
    """With rescaling and pixels from 0 to 255 to calibrate on, uint8 in is the pixel itself."""
    needs("litert")
    student, pixels = classifier(64), np.round(photos() * 255)
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    path = tmp_path / "student.tflite"
    result = export_student(
        student,
        path,
        precision="int8",
        calibration_data=pixels,
        rescaling=1 / 255,
        input_dtype="uint8",
        output_dtype="int8",
        batch_size=1,
        verbose=False,
    )
    assert result.data == "calibration_data" and result.examples == len(pixels)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    (takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert takes["dtype"] == np.uint8 and takes["quantization"] == (pytest.approx(1.0), 0)
    assert gives["dtype"] == np.int8
    interpreter.allocate_tensors()
    scale, zero = gives["quantization"]
    answers = []
    for image in pixels.astype("uint8"):
        interpreter.set_tensor(takes["index"], image[None])
        interpreter.invoke()
        answers.append((interpreter.get_tensor(gives["index"])[0].astype("float32") - zero) * scale)
    logits = student.predict(pixels / 255, verbose=0)
    assert np.mean(np.argmax(answers, -1) == np.argmax(logits, -1)) >= 0.98
    assert np.max(np.abs(answers - logits)) == pytest.approx(
        result.largest_difference * np.max(np.abs(logits)), rel=0.05
    )


@pytest.mark.slow
def test_without_data_random_inputs_are_compared_and_the_result_says_so(tmp_path, capsys):
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    hidden = keras.layers.Embedding(11, 4)(tokens)
    hidden = keras.layers.GlobalAveragePooling1D()(hidden)
    student = keras.Model(tokens, keras.layers.Dense(3, name="logits")(hidden))
    result = export_student(student, tmp_path / "student")
    assert result.data == "random" and result.examples == 32
    assert "32 random inputs" in capsys.readouterr().out
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.bytes = 0


@pytest.mark.long
def test_a_data_set_is_read_to_the_largest_number_of_examples_and_no_further(tmp_path):
    student, read = classifier(4), []

    def batches():
        while True:
            read.append(1)
            yield photos(8), np.zeros(8)

    result = export_student(
        student, tmp_path / "student", data=batches(), max_examples=20, verbose=False
    )
    assert result.examples == 20 and len(read) == 3


@pytest.mark.long
def test_a_student_that_predicts_another_structure_is_compared_by_its_call(tmp_path):
    """Detectors decode boxes in `predict`; a file holds what the call gives."""

    class Decoding(keras.Model):
        def predict_step(self, data):
            return {"answer": keras.ops.argmax(self(data, training=False), axis=-1)}

    base = classifier(4)
    student = Decoding(base.input, base.output)
    assert set(student.predict(photos(3), verbose=0)) == {"answer"}
    result = export_student(student, tmp_path / "student", data=photos(9), verbose=False)
    assert result.largest_difference <= 1e-4
