"""Promise 12: a NaN or infinite loss stops the run, named; the last good student is kept."""

import keras
import numpy as np
import pytest
from helpers import assert_three_parts
from models import assert_changed, assert_same, loss_from_logits, snapshot

from keras_ktan import FeaturePair, KTANDistiller, TeacherToStudent
from keras_ktan.callbacks import DivergenceGuard

COUNT = 16  # two steps of eight in an epoch
BAD_STEP = 3  # the first step of the second epoch


def model(units, name, batch_norm=False):
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(units, name="hidden")(inputs)
    if batch_norm:
        hidden = keras.layers.BatchNormalization(name="norm")(hidden)
    hidden = keras.layers.ReLU(name="features")(hidden)
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(hidden), name=name)


def data():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(COUNT, 3)).astype("float32")
    return images, generator.integers(0, 2, COUNT).astype("int32")


def make_distiller(batch_norm=False, divergence_guard=True, **compiled):
    keras.utils.set_random_seed(0)
    distiller = KTANDistiller(
        model(8, "teacher"),
        model(4, "student", batch_norm),
        FeaturePair(
            "features", "features", teacher_to_student=TeacherToStudent(objective="reconstruction")
        ),
        divergence_guard=divergence_guard,
    )
    distiller.compile(
        **{
            "optimizer": keras.optimizers.Adam(1e-2),
            "loss": loss_from_logits(),
            "jit_compile": False,
            "adversarial_loss_weight": 0.02,
            **compiled,
        }
    )
    return distiller


def fit(distiller, epochs=2, **arguments):
    images, labels = data()
    return distiller.fit(
        images, labels, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **arguments
    )


def spoiled(distiller, value, bad):
    """A tensor, at one step of the student's optimizer made something else."""
    at = keras.ops.equal(keras.ops.cast(distiller.optimizer.iterations, "int32"), BAD_STEP - 1)
    return keras.ops.where(at, keras.ops.cast(bad, value.dtype), value)


def spoil(distiller, term, bad):
    """Make one term bad at one step; what it does to the weights is left to it."""
    objectives = distiller.objectives
    if term == "student_loss":
        student_loss = distiller.student_loss
        distiller.student_loss = lambda *a, **k: spoiled(distiller, student_loss(*a, **k), bad)
    elif term == "t2s_loss":
        project = objectives.project_features

        def project_features(*arguments):
            targets, losses = project(*arguments)
            return targets, {term: spoiled(distiller, losses[term], bad)}

        objectives.project_features = project_features
    elif term == "discriminator_loss":
        forward = objectives.discriminator_forward

        def spoiled_logits(*arguments):
            return [(spoiled(distiller, real, bad), fake) for real, fake in forward(*arguments)]

        objectives.discriminator_forward = spoiled_logits
    elif term == "loss":
        total = objectives.weighted_sum
        objectives.weighted_sum = lambda *a: spoiled(distiller, total(*a), bad)
    else:
        name = term.removesuffix("_loss")
        distil = objectives.distillation_terms

        def distillation_terms(*arguments):
            terms = distil(*arguments)
            return {**terms, name: spoiled(distiller, terms[name], bad)}

        objectives.distillation_terms = distillation_terms


TERMS = (
    "student_loss",
    "logits_loss",
    "feature_loss",
    "adversarial_loss",
    "t2s_loss",
    "discriminator_loss",
    "loss",
)


def assert_equal_states(expected, found):
    """To round-off: a term that passes through one more operation is summed in another order."""
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-8)


def assert_stopped(distiller, term, recorders=()):
    ended = []
    recorder = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ended.append(epoch))
    with pytest.raises(FloatingPointError) as error:
        fit(distiller, callbacks=[recorder, *recorders])
    assert_three_parts(error.value, f"'{term}'", "Expected finite", "smaller learning rate")
    others = {f"'{name}'" for name in TERMS} - {f"'{term}'", "'loss'"}
    assert not [name for name in others if name in str(error.value)]
    assert f"in step {BAD_STEP} of this call of `fit` (epoch 2)" in str(error.value)
    # No callback of the user's, which may save the student, saw the bad epoch.
    assert ended == [0]


