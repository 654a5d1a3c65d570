"""An experiment as a file describes it: data, models, budget, and the methods to compare."""

import dataclasses
import pathlib
import tomllib

import keras

FOLDER = pathlib.Path(__file__).resolve().parent / "experiments"
CHOICES = {
    "library": ("keras_ktan", "keras.distillation"),
    "student": ("random", "teacher", "slim_random"),
    "discriminator_training": ("adversarial", "frozen", "cooperative"),
}


@dataclasses.dataclass(frozen=True)
class Method:
    """One method to train the student. Arguments that are left out are `KTANDistiller`'s defaults.

    A weight is a number; or `{"decaying": number}`, decaying to 0 by a cosine; or `{"early":
    number}`, 0 after the first third of the training; or `{"value": number, "from": 0.2, "to":
    0.8}`, 0 outside that part of the training. The generator loss may also have `{"ratio":
    number, "from": 0.2, "to": 0.8}`: see `candidate_arms.GradientRatio`.

    Args:
        name: The method's name, as the tables show it.
        logits: Weight of the logits loss.
        feature: Weight of the feature loss.
        adversarial: Weight of the generator loss.
        temperature: Softens both models' probabilities.
        layers: Dict from layers that are paired, of the same name in both models, to the T2S
            objective, or to a dict of `"objective"`, `"weight"` and `"trainable"`. The objective
            `"none"` lets the feature loss train T2S.
        logits_loss: See `KTANDistiller.compile`.
        teacher_mistakes: Whether the logits loss counts images that the teacher gets wrong, too.
        feature_loss: See `KTANDistiller.compile`; or `"discriminator"`: by what the
            discriminator's hidden layers see; or `"normalized_mse + discriminator"`: 3 times
            `"normalized_mse"`, and 1 time `"discriminator"`.
        adversarial_loss: See `KTANDistiller.compile`; or `"relativistic"`.
        gradient_penalty: Weight of the penalty on the gradients of a discriminator that has a
            relativistic loss. `None`: there is none.
        discriminator: Dict of arguments for `FeatureDiscriminator`.
        discriminator_learning_rate: Of its Adam.
        discriminator_training: `"adversarial"`, or a control arm: `"frozen"` keeps the
            discriminator's initial weights, `"cooperative"` lets it minimise the generator loss,
            too.
        t2s_learning_rate: Of T2S's Adam.
        student: `"random"`: the experiment's student with random weights; `"teacher"`: the
            `slim_student` of the teacher, with as many parameters; `"slim_random"`: the same
            network with random weights.
        defaults: Whether everything but `student` and `seeds` is the package's default:
            `KTANDistiller(teacher, student)` and `compile(optimizer, loss)`. A `feature` that is
            not 0 is the feature loss's weight in place of its default.
        library: `"keras_ktan"`, or `"keras.distillation"`: Keras's own distiller, whose feature
            loss pairs maps of one shape only.
        distillation_loss: Class of `keras.losses` whose object Keras's own distiller takes.
            `None`: its default, the text `"kl_divergence"`, which it takes of raw logits.
        seeds: Fewer seeds than the experiment's, for less important methods. `None`: all.
    """

    name: str
    logits: float | dict = 0.0
    feature: float | dict = 0.0
    adversarial: float | dict = 0.0
    temperature: float = 4.0
    layers: dict = dataclasses.field(default_factory=lambda: {"features": "auto"})
    logits_loss: str = "kl"
    teacher_mistakes: bool = True
    feature_loss: str = "cosine"
    adversarial_loss: str = "bce"
    gradient_penalty: float | None = None
    discriminator: dict = dataclasses.field(default_factory=dict)
    discriminator_learning_rate: float | None = None
    discriminator_training: str = "adversarial"
    t2s_learning_rate: float | None = None
    student: str = "random"
    defaults: bool = False
    library: str = "keras_ktan"
    distillation_loss: str | None = None
    seeds: int | None = None

    def pairs(self):
        """The paired layers: list of dicts of `layer`, `objective`, `weight` and `trainable`."""
        found = []
        for layer, given in self.layers.items():
            given = given if isinstance(given, dict) else {"objective": given}
            pair = {"objective": "auto", "weight": 1.0, "trainable": None, **given, "layer": layer}
            if pair["objective"] == "none":
                pair["objective"] = None
            found.append(pair)
        return found


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What one file in `experiments/` describes.

    Args:
        title: The heading of the table.
        task: `"digits"`, `"cifar10"`, `"gtsrb"` or `"detection"`.
        teacher: Dict of arguments for the task's model builder.
        student: The same, for the student.
        epochs: Of each student.
        batch_size: Images a step.
        learning_rate: Where the student's cosine decay begins.
        teacher_learning_rate: Where the teacher's begins.
        teacher_epochs: Of the teacher; `None`: as many as the student's.
        teacher_augmented: Whether the teacher's images are augmented anew in each epoch, instead
            of the students' few views. A teacher that has memorised its images has little to say
            about them beyond their labels.
        teacher_seed: Of the teacher's initial weights and batches.
        weight_decay: Of both.
        seeds: Runs of each method, with seeds from `first_seed` on.
        first_seed: A search takes other seeds than the final runs.
        read_test: Whether the test images are read at the end. A search never reads them.
        data: Dict of arguments for the task's loader.
        slim: Dict of arguments for `slim_student`. By default its target is as many parameters as
            the experiment's student has.
        methods: Tuple of `Method`.
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
    teacher_seed: int = 1234
    weight_decay: float = 0.0
    seeds: int = 5
    first_seed: int = 0
    read_test: bool = True
    teacher_cache: bool = True
    data: dict = dataclasses.field(default_factory=dict)
    slim: dict = dataclasses.field(default_factory=dict)

    def only(self, names):
        """The same experiment with these methods alone."""
        methods = tuple(method for method in self.methods if method.name in names)
        return dataclasses.replace(self, methods=methods)


