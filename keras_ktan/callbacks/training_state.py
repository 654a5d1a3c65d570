"""Everything that a training changes, as arrays."""

import re
import warnings

import numpy as np
from keras import ops

from keras_ktan.utils.finite import value_of

_COUNTER = re.compile(r"_\d+(?![0-9A-Za-z])")


class TrainingState:
    """The variables of a distiller's networks, optimizers and random layers, and its metrics'.

    Args:
        distiller: A compiled `KTANDistiller`.
    """

    def __init__(self, distiller):
        self._distiller = distiller
        self._variables = distiller.state_variables

    def describe(self):
        """The variables' names, shapes and dtypes, the same in another process.

        The numbers that Keras appends to names are left out: they count what was built before.
        """
        return [
            f"{_COUNTER.sub('', variable.path)} {tuple(variable.shape)} {variable.dtype}"
            for variable in self._variables
        ]

    def take(self, with_metrics):
        """Copies of all values on the host.

        Args:
            with_metrics: Whether to add the running metrics of an epoch.

        Returns:
            A list of NumPy arrays.
        """
        metrics = self._metrics() if with_metrics else []
        return [*_values(self._variables), self._distiller.random_state(), *_values(metrics)]

    def restore(self, arrays):
        """Take the variables' values and the random state back.

        Args:
            arrays: What `take` returned.
        """
        for variable, array in zip(self._variables, arrays, strict=False):
            variable.assign(array)
        self._distiller.set_random_state(arrays[len(self._variables)])

    def restore_metrics(self, arrays, epoch):
        """Take the running metrics back.

        Args:
            arrays: What `take(with_metrics=True)` returned.
            epoch: Number of the epoch, for a warning.
        """
        arrays, variables = arrays[len(self._variables) + 1 :], self._metrics()
        if [array.shape for array in arrays] != [tuple(v.shape) for v in variables]:
            # The metrics of `compile` are others, or learn their shapes from a batch.
            warnings.warn(
                f"The backup holds other metrics than there are now. The logs of epoch {epoch + 1} "
                "are those of the batches that are still to come.",
                stacklevel=3,
            )
            return
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def _metrics(self):
        divergence = self._distiller.divergence_metric
        # It counts the steps of one call of `fit`.
        own = {id(variable) for variable in divergence.variables} if divergence else ()
        return [v for v in self._distiller.metrics_variables if id(v) not in own]


def _values(variables):
    return [np.asarray(ops.convert_to_numpy(value_of(variable))) for variable in variables]
