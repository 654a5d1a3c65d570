"""The CIFAR-10 example: its log, its data, its networks, and a whole tiny experiment."""

import json
import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

EXAMPLES = pathlib.Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(autouse=True)
def examples_on_path(monkeypatch):
    """The examples import each other as scripts do."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture
def run_log():
    from run_log import RunLog

    return RunLog


SETTINGS = {"epochs": 2, "sizes": (1, 2)}
RUN = {"method": "KTAN", "seed": 0, "test_accuracy": 0.5}


def test_a_resumed_log_knows_the_finished_runs_and_goes_on(run_log, tmp_path):
    run_log(tmp_path, SETTINGS).append(RUN)
    log = run_log(tmp_path, SETTINGS, resume=True)
    assert log.runs == [RUN]
    assert log.find(method="KTAN", seed=0) == RUN
    assert log.find(method="KTAN", seed=1) is None
    log.append({**RUN, "seed": 1})
    lines = log.path.read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [0, 1]


def test_finished_runs_are_refused_without_resume(run_log, tmp_path):
    log = run_log(tmp_path, SETTINGS)
    run_log(tmp_path, {"epochs": 3})  # no run yet: nothing to lose
    log.append(RUN)
    with pytest.raises(ValueError, match="finished runs.* --resume, or name another --output"):
        run_log(tmp_path, SETTINGS)
    assert json.loads((tmp_path / "settings.json").read_text()) == {"epochs": 3}


def test_a_half_written_last_line_is_dropped_with_a_notice(run_log, tmp_path, capsys):
    log = run_log(tmp_path, SETTINGS)
    log.append(RUN)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + b'{"method": "labels on')
    resumed = run_log(tmp_path, SETTINGS, resume=True)
    assert "half-written" in capsys.readouterr().out
    assert resumed.runs == [RUN]
    resumed.append({**RUN, "seed": 1})
    assert log.path.read_bytes() == whole + whole.replace(b'"seed": 0', b'"seed": 1')


def test_a_whole_last_line_is_kept_without_a_notice(run_log, tmp_path, capsys):
    run_log(tmp_path, SETTINGS).append(RUN)
    run_log(tmp_path, SETTINGS, resume=True)
    assert capsys.readouterr().out == ""


def test_other_settings_are_refused_by_name(run_log, tmp_path):
    run_log(tmp_path, SETTINGS).append(RUN)
    with pytest.raises(ValueError, match="other settings: epochs was 2, now 3. .*another --output"):
        run_log(tmp_path, {**SETTINGS, "epochs": 3}, resume=True)
    with pytest.raises(ValueError, match="crops was not recorded, now True"):
        run_log(tmp_path, {**SETTINGS, "crops": True}, resume=True)


def test_a_late_setting_is_recorded_and_then_compared(run_log, tmp_path):
    run_log(tmp_path, SETTINGS).confirm("pixels", "abc")
    log = run_log(tmp_path, SETTINGS, resume=True)
    log.confirm("pixels", "abc")
    with pytest.raises(ValueError, match="pixels was abc, now def"):
        log.confirm("pixels", "def")


def test_runs_without_their_settings_are_refused(run_log, tmp_path):
    log = run_log(tmp_path, SETTINGS)
    log.append(RUN)
    log.settings_path.unlink()
    with pytest.raises(ValueError, match="settings.json is missing"):
        run_log(tmp_path, SETTINGS, resume=True)


def test_a_damaged_line_is_named(run_log, tmp_path):
    log = run_log(tmp_path, SETTINGS)
    log.append(RUN)
    log.path.write_text("{no json\n" + log.path.read_text())
    with pytest.raises(ValueError, match="line 1 is not JSON.*Delete the line"):
        run_log(tmp_path, SETTINGS, resume=True)


def parameters(depth, width):
    """Of the network by hand: convolutions without bias, 4 numbers a channel to normalise."""

    def convolution(size, taken, made):
        return size * size * taken * made + 4 * made

    total = convolution(3, 3, width)
    for taken, made in ((width, width), (width, 2 * width), (2 * width, 4 * width)):
        total += convolution(3, taken, made) + (2 * depth - 1) * convolution(3, made, made)
        total += convolution(1, taken, made) if made > taken else 0
    return total + 4 * width * 10 + 10


@pytest.mark.parametrize(
    "size, depth, width, count, shape",
    [
        (16, 2, 24, 394_354, (4, 4, 96)),  # the default teacher
        (16, 1, 8, 20_290, (4, 4, 32)),  # the default student
        (32, 3, 2, None, (8, 8, 8)),
    ],
)
def test_the_network_has_the_size_that_was_asked_for(size, depth, width, count, shape):
    from residual_network import make_classifier

    model = make_classifier(size, depth, width, "some_name")
    assert model.count_params() == parameters(depth, width) == (count or parameters(depth, width))
    features = model.get_layer("features")
    assert isinstance(features, keras.layers.ReLU)
    assert features.output.shape == (None, *shape)
    assert model.output_shape == (None, 10)
    assert model.name == "some_name"
    # No method around the tapped map, so that the student's own head can be the objective.
    keras.Model(features.output, model.output)


def test_a_network_sees_the_whole_range_of_pixels_as_minus_one_to_one():
    from residual_network import make_classifier

    model = make_classifier(16, 1, 1, "model")
    scale = next(layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling))
    np.testing.assert_allclose(scale(np.array([0.0, 127.5, 255.0])), [-1, 0, 1], atol=1e-6)


def test_means_of_two_by_two_pixels_by_hand():
    from cifar10_data import halve

    image = np.array(
        [[0, 1, 255, 255], [2, 3, 255, 255], [10, 20, 0, 0], [30, 40, 0, 1]], dtype="uint8"
    )
    images = np.stack([image, image[::-1]])[..., None].repeat(3, axis=-1)
    images[..., 1] = 255 - images[..., 1]
    halved = halve(images)
    # 1.5 is rounded up, 0.25 down.
    np.testing.assert_array_equal(halved[0, :, :, 0], [[2, 255], [25, 0]])
    np.testing.assert_array_equal(halved[1, :, :, 2], [[25, 0], [2, 255]])
    np.testing.assert_array_equal(halved[0, :, :, 1], [[254, 0], [230, 255]])
    assert halved.dtype == np.uint8


def test_validation_images_are_apart_and_stay_when_there_is_more_to_train_on():
    from cifar10_data import split_train

    everything = (np.arange(20), np.arange(20) + 100)
    (images, labels), (kept_images, kept_labels) = split_train(everything, 6, 4)
    more, kept_again = split_train(everything, 16, 4)
    assert set(images) < set(more[0]) and len(images) == 6
    np.testing.assert_array_equal(kept_images, kept_again[0])
    assert not set(more[0]) & set(kept_images)
    np.testing.assert_array_equal(labels, images + 100)
    np.testing.assert_array_equal(kept_labels, kept_images + 100)
    with pytest.raises(ValueError, match="Received 17 training and 4 validation.*Expected 20"):
        split_train(everything, 17, 4)


def picture(size, channels=2):
    """One image whose pixels all differ."""
    return np.arange(size * size * channels, dtype="uint8").reshape(1, size, size, channels)


def test_without_crops_half_of_the_images_are_mirrored_and_nothing_else():
    from cifar10_data import augment

    image = picture(8)
    result = augment(tf.constant(image.repeat(200, axis=0)), (1, 2), crops=False).numpy()
    same = (result == image).all(axis=(1, 2, 3))
    mirrored = (result == image[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 70 < mirrored.sum() < 130


def test_crops_move_an_image_by_up_to_an_eighth_in_every_direction():
    from cifar10_data import augment

    image = picture(8)
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    views = [
        padded[0, row : row + 8, column : column + 8][:, ::mirror]
        for row in range(3)
        for column in range(3)
        for mirror in (1, -1)
    ]
    result = augment(tf.constant(image.repeat(400, axis=0)), (1, 2), crops=True).numpy()
    # A mirrored image is shifted after the mirror, which is the mirror of another shift.
    seen = [[(one == view).all() for view in views].index(True) for one in result]
    assert set(seen) == set(range(18))
    assert result.dtype == np.uint8


def batches(data):
    return [(images.numpy(), labels.numpy()) for images, labels in data]


def test_a_seed_gives_the_same_batches_in_every_run_and_new_ones_in_every_epoch():
    from cifar10_data import make_training_data

    labels = np.arange(10)
    # Each label's image has values that no other has: no mix-up stays unseen.
    images = (20 * labels[:, None, None, None] + picture(4, 1)).astype("uint8")
    epochs = []
    for seed, global_seed in ((3, 0), (3, 1), (4, 0)):
        keras.utils.set_random_seed(global_seed)
        data = make_training_data(images, labels, 4, seed, crops=True)
        epochs.append([batches(data), batches(data)])
    for first, second in zip(*epochs[:2], strict=True):
        for (left, left_labels), (right, right_labels) in zip(first, second, strict=True):
            np.testing.assert_array_equal(left, right)
            np.testing.assert_array_equal(left_labels, right_labels)
    order = [[np.concatenate([batch[1] for batch in epoch]) for epoch in run] for run in epochs[1:]]
    assert (order[0][0] != order[0][1]).any()
    assert (order[0][0] != order[1][0]).any()
    for epoch in epochs[0]:
        assert [len(batch[1]) for batch in epoch] == [4, 4, 2]
        drawn_images, drawn_labels = join(epoch)
        assert sorted(drawn_labels) == list(labels)
        assert drawn_images.dtype == np.float32
        for image, label in zip(drawn_images, drawn_labels, strict=True):
            assert 20 * label <= image.min() and image.max() < 20 * label + 16


def test_an_epoch_augments_in_its_own_way():
    from cifar10_data import make_training_data

    # All images are alike, so only mirroring and cropping can make two epochs differ.
    data = make_training_data(picture(8).repeat(12, axis=0), np.zeros(12), 4, 0, crops=True)
    first, second = (np.concatenate([images for images, _ in batches(data)]) for _ in range(2))
    assert (first != second).any()
    assert (first[:4] != first[4:8]).any()


def join(epoch):
    """All images and all labels of an epoch."""
    return [np.concatenate(parts) for parts in zip(*epoch, strict=True)]


def test_the_time_left_is_judged_by_each_way():
    from progress import seconds_left

    runs = [{"method": "a", "seconds": 10}, {"method": "a", "seconds": 20}, {"method": "b", "seconds": 60}]
    assert seconds_left(runs, ["a", "b", "b"]) == 15 + 60 + 60
    assert seconds_left(runs, ["c"]) == 30
    assert seconds_left(runs, []) == 0


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
    kept = {"teacher.keras", "distiller_labels_only.keras", "distiller_KTAN.keras"}
    files = {"runs.jsonl", "settings.json", "table.md"} | kept | pictures
    assert files == {path.name for path in tmp_path.iterdir()}
    assert "kept as JPEG" in (tmp_path / "table.md").read_text()
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [(run["method"], run["seed"]) for run in runs] == [("supervised", 0), ("KTAN", 0)]
    for run in runs:
        assert run["student_parameters"] == parameters(1, 2)
        assert run["teacher_parameters"] == parameters(1, 3)
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


def test_ready_images_are_read_without_a_download(monkeypatch):
    """Against a stand-in for TFDS, as no test may need the data."""
    from cifar10_data import load_cifar10

    calls = []

    class Builder:
        def __init__(self, name, data_dir):
            calls.append((name, data_dir))
            self.data_dir = data_dir
            self.first = b"\xff\xd8\xff\xe0" if data_dir == "jpeg" else b"\x89PNG"

        def is_prepared(self):
            return calls[-1][1] != "empty"

        def download_and_prepare(self):
            calls.append("download")

        def as_dataset(self, split, decoders=None, **how):
            if decoders:
                return tf.data.Dataset.from_tensors({"image": self.first})
            return list(split)

    class Decode:
        SkipDecoding = object

    class Stand:
        builder = Builder
        decode = Decode

        @staticmethod
        def as_numpy(parts):
            return parts

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", Stand)
    assert load_cifar10("jpeg") == ("train", "test", True)
    assert load_cifar10("png") == ("train", "test", False)
    assert "download" not in calls
    load_cifar10("empty")
    assert calls[-1] == "download"
    load_cifar10()
    assert calls[-1] == ("cifar10", None)


def test_a_table_without_labels_only_compares_with_nothing():
    from four_methods import format_table

    row = format_table({"KTAN": [0.5, 0.6]}, 0.7).splitlines()[-1]
    assert row == "| KTAN | 55.00% ± 7.07 | | |"
