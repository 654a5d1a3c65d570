"""Parameters, multiplications, bytes and memory of one model."""

import dataclasses

import keras
import numpy as np

from keras_ktan.introspection.model_trace import ModelTrace
from keras_ktan.report.macs import count_macs
from keras_ktan.report.memory import peak_activations
from keras_ktan.report.numbers_of_bytes import bytes_per_value


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """One model's size.

    Args:
        name: The model's name.
        parameters: Number of weights, trained or not.
        macs: Multiply-accumulates of one forward pass on one example, as far as they are counted;
            `None` where an axis of a map is open.
        weight_bytes: Bytes of the weights in the types they are kept in.
        uncounted_layers: Paths of layers and operations whose multiplications are not in `macs`
            although they multiply or hold weights.
        unseen_classes: Names of classes outside Keras that have a `call` of their own. What they
            multiply by themselves is not in `macs`; the layers that they call are.
        peak_activation_bytes: Bytes of the tensors alive at the widest moment of a forward pass on
            one example, nothing computed in place; `None` where an axis of a map is open.
        peak_is_complete: Whether all tensors were seen. If not, the peak is at least that.
    """

    name: str
    parameters: int
    macs: int | None
    weight_bytes: int
    uncounted_layers: tuple[str, ...] = ()
    unseen_classes: tuple[str, ...] = ()
    peak_activation_bytes: int | None = None
    peak_is_complete: bool = True


def sized_trace(model):
    """A trace of one example, which the sizes are read from.

    Args:
        model: A built `keras.Model`.

    Returns:
        A tuple of a `ModelTrace` and the size of its batch: 1, or what the model demands.

    Raises:
        ValueError: If the model is not built.
    """
    inputs = getattr(model, "inputs", None)
    batch_size = (inputs[0].shape[0] if inputs else None) or 1
    return ModelTrace(model, batch_size, with_operations=True), batch_size


def measure_size(model: keras.Model, macs_rules: dict | None = None) -> ModelSize:
    """Measure one model.

    Args:
        model: A built `keras.Model`.
        macs_rules: Optional dict from layer classes to functions of a `CountedCall`.

    Returns:
        A `ModelSize`.

    Raises:
        ValueError: If the model is not built.
    """
    trace, batch_size = sized_trace(model)
    counted = count_macs(trace, batch_size, macs_rules)
    peak = peak_activations(trace, batch_size)
    return ModelSize(
        name=model.name,
        parameters=model.count_params(),
        macs=counted.macs,
        weight_bytes=sum(int(np.prod(w.shape)) * bytes_per_value(w.dtype) for w in model.weights),
        uncounted_layers=counted.uncounted,
        unseen_classes=counted.unseen,
        peak_activation_bytes=peak.bytes,
        peak_is_complete=peak.is_complete,
    )


def validate_macs_rules(rules):
    """Check the rules that a user adds.

    Args:
        rules: What was received; `None` is none.

    Raises:
        ValueError: If it is no dict from layer classes to functions.
    """
    fits = rules is None or (
        isinstance(rules, dict)
        and all(
            isinstance(known, type) and issubclass(known, keras.layers.Layer) and callable(rule)
            for known, rule in rules.items()
        )
    )
    if not fits:
        raise ValueError(
            f"Received macs_rules={rules!r}. Expected a dict from layer classes to functions of a "
            "`CountedCall` that return a number. Write, for example, "
            "`macs_rules={MyLayer: lambda call: math.prod(call.output_shapes[0])}`."
        )
