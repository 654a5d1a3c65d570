"""A metric that notes which term of a step was first NaN or infinite."""

import keras
from keras import ops

from keras_ktan.utils.finite import value_of


class DivergenceMetric(keras.metrics.Metric):
    """Notes inside the training step which terms were first NaN or infinite, and when.

    A metric, because every backend carries the state of metrics through its step. It shows
    nothing in the logs and forgets only when it is told to: Keras resets metrics before a
    validation.

    Args:
        terms: Names of the terms.
    """

    def __init__(self, terms):
        super().__init__(name="divergence_metric")
        self.terms = tuple(terms)
        self._bad = self.add_variable((len(terms),), "zeros", dtype="float32", name="bad")
        # Every replica counts the same steps.
        self._good_steps = self.add_variable(
            (), "zeros", dtype="float32", aggregation="mean", name="good_steps"
        )

    def update_state(self, values):
        """Note which terms of a step are not finite.

        Args:
            values: Dict from names to scalar tensors, with all terms.
        """
        values = ops.stack([ops.cast(values[name], keras.config.floatx()) for name in self.terms])
        bad = ops.cast(ops.logical_not(ops.isfinite(values)), "float32")
        known = ops.convert_to_tensor(self._bad)
        # A gradient carries the trouble to the other replicas, which note it a step later and in
        # all terms. What was noted early weighs more.
        bad = bad / (1.0 + ops.convert_to_tensor(self._good_steps))
        noted = ops.where(ops.any(known), known, bad)
        self._bad.assign(noted)
        self._good_steps.assign_add(ops.cast(ops.logical_not(ops.any(noted)), "float32"))

    def result(self):
        return {}

    def reset_state(self):
        """Nothing; see `clear`."""

    def clear(self):
        """Forget all that was noted."""
        super().reset_state()

    def first_bad(self):
        """What was noted.

        Returns:
            A tuple of the list of the terms that were first NaN or infinite, and the number of
            that step, from 1; `([], None)` where there is none.
        """
        bad = ops.convert_to_numpy(value_of(self._bad))
        if not bad.any():
            return [], None
        terms = [name for name, value in zip(self.terms, bad, strict=True) if value == bad.max()]
        return terms, self.good_steps() + 1

    def good_steps(self):
        """How many steps there were before the first bad one, or so far, since `clear`."""
        return int(ops.convert_to_numpy(value_of(self._good_steps)))
