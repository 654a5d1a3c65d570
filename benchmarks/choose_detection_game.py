"""Which way to play the game with a detector: variants against each other on the tuning split.

The validation split is never read. Every finished run is a line of OUTPUT/runs.jsonl, and the
same command goes on where it stopped; --report FILE prints the table of the runs in a file.
"""

import argparse
import json
import os
import pathlib
import re
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "examples"))

import keras
import numpy as np
from compact_detector import CompactDetector, ObjectWeights
from detection_data import load_pictures, make_views, split_pictures
from distill_detector import (
    VIEWS,
    VIEWS_SEED,
    evaluate,
    make_optimizer,
    make_student_data,
    train_student,
)
from four_ways import mean_and_deviation
from run_log import RunLog, digest

from keras_ktan import FeatureDiscriminator, FeaturePair, OutputPair, TeacherToStudent


def game(
    logits=0.0,
    feature=0.0,
    adversary=0.0,
    levels=("P3", "P4"),
    anchor="reconstruction",
    temperature=1.0,
    falling=True,
    falling_logits=False,
    scores="score_logits",
    rate=16e-3,
    box_weight=1.5,
    objects=False,
    **more,
):
    """One variant: three weights, what is paired and how."""
    return {
        "objects": objects,
        "rate": rate,
        "box_weight": box_weight,
        "weights": (logits, feature, adversary),
        "levels": levels,
        "anchor": anchor,
        "temperature": temperature,
        "falling": falling,
        "falling_logits": falling_logits,
        "scores": scores,
        "compile": more,
    }


