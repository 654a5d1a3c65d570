"""Accuracy, agreement, calibration and chance, by hand, on models that show what they are given."""

import importlib
import json

import keras
import numpy as np
import pytest
from helpers import assert_three_parts
from keras import layers
from shown_scores import LABELS, TEACHER, one_hot, two_models, window

from keras_ktan import compression_report
from keras_ktan.report.latency import latency_of, time_in_turns
from keras_ktan.report.quality import (
    binomial_tail,
    classes_that_lost,
    expected_calibration_error,
    is_near_chance,
)


def test_calibration_error_by_hand():
    # Bins of 1/15: 0.50 and 0.52 share the eighth one, 0.9 and 0.92 the fourteenth.
    confidences = [0.50, 0.52, 0.90, 0.92, 1.0]
    correct = [True, False, True, True, False]
    expected = (abs(1 - 1.02) + abs(2 - 1.82) + abs(0 - 1.0)) / 5
    assert expected_calibration_error(confidences, correct) == pytest.approx(expected)


def test_a_bin_holds_its_upper_edge():
    # With two bins 0.5 is in the lower one: errors of another sign do not cancel.
    assert expected_calibration_error([0.5, 0.75], [False, True], bins=2) == pytest.approx(0.375)
    assert expected_calibration_error([0.51, 0.75], [False, True], bins=2) == pytest.approx(0.13)


def test_the_tail_of_a_binomial_distribution():
    # Four throws of a coin: 1 + 4 of 16 have at least three heads.
    assert binomial_tail(4, 0.5, 3) == pytest.approx(5 / 16)
    assert binomial_tail(3, 0.25, 1) == pytest.approx(1 - 0.75**3)
    assert binomial_tail(10_000, 0.1, 1000) == pytest.approx(0.5, abs=0.02)
    assert (binomial_tail(5, 0.0, 1), binomial_tail(5, 1.0, 5), binomial_tail(5, 0.3, 0)) == (
        0.0,
        1.0,
        1.0,
    )


def test_answers_by_chance():
    labels = np.arange(1000) % 10
    random = np.random.default_rng(0).integers(0, 10, 1000)
    assert is_near_chance(labels, random)
    assert is_near_chance(labels, np.full(1000, 3))
    assert is_near_chance(labels, (labels + 1) % 10)  # classes in another order
    assert not is_near_chance(labels, np.where(np.arange(1000) < 200, labels, random))
    # 95 % are of one class. Only who finds some of the others knows something.
    labels = np.repeat([0, 1], [950, 50])
    assert is_near_chance(labels, np.zeros(1000, int))
    assert not is_near_chance(labels, np.repeat([0, 1], [970, 30]))
    assert not is_near_chance(np.zeros(10, int), np.zeros(10, int))


def test_the_classes_that_lost_most():
    labels = np.array([0, 0, 1, 1, 1, 1, 2, 2])
    teacher = np.array([0, 0, 1, 1, 1, 1, 2, 0])
    student = np.array([0, 1, 1, 1, 1, 0, 2, 2])
    losses = classes_that_lost(labels, teacher, student)
    found = [(loss.label, loss.teacher, loss.student, loss.examples) for loss in losses]
    assert found == [(0, 1.0, 0.5, 2), (1, 1.0, 0.75, 4)]


@pytest.mark.parametrize("activations", [{}, {"teacher": "softmax"}, {"student": "softmax"}])
@pytest.mark.parametrize(
    "labels",
    [np.array(LABELS), np.array(LABELS, "float32")[:, None], one_hot(LABELS, 3)],
    ids=["numbers", "column", "one-hot"],
)
def test_a_classifier(labels, activations):
    teacher, student, x = two_models(**activations)
    report = compression_report(teacher, student, (x, labels))
    qualities = report.qualities
    assert (qualities["teacher"].accuracy, qualities["student"].accuracy) == (7 / 8, 5 / 8)
    assert (qualities["teacher"].agreement, qualities["student"].agreement) == (None, 6 / 8)
    # Every answer has the same confidence, so that all are in one bin.
    confidence = np.exp(2) / (np.exp(2) + 2)
    for role, accuracy in (("teacher", 7 / 8), ("student", 5 / 8)):
        expected = abs(accuracy - confidence)
        assert qualities[role].calibration_error == pytest.approx(expected, abs=1e-6)
    found = [(loss.label, loss.examples) for loss in report.class_losses]
    assert found == [(0, 3), (1, 3)]
    assert (report.examples, report.notes, report.warnings) == (8, (), ())


