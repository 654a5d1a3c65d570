"""What checkpoints hold, and what they refuse. Promise 9."""

import keras
import pytest
from helpers import all_values
from models import assert_same, image_data, image_model, loss_from_logits, snapshot

from keras_ktan import KTANDistiller
from keras_ktan.callbacks import StudentCheckpoint
from keras_ktan.utils.atomic_file import write_atomically


def make_distiller(teacher_seed=1, filters=24, **arguments):
    teacher = image_model(filters, "teacher", seed=teacher_seed)
    distiller = KTANDistiller(teacher, image_model(3, "student", seed=2))
    arguments = {
        "optimizer": keras.optimizers.Adam(1e-2),
        "loss": loss_from_logits(),
        "metrics": ["accuracy"],
        "run_eagerly": True,
        "adversarial_loss_weight": 0.02,
        **arguments,
    }
    distiller.compile(**arguments)
    return distiller


def networks(distiller):
    return snapshot(
        distiller.student,
        *distiller.teacher_to_student_layers,
        *distiller.discriminators,
        distiller.optimizer,
    )


def train(distiller, steps=2):
    for _ in range(steps):
        distiller.train_on_batch(*image_data(8))


@pytest.mark.parametrize("case", ["full", "no adversary", "mixed precision"])
def test_a_checkpoint_holds_all_that_is_trained_and_no_teacher(case, tmp_path):
    if case == "mixed precision":
        keras.config.set_dtype_policy("mixed_float16")
    arguments = {"adversarial_loss_weight": 0.0} if case == "no adversary" else {}
    first, second = make_distiller(**arguments), make_distiller(**arguments)
    train(first)
    path = tmp_path / "run.weights.h5"
    first.save_weights(path)
    second.load_weights(path)
    assert_same(networks(first), networks(second))
    assert int(second.step_counter) == 2
    train(first, 1)
    train(second, 1)
    assert_same(networks(first), networks(second))


def test_the_files_size_does_not_follow_the_teachers(tmp_path):
    sizes = []
    for filters in (8, 64):
        path = tmp_path / f"{filters}.weights.h5"
        distiller = make_distiller(filters=filters)
        distiller.save_weights(path)
        sizes.append(path.stat().st_size)
    # T2S mixes 64 channels in place of 8, with two slots of Adam each; the teacher's second
    # layer alone would add 64·64·9·4 bytes = 147,456.
    assert sizes[1] - sizes[0] < 20_000


@pytest.mark.parametrize("case", ["other weights", "other layers", "a student's file"])
def test_a_checkpoint_of_another_teacher_is_refused_and_changes_nothing(case, tmp_path):
    path = tmp_path / "run.weights.h5"
    first = make_distiller()
    if case == "a student's file":
        first.student.save_weights(path)
    else:
        first.save_weights(path)
    if case == "other layers":
        second = make_distiller()
        second.teacher.get_layer("features").activation = keras.activations.gelu
    else:
        second = make_distiller(teacher_seed=5 if case == "other weights" else 1)
    train(second, 1)
    before = networks(second)
    expected = "not written by" if case == "a student's file" else "another teacher|other weights"
    with pytest.raises(ValueError, match=expected):
        second.load_weights(path)
    assert_same(before, networks(second))


def test_compile_makes_no_digest_and_a_training_makes_one(tmp_path, monkeypatch):
    import keras_ktan.distiller as module

    made = []
    digest = module.teacher_digest
    monkeypatch.setattr(module, "teacher_digest", lambda model: made.append(1) or digest(model))
    distiller = make_distiller()
    assert not made
    checkpoint = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "run.weights.h5"), save_weights_only=True
    )
    distiller.fit(*image_data(8), epochs=3, callbacks=[checkpoint], verbose=0)
    assert len(made) == 1


