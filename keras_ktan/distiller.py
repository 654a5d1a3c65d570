"""KTANDistiller: how the players are compiled, and what is logged of their game."""

import inspect
import types

import keras

from keras_ktan import validation
from keras_ktan.acts_as_student import ActsAsStudent, batch_size
from keras_ktan.anchor_labels import AnchorLabels
from keras_ktan.divergence_guard import DivergenceWatch
from keras_ktan.feature_pair import FeaturePair
from keras_ktan.game_log import GameLog
from keras_ktan.guarded_fit import GuardedFit
from keras_ktan.model_trace import supports_jit
from keras_ktan.objectives import Objectives
from keras_ktan.pairing import Pairing
from keras_ktan.players import Players
from keras_ktan.players_optimizer import make_players_optimizer
from keras_ktan.saved_distiller import SavedDistiller
from keras_ktan.train_step import TrainStep


@keras.saving.register_keras_serializable(package="keras_ktan")
class KTANDistiller(GuardedFit, TrainStep, ActsAsStudent, SavedDistiller, Players, keras.Model):
    """Trains a small student to be as good as a big teacher.

    The student learns from the labels, from the teacher's softened probabilities, from the
    teacher's feature map as a Teacher-to-Student (T2S) layer renders it in the student's shape,
    and from fooling a discriminator that tells the two models' maps apart. All of it happens
    inside plain `fit()`. Outside `fit()` the distiller is the student: calling it,
    `predict`, `evaluate` and `export` give what the student gives.

    Args:
        teacher: A built `keras.Model` that is good at the task. It is never changed.
        student: A built `keras.Model` to be trained. Inputs and outputs are the teacher's.
        feature_pairs: A `FeaturePair` or a list of them. `None`: each model's last feature
            map before its pooling or flattening; `summary()` says which.
        temperature: Number above 0 that softens both models' probabilities.
        logits_output: Key or position of the output that holds the class logits.
            `None`: the single output, if there is one and its rank is 2.
        logits_activation: `"softmax"` for one class of many, `"sigmoid"` for classes that
            are independent of each other, `None` for models without class logits (regression).
        name: Optional name.

    Raises:
        ValueError: If the models are not built, are one model, share weights, hold a weight
            that is not finite (teacher), have unlike classes, or if a pair does not fit.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_ktan import KTANDistiller

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
    distiller = KTANDistiller(teacher=classifier(32, "teacher"), student=classifier(4, "student"))
    distiller.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    distiller.fit(images, labels, epochs=1, verbose=0)
    print(distiller.student.predict(images, verbose=0).shape)  # (64, 10)
    ```

    Reference:
        - [Liu et al., 2018](https://arxiv.org/abs/1810.08126): KTAN
        - [Hinton et al., 2015](https://arxiv.org/abs/1503.02531): softened probabilities
    """

    def __init__(
        self,
        teacher,
        student,
        feature_pairs=None,
        temperature=4.0,
        logits_output=None,
        logits_activation="softmax",
        name="ktan_distiller",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        validation.check_models(teacher, student)
        validation.check_temperature(temperature)
        if logits_activation is not None:
            validation.check_choice("logits_activation", logits_activation, ("softmax", "sigmoid"))
        validation.check_feature_pairs(feature_pairs)
        self.student = student
        self.temperature = float(temperature)
        self.logits_output = logits_output
        self.logits_activation = logits_activation
        self.feature_pairs = None if feature_pairs is None else _as_list(feature_pairs)
        if hasattr(student, "output_names"):
            # So that the logs of a student with several outputs have the student's names.
            self.output_names = student.output_names
        # Keras tracks no namespace. As a tracked sublayer the teacher would be thawed by
        # `distiller.trainable = True`.
        self._untracked = types.SimpleNamespace(
            teacher=teacher,
            pairing=Pairing(teacher, student, self.feature_pairs, logits_output, logits_activation),
            log=None,
            watch=None,
            anchor_labels=None,
            compile_arguments=None,
        )
        # Attributes, so that Keras tracks and saves these layers.
        self.teacher_to_student_layers = self._untracked.pairing.teacher_to_student_layers
        self.discriminators = self._untracked.pairing.discriminators
        self.objectives = None
        self.built = True

    def compile(
        self,
        optimizer="adam",
        discriminator_optimizer=None,
        t2s_optimizer=None,
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        student_loss_weight=1.0,
        logits_loss_weight=None,
        feature_loss_weight=1.0,
        adversarial_loss_weight=0.02,
        feature_loss="cosine",
        adversarial_loss="bce",
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
    ):
        """Configure the training.

        The student minimises `student_loss_weight · loss + logits_loss_weight · T²·KL +
        feature_loss_weight · match + adversarial_loss_weight · fool` plus its own regularisers.
        A weight is a number of 0 or more, or a `keras.optimizers.schedules.LearningRateSchedule`
        that is read at every step of the student's optimizer. A term whose weight is the number
        0 is not computed at all.

        Args:
            optimizer: The student's optimizer.
            discriminator_optimizer: The discriminators'. `None`: `Adam(5e-5, beta_1=0.5)`,
                slow, so that the discriminator does not win.
            t2s_optimizer: T2S's. `None`: `Adam(3e-3)`.
            loss: The loss against the labels, as in `keras.Model.compile`. `None`: the
                student's own `compute_loss` (detectors, or a student that is compiled).
            loss_weights: As in `keras.Model.compile`.
            metrics: As in `keras.Model.compile`; they look at the student's outputs.
            weighted_metrics: As in `keras.Model.compile`.
            student_loss_weight: Weight of the loss against the labels.
            logits_loss_weight: Weight of the softened probabilities. `None`: 1 where the
                models have class scores and `loss` is given, else 0.
            feature_loss_weight: Weight of the feature target.
            adversarial_loss_weight: Weight of fooling the discriminator.
            feature_loss: `"cosine"`, `"mse"`, `"normalized_mse"` or `"pooled_cosine"`.
            adversarial_loss: `"bce"`, `"least_squares"` or `"hinge"`.
            run_eagerly: As in `keras.Model.compile`.
            steps_per_execution: As in `keras.Model.compile`.
            jit_compile: As in `keras.Model.compile`.
            auto_scale_loss: As in `keras.Model.compile`, for each player's optimizer.

        Defaults: our choice. An adversarial weight of 0.1 did worse than 0.02 in
        `benchmarks/results/choose_game_digits.md`.

        Raises:
            ValueError: If an argument is out of its range, or a term is asked for that these
                models do not allow.
        """
        arguments = {name: value for name, value in locals().items() if name in _COMPILE_ARGUMENTS}
        pairing = self._untracked.pairing
        if logits_loss_weight is None:
            has_logits = loss is not None and pairing.class_logits.found
            logits_loss_weight = arguments["logits_loss_weight"] = 1.0 if has_logits else 0.0
        weights = {
            "student": student_loss_weight,
            "logits": logits_loss_weight,
            "feature": feature_loss_weight,
            "adversarial": adversarial_loss_weight,
        }
        validation.check_weights(weights)
        validation.check_feature_loss(feature_loss)
        validation.check_adversarial_loss(adversarial_loss)
        if loss is None:
            validation.check_student_loss(self.student, metrics, weighted_metrics, loss_weights)
        objectives = Objectives(
            self.teacher,
            self.student,
            pairing.pairs,
            pairing.class_logits,
            self.temperature,
            weights,
            pairing.teacher_structure,
            feature_loss,
            adversarial_loss,
        )
        pairing.check_game(objectives, loss)
        validation.check_trainable(self.student)
        scale = auto_scale_loss and self.student.dtype_policy.name == "mixed_float16"
        optimizers = make_players_optimizer(
            objectives, optimizer, t2s_optimizer, discriminator_optimizer, scale
        )
        if jit_compile == "auto" and not supports_jit(self.teacher):
            jit_compile = False
        optimizers.build(self.student_variables, self.t2s_variables, self.discriminator_variables)
        super().compile(
            optimizer=optimizers,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=False,  # each player's optimizer scales its own
        )
        self.objectives = objectives
        self._untracked.log = GameLog(objectives, pairing.student_loss_names)
        self._untracked.watch = DivergenceWatch((*self._untracked.log.losses, "loss"))
        self._untracked.anchor_labels = AnchorLabels(self.student, loss, loss_weights)
        self._untracked.compile_arguments = {
            **arguments,
            "optimizer": optimizers.student,
            "t2s_optimizer": optimizers.t2s or t2s_optimizer,
            "discriminator_optimizer": optimizers.discriminator or discriminator_optimizer,
        }

    @property
    def uses_own_loss(self):
        """Whether `compile` was given a loss; else the student's own is used."""
        return self._untracked.compile_arguments["loss"] is not None

    @property
    def game_trackers(self):
        """Metrics of the game's terms."""
        return self._untracked.log.trackers

    @property
    def divergence_watch(self):
        """A metric that notes which term of a step was first NaN or infinite."""
        return self._untracked.watch

    def anchor_labels_loss(self, x, y, y_pred, sample_weight):
        """The same loss for the anchors' outputs, which no log shows."""
        return self._untracked.anchor_labels.loss(x, y, y_pred, sample_weight)

    def log_step(self, x, y, y_pred, sample_weight, loss, terms):
        """Update the trackers and return the logs of a training step.

        Args:
            x: Inputs.
            y: Targets.
            y_pred: The student's outputs.
            sample_weight: Sample weights or `None`.
            loss: The weighted sum.
            terms: Dict from names in the logs to unweighted means over the batch.

        Returns:
            Dict from names to values, running means over the epoch.
        """
        self._untracked.watch.update_state({**terms, "loss": loss})
        logs = self.log_evaluation(x, y, y_pred, sample_weight, loss)
        return logs | self._untracked.log.update(terms, batch_size(x))


# What is saved of a call of `compile`.
_COMPILE_ARGUMENTS = tuple(inspect.signature(KTANDistiller.compile).parameters)[1:]


def _as_list(feature_pairs):
    return [feature_pairs] if isinstance(feature_pairs, FeaturePair) else list(feature_pairs)
