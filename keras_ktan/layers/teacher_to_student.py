"""T2S: projects a teacher's feature map to the student's shape."""

import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from keras_ktan.layers.channel_selection import ChannelSelection, validate_channels
from keras_ktan.layers.map_shapes import meeting_forms
from keras_ktan.layers.resize import resize_map, resize_masked_map

T2S_OBJECTIVES = ("auto", "selection", "student_head", "task", "reconstruction", None)


@keras.saving.register_keras_serializable(package="keras_ktan")
class TeacherToStudent(keras.layers.Layer):
    """Teacher-to-Student layer: any teacher's map in the shape of any student's.

    Channels are selected or mixed by a 1×1 convolution; height and width go down by area
    averaging or up by linear interpolation. It works on maps of rank 5 (volumes), 4 (images), 3
    (sequences) and 2 (vectors), channels last. Unlike ranks meet, too: tokens of an image are
    folded to a grid, and where one map is a vector the other is averaged over its positions.

    A selection of the teacher's channels is fixed: nothing is trained, so T2S and the student
    cannot agree on a constant map, and it costs nothing. Where the student has more channels
    than the teacher, T2S learns during `fit`, with an optimizer of its own, from an objective of
    its own: how well the projected map R keeps what the teacher knows. The feature loss never
    moves it.

    Args:
        objective: `"selection"`: R is a choice of the teacher's channels. `"student_head"`: the
            student's own layers after the tapped one must do the task from R. `"task"`: a
            linear head on R must (classification only). `"reconstruction"`: a linear decoder
            must rebuild the teacher's map from R. `"auto"`: `"selection"` where the student has
            no more channels than the teacher and it is known which ones matter, else
            `"student_head"` where both models have class logits, else `"reconstruction"`.
            `None`: the feature loss, for comparison only.
        activation: What R passes through last. `"auto"`: what the student's tapped map
            comes out of (its ReLU, say), so that the student can reach R; nothing, where a
            selection comes out of the same one already. `None`: nothing. Or any Keras
            activation.
        channels: List of the teacher's channels that the student's channels stand for. `None`:
            for a selection, those that `slim_student` kept, else the most important ones; a
            learned T2S begins at random. With a learned objective it begins as this selection.
        trainable: `True` with `"selection"`: R begins as the selection and then learns from what
            `"auto"` takes otherwise. `None`: `False` for a selection, else `True`.
        **kwargs: Passed on to `keras.layers.Layer`.

    The default objective is our choice; see `benchmarks/results/`.

    Raises:
        ValueError: If an argument is none of these.

    Example:

    ```python
    import keras
    from keras_ktan import TeacherToStudent

    t2s = TeacherToStudent(objective="reconstruction", activation="relu")
    t2s.connect(teacher_shape=(None, 8, 8, 96), student_shape=(None, 3, 3, 16))
    print(t2s(keras.ops.ones((2, 8, 8, 96)), size=(3, 3)).shape)  # (2, 3, 3, 16)
    ```

    Reference:
        - [Liu et al., 2018](https://arxiv.org/abs/1810.08126)
    """

    def __init__(
        self,
        objective: str | None = "auto",
        activation: str | Callable | None = "auto",
        channels: Sequence[int] | None = None,
        trainable: bool | None = None,
        **kwargs,
    ):
        if objective not in T2S_OBJECTIVES:
            raise ValueError(
                f"Received objective={objective!r} for TeacherToStudent. Expected one of "
                f"{T2S_OBJECTIVES}. Leave it out to get the best one that the models allow."
            )
        # Of a fixed selection nothing is trained; asked for, it is where learning begins.
        self.begins_as_selection = objective == "selection" and trainable is True
        super().__init__(trainable=trainable is not False, **kwargs)
        if activation != "auto":
            try:
                keras.activations.get(activation)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"Received activation={activation!r} for TeacherToStudent. Expected 'auto', "
                    "None, or a Keras activation. Leave it out to get the student's."
                ) from error
        self.objective = objective
        self.activation = activation
        self.channels = None if channels is None else validate_channels(channels)
        self.selects = False
        self.teacher_form = self.student_form = None  # of the maps where they meet
        self.objective_layer = None  # the weights that only the objective uses
        self.mix = None

    def connect(
        self,
        teacher_shape: tuple[int | None, ...],
        student_shape: tuple[int | None, ...],
        activation: str | Callable | None = None,
        teacher_activation: str | Callable | None = None,
        channels: Sequence[int] | None = None,
    ) -> None:
        """Make the weights, once both maps' shapes are known.

        Args:
            teacher_shape: Shape of the teacher's map, batch axis first.
            student_shape: Shape of the student's map, batch axis first.
            activation: What the student's map comes out of, for `activation="auto"`.
            teacher_activation: What the teacher's map comes out of.
            channels: The teacher's channels to select where the layer was given none; `None`
                where it is not known which ones matter.

        Raises:
            ValueError: If maps of these shapes cannot meet, if a selection is asked for and not
                possible, or if the layer is already connected to maps that are not alike.
        """
        forms = meeting_forms(teacher_shape, student_shape)
        _validate_channels_known(teacher_shape, student_shape)
        teacher_channels, student_channels = teacher_shape[-1], student_shape[-1]
        if self.mix is not None:
            settled = self._settle_activation(activation, teacher_activation)
            self._validate_again(teacher_channels, student_channels, channels, settled, forms)
            return
        self.teacher_form, self.student_form = forms
        if self.channels is not None:
            validate_channels(self.channels, teacher_channels, student_channels)
        elif self.objective in ("auto", "selection") and student_channels <= teacher_channels:
            self.channels = channels
        if self.objective == "selection" and self.channels is None:
            raise ValueError(
                f"Received objective='selection' for a teacher's map of {teacher_channels} "
                f"channels and a student's map of {student_channels}. Expected no more than the "
                "teacher's, made by a normalisation or a kernel that says which ones matter. Pass "
                "`channels=[...]`, or leave `objective` out for a learned T2S."
            )
        self.selects = (
            self.objective in ("auto", "selection")
            and self.channels is not None
            and not self.begins_as_selection
        )
        self._input_channels = teacher_channels
        if self.selects:
            self.mix = ChannelSelection(self.channels, dtype=self.dtype_policy, name="mix")
        else:
            self.mix = keras.layers.Dense(student_channels, dtype=self.dtype_policy, name="mix")
        self.mix.build((None, teacher_channels))
        if not self.selects and self.channels is not None:
            self.mix.kernel.assign(np.eye(teacher_channels)[:, self.channels])
        self.settled_activation = self._settle_activation(activation, teacher_activation)
        self.built = True

    def _settle_activation(self, activation, teacher_activation):
        if self.activation != "auto":
            return keras.activations.get(self.activation)
        chosen = keras.activations.get(activation)
        if self.selects and _same(chosen, teacher_activation):
            return keras.activations.linear  # a swish applied twice is another map
        return chosen

    def _validate_again(self, teacher_channels, student_channels, channels, activation, forms):
        """A second pair may share the layer, where its maps are alike."""
        known = self.mix.channels if self.selects else None
        units = len(known) if self.selects else self.mix.units
        if (units, self._input_channels) != (student_channels, teacher_channels):
            raise ValueError(
                f"One TeacherToStudent layer was given to maps of {teacher_channels} and "
                f"{student_channels} channels after maps of {self._input_channels} and {units}. "
                "Expected the same numbers. Give each pair a layer of its own."
            )
        if self.selects and channels is not None and list(channels) != known:
            raise ValueError(
                "One TeacherToStudent layer that selects channels was given to two pairs whose "
                f"maps keep other channels: {known} and {list(channels)}. Expected the same. Give "
                "each pair a layer of its own, or a learned objective."
            )
        if not _equal(activation, self.settled_activation):
            raise ValueError(
                "One TeacherToStudent layer was given to two pairs whose student's maps come out "
                f"of different activations: {_name(self.settled_activation)} and "
                f"{_name(activation)}. Expected the same, because T2S's map must be one that the "
                "student can reach. Give each pair a layer of its own."
            )
        known_forms = (self.teacher_form, self.student_form)
        if [form.describe() for form in forms] != [form.describe() for form in known_forms]:
            raise ValueError(
                "One TeacherToStudent layer was given to two pairs whose maps meet in different "
                f"forms: {[form.shape for form in known_forms]} and "
                f"{[form.shape for form in forms]}. Expected the same. Give each pair a layer of "
                "its own."
            )

    def build(self, input_shape=None, **kwargs):
        if self.mix is None:
            raise ValueError(
                "A TeacherToStudent layer was called before it knows the student's shape. "
                "Expected `connect(teacher_shape, student_shape)` first; a KTANDistiller does it."
            )

    def call(self, teacher_map, size=None, mask=None):
        """Project a teacher's map.

        Args:
            teacher_map: Tensor `(batch, ..., teacher_channels)`.
            size: The student's lengths of the axes between batch and channels, in the form in
                which the maps meet; `None`: the teacher's.
            mask: Optional boolean tensor `(batch, ...)` without the channels: the positions that
                are no padding, which alone enter what is averaged.

        Returns:
            Tensor `(batch, *size, student_channels)`.
        """
        projected, mask = self.teacher_form.apply(teacher_map, mask)
        projected = ops.cast(projected, self.compute_dtype)
        # Mixing channels and averaging positions commute: the work is done where the map is
        # smaller. Going up first would blow up a map of many channels.
        grows = size is not None and _positions(size) > _positions(projected.shape[1:-1])
        if size is not None and not grows:
            projected = _resize(projected, size, mask)
        projected = self.mix(projected)
        if grows:
            projected = _resize(projected, size, mask)
        return self.settled_activation(projected)

    def compute_mask(self, inputs, previous_mask):
        return None  # the student's lengths are others; `resize_mask` knows

    def get_config(self) -> dict:
        activation = self.activation
        if activation != "auto":
            activation = keras.activations.serialize(keras.activations.get(activation))
        return {
            **super().get_config(),
            "objective": self.objective,
            "activation": activation,
            "channels": self.channels,
            "trainable": True if self.begins_as_selection else None if self.trainable else False,
        }


