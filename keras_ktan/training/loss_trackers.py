"""The distillation's own entries in the logs."""

import keras
from keras import ops

TRACKER_NAMES = (
    "student_loss",
    "logits_loss",
    "feature_loss",
    "adversarial_loss",
    "t2s_loss",
    "discriminator_loss",
    "discriminator_accuracy",
)


class LossTrackers(keras.metrics.Metric):
    """Running means of the terms that are computed, and of no others.

    One metric for all of them: they are added up as one vector, where a metric for each would be
    as many small operations of every step again. A term that nobody updates would show up as 0
    in the history.

    Args:
        objectives: The compiled `Objectives`.
        taken: Names in the logs that are the student's own: Keras calls the loss of an output
            `"logits"` `logits_loss`. Our entry is then called `ktan_logits_loss`.
    """

    def __init__(self, objectives, taken=()):
        super().__init__(name="loss_trackers")
        computed = objectives.computed_terms()
        # What a network minimises, or a part of it.
        self.losses = [name for name in computed if name.endswith("_loss")]
        self._terms = [name for name in TRACKER_NAMES if name in computed]
        self.log_names = [f"ktan_{name}" if name in taken else name for name in self._terms]
        self._total = self.add_variable((len(self._terms),), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, values, batch_size):
        """Take in one batch.

        Args:
            values: Dict from names to unweighted means over the batch.
            batch_size: Number of examples, the weight of this batch in the means.
        """
        if not self._terms:
            return
        dtype = self._total.dtype
        batch_size = ops.convert_to_tensor(batch_size, dtype)
        values = ops.stack([ops.cast(values[name], dtype) for name in self._terms])
        self._total.assign_add(values * batch_size)
        self.count.assign_add(batch_size)

    def result(self):
        """Dict from the names in the logs to the running means."""
        if not self._terms:
            return {}
        means = ops.unstack(ops.divide_no_nan(self._total, self.count), len(self._terms))
        return dict(zip(self.log_names, means, strict=True))
