"""`compress`: what it does, what it refuses before the training, and what a stop leaves."""

import errno
import functools
import importlib
import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
from models import assert_same, loss_from_logits, snapshot

from keras_ktan import KTANDistiller, TeacherCache, compress, slim_student
from keras_ktan.callbacks import StudentCheckpoint
from keras_ktan.compression import epoch_log, run_folder, student_files, training
from keras_ktan.compression.method_table import method_table
from keras_ktan.compression.shuffled_batches import ShuffledBatches
from keras_ktan.export import ExportMismatchError

COUNT = 24


@pytest.fixture(autouse=True)
def few_timed_runs(monkeypatch):
    monkeypatch.setattr(
        importlib.import_module("keras_ktan.report.compression_report"), "_TIMED_RUNS", 2
    )


def make_teacher(convolutional=False, compiled=True):
    """A few numbers, or an image with one map, in; two classes out, one as often as the other."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4, 4, 1) if convolutional else (6,), name="measured")
    hidden = inputs
    for units in (8, 8):
        if convolutional:
            hidden = keras.layers.Conv2D(units, 3, padding="same", activation="relu")(hidden)
        else:
            hidden = keras.layers.Dense(units, activation="relu")(hidden)
    if convolutional:
        hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    teacher = keras.Model(inputs, keras.layers.Dense(2, name="logits")(hidden), name="teacher")
    logits = np.asarray(teacher(rows(convolutional, 100, seed=9)))
    teacher.get_layer("logits").bias.assign([0.0, np.median(logits[:, 0] - logits[:, 1])])
    if compiled:
        teacher.compile("adam", loss_from_logits(), metrics=["accuracy"])
    return teacher


def rows(convolutional, count, seed):
    shape = (count, 4, 4, 1) if convolutional else (count, 6)
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@functools.cache
def arrays(convolutional=False, count=COUNT, seed=0):
    """Inputs with the teacher's answers."""
    x = rows(convolutional, count, seed)
    if not count:
        return x, np.zeros(0, "int32")
    return x, np.argmax(make_teacher(convolutional)(x), axis=-1).astype("int32")


def run(output, convolutional=False, **changes):
    arguments = {
        "teacher": make_teacher(convolutional),
        "data": arrays(convolutional),
        "validation_data": arrays(convolutional, seed=1),
        "target": None,
        "output": output,
        "epochs": 2,
        "optimizer": keras.optimizers.Adam(0.01),
        "slim": {"width": 0.5, "divisor": 1},
        "batch_size": 8,
        "formats": (),
        "verbose": False,
    }
    return compress(**{**arguments, **changes})


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(KTANDistiller, "fit", lambda *_, **__: pytest.fail("a training began"))


@pytest.mark.slow
def test_its_steps_written_out_give_the_same_student(tmp_path):
    by_target = {"target": {"macs": 0.6}, "slim": {"divisor": 1}}
    found = run(tmp_path / "run", convolutional=True, **by_target)

    teacher, validation = make_teacher(True), arrays(True, seed=1)
    student = slim_student(teacher, target={"macs": 0.6}, divisor=1)
    keras.utils.set_random_seed(0)
    distiller = KTANDistiller(teacher, student)
    distiller.compile(keras.optimizers.Adam(0.01), loss_from_logits(), metrics=["accuracy"])
    path = tmp_path / "by_hand.keras"
    history = distiller.fit(
        ShuffledBatches(arrays(True), 8, seed=0),
        epochs=2,
        validation_data=validation,
        shuffle=False,
        verbose=0,
        callbacks=[StudentCheckpoint(path, "val_accuracy", "max")],
    )
    student.load_weights(path)
    assert "feature_loss" in history.history
    assert_same(snapshot(found.student), snapshot(student))
    assert_same(snapshot(found.student), snapshot(keras.saving.load_model(found.paths["student"])))


