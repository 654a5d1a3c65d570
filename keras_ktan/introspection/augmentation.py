"""Augmentation layers inside a model: what else sees the images that they make?"""

import collections

import keras
import numpy as np

from keras_ktan.introspection.layer_calls import intercept_calls
from keras_ktan.introspection.layer_kinds import HIDING
from keras_ktan.introspection.model_trace import layers_by_path, sublayers, symbolic_input

# Random at every call in training. `GaussianNoise` and `Dropout` are no augmentation: they hide
# something from the student and leave the image what it is.
AUGMENTATION_LAYERS = tuple(
    getattr(keras.layers, name)
    for name in dir(keras.layers)
    if name.startswith("Random") or name in ("AugMix", "CutMix", "MixUp", "RandAugment")
)
# Of the made-up inputs. By chance a layer leaves an image as it is, but not all of them.
_BATCH = 8
_OPEN_AXIS = 32

_Call = collections.namedtuple("_Call", ["path", "augments", "taken", "made"])


class _NoneAtTheHead(Exception):
    """The layers of the user's own in front of the first weights are not random."""


def find_augmentation(model):
    """Where a student augments its images, so that the teacher can be shown the same ones.

    Layers of other kinds must not stand before, beside or between the augmentation layers, or
    the teacher would see something else than images. A layer of the user's own is one of them if
    it is random and stands before any layer with weights: it is run twice. Operations between
    layers are not seen from outside, so the model runs once on images made up for it, and tensors
    are compared by their numbers. No variable changes.

    Args:
        model: The student, a built `keras.Model`.

    Returns:
        Dict from the place of an input among the model's flattened inputs to the path of the
        last augmentation layer that it goes through.

    Raises:
        ValueError: If augmentation layers stand elsewhere in the model.
    """
    layers = {}  # the same layer may be found under two paths
    for path, layer in layers_by_path(model).items():
        layers.setdefault(id(layer), (path, layer))
    augmenting = {
        key: path for key, (path, layer) in layers.items() if isinstance(layer, AUGMENTATION_LAYERS)
    }
    # Those that RandAugment, say, is made of are no business of the model's.
    for key in list(augmenting):
        for inner in _all_sublayers(layers[key][1]):
            augmenting.pop(id(inner), None)
    own = {key for key, (_, layer) in layers.items() if _may_be_random(layer)} - set(augmenting)
    if not augmenting and not own:
        return {}
    try:
        inputs, calls = _observe(model, list(layers.values()), augmenting, own)
    except Exception as error:
        if not augmenting:
            return {}  # nothing is known to be random
        raise ValueError(
            f"The student '{model.name}' has augmentation layers {list(augmenting.values())}, and "
            f"could not be run on images made up to see where they stand ({error}). Expected a "
            "student that runs, or one without such layers. Augment in the data, before the "
            "images reach either model."
        ) from error
    return _match(model, inputs, calls)


def _may_be_random(layer):
    """Whether it is a layer of the user's own, a `Lambda` included, without weights."""
    is_lambda = isinstance(layer, keras.layers.Lambda)
    is_own = is_lambda or not type(layer).__module__.startswith("keras.")
    return is_own and not (layer.weights or sublayers(layer) or isinstance(layer, HIDING))


def _all_sublayers(layer):
    found = []
    for child in sublayers(layer):
        found += [child, *_all_sublayers(child)]
    return found


def _observe(model, layers, augmenting, own):
    """The inputs of one forward pass, and the list of its `_Call`s.

    Only the tensors of layers without layers inside are noted: what a container takes, its
    first layer takes.
    """
    calls, inside, weighted = [], [], []

    def note(path, layer):
        def on_call(call, args, kwargs):
            if inside:
                return call(*args, **kwargs)  # a part of an augmentation layer
            taken = _images((args, kwargs))
            inside.append(layer)
            try:
                outputs = call(*args, **kwargs)
                augments = id(layer) in augmenting
                if id(layer) in own and not weighted:
                    augments = _differ(outputs, call(*args, **kwargs))
            finally:
                inside.pop()
            calls.append(_Call(path, augments, taken, _images(outputs) if augments else []))
            if layer.weights and not isinstance(layer, keras.layers.Normalization):
                weighted.append(layer)
                if not augmenting and not any(call.augments for call in calls):
                    raise _NoneAtTheHead
            return outputs

        return on_call

    hooks = [
        (layer, note(path, layer))
        for path, layer in layers
        if id(layer) in augmenting
        or not (sublayers(layer) or isinstance(layer, keras.layers.InputLayer))
    ]
    generator = np.random.default_rng(0)
    inputs = keras.tree.map_structure(lambda spec: _made_up(spec, generator), symbolic_input(model))
    images = _images(inputs)  # before: on torch Keras's RandomBrightness changes what it takes
    with keras.StatelessScope(), intercept_calls(hooks):
        model(inputs, training=True)
    return images, calls


def _differ(one, other):
    pairs = zip(_images(one), _images(other), strict=True)
    return any(not _same(*pair) for pair in pairs)


def _made_up(spec, generator):
    shape = (_BATCH, *(length or _OPEN_AXIS for length in spec.shape[1:]))
    if keras.backend.is_float_dtype(spec.dtype):
        values = generator.uniform(size=shape)
    elif len(shape) > 3:
        values = generator.integers(0, 256, shape)
    else:
        values = np.ones(shape)  # an index of something; 0 may stand for padding
    return keras.ops.convert_to_tensor(values, dtype=spec.dtype)


def _images(structure):
    """Numbers of the tensors in a structure that may be images.

    Copies: on torch an array shares its memory with a tensor that a layer may change in place.
    """
    return [
        np.array(keras.ops.convert_to_numpy(keras.ops.cast(leaf, "float32")))
        for leaf in keras.tree.flatten(structure)
        if len(getattr(leaf, "shape", ())) > 0
    ]


def _match(model, inputs, calls):
    """Follow each input through the augmentation layers at the head of the model."""
    last = {}  # place of an input -> path of the last layer that augments it
    heads = dict(enumerate(inputs))  # place -> the image as it is there
    augmenting = [call for call in calls if call.augments]
    for call in augmenting:
        others = [other for other in calls if other is not call]
        if len(call.taken) != 1 or len(call.made) != 1 or call.path in last.values():
            raise _elsewhere(model, call.path)
        (taken,), (made,) = call.taken, call.made
        places = [place for place, image in heads.items() if _same(image, taken)]
        changed = not _same(taken, made)
        # An image as it was before must not go anywhere else.
        forks = changed and any(_same(image, taken) for other in others for image in other.taken)
        if len(places) != 1 or forks:
            raise _elsewhere(model, call.path)
        heads[places[0]] = made
        last[places[0]] = call.path
    return last


def _same(one, other):
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-2, atol=1e-3)


def _elsewhere(model, path):
    return ValueError(
        f"The student '{model.name}' has the augmentation layer '{path}' where the teacher cannot "
        "be shown the images that it makes: something other than inputs and augmentation layers "
        "stands before it or beside it. Expected augmentation layers at the head of the student, "
        "or none. Augment in the data, before the images reach either model, or move these layers "
        "to the front."
    )
