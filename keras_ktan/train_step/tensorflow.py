"""One training step on TensorFlow."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from keras_ktan.acts_as_student import batch_size, without_optimizer
from keras_ktan.cached_batch import plain_batch, unpack


class TrainStep:
    """`train_step`, `test_step` and `predict_step` of a `KTANDistiller` on TensorFlow."""

    def compile(self, *args, **kwargs):
        if tf.distribute.get_strategy() is not self.distribute_strategy:
            # The optimizers' state would be one for all replicas, and each would move it.
            raise ValueError(
                "Received a call of `compile` outside of the `tf.distribute.Strategy` that the "
                "distiller was made in. Expected both in one scope, because every replica keeps "
                "the optimizers' state. Write both inside `with strategy.scope():`."
            )
        super().compile(*args, **kwargs)

    def _symbolic_build(self, iterator=None, data_batch=None):
        super()._symbolic_build(iterator=iterator, data_batch=data_batch)
        if not self.uses_own_loss and self.student.compiled:
            # The student's own metrics make their variables when they first see data. Inside a
            # compiled step that is too late: replicas cannot make any there.
            if data_batch is not None:
                data_batch = plain_batch(data_batch)
            with without_optimizer(self.student):
                self.student._symbolic_build(iterator=iterator, data_batch=data_batch)

    def make_train_function(self, force=False):
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        if self.run_eagerly:
            return
        run = self.train_function
        state_is_made = False

        def train_function(iterator):
            # Metrics make their variables when they first see data. TensorFlow throws away a
            # trace that made variables, and tracing the whole game takes seconds.
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
            self._symbolic_build(data_batch=data)
        return iterator

    def labels_loss(self, *args, **kwargs):
        # Keras divides a loss by the number of replicas; here it counts in full until it is
        # differentiated, and in the logs.
        return super().labels_loss(*args, **kwargs) * _replicas()

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x, *recalled = unpack(x)
        # TensorFlow 2.21's graph optimizer rewrites `max(sigmoid(t))`. Where t is one of several
        # tensors of a batch it takes the first one of them instead. A node between stops it.
        recalled = tf.nest.map_structure(
            lambda tensor: tensor if tensor is None else tf.ensure_shape(tensor, tensor.shape),
            recalled,
        )
        objectives = self.objectives
        optimizer = self.optimizer
        step = optimizer.iterations
        replicas = _replicas()

        def labels_loss(outputs):
            return self.labels_loss(x, y, outputs, sample_weight)

        def anchor_labels_loss(outputs):
            return self.anchor_labels_loss(x, y, outputs, sample_weight) * replicas

        teacher_view = objectives.watch_teacher(x, *recalled)
        others = {}
        # Each tape records what its player's gradient must pass through and no more: the
        # student's passes through the discriminator, the discriminator's ends at the maps.
        student_tape, t2s_tape, discriminator_tape = (tf.GradientTape() for _ in range(3))
        with student_tape:
            y_pred, maps = objectives.run_student(x)
            # Read now: an anchor may run the student's layers again and overwrite them.
            regularisation = self.regularisation()
            terms = {"student": labels_loss(y_pred)} if objectives.uses_labels else {}
            with t2s_tape:
                targets, t2s_loss = objectives.render_targets(
                    x, teacher_view, maps, anchor_labels_loss
                )
                t2s_objective = _scaled(optimizer.t2s, t2s_loss, replicas)
            verdicts = []
            with discriminator_tape:
                if objectives.uses_discriminator:
                    verdicts = objectives.judge(
                        teacher_view[0], targets, maps, _number_of_the_draw(step, replicas)
                    )
                    others["discriminator_loss"] = objectives.discriminator_loss(verdicts)
                    others["discriminator_accuracy"] = objectives.discriminator_accuracy(verdicts)
                    discriminator_objective = _scaled(
                        optimizer.discriminator, others["discriminator_loss"], replicas
                    )
            terms.update(
                objectives.distillation_terms(teacher_view[0], y_pred, targets, maps, verdicts)
            )
            loss = objectives.total(terms, regularisation, step)
            student_objective = _scaled(optimizer.student, loss, replicas)

        # All gradients are taken before any weight moves: the players move at once.
        moves = [(optimizer.student, student_tape, student_objective, self.student_variables)]
        if objectives.uses_maps:
            others["t2s_loss"] = t2s_loss
            moves.append((optimizer.t2s, t2s_tape, t2s_objective, self.t2s_variables))
        if objectives.uses_discriminator:
            moves.append(
                (
                    optimizer.discriminator,
                    discriminator_tape,
                    discriminator_objective,
                    self.discriminator_variables,
                )
            )
        gradients = [tape.gradient(goal, variables) for _, tape, goal, variables in moves]
        for (player, _, _, variables), gradient in zip(moves, gradients, strict=True):
            player.apply(gradient, variables)
        objectives.advance_power_iterations()

        logs = {f"{name}_loss": value for name, value in terms.items()} | others
        if replicas > 1:
            # A last batch of few examples leaves a replica with none. A mean over nothing is not
            # a number, and would stay in the logs although it has no weight in them.
            empty = batch_size(x) == 0
            logs, loss = tf.nest.map_structure(
                lambda value: tf.where(empty, tf.zeros_like(value), value), (logs, loss)
            )
        return self.log_step(x, y, y_pred, sample_weight, loss, logs)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(plain_batch(data))
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
        idle = {tracker.name for tracker in self.game_trackers if not tracker.count.numpy()}
        return {name: value for name, value in results.items() if name not in idle}

    def predict_step(self, data):
        return self.student.predict_step(plain_batch(data))


def _has_form(part):
    """Whether Keras can make a symbol like it; of ragged data, say, it cannot."""
    if isinstance(part, np.ndarray):
        return part.dtype.kind in "biuf"
    return isinstance(part, tf.TensorSpec | tf.Tensor) and part.shape.rank is not None


def _replicas():
    return tf.distribute.get_strategy().num_replicas_in_sync


def _number_of_the_draw(step, replicas):
    """What the noise follows from: each replica of each step draws its own."""
    if replicas == 1:
        return step
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return keras.ops.cast(step, "int32") * replicas + replica


def _scaled(optimizer, loss, replicas):
    """What is differentiated: this replica's share, scaled against float16's underflow."""
    share = loss / replicas if replicas > 1 else loss
    return share if optimizer is None else optimizer.scale_loss(share)
