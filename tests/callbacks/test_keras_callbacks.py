"""Keras's own callbacks and arguments of `fit` do to a distiller what they do to its student."""

import keras
import numpy as np
import pytest
from models import assert_same, image_data, image_model, loss_from_logits, snapshot

from keras_ktan import KTANDistiller

IMAGES, LABELS = image_data(24)
VALIDATION = image_data(12, seed=1)


def make_distiller(rate=0.05, **compiled):
    keras.utils.set_random_seed(3)
    distiller = KTANDistiller(image_model(12, "teacher", seed=1), image_model(4, "student", seed=2))
    distiller.compile(
        keras.optimizers.SGD(rate),
        loss_from_logits(),
        metrics=["accuracy"],
        adversarial_loss_weight=0.02,
        **compiled,
    )
    return distiller


def fit(distiller, epochs, callbacks=(), **arguments):
    arguments = {"validation_data": VALIDATION, **arguments}
    return distiller.fit(
        IMAGES, LABELS, 8, epochs, 0, callbacks=list(callbacks), shuffle=False, **arguments
    ).history


class Students(keras.callbacks.Callback):
    """The student's weights at the end of every epoch."""

    def on_train_begin(self, logs=None):
        self.kept = []

    def on_epoch_end(self, epoch, logs=None):
        self.kept.append(snapshot(self.model.student))


def test_early_stopping_brings_the_best_student_back():
    # A rate of 3 makes the student worse than it was.
    distiller, students = make_distiller(rate=3.0, feature_loss="cosine"), Students()
    stopping = keras.callbacks.EarlyStopping(
        "val_loss", patience=2, restore_best_weights=True, start_from_epoch=0
    )
    history = fit(distiller, 8, [students, stopping])
    best = int(np.argmin(history["val_loss"]))
    assert len(history["val_loss"]) == best + 3 < 8
    assert_same(students.kept[best], snapshot(distiller.student))
    assert any(
        not np.array_equal(a, b) for a, b in zip(*students.kept[best : best + 2], strict=True)
    )


@pytest.mark.slow
def test_model_checkpoint_keeps_the_best_weights_without_the_teacher(tmp_path):
    distiller, students = make_distiller(rate=3.0), Students()
    path = tmp_path / "best.weights.h5"
    keeper = keras.callbacks.ModelCheckpoint(
        path, monitor="val_loss", save_best_only=True, save_weights_only=True
    )
    history = fit(distiller, 4, [students, keeper])
    other = make_distiller()
    other.load_weights(path)
    assert_same(students.kept[int(np.argmin(history["val_loss"]))], snapshot(other.student))
    assert path.stat().st_size < 8 * sum(int(np.prod(v.shape)) for v in distiller.variables) + 2**17


@pytest.mark.slow
def test_a_plateau_lowers_the_students_rate_and_no_other():
    distiller = make_distiller(rate=0.5)
    plateau = keras.callbacks.ReduceLROnPlateau(
        "val_loss", factor=0.1, patience=1, min_delta=100.0, cooldown=0
    )
    history = fit(distiller, 3, [plateau])
    # Nothing is 100 better than the first epoch: the second and the third lower it.
    np.testing.assert_allclose(history["learning_rate"], [0.5, 0.5, 0.05], rtol=1e-5)
    np.testing.assert_allclose(float(distiller.optimizer.learning_rate), 0.005, rtol=1e-5)
    np.testing.assert_allclose(
        float(distiller.optimizer.discriminator.learning_rate), 5e-5, rtol=1e-5
    )


@pytest.mark.slow
def test_validation_split_takes_the_last_examples():
    split = fit(make_distiller(), 2, validation_data=None, validation_split=0.25)
    apart = make_distiller().fit(
        IMAGES[:18], LABELS[:18], 8, 2, 0, shuffle=False, validation_data=(IMAGES[18:], LABELS[18:])
    )
    for name, values in apart.history.items():
        np.testing.assert_allclose(split[name], values, rtol=1e-5, err_msg=name)


@pytest.mark.long
@pytest.mark.promise(9)
def test_backup_and_restore_beside_the_others(tmp_path):
    def callbacks():
        return [
            keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False),
            keras.callbacks.ModelCheckpoint(
                tmp_path / "last.weights.h5", save_weights_only=True, save_best_only=False
            ),
            keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, min_delta=100.0),
        ]

    whole = make_distiller()
    fit(whole, 3, [keras.callbacks.ReduceLROnPlateau("val_loss", patience=5)])
    fit(make_distiller(), 2, callbacks()[:2])
    resumed = make_distiller()
    history = fit(resumed, 3, callbacks()[:2])
    assert len(history["loss"]) == 1
    for one, other in zip(
        snapshot(whole, whole.optimizer), snapshot(resumed, resumed.optimizer), strict=True
    ):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-7)
    last = make_distiller()
    last.load_weights(tmp_path / "last.weights.h5")
    assert_same(snapshot(resumed.student), snapshot(last.student))
