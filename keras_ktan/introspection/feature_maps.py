"""Which feature maps a model has, and which one is taken when the user names none."""

import collections
import math

import keras

from keras_ktan.introspection.activations import activation_behind, activation_name
from keras_ktan.introspection.cuts import is_map, map_calls
from keras_ktan.introspection.feature_tap import split_path
from keras_ktan.introspection.map_candidates import MapCandidates
from keras_ktan.introspection.model_trace import ModelTrace
from keras_ktan.introspection.substitution import concrete_input_shapes

FeatureMap = collections.namedtuple(
    "FeatureMap", ["path", "shape", "stride", "activation", "is_default"]
)
FeatureMap.__doc__ = """One feature map: where it is, and of what kind.

`path` is what `FeaturePair` takes. `stride` is how many input positions along an axis one
position of the map stands for, rounded; `None` where the input has other axes. `activation` is
the name of the function that the map comes out of.
"""


class FeatureMaps(list):
    """A list of `FeatureMap` that prints as a table."""

    @property
    def default(self):
        """The `FeatureMap` that is taken where the user names none, or `None`."""
        return next((entry for entry in self if entry.is_default), None)

    def __repr__(self):
        rows = [("path", "shape", "stride", "activation", "")]
        for entry in self:
            stride = "-" if entry.stride is None else str(entry.stride)
            default = "default" if entry.is_default else ""
            rows.append((entry.path, str(entry.shape), stride, entry.activation, default))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    __str__ = __repr__


def feature_maps(model: keras.Model) -> "FeatureMaps":
    """List the feature maps of a model from which a student can learn.

    Listed are the maps through which everything in the model passes, in the order in which the
    model makes them: what such a map holds is all that the rest of the model gets to know. There
    are none inside a residual block, and in a U-Net none between the first skip connection and
    the last. Where the model has operations between its layers, such as
    `inputs + layer(inputs)`, each map is tested by running the model on random inputs. A map that
    only a normalization or an activation reads is left out in favour of theirs. Any other layer
    can be named in a `FeaturePair`, too.

    The default is the last of them in the stage before the last; a stage is a part of the model
    with maps of one size. Expanded maps inside a block, with more channels than the block
    returns, and embeddings do not count. On CIFAR-10 the map of that stage gained more than the
    last one ("Which map" in `docs/results.md`). The rest is our choice: where that
    stage has no such map (NASNet, a detector), or where there is only one stage, it is the last
    map that is not an output of the model. In a transformer whose tokens keep their number it is
    the last one before the last attention, because the tokens behind it that the head does not
    read have learned nothing.

    Args:
        model: A built `keras.Model`: Functional, Sequential or subclassed, also with nested
            models. The channels are on the last axis.

    Returns:
        A list of `FeatureMap` with the fields `path`, `shape`, `stride`, `activation` and
        `is_default`, which prints as a table. Its attribute `default` is the one that
        is taken by default, or `None`. It is empty for a model without such maps.

    Raises:
        ValueError: If the model is not built.

    Example:

    ```python
    import keras
    from keras_ktan import feature_maps

    model = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None)
    print(feature_maps(model))
    print(feature_maps(model).default.path)  # block_12_add
    ```
    """
    trace = ModelTrace(model)
    candidates = MapCandidates(trace)
    default = candidates.default()
    input_shapes = concrete_input_shapes(model)
    return FeatureMaps(
        FeatureMap(
            cut.path,
            tuple(cut.spec.shape),
            _stride(input_shapes, candidates.shape(cut)),
            activation_name(activation_behind(trace, *split_path(cut.path))),
            cut is default,
        )
        for cut in candidates.confirmed(default)
    )


def default_feature_map(trace, role):
    """The path of the map that is taken when the user names none.

    Args:
        trace: A `ModelTrace`.
        role: `"teacher"` or `"student"`, for the error.

    Returns:
        A path, as `feature_maps` explains.

    Raises:
        ValueError: If there is none. The last maps are listed.
    """
    default = MapCandidates(trace).default()
    if default is not None:
        return default.path
    listed = [
        f"'{call.path}' {spec.shape}"
        for call in (trace.calls[position] for position in map_calls(trace)[-6:])
        for spec in keras.tree.flatten(call.output_specs)
        if is_map(spec)
    ]
    raise ValueError(
        f"No layer was named and the {role} '{trace.model.name}' has no feature map through which "
        "everything passes. Expected a FeaturePair. The last candidates are: "
        f"{', '.join(listed) or 'none'}. Name one: "
        "`feature_pairs=FeaturePair(teacher_layer_name, student_layer_name)`."
    )


def _stride(input_shapes, shape):
    """How many input positions along an axis one position of a map stands for."""
    axes = len(shape) - 2
    for taken in input_shapes:
        spatial = {axes + 1: taken[:-1], axes: taken}.get(len(taken))
        if spatial is None:
            continue
        ratio = (math.prod(spatial) / math.prod(shape[1:-1])) ** (1 / axes)
        # Convolutions without padding leave 17 positions of 299, where 16 is meant.
        power = 2 ** max(0, round(math.log2(ratio)))
        is_whole = math.isclose(ratio, round(ratio), abs_tol=0.01)
        return round(ratio) if is_whole or not 0.8 < ratio / power < 1.2 else power
    return None
