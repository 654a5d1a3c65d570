"""What a training is of, in words that are the same in the next process."""

import inspect
import json
import re
import warnings

import keras

# How and where steps run, and what is only reported.
_WITHOUT_INFLUENCE = (
    "run_eagerly",
    "steps_per_execution",
    "jit_compile",
    "metrics",
    "weighted_metrics",
)
# A seed that Keras draws is another one in each process; the state of the generators is kept.
_LEFT_OUT = ("seed", "shared_object_id", "build_config", "compile_config")
_COUNTER = re.compile(r"_\d+(?![0-9A-Za-z])")


def describe_training(student, temperature, pairing, compile_arguments):
    """Describe what decides over the steps of a training, but for the data and the teacher.

    Args:
        student: The student.
        temperature: A number.
        pairing: The `Pairing` of both models.
        compile_arguments: What `compile` was given.

    Returns:
        Dict from what it is to a text.
    """
    described = {
        "the student's layers": text_of(student),
        "temperature": text_of(temperature),
        "the pairs": text_of(pairing.describe()),
    }
    for name, value in compile_arguments.items():
        if name not in _WITHOUT_INFLUENCE:
            described[f"`{name}`"] = text_of(value)
    return described


def text_of(value):
    """A text that tells a value from others, without the numbers that Keras appends to names.

    The same code gives `dense_1` where another model was built before it, else `dense`.
    """
    if inspect.isroutine(value):
        return value.__qualname__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a lambda is not safe to load: nothing is loaded
            value = keras.saving.serialize_keras_object(value)
    except (TypeError, ValueError, NotImplementedError):
        return type(value).__qualname__  # a class of the user's without a config
    return json.dumps(_canonical(value), sort_keys=True, default=lambda part: type(part).__name__)


def _canonical(value):
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items() if key not in _LEFT_OUT}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return _COUNTER.sub("", value) if isinstance(value, str) else value