def test_the_best_epoch_is_kept_and_the_report_is_on_the_test_data(tmp_path):
    # A giant step in the second epoch: three steps an epoch.
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([2], [1e-3, 30.0])
    test = arrays(count=40, seed=2)
    found = run(
        tmp_path,
        epochs=2,
        optimizer=keras.optimizers.SGD(rate),
        monitor="val_loss",
        test_data=test,
    )
    method = found.methods["KTAN"]
    losses = [logs["val_loss"] for logs in method["history"]]
    assert losses[0] < losses[1]
    assert (method["best_epoch"], method["best"]) == (1, losses[0])
    logits = found.student.predict(arrays(seed=1)[0], verbose=0)
    expected = float(loss_from_logits()(arrays(seed=1)[1], logits))
    assert losses[0] == pytest.approx(expected, rel=1e-5)
    answers = np.argmax(found.student.predict(test[0], verbose=0), axis=-1)
    accuracy = float(np.mean(answers == test[1]))
    assert found.report.examples == 40
    assert found.report.qualities["student"].accuracy == pytest.approx(accuracy)
    assert method["test"]["accuracy"] == pytest.approx(accuracy)
    written = json.loads(found.paths["report.json"].read_text())
    assert written["student"]["macs"] == found.report.student.macs
    assert written["methods"]["KTAN"]["best_epoch"] == 1
    text = found.paths["report.md"].read_text()
    assert "Measured on 40 examples of `test_data`." in text
    assert f"| KTAN | 1 of 2 | {losses[0]:.4f} |" in text


@pytest.mark.slow
def test_methods_are_compared_from_the_same_weights_on_the_same_batches(tmp_path):
    found = run(
        tmp_path, convolutional=True, compare=True, epochs=1, optimizer=keras.optimizers.SGD(0.0)
    )
    histories = {name: method["history"][0] for name, method in found.methods.items()}
    assert list(histories) == ["KTAN", "logit_distillation", "supervised"]
    # Weights that stand still: the same first weights and batches give the same labelled loss.
    losses = [history["student_loss"] for history in histories.values()]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    assert "feature_loss" in histories["KTAN"]
    assert "feature_loss" not in histories["logit_distillation"]
    assert "logits_loss" in histories["logit_distillation"]
    assert "logits_loss" not in histories["supervised"]


def stop_after(monkeypatch, epochs):
    """End the process, as far as a test can, when so many epochs are written down."""
    record, seen = run_folder.RunFolder.record_epoch, []

    def record_and_stop(self, method, epoch, logs):
        record(self, method, epoch, logs)
        seen.append((method, epoch))
        if len(seen) == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(run_folder.RunFolder, "record_epoch", record_and_stop)
    return seen


