"""The game's own entries in the logs."""

import keras

NAMES = (
    "student_loss",
    "logits_loss",
    "feature_loss",
    "adversarial_loss",
    "t2s_loss",
    "discriminator_loss",
    "discriminator_accuracy",
)


class GameLog:
    """Running means of the terms that a compiled game computes, and of no others.

    A tracker that nobody updates would show up as 0 in the history.

    Args:
        objectives: The compiled `Objectives`.
        taken: Names in the logs that are the student's own: Keras calls the loss of an output
            `"logits"` `logits_loss`. The game's entry is then called `ktan_logits_loss`.
    """

    def __init__(self, objectives, taken=()):
        computed = {
            "student_loss": objectives.active("student"),
            "logits_loss": objectives.active("logits"),
            "feature_loss": objectives.active("feature"),
            "adversarial_loss": objectives.active("adversarial"),
            "t2s_loss": objectives.uses_maps,
            "discriminator_loss": objectives.uses_discriminator,
            "discriminator_accuracy": objectives.uses_discriminator,
        }
        # What a player minimises, or a part of it.
        self.losses = [name for name in NAMES if computed[name] and name.endswith("_loss")]
        self._trackers = {
            name: keras.metrics.Mean(name=f"ktan_{name}" if name in taken else name)
            for name in NAMES
            if computed[name]
        }
        self.trackers = list(self._trackers.values())

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
        return {tracker.name: tracker.result() for tracker in self.trackers}
