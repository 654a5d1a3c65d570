"""What a training step costs: plain training, the teacher, KTAN term by term, and Keras's own.

One pair of models, one process. The contestants take turns round by round, and each round of one
has a round of `student.fit` just before it: a machine that slows down slows both, and their ratio,
with its interval over the rounds, says something on a busy machine, too. Beside the time stands
what the compiled step consists of: operations of TensorFlow's graph, or on JAX what enters and
leaves it and its operations before XLA.

`images_per_second.py` runs this for the ResNets on every backend, in float32 and bfloat16, with
and without XLA.
"""

import argparse
import json
import math
import pathlib
import re
import statistics
import tempfile
import time

# First: it imports Keras without start-up lines.
from keras_ktan_tasks import startup as startup

# isort: split
import keras
import numpy as np
from device import describe_device, traced
from resnets import resnet50_and_18, resnet56_and_20
from step_programs import describe_program, program_of_step

import keras_ktan
from keras_ktan import FeaturePair, KTANDistiller, TeacherCache
from keras_ktan_tasks.comparison import paired_interval

# Weights of the labelled, logits, feature and generator losses.
KTAN_WEIGHTS = {
    "KTAN: supervised": (1.0, 0.0, 0.0, 0.0),
    "KTAN: + logits": (1.0, 1.0, 0.0, 0.0),
    "KTAN: + features": (1.0, 1.0, 1.0, 0.0),
    "KTAN: + adversary": (1.0, 1.0, 1.0, 0.1),
}
STUDENT, TEACHER = "student.fit", "teacher.predict"
# Logits and features, and the adversary as well.
CACHED, CACHED_ADVERSARY = "KTAN from a TeacherCache", "KTAN from a TeacherCache: + adversary"
KERAS = "keras.distillation: logits + features"


def make_model(filters, blocks, channels_out, size, name):
    """Residual blocks at three resolutions; the last map has `channels_out` channels.

    Both models get one shape of the last map, because `keras.distillation.Distiller` can pair
    no others.
    """
    inputs = keras.Input((size, size, 3))
    hidden = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(inputs)
    for stage in range(3):
        for block in range(blocks):
            width = filters * 2**stage
            strides = 2 if stage and not block else 1
            shortcut = hidden
            if shortcut.shape[-1] != width:
                shortcut = keras.layers.Conv2D(width, 1, strides=strides)(shortcut)
            hidden = keras.layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False)(
                hidden
            )
            hidden = keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))
            hidden = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(hidden)
            hidden = keras.layers.BatchNormalization()(hidden)
            hidden = keras.layers.ReLU()(keras.layers.Add()([hidden, shortcut]))
    hidden = keras.layers.Conv2D(channels_out, 1, activation="relu", name="features")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(hidden), name=name)


def small_pair(image_size=32):
    """A teacher and a student that a processor runs in a fraction of a second."""
    return make_model(32, 2, 64, image_size, "teacher"), make_model(8, 1, 64, image_size, "student")


