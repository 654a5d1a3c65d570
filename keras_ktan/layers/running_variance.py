"""The variance of everything that was seen so far, one per dimension."""

import keras
from keras import ops

from keras_ktan.losses.reductions import without_padding


@keras.saving.register_keras_serializable(package="keras_ktan")
class RunningVariance(keras.layers.Layer):
    """Keeps the variance of the tensors that it was shown.

    Mean and variance of a batch are merged with those so far (Chan et al., 1979): no sum of
    squares loses its digits where the mean is large. The state is saved with the weights, so that
    a resumed training goes on with the same numbers.

    Args:
        dimensions: Size of the last axis; `None` for tensors `(batch,)`.
        **kwargs: Passed on to `keras.layers.Layer`.

    Example:

    ```python
    import numpy as np
    from keras_ktan.layers.running_variance import RunningVariance

    variance = RunningVariance(1)
    variance.update_state(np.array([[1.0], [3.0]]))
    variance.update_state(np.array([[5.0], [7.0]]))
    print(variance.result())  # [5.0], the variance of 1, 3, 5, 7
    ```

    Reference:
        - Chan, Golub, LeVeque, 1979: "Updating formulae and a pairwise algorithm for computing
          sample variances"
    """

    def __init__(self, dimensions, **kwargs):
        super().__init__(**kwargs)
        self.dimensions = dimensions
        shape = () if dimensions is None else (dimensions,)
        arguments = {
            "initializer": "zeros",
            "dtype": keras.config.floatx(),
            "trainable": False,
            "aggregation": "mean",  # replicas see their own parts of a batch
        }
        self.count = self.add_weight(shape=(), name="count", **arguments)
        self.mean = self.add_weight(shape=shape, name="mean", **arguments)
        self.variance = self.add_weight(shape=shape, name="variance", **arguments)
        self.built = True

    def update_state(self, values, mask=None):
        """Take in a batch.

        Args:
            values: Tensor `(batch, ..., dimensions)`, or `(batch,)`.
            mask: Optional boolean tensor `(batch, ...)` without the dimensions: the positions
                that are no padding.
        """
        values = ops.stop_gradient(ops.cast(values, self.mean.dtype))
        (values,) = without_padding(mask, values)
        values = ops.reshape(values, (-1, *self.mean.shape))
        if mask is None:
            shown = ops.ones((ops.shape(values)[0],), self.mean.dtype)
        else:
            shown = ops.reshape(ops.cast(mask, self.mean.dtype), (-1,))
        new = ops.sum(shown)
        # A replica without examples must not divide by 0.
        some = ops.maximum(new, 1.0)
        shown = ops.reshape(shown, (-1, *(1,) * len(self.mean.shape)))
        new_mean = ops.sum(values * shown, axis=0) / some
        new_variance = ops.sum(ops.square(values - new_mean) * shown, axis=0) / some
        count, mean, variance = (
            ops.convert_to_tensor(state) for state in (self.count, self.mean, self.variance)
        )
        share = new / ops.maximum(count + new, 1.0)
        difference = new_mean - mean
        self.count.assign(count + new)
        self.mean.assign(mean + share * difference)
        self.variance.assign(
            (1.0 - share) * variance
            + share * new_variance
            + share * (1.0 - share) * ops.square(difference)
        )

    def result(self):
        """The variance, a tensor `(dimensions,)`; 0 before anything was seen."""
        return ops.stop_gradient(ops.convert_to_tensor(self.variance))

    def get_config(self):
        return {**super().get_config(), "dimensions": self.dimensions}
