"""Run a model symbolically, and follow its tensors where the backend copies them."""

import contextlib

import keras

from keras_ktan.introspection.layer_calls import intercept_calls
from keras_ktan.utils.keras_internals import CONVERT_INPUTS, input_converter


class SymbolicRun(keras.Operation):
    """Runs a function of symbolic tensors; Keras restores all state afterwards.

    Args:
        function: The function.
    """

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


@contextlib.contextmanager
def followed_copies(models):
    """Note which tensors are copies of what a model took.

    In a symbolic run on torch, a Functional model converts its inputs to tensors of its own. What
    its first layer gets is then another tensor than what went in, and no layer made it.

    Args:
        models: List of `keras.Model`, among them those that run inside others.

    Yields:
        A function from the id of a tensor to that of the first one it is a copy of.
    """
    originals, alive = {}, []

    def on_call(call, args, kwargs):
        copies = call(*args, **kwargs)
        for copy, original in zip(copies, *args, strict=True):
            if copy is not original:
                originals[id(copy)] = id(original)
                alive.append((copy, original))  # an id names a tensor only while it lives
        return copies

    def find(tensor_id):
        while tensor_id in originals:  # a model in a model takes a copy of a copy
            tensor_id = originals[tensor_id]
        return tensor_id

    converters = [converter for model in models if (converter := input_converter(model))]
    with intercept_calls([(one, on_call) for one in converters], CONVERT_INPUTS):
        yield find
