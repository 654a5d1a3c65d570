"""Follow the channels through a model: who makes them, who reads them, which are tied."""

import dataclasses

import keras
import numpy as np

from keras_ktan.students.channels import Channels, Decisions
from keras_ktan.students.graph_walk import input_names, run, walk
from keras_ktan.students.layer_rules import find_rule
from keras_ktan.students.layer_rules.narrowing import LayerCall
from keras_ktan.students.model_config import entry_name, is_graph, is_model, model_config


@dataclasses.dataclass(frozen=True)
class TensorRecord:
    """Where a tensor is made.

    Args:
        path: The path of the layer or operation, with `:0`, `:1`... where it makes several.
        layer: The layer or operation; `None` for an input.
        channels: The tensor's `Channels`.
    """

    path: str
    layer: object
    channels: Channels


class ChannelGraph:
    """The teacher as a graph of channels.

    The layers and operations that `get_config()` lists are visited in the order of the data. For
    each call a rule (see `layer_rules`) says which decisions the output's channels depend on,
    which axes of the weights belong to which decisions, and which entries of the layer's config
    are numbers of channels. Nested models are walked through at each call of them. All channels
    of the teacher's outputs stay.

    Args:
        teacher: A built Functional or Sequential model.
        rules: Optional dict from layer classes to rules, which are asked first.

    Attributes:
        config: The teacher's config, to be edited.
        decisions: `Decisions`.
        weights: Dict from `id(variable)` to `NarrowedWeight`.
        tensors: List of `TensorRecord`.

    Raises:
        ValueError: If no rule is known for a layer.
    """

    def __init__(self, teacher, rules=None):
        self.teacher = teacher
        self.rules = dict(rules or {})
        self.config = model_config(teacher)
        self.decisions = Decisions()
        self.weights = {}
        self.tensors = []
        self._edits = {}
        self._first_uses = {}
        self._read = {}
        inputs = [self.fixed(tensor.shape) for tensor in teacher.inputs]
        for output in self._walk(teacher, self.config, inputs, (), ""):
            if output.ids is not None:
                self.decisions.keep_all(output.ids)

    def opens(self, layer):
        """Whether a layer is a model that is walked through."""
        return is_model(layer) and type(layer) not in self.rules and is_graph(layer)

    def rule_for(self, layer, path):
        """The rule for a layer or an operation."""
        return find_rule(layer, path, self.rules)

    def new_channels(self, owner, path, size, name):
        """Decisions for the channels that a layer makes; the same ones whenever it is called."""
        key = (id(owner), name)
        if key not in self._first_uses:
            self._first_uses[key] = self.decisions.new_block(path, size)
        return self._first_uses[key]

    def fixed(self, shape):
        """A tensor of which nothing may be dropped."""
        shape = tuple(shape)
        images_last = keras.config.image_data_format() == "channels_last" or len(shape) < 4
        axis = len(shape) - 1 if images_last else 1
        if len(shape) < 2 or shape[axis] is None:
            return Channels(shape)
        ids = self.decisions.new(shape[axis])
        self.decisions.keep_all(ids)
        return Channels(shape, axis, ids)

    def edits(self, selection):
        """What a selection changes in the config.

        Args:
            selection: A `Selection`.

        Returns:
            Dict from locations (tuples of keys) to new values.

        Raises:
            ValueError: If calls of one shared layer want it in different sizes.
        """
        values = {}
        for location, edits in self._edits.items():
            old = self.config
            for key in location:
                old = old[key]
            wanted = [edit(selection, old) for _, edit in edits]
            if any(value != wanted[0] for value in wanted):
                raise ValueError(
                    f"The layer '{edits[0][0]}' is shared by several parts of the teacher, which "
                    f"would give its '{location[-1]}' the values {wanted}. Expected one value. "
                    "Give these parts equal widths (with a dict for `width`) or layers of their "
                    "own."
                )
            values[location] = wanted[0]
        return values

    def kept_channels(self, selection):
        """For the path of every tensor the indices of its channels that are kept."""
        return {
            record.path: selection.positions(record.channels.ids).tolist()
            for record in self.tensors
            if record.channels.ids is not None
        }

    def values_read(self, data):
        """What layers with kernels read when the teacher runs.

        Args:
            data: A batch of the teacher's inputs.

        Returns:
            A list of tuples `(channels, values)`.
        """
        found = []

        def note(path, tensor):
            for channels in self._read.get(path, ()):
                if channels.rank == len(tensor.shape):
                    found.append((channels, keras.ops.convert_to_numpy(tensor)))

        inputs = [keras.ops.convert_to_tensor(array) for array in keras.tree.flatten(data)]
        run(self.teacher, self.config, inputs, note, self.opens)
        return found

    def _walk(self, model, config, inputs, location, prefix):
        self._enter(model, config, inputs, location, prefix)
        return walk(model, config, inputs, self._visit, location, prefix)

    def _enter(self, model, config, inputs, location, prefix):
        """Note a model's inputs, and that its input layers get their shapes."""
        places = {entry_name(entry): place for place, entry in enumerate(config["layers"])}
        for name, channels in zip(input_names(model, config), inputs, strict=True):
            self.tensors.append(TensorRecord(prefix + name, None, channels))
            if channels.ids is None:
                continue
            first = self._first_uses.setdefault((id(model), "input", name), channels.ids)
            self.decisions.tie(first, channels.ids)
            if prefix:
                where = (*location, "layers", places[name], "config", "batch_shape")
                self._edit(where, prefix + name, _edit_of_shape(channels))

    def _visit(self, node):
        if self.opens(node.layer):
            tensors = [leaf for leaf in keras.tree.flatten(node.args) if isinstance(leaf, Channels)]
            outputs = self._walk(
                node.layer,
                node.config["config"],
                tensors,
                (*node.location, "config"),
                node.path + "/",
            )
        else:
            outputs = self._apply_rule(node)
        for number, output in enumerate(outputs):
            path = f"{node.path}:{number}" if len(outputs) > 1 else node.path
            self.tensors.append(TensorRecord(path, node.layer, output))
        return outputs

    def _apply_rule(self, node):
        call = LayerCall(
            graph=self,
            layer=node.layer,
            path=node.path,
            args=node.args,
            kwargs=node.kwargs,
            config=node.config["config"],
            output_shapes=node.output_shapes,
        )
        result = self.rule_for(node.layer, node.path)(call)
        for weight in result.weights:
            first = self.weights.setdefault(id(weight.variable), weight)
            for axis, ids in weight.axes.items() if first is not weight else ():
                self.decisions.tie(first.axes[axis], ids)
        if any(weight.measures == "kernel" for weight in result.weights):
            self._read.setdefault(node.path, []).append(call.input)
        for key, edit in result.config.items():
            keys = key if isinstance(key, tuple) else (key,)
            self._edit((*node.location, "config", *keys), node.path, _as_edit(edit))
        for location, edit in result.arguments.items():
            self._edit(location, node.path, edit)
        return result.outputs

    def _edit(self, location, path, edit):
        self._edits.setdefault(location, []).append((path, edit))


def _edit_of_shape(channels):
    def edit(selection, old):
        shape = list(old)
        shape[channels.axis] = selection.count(channels.ids)
        return shape

    return edit


def _as_edit(edit):
    if isinstance(edit, np.ndarray):
        return lambda selection, old: selection.count(edit)
    return edit