@pytest.mark.parametrize(
    "epochs", [pytest.param(1, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_stopped_run_goes_on_where_it_stood(epochs, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", compare=True)
    seen = stop_after(monkeypatch, epochs)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", compare=True)
    found = run(tmp_path / "stopped", compare=True)
    # An epoch that was written down but not backed up is trained again, no other one.
    methods = ["KTAN", "KTAN", "logit_distillation", "logit_distillation"] + ["supervised"] * 2
    expected = list(zip(methods, [0, 1] * 3, strict=True))
    assert seen == expected[:epochs] + expected[epochs - 1 :]
    assert_same(snapshot(found.student), snapshot(whole.student))
    assert found.methods == whole.methods
    assert not list((tmp_path / "stopped").glob("*.backup*"))


def test_a_finished_run_is_not_done_again(tmp_path, monkeypatch):
    first = run(tmp_path)
    monkeypatch.setattr(KTANDistiller, "fit", lambda *_, **__: pytest.fail("trained again"))
    again = run(tmp_path)
    assert_same(snapshot(first.student), snapshot(again.student))
    assert first.methods == again.methods
    with pytest.raises(ValueError, match="other settings.*epochs: 2 there, 3 here"):
        run(tmp_path, epochs=3)
    with pytest.raises(ValueError, match="other settings.*data: "):
        run(tmp_path, data=arrays(seed=5))


def test_a_mistake_may_be_put_right_before_an_epoch_is_finished(tmp_path):
    with pytest.raises(ValueError, match="Expected one of .*val_accuracy"):
        run(tmp_path, monitor="val_acuracy")
    assert run(tmp_path, monitor="val_accuracy", epochs=1).methods["KTAN"]["best_epoch"] == 1


def by_size(measure, number):
    return {"target": {measure: number}, "slim": {"divisor": 1}}


def unbuilt():
    return keras.Sequential([keras.layers.Dense(2)])


def endless():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays()).batch(8).repeat()


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return arrays()


class Batches(keras.utils.PyDataset):
    """One batch, from a function."""

    def __init__(self, make):
        super().__init__()
        self._make = make

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self._make()


def batches():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays()).batch(8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda: {"teacher": unbuilt()}, "teacher that is not built"),
        (lambda: {"teacher": "teacher.keras"}, "Received a teacher str"),
        (lambda: {"teacher": make_teacher(compiled=False)}, "compiled without one.*Pass `loss="),
        (lambda: by_size("macs", 10_000), "which has 128 macs. Expected less"),
        (lambda: by_size("parameters", 1.0), "which has 146 parameters. Expected less"),
        (lambda: by_size("macs", 0.01), "the narrowest student of 'teacher' has 9"),
        (lambda: {"slim": None}, "Received target=None and slim=None. Expected a `target`"),
        (lambda: {"target": {"macs": 0.5}}, "and not both"),
        (lambda: {"slim": {"target": {}}}, "'target'. in `slim`"),
        (lambda: {"student": make_teacher()}, "with a `student`"),
        (lambda: {"data": iter([arrays()])}, "which can be read only once"),
        (lambda: {"data": endless(), "batch_size": None}, "data without an end"),
        (lambda: {"validation_data": Endless()}, "validation_data without an end.*__len__"),
        (lambda: {"data": batches()}, "batch_size=8 with `data`.*Leave it out"),
        (lambda: {"data": (arrays()[0], arrays()[1][:-1])}, r"\[23, 24\] examples"),
        (lambda: {"data": (arrays()[0],)}, "a tuple of 1"),
        (lambda: {"data": arrays(count=0)}, r"\[0\] examples"),
        (lambda: {"data": batches().take(0), "batch_size": None}, "data without a batch"),
        (lambda: {"data": batches().map(lambda x, y: x)}, "data without labels"),
        (lambda: {"validation_data": Batches(lambda: arrays()[:1])}, "_data without labels"),
        (lambda: {"validation_data": iter([])}, "validation_data of type list_iterator"),
        (lambda: {"validation_data": arrays()[0]}, "validation_data of type ndarray"),
        (lambda: {"formats": ("tflite",)}, r"Received formats=\['tflite'\]"),
        (lambda: {"export": {"softmax": True}}, r"Received \['softmax'\] in `export`"),
        (lambda: {"export": {"input_dtype": "int8"}}, "which do not use it"),
        (lambda: {"calibration_data": arrays()[0]}, "which do not use it"),
        (lambda: {"monitor": "val_auc"}, "Expected one of .*'val_accuracy'"),
        (lambda: {"epochs": 0}, "Received epochs=0"),
        (lambda: {"mode": "largest"}, "Received mode='largest'"),
        (lambda: {"verbose": 2}, "Received verbose=2. Expected True or False"),
    ],
)
def test_what_is_wrong_is_said_before_the_training(changes, message, tmp_path, no_training):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", **changes())


def filled_cache(folder, convolutional=False, teacher=None, **arguments):
    cache = TeacherCache(teacher or make_teacher(convolutional), folder, **arguments)
    cache.fill(arrays(convolutional)[0], verbose=0)
    return cache


