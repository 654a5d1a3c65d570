"""Which way to play the game: variants of KTAN against each other, on validation images only.

Two tasks, `digits` (scikit-learn) and `cifar10` (TFDS, 16×16). The test images are never read.
Every finished run is a line of OUTPUT/runs.jsonl, and the same command goes on where it stopped.
Several processes can share the work: give each its own OUTPUT and `--share i/n`, then let
`--report` read all of them.
"""

import argparse
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "examples"))

import keras
import numpy as np
import tensorflow as tf
from device import limit_threads
from four_ways import mean_and_deviation, train_student
from run_log import RunLog

import keras_ktan
from keras_ktan import FeatureDiscriminator, FeaturePair, TeacherToStudent

Decay = keras.optimizers.schedules.CosineDecay
Steps = keras.optimizers.schedules.PiecewiseConstantDecay


def falling(weight):
    """A weight that falls to 0 over the training."""
    return lambda game: Decay(weight, game["steps"])


def later(weight, epochs):
    """A weight that is 0 for some epochs."""
    return lambda game: Steps([epochs * game["steps_per_epoch"]], [0.0, weight])


def stopping(rate, epochs):
    """An optimizer that stands still after some epochs."""
    return lambda game: keras.optimizers.Adam(
        Steps([epochs * game["steps_per_epoch"]], [rate, 0.0])
    )


def game(labels=1.0, logits=1.0, feature=0.0, adversary=0.0, anchor="auto", noise=0.3, **more):
    """One variant: four weights, the anchor, the noise, and more for `compile`."""
    return {
        "weights": (labels, logits, feature, adversary),
        "anchor": anchor,
        "discriminator": {"noise_stddev": noise, **more.pop("discriminator", {})},
        "compile": more,
    }


# What T2S's own time table does; the rest is equal.
T2S_TIMES = {
    "T2S along from step 1": game(feature=1.0),
    "T2S 2 epochs alone, then along": game(feature=later(1.0, 2)),
    "T2S 2 epochs alone, then frozen": game(feature=later(1.0, 2), t2s_optimizer=stopping(3e-3, 2)),
    "T2S along from step 1, weight falling to 0": game(feature=falling(1.0)),
}
BASELINES = {
    "labels only": game(logits=0.0),
    "labels + softened logits": game(),
}
ADVERSARIES = {
    "feature + adversary 0.1, noise 2": game(feature=1.0, adversary=0.1, noise=2.0),
    "feature + adversary 0.02, noise 2": game(feature=1.0, adversary=0.02, noise=2.0),
    "adversary 0.1, noise 0.3": game(adversary=0.1),
    "falling feature + adversary 0.1, noise 0.3": game(feature=falling(1.0), adversary=0.1),
    "falling feature + falling adversary 0.02, noise 1": game(
        feature=falling(1.0), adversary=falling(0.02), noise=1.0
    ),
    "falling feature + falling adversary 0.02, noise 2": game(
        feature=falling(1.0), adversary=falling(0.02), noise=2.0
    ),
    "falling feature + falling adversary 0.1, noise 1, least squares": game(
        feature=falling(1.0), adversary=falling(0.1), noise=1.0, adversarial_loss="least_squares"
    ),
}
OTHERS = {
    "pooled cosine": game(feature=1.0, feature_loss="pooled_cosine"),
    "mse 0.1": game(feature=0.1, feature_loss="mse"),
    "anchor: reconstruction": game(feature=1.0, anchor="reconstruction"),
    "anchor: task": game(feature=1.0, anchor="task"),
    "anchor: none": game(feature=1.0, anchor=None),
    "features without logits": game(logits=0.0, feature=1.0),
    "falling features without logits": game(logits=0.0, feature=falling(1.0)),
}
VARIANTS = {**BASELINES, **T2S_TIMES, **ADVERSARIES, **OTHERS}


