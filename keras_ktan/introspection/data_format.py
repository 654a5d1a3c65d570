"""Where the channels of a map are."""

import keras

# Whoever moves axes knows where they go.
_MOVES_AXES = (keras.layers.Permute, keras.layers.Reshape)


def validate_channels_last(trace, path, tensor_ids, role):
    """A map whose channels are on the last axis.

    Args:
        trace: `ModelTrace` of the model.
        path: Path of the tapped layer.
        tensor_ids: What this layer made.
        role: `"teacher"` or `"student"`, for the error.

    Raises:
        ValueError: If the layers that the map comes from have their channels on the first axis.
    """
    if _is_channels_first(trace, path, tensor_ids):
        raise ValueError(
            f"The map at '{path}' of the {role} '{trace.model.name}' comes from layers with "
            "data_format='channels_first'. Expected the channels on the last axis, because T2S and "
            "the losses work on it. Build the model with data_format='channels_last', or put "
            "`keras.layers.Permute` behind the layer and name that one."
        )


def _is_channels_first(trace, path, tensor_ids):
    """The nearest layers before the map that have a `data_format` say so."""
    formats, waiting, seen, unknown = set(), list(tensor_ids), set(), False
    while waiting:
        tensor_id = waiting.pop()
        if tensor_id in seen:
            continue
        seen.add(tensor_id)
        call = trace.producer(tensor_id)
        if call is None:
            unknown = True  # an input, or made by an operation between layers
        elif not isinstance(call.layer, _MOVES_AXES):
            data_format = getattr(call.layer, "data_format", None)
            if data_format is None:
                waiting += call.input_ids
            else:
                formats.add(data_format)
    if formats or not unknown:
        return "channels_first" in formats
    position = trace.calls.index(trace.calls_of(path)[0])
    before = [getattr(call.layer, "data_format", None) for call in trace.calls[:position]]
    known = [data_format for data_format in before if data_format is not None]
    return known[-1:] == ["channels_first"]
