"""A batch that brings the teacher's outputs along, so that no teacher runs for it."""

import hashlib

import keras

# How the one key of `x` begins by which a train step knows such a batch.
KEY = "keras_ktan_cached_batch"


def batch_key(teacher):
    """The key of batches with what a teacher made; a batch says by it whose targets it holds.

    Args:
        teacher: The teacher's digest.

    Returns:
        Text.
    """
    return f"{KEY}_{hashlib.sha256(str(teacher).encode()).hexdigest()[:32]}"


def key_of(x):
    """The key of a batch with a teacher's outputs; `None` for a plain batch."""
    if isinstance(x, dict) and len(x) == 1:
        (key,) = x
        if isinstance(key, str) and key.startswith(f"{KEY}_"):
            return key
    return None


def pack(inputs, outputs, maps, key):
    """The `x` of a batch with what the teacher made of it.

    Dicts only: `tf.data` takes lists for tensors.

    Args:
        inputs: What the student takes.
        outputs: Dict from positions, as text, among the teacher's flattened outputs to arrays;
            `mask_key` of a position is the key of that output's Keras mask.
        maps: Dict from paths of the teacher's layers to arrays, with the masks likewise.
        key: The teacher's `batch_key`.

    Returns:
        A dict with this single key.
    """
    return {
        key: {
            "inputs": inputs,
            **{f"output:{position}": value for position, value in outputs.items()},
            **{f"map:{path}": value for path, value in maps.items()},
        }
    }


def unpack(x):
    """Take a batch's `x` apart.

    Args:
        x: The inputs of a plain batch, or what `pack` returned.

    Returns:
        A tuple `(inputs, outputs, maps)`; for a plain batch the other two are `None`.
    """
    key = key_of(x)
    if key is None:
        return x, None, None
    parts = dict(x[key])
    inputs, found = parts.pop("inputs"), {"output": {}, "map": {}}
    for name, value in parts.items():
        kind, _, key = name.partition(":")
        found[kind][key] = value
    return inputs, found["output"], found["map"]


def mask_key(name):
    """Under what name a batch holds the Keras mask of an output or of the map at a path."""
    return f"{name}#mask"


def plain_inputs(x):
    """The inputs of a batch, be it plain or not."""
    return unpack(x)[0]


def plain_batch(data, inputs_of=plain_inputs):
    """A batch as `fit`, `evaluate` or `predict` hands it over, without the teacher's part.

    Args:
        data: The batch.
        inputs_of: Function from a batch's `x` to what a model takes of it.

    Returns:
        A batch.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    return keras.utils.pack_x_y_sample_weight(inputs_of(x), y, sample_weight)


def plain_iterator(iterator, inputs_of):
    """What Keras iterates over in an epoch on JAX, with plain batches."""
    for begin, end, batches in iterator:
        yield begin, end, [plain_batch(batch, inputs_of) for batch in batches]


def require_maps(needed, known):
    """Refuse a cache, or a batch from one, that lacks a map.

    Args:
        needed: Paths of the teacher's layers whose maps the distiller uses.
        known: Paths whose maps there are.

    Raises:
        ValueError: If one is missing.
    """
    missing = [path for path in needed if path not in known]
    if missing:
        raise ValueError(
            f"The cache lacks the maps of the teacher's layers {missing}; it holds those of "
            f"{list(known)}. Expected every map that the distiller's pairs use. Fill a cache "
            "from this distiller, `TeacherCache(distiller, ...)`, or from the teacher with "
            f"`layer_names={list(needed)}`, in a new directory."
        )
