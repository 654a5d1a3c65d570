"""Promise 9: a run that is killed anywhere ends as one that was not."""

import functools

import keras
import numpy as np
import pytest
from helpers import assert_three_parts
from models import assert_changed, assert_same, loss_from_logits
from resumable_training import (
    BATCH,
    EPOCHS,
    STEPS,
    Stop,
    arrays,
    backup_in,
    everything,
    make_distiller,
    train,
)

from keras_ktan import TeacherCache
from keras_ktan.callbacks import ResumableBackup


def stop(folder, epoch, batch, distiller=None, **arguments):
    """A run that ends while a batch is being trained on: the file stands before it."""
    with pytest.raises(KeyboardInterrupt):
        train(distiller or make_distiller(), backup_in(folder), Stop(epoch, batch), **arguments)


class Whole:
    """What a run that nothing stops ends with."""

    def __init__(self, distiller, history):
        self.state = everything(distiller)
        self.logs = history.history
        self.names = [layer.name for layer in distiller.student.layers]


@functools.cache
def whole_run():
    distiller = make_distiller()
    return Whole(distiller, train(distiller))


@pytest.fixture
def whole():
    # Once, but inside of a test, where steps run eagerly.
    return whole_run()


def assert_ends_alike(whole, resumed):
    expected = whole.state if isinstance(whole, Whole) else everything(whole)
    assert_same(expected, everything(resumed))


@pytest.mark.slow
@pytest.mark.reliability
def test_stopped_at_every_step_it_ends_as_one_that_was_not(tmp_path, whole):
    for step in range(EPOCHS * STEPS):
        stop(tmp_path, *divmod(step, STEPS))
    resumed = make_distiller()
    history = train(resumed, backup_in(tmp_path))
    assert_ends_alike(whole, resumed)
    # The last start left two batches of the last epoch out; its logs are of all three.
    assert history.epoch == [EPOCHS - 1]
    for name, values in history.history.items():
        np.testing.assert_allclose(values, whole.logs[name][-1:], rtol=1e-5, err_msg=name)


class EpochData(keras.utils.PyDataset):
    """Other rows in each epoch, which follow from its number alone."""

    def begin_epoch(self, epoch):
        self.rows = arrays(epoch)

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        return tuple(part[BATCH * index : BATCH * (index + 1)] for part in self.rows)


def cached_data(distiller, folder):
    rows, labels = arrays()
    # The mirrored view makes the epochs unlike.
    cache = TeacherCache(distiller, folder, views={"plain": lambda x: x, "mirror": lambda x: -x})
    cache.fill(rows, verbose=0)
    return cache.dataset(rows, labels, BATCH, seed=3)


def tensorflow_data():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays()).batch(BATCH)


@pytest.mark.promise(9)
def test_stopped_within_an_epoch_it_ends_as_one_that_was_not(tmp_path, whole):
    stop(tmp_path, 1, 1)
    resumed = make_distiller()
    history = train(resumed, backup_in(tmp_path))
    assert_ends_alike(whole, resumed)
    for name, values in history.history.items():
        np.testing.assert_allclose(values, whole.logs[name][1:], rtol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["function of the epoch", "cache", "tf.data"])
def test_any_data_that_follow_from_the_epoch(kind, tmp_path):
    ordered = True if kind == "tf.data" else None

    def run(*callbacks):
        distiller = make_distiller()
        if kind == "cache":
            data = cached_data(distiller, tmp_path / "cache")
        else:
            data = EpochData() if kind == "function of the epoch" else tensorflow_data()
        try:
            train(distiller, *callbacks, data=data)
        except KeyboardInterrupt:
            return None
        return distiller

    whole = run()
    assert run(backup_in(tmp_path, ordered=ordered), Stop(1, 1)) is None
    assert_ends_alike(whole, run(backup_in(tmp_path, ordered=ordered)))