@pytest.fixture(scope="module")
def after_one_epoch():
    """All networks and optimizers after the epoch that is good."""
    distiller = make_distiller(run_eagerly=True)
    fit(distiller, epochs=1)
    return snapshot(distiller, distiller.optimizer)


@pytest.mark.promise(12)
@pytest.mark.parametrize(
    ("term", "bad"),
    [*[(term, np.nan) for term in TERMS], ("student_loss", np.inf), ("logits_loss", -np.inf)],
)
def test_the_term_and_the_step_are_named_and_the_last_good_state_is_back(
    term, bad, after_one_epoch
):
    distiller = make_distiller(run_eagerly=True)
    spoil(distiller, term, bad)
    assert_stopped(distiller, term)
    assert_equal_states(after_one_epoch, snapshot(distiller, distiller.optimizer))


@pytest.mark.slow
@pytest.mark.promise(12)
@pytest.mark.parametrize("compiled", [{"jit_compile": True}, {"steps_per_execution": 2}])
@pytest.mark.graph
def test_also_in_a_compiled_step_and_with_several_steps_in_one_call(compiled):
    distiller = make_distiller(**compiled)
    states = []
    recorder = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: states.append(snapshot(distiller, distiller.optimizer))
    )
    spoil(distiller, "feature_loss", np.nan)
    assert_stopped(distiller, "feature_loss", recorders=[recorder])
    assert_same(states[0], snapshot(distiller, distiller.optimizer))


@pytest.mark.promise(12)
def test_the_validation_does_not_hide_it_and_fit_can_be_called_again():
    distiller = make_distiller(run_eagerly=True)
    spoil(distiller, "student_loss", np.nan)
    with pytest.raises(FloatingPointError, match=f"in step {BAD_STEP}"):
        fit(distiller, validation_data=data())
    del distiller.student_loss
    before = snapshot(distiller.student)
    history = fit(distiller, epochs=2, validation_data=data()).history
    assert_changed(before, snapshot(distiller.student))
    assert history["loss"][1] < history["loss"][0]


@pytest.mark.promise(12)
def test_a_bad_image_spoils_neither_weights_nor_moving_averages():
    good = make_distiller(batch_norm=True, run_eagerly=True)
    fit(good, epochs=1)
    distiller = make_distiller(batch_norm=True, run_eagerly=True)
    images, labels = data()
    broken = images.copy()
    broken[3] = np.nan

    class Batches(keras.utils.PyDataset):
        epoch = 0

        def __len__(self):
            return COUNT // 8

        def __getitem__(self, index):
            rows = slice(8 * index, 8 * index + 8)
            return (broken if self.epoch else images)[rows], labels[rows]

    batches = Batches()
    turn = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(batches, "epoch", epoch)
    )
    with pytest.raises(FloatingPointError, match=f"in step {BAD_STEP} of"):
        distiller.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=[turn])
    assert_same(snapshot(good), snapshot(distiller))


@pytest.mark.promise(12)
def test_a_learning_rate_that_is_far_too_high_ends_the_run_and_not_the_student():
    distiller = make_distiller(optimizer=keras.optimizers.SGD(1e30), run_eagerly=True)
    before = snapshot(distiller.student)
    with pytest.raises(FloatingPointError, match="as they were at the start"):
        fit(distiller)
    assert_same(before, snapshot(distiller.student))


class Unsteady(keras.layers.Layer):
    """Gives 0 and a gradient that is no number: the root of a square, at 0."""

    def build(self, input_shape):
        self.weight = self.add_weight(shape=(), initializer="zeros")

    def call(self, inputs):
        return inputs + keras.ops.sqrt(self.weight)


