"""How the teacher's weights come into a compiled step of JAX, and do not leave it."""

import collections

import keras

from keras_ktan.utils.cached_batch import key_of

BatchWithTeacher = collections.namedtuple("BatchWithTeacher", ["data", "teacher"])
BatchWithTeacher.__doc__ = """A batch, and the values of the teacher's variables or `[]`."""


class BatchesWithTeacher:
    """Batches that bring the teacher's weights into the compiled step.

    Left out, they would be baked into the program as constants. As a part of Keras's state they
    would leave the step again, and enter evaluations.

    Args:
        batches: Iterator over batches.
        teacher: The values of the teacher's variables.
    """

    def __init__(self, batches, teacher):
        self._batches = batches
        self._teacher = teacher

    def __next__(self):
        data = next(self._batches)
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        # What a cache holds stands in for the teacher.
        return BatchWithTeacher(data, self._teacher if key_of(x) is None else [])


class FunctionWithTeacher:
    """Keras's function of a state and an iterator, over batches that bring the teacher.

    Args:
        run: Keras's function.
        distiller: The `KTANDistiller`.
    """

    def __init__(self, run, distiller):
        self._run = run
        # Found once: Keras walks through all layers for a model's variables.
        uses_teacher = distiller.objectives.uses_teacher
        self._variables = distiller.teacher.variables if uses_teacher else []

    def take_weights(self):
        """Read the teacher's weights, which do not change during a training."""
        self._values = [variable.value for variable in self._variables]

    def __call__(self, state, iterator):
        return self._run(state, BatchesWithTeacher(iterator, self._values))