@pytest.mark.slow
def test_data_may_come_from_a_cache(tmp_path):
    """All examples in one batch: the order, which a cache draws itself, does not matter."""
    cache = filled_cache(tmp_path / "cache")
    options = {"optimizer": keras.optimizers.SGD(0.1), "epochs": 2}
    plain = run(tmp_path / "plain", batch_size=COUNT, **options)

    def from_cache(seed):
        data = cache.dataset(*arrays(), batch_size=COUNT, seed=seed)
        return run(tmp_path / "cached", data=data, batch_size=None, **options)

    found = from_cache(seed=0)
    for one, other in zip(found.student.weights, plain.student.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-6)
    names = sorted(found.methods["KTAN"]["history"][0])
    assert names == sorted(plain.methods["KTAN"]["history"][0]) and "logits_loss" in names
    with pytest.raises(ValueError, match="other settings.*data: "):
        from_cache(seed=1)


def shifted_teacher():
    teacher = make_teacher(True)
    teacher.set_weights([weight + 1 for weight in teacher.get_weights()])
    return teacher


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda cached, cache: {"data": cache}, r"Pass `cache.dataset\(images, labels\)`"),
        (lambda cached, cache: {"test_data": cache}, r"Pass `\(images, labels\)`"),
        (lambda cached, cache: {"validation_data": cached}, "as validation_data.*alone uses"),
        (lambda cached, cache: {"data": cache.dataset(arrays(True)[0])}, "data without labels"),
        (lambda cached, cache: {"data": cached}, r"lacks the maps.*or from .*`layer_names=\['"),
        (
            lambda cached, cache: {"data": cached, "formats": ["int8"]},
            r"no `calibration_data` for .*Pass `calibration_data=images\[:512\]`",
        ),
        (
            lambda cached, cache: {"calibration_data": cached, "formats": ["int8"]},
            r"as `calibration_data` for .*Pass `calibration_data=images\[:512\]`",
        ),
    ],
)
def test_what_a_cache_is_not_for_is_said_before_the_training(
    changes, message, tmp_path, no_training
):
    cache = filled_cache(tmp_path / "cache", convolutional=True)
    options = changes(cache.dataset(*arrays(True)), cache)
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", True, **{"batch_size": None, **options})


def test_a_cache_of_another_teacher_is_refused_before_the_training(tmp_path, no_training):
    cache = filled_cache(tmp_path / "cache", convolutional=True, teacher=shifted_teacher())
    with pytest.raises(ValueError, match="filled by a teacher with other weights"):
        run(tmp_path / "run", True, data=cache.dataset(*arrays(True)), batch_size=None)


def test_calibration_data_of_the_wrong_shape_are_refused(tmp_path, no_training, monkeypatch):
    monkeypatch.setattr("keras_ktan.export.preparation.require_packages", lambda format: None)
    with pytest.raises(ValueError, match=r"calibration_data of shape \(9, 5\).*\(None, 6\)"):
        run(tmp_path, formats=("int8",), calibration_data=np.ones((9, 5), "float32"))


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, no_training):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds \['notes.txt'\] and no run"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match="which is a file"):
        run(tmp_path / "notes.txt")
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ValueError, match="state.json cannot be read"):
        run(tmp_path)


def test_a_disk_without_room_is_said_before_the_training(tmp_path, no_training, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="0.0 MB left") as caught:
        run(tmp_path)
    assert caught.value.errno == errno.ENOSPC


# What is written: the settings, the first epoch, the second one, that the method is trained.
@pytest.mark.slow
@pytest.mark.parametrize(("which", "epochs_again"), [(3, 1), (4, 0)])
def test_a_disk_that_is_full_later_loses_nothing(which, epochs_again, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    write, calls = run_folder.write_atomically, []

    def full(path, how):
        calls.append(path)
        if len(calls) == which:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, how)

    with monkeypatch.context() as context:
        context.setattr(run_folder, "write_atomically", full)
        with pytest.raises(OSError, match="No space left"):
            run(tmp_path / "full")
    kept = keras.saving.load_model(tmp_path / "full" / "student.keras")
    assert kept.predict(arrays()[0], verbose=0).shape == (COUNT, 2)
    seen = stop_after(monkeypatch, None)
    found = run(tmp_path / "full")
    assert len(seen) == epochs_again
    assert_same(snapshot(found.student), snapshot(whole.student))
    assert found.methods == whole.methods


