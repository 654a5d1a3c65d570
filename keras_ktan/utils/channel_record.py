"""Which of the teacher's channels a student kept."""

import dataclasses

import keras

_ATTRIBUTE = "_keras_ktan_channel_record"


@dataclasses.dataclass(frozen=True)
class ChannelRecord:
    """Which of the teacher's channels a student kept, for every tensor of the student.

    Teacher and student have the same layers and operations, with the same names, so one path
    names a tensor in both.

    Args:
        teacher_name: The teacher's name.
        width: The factor (or the dict of factors) that the widths come from.
        channels: Dict from paths to lists of indices. A path is a layer's, with its nested
            models before it (`"backbone/stem"`), or that of an operation of `keras.ops`. Where a
            layer returns several tensors, `:0`, `:1`... follow. The indices are places on the
            tensor's channel axis in the teacher, ascending. Tensors without a channel axis,
            scalars for example, are left out.

    Example:

    ```python
    import keras
    from keras_ktan.students import slim_student
    from keras_ktan.utils.channel_record import channel_record_of

    teacher = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(2)]
    )
    record = channel_record_of(slim_student(teacher, width=0.5))
    print(len(record.channels["hidden"]))  # 8
    ```
    """

    teacher_name: str
    width: float | dict
    channels: dict

    def get_config(self):
        """The record as a dict that JSON can hold."""
        return {
            "teacher_name": self.teacher_name,
            "width": dict(self.width) if isinstance(self.width, dict) else self.width,
            "channels": {path: list(indices) for path, indices in self.channels.items()},
        }

    @classmethod
    def from_config(cls, config):
        """The record that `get_config` described."""
        return cls(**config)


def attach_channel_record(student, record):
    """Let a student and its layers remember its record.

    The record is an attribute of the objects. It is not saved with the student: a student that
    is loaded has none.

    Args:
        student: A `keras.Model`.
        record: A `ChannelRecord`.
    """
    for holder in (student, *_own_layers(student)):
        setattr(holder, _ATTRIBUTE, record)


def _own_layers(student):
    """A student's layers but its inputs, which models share that have nothing else in common."""
    return [layer for layer in student.layers if not isinstance(layer, keras.layers.InputLayer)]


def channel_record_of(student, path=None):
    """The record of a student that was made from a teacher.

    Args:
        student: A `keras.Model`; also another one of the same layers, such as a class of the
            user's with a loss of its own.
        path: Path of one of its layers. In such a model only that layer says whose channels it
            has.

    Returns:
        Its `ChannelRecord`. `None` without a record, or with layers from more than one student.
    """
    own = getattr(student, _ATTRIBUTE, None)
    if own is not None:
        return own
    found = {}
    for layer in _own_layers(student):
        if path is not None and layer.name != path.partition("/")[0]:
            continue
        record = getattr(layer, _ATTRIBUTE, None)
        if record is not None:
            found[id(record)] = record
    return next(iter(found.values())) if len(found) == 1 else None
