"""How many multiply-accumulates each layer of Keras does: one short function a kind of layer.

The shapes are those of a batch of one example and hold whole numbers only. A function returns
`None` where it cannot tell.
"""

import math

import keras


def no_products(call):
    """Looks values up, or multiplies each by one number: no product is summed."""
    return 0


def cannot_tell(call):
    """Multiplies, in a form that is not counted here."""
    return None


def dense(call):
    """Every value that comes in meets every unit."""
    return math.prod(call.input_shapes[0]) * call.output_shapes[0][-1]


def einsum_dense(call):
    """Each entry of the kernel meets every position that its axes do not name."""
    terms, _ = call.layer.equation.split("->")
    axes, kernel_axes = terms.split(",")
    shape = call.input_shapes[0]
    # The axes that the dots stand for come first or, in "ab...", last.
    dots = ["."] * (len(shape) - len(axes.replace("...", "")))
    before, _, after = axes.partition("...")
    axes = [*before, *dots, *after]
    free = [size for axis, size in zip(axes, shape, strict=True) if axis not in kernel_axes]
    return math.prod(call.layer.kernel.shape) * math.prod(free)


def reversible_embedding(call):
    """A lookup; in reverse, a product with the whole table."""
    table = call.layer.input_dim, call.layer.output_dim
    if call.input_shapes[0][-1] == table[1] and call.output_shapes[0][-1] == table[0]:
        return math.prod(call.input_shapes[0]) * table[0]
    return 0


def convolution(call):
    """Every output value costs a window of its group's input channels."""
    layer = call.layer
    channels = _channels(layer, call.input_shapes[0]) // layer.groups
    return math.prod(call.output_shapes[0]) * math.prod(layer.kernel_size) * channels


def depthwise_convolution(call):
    """Every output value costs a window of one channel."""
    return math.prod(call.output_shapes[0]) * math.prod(call.layer.kernel_size)


def separable_convolution(call):
    """A depthwise convolution, then every filter sums over its channels."""
    layer, made = call.layer, call.output_shapes[0]
    positions = math.prod(made) // layer.filters
    channels = _channels(layer, call.input_shapes[0]) * layer.depth_multiplier
    return positions * channels * (math.prod(layer.kernel_size) + layer.filters)


def transposed_convolution(call):
    """Every input value is spread over a window of the filters."""
    layer = call.layer
    return math.prod(call.input_shapes[0]) * math.prod(layer.kernel_size) * layer.filters


def projected_attention(call):
    """The two products of attention; the layers inside project queries, keys and values."""
    inside = call.shapes_inside
    if not {"query", "key", "value"} <= set(inside):
        return None
    query, key, value = inside["query"], inside["key"], inside["value"]
    # (batch, positions..., heads, width): several axes of positions are attended to at once.
    axes = getattr(call.layer, "attention_axes", None) or range(1, len(query) - 2)
    attended = math.prod(key[axis] for axis in axes)
    return math.prod(query[:-1]) * attended * (query[-1] + value[-1])


def attention(call):
    """The scores of all pairs of positions, then the sum of the values."""
    query, value, key = _attention_shapes(call)
    pairs = math.prod(query[:-1]) * key[-2]
    # With score_mode="concat" the scores are sums of tanh(query + key): no products.
    scores = query[-1] if call.layer.score_mode == "dot" else 0
    return pairs * (scores + value[-1])


def additive_attention(call):
    """The weighted sum of tanh(query + key) for all pairs, then the sum of the values."""
    query, value, key = _attention_shapes(call)
    pairs = math.prod(query[:-1]) * key[-2]
    return pairs * ((query[-1] if call.layer.use_scale else 0) + value[-1])


def dot(call):
    """Every output value sums over the axis that both tensors share."""
    axes = call.layer.axes
    axis = axes if isinstance(axes, int) else axes[0]
    return math.prod(call.output_shapes[0]) * call.input_shapes[0][axis]


def recurrent(call):
    """As often as there are steps, what the cell does in one."""
    sequence = max(call.input_shapes, key=len)  # states have no axis of time
    step = call.macs_of_cell(call.layer.cell, (sequence[0], *sequence[2:]))
    return None if step is None else sequence[1] * step


def time_distributed(call):
    """Nothing by itself: it calls its layer once for each step."""
    return 0


def gated_cell(gates):
    """The rule of a cell whose gates each see the input and the state."""

    def rule(call):
        batch, width = call.input_shapes[0]
        units = call.layer.units
        return batch * gates * units * (width + units)

    return rule


def stacked_cells(call):
    """Each cell takes the output of the one before it."""
    shape, total = call.input_shapes[0], 0
    for cell in call.layer.cells:
        step = call.macs_of_cell(cell, shape)
        if step is None:
            return None
        total += step
        shape = (*shape[:-1], output_size(cell))
    return total


def convolutional_lstm(call):
    """Four gates, each a convolution of the input and one of the state."""
    layer, sequence = call.layer, max(call.input_shapes, key=len)
    made = call.output_shapes[0][2 if layer.return_sequences else 1 :]
    widths = _channels(layer, sequence) + layer.filters
    # The state has the output's shape and meets its window at every position, padded.
    step = math.prod(made) * math.prod(layer.kernel_size) * 4 * widths
    return sequence[0] * sequence[1] * step


def output_size(cell):
    """The width of a recurrent cell's output, as `keras.layers.RNN` finds it."""
    size = getattr(cell, "output_size", None)
    if size is None:
        state = cell.state_size
        size = state if isinstance(state, int) else state[0]
    return size


def _channels(layer, shape):
    return shape[-1] if layer.data_format == "channels_last" else shape[-1 - len(layer.kernel_size)]


def _attention_shapes(call):
    shapes = [shape for shape in call.input_shapes if len(shape) > 2]  # masks have rank 2
    query, value = shapes[:2]
    return query, value, shapes[2] if len(shapes) > 2 else value


_OF_LAYERS = {
    no_products: (
        "BatchNormalization",
        "Discretization",
        "Embedding",
        "GroupNormalization",
        "LayerNormalization",
        "Normalization",
        "PReLU",
        "RMSNormalization",
        "SpectralNormalization",  # its power iteration runs in training only
    ),
    cannot_tell: (
        "FlaxLayer",
        "JaxLayer",
        "MelSpectrogram",
        "STFTSpectrogram",
        "TFSMLayer",
        "TorchModuleWrapper",
    ),
    additive_attention: ("AdditiveAttention",),
    attention: ("Attention",),
    convolution: ("Conv1D", "Conv2D", "Conv3D"),
    convolutional_lstm: ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
    dense: ("Dense",),
    depthwise_convolution: ("DepthwiseConv1D", "DepthwiseConv2D"),
    dot: ("Dot",),
    einsum_dense: ("EinsumDense",),
    gated_cell(1): ("SimpleRNNCell",),
    gated_cell(3): ("GRUCell",),
    gated_cell(4): ("LSTMCell",),
    projected_attention: ("GroupQueryAttention", "MultiHeadAttention"),
    recurrent: ("RNN",),
    reversible_embedding: ("ReversibleEmbedding",),
    separable_convolution: ("SeparableConv1D", "SeparableConv2D"),
    stacked_cells: ("StackedRNNCells",),
    time_distributed: ("TimeDistributed",),
    transposed_convolution: ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
}
# Older versions of Keras lack the one or the other.
LAYER_RULES = {
    getattr(keras.layers, name): rule
    for rule, names in _OF_LAYERS.items()
    for name in names
    if hasattr(keras.layers, name)
}
# Layers of keras.applications are not public: their names are all there is.
NAMED_LAYER_RULES = {"LayerScale": no_products}
