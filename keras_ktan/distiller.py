"""KTANDistiller: a teacher and a student that are compiled and fitted like one Keras model."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_ktan.cache.cached_dataset import CachedDataset
from keras_ktan.callbacks.fit_callbacks import FitCallbacks
from keras_ktan.export import ExportResult, export_student
from keras_ktan.feature_pair import FeaturePair, as_feature_pairs
from keras_ktan.introspection.model_digest import teacher_digest
from keras_ktan.introspection.model_inputs import select_inputs
from keras_ktan.introspection.model_trace import supports_jit
from keras_ktan.losses.adversarial import AdversarialLoss, get_adversarial_loss
from keras_ktan.losses.feature import validate_feature_loss
from keras_ktan.losses.logits import validate_logits_loss
from keras_ktan.output_pair import OutputPair, as_output_pairs
from keras_ktan.training import validation
from keras_ktan.training.checkpoint import load_networks, save_networks
from keras_ktan.training.defaults import connect_variances, settle_weights
from keras_ktan.training.divergence_metric import DivergenceMetric
from keras_ktan.training.loss_trackers import LossTrackers
from keras_ktan.training.objectives import Objectives
from keras_ktan.training.optimizer import make_optimizer
from keras_ktan.training.pairing import Pairing
from keras_ktan.training.steps import TrainStep
from keras_ktan.training.student_loss import UntrackedStudentLoss, batch_size, own_loss
from keras_ktan.training.training_description import describe_training
from keras_ktan.utils.cached_batch import plain_inputs
from keras_ktan.utils.config_format import with_format, without_format
from keras_ktan.utils.numbers import validate_flag, validate_number

# What `compile` takes for the weight of a term.
Weight = float | keras.optimizers.schedules.LearningRateSchedule


@dataclasses.dataclass
class _Untracked:
    """What Keras must not find on the distiller.

    Keras tracks every layer, metric and variable that it finds in an attribute, also in lists and
    dicts, and saves what it finds. As a tracked sublayer the teacher would be thawed by
    `distiller.trainable = True` and given to the optimizer; a metric would be reset and logged
    by Keras besides; the compile arguments would save the optimizers a second time. Keras does
    not look into a plain object like this one.

    Args:
        teacher: The teacher.
        pairing: The `Pairing` of both models.
        loss_trackers: `LossTrackers`, from `compile` on.
        divergence_metric: `DivergenceMetric`, from `compile` on.
        untracked_student_loss: `UntrackedStudentLoss`, from `compile` on.
        compile_arguments: What `compile` was given, with the networks' optimizers in place of
            what they were made from.
        teacher_digest: Says which teacher it is, from the first checkpoint of a `fit` on: the
            teacher may be large.
    """

    teacher: keras.Model
    pairing: Pairing
    loss_trackers: LossTrackers | None = None
    divergence_metric: DivergenceMetric | None = None
    untracked_student_loss: UntrackedStudentLoss | None = None
    compile_arguments: dict[str, Any] | None = None
    teacher_digest: str | None = None


@keras.saving.register_keras_serializable(package="keras_ktan")
class KTANDistiller(TrainStep, keras.Model):
    """Trains a small student to be as good as a big teacher.

    The student learns from the targets of the data, from the teacher's softened probabilities,
    from the teacher's feature map as a Teacher-to-Student (T2S) layer projects it to the
    student's shape, and against a discriminator that tells the two models' maps apart. All of it
    happens inside plain `fit()`. Outside `fit()` the distiller is the student: calling it,
    `predict`, `evaluate` and `export` give what the student gives.

    Args:
        teacher: A built `keras.Model` that is good at the task. It is never changed.
        student: A built `keras.Model` to be trained. Its inputs are the teacher's.
        feature_pairs: A `FeaturePair` or a list of them. `None`: of each model the
            default of `feature_maps`, where both have one; `summary()` says which.
        temperature: Number above 0 that softens both models' probabilities.
        output_pairs: An `OutputPair` or a list of them; `[]` for none. `None`: single outputs and
            those of the same key, where `compile` is given a loss; `summary()` says which.
        name: Optional name.
        divergence_guard: Whether each `fit` has a `keras_ktan.callbacks.DivergenceGuard`, which
            ends it at the first NaN. One among `fit`'s callbacks takes the default one's place.

    Raises:
        ValueError: If the models are not built, are one model, share weights, hold a weight
            that is not finite (teacher), or if a pair does not fit.

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
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss, metrics=["accuracy"])
    distiller.fit(images, labels, epochs=1, verbose=0)
    print(distiller.student.predict(images, verbose=0).shape)  # (64, 10)
    ```

    Reference:
        - [Liu et al., 2018](https://arxiv.org/abs/1810.08126): KTAN
        - [Hinton et al., 2015](https://arxiv.org/abs/1503.02531): softened probabilities
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: keras.Model,
        feature_pairs: FeaturePair | list[FeaturePair] | None = None,
        temperature: float = 4.0,
        output_pairs: OutputPair | list[OutputPair] | None = None,
        name: str = "ktan_distiller",
        divergence_guard: bool = True,
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        validation.validate_models(teacher, student)
        self.temperature = validate_number(
            "temperature",
            temperature,
            above=0,
            remedy="1 leaves the probabilities as they are, 2 to 6 are usual. Try "
            "`temperature=4.0`.",
        )
        self.divergence_guard = validate_flag("divergence_guard", divergence_guard)
        self.feature_pairs = as_feature_pairs(feature_pairs)
        self.student = student
        self.output_pairs = as_output_pairs(output_pairs)
        if hasattr(student, "output_names"):
            # So that the logs of a student with several outputs have the student's names.
            self.output_names = student.output_names
        pairing = Pairing(
            teacher, student, self.feature_pairs, self.output_pairs, FeaturePair, OutputPair
        )
        self._untracked = _Untracked(teacher, pairing)
        # Attributes, so that Keras tracks and saves these layers.
        self.teacher_to_student_layers = pairing.teacher_to_student_layers
        self.discriminators = pairing.discriminators
        self.output_variances = []  # of regression's outputs, from `compile` on
        # What the discriminator's noise follows from: an optimizer's iterations stand still
        # while it accumulates gradients.
        self.step_counter = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            aggregation="only_first_replica",
            name="step_counter",
        )
        self.objectives = None
        self.built = True

    # The networks and their variables.

    @property
    def teacher(self) -> keras.Model:
        """The teacher. It is saved with the distiller and never trained by it."""
        return self._untracked.teacher

    @property
    def teacher_paths(self) -> list[str]:
        """Paths of the teacher's layers that the pairs name, each once."""
        pairs = self._untracked.pairing.pairs
        return list(dict.fromkeys(pair.pair.teacher_layer_name for pair in pairs))

    @property
    def student_variables(self) -> list[keras.Variable]:
        """What the student's optimizer moves."""
        return self.student.trainable_variables

    @property
    def t2s_variables(self) -> list[keras.Variable]:
        """What T2S's optimizer moves."""
        return _trainable_variables(self.teacher_to_student_layers)

    @property
    def discriminator_variables(self) -> list[keras.Variable]:
        """What the discriminators' optimizer moves."""
        # Compiled again with another loss, a discriminator may have lost its condition.
        unused = {
            id(variable)
            for pair in self._untracked.pairing.pairs
            if not pair.conditional
            for variable in pair.discriminator.projection.trainable_variables
        }
        variables = _trainable_variables(self.discriminators)
        return [variable for variable in variables if id(variable) not in unused]

    @property
    def state_variables(self) -> list[keras.Variable]:
        """What a training changes: the networks, random states, counters and the optimizers."""
        teachers = {id(variable) for variable in self.teacher.variables}
        own = [variable for variable in self.variables if id(variable) not in teachers]
        return own + self.optimizer.variables

    def describe_training(self) -> dict[str, str]:
        """What decides over the steps of `fit`, but for the data and the teacher's weights."""
        untracked = self._untracked
        return describe_training(
            self.student, self.temperature, untracked.pairing, untracked.compile_arguments
        )

    def summary(self, *args, print_fn=print, **kwargs) -> None:
        """Print both models' sizes, the pairs, T2S's objectives and the discriminators.

        Args:
            *args: Passed on to the student's `summary`.
            print_fn: Function that prints a line.
            **kwargs: Passed on to the student's `summary`.
        """
        print_fn(
            f"KTANDistiller '{self.name}': teacher '{self.teacher.name}' "
            f"({self.teacher.count_params():,} parameters), student '{self.student.name}' "
            f"({self.student.count_params():,} parameters)"
        )
        for line in self._untracked.pairing.describe():
            print_fn(line)
        print_fn(f"  temperature: {self.temperature:g}")
        self.student.summary(*args, print_fn=print_fn, **kwargs)

    # compile

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
        *,
        student_loss_weight: Weight = 1.0,
        logits_loss: str | keras.losses.Loss | Callable = "kl",
        logits_loss_weight: Weight | None = None,
        feature_loss: str | keras.losses.Loss | Callable = "normalized_mse",
        feature_loss_weight: Weight | None = None,
        adversarial_loss: str | AdversarialLoss = "bce",
        adversarial_loss_weight: Weight | None = None,
        t2s_optimizer: Any = None,
        discriminator_optimizer: Any = None,
        **unknown,
    ) -> None:
        """Configure the training.

        The student minimises `student_loss_weight · loss + logits_loss_weight · logits_loss +
        feature_loss_weight · feature_loss + adversarial_loss_weight · adversarial_loss` plus its
        own regularisers. A weight is a number of 0 or more, or a
        `keras.optimizers.schedules.LearningRateSchedule` that is read at every step of the
        student's optimizer. A term whose weight is the number 0 is not computed at all.

        Args:
            optimizer: The student's optimizer.
            loss: The loss against the targets, as in `keras.Model.compile`. `None`: the
                student's own `compute_loss` (detectors, or a student that is compiled).
            loss_weights: As in `keras.Model.compile`.
            metrics: As in `keras.Model.compile`; they look at the student's outputs.
            weighted_metrics: As in `keras.Model.compile`.
            run_eagerly: As in `keras.Model.compile`.
            steps_per_execution: As in `keras.Model.compile`.
            jit_compile: As in `keras.Model.compile`.
            auto_scale_loss: As in `keras.Model.compile`, for each network's optimizer.
            student_loss_weight: Weight of `loss`.
            logits_loss: `"kl"` (T² times the KL divergence of the softened probabilities),
                `"standardized_kl"`, `"pearson"`, a `keras.losses.Loss` (its `call`, unreduced) or
                a function of (teacher, student) logits that returns `(batch,)` or
                `(batch, positions...)`. The constructor's `temperature` belongs to the names.
            logits_loss_weight: `None`: 1 where outputs are paired (by name, or by themselves and
                `loss` is given), else 0.
            feature_loss: `"normalized_mse"`, `"cosine"`, `"mse"`, `"pooled_cosine"`, a
                `keras.losses.Loss` or a function of (target, feature map) likewise.
            feature_loss_weight: `None`: where feature maps are paired, 3 with `"normalized_mse"`
                and 1 with another loss, else 0. A number says that the term is wanted.
            adversarial_loss: `"bce"`, `"least_squares"`, `"hinge"` or an
                `keras_ktan.losses.AdversarialLoss`.
            adversarial_loss_weight: Weight of the student's loss against the discriminator, 0.02
                to begin with. `None`: 0.
            t2s_optimizer: T2S's optimizer. `None`: `Adam(3e-3)`.
            discriminator_optimizer: The discriminators' optimizer. `None`:
                `Adam(5e-5, beta_1=0.5)`, slow, so that the discriminator does not win.
            **unknown: None are expected; a misspelt argument gets an error that says the right one.

        Defaults: our choice, measured in benchmarks/results/recipe_cifar10_16_small_cpu.

        Raises:
            ValueError: If an argument is out of its range, or a term is asked for that these
                models do not allow.
        """
        arguments = {name: value for name, value in locals().items() if name in _COMPILE_ARGUMENTS}
        validation.validate_argument_names(unknown, _COMPILE_ARGUMENTS)
        pairing = self._untracked.pairing
        validation.validate_loss_weights(loss_weights, pairing.outputs.student_names)
        settle_weights(arguments, pairing)
        self._validate_compile(arguments)
        weights = {term: arguments[f"{term}_loss_weight"] for term in _TERMS}
        outputs = pairing.outputs.settle(loss, weights)
        self.output_variances = connect_variances(outputs, self.output_variances)
        objectives = Objectives(
            pairing,
            self.temperature,
            weights,
            {term: arguments[f"{term}_loss"] for term in _TERMS if term != "student"},
            outputs,
        )
        # Also where no term needs it yet: a checkpoint then has a place for every weight.
        if objectives.uses_discriminator or objectives.condition is not None:
            pairing.connect_condition(objectives.condition and objectives.condition.size)
        pairing.validate_objectives(objectives)
        validate_logits_loss(logits_loss, [output.kind for output in outputs])
        pairing.warn_of_left_out(logits_loss_weight is None, feature_loss_weight is None)
        scale = auto_scale_loss and self.student.dtype_policy.name == "mixed_float16"
        optimizers = make_optimizer(
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
            auto_scale_loss=False,  # each network's optimizer scales its own
        )
        self.objectives = objectives
        untracked = self._untracked
        untracked.loss_trackers = LossTrackers(objectives, pairing.student_loss_names)
        if self.divergence_guard:
            terms = (*untracked.loss_trackers.losses, "loss")
            untracked.divergence_metric = DivergenceMetric(terms)
        untracked.untracked_student_loss = UntrackedStudentLoss(self.student, loss, loss_weights)
        untracked.compile_arguments = {
            **arguments,
            "optimizer": optimizers.student,
            "t2s_optimizer": optimizers.t2s or t2s_optimizer,
            "discriminator_optimizer": optimizers.discriminator or discriminator_optimizer,
        }

    def _validate_compile(self, arguments):
        validation.validate_weights({term: arguments[f"{term}_loss_weight"] for term in _TERMS})
        validate_feature_loss(arguments["feature_loss"])
        get_adversarial_loss(arguments["adversarial_loss"])
        if arguments["loss"] is None:
            validation.validate_student_loss(
                self.student,
                *(arguments[name] for name in ("metrics", "weighted_metrics", "loss_weights")),
            )
        validation.validate_trainable(self.student)

    @property
    def has_compiled_loss(self) -> bool:
        """Whether `compile` was given a loss; else the student's own is used."""
        return self._untracked.compile_arguments["loss"] is not None

    @property
    def loss_trackers(self) -> LossTrackers:
        """The metric of the terms that only a distillation has."""
        return self._untracked.loss_trackers

    @property
    def divergence_metric(self) -> DivergenceMetric | None:
        """A metric that notes which term of a step was first NaN or infinite."""
        return self._untracked.divergence_metric

    # fit

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        **arguments,
    ) -> keras.callbacks.History:
        """Train the student; all arguments are those of `keras.Model.fit`.

        Args:
            x: As in `keras.Model.fit`, or what `TeacherCache.dataset` returned. Of a `PyDataset`
                with a method `begin_epoch(epoch)` it is called before each epoch.
            y: As in `keras.Model.fit`.
            batch_size: As in `keras.Model.fit`.
            epochs: As in `keras.Model.fit`.
            verbose: As in `keras.Model.fit`.
            callbacks: As in `keras.Model.fit`.
            validation_split: As in `keras.Model.fit`.
            validation_data: As in `keras.Model.fit`; plain data, also beside a cache.
            shuffle: As in `keras.Model.fit`. A cache's data set shuffles itself.
            **arguments: The others of `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: If a cache's data set is another teacher's or lacks a map or comes with
                `steps_per_epoch`, or if the student begins with weights that are not finite.
            FloatingPointError: If a loss becomes NaN or infinite. The error names the term; the
                distiller is as it was at the end of the last good epoch, or up to 1,000 steps
                before in a long one.
        """
        compiled = self._untracked.compile_arguments or {"loss": None}
        if compiled["loss"]:
            metrics = compiled["metrics"] or compiled["weighted_metrics"]
            if metrics or self.objectives.uses_student_loss:
                validation.validate_targets(x, y)
        self._untracked.teacher_digest = None
        if isinstance(x, CachedDataset) and self.compiled:
            validation.validate_cached_steps(arguments.get("steps_per_epoch"))
            x.prepare_for(self)
            shuffle = False
        own = FitCallbacks(self, callbacks, x)
        if self.compiled:
            arguments["initial_epoch"] = own.first_epoch(
                shuffle, arguments.get("steps_per_epoch"), arguments.get("initial_epoch", 0), epochs
            )
        try:
            return super().fit(
                x,
                y,
                batch_size,
                epochs,
                verbose,
                own.callbacks,
                validation_split,
                validation_data,
                shuffle,
                **arguments,
            )
        finally:
            own.release()

    def make_train_function(self, force=False):
        """As in `keras.Model`. `fit` and `train_on_batch` come by here before the first step."""
        if self.compiled:
            validation.validate_optimized_variables(self.student_variables, self.optimizer)
        super().make_train_function(force)

    # What a step asks for; see `training/steps`.

    def student_inputs(self, x):
        """What the student takes of a batch's inputs: not what only the teacher does."""
        return select_inputs(self.student, plain_inputs(x))

    def student_loss(self, x, y, y_pred, sample_weight, training=True):
        """The loss against the targets alone (a student's own: whatever that holds).

        It counts in full on each replica. Keras divides it by their number; a step does so when
        it differentiates.
        """
        if y is None and not self.objectives.uses_student_loss:
            return keras.ops.zeros(())  # data without targets, and no term that wants any
        if self.has_compiled_loss:
            loss = super().compute_loss(x, y, y_pred, sample_weight, training=training)
        else:
            loss = own_loss(self.student, x, y, y_pred, sample_weight, training=training)
        return loss * self.replica_count if self.replica_count > 1 else loss

    def untracked_student_loss(self, x, y, y_pred, sample_weight):
        """The same loss for outputs of T2S's objectives, which no log shows."""
        return self._untracked.untracked_student_loss(x, y, y_pred, sample_weight)

    def student_regularisation(self):
        """The student's regularisers and `add_loss` terms, where its loss lacks them."""
        # The student's own loss holds them, unless that loss is switched off.
        held = not self.has_compiled_loss and self.objectives.uses_student_loss
        return [] if held else list(self.student.losses)

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
        if self.divergence_guard:
            self.divergence_metric.update_state({**terms, "loss": loss})
        logs = self.log_evaluation(x, y, y_pred, sample_weight, loss)
        self.loss_trackers.update_state(terms, batch_size(x))
        return logs | self.loss_trackers.result()

    def log_evaluation(self, x, y, y_pred, sample_weight, loss):
        """Update the trackers and return the logs of an evaluation step."""
        self._loss_metric().update_state(loss, sample_weight=batch_size(x))
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def _loss_metric(self):
        return next(metric for metric in self.metrics if metric.name == "loss")

    # Outside `fit` a distiller is its student.

    def call(self, inputs, training=None):
        return self.student(self.student_inputs(inputs), training=training)

    @property
    def losses(self):
        """Empty: the student's regularisers are read from the student."""
        return []

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """What the student's own `evaluate` reports as its loss."""
        x = self.student_inputs(x)
        loss = self.student_loss(x, y, y_pred, sample_weight, training=training)
        for extra in self.student.losses if self.has_compiled_loss else []:
            loss = loss + keras.ops.cast(keras.ops.sum(extra), loss.dtype)
        return loss

    @property
    def metrics(self):
        metrics = super().metrics
        if self.compiled:
            metrics = [*metrics, self.loss_trackers]
            if self.divergence_guard:
                metrics.append(self.divergence_metric)
            if not self.has_compiled_loss:
                metrics += [metric for metric in self.student.metrics if metric.name != "loss"]
        return metrics

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The metrics of the student's outputs; the distillation terms are not among them."""
        x = self.student_inputs(x)
        if self.has_compiled_loss:
            results = super().compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        else:
            results = self.student.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
            results["loss"] = self._loss_metric().result()
        terms = self.loss_trackers.log_names
        return {name: value for name, value in results.items() if name not in terms}

    def export(self, filepath: str, format: str | None = None, **kwargs) -> ExportResult:
        """Export the student alone; see `export_student`."""
        return export_student(self.student, filepath, format=format, **kwargs)

    # As a file.

    def save_weights(self, filepath, overwrite=True, max_shard_size=None):
        """Write the weights of the student, T2S and the discriminators, and the optimizers' state.

        The teacher's are left out: it does not change, and is larger than the rest. A file is
        written beside its final name and renamed. `save` writes everything.

        Args:
            filepath: Path that ends in `.weights.h5`.
            overwrite: As in `keras.Model.save_weights`.
            max_shard_size: As in `keras.Model.save_weights`.
        """
        save_networks(self, self._teacher_digest(), filepath, overwrite, max_shard_size)

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """Read what `save_weights` wrote.

        Args:
            filepath: Path that ends in `.weights.h5`.
            skip_mismatch: As in `keras.Model.load_weights`.
            **kwargs: As in `keras.Model.load_weights`.

        Raises:
            ValueError: If the file is another's, or was written beside another teacher.
        """
        load_networks(self, teacher_digest(self.teacher), filepath, skip_mismatch, **kwargs)

    def _teacher_digest(self):
        if self._untracked.teacher_digest is None:
            self._untracked.teacher_digest = teacher_digest(self.teacher)
        return self._untracked.teacher_digest

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        layers = []
        # As they were settled: which channels T2S selects follows from the teacher's weights,
        # and loading builds the distiller before it has them.
        pairs = [pair.to_references(layers) for pair in self._settled_feature_pairs()]
        return with_format(
            {
                "name": self.name,
                "teacher": serialize(self.teacher),
                "student": serialize(self.student),
                "feature_pairs": pairs or None,
                "pair_layers": [serialize(layer) for layer in layers],
                "temperature": self.temperature,
                "output_pairs": serialize(self.output_pairs),
                "condition_classes": self._condition_classes(),
                "divergence_guard": self.divergence_guard,
            }
        )

    def _settled_feature_pairs(self):
        return [
            FeaturePair(
                connected.pair.teacher_layer_name,
                connected.pair.student_layer_name,
                connected.weight,
                connected.teacher_to_student,
                connected.discriminator,
                connected.pair.position_weights,
            )
            for connected in self._untracked.pairing.pairs
        ]

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = without_format(config, _CONFIG_KEYS, "a KTANDistiller")

        def deserialize(value):
            return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)

        layers = [deserialize(layer) for layer in config.pop("pair_layers")]
        if config["feature_pairs"] is not None:
            config["feature_pairs"] = [
                FeaturePair.from_references(pair, layers, deserialize)
                for pair in config["feature_pairs"]
            ]
        for name in ("teacher", "student", "output_pairs"):
            config[name] = deserialize(config[name])
        classes = config.pop("condition_classes")
        distiller = cls(**config)
        if classes is not None:
            # So that the discriminators' weights have a place where nobody compiles.
            distiller._untracked.pairing.connect_condition(classes)
        return distiller

    def _condition_classes(self):
        condition = self.objectives.condition if self.objectives else None
        return condition.size if condition else None

    def get_compile_config(self):
        if not self.compiled:
            return {}
        return with_format(
            {
                name: keras.saving.serialize_keras_object(value)
                for name, value in self._untracked.compile_arguments.items()
            }
        )

    def compile_from_config(self, config):
        config = without_format(config, _COMPILE_ARGUMENTS, "the compilation of a KTANDistiller")
        self.compile(
            **{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()}
        )


_TERMS = ("student", "logits", "feature", "adversarial")
# What is saved of a call of `compile`.
_COMPILE_ARGUMENTS = tuple(inspect.signature(KTANDistiller.compile).parameters)[1:-1]
_CONFIG_KEYS = (
    "name",
    "teacher",
    "student",
    "feature_pairs",
    "pair_layers",
    "temperature",
    "output_pairs",
    "condition_classes",
    "divergence_guard",
)


def _trainable_variables(layers):
    return [variable for layer in layers for variable in layer.trainable_variables]
