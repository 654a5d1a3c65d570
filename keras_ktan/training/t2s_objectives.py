"""T2S's objectives: how well the projected map R keeps what the teacher knows.

A T2S that the feature loss may move meets the student halfway: both agree on a constant map,
and the student learns nothing. So T2S has an objective of its own, which the student's loss
never enters. The objectives are attached to the T2S layers here.
"""

import keras
from keras import ops

from keras_ktan.introspection.feature_tap import FeatureTap, find_layer, split_path
from keras_ktan.introspection.masks import with_mask
from keras_ktan.introspection.model_inputs import select_inputs
from keras_ktan.introspection.reach import leads_to_outputs
from keras_ktan.layers.resize import resize_mask
from keras_ktan.layers.teacher_to_student import TeacherToStudent
from keras_ktan.losses.feature import mean_over_positions
from keras_ktan.training.padding import common_mask


class StudentHeadObjective:
    """The student's own layers after the tapped one must do the task from R.

    So R is the map that the student's head would like best. The head's weights are not moved.

    Args:
        student: The student.
        path: The path of the tapped layer.
    """

    name = "student_head"

    def __init__(self, student, path):
        self._path = path
        self._head = _layers_after(student, path)
        # Where the layers after the tapped one cannot be cut out as a model (nested or subclassed
        # models, a connection around the tap), the student runs once more with R in place of the
        # map. In a compiled step what lies before the tap is unused and falls away.
        self._tap = FeatureTap(student, [path], "student")

    def loss(self, target, context):
        """How badly the student's head does on R.

        Args:
            target: The map R.
            context: A `T2SContext`.

        Returns:
            Scalar tensor.
        """
        target = with_mask(target, context.mask)
        if self._head is not None:
            outputs = self._head(target, training=False)
        else:
            inputs = select_inputs(self._tap.model, context.inputs)
            outputs, _ = self._tap(inputs, substitutes={self._path: target})
        return context.student_loss(outputs) + context.logits_loss(outputs)

    def describe(self):
        """One line for `summary()`."""
        how = "layers after the tap" if self._head is not None else "student run with R in place"
        return f"student_head ({how})"


def _layers_after(student, path):
    layer_path, key = split_path(path)
    if key is not None or "/" in layer_path or not getattr(student, "inputs", None):
        return None
    layer = find_layer(student, layer_path, "student")
    try:
        # Cloning would make new weights; the very layers are wanted.
        outputs = student.outputs[0] if isinstance(student, keras.Sequential) else student.output
        return keras.Model(layer.output, outputs, name="student_head")
    except (ValueError, AttributeError):
        return None  # the outputs need more than this map, or the layer makes several


@keras.saving.register_keras_serializable(package="keras_ktan")
class TaskObjective(keras.layers.Layer):
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

    def call(self, target, mask=None):
        return self.head(mean_over_positions(target, mask))

    def compute_mask(self, inputs, previous_mask):
        return None  # the positions were averaged

    def loss(self, target, context):
        """How badly the linear head does on R."""
        logits = self(target, mask=context.mask)
        loss = context.class_logits_loss(logits)
        if context.class_student_loss is None:
            return loss
        return loss + context.class_student_loss(logits)

    def describe(self):
        """One line for `summary()`."""
        return "task (linear head)"

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


@keras.saving.register_keras_serializable(package="keras_ktan")
class ReconstructionObjective(keras.layers.Layer):
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

    def call(self, target, size, mask=None):
        return self.decoder(target, size=size, mask=mask)

    def compute_mask(self, inputs, previous_mask):
        return None  # of another length than R's

    def loss(self, target, context):
        """Share of the teacher's map, in squared size, that R does not give back."""
        teacher_map = ops.cast(context.teacher_map, keras.config.floatx())
        size = ops.shape(teacher_map)[1:-1]
        rebuilt = self(target, size=size, mask=context.mask)
        rebuilt = ops.cast(rebuilt, keras.config.floatx())
        mask = context.teacher_mask
        if context.mask is not None:
            # What the student's padding hides of R cannot be rebuilt.
            mask = common_mask(mask, resize_mask(context.mask, size))
        if mask is not None:
            mask = ops.expand_dims(mask, -1)
            rebuilt, teacher_map = (
                ops.where(mask, tensor, ops.zeros_like(tensor)) for tensor in (rebuilt, teacher_map)
            )
        # Padding is 0 in both means; the ratio does not see their common divisor.
        error = ops.mean(ops.square(rebuilt - teacher_map))
        return error / ops.maximum(ops.mean(ops.square(teacher_map)), 1e-6)

    def describe(self):
        """One line for `summary()`."""
        return "reconstruction (linear decoder)"


