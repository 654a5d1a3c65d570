"""The student's own loss, where `compile` was given none."""

import contextlib
import inspect

import keras

from keras_ktan.utils.cached_batch import plain_batch
from keras_ktan.utils.keras_internals import symbolic_build


def has_own_compute_loss(model):
    """Whether a model computes its loss in a way of its own."""
    return type(model).compute_loss is not keras.Model.compute_loss


def own_loss(model, x, y, y_pred, sample_weight, training):
    """A model's own `compute_loss`; like Keras, also one written before it took `training`."""
    parameters = inspect.signature(model.compute_loss).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    more = {"training": training} if "training" in parameters or takes_all else {}
    return model.compute_loss(x, y, y_pred, sample_weight, **more)


@contextlib.contextmanager
def without_optimizer(student):
    """While a student's metrics are made: its own optimizer trains nothing here, and gets no slots.

    Args:
        student: A compiled `keras.Model`.
    """
    optimizer, student.optimizer = student.optimizer, None
    try:
        yield
    finally:
        student.optimizer = optimizer


def build_student_metrics(distiller, iterator, data_batch):
    """Make the variables of the metrics of a student that has a loss of its own.

    They are made when the metrics first see data. Inside a compiled step that is too late: JAX
    would lose what they count there, and replicas cannot make variables.

    Args:
        distiller: A compiled `KTANDistiller`.
        iterator: What Keras iterates over in an epoch, or `None`.
        data_batch: A batch, or `None`.
    """
    student = distiller.student
    if distiller.has_compiled_loss or not student.compiled:
        return
    if data_batch is not None:
        data_batch = plain_batch(data_batch, distiller.student_inputs)
    with without_optimizer(student):
        symbolic_build(student, iterator=iterator, data_batch=data_batch)


def student_forward(distiller, inputs, x, y, sample_weight):
    """The student's forward pass and what follows from it alone.

    Args:
        distiller: A compiled `KTANDistiller`.
        inputs: What `Objectives.student_forward` takes.
        x: Inputs of the batch.
        y: Targets.
        sample_weight: Sample weights or `None`.

    Returns:
        A tuple of the `Forward`, the list of the student's regularisers, and a dict with its loss
        against the targets where that counts.
    """
    forward = distiller.objectives.student_forward(inputs)
    # All read now: a T2S objective may run the student's layers again and overwrite them, and a
    # student's own loss may hold regularisers of its weights.
    regularisation = distiller.student_regularisation()
    terms = {}
    if distiller.objectives.uses_student_loss:
        terms["student"] = distiller.student_loss(x, y, forward.outputs, sample_weight)
    return forward, regularisation, terms


def batch_size(inputs):
    """Number of examples in a batch of inputs."""
    return keras.ops.shape(keras.tree.flatten(inputs)[0])[0]


class _CompiledLoss(keras.Model):
    """A compiled loss with trackers of its own that nobody shows."""

    def call(self, inputs):
        return inputs


class UntrackedStudentLoss:
    """The student's loss of outputs that are not the student's, without a trace in its logs.

    T2S's objectives compare with the targets what a head makes of T2S's maps.

    Args:
        student: The student.
        loss: As `KTANDistiller.compile` got it; `None`: the student's own.
        loss_weights: As `KTANDistiller.compile` got them.
    """

    def __init__(self, student, loss, loss_weights):
        self._student = student
        self._compiled = None
        if loss is None:
            if has_own_compute_loss(student):
                return
            # The student's compiled loss, without the trackers that its logs show.
            loss = student.loss
            loss_weights = student.get_compile_config().get("loss_weights")
        self._compiled = _CompiledLoss()
        if hasattr(student, "output_names"):
            self._compiled.output_names = student.output_names
        self._compiled.compile(optimizer=None, loss=loss, loss_weights=loss_weights)

    def __call__(self, x, y, y_pred, sample_weight):
        """The loss.

        Args:
            x: Inputs.
            y: Targets.
            y_pred: Outputs of the student's structure.
            sample_weight: Sample weights or `None`.

        Returns:
            Scalar tensor.
        """
        if self._compiled is not None:
            return self._compiled.compute_loss(x, y, y_pred, sample_weight, training=False)
        # A loss of its own may keep metrics. They are put back to where the student's outputs
        # left them.
        variables = [variable for metric in self._student.metrics for variable in metric.variables]
        kept = [keras.ops.copy(variable) for variable in variables]
        loss = own_loss(self._student, x, y, y_pred, sample_weight, training=False)
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
        return loss
