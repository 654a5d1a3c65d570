"""Which layer's map to take when the user names none, and what it comes out of."""

import keras

from keras_ktan.introspection.feature_tap import select_output

_POOLING = (
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
    keras.layers.Flatten,
)
# These change neither the sign nor the kind of what passes through them.
_TRANSPARENT = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.Identity,
)


def _is_map(spec):
    return hasattr(spec, "shape") and 3 <= len(spec.shape) <= 4


def _last_of_shape(calls, shape):
    """The layer whose output was cast on its way, under mixed precision."""
    alike = [
        call for call in calls if _is_map(call.output_specs) and call.output_specs.shape == shape
    ]
    return alike[-1] if alike else None


def last_feature_map(trace, role):
    """The path of a model's last feature map before its pooling or flattening.

    Args:
        trace: A `ModelTrace`.
        role: `"teacher"` or `"student"`, for the error.

    Returns:
        A path.

    Raises:
        ValueError: If it is not clear which map is meant; the candidates are listed.
    """
    poolings = [
        position
        for position, call in enumerate(trace.calls)
        if isinstance(call.layer, _POOLING) and any(_is_map(spec) for spec in call.input_specs)
    ]
    if poolings:
        last = poolings[-1]
        pooling = trace.calls[last]
        nothing_after = not any(
            _is_map(call.output_specs)
            and call.input_ids != pooling.input_ids
            # A model that holds the pooling ends after it; its output is no later map.
            and not pooling.path.startswith(f"{call.path}/")
            for call in trace.calls[last + 1 :]
        )
        source = trace.producer(pooling.input_ids[0]) or _last_of_shape(
            trace.calls[:last], pooling.input_specs[0].shape
        )
        if nothing_after and source is not None and len(trace.calls_of(source.path)) == 1:
            return source.path
    candidates = [
        f"'{call.path}' {call.output_specs.shape}"
        for call in trace.calls
        if _is_map(call.output_specs)
    ][-6:]
    raise ValueError(
        f"No layer was named and the {role} '{trace.model.name}' does not say which feature map "
        "is its last one (no single pooling or flattening layer at its end). Expected a "
        f"FeaturePair. The last candidates are: {', '.join(candidates) or 'none'}. Name one: "
        "`feature_pairs=FeaturePair(teacher_layer_name, student_layer_name)`."
    )


# Layers of Keras whose `activation` is the last thing they do.
_ENDING_IN_THEIR_ACTIVATION = (
    keras.layers.Activation,
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


def activation_behind(trace, path, key=None):
    """The activation that a layer's output comes out of.

    Args:
        trace: A `ModelTrace`.
        path: Path of a layer, without `:key`.
        key: Name or position of the output, for a layer that returns several.

    Returns:
        A function of a tensor, or `None` for none (or none that a layer shows).
    """
    calls = trace.calls_of(path)
    call = calls[-1] if calls else None
    while call is not None:
        if isinstance(call.layer, (keras.Model, *_TRANSPARENT)):
            ids = call.input_ids
            if isinstance(call.layer, keras.Model):
                ids = call.output_ids
                if key is not None:
                    flat = keras.tree.flatten(call.output_specs)
                    wanted = select_output(call.output_specs, key, path)
                    ids = [i for i, spec in zip(ids, flat, strict=True) if spec is wanted]
                    key = None
            source = trace.producer(ids[0]) if ids else None
            call = source if source is not call else None
            continue
        if isinstance(call.layer, (keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU)):
            # These hold no weights; a copy acts as the layer does.
            return type(call.layer).from_config(call.layer.get_config())
        if not isinstance(call.layer, _ENDING_IN_THEIR_ACTIVATION):
            return None
        activation = call.layer.activation
        if isinstance(activation, keras.layers.Layer):
            return None  # it may hold weights, which are the student's
        return activation if activation is not keras.activations.linear else None
    return None
