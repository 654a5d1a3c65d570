"""Trains one student by one method, from the same start and on the same batches."""

import dataclasses
from typing import Any

import keras
import numpy as np

from keras_ktan.cache.cached_dataset import CachedDataset
from keras_ktan.callbacks import ResumableBackup, StudentCheckpoint
from keras_ktan.compression.epoch_log import EpochLog, best_epoch
from keras_ktan.compression.method_table import method_title
from keras_ktan.compression.shuffled_batches import ShuffledBatches
from keras_ktan.compression.training_data import first_batch, number_of_batches
from keras_ktan.compression.whole_epochs import WholeEpochs
from keras_ktan.distiller import KTANDistiller
from keras_ktan.utils.atomic_file import write_atomically
from keras_ktan.utils.state_file import read_state, write_state

# From methods to what they change in `compile`. With all weights 0 a distiller's `fit` is the
# student's.
METHODS = {
    "KTAN": {},
    "logit_distillation": {"feature_loss_weight": 0.0, "adversarial_loss_weight": 0.0},
    "supervised": {
        "logits_loss_weight": 0.0,
        "feature_loss_weight": 0.0,
        "adversarial_loss_weight": 0.0,
    },
}
_BATCHES_BETWEEN_BACKUPS = 500
_LARGER_IS_BETTER = ("acc", "auc", "precision", "recall", "f1", "iou", "r2")
_SMALLER_IS_BETTER = ("loss", "error", "entropy")


@dataclasses.dataclass
class Training:
    """What all methods share.

    Args:
        teacher: The teacher.
        student: The student; every method trains it from its first weights.
        batches: What `fit` trains on.
        validation_data: What `fit` validates on.
        epochs: How many.
        optimizer: The student's optimizer; each method has a copy.
        loss: As `compile` takes it.
        metrics: Likewise; each method has copies.
        monitor: Name in the logs that decides which epoch is the best; `None` finds one.
        mode: `"min"`, `"max"`, or `None` to tell it by the name.
        seed: Seed of the discriminator, of dropout and so on.
    """

    teacher: keras.Model
    student: keras.Model
    batches: Any
    validation_data: Any
    epochs: int
    optimizer: Any
    loss: Any
    metrics: Any
    monitor: str | None
    mode: str | None
    seed: int

    def distiller(self, method):
        """A compiled distiller for a method."""
        keras.utils.set_random_seed(self.seed)
        distiller = KTANDistiller(self.teacher, self.student)
        distiller.compile(
            optimizer=copy_of(keras.optimizers.get(self.optimizer)),
            loss=self.loss,
            metrics=keras.tree.map_structure(copy_of, self.metrics),
            **METHODS[method],
        )
        return distiller

    def settle_monitor(self, distiller):
        """Find out which numbers a validation gives, on a few examples.

        Args:
            distiller: A compiled distiller.

        Raises:
            ValueError: If the data do not fit, or if `monitor` is none of the numbers.
        """
        x, y, weight = keras.utils.unpack_x_y_sample_weight(first_batch(self.validation_data))
        found = distiller.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
        names = [f"val_{name}" for name in found]
        if self.monitor is None:
            accuracies = [name for name in names if name.endswith("accuracy")]
            self.monitor = accuracies[0] if accuracies else "val_loss"
        if self.monitor not in names:
            raise ValueError(
                f"Received monitor={self.monitor!r}. Expected one of {names}, which a validation "
                "gives. Correct the name, or add the metric to `metrics`."
            )
        self.mode = self.mode or _mode_of(self.monitor)

    def _save_freq(self):
        # Within an epoch only where a new process draws the same batches.
        is_repeatable = isinstance(self.batches, (ShuffledBatches, CachedDataset))
        return _BATCHES_BETWEEN_BACKUPS if is_repeatable else "epoch"

    def run(self, method, folder, say, test_data):
        """Train by one method, or go on with it; afterwards the student has its best weights.

        Args:
            method: A key of `METHODS`.
            folder: The `RunFolder`.
            say: Function that prints a line.
            test_data: Data that are read once the training is over, or `None`.

        Returns:
            A dict: see `CompressionResult.methods`.
        """
        path = folder.path / student_name(method)
        done = folder.finished(method)
        if done is not None:
            say(f"  {method_title(method)}: trained already")
            self.student.load_weights(path)
            return {**done, "history": folder.history(method)}
        say(f"  {method_title(method)}")
        load_start(self.student, folder)
        distiller = self.distiller(method)
        history = folder.history(method)
        backup = folder.path / f"{method}.backup"
        checkpoint = StudentCheckpoint(
            path,
            self.monitor,
            self.mode,
            initial_value_threshold=best_epoch(history, self.monitor, self.mode)[1]
            if history
            else None,
        )
        distiller.fit(
            self.batches,
            epochs=self.epochs,
            validation_data=self.validation_data,
            shuffle=False,
            verbose=0,
            callbacks=[
                WholeEpochs(
                    number_of_batches(self.batches),
                    None
                    if isinstance(self.validation_data, tuple)
                    else number_of_batches(self.validation_data),
                ),
                checkpoint,
                EpochLog(folder, method, self.monitor, self.mode, say),
                # Until the folder says that the method is trained, it can be said again.
                ResumableBackup(backup, self._save_freq(), delete_checkpoint=False),
            ],
        )
        self.student.load_weights(path)
        number, best = best_epoch(folder.history(method), self.monitor, self.mode)
        found = {"best_epoch": number, "monitor": self.monitor, "best": best, "test": {}}
        if test_data is not None:
            x, y, weight = _as_arguments(test_data)
            tested = distiller.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
            found["test"] = {name: float(value) for name, value in tested.items()}
        folder.finish(method, found)
        for left in (backup, backup.with_name(f"{backup.name}.previous")):
            left.unlink(missing_ok=True)
        return {**found, "history": folder.history(method)}


