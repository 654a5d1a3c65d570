"""What keeps a search honest: no objective that fools it, no error that it hides."""

import contextlib
import math

import keras
import keras_tuner
from keras_tuner.engine.metrics_tracking import infer_metric_direction

from keras_ktan.training.loss_trackers import TRACKER_NAMES

FailedTrialError = keras_tuner.errors.FailedTrialError


def validate_objective(objective):
    """Refuse an objective that gets better without a better student.

    Args:
        objective: A `keras_tuner.Objective`.

    Raises:
        ValueError: If it is no metric of the student, or its direction is the wrong one.

    Example:

    ```python
    import keras_tuner
    from keras_ktan.tuner.trial_guard import validate_objective

    validate_objective(keras_tuner.Objective("val_accuracy", "max"))
    ```
    """
    expected = (
        "Expected a metric of the student on validation data. Write "
        "`objective=keras_tuner.Objective('val_accuracy', 'max')`, for example."
    )
    for single in getattr(objective, "objectives", [objective]):
        if single.name == "default_objective":
            raise keras_tuner.errors.FatalValueError(f"Received no objective. {expected}")
        reason = None
        if single.name == "loss":
            reason = "It is the weighted sum of the terms: the smaller the weights, the smaller it."
        elif single.name.removeprefix("ktan_") in TRACKER_NAMES:
            reason = (
                "It is a distillation term on training data: the weights, T2S and the "
                "discriminator move it, whatever becomes of the student."
            )
        if reason:
            raise keras_tuner.errors.FatalValueError(
                f"Received the objective {single.name!r}. {reason} {expected}"
            )
        known = infer_metric_direction(single.name)
        if known not in (None, single.direction):
            raise keras_tuner.errors.FatalValueError(
                f"Received the objective {single.name!r} with direction {single.direction!r}. "
                f"Expected {known!r}, or the worst student would win. Write "
                f"`objective=keras_tuner.Objective({single.name!r}, {known!r})`."
            )


class DivergedTrial(keras.callbacks.Callback):
    """Ends a trial whose loss or objective is not finite, and one without the objective."""

    def __init__(self, objective):
        super().__init__()
        self._objective = objective

    def on_epoch_end(self, epoch, logs=None):
        if not self._objective.has_value(logs):
            raise keras_tuner.errors.FatalValueError(
                f"After epoch {epoch + 1} the logs lack the objective {self._objective}. Expected "
                f"one of {sorted(logs)}. Name one of these; for those with `val_` give `search` "
                "validation data, to be looked at after every epoch."
            )
        watched = {name: value for name, value in logs.items() if name.endswith("loss")}
        watched[self._objective.name] = self._objective.get_value(logs)
        diverged = {name: value for name, value in watched.items() if not math.isfinite(value)}
        if diverged:
            raise FailedTrialError(f"The training diverged in epoch {epoch + 1}: {diverged}")


def objective_of(callbacks):
    """KerasTuner tells a hypermodel its objective in one place only: the callback that saves."""
    for callback in callbacks:
        objective = vars(callback).get("objective")
        if isinstance(objective, keras_tuner.Objective):
            return objective
    raise keras_tuner.errors.FatalValueError(
        "Received no callback with an objective. Expected KerasTuner's own, which saves the best "
        "epoch, so that a wrong objective can be refused. Call `search` of a tuner whose "
        "`run_trial` calls that of `keras_tuner.Tuner`."
    )


@contextlib.contextmanager
def fatal(where):
    """KerasTuner counts any error as a failed trial and says nothing; here they end the search."""
    try:
        yield
    except (FailedTrialError, keras_tuner.errors.FatalError):
        raise
    except FloatingPointError as error:
        raise FailedTrialError(f"The training diverged: {error}") from error
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        if _ran_out_of_memory(told):
            raise FailedTrialError(f"Out of memory in {where}: {told}") from error
        kind = keras_tuner.errors.FatalRuntimeError
        if isinstance(error, ValueError):
            kind = keras_tuner.errors.FatalValueError
        raise kind(
            f"An error in {where} ended the search: {told}\nIt is not counted as a failed trial, "
            "because it would come back in every one. After it is mended the same search goes on. "
            "To give up one trial only, raise `keras_tuner.errors.FailedTrialError`."
        ) from error


def _ran_out_of_memory(told):
    # Each backend has an exception of its own for it.
    words = ("MemoryError", "OutOfMemory", "ResourceExhausted", "RESOURCE_EXHAUSTED")
    return any(word in told for word in words)
