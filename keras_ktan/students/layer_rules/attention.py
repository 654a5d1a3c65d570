"""Attention: heads stay, each becomes narrower."""

import math

from keras_ktan.students.channels import Channels
from keras_ktan.students.layer_rules.narrowing import Narrowing, weight


def multi_head_attention(call):
    """MultiHeadAttention: the width of a head shrinks.

    Keras divides the products of queries and keys by the root of a head's width. The query's
    weights are scaled by the root of new over old width, so that what is left of a product
    keeps its size.
    """
    layer = call.layer
    query, value, *others = _tensors(call)
    key = others[0] if others else value
    head = call.new_channels(layer.key_dim, "key")
    head_value = call.new_channels(layer.value_dim, "value")
    # Without `output_shape` the layer makes as many channels as the query has.
    has_own_width = layer.get_config()["output_shape"] is not None
    made = call.new_channels(_output_size(layer), "output") if has_own_width else call.ids(query)

    def scale(selection):
        return math.sqrt(selection.count(head) / len(head))

    found = []
    for projection, tensor, ids, factor in (
        (layer.query_dense, query, head, scale),
        (layer.key_dense, key, head, None),
        (layer.value_dense, value, head_value, None),
    ):
        read = call.ids(tensor, -1)
        found += weight(projection.kernel, {0: read, 2: ids}, "kernel", 2, factor)
        found += weight(projection.bias, {1: ids}, factor=factor)
    output = layer.output_dense
    found += weight(output.kernel, {1: head_value, 2: made}, "kernel", 2)
    found += weight(output.bias, {0: made})
    config = {"key_dim": head, "value_dim": head_value}
    if has_own_width:
        config["output_shape"] = lambda selection, old: (
            selection.count(made) if isinstance(old, int) else [selection.count(made)]
        )
    shape = call.output_shape or (*query.shape[:-1], len(made))
    outputs = [Channels(shape, len(shape) - 1, made)]
    if 1 in call.output_shapes:
        outputs.append(Channels(call.output_shapes[1]))  # the scores
    return Narrowing(outputs, found, config)


def _tensors(call):
    """Query, value and, if given, key."""
    found = [
        call.argument(position, name) for position, name in enumerate(("query", "value", "key"))
    ]
    return [tensor for tensor in found if isinstance(tensor, Channels)]


def _output_size(layer):
    return layer.output_dense.kernel.shape[-1]


def grouped_query_attention(call):
    """GroupedQueryAttention: the width of a head shrinks, as in `multi_head_attention`."""
    query, value, *others = _tensors(call)
    key = others[0] if others else value
    size = call.layer.head_dim
    head, head_value = call.new_channels(size, "key"), call.new_channels(size, "value")
    made = call.ids(query)
    variables = {tuple(v.path.split("/")[-2:]): v for v in call.layer.weights}

    def scale(selection):
        return math.sqrt(selection.count(head) / size)

    found = []
    for name, tensor, ids, factor in (
        ("query", query, head, scale),
        ("key", key, head, None),
        ("value", value, head_value, None),
        ("gate", query, head_value, None),
    ):
        kernel, bias = variables.get((name, "kernel")), variables.get((name, "bias"))
        found += weight(kernel, {0: call.ids(tensor), 2: ids}, "kernel", 2, factor)
        found += weight(bias, {1: ids}, factor=factor)
    found += weight(variables["attention_output", "kernel"], {1: head_value, 2: made})
    found += weight(variables.get(("attention_output", "bias")), {0: made})
    shape = call.output_shape or query.shape
    return Narrowing([Channels(shape, len(shape) - 1, made)], found, {"head_dim": head})


def attention(call):
    """Attention, AdditiveAttention: no weights but a scale; sums of the values."""
    query, value, *others = call.inputs
    key = others[0] if others else value
    compared = call.ids(query, -1)
    call.tie(compared, call.ids(key, -1))
    found = []
    scale = getattr(call.layer, "scale", None)
    if scale is not None and len(scale.shape) == 1:
        found = weight(scale, {0: compared})
    shape = call.output_shape or (*query.shape[:-1], value.shape[-1])
    outputs = [Channels(shape, len(shape) - 1, call.ids(value, -1))]
    if 1 in call.output_shapes:
        outputs.append(Channels(call.output_shapes[1]))  # the scores
    return Narrowing(outputs, found)


RULES = {
    "MultiHeadAttention": multi_head_attention,
    "GroupedQueryAttention": grouped_query_attention,
    **dict.fromkeys(("Attention", "AdditiveAttention"), attention),
}