CLASSES = {"scores": "class_logits"}
HEAD = {"anchor": "student_head", "box_weight": 3.0}
HEADS = ("box_head_P3", "box_head_P4", "class_head_P3", "class_head_P4")
VARIANTS = {
    "labels only": game(),
    # The rate of the optimizer, which all ways share.
    "labels only, rate 2e-3": game(rate=2e-3),
    "labels only, rate 4e-3": game(rate=4e-3),
    "labels only, rate 8e-3": game(rate=8e-3),
    "class logits 3, rate 8e-3": game(logits=3.0, rate=8e-3, **CLASSES),
    # The weight of the box loss within the labelled loss, which all ways share.
    "labels only, box 3": game(box_weight=3.0),
    "class logits 10, box 3": game(logits=10.0, box_weight=3.0, **CLASSES),
    "score logits 10, box 3": game(logits=10.0, box_weight=3.0),
    "score logits 10 + maps 0.3, student head, box 3": game(logits=10.0, feature=0.3, **HEAD),
    "maps 0.3, student head, box 3": game(feature=0.3, **HEAD),
    "score logits 10 + maps 0.3, student head + adversary 0.02, box 3": game(
        logits=10.0, feature=0.3, adversary=0.02, **HEAD
    ),
    "score logits 3 + maps 0.3, student head + adversary 0.005, box 3": game(
        logits=3.0, feature=0.3, adversary=0.005, **HEAD
    ),
    # Maps where the teacher sees objects; and KTAN without scores, which take from the boxes.
    "maps 0.3 at objects, student head, box 3": game(feature=0.3, **HEAD, objects=True),
    "maps 1 at objects, student head, box 3": game(feature=1.0, **HEAD, objects=True),
    "maps 0.3, normalized mse, student head, box 3": game(
        feature=0.3, **HEAD, feature_loss="normalized_mse"
    ),
    "maps 0.3 at objects, normalized mse, student head, box 3": game(
        feature=0.3,
        **HEAD,
        objects=True,
        feature_loss="normalized_mse",
    ),
    "maps 0.3, student head + adversary 0.02, box 3": game(feature=0.3, adversary=0.02, **HEAD),
    # How strong maps and adversary should be beside each other.
    "maps 1, student head, box 3": game(feature=1.0, **HEAD),
    "maps 0.3, student head + adversary 0.005, box 3": game(feature=0.3, adversary=0.005, **HEAD),
    "maps 1, student head + adversary 0.005, box 3": game(feature=1.0, adversary=0.005, **HEAD),
    # Which level, which anchor, and the adversary alone.
    "maps 0.3, P3 alone, student head, box 3": game(feature=0.3, levels=("P3",), **HEAD),
    "maps 0.3, P4 alone, student head, box 3": game(feature=0.3, levels=("P4",), **HEAD),
    "maps 0.3, reconstruction, box 3": game(feature=0.3, box_weight=3.0),
    "adversary 0.02, box 3": game(adversary=0.02, **HEAD),
    "maps 0.1, student head + adversary 0.005, box 3": game(feature=0.1, adversary=0.005, **HEAD),
    "score logits 10 + maps 0.3, student head + adversary 0.005, box 3": game(
        logits=10.0, feature=0.3, adversary=0.005, **HEAD
    ),
    # Maps that act to the end, as they do best with classifiers, with and without the adversary.
    "maps 1, constant, normalized mse, student head, box 3": game(
        feature=1.0, falling=False, feature_loss="normalized_mse", **HEAD
    ),
    "maps 3, constant, normalized mse, student head, box 3": game(
        feature=3.0, falling=False, feature_loss="normalized_mse", **HEAD
    ),
    "maps 3, constant, normalized mse, reconstruction, box 3": game(
        feature=3.0, falling=False, feature_loss="normalized_mse", box_weight=3.0
    ),
    "maps 1, constant, normalized mse, student head + adversary 0.005, box 3": game(
        feature=1.0, adversary=0.005, falling=False, feature_loss="normalized_mse", **HEAD
    ),
    "maps 3, constant, normalized mse, student head + adversary 0.005, box 3": game(
        feature=3.0, adversary=0.005, falling=False, feature_loss="normalized_mse", **HEAD
    ),
    "maps 0.3 at objects, student head + adversary 0.02, box 3": game(
        feature=0.3, adversary=0.02, **HEAD, objects=True
    ),
    # With longer training: stronger scores, the adversary beside scores alone, and other maps.
    "score logits 30, box 3": game(logits=30.0, box_weight=3.0),
    "score logits 10 + adversary 0.02, box 3": game(logits=10.0, adversary=0.02, **HEAD),
    "score logits 10 + maps 0.3, reconstruction, box 3": game(
        logits=10.0, feature=0.3, box_weight=3.0
    ),
    "score logits 10 + maps 1, constant, normalized mse, reconstruction, box 3": game(
        logits=10.0, feature=1.0, falling=False, feature_loss="normalized_mse", box_weight=3.0
    ),
    "score logits 10 + maps 0.3 at objects, student head + adversary 0.005, box 3": game(
        logits=10.0, feature=0.3, adversary=0.005, objects=True, **HEAD
    ),
    "score logits 10 + head maps 0.15, student head, box 3": game(
        logits=10.0, feature=0.15, levels=HEADS, **HEAD
    ),
    "score logits 10 + box head maps 0.3, student head + adversary 0.005, box 3": game(
        logits=10.0, feature=0.3, adversary=0.005, levels=HEADS[:2], **HEAD
    ),
    "score logits 10 + box head maps 0.3, student head + adversary 0.001, box 3": game(
        logits=10.0, feature=0.3, adversary=0.001, levels=HEADS[:2], **HEAD
    ),
    "box head maps 0.3, student head, box 3": game(feature=0.3, levels=HEADS[:2], **HEAD),
    # Which scores, how strongly, and for how long.
    "class logits 10": game(logits=10.0, **CLASSES),
    "class logits 10 falling": game(logits=10.0, falling_logits=True, **CLASSES),
    "score logits 3": game(logits=3.0),
    "score logits 10": game(logits=10.0),
    "score logits 10 falling": game(logits=10.0, falling_logits=True),
    "score logits 30 falling": game(logits=30.0, falling_logits=True),
    "class logits 10, rate 2e-3": game(logits=10.0, rate=2e-3, **CLASSES),
    "maps, student head, rate 2e-3": game(feature=1.0, anchor="student_head", rate=2e-3),
    # Maps.
    "maps": game(feature=1.0),
    "maps, student head": game(feature=1.0, anchor="student_head"),
    "maps 0.3, student head": game(feature=0.3, anchor="student_head"),
    "maps, normalized mse": game(feature=1.0, feature_loss="normalized_mse"),
    "class logits 10 + maps, student head": game(
        logits=10.0, feature=1.0, anchor="student_head", **CLASSES
    ),
    "score logits 10 falling + maps 0.3, student head": game(
        logits=10.0, feature=0.3, anchor="student_head", falling_logits=True
    ),
    "score logits 10 falling + maps 0.3, student head + adversary": game(
        logits=10.0, feature=0.3, adversary=0.02, anchor="student_head", falling_logits=True
    ),
}
STUDENTS = {
    "121k": {"widths": (12, 20, 40, 40), "pyramid_width": 40},
    "78k": {"widths": (8, 16, 32, 32), "pyramid_width": 32},
    "44k": {"widths": (8, 12, 24, 24), "pyramid_width": 24},
    "20k": {"widths": (6, 8, 16, 16), "pyramid_width": 16},
}


