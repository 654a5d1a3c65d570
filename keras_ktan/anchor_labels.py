"""The loss against the labels once more, for what T2S's anchors return."""

import keras

from keras_ktan.acts_as_student import has_own_compute_loss, own_loss


class _CompiledLoss(keras.Model):
    """A compiled loss with trackers of its own that nobody shows."""

    def call(self, inputs):
        return inputs


class AnchorLabels:
    """What the labels say of an anchor's outputs, without a trace in the student's logs.

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

    def loss(self, x, y, y_pred, sample_weight):
        """The loss of outputs that are not the student's.

        Args:
            x: Inputs.
            y: Targets.
            y_pred: An anchor's outputs, of the student's structure.
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