@pytest.mark.long
@pytest.mark.graph
def test_also_compiled_and_with_several_steps_in_one_call(tmp_path):
    def distiller():
        return make_distiller(steps_per_execution=2)

    whole = distiller()
    logs = train(whole).history
    with pytest.raises(KeyboardInterrupt):
        train(distiller(), backup_in(tmp_path), Stop(1, 3))
    resumed = distiller()
    history = train(resumed, backup_in(tmp_path)).history
    assert_ends_alike(whole, resumed)
    np.testing.assert_allclose(history["accuracy"], logs["accuracy"][-1:])
    stop(tmp_path, 1, 3, distiller())
    with pytest.raises(ValueError, match="after batch 2 of 3.*3 in a call.*that divides 2"):
        train(make_distiller(steps_per_execution=3), backup_in(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shuffled arrays", "steps_per_epoch", "tf.data"])
def test_other_data_go_on_at_an_epochs_end_and_a_line_says_so(kind, tmp_path):
    arguments = {
        "shuffled arrays": {"shuffle": True},
        "steps_per_epoch": {"steps_per_epoch": STEPS},
        "tf.data": {"data": tensorflow_data()},
    }[kind]
    with pytest.warns(UserWarning, match="is not repeated after a restart.*ends of epochs only"):
        stop(tmp_path, 1, 2, **arguments)
    resumed = make_distiller()
    with pytest.warns(UserWarning, match="is not repeated"):
        history = train(resumed, ResumableBackup(tmp_path / "run.backup"), **arguments)
    assert history.epoch == [1]
    # One epoch before, a whole one after: nothing twice, nothing left out.
    assert int(resumed.step_counter) == EPOCHS * STEPS


def test_a_generator_cannot_be_called_ordered(tmp_path):
    batches = (arrays() for _ in range(9))
    with pytest.raises(ValueError) as error:
        train(make_distiller(), backup_in(tmp_path, ordered=True), data=batches, steps_per_epoch=1)
    assert_three_parts(error.value, "ordered=True", "Expected data", "shuffle=False")


@pytest.mark.slow
@pytest.mark.reliability
@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "missing"])
def test_a_damaged_file_is_said_and_the_one_before_it_is_used(damage, tmp_path, whole):
    stop(tmp_path, 1, 1)
    path = tmp_path / "run.backup"
    content = path.read_bytes()
    if damage == "missing":  # killed between two renames
        path.unlink()
    else:
        changed = content[:200] + bytes([content[200] ^ 1]) + content[201:]
        path.write_bytes({"cut": content[:-1], "changed": changed, "empty": b""}[damage])
    resumed = make_distiller()
    if damage == "missing":
        history = train(resumed, backup_in(tmp_path))
    else:
        with pytest.warns(UserWarning, match="damaged.*the one before.*epoch 2, batch 1"):
            history = train(resumed, backup_in(tmp_path))
    assert history.epoch == [1]
    assert_ends_alike(whole, resumed)


@pytest.mark.reliability
def test_where_none_is_whole_nothing_is_trained_and_no_file_is_touched(tmp_path):
    stop(tmp_path, 0, 1)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    contents = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(contents) == 2
    distiller = make_distiller()
    before = everything(distiller)
    with pytest.raises(ValueError) as error:
        train(distiller, backup_in(tmp_path))
    assert_three_parts(error.value, "run.backup.previous", "Expected what", "delete these files")
    assert_same(before, everything(distiller))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == contents


def test_a_file_that_is_no_backup_stays_what_it_is(tmp_path):
    (tmp_path / "run.backup").write_text("my notes")
    with pytest.raises(ValueError, match="does not begin as such a file does"):
        train(make_distiller(), backup_in(tmp_path))
    assert (tmp_path / "run.backup").read_text() == "my notes"


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("the teacher", {"teacher_seed": 7}),
        ("the variables", {"units": 5}),
        ("`optimizer`", {"optimizer": keras.optimizers.Adam(1e-3)}),
        ("`loss`", {"loss": "sparse_categorical_crossentropy", "logits_loss_weight": 0.0}),
        ("`feature_loss_weight`", {"feature_loss_weight": 2.0}),
    ],
)
def test_a_backup_of_another_training_is_refused(part, changed, tmp_path):
    if "loss" in changed:
        changed["loss"] = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=1
        )
        del changed["logits_loss_weight"]
    stop(tmp_path, 0, 1)
    other = make_distiller(**changed)
    before = everything(other)
    with pytest.raises(ValueError) as error:
        train(other, backup_in(tmp_path))
    assert_three_parts(error.value, f"{part}:", "Expected the teacher", "delete the file")
    assert_same(before, everything(other))


@pytest.mark.slow
def test_the_names_that_keras_counts_up_do_not_matter(tmp_path, whole):
    stop(tmp_path, 0, 1)
    for _ in range(3):
        keras.layers.Dropout(0.5), keras.layers.BatchNormalization()
    resumed = make_distiller()
    assert [layer.name for layer in resumed.student.layers] != whole.names
    train(resumed, backup_in(tmp_path))
    assert_ends_alike(whole, resumed)


def test_other_data_within_an_epoch_are_refused(tmp_path):
    stop(tmp_path, 1, 1)
    with pytest.raises(ValueError, match="after batch 1 of 3.*Received 5 batches"):
        train(make_distiller(), backup_in(tmp_path), batch_size=2)
    with pytest.raises(ValueError, match="after batch 1 of epoch 2, but `shuffle=True`"):
        train(make_distiller(), backup_in(tmp_path), shuffle=True)


