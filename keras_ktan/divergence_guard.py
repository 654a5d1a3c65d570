"""Stop a training whose losses are no numbers any more, and keep the last good student."""

import keras
import numpy as np
from keras import ops

# Reading what the step noted waits for the device, so it is done now and then.
CHECK_EVERY = 100
SNAPSHOT_EVERY = 1000
_ROLES = ("student", "t2s", "discriminator")


class DivergenceWatch(keras.metrics.Metric):
    """Notes inside the training step which terms were first NaN or infinite, and when.

    A metric, because every backend carries the state of metrics through its step. It shows
    nothing in the logs and forgets only when it is told to: Keras resets metrics before a
    validation.

    Args:
        terms: Names of the terms.
    """

    def __init__(self, terms):
        super().__init__(name="divergence_watch")
        self.terms = tuple(terms)
        self._bad = self.add_variable((len(terms),), "zeros", dtype="float32", name="bad")
        # Every replica counts the same steps.
        self._good_steps = self.add_variable(
            (), "zeros", dtype="float32", aggregation="mean", name="good_steps"
        )

    def update_state(self, values):
        """Look at the terms of a step.

        Args:
            values: Dict from names to scalar tensors, with all terms.
        """
        bad = ops.stack(
            [
                ops.cast(ops.logical_not(ops.isfinite(values[name])), "float32")
                for name in self.terms
            ]
        )
        known = ops.convert_to_tensor(self._bad)
        # A gradient carries the trouble to the other replicas, which note it a step later and in
        # all terms. What was noted early weighs more.
        bad = bad / (1.0 + ops.convert_to_tensor(self._good_steps))
        noted = ops.where(ops.any(known > 0), known, bad)
        self._bad.assign(noted)
        self._good_steps.assign_add(ops.where(ops.any(noted > 0), 0.0, 1.0))

    def result(self):
        return {}

    def reset_state(self):
        """Nothing; see `clear`."""

    def clear(self):
        """Forget all that was noted."""
        super().reset_state()

    def first_bad(self):
        """What was noted.

        Returns:
            A tuple of the list of the terms that were first NaN or infinite, and the number of
            that step, from 1; `([], None)` where there is none.
        """
        bad = _to_numpy(self._bad)
        if not bad.any():
            return [], None
        terms = [name for name, value in zip(self.terms, bad, strict=True) if value == bad.max()]
        return terms, int(_to_numpy(self._good_steps)) + 1


class DivergenceGuard(keras.callbacks.Callback):
    """Ends `fit` with an error that names the term, and brings back the last good state.

    A NaN never leaves a student again, and a run that goes on with it wastes the night. The step
    itself only notes which term was not finite; this callback looks every `CHECK_EVERY` steps and
    at the end of each epoch, before the validation and before any callback of the user saves the
    student. At the end of each epoch, and every `SNAPSHOT_EVERY` steps of a long one, it keeps a
    copy of all players and optimizers if all their weights are finite.

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
            self.model.divergence_watch.clear()
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
        terms, step = self.model.divergence_watch.first_bad()
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
        for role in _ROLES:
            variables = getattr(distiller, f"{role}_variables")
            if role == "student":
                variables = distiller.student.variables
            bad = _first_not_finite(variables)
            if bad is not None:
                self._stop(
                    f"Received NaN or infinite weights of the {role}, such as '{bad.path}', "
                    f"{when}, though all losses were finite: a gradient was not."
                )
        variables = [*distiller.variables, *distiller.optimizer.variables]
        self._copies = [(variable, ops.copy(_value(variable))) for variable in variables]
        self._when = when

    def _stop(self, what):
        if self._copies is None:
            raise ValueError(
                f"{what} Expected finite weights to begin with. Load a good checkpoint, or build "
                "the student anew."
            )
        for variable, value in self._copies:
            variable.assign(value)
        self.model.divergence_watch.clear()
        raise FloatingPointError(
            f"{what} Expected finite numbers. The student, the other players and their optimizers "
            f"are again as they were {self._when}. Use a smaller learning rate or weight, clip "
            "the gradients (`clipnorm=1.0`), or look for such values in the data, and for weights "
            "below 0 in `position_weights`."
        )


def _value(variable):
    # As a tensor: TensorFlow's variables themselves warn when NumPy 2 reads them.
    return ops.stop_gradient(ops.convert_to_tensor(variable))


def _to_numpy(variable):
    return ops.convert_to_numpy(_value(variable))


def _first_not_finite(variables):
    """The first of some variables that holds NaN or infinite values, or `None`."""
    floats = [v for v in variables if keras.backend.is_float_dtype(v.dtype)]
    if not floats:
        return None
    # One wait for the device.
    finite = ops.stack([ops.all(ops.isfinite(_value(variable))) for variable in floats])
    finite = ops.convert_to_numpy(finite)
    return None if finite.all() else floats[int(np.argmin(finite))]
