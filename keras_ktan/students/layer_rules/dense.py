"""Dense, EinsumDense and Embedding."""

from keras_ktan.students.channels import Channels
from keras_ktan.students.layer_rules.narrowing import Narrowing, weight


def dense(call):
    """Dense: a unit is a channel."""
    layer, tensor = call.layer, call.input
    ids = call.ids(tensor, -1)
    units = call.new_channels(layer.units)
    shape = call.output_shape or (*tensor.shape[:-1], layer.units)
    return Narrowing(
        [Channels(shape, len(shape) - 1, units)],
        weight(layer.kernel, {0: ids, 1: units}, "kernel", 1) + weight(layer.bias, {0: units}),
        {"units": units},
    )


def embedding(call):
    """Embedding: the vocabulary stays, its vectors become shorter."""
    layer = call.layer
    call.keep_all(call.input)
    units = call.new_channels(layer.output_dim)
    shape = call.output_shape or (*call.input.shape, layer.output_dim)
    return Narrowing(
        [Channels(shape, len(shape) - 1, units)],
        weight(layer.embeddings, {1: units}, "kernel", 1),
        {"output_dim": units},
    )


def einsum_dense(call):
    """EinsumDense: of the new axes the last becomes narrower."""
    layer, tensor = call.layer, call.input
    equation = layer.equation.replace(" ", "")
    if "..." in equation:
        equation = _without_dots(equation, tensor.rank)
    left, made = equation.split("->")
    read, kernel = left.split(",")
    by_letter = {}
    if tensor.axis is not None and read[tensor.axis] in kernel:
        by_letter[read[tensor.axis]] = tensor.ids
    elif tensor.axis is not None and read[tensor.axis] not in made:
        call.keep_all(tensor)
    new = [letter for letter in made if letter in kernel and letter not in read]
    if new:
        size = layer.kernel.shape[kernel.index(new[-1])]
        by_letter[new[-1]] = call.new_channels(size)
    output, letter = _einsum_output(call, tensor, read, made, by_letter, new)
    axes = {i: by_letter[name] for i, name in enumerate(kernel) if name in by_letter}
    measured = kernel.index(new[-1]) if new else None
    found = weight(layer.kernel, axes, "kernel" if new else None, measured)
    if layer.bias is not None:
        found += weight(layer.bias, _bias_axes(layer, made, by_letter))
    config = {}
    if letter in by_letter and letter in made:
        config["output_shape"] = _edit_of_shape(made.index(letter) - len(made), by_letter[letter])
    return Narrowing([output], found, config)


def _einsum_output(call, tensor, read, made, by_letter, new):
    """The output's `Channels` and the letter of its narrower axis."""
    shape = call.output_shape or (None,) * len(made)
    letter = new[-1] if new else None
    passed = read[tensor.axis] if tensor.axis is not None else None
    if passed is not None and passed in made:
        # Channels that pass through beside new ones: one axis can become narrower.
        if letter is not None:
            call.keep_all(tensor)
        else:
            return Channels(shape, made.index(passed), tensor.ids), passed
    if letter is None:
        return Channels(shape), None
    return Channels(shape, made.index(letter), by_letter[letter]), letter


def _without_dots(equation, rank):
    left, made = equation.split("->")
    read, kernel = left.split(",")
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    dots = "".join(spare[: rank - len(read.replace("...", ""))])
    return f"{read.replace('...', dots)},{kernel}->{made.replace('...', dots)}"


def _bias_axes(layer, made, by_letter):
    named = [letter for letter in made if letter in (layer.bias_axes or "")]
    # A bias has an axis for each letter it names, and size 1 for those in between.
    letters = made[made.index(named[0]) :] if named else ""
    return {
        axis: by_letter[letter]
        for axis, letter in enumerate(letters)
        if letter in by_letter and letter in named
    }


def _edit_of_shape(from_end, ids):
    def edit(selection, old):
        shape = [old] if isinstance(old, int) else list(old)
        shape[from_end] = selection.count(ids)
        return shape

    return edit


RULES = {
    "Dense": dense,
    "Embedding": embedding,
    "EinsumDense": einsum_dense,
}
