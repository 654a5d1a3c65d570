"""Where a long experiment stands and how long it will take."""

import time

import keras
import numpy as np


class EpochReport(keras.callbacks.Callback):
    """Prints where a long run stands, now and then.

    Args:
        label: What is running.
        every: Seconds between two lines at least; a short run prints none.
    """

    def __init__(self, label, every=30):
        super().__init__()
        self.label = label
        self.every = every

    def on_train_begin(self, logs=None):
        self._start = self._last = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        now, total = time.perf_counter(), self.params["epochs"]
        if now - self._last < self.every:
            return
        self._last = now
        left = (now - self._start) / (epoch + 1) * (total - epoch - 1)
        print(
            f"    {self.label}: epoch {epoch + 1}/{total}, {logs['val_accuracy']:.2%} on the "
            f"validation images, about {duration(left)} of this run left",
            flush=True,
        )


def duration(seconds):
    """Seconds as people say them."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def seconds_left(runs, ways):
    """Seconds that runs of these ways will take, judged by the finished ones.

    Args:
        runs: List of finished runs, at least one.
        ways: List of ways, one a run to come.

    Returns:
        Float. A way that was not run yet counts as the mean of all runs.
    """
    seconds = {way: [run["seconds"] for run in runs if run["way"] == way] for way in ways}
    overall = np.mean([run["seconds"] for run in runs])
    return float(sum(np.mean(seconds[way]) if seconds[way] else overall for way in ways))