@pytest.mark.promise(12)
def test_a_gradient_that_is_no_number_in_the_last_step_is_found_too():
    inputs = keras.Input((3,))
    hidden = Unsteady(name="unsteady")(keras.layers.Dense(4, name="features")(inputs))
    student = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    distiller = KTANDistiller(model(8, "teacher"), student, FeaturePair("features", "features"))
    distiller.compile("sgd", loss=loss_from_logits(), run_eagerly=True)
    before = snapshot(student)
    images, labels = data()
    with pytest.raises(FloatingPointError, match="weights of the student, such as 'unsteady"):
        distiller.fit(images, labels, batch_size=COUNT, verbose=0)
    assert_same(before, snapshot(student))
    student.get_layer("unsteady").weight.assign(np.nan)
    with pytest.raises(ValueError, match="Expected finite weights to begin with"):
        distiller.fit(images, labels, batch_size=COUNT, verbose=0)


@pytest.mark.slow
@pytest.mark.promise(12)
def test_a_long_epoch_is_looked_at_and_copied_in_between(monkeypatch):
    monkeypatch.setattr("keras_ktan.callbacks.divergence_guard.CHECK_EVERY", 1)
    monkeypatch.setattr("keras_ktan.callbacks.divergence_guard.SNAPSHOT_EVERY", 2)
    images, labels = data()
    good = make_distiller(run_eagerly=True)
    good.fit(images[:4], labels[:4], batch_size=2, shuffle=False, verbose=0)
    distiller = make_distiller(run_eagerly=True)
    spoil(distiller, "logits_loss", np.nan)
    begun = []
    counter = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: begun.append(batch)
    )
    with pytest.raises(FloatingPointError, match="before batch 3 of epoch 1"):
        distiller.fit(images, labels, batch_size=2, shuffle=False, verbose=0, callbacks=[counter])
    assert len(begun) == BAD_STEP  # of eight
    assert_equal_states(snapshot(good, good.optimizer), snapshot(distiller, distiller.optimizer))


@pytest.mark.promise(12)
def test_a_loss_scale_that_is_too_large_is_no_divergence():
    keras.config.set_dtype_policy("mixed_float16")
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-2), initial_scale=2.0**30)
    distiller = make_distiller(optimizer=scaled, run_eagerly=True)
    before = snapshot(distiller.student)
    fit(distiller, epochs=1)
    # It halves with each step that is left out, as both are.
    assert float(keras.ops.convert_to_numpy(scaled.dynamic_scale)) == 2.0**28
    assert_same(before, snapshot(distiller.student))


def test_a_resumed_run_goes_back_to_the_state_it_was_resumed_at(tmp_path):
    folder = str(tmp_path / "backup")

    def backup():
        return keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)

    fit(make_distiller(), epochs=1, callbacks=[backup()])
    resumed = make_distiller()
    untrained = snapshot(resumed.student)
    restored = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: restored.append(snapshot(resumed.student))
    )
    spoil(resumed, "student_loss", np.nan)  # in the first step after the resumption
    with pytest.raises(FloatingPointError, match="'student_loss'"):
        fit(resumed, epochs=2, callbacks=[backup(), note])
    assert_changed(untrained, restored[0])
    assert_same(restored[0], snapshot(resumed.student))
    assert int(resumed.optimizer.iterations) == BAD_STEP - 1


def hide(distiller, first, last):
    """Make a weight NaN before some steps, and let no loss show it.

    Compiled on a CPU, TensorFlow's fused ReLU does so where the data are NaN.
    """
    kernel = distiller.student.get_layer("hidden").kernel

    def spoil_weight(batch, logs=None):
        if first <= batch + 1 <= last:
            # On JAX the loop holds the values until a callback asks for its model.
            assert callback.model is distiller
            kernel.assign(np.full(kernel.shape, np.nan))

    def log_step(x, y, y_pred, sample_weight, loss, terms):
        zero = keras.ops.zeros(())
        distiller.divergence_metric.update_state(dict.fromkeys((*terms, "loss"), zero))
        return {"loss": zero}

    distiller.log_step = log_step
    callback = keras.callbacks.LambdaCallback(on_train_batch_begin=spoil_weight)
    return callback