def make_play(variant, steps, image_size):
    """The pairs and the arguments of `compile` of a variant."""

    def weight(value, is_falling=variant["falling"]):
        falls = is_falling and value
        return keras.optimizers.schedules.CosineDecay(value, steps) if falls else value

    logits, feature, adversary = variant["weights"]
    pairs = [
        FeaturePair(
            level,
            level,
            teacher_to_student=TeacherToStudent(objective=variant["anchor"]),
            discriminator=FeatureDiscriminator(),
            position_weights=ObjectWeights(image_size, level) if variant["objects"] else None,
        )
        for level in variant["levels"]
    ]
    return pairs, {
        "optimizer": make_optimizer(steps, variant["rate"]),
        "logits_loss_weight": weight(logits, variant["falling_logits"]),
        "feature_loss_weight": weight(feature),
        "adversarial_loss_weight": weight(adversary),
        **variant["compile"],
    }


def report(path):
    """A Markdown table of all finished runs: AP on the tuning split, mean ± sd over the seeds."""
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [
        "| student | epochs | variant | seeds | AP | AP50 | AP75 | AP against labels only, same "
        "seeds | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for student, epochs, variant in dict.fromkeys(
        (run["student"], run["epochs"], run["variant"]) for run in runs
    ):

        def of(name, student=student, epochs=epochs):
            wanted = (student, epochs, name)
            return {
                run["seed"]: run
                for run in runs
                if (run["student"], run["epochs"], run["variant"]) == wanted
            }

        # Rate and box weight are part of the labelled loss's own training, not of the way.
        shared = re.search(r"(, (?:rate|box) \S+)?$", variant).group()
        found, base = of(variant), of("labels only" + shared)
        row = f"| {student} | {epochs} | {variant} | {len(found)} |"
        for name in ("AP", "AP50", "AP75"):
            mean, deviation = mean_and_deviation([100 * run[name] for run in found.values()])
            row += f" {mean:.1f} ± {deviation:.1f} |" if len(found) > 1 else f" {mean:.1f} |"
        seeds = [seed for seed in found if seed in base and not variant.startswith("labels only")]
        gains = [100 * (found[seed]["AP"] - base[seed]["AP"]) for seed in seeds]
        row += " " + ", ".join(f"{gain:+.1f}" for gain in gains)
        lines.append(row + f" | {np.mean([run['seconds'] for run in found.values()]):.0f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="../shared/data/tfds/bccd/1.0.0")
    parser.add_argument("--teacher", type=pathlib.Path, help="the teacher's .keras file")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("runs/detection_search")
    )
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--student", choices=list(STUDENTS), default="44k")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--report", type=pathlib.Path, metavar="FILE", help="only print its table")
    arguments = parser.parse_args()
    if arguments.report:
        print(report(arguments.report))
        return
    teacher = keras.saving.load_model(arguments.teacher)
    # What all runs of a folder share; the variants, students and epochs stand with the runs.
    settings = {"dataset": arguments.dataset, "teacher": digest(teacher.get_weights())}
    log = RunLog(arguments.output, settings, resume=True)
    size = teacher.settings["image_size"]
    pictures, names = load_pictures(arguments.dataset, "train", (240, 320))
    train, tuning = split_pictures(pictures, 41)
    print("teacher", evaluate(teacher, tuning, size, names), flush=True)
    views = make_views(train, size, VIEWS, VIEWS_SEED)
    # Of all variants, whichever are asked for: one cache serves them all.
    layer_names = sorted({level for variant in VARIANTS.values() for level in variant["levels"]})
    data = make_student_data(
        teacher, views, 8, arguments.output / "teacher_cache", layer_names=layer_names
    )
    steps = arguments.epochs * -(-len(views[0]) // 8)
    for seed in arguments.seeds:
        for name in arguments.variants:
            key = {
                "student": arguments.student,
                "epochs": arguments.epochs,
                "variant": name,
                "seed": seed,
            }
            if log.find(**key):
                continue
            keras.backend.clear_session(free_memory=False)

            def make_student(box_weight=VARIANTS[name]["box_weight"]):
                return CompactDetector(
                    size,
                    len(names),
                    **STUDENTS[arguments.student],
                    box_weight=box_weight,
                    name="student",
                )

            student, history, seconds = train_student(
                teacher,
                make_student,
                data,
                seed,
                arguments.epochs,
                steps,
                make_play(VARIANTS[name], steps, size),
                name,
                temperature=VARIANTS[name]["temperature"],
                output_pairs=OutputPair(VARIANTS[name]["scores"], kind="sigmoid"),
            )
            found = evaluate(student, tuning, size, names)
            last = {term: round(values[-1], 4) for term, values in history.items()}
            run = {**key, **found, "seconds": round(seconds, 1), "last_epoch": last}
            log.append(run)
            print(json.dumps(run), flush=True)
    print(report(log.path))


if __name__ == "__main__":
    main()
