"""Keras's masks: which positions of a tensor are padding.

Keras keeps a tensor's mask where only a layer sees it: `Layer.__call__` hands it to `call` as
the argument `mask`, and takes what `compute_mask` returns for the mask of the output. The two
small layers here read and write masks in this public way, on every backend.
"""

import functools

import keras


class _MaskReader(keras.layers.Layer):
    """Returns its input's mask, or an empty tuple where there is none."""

    def call(self, inputs, mask=None):
        return () if mask is None else mask

    def compute_mask(self, inputs, previous_mask):
        return None


class _MaskWriter(keras.layers.Layer):
    """Returns its input with another mask."""

    def __init__(self, mask):
        super().__init__(name="mask_writer", autocast=False)
        # In a function: Keras would look into an attribute.
        self._mask = lambda: mask

    def call(self, inputs):
        return inputs + 0  # a tensor of its own: Keras keeps the mask on the tensor

    def compute_mask(self, inputs, previous_mask):
        return self._mask()


def read_mask(tensor):
    """The Keras mask of a tensor.

    Args:
        tensor: A tensor.

    Returns:
        A boolean tensor, or `None`.
    """
    mask = _mask_reader()(tensor)
    return None if isinstance(mask, tuple) else mask


@functools.cache
def _mask_reader():
    # One for all: making a layer takes half a millisecond, and torch runs this at every step.
    return _MaskReader(name="mask_reader", autocast=False)


def read_masks(structure):
    """The masks of all tensors in a structure, as a flat list."""
    return [read_mask(tensor) for tensor in keras.tree.flatten(structure)]


def with_mask(tensor, mask):
    """The tensor with a Keras mask, which the layers that it is given to will honour.

    Args:
        tensor: A tensor.
        mask: A boolean tensor, or `None`, which leaves the tensor as it is.

    Returns:
        A tensor of the same values.
    """
    return tensor if mask is None else _MaskWriter(mask)(tensor)


def call_with_masks(layer, call, args, kwargs):
    """Run a layer's `call`, and say what masks Keras will give to its outputs.

    Keras sets them after `call`, and a later layer may take them away again
    (`MultiHeadAttention` does), so they are found here and now.

    Args:
        layer: The `keras.layers.Layer`.
        call: Its own `call`.
        args: The arguments of this call.
        kwargs: Likewise.

    Returns:
        A tuple of what `call` returned and the flat list of its masks.
    """
    inputs = args[0] if args else next(iter(kwargs.values()), None)
    previous = kwargs.get("mask")
    if previous is None and inputs is not None:
        previous = keras.tree.map_structure(read_mask, inputs)
    outputs = call(*args, **kwargs)
    masks = read_masks(outputs)
    if any(mask is not None for mask in masks) or not layer.supports_masking:
        return outputs, masks
    computed = layer.compute_mask(inputs, previous)
    if computed is None:
        return outputs, masks
    flat = keras.tree.flatten(computed)
    # Keras pairs them from the front, too.
    return outputs, [*flat, *masks[len(flat) :]][: len(masks)]