def _validate_channels_known(teacher_shape, student_shape):
    if teacher_shape[-1] is None or student_shape[-1] is None:
        raise ValueError(
            f"Received maps of shapes {tuple(teacher_shape)} and {tuple(student_shape)}. "
            "Expected a known number of channels on the last axis. Name layers whose "
            "channels are known."
        )


def _same(activation, other):
    """Whether two activations are the same function."""
    if other is None or activation is keras.activations.linear:
        return False
    return _equal(activation, keras.activations.get(other))


def _name(activation):
    return getattr(activation, "__name__", None) or activation.name


def _equal(activation, other):
    if activation is other:
        return True
    serialize = keras.saving.serialize_keras_object
    one, two = (serialize(function) for function in (activation, other))
    for config in (one, two):  # a ReLU layer's name says nothing
        if isinstance(config, dict) and isinstance(config.get("config"), dict):
            config["config"] = {k: v for k, v in config["config"].items() if k != "name"}
    return one == two


def _resize(features, size, mask):
    if mask is None or len(features.shape) == 2:
        return resize_map(features, size)
    return resize_masked_map(features, size, mask)


def _positions(size):
    """Number of positions, or 0 where an axis is known at run time only."""
    return math.prod(size) if all(isinstance(length, int) for length in size) else 0
