"""An experiment as a file says it: data, models, budget, and the methods to train the student."""

import dataclasses
import pathlib
import tomllib

import keras

FOLDER = pathlib.Path(__file__).resolve().parent / "experiments"
THROUGH = ("keras_ktan", "keras.distillation")


@dataclasses.dataclass(frozen=True)
class Method:
    """One method to train the student; what is left out is `KTANDistiller`'s default.

    Args:
        name: What the tables call it.
        logits: Weight of the softened probabilities: a number; or `{"falling": number}` for a
            weight that falls to 0 over the training by a cosine; or `{"early": number}` for one
            that is 0 after the first third.
        feature: Weight of the feature target, likewise.
        adversarial: Weight of fooling the discriminator, likewise.
        temperature: Softens both models' probabilities.
        layers: Dict from layers that are paired, of the same name in both models, to T2S's
            anchor; `"none"` for a T2S that the matching loss moves.
        feature_loss: See `KTANDistiller.compile`.
        adversarial_loss: See `KTANDistiller.compile`.
        discriminator: Dict of arguments for `FeatureDiscriminator`.
        discriminator_learning_rate: Of its Adam.
        t2s_learning_rate: Of T2S's Adam.
        through: `"keras_ktan"`, or `"keras.distillation"`: Keras's own distiller as it comes,
            which can do logit distillation.
        distillation_loss: Class of `keras.losses` whose object Keras's own distiller takes.
            `None`: its default, the text `"kl_divergence"`, which it takes of raw logits.
        seeds: Fewer seeds than the experiment's, for methods of second rank. `None`: all.
    """

    name: str
    logits: float | dict = 0.0
    feature: float | dict = 0.0
    adversarial: float | dict = 0.0
    temperature: float = 4.0
    layers: dict = dataclasses.field(default_factory=lambda: {"features": "auto"})
    feature_loss: str = "cosine"
    adversarial_loss: str = "bce"
    discriminator: dict = dataclasses.field(default_factory=dict)
    discriminator_learning_rate: float | None = None
    t2s_learning_rate: float | None = None
    through: str = "keras_ktan"
    distillation_loss: str | None = None
    seeds: int | None = None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What one file in `experiments/` says.

    Args:
        title: What the table is headed with.
        task: `"digits"`, `"cifar10"` or `"detection"`.
        teacher: Dict of arguments for the task's model builder.
        student: The same, for the student.
        epochs: Of each student.
        batch_size: Images a step.
        learning_rate: Where the student's cosine decay begins.
        teacher_learning_rate: Where the teacher's begins.
        teacher_epochs: Of the teacher; `None`: as many as the student's.
        teacher_augmented: Whether the teacher sees its images moved anew in each epoch, not in
            the students' few views. One that knows its images by heart has nothing to say about
            them but their labels.
        weight_decay: Of both.
        seeds: Runs of each method, with seeds from `first_seed` on.
        first_seed: A search takes other seeds than the final runs.
        read_test: Whether the test images are read at the end. A search never reads them.
        data: Dict of arguments for the task's loader.
        methods: List of `Method`.
        teacher_cache: Whether the teacher runs once for each image and view.
    """

    title: str
    task: str
    teacher: dict
    student: dict
    epochs: int
    batch_size: int
    learning_rate: float
    teacher_learning_rate: float
    methods: tuple
    teacher_epochs: int | None = None
    teacher_augmented: bool = False
    weight_decay: float = 0.0
    seeds: int = 5
    first_seed: int = 0
    read_test: bool = True
    teacher_cache: bool = True
    data: dict = dataclasses.field(default_factory=dict)


def experiment_names():
    """Names of the files in `experiments/` that are experiments."""
    return sorted(
        path.stem for path in FOLDER.glob("*.toml") if "title" in tomllib.loads(path.read_text())
    )


def read_experiment(path):
    """Read an experiment.

    Args:
        path: `pathlib.Path` of a TOML file. Its `methods` is a table of methods, or a list of names of
            other TOML files beside it that are such tables.

    Returns:
        An `Experiment`.

    Raises:
        ValueError: If the file names what is not known.
    """
    content = tomllib.loads(path.read_text())
    methods = content.pop("methods")
    if isinstance(methods, list):
        tables = [tomllib.loads((path.parent / name).read_text()) for name in methods]
        methods = {name: method for table in tables for name, method in table.items()}
    methods = tuple(_make(Method, path, {"name": name, **arguments}) for name, arguments in methods.items())
    for method in methods:
        if method.through not in THROUGH:
            raise ValueError(
                f"{path}, method '{method.name}': received through={method.through!r}. Expected one of "
                f"{THROUGH}."
            )
        if method.distillation_loss is not None:
            _check_distillation_loss(method, path)
    return _make(Experiment, path, {**content, "methods": methods})


def _check_distillation_loss(method, path):
    received = f"{path}, method '{method.name}': received distillation_loss={method.distillation_loss!r}"
    if method.through != "keras.distillation":
        raise ValueError(
            f"{received} with through={method.through!r}. Expected through='keras.distillation', the "
            "only one that takes it. Leave it out."
        )
    loss = getattr(keras.losses, method.distillation_loss, None)
    if not (isinstance(loss, type) and issubclass(loss, keras.losses.Loss)):
        raise ValueError(
            f"{received}. Expected a class of keras.losses. Write 'KLDivergence', for example."
        )


def _make(kind, path, arguments):
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = [name for name in arguments if name not in known]
    if unknown:
        raise ValueError(f"{path}: received {unknown}. Expected some of {known}. Correct the file.")
    return kind(**arguments)