class SelectionObjective:
    """R is a fixed choice of the teacher's channels: there is nothing to learn, and no loss.

    Args:
        kept: How many channels are selected.
        channels: Of how many.
        source: Words for what they were chosen by.
    """

    name = "selection"

    def __init__(self, kept, channels, source):
        self._kept, self._channels, self._source = kept, channels, source

    def describe(self):
        """One line for `summary()`."""
        which = f"{self._kept} of the teacher's {self._channels} channels"
        return f"selection ({which}, {self._source}; fixed)"


class FeatureLossObjective:
    """T2S moves towards the student, who learns nothing from it. For comparison only."""

    name = None

    def loss(self, target, context):
        """The feature loss itself, with the gradient to the student's map stopped."""
        return context.feature_loss(target, ops.stop_gradient(context.student_map))

    def describe(self):
        """One line for `summary()`."""
        return "none (moved by the feature loss; for comparison only)"


def attach_objective(t2s, student, student_path, teacher_channels, classes, source=""):
    """Settle the objective of a T2S layer, once the models are known.

    Args:
        t2s: A connected `TeacherToStudent`.
        student: The student.
        student_path: Path of its tapped layer.
        teacher_channels: Channels of the teacher's map.
        classes: Number of classes, or `None` where the models have no class logits.
        source: Words for what a selection's channels were chosen by.

    Returns:
        An object with `describe()` and, unless T2S selects, `loss(target, context)`.

    Raises:
        ValueError: If the objective asked for is impossible with these models.
    """
    if t2s.selects:
        return SelectionObjective(len(t2s.channels), teacher_channels, source)
    name = t2s.objective
    if name in ("auto", "selection"):
        name = _best_objective(t2s, student, student_path, classes)
    elif name == "student_head" and t2s.student_form.changes:
        raise ValueError(
            "Received objective='student_head' for a student's map that meets the teacher's"
            f"{t2s.student_form.describe()}. Expected one that T2S's map can replace as it is. Use "
            "objective='auto'."
        )
    elif name == "student_head" and not leads_to_outputs(student, student_path):
        raise ValueError(
            f"Received objective='student_head' for the student's map at '{student_path}', which "
            f"does not lead to the outputs of '{student.name}'. Expected a map that the outputs "
            "are made of. Use objective='auto', or name another layer."
        )
    if name == "task" and classes is None:
        raise ValueError(
            "Received objective='task' for a TeacherToStudent of models without class logits. "
            "Expected a classifier, because the linear head must know the classes. Use "
            "objective='reconstruction' or name the output with `output_pairs=OutputPair(...)`."
        )
    makers = {
        "student_head": lambda: StudentHeadObjective(student, student_path),
        "task": lambda: _task_objective(t2s, classes),
        "reconstruction": lambda: _reconstruction_objective(t2s, teacher_channels),
        None: FeatureLossObjective,
    }
    return makers[name]()


def _best_objective(t2s, student, student_path, classes):
    if classes is None:
        return "reconstruction"
    has_head = not t2s.student_form.changes and leads_to_outputs(student, student_path)
    return "student_head" if has_head else "task"


def _task_objective(t2s, classes):
    if t2s.objective_layer is None:
        t2s.objective_layer = TaskObjective(classes, dtype=t2s.dtype_policy, name="task_objective")
        t2s.objective_layer.build((None, t2s.mix.units))
    return t2s.objective_layer


def _reconstruction_objective(t2s, teacher_channels):
    if t2s.objective_layer is None:
        decoder = TeacherToStudent(activation=None, dtype=t2s.dtype_policy, name="decoder")
        decoder.connect((None, t2s.mix.units), (None, teacher_channels))
        t2s.objective_layer = ReconstructionObjective(
            decoder, dtype=t2s.dtype_policy, name="reconstruction_objective"
        )
        t2s.objective_layer.built = True
    return t2s.objective_layer
