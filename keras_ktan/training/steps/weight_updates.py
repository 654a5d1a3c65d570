"""The weights' moves on TensorFlow, traced once for batches of all sizes."""

import json

import tensorflow as tf


class WeightUpdates:
    """Lets optimizers move weights without being traced again for each size of a batch.

    TensorFlow traces a step anew for a batch of another size. An optimizer's operations depend on
    the shapes of the weights alone, so they are a function of their own, which every trace of the
    step calls. Sparse gradients, whose shapes follow from the batch, are traced a second time with
    open ones.
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
            # An eager step stays eager, and `merge_call` is not allowed in a nested function.
            optimizer.apply(gradients, variables)
            return
        # The function keeps the optimizer and the variables alive, so their ids are not reused. A
        # layer may be frozen between two traces, and a setting such as `clipnorm` changed.
        key = (id(optimizer), _settings(optimizer), *map(id, variables))
        if key not in self._functions:
            self._functions[key] = _update_function(optimizer, variables)
        for gradient, variable in zip(gradients, variables, strict=True):
            if isinstance(gradient, tf.Tensor):
                # Where the batch's size is open, TensorFlow may lose the sizes of a gradient.
                gradient.set_shape(variable.shape)
        self._functions[key](gradients)


def _settings(optimizer):
    """What a trace takes for constants of an optimizer, as text."""
    with tf.init_scope():
        config = optimizer.get_config()
    if not isinstance(config.get("learning_rate"), dict):
        config.pop("learning_rate", None)  # a variable, no constant; a schedule is one
    return json.dumps(config, sort_keys=True, default=repr)


def _update_function(optimizer, variables):
    def update(gradients):
        optimizer.apply(gradients, variables)

    return tf.function(update, autograph=False, reduce_retracing=True)
