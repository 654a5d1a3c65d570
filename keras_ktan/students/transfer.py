"""Give a student the teacher's weights for the channels that it kept."""

import keras
import numpy as np

from keras_ktan.students.model_config import is_graph, is_model


def layers_by_path(model, rules=(), prefix=""):
    """Layers with their paths; nested models are opened.

    Args:
        model: A Functional or Sequential model.
        rules: Classes whose layers are not opened.
        prefix: Path of the model, with a slash at the end.

    Returns:
        A dict.
    """
    found = {}
    for layer in model.layers:
        path = prefix + layer.name
        if is_model(layer) and type(layer) not in rules and is_graph(layer):
            found.update(layers_by_path(layer, rules, path + "/"))
        else:
            found[path] = layer
    return found


def check_shapes(graph, selection, student):
    """Whether the student's variables are what the graph says.

    Args:
        graph: The teacher's `ChannelGraph`.
        selection: The `Selection`.
        student: The built student.

    Raises:
        ValueError: If a variable has another shape: a rule is wrong.
    """
    for path, source, target in _variables(graph, student):
        expected = kept_shape(graph, selection, source)
        if tuple(target.shape) != expected:
            raise ValueError(
                f"The layer '{path}' of the student has the variable '{target.path}' of the "
                f"shape {tuple(target.shape)}, where the kept channels would fill {expected}. "
                "Expected equal shapes: the rule for this layer does not describe it. Pass "
                "another one with `rules={LayerClass: function}`."
            )


def copy_weights(graph, selection, student):
    """Set the student's variables.

    Args:
        graph: The teacher's `ChannelGraph`.
        selection: The `Selection`.
        student: The built student, with variables of the right shapes.
    """
    for _, source, target in _variables(graph, student):
        values = keras.ops.convert_to_numpy(source)
        kept = _kept(graph, selection, source, values)
        weight = graph.weights.get(id(source))
        if weight is not None and weight.factor is not None:
            kept = kept * np.asarray(weight.factor(selection), dtype=kept.dtype)
        target.assign(kept)
    for layer in layers_by_path(student, graph.rules).values():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def make_trainable(student):
    """Let every layer be trained, also where the teacher's was frozen.

    Args:
        student: A Functional or Sequential model.
    """
    student.trainable = True
    for layer in student.layers:  # a Sequential model does not hand the attribute on
        if is_model(layer) and is_graph(layer):
            make_trainable(layer)
        else:
            layer.trainable = True


def _variables(graph, student):
    """The teacher's variables beside the student's, with the path of their layer."""
    targets = layers_by_path(student, graph.rules)
    for path, layer in layers_by_path(graph.teacher, graph.rules).items():
        for source, target in zip(layer.weights, targets[path].weights, strict=True):
            yield path, source, target


def kept_shape(graph, selection, variable):
    """The shape of what is kept of a variable."""
    weight = graph.weights.get(id(variable))
    axes = {} if weight is None else weight.axes
    return tuple(
        selection.count(axes[axis]) if axis in axes else size
        for axis, size in enumerate(variable.shape)
    )


def _kept(graph, selection, variable, values):
    weight = graph.weights.get(id(variable))
    if weight is None:
        return values
    for axis, ids in weight.axes.items():
        values = np.take(values, selection.positions(ids), axis=axis)
    return values