@pytest.mark.parametrize("which", ["data", "validation_data"])
def test_a_data_set_that_ends_early_is_an_error_that_keeps_the_student(which, tmp_path):
    import tensorflow as tf

    passes = []

    def rows():
        passes.append(None)
        # The report and the look at the metrics read validation data three times before.
        whole = len(passes) <= (1 if which == "data" else 3)
        yield from zip(*(part[: COUNT if whole else 8] for part in arrays()), strict=True)

    signature = (tf.TensorSpec((6,), "float32"), tf.TensorSpec((), "int32"))
    short = tf.data.Dataset.from_generator(rows, output_signature=signature).batch(8)
    changes = {which: short, "batch_size": None if which == "data" else 8}
    with pytest.raises(ValueError, match=f"fewer batches of `{which}` in epoch 2"):
        run(tmp_path, epochs=3, **changes)
    history = json.loads((tmp_path / "state.json").read_text())["methods"]["KTAN"]["history"]
    assert len(history) == 1
    assert keras.saving.load_model(tmp_path / "student.keras").name == "slim_teacher"


@pytest.mark.slow
def test_an_export_that_fails_keeps_the_student_and_the_report(tmp_path, monkeypatch):
    def fail(student, path, **arguments):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(student_files, "export_student", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        run(tmp_path, formats=("tf_saved_model",))
    (note,) = caught.value.__notes__
    assert "Exports that failed: tf_saved_model." in note
    assert "| accuracy |" in (tmp_path / "report.md").read_text()
    monkeypatch.setattr(KTANDistiller, "fit", lambda *_, **__: pytest.fail("trained again"))
    found = run(tmp_path)
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    assert_same(snapshot(found.student), snapshot(loaded))


# Files and processes for each: the story of the traffic signs writes, checks and reports them, too.
@pytest.mark.long
@pytest.mark.graph
def test_the_files_are_written_checked_and_reported(tmp_path, capsys):
    for package in ("ai_edge_litert", "tensorflow"):
        pytest.importorskip(package, reason="extra: export")
    options = {"epochs": 1, "verbose": True}
    # An export that agrees with the student to the bit: no int8 does.
    with pytest.raises(ExportMismatchError, match="student_int8.tflite.failed"):
        run(tmp_path, formats=("int8",), export={"tolerance": 0.0}, **options)
    options["export"] = {"agreement": 0.5}
    found = run(tmp_path, formats=("tf_saved_model", "int8"), **options)
    assert "KTAN: trained already" in capsys.readouterr().out
    assert (found.paths["tf_saved_model"] / "saved_model.pb").exists()
    assert found.paths["int8"].name == "student_int8.tflite"
    names = [file.name for file in found.report.files]
    assert names == ["saved_model/", "student_int8.tflite"]
    qualities = found.report.qualities
    assert qualities["saved_model/"].accuracy == qualities["student"].accuracy
    before = found.paths["int8"].stat().st_mtime_ns
    run(tmp_path, formats=("int8",), **options)
    assert found.paths["int8"].stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_student_of_your_own(tmp_path, monkeypatch):
    def student():
        layers = [keras.layers.Dense(3, activation="relu"), keras.layers.Dense(2)]
        return keras.Sequential([keras.Input((6,)), *layers], name="own")

    own = {"target": None, "slim": None}
    whole = student()
    run(tmp_path / "whole", student=whole, **own)
    other = student()
    other.set_weights([weight + 1 for weight in other.get_weights()])
    seen = stop_after(monkeypatch, 1)
    first = student()
    first.set_weights(keras.saving.load_model(tmp_path / "whole" / "student.keras").get_weights())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", student=first, **own)
    # Built anew it has other weights; those of the first call count.
    found = run(tmp_path / "stopped", student=other, **own)
    assert found.student is other and len(seen) == 3
    with pytest.raises(ValueError, match="student: "):
        run(tmp_path / "stopped", student=make_teacher(), **own)


def test_how_long_it_takes_is_told_without_the_first_epoch(monkeypatch):
    class Folder:
        logs = []

        def record_epoch(self, method, epoch, logs):
            self.logs.append(logs)

        def history(self, method):
            return self.logs

    # The first epoch, which compiles, takes 100 s, and the next two take 10 s and 20 s.
    clock = iter([0.0, 100.0, 110.0, 130.0])
    monkeypatch.setattr(epoch_log.time, "monotonic", lambda: next(clock))
    said = []
    log = epoch_log.EpochLog(Folder(), "KTAN", "val_loss", "min", said.append)
    log.set_params({"epochs": 5})
    log.on_train_begin()
    for epoch, loss in enumerate([0.5, 0.25, 0.75]):
        log.on_epoch_end(epoch, {"val_loss": loss})
    assert said == [
        "    epoch 1/5: val_loss 0.5000 (best 0.5000, epoch 1), about 400 s left",
        "    epoch 2/5: val_loss 0.2500 (best 0.2500, epoch 2), about 30 s left",
        "    epoch 3/5: val_loss 0.7500 (best 0.2500, epoch 2), about 30 s left",
    ]


def test_the_methods_are_a_table():
    found = {"monitor": "val_loss", "test": {"loss": 2.0}, "history": [{}] * 12}
    methods = {
        "KTAN": {**found, "best_epoch": 3, "best": 0.5},
        "logit_distillation": {**found, "best_epoch": 10, "best": 0.25},
    }
    assert method_table(methods, markdown=False).splitlines() == [
        "method              best epoch  val_loss  test loss",
        "KTAN                   3 of 12    0.5000     2.0000",
        "logit distillation    10 of 12    0.2500     2.0000",
    ]
    assert method_table(methods).splitlines()[-1] == (
        "| logit distillation | 10 of 12 | 0.2500 | 2.0000 |"
    )


def test_batches_are_shuffled_by_seed_and_epoch():
    x, y = np.arange(10), np.arange(10) * 2

    def order(seed, epoch):
        data = ShuffledBatches((x, y), 4, seed)
        data.begin_epoch(epoch)
        parts = [data[index] for index in range(len(data))]
        assert [len(part[0]) for part in parts] == [4, 4, 2]
        rows = np.concatenate([part[0] for part in parts])
        np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), rows * 2)
        return rows.tolist()

    assert order(0, 3) == order(0, 3)
    assert sorted(order(0, 3)) == list(range(10))
    assert order(0, 3) != order(0, 4) and order(0, 3) != order(1, 3)


@pytest.mark.parametrize(
    ("monitor", "mode"), [("val_accuracy", "max"), ("val_loss", "min"), ("val_mean_iou", "max")]
)
def test_a_name_says_which_epoch_is_better(monitor, mode):
    assert training._mode_of(monitor) == mode
    with pytest.raises(ValueError, match="mode='min' or mode='max'"):
        training._mode_of("val_score")


def test_a_wrongly_fed_teacher_is_told_before_the_training(tmp_path, monkeypatch):
    def stop(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(KTANDistiller, "fit", stop)
    x, y = arrays(count=40, seed=1)
    with (
        pytest.warns(UserWarning, match="The teacher answers") as caught,
        pytest.raises(KeyboardInterrupt),
    ):
        run(tmp_path, validation_data=(x, 1 - y))
    files = [warning.filename for warning in caught if "The teacher" in str(warning.message)]
    assert files == [__file__]


def test_paths_are_where_the_result_says_and_nothing_is_printed(tmp_path, capfd):
    found = run(tmp_path, epochs=1, verbose=0, **by_size("macs", 0.6))
    assert capfd.readouterr() == ("", "")
    assert all(isinstance(path, pathlib.Path) and path.exists() for path in found.paths.values())
