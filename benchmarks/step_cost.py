"""What a step costs apart from arithmetic, before and after a change of this package.

On TensorFlow: operations of a step (`step_operations.py`), seconds to make and compile a distiller
of ResNet50 and MobileNetV2, seconds to trace a batch of another size and to take it in
`train_on_batch`, bytes that `DivergenceGuard` keeps. On JAX: what enters and leaves a step and its
operations before XLA, and microseconds a step of tiny models with many layers, where the host's
work is all there is. Run it for both backends and both versions, then join the parts,
with those of `step_time.py` for the ratios of steps in pairs:

    KERAS_BACKEND=jax PYTHONPATH=CHECKOUT python benchmarks/step_cost.py --output after_jax.json
    python benchmarks/step_cost.py --join --before before_*.json --after after_*.json
"""

import argparse
import json
import pathlib
import statistics
import time

# First: it imports Keras without start-up lines.
from keras_ktan_tasks import startup as startup

# isort: split
import keras
import numpy as np
from step_programs import jax_program

from keras_ktan import FeaturePair, KTANDistiller

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "torch"}
RESULT = pathlib.Path(__file__).resolve().parent / "results" / "step_cost.md"
ALL_TERMS = {"logits_loss_weight": 1.0, "feature_loss_weight": 1.0, "adversarial_loss_weight": 0.02}


def deep_model(blocks, name):
    """A residual network of tiny maps: nothing to compute, and a lot to hand over."""
    inputs = hidden = keras.Input((4, 4, 3))
    hidden = keras.layers.Conv2D(4, 1)(hidden)
    for stage in (1, 2, 3):
        for _ in range(blocks):
            branch = keras.layers.Conv2D(4, 1, use_bias=False)(hidden)
            branch = keras.layers.BatchNormalization()(branch)
            hidden = keras.layers.ReLU()(keras.layers.Add()([hidden, branch]))
        hidden = keras.layers.Activation("relu", name=f"stage_{stage}")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(10)(hidden), name=name)


