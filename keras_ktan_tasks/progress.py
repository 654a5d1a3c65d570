"""Where a long experiment stands and how long it will take."""

import time

import keras
import numpy as np


class EpochReport(keras.callbacks.Callback):
    """Prints where a long run stands, now and then.

    Args:
        label: What is running.
        every: Seconds between two lines at least; a short run prints none.
        describe: Function from an epoch's logs to the words that say how good it is.
    """

    def __init__(self, label, every=30, describe=None):
        super().__init__()
        self.label = label
        self.every = every
        self.describe = describe or _describe_accuracy

    def on_train_begin(self, logs=None):
        self._start = self._last = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        now, total = time.perf_counter(), self.params["epochs"]
        if now - self._last < self.every:
            return
        self._last = now
        left = (now - self._start) / (epoch + 1) * (total - epoch - 1)
        print(
            f"    {self.label}: epoch {epoch + 1}/{total}, {self.describe(logs)}, about "
            f"{duration(left)} of this run left",
            flush=True,
        )


def _describe_accuracy(logs):
    return f"{logs['val_accuracy']:.2%} on the validation images"


def duration(seconds):
    """Seconds as people say them."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def seconds_left(runs, methods):
    """Seconds that runs of these methods will take, estimated from the finished ones.

    Args:
        runs: List of finished runs, at least one.
        methods: List of methods, one a run to come.

    Returns:
        Float. A method that was not run yet counts as the mean of all runs.
    """
    seconds = {
        method: [run["seconds"] for run in runs if run["method"] == method] for method in methods
    }
    overall = np.mean([run["seconds"] for run in runs])
    return float(
        sum(np.mean(seconds[method]) if seconds[method] else overall for method in methods)
    )
