"""Stop a training whose losses are not finite, and restore the last good state."""

import keras
from keras import ops

from keras_ktan.utils.finite import first_nonfinite, value_of

# Reading what the step noted waits for the device, so it is done now and then.
CHECK_EVERY = 100
SNAPSHOT_EVERY = 1000
_NETWORKS = ("student", "t2s", "discriminator")


class DivergenceGuard(keras.callbacks.Callback):
    """Ends `fit` with an error that names the term, and brings back the last good state.

    A NaN never leaves a student again, and a run that goes on with it wastes the night. The step
    itself only notes which term was not finite; this callback looks every `CHECK_EVERY` steps and
    at the end of each epoch, before the validation and before any callback of the user saves the
    student. At the end of each epoch, and every `SNAPSHOT_EVERY` steps of a long one, it keeps a
    copy of all networks and optimizers if all their weights are finite.

    A callback that saves in the middle of an epoch may save up to `CHECK_EVERY` steps of a diverged
    training before it ends; one that saves at the end of an epoch may not.

    A loss-scaling optimizer that leaves out a step because a float16 gradient was not finite is no
    divergence: it is the losses that are looked at, before they are scaled.

    Raises:
        FloatingPointError: From the callback's methods. Before it is raised the distiller takes
            back the state of the last copy, optimizers included, so that `distiller.student` can
            be used and `fit` be called again.
    """

    def on_train_begin(self, logs=None):
        self._epoch = 0
        self._copies = None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if self._copies is None:
            # Not when the training begins: a callback behind this one may then load weights, as
            # `BackupAndRestore` does.
            self.model.divergence_metric.clear()
            self._take_copies("at the start")
        self._last_check = self._last_copy = 0

    # Not at a batch's end: a callback that acts there makes Keras wait for every step's logs.
    def on_train_batch_begin(self, batch, logs=None):
        if batch - self._last_check < CHECK_EVERY:
            return
        self._last_check = batch
        self._check()
        if batch - self._last_copy >= SNAPSHOT_EVERY:
            self._last_copy = batch
            self._take_copies(f"before batch {batch + 1} of epoch {self._epoch + 1}")

    def on_test_begin(self, logs=None):
        self._check()

    def on_epoch_end(self, epoch, logs=None):
        self._check()
        self._take_copies(f"at the end of epoch {epoch + 1}")

    def _check(self):
        terms, step = self.model.divergence_metric.first_bad()
        if not terms:
            return
        names = ", ".join(f"'{name}'" for name in terms)
        if terms == ["loss"]:
            names += " (the sum alone: a regulariser of the student, or the schedule of a weight)"
        self._stop(
            f"Received NaN or infinite values of {names} in step {step} of this call of `fit` "
            f"(epoch {self._epoch + 1})."
        )

    def _take_copies(self, when):
        distiller = self.model
        for network in _NETWORKS:
            variables = getattr(distiller, f"{network}_variables")
            if network == "student":
                variables = distiller.student.variables
            bad = first_nonfinite(variables)
            if bad is not None:
                self._stop(
                    f"Received NaN or infinite weights of the {network}, such as '{bad.path}', "
                    f"{when}, though all losses were finite: a gradient was not."
                )
        variables = [*distiller.variables, *distiller.optimizer.variables]
        self._copies = [(variable, ops.copy(value_of(variable))) for variable in variables]
        self._when = when

    def _stop(self, what):
        if self._copies is None:
            raise ValueError(
                f"{what} Expected finite weights to begin with. Load a good checkpoint, or build "
                "the student anew."
            )
        for variable, value in self._copies:
            variable.assign(value)
        self.model.divergence_metric.clear()
        raise FloatingPointError(
            f"{what} Expected finite numbers. The student, the other networks and their optimizers "
            f"are again as they were {self._when}. Use a smaller learning rate or weight, clip "
            "the gradients (`clipnorm=1.0`), or look for such values in the data, and for weights "
            "below 0 in `position_weights`."
        )
