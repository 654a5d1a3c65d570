"""T2S: projects a teacher's feature map to the student's shape."""

import math

import keras
from keras import ops

from keras_ktan.layers.resize import resize_map, resize_masked_map

T2S_OBJECTIVES = ("auto", "student_head", "task", "reconstruction", None)


@keras.saving.register_keras_serializable(package="keras_ktan")
class TeacherToStudent(keras.layers.Layer):
    """Teacher-to-Student layer: any teacher's map in the shape of any student's.

    Channels are mixed by a 1×1 convolution, height and width go down by area averaging
    or up by linear interpolation. It works on maps of rank 4 (images), 3 (sequences)
    and 2 (vectors), channels last.

    It learns during `fit`, with an optimizer of its own, from an objective of its own: how well
    the projected map R keeps what the teacher knows. The feature loss never moves it: if it
    did, T2S and the student would agree on a constant map.

    Args:
        objective: `"student_head"`: the student's own layers after the tapped one must do the
            task from R. `"task"`: a linear head on R must (classification only).
            `"reconstruction"`: a linear decoder must rebuild the teacher's map from R.
            `"auto"`: `"student_head"` where both models have class logits, else
            `"reconstruction"`. `None`: the feature loss, for comparison only.
        activation: What R passes through last. `"auto"`: what the student's tapped map
            comes out of (its ReLU, say), so that the student can reach R. `None`:
            nothing. Or any Keras activation.
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

    def __init__(self, objective="auto", activation="auto", **kwargs):
        super().__init__(**kwargs)
        if objective not in T2S_OBJECTIVES:
            raise ValueError(
                f"Received objective={objective!r} for TeacherToStudent. Expected one of "
                f"{T2S_OBJECTIVES}. "
                "Leave it out to get the best one that the models allow."
            )
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
        self.objective_layer = None  # the weights that only the objective uses
        self.mix = None

    def connect(self, teacher_shape, student_shape, activation=None):
        """Make the weights, once both maps' shapes are known.

        Args:
            teacher_shape: Shape of the teacher's map, batch axis first.
            student_shape: Shape of the student's map, batch axis first.
            activation: What the student's map comes out of, for `activation="auto"`.

        Raises:
            ValueError: If the ranks differ, or if the layer is already connected to
                maps with other numbers of channels.
        """
        if len(teacher_shape) != len(student_shape) or not 2 <= len(student_shape) <= 4:
            raise ValueError(
                f"Received a teacher's map of shape {tuple(teacher_shape)} and a student's map of "
                f"shape {tuple(student_shape)}. Expected two maps of the same rank, 2, 3 or 4. "
                "Name layers whose outputs have the same rank, or add a Reshape layer to one."
            )
        if teacher_shape[-1] is None or student_shape[-1] is None:
            raise ValueError(
                f"Received maps of shapes {tuple(teacher_shape)} and {tuple(student_shape)}. "
                "Expected a known number of channels on the last axis. Name layers whose "
                "channels are known."
            )
        if self.mix is not None:
            if (self.mix.units, self.mix.kernel.shape[0]) != (student_shape[-1], teacher_shape[-1]):
                raise ValueError(
                    f"One TeacherToStudent layer was given to maps of {teacher_shape[-1]} and "
                    f"{student_shape[-1]} channels after maps of {self.mix.kernel.shape[0]} and "
                    f"{self.mix.units}. Expected the same numbers. Give each pair a layer of its "
                    "own."
                )
            return
        chosen = activation if self.activation == "auto" else self.activation
        self.settled_activation = keras.activations.get(chosen)
        self.mix = keras.layers.Dense(student_shape[-1], dtype=self.dtype_policy, name="mix")
        self.mix.build((None, teacher_shape[-1]))
        self.built = True

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
            size: The student's lengths of the axes between batch and channels; `None`: the
                teacher's.
            mask: Optional boolean tensor `(batch, ...)` without the channels: the positions that
                are no padding, which alone enter what is averaged.

        Returns:
            Tensor `(batch, *size, student_channels)`.
        """
        projected = ops.cast(teacher_map, self.compute_dtype)
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

    def get_config(self):
        activation = self.activation
        if activation != "auto":
            activation = keras.activations.serialize(keras.activations.get(activation))
        return {**super().get_config(), "objective": self.objective, "activation": activation}


def _resize(features, size, mask):
    if mask is None or len(features.shape) == 2:
        return resize_map(features, size)
    return resize_masked_map(features, size, mask)


def _positions(size):
    """Number of positions, or 0 where an axis is known at run time only."""
    return math.prod(size) if all(isinstance(length, int) for length in size) else 0
