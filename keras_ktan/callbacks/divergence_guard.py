"""Stop a training whose losses or weights are not finite, and restore the last good state."""

import keras
from keras import ops

from keras_ktan.utils.finite import first_nonfinite, value_of
from keras_ktan.utils.numbers import validate_flag

# Reading what the step noted waits for the device, so it is done now and then.
CHECK_EVERY = 100
SNAPSHOT_EVERY = 1000
_NETWORKS = ("student", "t2s", "discriminator")


class DivergenceGuard(keras.callbacks.Callback):
    """Ends `fit` with an error that names the term, and brings back the last good state.

    A NaN never leaves a student again, and a run that goes on with it wastes the night. Every
    `fit` of a distiller has this callback; pass one of your own to change what it keeps, or
    `KTANDistiller(divergence_guard=False)` to have none. The step itself only notes which term was
    not finite; this callback looks every 100 steps and at the end of each epoch, before the
    validation and before any callback of the user saves the student. There it looks at the
    weights as well: an activation may hide from the losses what spoilt the weights. At the end of
    each epoch, and every 1,000 steps of a long one, it keeps a copy of all networks and optimizers.

    A callback that saves in the middle of an epoch may save up to 100 steps of a diverged training
    before it ends; one that saves at the end of an epoch may not.

    A loss-scaling optimizer that leaves out a step because a float16 gradient was not finite is no
    divergence: it is the losses that are looked at, before they are scaled.

    Args:
        restore: Whether to keep copies and bring the last one back. Without, the networks stay
            as they are when the error is raised, and nothing is kept.
        keep_on_host: Whether the copies lie in the host's memory and not on the device. Then each
            copy waits for the transfer.

    Raises:
        FloatingPointError: From the callback's methods. Before it is raised the distiller takes
            back the state of the last copy, optimizers included, so that `distiller.student` can
            be used and `fit` be called again.
        ValueError: If an argument is no truth value, or if weights are not finite when `fit`
            begins.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_ktan import KTANDistiller
    from keras_ktan.callbacks import DivergenceGuard

    def classifier(units, name):
        layers = [keras.layers.Dense(units, activation="relu"), keras.layers.Dense(3)]
        return keras.Sequential([keras.Input((4,)), *layers], name=name)

    x, y = np.random.rand(32, 4), np.random.randint(0, 3, 32)
    distiller = KTANDistiller(classifier(16, "teacher"), classifier(4, "student"))
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller.fit(x, y, callbacks=[DivergenceGuard(keep_on_host=True)], verbose=0)
    ```
    """

    def __init__(self, restore: bool = True, keep_on_host: bool = False):
        super().__init__()
        self.restore = validate_flag("restore", restore)
        self.keep_on_host = validate_flag("keep_on_host", keep_on_host)
        self._copies = None

    def release(self):
        """Let go of the copies. `fit` calls it, however it ends."""
        self._copies = None

    def on_train_begin(self, logs=None):
        if getattr(self.model, "divergence_metric", None) is None:
            raise ValueError(
                f"Received a DivergenceGuard in the training of '{self.model.name}', whose steps "
                "do not note what it reads. Expected a KTANDistiller. Use "
                "`keras.callbacks.TerminateOnNaN` for other models."
            )
        self._epoch = 0
        self._has_begun = False
        self._copies = None

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if not self._has_begun:
            # Not when the training begins: a callback behind this one may then load weights, as
            # `ResumableBackup` does.
            self.model.divergence_metric.clear()
            self._validate_start()
            self._has_begun, self._good_steps = True, 0
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

    def on_train_end(self, logs=None):
        self.release()

    def _validate_start(self):
        network, bad = self._bad_weights()
        if bad is not None:
            raise ValueError(
                f"Received NaN or infinite weights of the {network}, such as '{bad.path}', at the "
                "start. Expected finite weights to begin with. Load a good checkpoint, or build "
                "the student anew."
            )

    def _check(self):
        metric = self.model.divergence_metric
        terms, step = metric.first_bad()
        if terms:
            names = ", ".join(f"'{name}'" for name in terms)
            if terms == ["loss"]:
                names += " (the sum alone: a regulariser of the student, or a weight's schedule)"
            self._stop(
                f"Received NaN or infinite values of {names} in step {step} of this call of `fit` "
                f"(epoch {self._epoch + 1})."
            )
        steps = metric.good_steps()
        if steps == self._good_steps:
            return  # nothing was trained since
        network, bad = self._bad_weights()
        if bad is not None:
            first = self._good_steps + 1
            when = f"step {steps}" if first == steps else f"one of the steps {first} to {steps}"
            self._stop(
                f"Received NaN or infinite weights of the {network}, such as '{bad.path}', in "
                f"{when} of this call of `fit` (epoch {self._epoch + 1}), though all losses were "
                "finite: a gradient was not, or the data are not and an activation hid it from "
                "the losses (TensorFlow's fused ReLU makes 0 of NaN on a CPU)."
            )
        self._good_steps = steps

    def _bad_weights(self):
        for network in _NETWORKS:
            variables = getattr(self.model, f"{network}_variables")
            if network == "student":
                variables = self.model.student.variables
            bad = first_nonfinite(variables)
            if bad is not None:
                return network, bad
        return None, None

    def _take_copies(self, when):
        if not self.restore:
            return
        copy = ops.convert_to_numpy if self.keep_on_host else ops.copy
        self._copies = [
            (variable, copy(value_of(variable))) for variable in self.model.state_variables
        ]
        self._when = when

    def _stop(self, what):
        for variable, value in self._copies or ():
            variable.assign(value)
        self.model.divergence_metric.clear()
        state = (
            f"again as they were {self._when}"
            if self._copies
            else "as they are now, because the guard has restore=False"
        )
        raise FloatingPointError(
            f"{what} Expected finite numbers. The student, the other networks and their optimizers "
            f"are {state}. Use a smaller learning rate or weight, clip the gradients "
            "(`clipnorm=1.0`), or look for such values in the data, and for weights below 0 in "
            "`position_weights`."
        )
