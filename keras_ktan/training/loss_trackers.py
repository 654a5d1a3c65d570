"""The distillation's own entries in the logs."""

import keras

TRACKER_NAMES = (
    "student_loss",
    "logits_loss",
    "feature_loss",
    "adversarial_loss",
    "t2s_loss",
    "discriminator_loss",
    "discriminator_accuracy",
)


class LossTrackers:
    """Running means of the terms that are computed, and of no others.

    A tracker that nobody updates would show up as 0 in the history.

    Args:
        objectives: The compiled `Objectives`.
        taken: Names in the logs that are the student's own: Keras calls the loss of an output
            `"logits"` `logits_loss`. Our entry is then called `ktan_logits_loss`.
    """

    def __init__(self, objectives, taken=()):
        computed = objectives.computed_terms()
        # What a network minimises, or a part of it.
        self.losses = [name for name in computed if name.endswith("_loss")]
        self._trackers = {
            name: keras.metrics.Mean(name=f"ktan_{name}" if name in taken else name)
            for name in TRACKER_NAMES
            if name in computed
        }
        self.metrics = list(self._trackers.values())

    def update(self, values, batch_size):
        """Take in one batch.

        Args:
            values: Dict from names to unweighted means over the batch.
            batch_size: Number of examples, the weight of this batch in the means.

        Returns:
            Dict from names to running means.
        """
        for name, tracker in self._trackers.items():
            tracker.update_state(values[name], sample_weight=batch_size)
        return {tracker.name: tracker.result() for tracker in self.metrics}
