"""What happens inside a model during one forward pass, seen from outside.

Every part of the package that must know a model's inside (which layer a path
names, which layer made the class logits, how many multiplications a layer
does) asks here, so that Functional, Sequential, subclassed and nested models
are all read in the same way: by letting the model run once on symbolic inputs
and noting every layer call, or by what its graph says of such a run. No number
is computed and no variable changes.
"""

import collections

import keras
import numpy as np

from keras_ktan.introspection.functional_calls import functional_calls
from keras_ktan.introspection.layer_calls import FirstSteps, intercept_calls
from keras_ktan.introspection.symbolic_run import SymbolicRun, followed_copies

LayerCall = collections.namedtuple(
    "LayerCall",
    ["path", "layer", "input_ids", "input_specs", "output_ids", "output_specs", "first_inside"],
)
LayerCall.__doc__ = """One call of one layer: who, from what, to what.

`input_ids` and `output_ids` identify tensors, so that the producer of a tensor
can be found; the `specs` are structures of `keras.KerasTensor`. A call ends after
those inside it: they are `trace.calls` from the number `first_inside` up to this one.
"""


def sublayers(layer):
    """The direct sublayers of a layer, in the order in which they were made.

    Args:
        layer: A `keras.layers.Layer`.

    Returns:
        A list of layers without repetitions.
    """
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    found = {}

    def collect(value):
        if isinstance(value, keras.layers.Layer):
            if value is not layer:
                found.setdefault(id(value), value)
        elif isinstance(value, (list, tuple)):
            for item in value:
                collect(item)
        elif isinstance(value, dict):
            for item in value.values():
                collect(item)

    for value in list(vars(layer).values()):
        collect(value)
    return list(found.values())


def layers_by_path(model):
    """Every layer inside a model under its path of names.

    Args:
        model: A `keras.Model`.

    Returns:
        A dict from paths (`"backbone/stage4_out"`) to layers. The model itself
        is not in it. A layer that can be reached in two ways appears under both;
        a name that stands twice in one place is kept once, as `ambiguous_paths` says.
    """
    return {path: layers[0] for path, layers in _walk(model).items()}


def ambiguous_paths(model):
    """Paths that name more than one layer.

    Args:
        model: A `keras.Model`.

    Returns:
        A dict from each such path to how many layers answer to it.
    """
    return {path: len(layers) for path, layers in _walk(model).items() if len(layers) > 1}


def _walk(model):
    found = collections.OrderedDict()

    def visit(layer, prefix, ancestors):
        for child in sublayers(layer):
            if id(child) in ancestors:
                continue
            path = f"{prefix}{child.name}"
            found.setdefault(path, []).append(child)
            visit(child, f"{path}/", ancestors | {id(child)})

    visit(model, "", {id(model)})
    return found


def supports_jit(model):
    """Whether every layer of a model can be compiled by XLA."""
    return all(layer.supports_jit for layer in layers_by_path(model).values())


def operations_by_path(model):
    """The operations that Functional models have between their layers.

    Args:
        model: A `keras.Model`.

    Returns:
        A dict from paths (`"backbone/matmul"`) to operations that are no layers.
    """
    found = {}
    for path, layer in {"": model, **layers_by_path(model)}.items():
        for operation in getattr(layer, "operations", []):
            if not isinstance(operation, keras.layers.Layer):
                found[f"{path}/{operation.name}".lstrip("/")] = operation
    return found


def symbolic_input(model, batch_size=None):
    """Symbolic inputs with the structure, shapes and dtypes a built model takes.

    Args:
        model: A built `keras.Model`.
        batch_size: The size of the batch axis, which is left open by default.

    Returns:
        A structure of `keras.KerasTensor`.

    Raises:
        ValueError: If the model was never built, so that its input is unknown.
    """

    def open_batch(shape, dtype, name=None):
        return keras.KerasTensor((batch_size, *shape[1:]), dtype=dtype, name=name)

    if isinstance(model, keras.Sequential) and getattr(model, "inputs", None):
        # A Sequential model that nobody called has no `input`.
        return open_batch(model.inputs[0].shape, model.inputs[0].dtype)
    if getattr(model, "inputs", None):
        return keras.tree.map_structure(
            lambda tensor: open_batch(tensor.shape, tensor.dtype), model.input
        )
    config = model.get_build_config() if model.built else None
    if not config:
        raise ValueError(
            f"The model '{model.name}' is not built, so its shapes are not known. "
            "Expected a built model. Call it once on a batch of inputs (or give it an "
            "`Input`) before you hand it over."
        )
    shapes = config.get("input_shape")
    if shapes is None:
        shapes = next(iter(config["shapes_dict"].values()))
    return keras.tree.map_shape_structure(
        lambda shape: open_batch(shape, keras.config.floatx()), shapes
    )


