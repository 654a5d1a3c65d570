"""How many multiply-accumulates the operations between the layers of a Functional model do.

The classes of operations are not public: their names are all there is.
"""

import math

from keras_ktan.report.layer_macs import cannot_tell


def matmul(call):
    """Every output value sums over the last axis of the first tensor."""
    if len(call.input_shapes) != 2:  # lists of numbers have no shape
        return None
    return math.prod(call.output_shapes[0]) * call.input_shapes[0][-1]


def einsum(call):
    """With two tensors: one product for each choice of all the axes that are named."""
    terms = call.layer.subscripts.replace(" ", "").partition("->")[0].split(",")
    if not len(terms) == len(call.input_shapes) == 2 or "." in "".join(terms):
        return None
    sizes = {}
    for axes, shape in zip(terms, call.input_shapes, strict=True):
        for axis, size in zip(axes, shape, strict=True):
            sizes[axis] = max(size, sizes.get(axis, 1))
    return math.prod(sizes.values())


def dot_product_attention(call):
    """The scores of all pairs of positions, then the sum of the values, in each head."""
    query, key, value = call.input_shapes[:3]
    return math.prod(query[:-1]) * key[1] * (query[-1] + value[-1])


OPERATION_RULES = {
    "DotProductAttention": dot_product_attention,
    "Einsum": einsum,
    "Matmul": matmul,
    **dict.fromkeys(
        (
            "Conv",
            "ConvTranspose",
            "Correlate",
            "DepthwiseConv",
            "Dot",
            "Inner",
            "Kron",
            "SeparableConv",
            "Solve",
            "SolveTriangular",
            "Tensordot",
            "Vdot",
        ),
        cannot_tell,
    ),
}