def digits_task(seed):
    """Another quarter of the images is held out for each seed, so that chance averages out."""
    import distill_digits

    parts = distill_digits.load_data()[:2]  # the test part stays untouched
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    fold = seed % 4
    order = np.roll(np.arange(len(labels)), -fold * len(labels) // 4)
    held_out = len(labels) - distill_digits.TRAIN
    train = images[order[held_out:]], labels[order[held_out:]]
    validation = images[order[:held_out]], labels[order[:held_out]]
    epochs = distill_digits.EPOCHS
    return {
        "fold": fold,
        "train": lambda: train,
        "validation": validation,
        "batch_size": distill_digits.BATCH_SIZE,
        "epochs": epochs,
        "steps_per_epoch": distill_digits.STEPS_PER_EPOCH,
        "make_optimizer": lambda: distill_digits.make_optimizer(epochs),
        "make_student": lambda: distill_digits.make_classifier(
            distill_digits.STUDENT_FILTERS, "student"
        ),
        "make_teacher": lambda: distill_digits.train_teacher(train, epochs),
    }


_CIFAR = {}


def cifar10_task(seed, data_dir):
    """10,000 training images at 16×16, 5,000 others held out."""
    import distill_cifar10
    from cifar10_data import halve, load_cifar10, make_training_data, split_train
    from residual_network import make_classifier

    if not _CIFAR:
        (images, labels), _, _ = load_cifar10(data_dir)
        _CIFAR["parts"] = split_train((halve(images), labels), 10000, 5000)
    train, validation = _CIFAR["parts"]
    epochs, per_epoch = 15, -(-10000 // 128)
    looked_at = (validation[0].astype("float32"), validation[1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def make_teacher():
        data = make_training_data(*train, 128, 1234, True)
        teacher = make_classifier(16, 2, 24, "teacher")
        optimizer = distill_cifar10.make_optimizer(epochs * per_epoch)
        teacher.compile(optimizer, loss=loss, metrics=["accuracy"])
        teacher.fit(data, epochs=epochs, verbose=2, shuffle=False)
        return teacher

    return {
        "fold": 0,
        "train": lambda: make_training_data(*train, 128, seed, True),
        "validation": tf.data.Dataset.from_tensor_slices(looked_at).batch(500),
        "batch_size": None,
        "epochs": epochs,
        "steps_per_epoch": per_epoch,
        "make_optimizer": lambda: distill_cifar10.make_optimizer(epochs * per_epoch),
        "make_student": lambda: make_classifier(16, 1, 8, "student"),
        "make_teacher": make_teacher,
    }


def obtain_teacher(folder, task):
    """The teacher of a task's fold, trained once; processes beside each other share it."""
    path = folder.parent / f"teacher_{folder.name.split('-')[0]}_{task['fold']}.keras"
    if not path.exists():
        print(f"training the teacher of fold {task['fold']} ...", flush=True)
        task["make_teacher"]().save(path)
    return keras.saving.load_model(path)


def run(name, seed, task, teacher):
    """One variant, one seed.

    Returns:
        Dict for the log.
    """
    variant = VARIANTS[name]
    game = {"steps_per_epoch": task["steps_per_epoch"]}
    game["steps"] = task["epochs"] * task["steps_per_epoch"]

    def settle(value):
        return value(game) if callable(value) else value

    weights = [settle(weight) for weight in variant["weights"]]
    pair = FeaturePair(
        "features",
        "features",
        teacher_to_student=TeacherToStudent(objective=variant["anchor"]),
        discriminator=FeatureDiscriminator(**variant["discriminator"]),
    )
    _, history, seconds = train_student(
        "labels only",
        seed,
        teacher,
        task["make_student"],
        task["train"](),
        task["validation"],
        task["epochs"],
        task["steps_per_epoch"],
        task["make_optimizer"],
        feature_pairs=pair,
        batch_size=task["batch_size"],
        student_loss_weight=weights[0],
        logits_loss_weight=weights[1],
        feature_loss_weight=weights[2],
        adversarial_loss_weight=weights[3],
        **{key: settle(value) for key, value in variant["compile"].items()},
    )
    return {
        "variant": name,
        "seed": seed,
        "accuracy": history["val_accuracy"][-1],
        "loss": history["val_loss"][-1],
        "discriminator_accuracy": history.get("discriminator_accuracy", [None])[-1],
        "seconds": round(seconds, 1),
    }


def report(folders):
    """A Markdown table of all runs in some folders, compared seed by seed.

    Args:
        folders: List of `pathlib.Path`.

    Returns:
        String.
    """
    runs = [
        json.loads(line)
        for folder in folders
        for line in (folder / "runs.jsonl").read_text().splitlines()
    ]
    by_variant = {
        name: {one["seed"]: one for one in runs if one["variant"] == name} for name in VARIANTS
    }
    base = by_variant["labels + softened logits"]
    lines = [
        "| variant | seeds | validation accuracy, mean ± sd | against labels + softened logits, "
        "same seeds | right verdicts of D |",
        "|---|---|---|---|---|",
    ]
    for name, found in by_variant.items():
        if not found:
            continue
        mean, deviation = mean_and_deviation([one["accuracy"] for one in found.values()])
        gains = [
            one["accuracy"] - base[seed]["accuracy"] for seed, one in found.items() if seed in base
        ]
        gain, spread = mean_and_deviation(gains) if gains else (float("nan"), 0.0)
        error = spread / max(len(gains), 1) ** 0.5
        verdicts = [one["discriminator_accuracy"] for one in found.values()]
        shown = f"{np.mean(verdicts):.0%}" if all(v is not None for v in verdicts) else ""
        lines.append(
            f"| {name} | {len(found)} | {mean:.2%} ± {100 * deviation:.2f} | {100 * gain:+.2f} ± "
            f"{100 * error:.2f} (standard error) | {shown} |"
        )
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=("digits", "cifar10"), help="what to train on")
    parser.add_argument("--data-dir", help="folder of TFDS data sets, for cifar10")
    parser.add_argument("--seeds", type=int, default=4, help="runs of each variant")
    parser.add_argument(
        "--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="VARIANT"
    )
    parser.add_argument("--share", default="0/1", help="i/n: do every n-th seed, from the i-th on")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/choose_game"))
    parser.add_argument(
        "--report", type=pathlib.Path, nargs="+", help="only print the table of these folders"
    )
    parser.add_argument("--threads", type=int, default=0, help="threads of TensorFlow; 0: its own")
    arguments = parser.parse_args(argv)
    if arguments.report:
        print(report(arguments.report))
        return
    limit_threads(arguments.threads)
    settings = {"task": arguments.task, "version": keras_ktan.__version__}
    log = RunLog(arguments.output, settings, resume=True)
    part, parts = (int(number) for number in arguments.share.split("/"))
    for seed in range(part, arguments.seeds, parts):
        task = (
            digits_task(seed)
            if arguments.task == "digits"
            else cifar10_task(seed, arguments.data_dir)
        )
        teacher = obtain_teacher(arguments.output, task)
        for name in arguments.variants:
            if log.find(variant=name, seed=seed):
                continue
            result = run(name, seed, task, teacher)
            log.append(result)
            print(
                f"seed {seed}, {name}: {result['accuracy']:.2%}, {result['seconds']} s", flush=True
            )


if __name__ == "__main__":
    main()
