"""Go on after a kill as if nothing had been."""

import os
import warnings

import keras

from keras_ktan.callbacks.backup_files import BackupFiles
from keras_ktan.callbacks.data_order import why_order_is_lost
from keras_ktan.callbacks.training_state import TrainingState
from keras_ktan.introspection.model_digest import teacher_digest
from keras_ktan.utils.messages import shortened
from keras_ktan.utils.numbers import validate_integer


class ResumableBackup(keras.callbacks.Callback):
    """Keeps the state of a training on the disk, so that a run that is killed can go on.

    Run the same script again: `fit` finds the file, begins in the epoch and at the batch where
    the file stands, and ends with the weights of a run that was never stopped. Keras's
    `BackupAndRestore` writes weights and epoch into two files, in place, and begins an epoch anew
    that an integer `save_freq` had saved half-way; a kill at a bad moment leaves files that do
    not load, or weights that do not belong to the epoch. Here one file holds the weights of the
    student, T2S and the discriminators, all optimizers' variables, the states of random layers,
    the running metrics, the epoch and the batch. It is written beside its final name and renamed,
    with a checksum. The one before it stays as `filepath` + `".previous"`, and is used, with a
    warning, if the newest one is damaged. When `fit` ends both are deleted.

    The steps are the same if the batches of an epoch follow from its number: a `TeacherCache`'s
    data set; arrays or a `keras.utils.PyDataset` with `shuffle=False`. A `PyDataset` that changes
    from epoch to epoch has a method `begin_epoch(epoch)`, which `fit` calls first. Other data (an
    array with `shuffle=True`, a `tf.data.Dataset`, which does not tell whether it shuffles) are
    saved at the ends of epochs only, and a warning says that the order is not repeated.

    Within an epoch, `fit` reads the batches that were trained on again and leaves them out:
    callbacks see them with empty logs. The logs of that epoch are those of the whole epoch.

    What other callbacks keep in memory (`EarlyStopping`'s patience and best weights) is not in
    the file, nor is the state of random numbers that come neither from a
    `keras.random.SeedGenerator` nor from torch itself.

    Args:
        filepath: Path of the file, on a local disk; no other training may use it.
        save_freq: `"epoch"`: at the end of each epoch. A whole number: also whenever so many
            batches of an epoch were trained on.
        ordered: `True`: you know that the data give the same batches in the same epoch, in
            another process too, as an unshuffled `tf.data.Dataset` does. `None`: what was said
            above.
        delete_checkpoint: Whether to delete the files when `fit` ends. If they stay, the same
            `fit` called again trains only the epochs that are left.

    Raises:
        ValueError: If an argument is out of its range; before the first step also if the model is
            no `KTANDistiller`, if the backup is of another teacher, student or compilation,
            stands within an epoch that has other batches now, or if no file is whole.
        OSError: Before the first step, if the file cannot be written. Later this is a warning,
            and the last file stays.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_ktan import KTANDistiller
    from keras_ktan.callbacks import ResumableBackup

    def classifier(units, name):
        layers = [keras.layers.Dense(units, activation="relu"), keras.layers.Dense(3)]
        return keras.Sequential([keras.Input((4,)), *layers], name=name)

    x, y = np.random.rand(32, 4), np.random.randint(0, 3, 32)
    distiller = KTANDistiller(classifier(16, "teacher"), classifier(4, "student"))
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    backup = ResumableBackup("/tmp/run.backup", save_freq=100)
    distiller.fit(x, y, epochs=2, shuffle=False, callbacks=[backup], verbose=0)
    ```
    """

    def __init__(
        self,
        filepath: str | os.PathLike,
        save_freq: int | str = "epoch",
        ordered: bool | None = None,
        delete_checkpoint: bool = True,
    ):
        super().__init__()
        if not str(filepath) or "://" in str(filepath) or os.path.isdir(filepath):
            raise ValueError(
                f"Received filepath={str(filepath)!r} for a ResumableBackup. Expected the path of "
                "a file on a local disk, because it is renamed when it is whole. Write "
                "`ResumableBackup('run.backup')`."
            )
        if save_freq != "epoch":
            save_freq = validate_integer(
                "save_freq", save_freq, at_least=1, remedy="Or write `save_freq='epoch'`."
            )
        if ordered not in (True, None):
            raise ValueError(
                f"Received ordered={ordered!r} for a ResumableBackup. Expected True or None. "
                "For data in a new order each time leave it out and save at the ends of epochs."
            )
        self.save_freq = save_freq
        self.delete_checkpoint = delete_checkpoint
        self._ordered = ordered
        self._files = BackupFiles(filepath)
        self._state = None
        self._step_function = None

    # Called by `KTANDistiller.fit`, before and after Keras's.

    def prepare(self, distiller, x, shuffle, steps_per_epoch, initial_epoch, epochs):
        """Read the file, and find out where to begin.

        Args:
            distiller: The `KTANDistiller`.
            x: As `fit` takes it.
            shuffle: Likewise.
            steps_per_epoch: Likewise.
            initial_epoch: Likewise.
            epochs: Likewise.

        Returns:
            The epoch to begin with.
        """
        self._order_is_lost = why_order_is_lost(x, shuffle, steps_per_epoch, self._ordered)
        self._files.make_room()
        self._state = TrainingState(distiller)
        self._described = {
            "the teacher": teacher_digest(distiller.teacher),
            **distiller.describe_training(),
            "the variables": self._state.describe(),
        }
        self._found = self._files.read()
        if self._found is None:
            self._warn_of_order(self.save_freq != "epoch")
            self._epoch, self._batch = initial_epoch, 0
            return initial_epoch
        found = self._found[0]
        self._validate_found(found)
        self._warn_of_order(True)
        self._epoch, self._batch = found["epoch"], found["batch"]
        # A callback such as `EarlyStopping` had ended the training.
        return max(self._epoch, epochs) if found["stopped"] else self._epoch

    def release(self):
        """After `fit`, however it ended."""
        self._state = self._found = None
        self._end_skipping()

    def _warn_of_order(self, matters):
        if self._order_is_lost and matters:
            warnings.warn(
                f"ResumableBackup: the order of the data is not repeated after a restart, because "
                f"{self._order_is_lost}; this training is saved at the ends of epochs only.",
                stacklevel=4,
            )

    def _validate_found(self, found):
        here = self._described
        unlike = [name for name in here if found["training"].get(name) != here[name]]
        if unlike:
            details = "; ".join(
                f"{name}: {shortened(found['training'].get(name))} there, "
                f"{shortened(here[name])} here"
                for name in unlike
            )
            raise ValueError(
                f"The backup '{self._files.newest}' is of another training ({details}). Expected "
                "the teacher, student and arguments of `compile` that it was made with. Build and "
                "compile as that run did, or delete the file to begin anew."
            )
        if found["batch"] and self._order_is_lost:
            raise ValueError(
                f"The backup '{self._files.newest}' stands after batch {found['batch']} of epoch "
                f"{found['epoch'] + 1}, but {self._order_is_lost}. Expected data whose batches "
                "follow from the number of the epoch, as they did when it was written. Pass the "
                "same data and arguments to `fit`, or delete the file to begin anew."
            )

    # Called by Keras.

    def set_model(self, model):
        if self._state is None:
            raise ValueError(
                f"Received a ResumableBackup in the training of '{model.name}', which does not "
                "ask it where to begin. Expected `KTANDistiller.fit`. Use "
                "`keras.callbacks.BackupAndRestore` for other models."
            )
        super().set_model(model)

    def on_train_begin(self, logs=None):
        self._steps = self.params.get("steps")
        self._last = self._batch
        if self._found is None:
            # Also so that a disk that cannot be written is found now.
            self._files.write(*self._take(self._epoch, 0))
            return
        if self._batch:
            self._validate_steps()
            self._begin_skipping()
        self._state.restore(self._found[1])

    def on_train_batch_begin(self, batch, logs=None):
        # Not at a batch's end: a callback that acts there makes Keras wait for every step's logs.
        if self._step_function is not None:
            return
        if self._found is not None:
            if self._batch:
                # Once more: metrics were reset, and callbacks saw the batches left out.
                self._bring_state_back()
                self._state.restore(self._found[1])
                self._state.restore_metrics(self._found[1], self._epoch)
            self._found = None
        elif self._is_due(batch):
            self._last = batch
            self._save(self._epoch, batch)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if self._found is None:
            self._last = 0

    def on_epoch_end(self, epoch, logs=None):
        self._found = None
        self._save(epoch + 1, 0)

    def on_train_end(self, logs=None):
        if self.delete_checkpoint:
            self._files.delete()

    def _is_due(self, batch):
        if self.save_freq == "epoch" or self._order_is_lost:
            return False
        return batch - self._last >= self.save_freq

    def _take(self, epoch, batch):
        self._bring_state_back()
        description = {
            "epoch": epoch,
            "batch": batch,
            "steps": self._steps,
            "stopped": bool(self._model.stop_training),
            "training": self._described,
        }
        return description, self._state.take(with_metrics=bool(batch))

    def _bring_state_back(self):
        # Within an epoch on JAX the loop holds the variables' values. Keras gives them back
        # where a callback asks for its model.
        return self.model

    def _save(self, epoch, batch):
        try:
            self._files.write(*self._take(epoch, batch))
        except OSError as error:
            # A training that goes on is worth more than its backup.
            warnings.warn(
                f"The backup '{self._files.newest}' of epoch {epoch + 1}, batch {batch + 1}, "
                f"could not be written ({error}). The last one that was stays; the training goes "
                "on.",
                stacklevel=2,
            )

    # Batches that were trained on before the kill.

    def _validate_steps(self):
        found, size = self._found[0]["steps"], self.model.steps_per_execution
        if found != self._steps or self._batch % size:
            raise ValueError(
                f"The backup '{self._files.newest}' stands after batch {self._batch} of {found} in "
                f"an epoch. Received {self._steps} batches in an epoch, {size} in a call. Expected "
                "the data and the batch size that it was made with, and `steps_per_execution` "
                f"that divides {self._batch}. Pass the same, or delete the file to begin anew."
            )

    def _begin_skipping(self):
        model = self.model
        self._step_function = model.train_function
        left = self._batch // model.steps_per_execution

        def skip(*arguments):
            nonlocal left
            left -= 1
            if not left:
                self._end_skipping()
            return model.skip_step(*arguments)

        model.train_function = skip

    def _end_skipping(self):
        if self._step_function is not None:
            self._model.train_function = self._step_function
            self._step_function = None