class ModelTrace:
    """The layer calls of one symbolic forward pass of a model.

    Args:
        model: A built `keras.Model`.
        batch_size: The size of the batch axis, which is left open by default.
        with_operations: Whether the operations that Functional models have between their layers
            are noted like calls of layers.

    Raises:
        ValueError: If the model is not built.

    Example:

    ```python
    import keras
    from keras_ktan.introspection.model_trace import ModelTrace

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="logits")])
    trace = ModelTrace(model)
    print(trace.calls_of("logits")[0].output_specs.shape)  # (None, 3)
    ```
    """

    def __init__(self, model, batch_size=None, with_operations=False):
        self.model = model
        self.layers = layers_by_path(model)
        self.inputs = symbolic_input(model, batch_size)
        found = None
        if batch_size is None and not with_operations:
            found = functional_calls(model, sublayers)
        if found is None:
            self._run(operations_by_path(model) if with_operations else {})
        else:
            self._read(*found)

    def _read(self, found, outputs):
        """Take the calls that a Functional model's graph shows."""
        paths = {id(layer): path for path, layer in reversed(self.layers.items())}
        self.outputs = outputs
        self.input_ids, self.output_ids = _ids(self.model.input), _ids(self.outputs)
        self.calls = [
            LayerCall(paths[id(layer)], layer, _ids(inputs), inputs, _ids(output), output, place)
            for place, (layer, inputs, output) in enumerate(found)
        ]

    def _run(self, operations):
        """Run the model on symbolic inputs and note the calls."""
        model = self.model
        first_paths = {}
        for path, layer in {**self.layers, **operations}.items():
            first_paths.setdefault(id(layer), (path, layer))
        # Tensors live as long as this list: `id` names a tensor only while it lives.
        events, ids, steps = [], {}, FirstSteps()

        def note(path, layer):
            def on_call(call, args, kwargs):
                def noted():
                    first_inside = len(events)
                    outputs = call(*args, **kwargs)
                    events.append((path, layer, _tensors((args, kwargs)), outputs, first_inside))
                    return outputs

                return steps.run(layer, noted, lambda: call(*args, **kwargs))

            return on_call

        models = [layer for _, layer in first_paths.values() if isinstance(layer, keras.Model)]

        def run(inputs):
            # Some backends run this twice, to learn which axes stay open.
            events.clear()
            hooks = [(layer, note(path, layer)) for path, layer in first_paths.values()]
            with intercept_calls(hooks), followed_copies([model, *models]) as original:
                outputs = model(inputs, training=False)
                ids["inputs"], ids["outputs"] = _ids(inputs), _ids(outputs)
                ids["calls"] = [
                    ([original(taken) for taken in _ids(event[2])], _ids(event[3]))
                    for event in events
                ]
            return outputs, [event[2] for event in events], [event[3] for event in events]

        self.outputs, taken, made = SymbolicRun(run)(self.inputs)
        self.input_ids, self.output_ids = ids["inputs"], ids["outputs"]
        self.calls = [
            LayerCall(path, layer, input_ids, input_specs, output_ids, output_specs, first)
            for (path, layer, *_, first), (input_ids, output_ids), input_specs, output_specs in zip(
                events, ids["calls"], taken, made, strict=True
            )
        ]
        events.clear()

    def calls_of(self, path):
        """The calls of the layer that a path names.

        Args:
            path: A path of layer names.

        Returns:
            A list of `LayerCall`, in order; empty when the layer did not run.
        """
        layer = self.layers[path]
        return [call for call in self.calls if call.layer is layer]

    def producer(self, tensor_id):
        """The innermost layer call that made a tensor.

        Args:
            tensor_id: One of the ids in a `LayerCall` or in `output_ids`.

        Returns:
            A `LayerCall`, or `None` when no layer made the tensor.
        """
        makers = [call for call in self.calls if tensor_id in call.output_ids]
        # A nested model returns its last layer's very tensor; that layer ended first.
        return makers[0] if makers else None


def _tensors(structure):
    return [
        # An operation may take a constant or a variable as it is.
        keras.ops.convert_to_tensor(leaf)
        if isinstance(leaf, (np.ndarray, np.generic, keras.Variable))
        else leaf
        for leaf in keras.tree.flatten(structure)
        if hasattr(leaf, "shape")
    ]


def _ids(structure):
    return [id(tensor) for tensor in _tensors(structure)]
