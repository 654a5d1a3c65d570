"""Outside `fit` a distiller is its student."""

import contextlib
import inspect

import keras

from keras_ktan.cached_batch import plain_inputs
from keras_ktan.student_export import export_student


class ActsAsStudent:
    """What calling, evaluating and exporting a distiller means: the student does it.

    The class it is mixed into has a `student`, and says with `uses_own_loss` whether `compile`
    was given a loss, with `game_trackers` which metrics belong to the game alone, and with
    `divergence_watch` which one notes a divergence.
    """

    def call(self, inputs, training=None):
        return self.student(plain_inputs(inputs), training=training)

    @property
    def losses(self):
        """Empty: the student's regularisers are read from the student."""
        return []

    def regularisation(self):
        """The student's regularisers and `add_loss` terms, where its loss lacks them."""
        # The student's own loss holds them, unless that loss is switched off.
        own_loss_holds_them = not self.uses_own_loss and self.objectives.uses_labels
        return [] if own_loss_holds_them else list(self.student.losses)

    def labels_loss(self, x, y, y_pred, sample_weight, training=True):
        """The loss against the labels alone (with a student's own loss: whatever that holds)."""
        if y is None and not self.objectives.uses_labels:
            return keras.ops.zeros(())  # data without labels, and no term that wants any
        if self.uses_own_loss:
            return super().compute_loss(x, y, y_pred, sample_weight, training=training)
        return own_loss(self.student, x, y, y_pred, sample_weight, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """What the student's own `evaluate` reports as its loss."""
        x = plain_inputs(x)
        loss = self.labels_loss(x, y, y_pred, sample_weight, training=training)
        for extra in self.student.losses if self.uses_own_loss else []:
            loss = loss + keras.ops.cast(keras.ops.sum(extra), loss.dtype)
        return loss

    @property
    def metrics(self):
        metrics = super().metrics
        if self.compiled:
            metrics = [*metrics, *self.game_trackers, self.divergence_watch]
            if not self.uses_own_loss:
                metrics += [metric for metric in self.student.metrics if metric.name != "loss"]
        return metrics

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The metrics of the student's outputs; the game's own terms are not among them."""
        x = plain_inputs(x)
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

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """Export the student alone; see `export_student`."""
        export_student(self.student, filepath, format=format, **kwargs)


@contextlib.contextmanager
def without_optimizer(student):
    """While a student's metrics are made: its own optimizer trains nothing here, and gets no slots.

    Args:
        student: A compiled `keras.Model`.
    """
    optimizer, student.optimizer = student.optimizer, None
    try:
        yield
    finally:
        student.optimizer = optimizer


def has_own_compute_loss(model):
    """Whether a model computes its loss in a way of its own."""
    return type(model).compute_loss is not keras.Model.compute_loss


def own_loss(model, x, y, y_pred, sample_weight, training):
    """A model's own `compute_loss`; like Keras, also one written before it took `training`."""
    parameters = inspect.signature(model.compute_loss).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    more = {"training": training} if "training" in parameters or takes_all else {}
    return model.compute_loss(x, y, y_pred, sample_weight, **more)


def batch_size(inputs):
    """Number of examples in a batch of inputs."""
    return keras.ops.shape(keras.tree.flatten(inputs)[0])[0]
