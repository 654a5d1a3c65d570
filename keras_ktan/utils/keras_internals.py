"""What this package uses of Keras that Keras does not promise. Checked with Keras 3.15.1.

Each entry says why nothing public will do. When Keras changes, this module is the one to mend.
"""

import keras
from keras import ops


def symbolic_build(model, **data):
    """Make the variables of a compiled model's metrics and losses, from symbols of the data.

    Keras's own `fit` does so before the first step on JAX and torch. Nothing public makes these
    variables before a step: a metric of `compile` learns its shapes from the first batch.

    Args:
        model: A compiled `keras.Model`.
        **data: `iterator` or `data_batch`, as Keras hands them over.
    """
    model._symbolic_build(**data)


def loss_axis(loss):
    """The axis of the classes that a loss was made with.

    `SparseCategoricalCrossentropy` takes `axis` and shows it neither as an attribute nor in its
    config.

    Args:
        loss: A `keras.losses.Loss`.

    Returns:
        What the loss was given, -1 where it takes no axis.
    """
    return getattr(loss, "axis", getattr(loss, "_fn_kwargs", {}).get("axis", -1))


# The method of a Functional model that makes tensors of its inputs, a list of them.
CONVERT_INPUTS = "_convert_inputs_to_tensors"


def input_converter(model):
    """What makes tensors of a model's inputs, by its method `CONVERT_INPUTS`.

    Nothing public says which tensor a Functional model made of which input; see
    `keras_ktan.introspection.symbolic_run`.

    Args:
        model: A `keras.Model`.

    Returns:
        The Functional model, the one inside a Sequential model, or `None`.
    """
    model = getattr(model, "_functional", None) or model
    return model if hasattr(model, CONVERT_INPUTS) else None


class SymbolicBuildHook:
    """A base of models that make more variables where Keras makes those of the metrics.

    Keras's `fit`, `evaluate` and their like call `_symbolic_build` before the first step, on
    TensorFlow only where several devices share it. There is no public place for it.
    """

    def _symbolic_build(self, iterator=None, data_batch=None):
        super()._symbolic_build(iterator=iterator, data_batch=data_batch)
        self.on_symbolic_build(iterator, data_batch)

    def on_symbolic_build(self, iterator, data_batch):
        """Called with what Keras iterates over in an epoch or with a batch; the other is `None`."""


class StepSeed(keras.random.SeedGenerator):
    """A seed that follows from the step, so that a resumed run draws the same noise.

    Keras saves no layer's random state. `keras.random.normal` takes a number known while tracing
    or a `SeedGenerator`, no tensor; so this is a generator without a state, whose `next`, which
    Keras asks for a seed, returns the tensor.

    Args:
        step: Scalar int tensor.
        seed: Int, the same in all steps.
    """

    def __init__(self, step, seed):  # no state variable is wanted
        self._seed = ops.stack([ops.cast(step, "uint32"), ops.cast(seed, "uint32")])

    def next(self, ordered=True):
        return self._seed
