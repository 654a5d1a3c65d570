"""Keep the best student of a training, alone and ready to be used."""

import os

import keras

from keras_ktan.utils.atomic_file import write_atomically


class StudentCheckpoint(keras.callbacks.ModelCheckpoint):
    """Saves the student alone, as a `.keras` file, whenever it is the best so far.

    `ModelCheckpoint` saves the whole distiller: with the teacher, or as weights that only a
    distiller can read. What is wanted in the end is the best student. The file is written beside
    its final name and then renamed, so that a run that is killed leaves a whole file.

    Args:
        filepath: Path that ends in `.keras`; as in `ModelCheckpoint` it may hold `{epoch}` and
            names of the logs.
        monitor: Name in the logs. `"val_loss"` is the student's own loss on the validation data.
        mode: `"min"`, `"max"` or `"auto"`, as in `ModelCheckpoint`.
        verbose: 0 or 1, as in `ModelCheckpoint`.
        initial_value_threshold: As in `ModelCheckpoint`.

    Raises:
        ValueError: If the name does not end in `.keras`, if the model is no distiller, or if the
            logs do not hold `monitor`.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_ktan import KTANDistiller
    from keras_ktan.callbacks import StudentCheckpoint

    def classifier(units, name):
        layers = [keras.layers.Dense(units, activation="relu"), keras.layers.Dense(3)]
        return keras.Sequential([keras.Input((4,)), *layers], name=name)

    x, y = np.random.rand(32, 4), np.random.randint(0, 3, 32)
    distiller = KTANDistiller(classifier(16, "teacher"), classifier(4, "student"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(
        "adam", loss, ["accuracy"], feature_loss_weight=0, adversarial_loss_weight=0
    )
    best = StudentCheckpoint("/tmp/student.keras", monitor="val_accuracy")
    distiller.fit(x, y, validation_split=0.5, epochs=2, callbacks=[best], verbose=0)
    print(keras.saving.load_model("/tmp/student.keras").name)  # student
    ```
    """

    def __init__(
        self,
        filepath: str | os.PathLike,
        monitor: str = "val_loss",
        mode: str = "auto",
        verbose: int = 0,
        initial_value_threshold: float | None = None,
    ):
        if not str(filepath).endswith(".keras"):
            raise ValueError(
                f"Received filepath={str(filepath)!r} for a StudentCheckpoint. Expected a "
                "name that ends in '.keras'. Write `StudentCheckpoint('student.keras')`."
            )
        super().__init__(
            filepath,
            monitor=monitor,
            verbose=verbose,
            save_best_only=True,
            mode=mode,
            initial_value_threshold=initial_value_threshold,
        )

    def set_model(self, model):
        if not isinstance(getattr(model, "student", None), keras.Model):
            raise ValueError(
                f"Received a StudentCheckpoint in the training of '{model.name}', which has no "
                "student. Expected a KTANDistiller. Use `keras.callbacks.ModelCheckpoint`."
            )
        super().set_model(_SavesItsStudent(model))

    def on_epoch_end(self, epoch, logs=None):
        if self.monitor not in (logs or {}):
            raise ValueError(
                f"Received monitor={self.monitor!r} for a StudentCheckpoint, but the logs of an "
                f"epoch hold {sorted(logs or {})}. Expected one of these. Correct the name, or "
                "pass `validation_data` to `fit` and a metric to `compile`."
            )
        super().on_epoch_end(epoch, logs)


class _SavesItsStudent:
    """A distiller in all but `save`, which writes the student."""

    def __init__(self, distiller):
        self._distiller = distiller

    def __getattr__(self, name):
        return getattr(self._distiller, name)

    def save(self, filepath, overwrite=True):
        write_atomically(filepath, self._distiller.student.save)
