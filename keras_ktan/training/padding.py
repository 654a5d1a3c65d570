"""Padding: the masks of two maps that meet, and T2S's map with the mask that both leave."""

import collections

from keras import ops

from keras_ktan.layers.resize import resize_mask

Target = collections.namedtuple("Target", ["map", "mask", "teacher_map", "teacher_mask"])
Target.__doc__ = """T2S's map R, and where neither it nor the student's map is padding.

`mask` is a boolean tensor `(batch, positions...)` on the student's map, or `None` for maps
without padding; `teacher_map` is the teacher's in the form in which it meets the student's, and
`teacher_mask` its mask.
"""


def make_target(pair, teacher_map, teacher_mask, student_map, student_mask):
    """T2S's map R of one pair.

    Args:
        pair: A `ConnectedPair`.
        teacher_map: The teacher's map.
        teacher_mask: Its Keras mask, or `None`.
        student_map: The student's map, as `meeting_map` returned it.
        student_mask: Its mask, likewise.

    Returns:
        A `Target`.
    """
    size = ops.shape(student_map)[1:-1]
    teacher_map, teacher_mask = meeting_map(pair, "teacher", teacher_map, teacher_mask)
    target = pair.teacher_to_student(teacher_map, size=size, mask=teacher_mask)
    mask = common_mask(
        None if teacher_mask is None else resize_mask(teacher_mask, size),
        student_mask,
    )
    return Target(target, mask, teacher_map, teacher_mask)


def meeting_map(pair, role, features, mask):
    """A model's map in the form in which it meets the other's, with what is padding in it.

    Args:
        pair: A `ConnectedPair`.
        role: `"teacher"` or `"student"`.
        features: The map.
        mask: Its Keras mask, or `None`.

    Returns:
        A tuple of the map and a boolean tensor `(batch, positions...)` or `None`.
    """
    path = getattr(pair.pair, f"{role}_layer_name")
    mask = mask_of_positions(mask, features, f"map at '{path}' of the {role}")
    return getattr(pair.teacher_to_student, f"{role}_form").apply(features, mask)


def mask_of_positions(mask, features, what):
    """A Keras mask as one truth value for each position of a map or of an output.

    Args:
        mask: A boolean tensor, or `None`. Keras's masks of sequences are `(batch, time)`, also
            where a step of the sequence is an image.
        features: The map, `(batch, positions..., channels)`.
        what: What the tensor is, for the error.

    Returns:
        A boolean tensor `(batch, positions...)`, or `None`.

    Raises:
        ValueError: If the mask is of something else than the map's positions.
    """
    positions = tuple(features.shape[1:-1])
    if mask is None or not positions:
        return None  # a vector has no positions that could be padding
    found = tuple(mask.shape[1:])
    if len(found) == len(positions) + 1:
        mask, found = ops.any(mask, axis=-1), found[:-1]
    if len(found) > len(positions) or any(
        None not in (one, other) and one != other
        for one, other in zip(found, positions, strict=False)
    ):
        raise ValueError(
            f"The {what} has shape {tuple(features.shape)} and a Keras mask of shape "
            f"{tuple(mask.shape)}. Expected a mask of its positions, {(None, *positions)}. Correct "
            "`compute_mask` of that layer; it returns None where no position is padding."
        )
    mask = ops.expand_dims(mask, tuple(range(1 + len(found), 1 + len(positions))))
    return ops.broadcast_to(ops.cast(mask, "bool"), ops.shape(features)[:-1])


def common_mask(*masks):
    """Where none of some maps is padding.

    Args:
        *masks: Boolean tensors of one shape, or `None` for a map without padding.

    Returns:
        A boolean tensor, or `None`.
    """
    masks = [mask for mask in masks if mask is not None]
    common = masks[0] if masks else None
    for mask in masks[1:]:
        common = ops.logical_and(common, mask)
    return common
