"""The layer calls of a Functional model, read from its graph.

A symbolic run of a ResNet50 takes a second on TensorFlow; the graph that Keras keeps says the same
at once. It says so publicly where every layer is called once and has no layers inside.
"""

import keras

from keras_ktan.introspection.layer_calls import intercept_calls
from keras_ktan.introspection.layer_kinds import HIDING

# In inference these return the very tensor that they are given.
_RETURNING = (*HIDING, keras.layers.ActivityRegularization, keras.layers.Identity)
# Without weights, and known to return a tensor of their own. Others may hand theirs on, as layers
# that change images in training alone do.
_MAKING = (
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.Concatenate,
    keras.layers.Dot,
    keras.layers.ELU,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
    keras.layers.LeakyReLU,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
    keras.layers.Maximum,
    keras.layers.Minimum,
    keras.layers.Multiply,
    keras.layers.Normalization,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    keras.layers.Softmax,
    keras.layers.Subtract,
)
# Likewise, where they change the shape.
_MOVING = (
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.UpSampling1D,
    keras.layers.UpSampling2D,
    keras.layers.UpSampling3D,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
)


def functional_calls(model, sublayers):
    """The calls of a model's layers in the order in which they run in inference.

    Args:
        model: A `keras.Model`.
        sublayers: Function from a layer to the layers inside it.

    Returns:
        A tuple `(calls, outputs)`: a list of tuples `(layer, inputs, output)`, the inputs a list of
        `keras.KerasTensor`; and the structure of the model's outputs. `None` where the graph does
        not show every call: the model is none of Keras's own Functional class, its batch size is
        fixed, a layer is not Keras's own, has layers inside, returns several tensors or may return
        its input, or is called twice.
    """
    if not type(model).__module__.startswith("keras.") or not hasattr(model, "operations"):
        return None
    if any(tensor.shape[0] is not None for tensor in model.inputs):
        return None
    # From the id of a tensor of the graph to the tensor that a run would have there.
    known = {id(tensor): tensor for tensor in model.inputs}
    calls = {}
    for operation in model.operations:
        if isinstance(operation, keras.layers.InputLayer):
            continue
        inputs, output = keras.tree.flatten(operation.input), operation.output
        # A layer that is called again shows its first call alone, which may be another model's:
        # then a tensor is used that nothing in here has made.
        if not isinstance(output, keras.KerasTensor) or not known.keys() >= set(map(id, inputs)):
            return None
        inputs = [known[id(tensor)] for tensor in inputs]
        is_layer = isinstance(operation, keras.layers.Layer)
        if is_layer and (sublayers(operation) or not _is_known(operation, inputs[0], output)):
            return None
        known[id(output)] = inputs[0] if is_layer and _returns_input(operation) else output
        if is_layer:
            calls[id(operation)] = (operation, inputs, known[id(output)])
    order = _order(model, calls)
    if order is None or not known.keys() >= set(map(id, model.outputs)):
        return None
    outputs = keras.tree.map_structure(lambda tensor: known[id(tensor)], model.output)
    return [calls[layer] for layer in order], outputs


def _is_known(layer, taken, made):
    if not type(layer).__module__.startswith("keras."):
        return False
    if type(layer) in _MOVING and taken.shape == made.shape:
        return False  # a backend may hand on what it need not move
    return bool(layer.trainable_variables) or type(layer) in (*_MAKING, *_MOVING, *_RETURNING)


def _returns_input(layer):
    if type(layer) is keras.layers.Activation:
        return layer.activation is keras.activations.linear
    return type(layer) in _RETURNING


def _order(model, calls):
    """The ids of the layers as they run; `None` unless each runs once.

    Layers that do not need each other may run in any order. Keras shows which it takes when it
    computes the shapes for a batch of another size.
    """
    ran = []

    def note(layer):
        def on_call(call, args, kwargs):
            ran.append(id(layer))
            return call(*args, **kwargs)

        return on_call

    hooks = [(layer, note(layer)) for layer, *_ in calls.values()]
    inputs = keras.tree.map_structure(
        lambda tensor: keras.KerasTensor((1, *tensor.shape[1:]), tensor.dtype), model.input
    )
    with intercept_calls(hooks, "compute_output_spec"):
        model.compute_output_spec(inputs)
    return ran if len(ran) == len(calls) == len(set(ran)) else None
