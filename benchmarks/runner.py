"""What trains the teacher and the students of one experiment."""

import hashlib
import time

import keras
from candidate_arms import without_mistakes
from method_distiller import make_distiller

import keras_ktan
from keras_ktan import KTANDistiller, TeacherCache
from keras_ktan.cache.cached_data import CachedData
from keras_ktan.cache.cached_dataset import CachedDataset
from keras_ktan.utils.cached_batch import plain_batch
from keras_ktan_tasks.progress import EpochReport
from keras_ktan_tasks.run_log import digest


class ChangedBatches(keras.utils.PyDataset):
    """The batches of a cached data set, changed.

    Keras calls `on_epoch_end` also after its first inspection of the data; so the number of the
    epoch, which the order follows from, comes from a callback: `fit(data,
    callbacks=[data.callback])`.

    Args:
        cached: A `CachedDataset`.
        change: Function from a batch to another one.
    """

    def __init__(self, cached, change):
        super().__init__()
        self._cached, self._change = cached, change
        self.callback = keras.callbacks.LambdaCallback(on_epoch_begin=cached.begin_epoch)

    def __len__(self):
        return len(self._cached)

    def __getitem__(self, index):
        return self._change(self._cached[index])


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
            self._validate_network(teacher)
            self._place = shared / digest(self.teacher.get_weights())
        self.cache = None
        if experiment.teacher_cache:
            layers = self._cached_layers()
            self.cache = TeacherCache(
                self.teacher,
                f"{self._place}-{'-'.join(layers).replace('/', '.')}",
                views=task.views,
                layer_names=layers,
                precision=task.cache_precision,
            )
            self.cache.fill(task.train[0], verbose=verbose)

    def _cached_layers(self):
        """The teacher's layers whose maps any method needs."""
        layers = set()
        for method in self.experiment.methods:
            if method.defaults:
                layers |= set(KTANDistiller(self.teacher, self.make_student(method)).teacher_paths)
            elif method.feature or method.adversarial:
                layers |= method.layers.keys()
        return sorted(layers)

    def _validate_network(self, path):
        wanted = self.task.make_model(self.experiment.teacher, "teacher").count_params()
        if self.teacher.count_params() != wanted:
            raise ValueError(
                f"{path} holds a model of {self.teacher.count_params():,} parameters. Expected the "
                f"experiment's teacher, {wanted:,}. Name another file with --teacher."
            )

    def _name_teacher(self, shared):
        """Where the teacher's files are kept, named by all that it depends on."""
        experiment, task = self.experiment, self.task
        teacher = {
            name: getattr(experiment, name)
            for name in ("task", "teacher", "batch_size", "weight_decay", "teacher_seed")
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
                "task that can augment its images. Leave it out."
            )
        else:
            # The first batch stands for how they are augmented.
            first = next(iter(task.make_augmented(experiment.batch_size, experiment.teacher_seed)))
            parts = keras.tree.flatten(first)
            teacher["views"] = digest([keras.ops.convert_to_numpy(part) for part in parts])
        return shared / hashlib.sha256(repr(teacher).encode()).hexdigest()[:16]

    def make_student(self, method=None, seed=None):
        """An untrained student of a `Method`; `None`: the experiment's, with random weights."""
        student = self.task.make_model(self.experiment.student, "student")
        if method is None or method.student == "random":
            return student
        arguments = {"target": {"parameters": student.count_params()}, **self.experiment.slim}
        if method.student == "slim_random":
            arguments |= {"initialize": "random", "seed": seed}
        return self.task.make_slim(self.teacher, student, **arguments)

    def make_optimizer(self, rate, steps):
        """The task's optimizer for so many steps."""
        return self.task.make_optimizer(rate, steps, self.experiment.weight_decay)

    def make_data(self, seed):
        """The batches of a run, the same for every method."""
        if self.cache is None:
            return self.make_plain_data(seed)
        return self.cache.dataset(*self.task.train, self.experiment.batch_size, seed)

    def make_plain_data(self, seed):
        """Batches in the same views and order without the teacher's outputs."""
        nothing = {view: {"outputs": {}, "maps": {}} for view in self.task.views}
        images, labels = self.task.train
        data = CachedData(nothing, None, self.task.views, images, labels)
        without_teacher = CachedDataset(data, self.experiment.batch_size, seed)
        return ChangedBatches(without_teacher, plain_batch)

    def _obtain_teacher(self):
        path = self._place.with_suffix(".keras")
        if path.exists():
            return keras.saving.load_model(path)
        experiment, seed = self.experiment, self.experiment.teacher_seed
        print(f"teacher: {self.teacher_epochs} epochs ...", flush=True)
        keras.utils.set_random_seed(seed)
        teacher = self.task.make_model(experiment.teacher, "teacher")
        if experiment.teacher_augmented:
            data, callbacks = self.task.make_augmented(experiment.batch_size, seed), []
        else:
            data = self.make_plain_data(seed)
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
        def describe(logs):
            # Only when a line is due: evaluating after each epoch is a good part of a short run.
            return self.task.describe(model, self.task, logs)

        return model.fit(
            data,
            epochs=epochs,
            callbacks=[*callbacks, EpochReport(label, describe=describe)],
            shuffle=False,  # the data shuffle themselves
            verbose=0,
        )

    def train(self, method, seed):
        """Train one student.

        The seed fixes its initial weights and the batches, so that all methods start alike.

        Args:
            method: A `Method`.
            seed: Int.

        Returns:
            A tuple of the student, its history and the seconds of `fit`.
        """
        keras.utils.set_random_seed(seed)
        student = self.make_student(method, seed)
        if method.library == "keras.distillation":
            distiller, callbacks = self._distiller_of_keras(method, student), []
            data = self.make_plain_data(seed)
        else:
            optimizer = self.make_optimizer(self.experiment.learning_rate, self.steps)
            distiller, callbacks = make_distiller(
                method, self.teacher, student, self.task, optimizer, self.steps
            )
            data = self.make_data(seed)
            if not method.teacher_mistakes:
                data.prepare_for(distiller)  # `fit` does it for these batches unchanged
                data = ChangedBatches(data, without_mistakes)
        if isinstance(data, ChangedBatches):
            callbacks = [data.callback, *callbacks]
        epochs = self.experiment.epochs
        keras.utils.set_random_seed(seed)
        start = time.perf_counter()
        history = self._fit(distiller, data, epochs, callbacks, f"seed {seed}, {method.name}")
        return student, history.history, time.perf_counter() - start

    def _distiller_of_keras(self, method, student):
        own = method.distillation_loss
        loss = {} if own is None else {"loss": getattr(keras.losses, own)()}
        terms = [keras.distillation.LogitsDistillation(temperature=method.temperature, **loss)]
        weights = [1.0]
        if method.feature:
            for pair in method.pairs():
                layers = (pair["layer"], pair["layer"])
                terms.append(keras.distillation.FeatureDistillation("mse", *layers))
                weights.append(method.feature * pair["weight"])
        distiller = keras.distillation.Distiller(self.teacher, student, terms, weights)
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