def student_name(method):
    """The name of the file with the best student of a method."""
    return "student.keras" if method == "KTAN" else f"student_{method}.keras"


def save_start(student, folder):
    """Write the weights that all methods start from, if they are not there yet.

    Also tries whether the student can be saved, which each good epoch does.

    Args:
        student: The student.
        folder: The `RunFolder`.
    """
    path = folder.path / "start.state"
    if path.exists():
        return
    trial = folder.path / "start.keras"
    write_atomically(trial, student.save)
    trial.unlink()
    arrays = [np.asarray(keras.ops.convert_to_numpy(v)) for v in _values(student)]
    write_atomically(path, lambda beside: write_state(beside, {}, arrays))


def load_start(student, folder):
    """Give the student the weights that all methods start from.

    Args:
        student: The student.
        folder: The `RunFolder`.
    """
    _, arrays = read_state(folder.path / "start.state")
    for variable, array in zip(student.variables, arrays, strict=True):
        variable.assign(array)


def bytes_needed(training, distiller, files):
    """What a run writes at most, estimated.

    Args:
        training: The `Training`.
        distiller: A compiled distiller.
        files: How many students and exported files there will be.

    Returns:
        A number of bytes.
    """
    # Two backups and one that is being written; a file is written beside the one it replaces.
    state = _bytes_of(distiller.state_variables)
    return 3 * state + (files + 2) * 2 * _bytes_of(training.student.variables)


def copy_of(thing):
    """A fresh optimizer or metric like this one; names and functions as they are."""
    if isinstance(thing, (keras.optimizers.Optimizer, keras.metrics.Metric)):
        return type(thing).from_config(thing.get_config())
    return thing


def _as_arguments(data):
    if isinstance(data, tuple):
        return keras.utils.unpack_x_y_sample_weight(data)
    return data, None, None


def _mode_of(monitor):
    name = monitor.removeprefix("val_")
    if any(word in name for word in _SMALLER_IS_BETTER):
        return "min"
    if any(word in name for word in _LARGER_IS_BETTER):
        return "max"
    raise ValueError(
        f"Received monitor={monitor!r}, whose name does not say whether more is better. Expected "
        "mode='min' or mode='max' with it. Add one."
    )


def _values(student):
    return [keras.ops.stop_gradient(keras.ops.convert_to_tensor(v)) for v in student.variables]


def _bytes_of(variables):
    sizes = {"float64": 8, "int64": 8, "uint64": 8}
    return sum(int(np.prod(v.shape)) * sizes.get(str(v.dtype), 4) for v in variables)