# Which models, how large the images and the batches are unless asked otherwise.
PAIRS = {
    "small": (small_pair, 32, 64),
    "resnet56-resnet20": (resnet56_and_20, 32, 128),
    "resnet50-resnet18": (resnet50_and_18, 224, 64),
}
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def make_contestants(arguments, data, cache_directory):
    """Functions that run one epoch each, of all or of those that `--only` names.

    Args:
        arguments: Those of the command line.
        data: Images and labels.
        cache_directory: Empty directory for the teacher's outputs.

    Returns:
        A tuple of a dict from names to functions without arguments, and one from the names of those
        that train on plain batches to their models.
    """
    images, labels = data
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    switches = {"jit_compile": arguments.jit_compile}
    fit = {"batch_size": arguments.batch_size, "epochs": 1, "verbose": 0, "shuffle": False}

    def models():
        return PAIRS[arguments.models][0](arguments.image_size)

    def wanted(name):
        return arguments.only is None or name in arguments.only

    contestants, trained = {}, {}
    teacher, student = models()
    student.compile("adam", loss=loss, metrics=["accuracy"], **switches)
    contestants[STUDENT] = lambda: student.fit(images, labels, **fit)
    trained[STUDENT] = student
    teacher.compile(**switches)
    if wanted(TEACHER):
        contestants[TEACHER] = lambda: teacher.predict(
            images, batch_size=arguments.batch_size, verbose=0
        )

    # The small models' maps are named so that both distillers can be told to take the same.
    small = arguments.models == "small"
    pairs = FeaturePair("features", "features") if small else None

    def make_distiller(weights, teacher=None):
        pair = models()
        distiller = KTANDistiller(teacher or pair[0], pair[1], pairs)
        distiller.compile(
            optimizer="adam",
            loss=loss,
            metrics=["accuracy"],
            student_loss_weight=weights[0],
            logits_loss_weight=weights[1],
            feature_loss_weight=weights[2],
            adversarial_loss_weight=weights[3],
            **switches,
        )
        return distiller

    def add_ktan(name, weights):
        distiller = trained[name] = make_distiller(weights)
        contestants[name] = lambda: distiller.fit(images, labels, **fit)

    for name, weights in KTAN_WEIGHTS.items():
        if wanted(name):
            add_ktan(name, weights)

    def add_cache():
        # Two views; filling it is no part of a step.
        terms = {CACHED: "KTAN: + features", CACHED_ADVERSARY: "KTAN: + adversary"}
        terms = {name: KTAN_WEIGHTS[term] for name, term in terms.items() if wanted(name)}
        distillers = {name: make_distiller(weights, teacher) for name, weights in terms.items()}
        distiller = next(iter(distillers.values()))
        views = {"plain": lambda batch: batch, "mirrored": lambda batch: batch[:, :, ::-1]}
        cache = TeacherCache(distiller, cache_directory, views=views)
        cache.fill(images, verbose=0)
        dataset = cache.dataset(images, labels, batch_size=arguments.batch_size)
        for name, distiller in distillers.items():
            contestants[name] = lambda own=distiller: own.fit(dataset, epochs=1, verbose=0)

    if wanted(CACHED) or wanted(CACHED_ADVERSARY):
        add_cache()

    def add_keras():
        distiller = keras.distillation.Distiller(
            *models(),
            distillation_losses=[
                keras.distillation.LogitsDistillation(temperature=4.0),
                keras.distillation.FeatureDistillation(
                    teacher_layer_name="features", student_layer_name="features"
                ),
            ],
        )
        distiller.compile("adam", loss=loss, metrics=["accuracy"], **switches)
        contestants[KERAS] = lambda: distiller.fit(images, labels, **fit)
        trained[KERAS] = distiller

    # Keras's own pairs maps of one shape only, as the small models have.
    if small and wanted(KERAS):
        add_keras()
    return contestants, trained


