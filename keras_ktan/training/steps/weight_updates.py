"""The weights' moves on TensorFlow, traced once for batches of all sizes."""

import tensorflow as tf


class WeightUpdates:
    """Lets optimizers move weights without being traced again for each size of a batch.

    TensorFlow traces a step anew for a batch of another size, and an optimizer's operations are a
    good half of a step's. They depend on the shapes of the weights alone. So they are a function
    of their own, which every trace of the step calls.
    """

    def __init__(self):
        self._functions = {}

    def apply(self, optimizer, gradients, variables):
        """Move the weights of a network.

        Args:
            optimizer: Its `keras.optimizers.Optimizer`.
            gradients: List with one tensor or `None` a variable.
            variables: List of `keras.Variable`.
        """
        if not tf.inside_function() or tf.distribute.has_strategy():
            # Replicas cannot meet inside of a function, and an eager step is to stay eager.
            optimizer.apply(gradients, variables)
            return
        # By the variables, too: a layer may be frozen between two traces. A function holds what
        # its key names, so that no other object gets the same number.
        key = (id(optimizer), *map(id, variables))
        if key not in self._functions:
            self._functions[key] = _update_function(optimizer, variables)
        for gradient, variable in zip(gradients, variables, strict=True):
            if isinstance(gradient, tf.Tensor):
                # Where the batch's size is open, TensorFlow may lose the sizes of a gradient.
                gradient.set_shape(variable.shape)
        self._functions[key](gradients)


def _update_function(optimizer, variables):
    def update(gradients):
        optimizer.apply(gradients, variables)

    return tf.function(update, autograph=False)
