"""One training step on TensorFlow."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from keras_ktan.training.optimizer import NETWORKS
from keras_ktan.training.steps.weight_updates import WeightUpdates
from keras_ktan.training.student_loss import (
    batch_size,
    build_student_metrics,
    student_forward,
)
from keras_ktan.utils.cached_batch import plain_batch, unpack
from keras_ktan.utils.keras_internals import SymbolicBuildHook, symbolic_build


class TrainStep(SymbolicBuildHook):
    """`train_step`, `test_step` and `predict_step` of a `KTANDistiller` on TensorFlow."""

    def compile(self, *args, **kwargs):
        if tf.distribute.get_strategy() is not self.distribute_strategy:
            # The optimizers' state would be one for all replicas, and each would move it.
            raise ValueError(
                "Received a call of `compile` outside of the `tf.distribute.Strategy` that the "
                "distiller was made in. Expected both in one scope, because every replica keeps "
                "the optimizers' state. Write both inside `with strategy.scope():`."
            )
        self._weight_updates = WeightUpdates()
        super().compile(*args, **kwargs)

    def on_symbolic_build(self, iterator, data_batch):
        build_student_metrics(self, iterator, data_batch)

    def make_train_function(self, force=False):
        if self.train_function is not None and not force:
            return
        # What is traced anew takes an optimizer's settings as they are now.
        self._weight_updates = WeightUpdates()
        super().make_train_function(force)
        if self.run_eagerly:
            return
        run = self.train_function
        state_is_made = False

        def train_function(iterator):
            # Metrics make their variables when they first see data. TensorFlow throws away a
            # trace that made variables, and tracing a step takes seconds.
            nonlocal state_is_made
            if not state_is_made:
                iterator = self._make_state(iterator)
                state_is_made = True
            return run(iterator)

        self.train_function = train_function

    def _make_state(self, iterator):
        """Make the variables of metrics and losses for the data to come.

        Args:
            iterator: What Keras hands over: `fit` an iterator of TensorFlow's, which knows the
                form of its batches, `train_on_batch` another with one batch.

        Returns:
            An iterator over the same data.
        """
        if isinstance(iterator, tf.data.Iterator):
            data = iterator.element_spec
        elif isinstance(iterator, tf.distribute.DistributedIterator):
            return iterator  # Keras made them already, on every replica
        else:
            data = next(iterator)
            iterator = itertools.chain([data], iterator)
        data = tf.nest.map_structure(
            lambda part: None if isinstance(part, tf.OptionalSpec) else part, data
        )
        if all(part is None or _has_form(part) for part in tf.nest.flatten(data)):
            symbolic_build(self, data_batch=data)
        return iterator

    def skip_step(self, iterator):
        """Read the batches of one call without a step, as a resumed training does."""
        self._make_state(iterator)  # what was kept of the metrics needs its place
        for _ in range(self.steps_per_execution):
            next(iterator)
        return {}

    def random_state(self):
        """The random state that is no variable: none, as long as Keras draws the numbers."""
        return np.zeros(0, "uint8")

    def set_random_state(self, state):
        """Nothing; see `random_state`."""

    @property
    def replica_count(self):
        """How many replicas compute a step. Keras divides a loss by it."""
        return _replicas()

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.init_scope():  # the teacher's weights are compared as numbers
            self.objectives.forward_passes.validate_cached(x)
        x, *cached = _unpack(x)
        batch = (self.student_inputs(x), y, sample_weight)
        objectives = self.objectives
        # Each tape records what its network's gradient must pass through and no more: the
        # student's passes through the discriminator, the discriminator's ends at the maps.
        tapes = {network: tf.GradientTape(watch_accessed_variables=False) for network in NETWORKS}
        with tapes["student"]:
            tapes["student"].watch(_values(self.student_variables))
            student, regularisation, terms = student_forward(self, x, *batch)
            outputs, maps = student.outputs, student.maps
            with tapes["student"].stop_recording():
                teacher = objectives.teacher_forward(student.inputs, *cached)
                objectives.observe_outputs(teacher, student)
            with tapes["t2s"]:
                tapes["t2s"].watch(_values(self.t2s_variables))
                targets, others = self._project_features(*batch, teacher, student)
                losses = self._scaled_losses(others)
            with tapes["discriminator"]:
                tapes["discriminator"].watch(_values(self.discriminator_variables))
                logits, discriminator = self._discriminator_forward(teacher.outputs, targets, maps)
                losses |= self._scaled_losses(discriminator)
            terms |= objectives.distillation_terms(teacher, student, targets, logits)
            loss = objectives.weighted_sum(terms, regularisation, self.optimizer.iterations)
            losses |= self._scaled_losses({"student_loss": loss})
        self._apply_gradients(tapes, losses)
        logs = {f"{name}_loss": value for name, value in terms.items()} | others | discriminator
        logs, loss = _without_empty_replicas(logs, loss, batch[0])
        return self.log_step(*batch[:2], outputs, sample_weight, loss, logs)

    def _project_features(self, x, y, sample_weight, teacher, student):
        replicas = _replicas()
        return self.objectives.project_features(
            teacher,
            student,
            lambda outputs: self.untracked_student_loss(x, y, outputs, sample_weight) * replicas,
        )

    def _discriminator_forward(self, teacher_outputs, targets, maps):
        objectives = self.objectives
        if not objectives.uses_discriminator:
            return [], {}
        step = _step_of_replica(self.step_counter)
        logits = objectives.discriminator_forward(teacher_outputs, targets, maps, step)
        return logits, objectives.discriminator_terms(logits, targets)

    def _scaled_losses(self, losses):
        """What is differentiated: this replica's share, scaled against float16's underflow."""
        replicas, scaled = _replicas(), {}
        for network in NETWORKS:
            loss = losses.get(f"{network}_loss")
            if loss is not None:
                share = loss / replicas if replicas > 1 else loss
                scaled[network] = getattr(self.optimizer, network).scale_loss(share)
        return scaled

    def _apply_gradients(self, tapes, losses):
        variables = {network: getattr(self, f"{network}_variables") for network in losses}
        # All gradients are taken before any weight moves.
        gradients = {
            network: tapes[network].gradient(loss, variables[network])
            for network, loss in losses.items()
        }
        for network, gradient in gradients.items():
            optimizer = getattr(self.optimizer, network)
            self._weight_updates.apply(optimizer, gradient, variables[network])
        self.objectives.advance_power_iterations()
        self.step_counter.assign_add(1)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(
            plain_batch(data, self.student_inputs)
        )
        y_pred = self.student(x, training=False)
        # Keras's own step multiplies this by the number of replicas, with the regularisers.
        loss = self.compute_loss(x, y, y_pred, sample_weight, training=False)
        return self.log_evaluation(x, y, y_pred, sample_weight, loss)

    def get_metrics_result(self):
        results = super().get_metrics_result()
        if self.distribute_strategy.num_replicas_in_sync == 1 or tf.inside_function():
            return results
        # Keras reports these numbers, which are right over all replicas, only where a step's
        # logs have the same names; else the mean of the replicas' own numbers, whatever their
        # shares of the data. The logs of an evaluation lack the terms that nobody updated.
        idle = () if self.loss_trackers.count.numpy() else self.loss_trackers.log_names
        return {name: value for name, value in results.items() if name not in idle}

    def predict_step(self, data):
        return self.student.predict_step(plain_batch(data, self.student_inputs))


def _has_form(part):
    """Whether Keras can make a symbol like it; of ragged data, say, it cannot."""
    if isinstance(part, np.ndarray):
        return part.dtype.kind in "biuf"
    return isinstance(part, tf.TensorSpec | tf.Tensor) and part.shape.rank is not None


def _values(variables):
    return [variable.value for variable in variables]


def _replicas():
    return tf.distribute.get_strategy().num_replicas_in_sync


def _step_of_replica(step):
    """What the noise follows from: each replica of each step draws its own."""
    replicas = _replicas()
    if replicas == 1:
        return step
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return keras.ops.cast(step, "int32") * replicas + replica


def _unpack(x):
    """A batch's inputs and what a cache holds for it."""
    x, *cached = unpack(x)
    # TensorFlow 2.21's graph optimizer rewrites `max(sigmoid(t))`. Where t is one of several
    # tensors of a batch it takes the first one of them instead. A node between stops it.
    cached = tf.nest.map_structure(
        lambda tensor: tensor if tensor is None else tf.ensure_shape(tensor, tensor.shape), cached
    )
    return x, *cached


def _without_empty_replicas(logs, loss, x):
    """The logs and the loss, 0 on a replica without examples.

    A last batch of few examples leaves a replica with none. A mean over nothing is not a number,
    and would stay in the logs although it has no weight in them.
    """
    if _replicas() == 1:
        return logs, loss
    empty = batch_size(x) == 0
    return tf.nest.map_structure(
        lambda value: tf.where(empty, tf.zeros_like(value), value), (logs, loss)
    )