def measure(contestants, rounds, steps, clock=time.perf_counter):
    """Seconds a step of each contestant, and of the student's step beside it.

    Args:
        contestants: Dict from names to functions that run `steps` steps; one is `STUDENT`.
        rounds: How often each runs, after one run that is not counted.
        steps: Steps in one run.
        clock: Function that returns seconds.

    Returns:
        A tuple of two dicts from names to lists with one number a round: seconds a step, and how
        many times those of the `STUDENT` that ran just before.
    """
    for name, run in contestants.items():
        print(f"warming up: {name}", flush=True)
        run()

    def seconds_of(name):
        start = clock()
        contestants[name]()
        return (clock() - start) / steps

    seconds, ratios = {name: [] for name in contestants}, {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        for name in contestants:
            if name == STUDENT:
                continue
            alone, found = seconds_of(STUDENT), seconds_of(name)
            seconds[STUDENT].append(alone)
            seconds[name].append(found)
            ratios.setdefault(name, []).append(found / alone)
    return seconds, ratios


def format_table(seconds, ratios, programs):
    """A Markdown table of medians with their range, mean ratios with their intervals, programs."""
    lines = [
        "| what | ms a step, median (min to max) | times student.fit, 95 % interval | the step |",
        "|---|---|---|---|",
    ]
    for name, values in seconds.items():
        median = statistics.median(values)
        lines.append(
            f"| {name} | {1e3 * median:.1f} ({1e3 * min(values):.1f} to {1e3 * max(values):.1f}) "
            f"| {format_ratio(ratios[name]) if name in ratios else ''} "
            f"| {describe_program(programs.get(name, {}))} |"
        )
    return "\n".join(lines)


def format_ratio(ratios):
    """The geometric mean of some ratios, with its interval where there are two."""
    mean, half = paired_interval([math.log(ratio) for ratio in ratios])
    if len(ratios) < 2:
        return f"{math.exp(mean):.2f}"
    low, high = math.exp(mean - half), math.exp(mean + half)
    return f"{math.exp(mean):.2f} ({low:.2f} to {high:.2f})"


def profile(contestants, folder):
    """Trace one round of each contestant, which is warm, with the backend's profiler.

    Args:
        contestants: As in `measure`.
        folder: Where the traces go, one folder each; TensorBoard and Perfetto read them.
    """
    for name, run in contestants.items():
        print(f"profiling: {name}", flush=True)
        with traced(folder / re.sub(r"\W+", "_", name).strip("_")):
            run()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", choices=list(PAIRS), default="small", help="which pair")
    parser.add_argument("--dtype", choices=list(POLICIES), default="float32")
    parser.add_argument("--batch-size", type=int, help="images in a batch")
    parser.add_argument("--steps", type=int, default=40, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count")
    parser.add_argument("--image-size", type=int, help="height and width")
    parser.add_argument(
        "--only",
        nargs="*",
        metavar="NAME",
        help="what to measure beside student.fit; default: everything",
    )
    parser.add_argument(
        "--profile",
        type=pathlib.Path,
        metavar="FOLDER",
        help="write the backend's own trace of a round of each there, one folder each",
    )
    parser.add_argument("--jit-compile", action="store_true", help="compile with XLA")
    parser.add_argument(
        "--cpu-seconds",
        action="store_true",
        help="count the process's CPU seconds instead of the clock's, on a busy machine",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("benchmarks/results/step_time"),
        help="where to write OUTPUT.json and OUTPUT.md",
    )
    arguments = parser.parse_args(argv)
    _, image_size, batch_size = PAIRS[arguments.models]
    arguments.image_size = arguments.image_size or image_size
    arguments.batch_size = arguments.batch_size or batch_size
    keras.config.set_dtype_policy(POLICIES[arguments.dtype])
    generator = np.random.default_rng(0)
    count = arguments.batch_size * arguments.steps
    size = arguments.image_size
    data = (
        generator.normal(size=(count, size, size, 3)).astype("float32"),
        generator.integers(0, 10, count),
    )
    with tempfile.TemporaryDirectory() as cache_directory:
        contestants, trained = make_contestants(arguments, data, cache_directory)
        clock = time.process_time if arguments.cpu_seconds else time.perf_counter
        seconds, ratios = measure(contestants, arguments.rounds, arguments.steps, clock)
        if arguments.profile:
            profile(contestants, arguments.profile)
        # Last: a step that is traced alone moves the weights once.
        batch = tuple(part[: arguments.batch_size] for part in data)
        programs = {name: program_of_step(model, batch) for name, model in trained.items()}
    table = format_table(seconds, ratios, programs)
    pair = "" if arguments.models == "small" else f"{arguments.models}, "
    dtype = "" if arguments.dtype == "float32" else f"{arguments.dtype}, "
    about = (
        f"{describe_device()}; {pair}{dtype}backend {keras.backend.backend()}, "
        f"Keras {keras.__version__}, keras_ktan {keras_ktan.__version__}; "
        f"batch {arguments.batch_size}, images {size}×{size}×3, "
        f"{arguments.rounds} rounds of {arguments.steps} steps, "
        f"XLA {'on' if arguments.jit_compile else 'off'}"
        f"{'; CPU seconds of all threads' if arguments.cpu_seconds else ''}."
    )
    print(f"\n{about}\n\n{table}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.with_suffix(".json").write_text(
        json.dumps(
            {
                "about": about,
                "backend": keras.backend.backend(),
                "device": describe_device(),
                "batch_size": arguments.batch_size,
                "seconds_per_step": seconds,
                "times_student": ratios,
                "programs": programs,
            },
            indent=1,
        )
    )
    arguments.output.with_suffix(".md").write_text(f"{about}\n\n{table}\n")


if __name__ == "__main__":
    main()
