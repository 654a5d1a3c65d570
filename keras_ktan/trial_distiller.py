"""The distiller of one trial of a search: small on disk, compiled once."""

import keras
import keras_tuner

from keras_ktan.distiller import KTANDistiller


class _WithoutTeacher(keras.Model):
    """What a trial learned: the student, T2S, the discriminators and their optimizers."""

    def __init__(self, distiller):
        super().__init__(name="trial")
        self.student = distiller.student
        self.teacher_to_student_layers = distiller.teacher_to_student_layers
        self.discriminators = distiller.discriminators
        self.optimizer = distiller.optimizer
        self.built = True


class TrialDistiller(KTANDistiller):
    """A `KTANDistiller` whose weights on disk hold everything but the teacher.

    A search writes the weights of every trial, and the teacher is the same in all of them and
    larger than the rest. Everything else is kept, so that a trial can go on later.

    Args:
        *args: See `KTANDistiller`.
        **kwargs: See `KTANDistiller`.
    """

    def compile(self, *args, **kwargs):
        if self.compiled:
            # KerasTuner does so when the tuner has an optimizer, a loss or metrics, and would
            # leave all other arguments at their defaults.
            raise keras_tuner.errors.FatalValueError(
                "Received a second call of `compile` for the distiller of a trial. Expected one, "
                "because a second one loses the searched weights. Give optimizer, loss and metrics "
                "to KTANHyperModel as `compile_arguments`, and not to the tuner."
            )
        super().compile(*args, **kwargs)

    def save_weights(self, filepath, *args, **kwargs):
        _WithoutTeacher(self).save_weights(filepath, *args, **kwargs)

    def load_weights(self, filepath, *args, **kwargs):
        _WithoutTeacher(self).load_weights(filepath, *args, **kwargs)
