"""Writes down and prints what each epoch gave."""

import time

import keras

_SECONDS_BETWEEN_LINES = 30


class EpochLog(keras.callbacks.Callback):
    """Records each epoch in the run's folder, and says where the training stands.

    Args:
        folder: The `RunFolder`.
        method: The method that is trained.
        monitor: Name in the logs that decides which epoch is the best.
        mode: `"min"` or `"max"`.
        say: Function that prints a line.
    """

    def __init__(self, folder, method, monitor, mode, say):
        super().__init__()
        self._folder = folder
        self._method = method
        self._monitor = monitor
        self._mode = mode
        self._say = say

    def on_train_begin(self, logs=None):
        self._started = self._last = time.monotonic()
        self._finished = []

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            of = f"/{self.params['steps']}" if self.params.get("steps") else ""
            self._say(f"    epoch {self._epoch + 1}: batch {batch}{of}")

    def on_epoch_end(self, epoch, logs=None):
        self._folder.record_epoch(self._method, epoch, logs)
        history = self._folder.history(self._method)
        number, best = best_epoch(history, self._monitor, self._mode)
        total = self.params["epochs"]
        self._last = time.monotonic()
        self._finished.append(self._last - self._started)
        left = self._seconds_an_epoch() * (total - epoch - 1)
        self._say(
            f"    epoch {epoch + 1}/{total}: {self._monitor} {logs[self._monitor]:.4f} "
            f"(best {best:.4f}, epoch {number})" + (f", about {left:.0f} s left" if left else "")
        )

    def _seconds_an_epoch(self):
        # The first epoch also compiles, so it counts only where there is no other one.
        first, *others = self._finished
        return (others[-1] - first) / len(others) if others else first


def best_epoch(history, monitor, mode):
    """The first epoch that no other one surpasses.

    Args:
        history: List of the epochs' logs, at least one.
        monitor: Name in the logs.
        mode: `"min"` or `"max"`.

    Returns:
        A tuple of its number, counted from 1, and its value.
    """
    values = [logs[monitor] for logs in history]
    best = (min if mode == "min" else max)(values)
    return values.index(best) + 1, best
