"""The CIFAR-10 example, on random images."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

pytestmark = pytest.mark.graph


@pytest.fixture
def tiny_command(monkeypatch, tmp_path):
    """Random images instead of CIFAR-10, and the shortest command that trains on them."""
    import distill_cifar10

    random = np.random.default_rng(0)

    def part(count):
        images = random.integers(0, 256, (count, 32, 32, 3), dtype="uint8")
        return images, random.integers(0, 10, count)

    data = part(30), part(10)
    monkeypatch.setattr(distill_cifar10, "load_cifar10", lambda data_dir: (*data, True))
    command = f"--output {tmp_path} --train-images 16 --validation-images 8 --batch-size 8 "
    command += "--epochs 2 --seeds 1 --teacher-depth 1 --teacher-width 3 --student-width 2"
    return distill_cifar10, command.split()


@pytest.mark.slow
def test_a_short_run_writes_what_it_promises(tiny_command, tmp_path, capsys, eager):
    example, command = tiny_command
    example.main([*command, "--epochs", "1", "--methods", "KTAN"])
    (run,) = map(json.loads, (tmp_path / "runs.jsonl").read_text().splitlines())
    assert run["method"] == "KTAN" and run["validation_accuracy"] in {n / 8 for n in range(9)}
    table = (tmp_path / "table.md").read_text()
    assert f"| KTAN | {run['test_accuracy']:.2%} ± 0.00 | | |" in table
    assert table.split("```")[2].strip() in capsys.readouterr().out


@pytest.mark.long
def test_an_experiment_is_run_once_and_resumed(tiny_command, monkeypatch, tmp_path, capsys):
    example, command = tiny_command
    # Which labels each run was shown, in which order.
    shown = []
    make_training_data = example.make_training_data

    def watched(*arguments):
        seen = []
        shown.append(seen)

        def watch(labels):
            seen.append(labels.tolist())
            return labels

        def pass_on(images, labels):
            watched_labels = tf.numpy_function(watch, [labels], labels.dtype)
            return images, tf.ensure_shape(watched_labels, labels.shape)

        return make_training_data(*arguments).map(pass_on)

    monkeypatch.setattr(example, "make_training_data", watched)
    example.main([*command, "--methods", "KTAN", "supervised"])
    output = capsys.readouterr().out
    assert "kept as JPEG" in output and "| KTAN |" in output and "times smaller" in output
    assert "[1/2] seed 0, supervised" in output and "[2/2] seed 0, KTAN" in output
    pictures = {"curves.png", "maps.png"}
    kept = {"teacher.keras", "distiller_supervised.keras", "distiller_KTAN.keras"}
    files = {"runs.jsonl", "settings.json", "table.md"} | kept | pictures
    assert files == {path.name for path in tmp_path.iterdir()}
    assert "kept as JPEG" in (tmp_path / "table.md").read_text()
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [(run["method"], run["seed"]) for run in runs] == [("supervised", 0), ("KTAN", 0)]
    for run in runs:
        assert run["student_parameters"] == example.make_classifier(16, 1, 2, "s").count_params()
        assert run["teacher_parameters"] == example.make_classifier(16, 1, 3, "t").count_params()
        assert run["validation_accuracy"] == run["history"]["val_accuracy"][1]
        assert 10 * run["test_accuracy"] == pytest.approx(round(10 * run["test_accuracy"]))
        assert run["seconds"] > 0
    labels, distillation = (
        {name: np.array(run["history"][name]) for name in run["history"]} for run in runs
    )
    assert "feature_loss" not in labels
    # The feature target counts three times to the end; the adversary falls from 0.02 to 0.
    rest = (
        distillation["loss"]
        - distillation["student_loss"]
        - distillation["logits_loss"]
        - 3.0 * distillation["feature_loss"]
    )
    adversary = rest / distillation["adversarial_loss"]
    assert 0.02 > adversary[0] > adversary[1] > 0.0
    _, supervised, ktan = shown
    assert supervised == ktan and len(supervised) == 4
    assert supervised[:2] != supervised[2:]

    before = {name: (tmp_path / name).read_bytes() for name in files}
    monkeypatch.setattr(example, "train_student", None)  # a call would fail
    monkeypatch.setattr(keras.Model, "fit", None)
    example.main([*command, "--methods", "supervised", "KTAN", "--resume"])
    assert "2 of 2 runs are finished already" in capsys.readouterr().out
    for name in files - pictures:
        assert (tmp_path / name).read_bytes() == before[name]

    with pytest.raises(SystemExit):
        example.main(command)
    assert "finished runs" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        example.main([*command, "--resume", "--temperature", "2"])
    assert "temperature was 4.0, now 2.0" in capsys.readouterr().err
    # Another teacher than that of the finished runs.
    example.make_classifier(16, 1, 3, "teacher").save(tmp_path / "teacher.keras")
    with pytest.raises(ValueError, match="teacher was"):
        example.main([*command, "--resume"])


@pytest.mark.long
def test_the_maps_are_those_of_the_kept_students(tiny_command, monkeypatch, tmp_path, capsys):
    example, command = tiny_command
    example.main([*command, "--methods", "supervised", "--seeds", "2"])
    output = capsys.readouterr().out
    assert "not drawn, seed 0 was not run in this folder with ['KTAN']" in output
    drawn = []
    monkeypatch.setattr(
        example, "plot_feature_maps", lambda *arguments, title: drawn.append(arguments)
    )
    example.main([*command, "--methods", "KTAN", "--resume"])
    ((distiller, images, path, without),) = drawn
    assert path == tmp_path / "maps.png" and images.shape == (4, 16, 16, 3)
    (pair,) = distiller.feature_pairs
    assert (pair.teacher_layer_name, pair.student_layer_name) == ("stage_2", "stage_2")
    # What was kept has the accuracy of seed 0 that was logged, each method its own.
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    _, (images, labels), _ = example.load_cifar10(None)
    test = (example.halve(images), labels)
    for method, student in (("KTAN", distiller.student), ("supervised", without)):
        (run,) = [run for run in runs if run["method"] == method and run["seed"] == 0]
        assert run["test_accuracy"] == example.accuracy(student, test)


def test_a_teacher_of_a_stopped_start_is_not_taken_over(tiny_command, monkeypatch, tmp_path):
    example, command = tiny_command
    (tmp_path / "teacher.keras").write_bytes(b"half of a file")

    class TrainedAgain(Exception):
        pass

    def fit(*arguments, **more):
        raise TrainedAgain

    monkeypatch.setattr(keras.Model, "fit", fit)
    with pytest.raises(TrainedAgain):
        example.main([*command, "--resume"])


@pytest.mark.parametrize(
    "options, message",
    [
        (["--epochs", "0"], "received 0, expected 1 or more"),
        (["--seeds", "two"], "invalid whole number value: 'two'"),
        (["--temperature", "0"], "received 0.0, expected a number above 0"),
        (["--methods", "all"], "invalid choice: 'all'"),
        (["--image-size", "24"], "invalid choice: 24"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_written(
    tiny_command, tmp_path, capsys, options, message
):
    example, _ = tiny_command
    with pytest.raises(SystemExit):
        example.parse_arguments(["--output", str(tmp_path / "new"), *options])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_table_without_supervised_compares_with_nothing():
    from common.four_methods import format_table

    row = format_table({"KTAN": [0.5, 0.6]}, 0.7).splitlines()[-1]
    assert row == "| KTAN | 55.00% ± 7.07 | | |"
