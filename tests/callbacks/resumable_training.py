"""A tiny training that can be stopped anywhere, with every kind of state that there is."""

import keras
import numpy as np
from models import loss_from_logits, snapshot

from keras_ktan import FeaturePair, KTANDistiller, TeacherToStudent
from keras_ktan.callbacks import ResumableBackup

EPOCHS, BATCH = 2, 4
COUNT = 10  # three steps an epoch, the last one of two rows
STEPS = 3


def model(units, name, seed, dropout=False):
    """Two dense layers; the student also has random numbers and moving averages."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(units, activation="relu", name="features")(inputs)
    if dropout:
        hidden = keras.layers.Dropout(0.5)(hidden)  # names with the numbers that Keras appends
        hidden = keras.layers.BatchNormalization()(hidden)
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(hidden), name=name)


def make_distiller(units=4, teacher_seed=1, **compiled):
    """All three networks, each with an optimizer that has a state."""
    teacher = model(8, "teacher", teacher_seed)
    distiller = KTANDistiller(
        teacher,
        model(units, "student", 2, dropout=True),
        FeaturePair(
            "features", "features", teacher_to_student=TeacherToStudent(objective="reconstruction")
        ),
    )
    arguments = {
        "optimizer": keras.optimizers.Adam(1e-2),
        "loss": loss_from_logits(),
        "metrics": ["accuracy"],
        "adversarial_loss_weight": 0.5,  # with its noise
        **compiled,
    }
    distiller.compile(**arguments)
    return distiller


def arrays(epoch=0):
    """Rows and labels; in another epoch others."""
    generator = np.random.default_rng(epoch)
    rows = generator.normal(size=(COUNT, 3)).astype("float32")
    return rows, generator.integers(0, 2, COUNT).astype("int32")


def train(distiller, *callbacks, data=None, shuffle=False, epochs=EPOCHS, **arguments):
    """`fit` of the arrays, or of a data set that makes its batches itself."""
    if data is None:
        x, y = arrays()
        data, arguments = x, {"y": y, "batch_size": BATCH, **arguments}
    return distiller.fit(
        data, epochs=epochs, shuffle=shuffle, verbose=0, callbacks=list(callbacks), **arguments
    )


def everything(distiller):
    """All that a training changes."""
    return snapshot(distiller, distiller.optimizer)


class Stop(keras.callbacks.Callback):
    """Ends the process, as far as a test can, at the end of a batch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at = (epoch, batch)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


def backup_in(folder, **arguments):
    """A backup whenever a batch begins."""
    return ResumableBackup(folder / "run.backup", **{"save_freq": 1, **arguments})