def experiment_names():
    """Names of the files in `experiments/` that are experiments."""
    return sorted(path.stem for path in FOLDER.glob("*.toml") if "title" in _read(path))


def read_experiment(path):
    """Read an experiment.

    Args:
        path: `pathlib.Path` of a TOML file. Its `methods` is a table of methods, or a list of
            names of other TOML files beside it that are such tables. Its `base` names a file
            beside it for what it leaves out.

    Returns:
        An `Experiment`.

    Raises:
        ValueError: If the file holds an unknown name or value.
    """
    content = _read(path)
    methods = content.pop("methods")
    if isinstance(methods, list):
        tables = [tomllib.loads((path.parent / name).read_text()) for name in methods]
        methods = {name: method for table in tables for name, method in table.items()}
    methods = tuple(
        _make(Method, path, {"name": name, **arguments}) for name, arguments in methods.items()
    )
    for method in methods:
        _validate(method, path)
    return _make(Experiment, path, {**content, "methods": methods})


def _read(path):
    """The content of a file, with that of its base below it."""
    content = tomllib.loads(path.read_text())
    base = content.pop("base", None)
    return content if base is None else {**_read(path.parent / base), **content}


def _validate(method, path):
    received = f"{path}, method '{method.name}': received"
    for name, choices in CHOICES.items():
        if getattr(method, name) not in choices:
            raise ValueError(
                f"{received} {name}={getattr(method, name)!r}. Expected one of {choices}. Correct "
                "the file."
            )
    plain = Method(
        method.name,
        feature=method.feature,
        student=method.student,
        defaults=True,
        seeds=method.seeds,
    )
    if method.defaults and method != plain:
        raise ValueError(
            f"{received} settings beside defaults = true. Expected student, seeds and feature "
            "alone. Leave the others out, or leave out defaults."
        )
    if method.distillation_loss is not None:
        _validate_distillation_loss(method, path)
    _validate_arms(method, received)


def _validate_arms(method, received):
    """What the arms of `candidate_arms` cannot do would otherwise be left out without a word."""
    known = {"objective", "weight", "trainable"}
    words = {word for given in method.layers.values() if isinstance(given, dict) for word in given}
    if words - known:
        raise ValueError(
            f"{received} {sorted(words - known)} in layers. Expected some of {sorted(known)}. "
            "Correct the file."
        )
    uses_ratio = isinstance(method.adversarial, dict) and "ratio" in method.adversarial
    is_relativistic = method.adversarial_loss == "relativistic"
    uses_discriminator = "discriminator" in method.feature_loss
    leaves_out = not method.teacher_mistakes
    has_plain_kl = (method.logits_loss, method.library) == ("kl", "keras_ktan") and method.logits
    is_control = method.discriminator_training != "adversarial"
    others = (method.adversarial_loss, method.gradient_penalty, method.discriminator_learning_rate)
    wrong = {
        "gradient_penalty without adversarial_loss = 'relativistic', which alone adds it": (
            method.gradient_penalty is not None and not is_relativistic
        ),
        f"feature_loss={method.feature_loss!r} with adversarial = 0, so that no discriminator is "
        "trained": uses_discriminator and not method.adversarial,
        "several layers with an arm that is written for one": (
            len(method.layers) > 1 and (uses_ratio or is_relativistic or uses_discriminator)
        ),
        "teacher_mistakes = false without the logits loss 'kl' of keras_ktan, which alone leaves "
        "them out": leaves_out and not has_plain_kl,
        "a ratio of gradients with a logits loss whose weight is not 1, as the ratio takes it": (
            uses_ratio and method.logits != 1.0
        ),
        f"discriminator_training={method.discriminator_training!r} with another adversarial loss, "
        "penalty or learning rate than the default": is_control and others != ("bce", None, None),
    }
    for what, is_wrong in wrong.items():
        if is_wrong:
            raise ValueError(f"{received} {what}. Expected them not together. Correct the file.")


def _validate_distillation_loss(method, path):
    received = f"{path}, method '{method.name}': received distillation_loss"
    received += f"={method.distillation_loss!r}"
    if method.library != "keras.distillation":
        raise ValueError(
            f"{received} with library={method.library!r}. Expected library='keras.distillation', "
            "the only one that takes it. Leave it out."
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