def test_a_teacher_that_changed_between_two_trainings_gets_another_digest(tmp_path):
    distiller = make_distiller()
    distiller.save_weights(tmp_path / "run.weights.h5")
    weight = distiller.teacher.weights[0]
    weight.assign(weight + 1.0)
    distiller.fit(*image_data(8), verbose=0)
    distiller.save_weights(tmp_path / "new.weights.h5")
    distiller.load_weights(tmp_path / "new.weights.h5")
    with pytest.raises(ValueError, match="another teacher|other weights"):
        distiller.load_weights(tmp_path / "run.weights.h5")


@pytest.mark.reliability
@pytest.mark.parametrize("before", [None, b"the former file"])
def test_a_file_that_could_not_be_written_leaves_the_former_one(before, tmp_path):
    path = tmp_path / "file.bin"
    if before is not None:
        path.write_bytes(before)

    def write(beside):
        with open(beside, "wb") as file:
            file.write(b"half of it")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if before is None else [before])


@pytest.mark.slow
def test_backup_and_restore_goes_on_without_the_teacher(tmp_path):
    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def fit(distiller, *callbacks):
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
        arguments = {"batch_size": 8, "epochs": 4, "shuffle": False, "verbose": 0}
        distiller.fit(*image_data(16), callbacks=[backup, *callbacks], **arguments)

    whole = make_distiller()
    whole.fit(*image_data(16), batch_size=8, epochs=4, shuffle=False, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        fit(make_distiller(), Kill())
    resumed = make_distiller()
    fit(resumed)
    assert_same(networks(whole), networks(resumed))


def test_the_whole_distiller_is_in_its_keras_file(tmp_path):
    distiller = make_distiller()
    train(distiller)
    distiller.save(tmp_path / "d.keras")
    loaded = keras.saving.load_model(tmp_path / "d.keras")
    assert_same(snapshot(distiller.teacher), snapshot(loaded.teacher))
    assert_same(networks(distiller), networks(loaded))


class Metric(keras.callbacks.Callback):
    """Writes numbers of ours into the logs."""

    def __init__(self, values):
        super().__init__()
        self.values = values
        self.students = []

    def on_epoch_end(self, epoch, logs=None):
        logs["val_ours"] = self.values[epoch]
        self.students.append(all_values(self.model.student))


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [("max", [0.1, 0.5, 0.3], 1), ("min", [0.1, 0.5, 0.3], 0), ("min", [3.0, 2.0, 1.0], 2)],
)
def test_the_best_student_is_kept_alone(mode, values, best, tmp_path):
    distiller, metric = make_distiller(), Metric(values)
    keep = StudentCheckpoint(tmp_path / "student.keras", monitor="val_ours", mode=mode)
    distiller.fit(*image_data(8), epochs=3, callbacks=[metric, keep], verbose=0)
    student = keras.saving.load_model(tmp_path / "student.keras")
    assert type(student) is type(distiller.student)
    assert_same(all_values(student), metric.students[best])
    assert [path.name for path in tmp_path.iterdir()] == ["student.keras"]


@pytest.mark.parametrize(
    ("arguments", "model", "match"),
    [
        ({"filepath": "student.h5"}, "distiller", "ends in '.keras'"),
        ({"filepath": "s.keras", "monitor": "val_iou"}, "distiller", "val_iou.*logs.*accuracy"),
        ({"filepath": "s.keras"}, "student", "no student. Expected a KTANDistiller"),
    ],
)
def test_a_student_checkpoint_that_cannot_work_is_an_error(arguments, model, match, tmp_path):
    distiller = make_distiller()
    distiller.student.compile("sgd", loss_from_logits())
    model = distiller if model == "distiller" else distiller.student
    with pytest.raises(ValueError, match=match):
        keep = StudentCheckpoint(**{**arguments, "filepath": str(tmp_path / arguments["filepath"])})
        model.fit(*image_data(8), callbacks=[keep], verbose=0)


def test_weights_need_keras_name(tmp_path):
    with pytest.raises(ValueError, match="ends in '.weights.h5'"):
        make_distiller().save_weights(tmp_path / "run.h5")