@pytest.mark.slow
def test_what_another_callback_does_at_an_epochs_end_is_kept(tmp_path):
    def halve():
        return keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)

    class HalveAtTheEnd(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.learning_rate = self.model.optimizer.learning_rate / 2

    whole = make_distiller()
    train(whole, halve(), HalveAtTheEnd())
    with pytest.raises(KeyboardInterrupt):
        train(make_distiller(), backup_in(tmp_path), halve(), HalveAtTheEnd(), Stop(1, 1))
    resumed = make_distiller()
    # The backup stands first in the list. LearningRateScheduler acts once more in epoch 2.
    train(resumed, backup_in(tmp_path), halve(), HalveAtTheEnd())
    np.testing.assert_allclose(float(resumed.optimizer.learning_rate), 1e-2 / 16, rtol=1e-6)
    assert_ends_alike(whole, resumed)


def test_a_training_that_a_callback_ended_is_not_taken_up_again(tmp_path):
    class Enough(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    first = make_distiller()
    train(first, backup_in(tmp_path, delete_checkpoint=False), Enough(), epochs=5)
    second = make_distiller()
    history = train(second, backup_in(tmp_path), Enough(), epochs=5)
    assert history.epoch == []
    assert_ends_alike(first, second)


def test_the_files_go_when_fit_ends_unless_they_are_to_stay(tmp_path):
    first = make_distiller()
    train(first, backup_in(tmp_path, delete_checkpoint=False))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "run.backup",
        "run.backup.previous",
    ]
    (tmp_path / ".01234567.run.backup").write_text("half of it")  # what a kill leaves
    second = make_distiller()
    history = train(second, backup_in(tmp_path), epochs=EPOCHS)
    assert history.epoch == []
    assert_ends_alike(first, second)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.reliability
def test_a_full_disk_is_found_before_the_first_step_and_ends_no_training(
    tmp_path, monkeypatch, whole
):
    writes = []

    def write_state(path, *arguments):
        writes.append(path)
        if len(writes) in full:
            raise OSError(28, "No space left on device")
        write(path, *arguments)

    from keras_ktan.callbacks import backup_files

    write = backup_files.write_state
    monkeypatch.setattr(backup_files, "write_state", write_state)
    full, distiller = {1}, make_distiller()
    before = everything(distiller)
    with pytest.raises(OSError, match="No space left"):
        train(distiller, backup_in(tmp_path))
    assert_same(before, everything(distiller))
    # Start, two batches, epoch, two batches, epoch.
    writes.clear()
    full = {3}
    with pytest.warns(UserWarning, match="epoch 1, batch 3, could not be written.*No space"):
        train(distiller, backup_in(tmp_path))
    assert len(writes) == 1 + EPOCHS * STEPS
    assert_ends_alike(whole, distiller)


def test_a_fit_that_was_interrupted_while_batches_were_left_out_can_be_called_again(tmp_path):
    stop(tmp_path, 0, 2)
    distiller = make_distiller()
    stop(tmp_path, 0, 0, distiller)  # the first of the two that are left out
    assert int(distiller.step_counter) == 2
    train(distiller, epochs=1)
    assert int(distiller.step_counter) == 2 + STEPS


def test_a_plain_model_is_refused(tmp_path):
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    plain.compile("sgd", loss_from_logits())
    before = everything(plain)
    with pytest.raises(ValueError) as error:
        plain.fit(*arrays(), callbacks=[backup_in(tmp_path)], verbose=0)
    assert_three_parts(error.value, "ResumableBackup", "Expected `KTANDistiller.fit`", "BackupAnd")
    assert_same(before, everything(plain))


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"filepath": ""}, "filepath=''"),
        ({"filepath": "gs://bucket/run"}, "gs://"),
        ({"save_freq": 0}, "save_freq=0"),
        ({"save_freq": "batch"}, "save_freq='batch'"),
        ({"ordered": False}, "ordered=False"),
    ],
)
def test_bad_arguments(arguments, received):
    with pytest.raises(ValueError) as error:
        ResumableBackup(**{"filepath": "run.backup", **arguments})
    assert_three_parts(error.value, received, "Expected", "")


def test_callbacks_that_cannot_work_together(tmp_path):
    backups = [backup_in(tmp_path), backup_in(tmp_path)]
    with pytest.raises(ValueError, match="Received 2 callbacks.*at most one"):
        train(make_distiller(), *backups)
    keras_own = keras.callbacks.BackupAndRestore(tmp_path / "keras")
    with pytest.raises(ValueError, match="BackupAndRestore beside a ResumableBackup"):
        train(make_distiller(), backup_in(tmp_path), keras_own)
    with pytest.raises(ValueError, match="swap_on_epoch=True"):
        train(make_distiller(), backup_in(tmp_path), keras.callbacks.SwapEMAWeights(True))


def test_the_initial_weights_are_kept_too(tmp_path):
    # Nobody has to set a seed: the first file is written before the first step.
    first = make_distiller()
    start = everything(first)
    stop(tmp_path, 0, 0, first)
    assert_changed(start, everything(first))
    other = make_distiller()
    other.student.get_layer("features").kernel.assign(np.ones((3, 4)))
    restored = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: restored.append(everything(other))
    )
    train(other, note, backup_in(tmp_path), epochs=1)
    assert_same(start, restored[0])
