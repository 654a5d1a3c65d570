"""Test by running it whether everything in a model passes through one of its maps.

Operations between layers are not traced, so that a trace cannot always tell. One forward pass
can: the model gets two different examples, the second goes on with the map of the first, and then
nothing that comes later may differ between the two.
"""

import keras
import numpy as np

from keras_ktan.introspection.feature_tap import select_output, split_path
from keras_ktan.introspection.layer_calls import FirstSteps, intercept_calls
from keras_ktan.introspection.model_trace import symbolic_input

# What the two examples may differ by behind a cut, relative to what they differ by before it.
_TOLERANCE = 0.01
# For axes of unknown length, by the rank of the input. Our choice: the smallest that the stems of
# the usual networks take.
_SIDES = {2: 16, 3: 64, 4: 128, 5: 32}


class _AllRefuted(Exception):
    """None of the maps is a cut: the pass need not go on."""


class _Watch:
    """Compares the examples during one forward pass.

    The first example is the reference. Each of the others belongs to one cut: where this cut's
    map is made, the example gets the reference's. Behind it nothing may differ any more.
    """

    def __init__(self, cuts):
        self.cuts = cuts
        self.before = [None] * len(cuts)
        self.holds = [True] * len(cuts)

    def hold(self, number, outputs):
        """The outputs of the layer that makes a cut's map, with the map held fixed."""
        cut = self.cuts[number]
        tensor = select_output(outputs, split_path(cut.path)[1], cut.path)
        self.before[number] = self._differences(tensor)[number]
        if not self.before[number] > 0:
            self._refute(number)
        row = number + 1
        held = keras.ops.concatenate([tensor[:row], tensor[:1], tensor[row + 1 :]], axis=0)
        return keras.tree.map_structure(lambda made: held if made is tensor else made, outputs)

    def compare(self, structure):
        """Refute the cuts whose example still differs in what a later layer takes."""
        waiting = [
            number
            for number, before in enumerate(self.before)
            if before is not None and self.holds[number]
        ]
        for tensor in keras.tree.flatten(structure) if waiting else ():
            if self._is_comparable(tensor):
                differences = self._differences(tensor)
                for number in waiting:
                    # `not <=`: what is not a number has not been shown to be equal.
                    if not differences[number] <= _allowed(tensor, self.before[number]):
                        self._refute(number)

    def _refute(self, number):
        self.holds[number] = False
        if not any(self.holds):
            raise _AllRefuted

    def _is_comparable(self, tensor):
        # Some layers fold other axes into the batch, one example behind the other.
        return (
            len(getattr(tensor, "shape", ())) > 0
            and tensor.shape[0] % (len(self.cuts) + 1) == 0
            and "float" in keras.backend.standardize_dtype(tensor.dtype)
        )

    def _differences(self, tensor):
        """How far each example is from the reference, relative to the largest number."""
        tensor = keras.ops.reshape(tensor, (len(self.cuts) + 1, -1))
        tensor = keras.ops.cast(tensor, "float32")
        apart = keras.ops.max(keras.ops.abs(tensor[1:] - tensor[:1]), axis=1)
        largest = keras.ops.max(keras.ops.abs(tensor))
        relative = apart / keras.ops.maximum(largest, keras.config.epsilon() ** 2)
        return keras.ops.convert_to_numpy(relative)


def confirm(trace, cuts):
    """Which maps a model's outputs depend on alone, by one forward pass for all of them.

    Args:
        trace: The `ModelTrace` of the model.
        cuts: A list of `Cut` of it, at least one.

    Returns:
        A list of booleans. `False` also where the map is the same for different examples, which
        proves nothing.
    """
    watch = _Watch(cuts)
    makers = {}
    for number, cut in enumerate(cuts):
        makers.setdefault(id(cut.layer), []).append(number)
    first = min(cut.position for cut in cuts)

    def on_call(layer):
        numbers = makers.get(id(layer), ())

        def run(call, args, kwargs):
            watch.compare((args, kwargs))
            outputs = call(*args, **kwargs)
            for number in numbers:
                outputs = watch.hold(number, outputs)
            return outputs

        return run

    later = {id(call.layer): call.layer for call in trace.calls[first:]}
    try:
        with (
            keras.StatelessScope(),
            intercept_calls([(layer, on_call(layer)) for layer in later.values()]),
        ):
            watch.compare(trace.model(_examples(trace, len(cuts)), training=False))
    except _AllRefuted:
        return [False] * len(cuts)
    return [
        holds and before is not None
        for holds, before in zip(watch.holds, watch.before, strict=True)
    ]


def concrete_shapes(trace):
    """The shapes of what each call made, where the model leaves the axes of its inputs open.

    Args:
        trace: A `ModelTrace`.

    Returns:
        A list with one list of shapes for each of `trace.calls`, from one forward pass.
    """
    shapes, steps = [], FirstSteps()

    def note(layer):
        def on_call(call, args, kwargs):
            def noted():
                outputs = call(*args, **kwargs)
                flat = keras.tree.flatten(outputs)
                shapes.append([tuple(t.shape) for t in flat if hasattr(t, "shape")])
                return outputs

            return steps.run(layer, noted, lambda: call(*args, **kwargs))

        return on_call

    layers = {id(layer): layer for layer in trace.layers.values()}
    hooks = [(layer, note(layer)) for layer in layers.values()]
    with keras.StatelessScope(), intercept_calls(hooks):
        trace.model(_examples(trace, 0), training=False)
    return shapes


def concrete_input_shapes(model):
    """The shapes of a model's inputs, without the batch, with a length for every axis.

    Args:
        model: A built `keras.Model`.

    Returns:
        A list of tuples.
    """
    return [_closed_shape(spec) for spec in keras.tree.flatten(symbolic_input(model))]


def _closed_shape(spec):
    side = _SIDES.get(len(spec.shape), 4)
    return tuple(side if size is None else size for size in spec.shape[1:])


def _examples(trace, others):
    """A random example, and another one repeated; the same ones every time."""
    generator = np.random.default_rng(0)
    embeddings = [
        call.layer.input_dim
        for call in trace.calls
        if isinstance(call.layer, keras.layers.Embedding)
    ]
    vocabulary = min(embeddings, default=2)

    def make(spec):
        shape = (2, *_closed_shape(spec))
        dtype = keras.backend.standardize_dtype(spec.dtype)
        if "mask" in (spec.name or "") or dtype == "bool":
            values = np.ones(shape)
        elif "int" in dtype:
            # 0 often means that there is nothing.
            lowest = 1 if vocabulary > 2 else 0
            values = generator.integers(lowest, max(vocabulary, 2), shape)
        else:
            values = generator.normal(size=shape)
            values[1] *= 20.0  # seen, whether the model expects [0, 1] or [0, 255]
        values = np.concatenate([values[:1], np.repeat(values[1:], others, axis=0)])
        return keras.ops.convert_to_tensor(values.astype("float32"), dtype=dtype)

    return keras.tree.map_structure(make, symbolic_input(trace.model))


def _allowed(tensor, before):
    """Rounding, or a small part of what the examples differed by before the map was held."""
    precision = {"float16": 1e-2, "bfloat16": 5e-2}.get(
        keras.backend.standardize_dtype(tensor.dtype), 1e-5
    )
    return min(max(precision, _TOLERANCE * before), 0.5 * before)