def batches(x, y):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return x[3 * index : 3 * index + 3], y[3 * index : 3 * index + 3]

    return Batches()


def endless_batches(x):
    class Endless(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index):
            return x, np.array(LABELS)

    return Endless()


def test_data_sets_give_what_arrays_give():
    teacher, student, x = two_models()
    y = np.array(LABELS)
    expected = compression_report(teacher, student, (x, y)).qualities
    assert compression_report(teacher, student, batches(x, y)).qualities == expected
    assert compression_report(teacher, student, [(x[:5], y[:5]), (x[5:], y[5:])]).qualities == (
        expected
    )
    weighted = compression_report(teacher, student, (x, y, np.ones(8)))
    assert weighted.qualities == expected
    assert weighted.notes == ("sample weights were not used",)


@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_yes_or_no(activation):
    teacher, student = window(0, 1, 2, "sigmoid"), window(1, 1, 2, activation)
    x = np.array([[3, 1], [-3, 1], [3, -1], [-3, -1], [3, 1], [3, 1], [-3, -1], [-3, -1]], float)
    labels = np.array([1, 0, 1, 0, 1, 1, 0, 0])
    report = compression_report(teacher, student, (x.astype("float32"), labels))
    assert report.qualities["teacher"].accuracy == 1.0
    assert report.qualities["student"].accuracy == report.qualities["student"].agreement == 6 / 8
    confidence = 1 / (1 + np.exp(-1))
    error = report.qualities["student"].calibration_error
    assert error == pytest.approx(abs(6 / 8 - confidence), abs=1e-6)


def test_a_teacher_that_answers_by_chance_gets_a_warning():
    teacher, student, x = two_models()
    shifted = (np.array(TEACHER) + 1) % 3
    with pytest.warns(UserWarning, match="which chance does as well"):
        report = compression_report(teacher, student, (x, shifted))
    assert len(report.warnings) == 1 and "The teacher answers 0.0% of 8" in report.warnings[0]
    assert "WARNING: The teacher" in str(report)


def test_other_models_show_their_compiled_metrics():
    teacher, student = window(0, 2, 4), window(2, 2, 4)
    student.compile("sgd", "mse", metrics=["mae"])
    x = np.array([[1.0, 2.0, 1.5, 2.5]] * 4, "float32")
    report = compression_report(teacher, student, (x, np.array([[1.0, 2.0]] * 4)))
    assert report.qualities["student"].metrics == {"mae": pytest.approx(0.5)}
    assert "teacher" not in report.qualities and report.qualities["student"].accuracy is None
    assert len(report.notes) == 2
    assert "a model was compiled with a loss of regression" in report.notes[0]
    assert "the teacher was not compiled with metrics" in report.notes[1]
    row = next(line for line in str(report).splitlines() if line.startswith("mae"))
    assert row.split() == ["mae", "0.5"]


@pytest.mark.parametrize(
    ("models", "labels", "note"),
    [
        (
            lambda: (window(0, 3, 6, "sigmoid"), window(3, 3, 6)),
            one_hot(LABELS, 3),
            "several labels",
        ),
        (lambda: (window(0, 1, 6), window(3, 1, 6)), np.ones(8), "score of a yes or no"),
        (lambda: (window(0, 3, 6), window(3, 3, 6)), np.full((8, 3), 0.3), "neither class numbers"),
        (
            lambda: (window(0, 3, 6), keras.Sequential([window(3, 3, 6), layers.Reshape((3, 1))])),
            np.array(LABELS),
            "the student's output has the shape (batch, 3, 1)",
        ),
    ],
)
def test_what_is_no_single_label_is_not_measured_and_that_is_said(models, labels, note):
    teacher, student = models()
    _, _, x = two_models()
    report = compression_report(teacher, student, (x, labels))
    assert report.qualities == {} and note in report.notes[0]
    assert note in str(report) and "accuracy  " not in str(report)