def deep_pair():
    """A compiled student by itself, and a compiled distiller with all terms."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student = deep_model(3, "student")
    student.compile("adam", loss)
    distiller = KTANDistiller(
        deep_model(8, "teacher"), deep_model(3, "student"), FeaturePair("stage_2", "stage_2")
    )
    distiller.compile("adam", loss, **ALL_TERMS)
    return student, distiller


def data(steps):
    images = np.zeros((steps * 4, 4, 4, 3), "float32")
    return images, np.zeros(steps * 4, "int32")


def microseconds(models, rounds=7, steps=60):
    """Median microseconds a step, the models' rounds taking turns."""
    images, labels = data(steps)
    taken = {name: [] for name in models}
    for number in range(rounds + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model.fit(images, labels, batch_size=4, shuffle=False, verbose=0)
            if number:  # the first one compiles
                taken[name].append(1e6 * (time.perf_counter() - start) / steps)
    return {name: round(statistics.median(values)) for name, values in taken.items()}


def measure_jax():
    student, distiller = deep_pair()
    batch = data(1)
    found = {}
    for name, model in {"student": student, "all terms": distiller}.items():
        for what, count in jax_program(model, batch).items():
            found[f"JAX, {what} of the compiled step, {name}"] = count
    for name, value in microseconds({"student": student, "all terms": distiller}).items():
        found[f"JAX, microseconds a step of tiny deep models, {name}"] = value
    return found


def construction_seconds():
    """Seconds to make a distiller of two models that are there, and to compile it."""
    teacher = keras.applications.ResNet50(weights=None)
    student = keras.applications.MobileNetV2(weights=None)
    start = time.process_time()
    distiller = KTANDistiller(teacher, student)
    made = time.process_time()
    distiller.compile("adam", "sparse_categorical_crossentropy")
    return made - start, time.process_time() - made


def retrace_seconds(rounds=5):
    """What a model takes for its first batch of a second size, tracing alone and in all.

    Returns:
        Dict from names to tuples of median processor seconds.
    """
    from step_time import small_pair

    def student():
        return small_pair()[1]

    def distiller():
        return KTANDistiller(*small_pair())

    contestants = {
        "student": (student, {}),
        "logits and features": (distiller, {}),
        "all terms": (distiller, ALL_TERMS),
    }
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    taken = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, (make, weights) in contestants.items():
            model = make()
            model.compile("adam", loss, jit_compile=False, **weights)
            traced = timed_step(model)
            # Large ones: TensorFlow 2.21 with oneDNN may crash where a small batch follows.
            for size in (64, 48):
                images, labels = np.zeros((size, 32, 32, 3), "float32"), np.zeros(size, "int32")
                start = time.process_time()
                model.train_on_batch(images, labels)
            if number:  # the first one makes what TensorFlow makes once a process
                taken[name].append((traced[-1], time.process_time() - start))
    return {
        name: tuple(map(statistics.median, zip(*found, strict=True)))
        for name, found in taken.items()
    }


def timed_step(model):
    """A list that gets the processor seconds of each call of a model's `train_step`."""
    seconds, step = [], model.train_step

    def train_step(data):
        start = time.process_time()
        logs = step(data)
        seconds.append(time.process_time() - start)
        return logs

    model.train_step = train_step
    return seconds


def measure_tensorflow():
    from step_operations import count

    found = {}
    for name, (number, base) in count(["logits", "logits and features", "all terms"]).items():
        found[f"TensorFlow, operations, {name}"] = number
        found[f"TensorFlow, operations, {name}, times student and teacher"] = round(
            number / base, 2
        )
    made, compiled = construction_seconds()
    found["TensorFlow, processor seconds to make a ResNet50 and MobileNetV2 distiller"] = round(
        made, 2
    )
    found["TensorFlow, processor seconds to compile it"] = round(compiled, 2)
    seconds = retrace_seconds()
    for name, values in seconds.items():
        for what, value, own in zip(
            ("tracing a batch of another size", "the first batch of another size"),
            values,
            seconds["student"],
            strict=True,
        ):
            found[f"TensorFlow, processor seconds, {what}, {name}"] = round(value, 2)
            if name != "student":
                found[f"TensorFlow, {what}, {name}, times student"] = round(value / own, 2)
    _, distiller = deep_pair()
    distiller.fit(*data(2), batch_size=4, verbose=0)
    kept = sum(int(np.prod(v.shape)) * 4 for v in distiller.state_variables)
    student = sum(int(np.prod(v.shape)) * 4 for v in distiller.student.variables)
    found["bytes that the guard keeps, deep models"] = kept
    found["bytes of that student"] = student
    return found


def read_part(path):
    """What one file says: this benchmark's, or one that `step_time.py` wrote."""
    content = json.loads(path.read_text())
    if "times_student" not in content:
        return content
    from step_time import format_ratio

    return {
        f"{BACKENDS[content['backend']]}, a step, {name}, times student.fit, 95 %": format_ratio(
            ratios
        )
        for name, ratios in content["times_student"].items()
    }


def join(before, after):
    """A Markdown table of two versions' parts."""

    def read(paths):
        return {k: v for path in paths for k, v in read_part(path).items()}

    before, after = read(before), read(after)
    lines = ["| what | before | after |", "|---|---|---|"]
    for name, value in after.items():
        lines.append(f"| {name} | {before.get(name, '')} | {value} |")
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, help="where to write this version's part")
    parser.add_argument("--join", action="store_true", help="write the table of two versions")
    parser.add_argument("--before", type=pathlib.Path, nargs="+", metavar="PART")
    parser.add_argument("--after", type=pathlib.Path, nargs="+", metavar="PART")
    arguments = parser.parse_args(argv)
    if arguments.join:
        text = join(arguments.before, arguments.after)
        RESULT.write_text(f"{text}\n")
        print(text)
        return
    measure = {"jax": measure_jax, "tensorflow": measure_tensorflow}[keras.backend.backend()]
    found = measure()
    print(json.dumps(found, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
