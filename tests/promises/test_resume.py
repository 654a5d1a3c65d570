"""Promise 9: a run that is stopped goes on from its last whole epoch as if nothing had been."""

import keras
import numpy as np
import pytest
from models import image_data, image_model, loss_from_logits, snapshot

from keras_ktan import KTANDistiller

EPOCHS, STOPPED_IN = 4, 2


class Stop(keras.callbacks.Callback):
    """Ends the process, as far as a test can, in the middle of an epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (STOPPED_IN, 0):
            raise KeyboardInterrupt


def make_distiller():
    distiller = KTANDistiller(
        image_model(6, "teacher", batch_norm=False, seed=1), image_model(3, "student", seed=2)
    )
    distiller.compile(
        keras.optimizers.AdamW(1e-2),
        loss=loss_from_logits(),
        feature_loss_weight=keras.optimizers.schedules.PolynomialDecay(1.0, 10, 0.0),
        adversarial_loss_weight=0.5,  # with its noise
    )
    return distiller


def train(distiller, *callbacks):
    images, labels = image_data(20)
    return distiller.fit(
        images,
        labels,
        batch_size=8,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )


def everything(distiller):
    return snapshot(
        distiller.student,
        *distiller.teacher_to_student_layers,
        *distiller.discriminators,
        distiller.optimizer,
    )


@pytest.mark.slow
@pytest.mark.promise(9)
def test_a_stopped_run_ends_as_one_that_was_not(tmp_path):
    whole = make_distiller()
    expected = train(whole).history
    with pytest.raises(KeyboardInterrupt):
        train(make_distiller(), keras.callbacks.BackupAndRestore(tmp_path / "backup"), Stop())
    resumed = make_distiller()
    history = train(resumed, keras.callbacks.BackupAndRestore(tmp_path / "backup"))
    assert history.epoch == list(range(STOPPED_IN, EPOCHS))
    for name, values in history.history.items():
        np.testing.assert_allclose(values, expected[name][STOPPED_IN:], rtol=1e-5, err_msg=name)
    for one, other in zip(everything(whole), everything(resumed), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-7)
