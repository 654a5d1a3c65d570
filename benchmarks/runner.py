"""What trains the teacher and the students of one experiment."""

import hashlib
import time

import keras
from progress import EpochReport
from run_log import digest

import keras_ktan
from keras_ktan import (
    FeatureDiscriminator,
    FeaturePair,
    KTANDistiller,
    TeacherCache,
    TeacherToStudent,
)
from keras_ktan.cache.cached_dataset import CachedDataset
from keras_ktan.utils.cached_batch import plain_batch

TEACHER_SEED = 1234


class PlainBatches(keras.utils.PyDataset):
    """The same batches without the teacher's part, for who runs the teacher himself.

    Keras calls `on_epoch_end` also after a first look at the data; so the epoch's number, which
    the order follows from, comes from a callback: `fit(data, callbacks=[data.callback])`.
    """

    def __init__(self, cached):
        super().__init__()
        self._cached = cached
        self.callback = keras.callbacks.LambdaCallback(on_epoch_begin=cached.begin_epoch)

    def __len__(self):
        return len(self._cached)

    def __getitem__(self, index):
        return plain_batch(self._cached[index])


def weight_over_training(weight, steps):
    """A weight of a `Method` as `KTANDistiller.compile` takes it.

    Args:
        weight: A number, `{"falling": number}` or `{"early": number}`.
        steps: Steps of the whole training.

    Returns:
        A number or a schedule.
    """
    schedules = keras.optimizers.schedules
    match weight:
        case {"falling": start}:
            return schedules.CosineDecay(start, steps)
        case {"early": start}:
            return schedules.PiecewiseConstantDecay([steps // 3], [start, 0.0])
    return weight


class Runner:
    """Trains the teacher and the students of one experiment.

    Args:
        experiment: An `Experiment`.
        task: Its `Task`.
        shared: `pathlib.Path` of the folder where experiments share teachers and caches.
        teacher: `pathlib.Path` of a trained teacher's file; `None`: it is trained once and kept
            in `shared`.
        verbose: 1 shows how the cache is filled, 0 nothing.
    """

    def __init__(self, experiment, task, shared, teacher=None, verbose=1):
        self.experiment = experiment
        self.task = task
        # Of a student's whole training.
        self.steps = experiment.epochs * -(-len(task.train[0]) // experiment.batch_size)
        self.teacher_epochs = experiment.teacher_epochs or experiment.epochs
        if teacher is None:
            self._place = self._name_teacher(shared)
            self.teacher = self._obtain_teacher()
        else:
            self.teacher = keras.saving.load_model(teacher)
            self._refuse_another_network(teacher)
            self._place = shared / digest(self.teacher.get_weights())
        self.cache = None
        if experiment.teacher_cache:
            layers = sorted({layer for method in experiment.methods for layer in method.layers})
            self.cache = TeacherCache(
                self.teacher,
                f"{self._place}-{'-'.join(layers)}",
                views=task.views,
                layer_names=layers,
                precision=task.cache_precision,
            )
            self.cache.fill(task.train[0], verbose=verbose)

    def _refuse_another_network(self, path):
        wanted = self.task.make_model(self.experiment.teacher, "teacher").count_params()
        if self.teacher.count_params() != wanted:
            raise ValueError(
                f"{path} holds a model of {self.teacher.count_params():,} parameters. Expected the "
                f"experiment's teacher, {wanted:,}. Name another file with --teacher."
            )

    def _name_teacher(self, shared):
        """Where its files lie: what it depends on names them, so equal teachers are one."""
        experiment, task = self.experiment, self.task
        teacher = {
            name: getattr(experiment, name)
            for name in ("task", "teacher", "batch_size", "weight_decay")
        }
        teacher["epochs"] = self.teacher_epochs
        teacher["pixels"] = digest(keras.tree.flatten(task.train))
        teacher["rate"] = experiment.teacher_learning_rate
        teacher["versions"] = versions()
        if not experiment.teacher_augmented:
            teacher["views"] = list(task.views)
        elif task.make_augmented is None:
            raise ValueError(
                f"Received teacher_augmented = true with task = {experiment.task!r}. Expected a "
                "task that can move its images. Leave it out."
            )
        else:
            # How they are moved, told by the first of them.
            moved = next(iter(task.make_augmented(experiment.batch_size, TEACHER_SEED)))
            parts = keras.tree.flatten(moved)
            teacher["views"] = digest([keras.ops.convert_to_numpy(part) for part in parts])
        return shared / hashlib.sha256(repr(teacher).encode()).hexdigest()[:16]

    def make_student(self):
        """An untrained student."""
        return self.task.make_model(self.experiment.student, "student")

    def make_optimizer(self, rate, steps):
        """The task's optimizer for so many steps."""
        return self.task.make_optimizer(rate, steps, self.experiment.weight_decay)

    def make_data(self, seed):
        """The batches of a run, the same for every method."""
        if self.cache is None:
            return self.make_plain_data(seed)
        return self.cache.dataset(*self.task.train, self.experiment.batch_size, seed)

    def make_plain_data(self, seed):
        """Batches in the same views and order without a teacher's part."""
        nothing = {view: {"outputs": {}, "maps": {}} for view in self.task.views}
        images, labels = self.task.train
        untaught = CachedDataset(
            nothing,
            None,
            self.task.views,
            {},
            images,
            labels,
            None,
            self.experiment.batch_size,
            seed,
            True,
        )
        return PlainBatches(untaught)

    def _obtain_teacher(self):
        path = self._place.with_suffix(".keras")
        if path.exists():
            return keras.saving.load_model(path)
        experiment = self.experiment
        print(f"teacher: {self.teacher_epochs} epochs ...", flush=True)
        keras.utils.set_random_seed(TEACHER_SEED)
        teacher = self.task.make_model(experiment.teacher, "teacher")
        if experiment.teacher_augmented:
            data, callbacks = self.task.make_augmented(experiment.batch_size, TEACHER_SEED), []
        else:
            data = self.make_plain_data(TEACHER_SEED)
            callbacks = [data.callback]
        # A teacher may see fewer images an epoch than the students, who see them in all views.
        optimizer = self.make_optimizer(
            experiment.teacher_learning_rate, self.teacher_epochs * len(data)
        )
        teacher.compile(optimizer, **self.task.compile_arguments())
        self._fit(teacher, data, self.teacher_epochs, callbacks, "teacher")
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.keras")
        teacher.save(unfinished)
        unfinished.replace(path)
        return teacher

    def _fit(self, model, data, epochs, callbacks, label):
        def tell(logs):
            # Only when a line is due: a look after each epoch is a good part of a short run.
            return self.task.tell(model, self.task, logs)

        return model.fit(
            data,
            epochs=epochs,
            callbacks=[*callbacks, EpochReport(label, tell=tell)],
            shuffle=False,  # the data shuffle themselves
            verbose=0,
        )

    def train(self, method, seed):
        """One student.

        The seed fixes its first weights and the batches, so that all methods start alike.

        Args:
            method: A `Method`.
            seed: Int.

        Returns:
            A tuple of the student, its history and the seconds of `fit`.
        """
        keras.utils.set_random_seed(seed)
        student = self.make_student()
        through_keras = method.through == "keras.distillation"
        make = self._distiller_of_keras if through_keras else self._distiller
        distiller = make(method, student)
        data = self.make_plain_data(seed) if through_keras else self.make_data(seed)
        callbacks = [data.callback] if isinstance(data, PlainBatches) else []
        epochs = self.experiment.epochs
        keras.utils.set_random_seed(seed)
        start = time.perf_counter()
        history = self._fit(distiller, data, epochs, callbacks, f"seed {seed}, {method.name}")
        return student, history.history, time.perf_counter() - start

    def _distiller(self, method, student):
        pairs = [
            FeaturePair(
                layer,
                layer,
                teacher_to_student=TeacherToStudent(objective=None if anchor == "none" else anchor),
                discriminator=FeatureDiscriminator(**method.discriminator),
            )
            for layer, anchor in method.layers.items()
        ]
        distiller = KTANDistiller(
            self.teacher,
            student,
            pairs,
            temperature=method.temperature,
            **self.task.distiller_arguments,
        )
        more = self.task.compile_arguments()
        if method.discriminator_learning_rate is not None:
            more["discriminator_optimizer"] = keras.optimizers.Adam(
                method.discriminator_learning_rate, beta_1=0.5
            )
        if method.t2s_learning_rate is not None:
            more["t2s_optimizer"] = keras.optimizers.Adam(method.t2s_learning_rate)
        distiller.compile(
            self.make_optimizer(self.experiment.learning_rate, self.steps),
            logits_loss_weight=weight_over_training(method.logits, self.steps),
            feature_loss_weight=weight_over_training(method.feature, self.steps),
            adversarial_loss_weight=weight_over_training(method.adversarial, self.steps),
            feature_loss=method.feature_loss,
            adversarial_loss=method.adversarial_loss,
            **more,
        )
        return distiller

    def _distiller_of_keras(self, method, student):
        own = method.distillation_loss
        loss = {} if own is None else {"loss": getattr(keras.losses, own)()}
        distiller = keras.distillation.Distiller(
            self.teacher,
            student,
            [keras.distillation.LogitsDistillation(temperature=method.temperature, **loss)],
        )
        distiller.compile(
            self.make_optimizer(self.experiment.learning_rate, self.steps),
            **self.task.compile_arguments(),
        )
        return distiller


def versions():
    """Versions that a number depends on."""
    return {module.__name__: module.__version__ for module in (keras_ktan, keras)} | {
        "backend": keras.backend.backend()
    }
