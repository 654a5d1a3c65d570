"""The callbacks of one call of `fit`: the distiller's own around the user's."""

import keras

from keras_ktan.callbacks.data_order import begins_epochs
from keras_ktan.callbacks.divergence_guard import DivergenceGuard
from keras_ktan.callbacks.resumable_backup import ResumableBackup


class FitCallbacks:
    """The distiller's own callbacks and the user's, in the order in which they must act.

    The guard comes first: no callback of the user saves a student that is not finite. The backup
    comes last: it keeps what the others did, such as a new learning rate.

    Args:
        distiller: The `KTANDistiller`.
        callbacks: As `fit` takes them.
        x: Likewise.

    Raises:
        ValueError: If there are two of a kind, or two that cannot work together.
    """

    def __init__(self, distiller, callbacks, x):
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = callbacks.callbacks
        given = keras.tree.flatten(callbacks or [])
        self._distiller = distiller
        self._data = x
        self._backup = _only_one(given, ResumableBackup)
        self._guard = _only_one(given, DivergenceGuard)
        if self._guard is not None and not distiller.divergence_guard:
            raise ValueError(
                "Received a DivergenceGuard in the `fit` of a distiller with "
                "divergence_guard=False. Expected True, because the training step notes what the "
                "guard reads. Leave `divergence_guard` out: one among the callbacks takes the "
                "place of the default one."
            )
        if self._guard is None and distiller.divergence_guard:
            self._guard = DivergenceGuard()
        if self._backup is not None:
            _validate_beside_backup(given)
        own = {id(self._backup), id(self._guard)}
        self.callbacks = [callback for callback in given if id(callback) not in own]
        first = [] if self._guard is None else [self._guard]
        if begins_epochs(x):
            first.append(
                keras.callbacks.LambdaCallback(
                    on_epoch_begin=lambda epoch, logs: x.begin_epoch(epoch)
                )
            )
        last = [] if self._backup is None else [self._backup]
        self.callbacks = [*first, *self.callbacks, *last]

    def first_epoch(self, shuffle, steps_per_epoch, initial_epoch, epochs):
        """The epoch to begin with.

        Args:
            shuffle: As `fit` takes it.
            steps_per_epoch: Likewise.
            initial_epoch: Likewise.
            epochs: Likewise.

        Returns:
            A number.
        """
        epoch = initial_epoch
        if self._backup is not None:
            epoch = self._backup.prepare(
                self._distiller, self._data, shuffle, steps_per_epoch, initial_epoch, epochs
            )
        if begins_epochs(self._data):
            # Keras reads batches before the epoch begins, to see their form.
            self._data.begin_epoch(epoch)
        return epoch

    def release(self):
        """Let go of what is kept during `fit`, however it ended."""
        for callback in (self._guard, self._backup):
            if callback is not None:
                callback.release()


def _only_one(callbacks, kind):
    found = [callback for callback in callbacks if isinstance(callback, kind)]
    if len(found) > 1:
        raise ValueError(
            f"Received {len(found)} callbacks of the class {kind.__name__}. Expected at most one. "
            "Leave the others out."
        )
    return found[0] if found else None


def _validate_beside_backup(callbacks):
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ValueError(
                "Received a BackupAndRestore beside a ResumableBackup. Expected one of them, "
                "because both say where the training begins. Leave the BackupAndRestore out."
            )
        if isinstance(callback, keras.callbacks.SwapEMAWeights) and callback.swap_on_epoch:
            raise ValueError(
                "Received SwapEMAWeights(swap_on_epoch=True) beside a ResumableBackup. Expected "
                "swap_on_epoch=False, because the averages would be saved in the place of the "
                "weights. Leave `swap_on_epoch` out; validation sees the averages either way."
            )
