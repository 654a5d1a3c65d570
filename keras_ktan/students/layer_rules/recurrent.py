"""Recurrent layers and wrappers: a unit has its place in every gate."""

import dataclasses

import numpy as np

from keras_ktan.students.channels import Channels
from keras_ktan.students.layer_rules.narrowing import Narrowing, weight

_GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}


def recurrent(call):
    """SimpleRNN, GRU, LSTM."""
    units = call.new_channels(call.layer.units)
    states = 2 if type(call.layer).__name__ == "LSTM" else 1
    for state in call.inputs[1:]:
        call.tie(call.ids(state, -1), units)
    sequence = _sequence(call, call.layer, units)
    outputs = [sequence]
    if call.layer.return_state:
        outputs += [Channels((sequence.shape[0], len(units)), 1, units)] * states
    return Narrowing(
        outputs,
        _cell_weights(call.layer, call.ids(call.input, -1), units),
        {"units": units},
    )


def _sequence(call, layer, units):
    batch, steps = call.input.shape[:2]
    shape = (batch, steps, len(units)) if layer.return_sequences else (batch, len(units))
    return Channels(shape, len(shape) - 1, units)


def _cell_weights(layer, read, units):
    cell = layer.cell
    gates = np.tile(units, _GATES[type(layer).__name__])
    return (
        weight(cell.kernel, {0: read, 1: gates}, "kernel", 1)
        + weight(cell.recurrent_kernel, {0: units, 1: gates})
        + weight(cell.bias, {-1: gates})
    )


def bidirectional(call):
    """Bidirectional: two recurrent layers, joined or added."""
    layer = call.layer
    kind = type(layer.forward_layer).__name__
    if kind not in _GATES or type(layer.backward_layer).__name__ != kind:
        raise ValueError(
            f"`slim_student` received the layer '{call.path}', a Bidirectional around "
            f"{kind}. Expected LSTM, GRU or SimpleRNN inside. Say how it passes channels on with "
            "`rules={keras.layers.Bidirectional: function}`."
        )
    if layer.return_state or len(call.inputs) > 1:
        raise ValueError(
            f"`slim_student` received the Bidirectional layer '{call.path}' with states as "
            "inputs or outputs. Expected one that passes on the sequence or its last output. "
            "Say how it passes channels on with `rules={keras.layers.Bidirectional: function}`."
        )
    read = call.ids(call.input, -1)
    forward = call.new_channels(layer.forward_layer.units, "forward")
    backward = call.new_channels(layer.backward_layer.units, "backward")
    found = _cell_weights(layer.forward_layer, read, forward)
    found += _cell_weights(layer.backward_layer, read, backward)
    config = {("layer", "config", "units"): forward}
    if "backward_layer" in call.config:
        config["backward_layer", "config", "units"] = backward
    sequence = _sequence(call, layer.forward_layer, forward)
    if layer.merge_mode == "concat":
        ids = np.concatenate([forward, backward])
        shape = (*sequence.shape[:-1], len(ids))
        return Narrowing([Channels(shape, sequence.axis, ids)], found, config)
    if layer.merge_mode is None:
        return Narrowing(
            [sequence, Channels(sequence.shape, sequence.axis, backward)], found, config
        )
    call.tie(forward, backward)
    return Narrowing([sequence], found, config)


def time_distributed(call):
    """TimeDistributed: the rule of the layer inside, without the axis of the steps."""
    inner = call.layer.layer
    step = _without_steps(call.input)
    path = f"{call.path}/{inner.name}"
    shape = call.output_shape
    result = call.rule_for(inner, path)(
        dataclasses.replace(
            call,
            layer=inner,
            args=[step],
            kwargs={},
            config=call.config["layer"]["config"],
            output_shapes={} if shape is None else {0: (shape[0], *shape[2:])},
        )
    )
    steps = call.input.shape[1]
    return dataclasses.replace(
        result,
        outputs=[
            Channels((o.shape[0], steps, *o.shape[1:]), o.axis and o.axis + 1, o.ids)
            for o in result.outputs
        ],
        config={
            ("layer", "config", *(key if isinstance(key, tuple) else (key,))): edit
            for key, edit in result.config.items()
        },
    )


def _without_steps(tensor):
    shape = (tensor.shape[0], *tensor.shape[2:])
    return Channels(shape, tensor.axis and tensor.axis - 1, tensor.ids)


RULES = {
    "TimeDistributed": time_distributed,
    **dict.fromkeys(_GATES, recurrent),
    "Bidirectional": bidirectional,
}