def test_sigmoids_for_one_label_have_an_accuracy_and_no_calibration():
    teacher, student, x = two_models(teacher="sigmoid")
    report = compression_report(teacher, student, (x, np.array(LABELS)))
    assert report.qualities["teacher"].accuracy == 7 / 8
    assert report.qualities["teacher"].calibration_error is None
    assert report.qualities["student"].calibration_error is not None
    assert report.notes == (
        "the calibration of the teacher was not measured: a sigmoid scores each class by itself",
    )


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (lambda x: (x,), ("without labels", "Expected pairs", "Pass")),
        (lambda x: x, ("of type ndarray", "Expected a tuple", "Pass")),
        (lambda x: [], ("without an example", "Expected at least one", "make a new one")),
        (lambda x: endless_batches(x), ("data without an end", "Expected a finite", "__len__")),
        (lambda x: (x, np.array(LABELS[:5])), ("[5, 8]", "Expected as many", "Cut")),
        (lambda x: (x, np.array(LABELS) + 1), ("from 1 to 3", "from 0 to 2", "Pass the labels")),
        (lambda x: (x, np.array(LABELS) - 1), ("from -1 to 1", "from 0 to 2", "Pass the labels")),
    ],
)
def test_bad_data_is_refused(data, parts):
    teacher, student, x = two_models()
    with pytest.raises(ValueError) as error:
        compression_report(teacher, student, data(x))
    assert_three_parts(error.value, *parts)


def test_unlike_classes_are_refused():
    _, _, x = two_models()
    with pytest.raises(ValueError) as error:
        compression_report(window(0, 3, 6), window(0, 4, 6), (x, np.array(LABELS)))
    assert_three_parts(error.value, "scores 3 classes and the student 4", "Expected", "Pass")


def test_table_markdown_and_json_hold_the_same_numbers():
    teacher, student, x = two_models()
    report = compression_report(teacher, student, (x, np.array(LABELS)))
    text = {line.split("  ")[0]: line.split() for line in str(report).splitlines()}
    assert text["accuracy"] == ["accuracy", "87.5%", "62.5%"]
    assert text["agreement with the teacher"][-1:] == ["75.0%"]
    markdown = report.to_markdown().splitlines()
    assert markdown[0] == "|  | teacher | student | times smaller |"
    assert "| accuracy | 87.5% | 62.5% |  |" in markdown
    assert "| MACs | 18 | 18 | 1.0 |" in markdown
    assert "- data: 8 examples" in markdown
    numbers = json.loads(report.to_json())
    assert numbers["qualities"]["student"]["accuracy"] == 5 / 8
    assert numbers["teacher"]["macs"] == 18 and numbers["class_losses"][0]["label"] == 0


def test_percentiles_of_times():
    latency = latency_of([0.001 * n for n in range(1, 102)])
    assert (latency.p50, latency.p95, latency.runs) == (pytest.approx(51), pytest.approx(96), 101)


def test_functions_are_timed_in_turns():
    calls = []
    seconds = time_in_turns({name: lambda name=name: calls.append(name) for name in "ab"}, runs=3)
    assert calls[:4] == ["a", "b", "a", "b"] and calls.count("a") == calls.count("b") > 3
    assert {name: len(found) for name, found in seconds.items()} == {"a": 3, "b": 3}


def test_latency_is_measured_when_asked_for(monkeypatch):
    module = importlib.import_module("keras_ktan.report.compression_report")
    monkeypatch.setattr(module, "_TIMED_RUNS", 2)
    tokens = keras.Input((4,), dtype="int32")
    model = keras.Model(tokens, layers.Dense(2)(layers.Embedding(5, 3)(tokens)))
    assert compression_report(model, model).latencies == {}
    report = compression_report(model, model, latency=True)
    assert {name: found.runs for name, found in report.latencies.items()} == {
        "teacher": 2,
        "student": 2,
    }
    assert report.device.startswith(keras.backend.backend()) and report.device in str(report)
    assert "latency p95, ms" in str(report)
