"""A fixed choice of channels."""

import keras
from keras import ops

from keras_ktan.utils.numbers import validate_integer


@keras.saving.register_keras_serializable(package="keras_ktan")
class ChannelSelection(keras.layers.Layer):
    """Keeps some channels of a map. It has no weights.

    Args:
        channels: List of whole numbers, the channels of the input in the order of the output.
        **kwargs: Passed on to `keras.layers.Layer`.
    """

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = [int(channel) for channel in channels]

    def call(self, inputs):
        return ops.take(inputs, ops.convert_to_tensor(self.channels, "int32"), axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], len(self.channels))

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}


def validate_channels(channels, teacher_channels=None, student_channels=None):
    """Check a choice of the teacher's channels.

    Args:
        channels: What was received.
        teacher_channels: How many there are to choose from; `None`: not yet known.
        student_channels: How many are wanted; `None`: not yet known.

    Returns:
        A list of ints.

    Raises:
        ValueError: If it is no list of different channels of that length.
    """
    remedy = (
        "List the teacher's channels that the student's map stands for, one for each of its "
        "channels, or leave `channels` out."
    )
    if not hasattr(channels, "__iter__") or isinstance(channels, (str, dict)):
        raise ValueError(
            f"Received channels={channels!r} for TeacherToStudent. Expected a list of whole "
            f"numbers. {remedy}"
        )
    channels = [
        validate_integer(
            "channel", channel, at_least=0, where=" for TeacherToStudent", remedy=remedy
        )
        for channel in channels
    ]
    if len(set(channels)) != len(channels) or not channels:
        raise ValueError(
            f"Received channels={channels} for TeacherToStudent. Expected at least one channel, "
            f"and each only once. {remedy}"
        )
    if teacher_channels is not None and max(channels) >= teacher_channels:
        raise ValueError(
            f"Received channel {max(channels)} for TeacherToStudent, where the teacher's map has "
            f"{teacher_channels} channels. Expected numbers from 0 to {teacher_channels - 1}. "
            f"{remedy}"
        )
    if student_channels is not None and len(channels) != student_channels:
        raise ValueError(
            f"Received {len(channels)} channels for TeacherToStudent, where the student's map has "
            f"{student_channels}. Expected as many. {remedy}"
        )
    return channels
