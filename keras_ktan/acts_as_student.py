"""Outside `fit` a distiller is its student."""

import keras

from keras_ktan.student_export import export_student


class ActsAsStudent:
    """What calling, evaluating and exporting a distiller means: the student does it.

    The class it is mixed into has a `student`, and says with `uses_own_loss` whether `compile`
    was given a loss and with `game_trackers` which metrics belong to the game alone.
    """

    def call(self, inputs, training=None):
        return self.student(inputs, training=training)

    @property
    def losses(self):
        """Empty: the student's regularisers are read from the student."""
        return []

    def regularisation(self):
        """The student's regularisers and `add_loss` terms, where its loss lacks them."""
        return list(self.student.losses) if self.uses_own_loss else []

    def labels_loss(self, x, y, y_pred, sample_weight, training=True):
        """The loss against the labels alone (with a student's own loss: whatever that holds)."""
        if y is None and not self.objectives.uses_labels:
            return keras.ops.zeros(())  # data without labels, and no term that wants any
        if self.uses_own_loss:
            return super().compute_loss(x, y, y_pred, sample_weight, training=training)
        return self.student.compute_loss(x, y, y_pred, sample_weight, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """What the student's own `evaluate` reports as its loss."""
        loss = self.labels_loss(x, y, y_pred, sample_weight, training=training)
        for extra in self.regularisation():
            loss = loss + keras.ops.cast(keras.ops.sum(extra), loss.dtype)
        return loss

    @property
    def metrics(self):
        metrics = super().metrics
        if self.compiled:
            metrics = metrics + self.game_trackers
            if not self.uses_own_loss:
                metrics += [metric for metric in self.student.metrics if metric.name != "loss"]
        return metrics

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The metrics of the student's outputs; the game's own terms are not among them."""
        if self.uses_own_loss:
            results = super().compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        else:
            results = self.student.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
            results["loss"] = self._loss_metric().result()
        terms = {tracker.name for tracker in self.game_trackers}
        return {name: value for name, value in results.items() if name not in terms}

    def _loss_metric(self):
        return next(metric for metric in self.metrics if metric.name == "loss")

    def log_evaluation(self, x, y, y_pred, sample_weight, loss):
        """Update the trackers and return the logs of an evaluation step."""
        self._loss_metric().update_state(loss, sample_weight=batch_size(x))
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def export(self, filepath, **kwargs):
        """Export the student alone; see `export_student`."""
        export_student(self.student, filepath, **kwargs)


def batch_size(inputs):
    """Number of examples in a batch of inputs."""
    return keras.ops.shape(keras.tree.flatten(inputs)[0])[0]
