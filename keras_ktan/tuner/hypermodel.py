"""KTANHyperModel: KerasTuner looks for the settings that give the best student.

Import it from `keras_ktan.tuner`; it needs the extra `tuner`, which the package itself does not.
"""

import importlib.util
import weakref
from collections.abc import Callable
from typing import Any

import keras

try:
    import keras_tuner
except ImportError as error:
    raise ImportError(
        "The keras-tuner package is not installed. Expected it for keras_ktan.tuner. Install it "
        'with `pip install "keras-ktan[tuner]"`.'
    ) from error

from keras_ktan.distiller import KTANDistiller
from keras_ktan.feature_pair import FeaturePair
from keras_ktan.introspection.model_digest import teacher_digest
from keras_ktan.tuner.search_space import DISTILLATION_TERMS, SearchSpace
from keras_ktan.tuner.trial_distiller import make_trial_distiller, pairs_without_layers
from keras_ktan.tuner.trial_guard import (
    DivergedTrial,
    fatal,
    objective_of,
    validate_objective,
)
from keras_ktan.utils.numbers import validate_integer


class KTANHyperModel(keras_tuner.HyperModel):
    """Lets any KerasTuner tuner search the settings of a distillation.

    It searches the weights of the four loss terms and whether they stay or fall to 0 along the
    training, the temperature, the objective of T2S, the feature loss, and the discriminator. The
    teacher is loaded once; no trial stores it. Give the tuner an objective and the
    search its data, but no optimizer, loss or metrics: those are `compile_arguments`.

    The objective is a metric of the student on validation data, such as
    `keras_tuner.Objective("val_accuracy", "max")`. `"val_loss"` is the student's own loss
    against the labels (with its regularisers), which holds none of the searched weights. The
    weighted sum `"loss"` and the distillation terms are refused: they can be made small without
    a better student.

    A trial whose loss or objective stops being finite, or that runs out of memory, is failed,
    and the search goes on (up to the tuner's `max_consecutive_failed_trials`). Any other error
    ends the search, because KerasTuner would hide it.

    Args:
        build_student: Function from a `keras_tuner.HyperParameters` to a new, built student. It
            may use it to search the student's size as well, by names that are not in
            `search_space`.
        teacher: A built and trained `keras.Model`.
        compile_arguments: Function from a `keras_tuner.HyperParameters` to a dict of arguments
            for `KTANDistiller.compile` that are not searched: a new optimizer, `loss`, `metrics`.
        training_steps: Int, steps of a whole training, along which falling weights reach 0
            (with Hyperband: of `max_epochs`). May be left out if no weight falls.
        search_space: Dict from a name to what it may be: one value fixes it, a list names the
            choices, a tuple `(low, high)` bounds a number, searched on a log scale. What
            is left out has the bounds of `keras_ktan.tuner.search_space.DEFAULTS` (our choice):
            `student_loss_weight`, `logits_loss_weight`, `feature_loss_weight`,
            `adversarial_loss_weight`, `logits_loss_ramp`, `feature_loss_ramp`,
            `adversarial_loss_ramp` (`"constant"`, `"falling"` or `"off"`), `temperature`,
            `t2s_objective`, `feature_loss`, `adversarial_loss`, `discriminator_filters`,
            `discriminator_noise`.
        feature_pairs: As in `KTANDistiller`, without layers of their own: each trial makes new
            ones.
        **distiller_arguments: More for `KTANDistiller`, such as `output_pairs`.

    Raises:
        ValueError: If an argument is wrong, or if the models do not allow an objective of
            the space.
        ImportError: If tensorboard is missing, without which KerasTuner fails on TensorFlow.

    Example:

    ```python
    import keras
    import keras_tuner
    import numpy as np
    from keras_ktan.tuner import KTANHyperModel, best_student

    def classifier(filters, name):
        return keras.Sequential(
            [
                keras.Input((8, 8, 1), name="image"),
                keras.layers.Conv2D(filters, 3, activation="relu"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(10, name="logits"),
            ],
            name=name,
        )

    images, labels = np.random.rand(64, 8, 8, 1), np.random.randint(0, 10, 64)
    hypermodel = KTANHyperModel(
        build_student=lambda hp: classifier(4, "student"),
        teacher=classifier(32, "teacher"),
        compile_arguments=lambda hp: {
            "optimizer": keras.optimizers.Adam(1e-2),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "metrics": ["accuracy"],
        },
        training_steps=2,
        search_space={"student_loss_weight": 1.0, "temperature": [2.0, 4.0]},
    )
    tuner = keras_tuner.RandomSearch(
        hypermodel,
        objective=keras_tuner.Objective("val_accuracy", "max"),
        max_trials=2,
        directory="/tmp/search",
    )
    tuner.search(images, labels, validation_split=0.5, epochs=2, verbose=0)
    print(best_student(tuner).predict(images, verbose=0).shape)  # (64, 10)
    ```
    """

    def __init__(
        self,
        build_student: Callable[[keras_tuner.HyperParameters], keras.Model],
        teacher: keras.Model,
        compile_arguments: Callable[[keras_tuner.HyperParameters], dict[str, Any]],
        training_steps: int | None = None,
        search_space: dict[str, Any] | None = None,
        feature_pairs: FeaturePair | list[FeaturePair] | None = None,
        **distiller_arguments,
    ):
        super().__init__(name="ktan")
        _require_tensorboard()
        for name, function in {
            "build_student": build_student,
            "compile_arguments": compile_arguments,
        }.items():
            if not callable(function) or isinstance(function, keras.Model):
                raise ValueError(
                    f"Received {name}={function!r}. Expected a function of `hp`, because every "
                    f"trial needs a new one. Write `{name}=lambda hp: ...`."
                )
        if "temperature" in distiller_arguments:
            raise ValueError(
                "Received temperature as an argument of KTANHyperModel. Expected it in the search "
                "space. Write `search_space={'temperature': 4.0}` to fix it."
            )
        self._build_student = build_student
        self._teacher = teacher
        self._compile_arguments = compile_arguments
        self._space = SearchSpace(search_space)
        self._training_steps = self._checked_steps(training_steps)
        self._feature_pairs = pairs_without_layers(feature_pairs)
        self._distiller_arguments = distiller_arguments
        self._check_t2s_objectives()
        # What each distiller was compiled to; a search lets go of those that it has done with.
        self._compiled = weakref.WeakKeyDictionary()
        # Its weights do not change during the search.
        self._teacher_digest = teacher_digest(teacher)

    def _checked_steps(self, steps):
        ramps = [self._space.choices(f"{term}_loss_ramp") for term in DISTILLATION_TERMS]
        if steps is None and not any("falling" in choices for choices in ramps):
            return None
        return validate_integer(
            "training_steps",
            steps,
            at_least=1,
            where=" with weights that may fall to 0",
            remedy="Write `training_steps=epochs * steps_per_epoch`, or keep 'falling' out of "
            "the three `..._loss_ramp`s.",
        )

    def _check_t2s_objectives(self):
        """A search must not end in its middle with an objective that never could work."""
        student = self._build_student(keras_tuner.HyperParameters())
        for objective in self._space.choices("t2s_objective"):
            try:
                self._make_distiller(student, {"temperature": 1.0, "t2s_objective": objective})
            except ValueError as error:
                raise ValueError(
                    f"Received search_space with t2s_objective={objective!r} (or without "
                    f"'t2s_objective', which means all) for models that refuse it: {error}"
                ) from error

    def _make_distiller(self, student, drawn):
        return make_trial_distiller(
            self._teacher, student, self._feature_pairs, drawn, **self._distiller_arguments
        )

    def _weight(self, drawn, term):
        weight = drawn[f"{term}_loss_weight"]
        ramp = drawn[f"{term}_loss_ramp"]
        if ramp == "falling" and weight:
            return keras.optimizers.schedules.CosineDecay(weight, self._training_steps)
        return weight or 0.0  # none was drawn for a term that is off

    def build(self, hp: keras_tuner.HyperParameters) -> KTANDistiller:
        """The compiled distiller of one trial; KerasTuner calls it.

        Args:
            hp: A `keras_tuner.HyperParameters`.

        Returns:
            A `KTANDistiller`.
        """
        with fatal("KTANHyperModel"):
            _confirm(hp, "teacher", self._teacher_digest)
            _confirm(hp, "training_steps", self._training_steps or 0)
        with fatal("build_student"):
            student = self._build_student(hp)
        with fatal("compile_arguments"):
            given = dict(self._compile_arguments(hp))
        with fatal("KTANDistiller"):
            drawn = self._space.draw(hp)
            searched = {
                "student_loss_weight": drawn["student_loss_weight"],
                **{f"{term}_loss_weight": self._weight(drawn, term) for term in DISTILLATION_TERMS},
                # What is inactive is not used either.
                "feature_loss": drawn["feature_loss"] or "cosine",
                "adversarial_loss": drawn["adversarial_loss"] or "bce",
            }
            twice = sorted(set(searched) & set(given))
            if twice:
                raise ValueError(
                    f"Received {twice} from compile_arguments. Expected what is not searched. "
                    "Fix a searched value with `search_space` instead."
                )
            distiller = self._make_distiller(student, drawn)
            distiller.compile(**given, **searched)
        self._compiled[distiller] = distiller.objectives
        return distiller

    def fit(
        self, hp: keras_tuner.HyperParameters, model: KTANDistiller, *args, callbacks=(), **kwargs
    ) -> keras.callbacks.History:
        """Train the distiller of one trial; KerasTuner calls it.

        Args:
            hp: A `keras_tuner.HyperParameters`.
            model: What `build` returned.
            *args: What `search` was given.
            callbacks: The user's callbacks and KerasTuner's.
            **kwargs: What `search` was given.

        Returns:
            A `keras.callbacks.History`.
        """
        objective = objective_of(callbacks)
        validate_objective(objective)
        if self._compiled.get(model, model.objectives) is not model.objectives:
            # KerasTuner compiles once more when the tuner has an optimizer, a loss or metrics, and
            # leaves all other arguments at their defaults.
            raise keras_tuner.errors.FatalValueError(
                "Received a second call of `compile` for the distiller of a trial. Expected one, "
                "because a second one loses the searched weights. Give optimizer, loss and metrics "
                "to KTANHyperModel as `compile_arguments`, and not to the tuner."
            )
        with fatal("fit"):
            # First of all, so that nothing is kept of an epoch that diverged.
            callbacks = [DivergedTrial(objective), *callbacks]
            return model.fit(*args, callbacks=callbacks, **kwargs)


def _confirm(hp, name, value):
    """Record with a search what its results depend on; a search that had another is refused."""
    recorded = hp.Fixed(f"keras_ktan/{name}", value)
    if recorded != value:
        raise ValueError(
            f"Received {name}={value!r} for a search that was begun with {recorded!r}. Expected "
            "the same, because its trials are compared. Go on with that, or begin anew with "
            "another `project_name` or `overwrite=True`."
        )


def _require_tensorboard():
    needed = keras.backend.backend() == "tensorflow"
    if needed and importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "The tensorboard package is not installed. Expected it, because every trial of "
            "KerasTuner on TensorFlow imports it. Install it with `pip install "
            '"keras-ktan[tuner]"`.'
        )
