"""The best student of a search."""

import keras
import keras_tuner
from keras_tuner.engine.trial import TrialStatus


def best_student(tuner: keras_tuner.Tuner) -> keras.Model:
    """The best student that a search trained, with the weights of its best epoch.

    Args:
        tuner: The tuner after `search`, or a tuner of the same project made anew.

    Returns:
        A `keras.Model` that knows nothing of the search, the teacher or this package.

    Raises:
        ValueError: If no trial was completed.

    Example: see `KTANHyperModel`.
    """
    trials = tuner.oracle.get_best_trials(1)
    if not trials or trials[0].status != TrialStatus.COMPLETED:
        messages = [(trial.message or "").strip().splitlines()[-1:] for trial in trials]
        raise ValueError(
            f"The search in '{tuner.project_dir}' has no completed trial "
            f"({len(tuner.oracle.trials)} were begun; a failed one says {messages}). Expected at "
            "least one. Call `search`, or mend what made the trials fail."
        )
    return tuner.load_model(trials[0]).student