@pytest.mark.promise(12)
def test_weights_that_no_loss_shows_are_found_with_their_network_and_the_steps(monkeypatch):
    monkeypatch.setattr("keras_ktan.callbacks.divergence_guard.CHECK_EVERY", 2)
    distiller = make_distiller(run_eagerly=True)
    images, labels = data()
    begun = []
    counter = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: begun.append(batch)
    )
    before = snapshot(distiller.student)
    with pytest.raises(FloatingPointError) as error:
        distiller.fit(
            images,
            labels,
            batch_size=2,
            shuffle=False,
            verbose=0,
            callbacks=[hide(distiller, 4, 8), counter],
        )
    assert_three_parts(
        error.value, "weights of the student, such as 'hidden/kernel'", "Expected finite", "data"
    )
    assert "in one of the steps 3 to 4 of this call" in str(error.value)
    assert len(begun) == 4  # of eight
    assert_same(before, snapshot(distiller.student))


@pytest.mark.slow
@pytest.mark.graph
def test_nan_in_the_data_of_a_compiled_step_on_a_cpu(monkeypatch):
    monkeypatch.setattr("keras_ktan.callbacks.divergence_guard.CHECK_EVERY", 1)
    from models import image_data, image_model

    distiller = KTANDistiller(
        image_model(6, "teacher", batch_norm=False), image_model(3, "student", batch_norm=False)
    )
    distiller.compile("adam", loss_from_logits(), jit_compile=False, adversarial_loss_weight=0.02)
    images, labels = image_data(12)
    images[4:8] = np.nan
    before = snapshot(distiller.student)
    # On TensorFlow the losses are finite; elsewhere they are not.
    with pytest.raises(FloatingPointError, match="in step 2 of this call"):
        distiller.fit(images, labels, batch_size=4, shuffle=False, verbose=0)
    assert_same(before, snapshot(distiller.student))


@pytest.mark.parametrize("keep_on_host", [False, True])
def test_a_guard_of_ones_own_takes_the_default_ones_place(keep_on_host):
    distiller = make_distiller(run_eagerly=True)
    spoil(distiller, "student_loss", np.nan)
    guard = DivergenceGuard(restore=keep_on_host, keep_on_host=keep_on_host)
    kept = []

    def look(epoch, logs=None):
        kept.extend(type(value) for _, value in guard._copies or ())

    with pytest.raises(FloatingPointError) as error:
        fit(distiller, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=look), guard])
    assert set(kept) == ({np.ndarray} if keep_on_host else set())
    # Back at the end of the first epoch, or where the second ended.
    assert int(distiller.optimizer.iterations) == (2 if keep_on_host else 4)
    assert ("as they are now, because" in str(error.value)) == (not keep_on_host)
    assert guard._copies is None


def test_after_a_training_no_copies_are_left():
    guard = DivergenceGuard()
    distiller = make_distiller(run_eagerly=True)
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(guard._copies)
    )
    fit(distiller, epochs=1, callbacks=[guard, look])
    assert len(seen[0]) == len(distiller.state_variables)
    assert guard._copies is None


def test_without_a_guard_nothing_is_noted_and_the_choice_is_saved():
    distiller = make_distiller(divergence_guard=False, run_eagerly=True)
    spoil(distiller, "student_loss", np.nan)
    losses = fit(distiller, epochs=2).history["student_loss"]  # nobody stops it
    assert np.isnan(losses).tolist() == [False, True]
    assert distiller.divergence_metric is None
    assert "divergence_metric" not in {metric.name for metric in distiller.metrics}
    loaded = KTANDistiller.from_config(distiller.get_config())
    assert loaded.divergence_guard is False
    with pytest.raises(ValueError) as error:
        fit(distiller, callbacks=[DivergenceGuard()])
    assert_three_parts(error.value, "divergence_guard=False", "Expected True", "Leave")


def test_bad_arguments_of_the_guard_and_a_plain_model():
    for arguments in ({"restore": 1}, {"keep_on_host": None}):
        with pytest.raises(ValueError, match="Expected True or False"):
            DivergenceGuard(**arguments)
    with pytest.raises(ValueError, match="divergence_guard='no'. Expected True or False"):
        make_distiller(divergence_guard="no")
    plain = model(4, "plain")
    plain.compile("sgd", loss_from_logits())
    with pytest.raises(ValueError, match="'plain'.*Expected a KTANDistiller.*TerminateOnNaN"):
        plain.fit(*data(), callbacks=[DivergenceGuard()], verbose=0)
