"""A data set that ends early is an error, not a shorter training."""

import keras


class WholeEpochs(keras.callbacks.Callback):
    """Ends the training when an epoch or a validation has fewer batches than the first one had.

    Keras warns and goes on, and the numbers of such epochs cannot be compared.

    Args:
        batches: How many an epoch must have; `None`: as many as the first one.
        validation_batches: The same for the validation.

    Raises:
        ValueError: At the end of the epoch, before a student is saved.
    """

    def __init__(self, batches=None, validation_batches=None):
        super().__init__()
        self._expected = {"data": batches, "validation_data": validation_batches}
        self._seen = {}

    def on_epoch_begin(self, epoch, logs=None):
        self._seen = {"data": 0, "validation_data": 0}

    # The beginnings: a callback that acts at a batch's end makes Keras wait for its logs. Where
    # the number is not known, one more begins than there are, in each epoch.
    def on_train_batch_begin(self, batch, logs=None):
        self._seen["data"] = batch + self.model.steps_per_execution

    def on_test_batch_begin(self, batch, logs=None):
        self._seen["validation_data"] = batch + self.model.steps_per_execution

    def on_epoch_end(self, epoch, logs=None):
        for name, seen in self._seen.items():
            expected = self._expected[name]
            if expected is None:
                self._expected[name] = seen
            elif seen < expected:
                raise ValueError(
                    f"Received fewer batches of `{name}` in epoch {epoch + 1} than before: it "
                    "ended early. Expected as many in each epoch. Pass data that begin anew in "
                    "each epoch and call `compress` again: what was trained before is kept."
                )
