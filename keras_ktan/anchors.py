"""What ties T2S to the teacher: small objectives that only T2S minimises.

A T2S that the matching loss may move meets the student halfway, both agree on a
map that says nothing, and the student learns nothing. So T2S is judged by how well
its rendering keeps what the teacher knows, and the student never enters.
"""

import keras
from keras import ops

from keras_ktan.feature_tap import FeatureTap, find_layer, split_path


class Lesson:
    """What an anchor may use in one training step.

    Args:
        inputs: The batch of inputs.
        teacher_map: The teacher's feature map.
        student_map: The student's feature map.
        labels_loss: Function from outputs of the student's structure to the scalar
            loss against the labels.
        class_labels_loss: The same for class logits alone, or `None` where the labels
            are for more than the class logits.
        imitation_loss: Function from outputs of the student's structure to the scalar
            loss against the teacher's softened probabilities.
        class_imitation_loss: The same for class logits alone.
        matching_loss: Function from a target map and a student map to a scalar.
    """

    def __init__(self, **parts):
        self.__dict__.update(parts)


class StudentHeadAnchor:
    """The student's own layers after the tapped one must know the class from R.

    So R is the map that the student's head would like best. The head's weights are not
    moved by this objective and it runs with `training=False`.

    Args:
        student: The student.
        path: The path of the tapped layer.
    """

    name = "student_head"

    def __init__(self, student, path):
        self._path = path
        self._remainder = _remainder(student, path)
        # Where the layers behind the tapped one cannot be cut out as a model
        # (nested or subclassed models, a connection around the tap), the student runs
        # once more with R put in place of the map. In a compiled step what lies
        # before the tap is unused and falls away.
        self._replay = FeatureTap(student, [path], "student")

    def loss(self, target, lesson):
        """How badly the student's head does on R.

        Args:
            target: The map R.
            lesson: A `Lesson`.

        Returns:
            Scalar tensor.
        """
        if self._remainder is not None:
            outputs = self._remainder(target, training=False)
        else:
            outputs, _ = self._replay(lesson.inputs, substitutes={self._path: target})
        return lesson.labels_loss(outputs) + lesson.imitation_loss(outputs)

    def describe(self):
        """One line for `summary()`."""
        how = (
            "layers after the tap" if self._remainder is not None else "student run with R in place"
        )
        return f"student_head ({how})"


def _remainder(student, path):
    layer_path, key = split_path(path)
    if key is not None or "/" in layer_path or not getattr(student, "inputs", None):
        return None
    layer = find_layer(student, layer_path, "student")
    try:
        # Cloning would make new weights; the very layers are wanted.
        outputs = student.outputs[0] if isinstance(student, keras.Sequential) else student.output
        return keras.Model(layer.output, outputs, name="student_head")
    except (ValueError, AttributeError):
        # Keras says so when the outputs need more than this map, or when the layer
        # has several outputs of its own. The replay serves these students.
        return None


@keras.saving.register_keras_serializable(package="keras_ktan")
class TaskAnchor(keras.layers.Layer):
    """A linear head on R must know the class.

    Args:
        classes: Number of classes.
        **kwargs: Passed on to `keras.layers.Layer`.
    """

    def __init__(self, classes, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes
        self.head = keras.layers.Dense(classes, dtype=self.dtype_policy, name="head")

    def build(self, input_shape):
        self.head.build((None, input_shape[-1]))

    def call(self, target):
        axes = tuple(range(1, len(target.shape) - 1))
        return self.head(ops.mean(target, axis=axes) if axes else target)

    def loss(self, target, lesson):
        """How badly the linear head does on R."""
        logits = self(target)
        loss = lesson.class_imitation_loss(logits)
        if lesson.class_labels_loss is not None:
            loss = loss + lesson.class_labels_loss(logits)
        return loss

    def describe(self):
        """One line for `summary()`."""
        return "task (linear head)"

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


@keras.saving.register_keras_serializable(package="keras_ktan")
class ReconstructionAnchor(keras.layers.Layer):
    """A linear decoder must rebuild the teacher's map from R.

    Args:
        decoder: The layer that maps R back; a `TeacherToStudent` without activation.
        **kwargs: Passed on to `keras.layers.Layer`.
    """

    def __init__(self, decoder, **kwargs):
        super().__init__(**kwargs)
        self.decoder = decoder

    def build(self, input_shape):
        pass  # the decoder is built by whoever knows the teacher's shape

    def call(self, target, size):
        return self.decoder(target, size=size)

    def loss(self, target, lesson):
        """Share of the teacher's map, in squared size, that R does not give back."""
        teacher_map = ops.cast(lesson.teacher_map, keras.config.floatx())
        size = ops.shape(teacher_map)[1:-1]
        rebuilt = ops.cast(self(target, size=size), keras.config.floatx())
        error = ops.mean(ops.square(rebuilt - teacher_map))
        return error / ops.maximum(ops.mean(ops.square(teacher_map)), 1e-6)

    def describe(self):
        """One line for `summary()`."""
        return "reconstruction (linear decoder)"


class NoAnchor:
    """T2S moves towards the student. For comparison only: it teaches nothing."""

    name = None

    def loss(self, target, lesson):
        """The matching loss itself, with the student's map held still."""
        return lesson.matching_loss(target, ops.stop_gradient(lesson.student_map))

    def describe(self):
        """One line for `summary()`."""
        return "none (moved by the matching loss; for comparison only)"
