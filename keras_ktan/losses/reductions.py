"""From values at every position to one number per example, in full precision."""

import keras
from keras import ops


def in_full_precision(*tensors):
    """The tensors in `keras.config.floatx()`, also under mixed precision."""
    return [ops.cast(tensor, keras.config.floatx()) for tensor in tensors]


def mean_per_example(values):
    """The mean over all axes but the first.

    Args:
        values: Tensor `(batch, ...)`.

    Returns:
        Tensor `(batch,)`.
    """
    return ops.mean(ops.reshape(values, (ops.shape(values)[0], -1)), axis=-1)


def unreduced(loss):
    """A function of (teacher, student) tensors from what a user gave as one.

    Args:
        loss: A `keras.losses.Loss`, whose `call` is taken without its reduction, or a function.

    Returns:
        A function that returns a tensor `(batch,)`, the mean of what the loss returned over all
        axes but the first.
    """
    function = loss.call if isinstance(loss, keras.losses.Loss) else loss

    def per_example(teacher, student):
        values = function(*in_full_precision(teacher, student))
        shape = getattr(values, "shape", ())
        if len(shape) == 0:
            raise ValueError(
                f"The distillation loss {loss!r} returned a scalar. Expected one value per "
                "example: a tensor `(batch,)` or `(batch, positions...)`. Leave out its mean."
            )
        return values if len(shape) == 1 else mean_per_example(values)

    return per_example


def is_loss_function(value):
    """Whether a value is a `keras.losses.Loss` or a function, not a class."""
    return isinstance(value, keras.losses.Loss) or (callable(value) and not isinstance(value, type))
