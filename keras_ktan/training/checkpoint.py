"""A distiller's weights without the teacher's, which are the same in every checkpoint."""

import keras
import numpy as np

from keras_ktan.utils.atomic_file import write_atomically

_TEACHER = "teacher"


class _Networks(keras.Model):
    """What a training learned: the student, T2S, the discriminators and their optimizers."""

    def __init__(self, distiller, digest):
        super().__init__(name="networks")
        self.student = distiller.student
        self.teacher_to_student_layers = distiller.teacher_to_student_layers
        self.discriminators = distiller.discriminators
        self.output_variances = distiller.output_variances
        self.step_counter = distiller.step_counter
        self.optimizer = distiller.optimizer
        self.digest = digest
        self.built = True

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store[_TEACHER] = np.frombuffer(self.digest.encode(), "uint8")

    def load_own_variables(self, store):
        self.step_counter.assign(store["0"])


class _Reader(keras.Model):
    """Reads the teacher's digest and changes nothing."""

    def __init__(self):
        super().__init__(name="reader")
        self.found = None
        self.built = True

    def load_own_variables(self, store):
        if _TEACHER in list(store.keys()):
            self.found = np.asarray(store[_TEACHER], "uint8").tobytes().decode()


def save_networks(distiller, digest, filepath, overwrite=True, max_shard_size=None):
    """Write the weights of everything that is trained, and a digest of the teacher.

    Args:
        distiller: A `KTANDistiller`.
        digest: Text that says which teacher it has.
        filepath: As in `keras.Model.save_weights`.
        overwrite: As in `keras.Model.save_weights`.
        max_shard_size: As in `keras.Model.save_weights`. Shards are written in place, because one
            name cannot stand for several files.
    """
    networks = _Networks(distiller, digest)
    if max_shard_size is not None or not overwrite:
        # Without `overwrite` Keras asks before it writes over a file.
        networks.save_weights(filepath, overwrite=overwrite, max_shard_size=max_shard_size)
        return
    if not str(filepath).endswith(".weights.h5"):
        raise ValueError(
            f"Received filepath={str(filepath)!r}. Expected a name that ends in '.weights.h5'. "
            "Write `distiller.save_weights('distiller.weights.h5')`, or "
            "`distiller.save('distiller.keras')` for a file with the teacher."
        )
    write_atomically(filepath, networks.save_weights)


def load_networks(distiller, digest, filepath, skip_mismatch=False, **kwargs):
    """Read what `save_networks` wrote.

    Args:
        distiller: A `KTANDistiller`.
        digest: Text that says which teacher it has.
        filepath: As in `keras.Model.load_weights`.
        skip_mismatch: As in `keras.Model.load_weights`.
        **kwargs: As in `keras.Model.load_weights`.

    Raises:
        ValueError: If the file is another's, or was written beside another teacher.
    """
    reader = _Reader()
    reader.load_weights(filepath)
    if reader.found is None:
        raise ValueError(
            f"The file '{filepath}' was not written by `KTANDistiller.save_weights`. Expected "
            "weights of a distiller. For a student's file write "
            "`distiller.student.load_weights(...)`; a '.keras' file is loaded with "
            "`keras.saving.load_model`."
        )
    if reader.found != digest:
        raise ValueError(
            f"The file '{filepath}' was written beside a teacher with other weights or layers than "
            f"'{distiller.teacher.name}' has. Expected the same teacher, because checkpoints do "
            "not hold it. Load that teacher and make the distiller with it, or take the student "
            "alone from a file of `StudentCheckpoint`."
        )
    _Networks(distiller, digest).load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)
