"""How many operations a training step has on TensorFlow: a number without noise.

A graph of one step is traced and its operations are counted, those of the functions inside it
included: the student's own step, the teacher's forward pass, and the distiller's steps term by
term. The last column is the share of a step that is the distillation's own: operations divided by
the sum of the student's step and, where a teacher runs, the teacher's forward pass.
"""

import argparse
import os
import pathlib

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# First: it imports Keras without start-up lines.
from keras_ktan_tasks import startup as startup

# isort: split
import keras
import numpy as np
import tensorflow as tf

import keras_ktan
from keras_ktan import FeaturePair, KTANDistiller, TeacherToStudent
from keras_ktan_tasks.residual_network import make_classifier

SIZE, BATCH = 16, 32
# Weights of the logits, feature and generator losses, and T2S's objective.
METHODS = {
    "logits": (1.0, 0.0, 0.0, "selection"),
    "logits and features": (1.0, 1.0, 0.0, "selection"),
    "all terms": (1.0, 1.0, 0.02, "selection"),
    "logits and features, learned T2S (student_head)": (1.0, 1.0, 0.0, "student_head"),
    "all terms, learned T2S (student_head)": (1.0, 1.0, 0.02, "student_head"),
}


def models():
    """A teacher and a student: residual networks of six and of three blocks."""
    return make_classifier(SIZE, 2, 24, "teacher"), make_classifier(SIZE, 1, 8, "student")


def operations(function, *specs):
    """Operations of a traced function, with those of the functions it calls."""
    graph = tf.function(function).get_concrete_function(*specs).graph.as_graph_def()
    inner = sum(len(definition.node_def) for definition in graph.library.function)
    return len(graph.node) + inner


def compiled(model, **arguments):
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
        **arguments,
    )
    return model


def operations_of_step(model, batch):
    """Operations of a compiled model's training step, for a tuple of images and labels."""
    # Metrics make their variables when they first see data; then optimizers, too, are built.
    model.train_on_batch(*batch)
    specs = [tf.TensorSpec(part.shape, part.dtype) for part in batch]
    return operations(lambda x, y: model.train_step((x, y)), *specs)


def count(names=tuple(METHODS)):
    """Dict from what runs to its operations and what these are a share of.

    Args:
        names: Which of `METHODS`.
    """
    teacher, student = models()
    images = tf.TensorSpec((BATCH, SIZE, SIZE, 3), "float32")
    batch = np.zeros(images.shape, "float32"), np.zeros(BATCH, "int64")
    forward = operations(lambda x: teacher(x, training=False), images)
    alone = operations_of_step(compiled(student), batch)
    counts = {"student's own step": (alone, alone), "teacher's forward pass": (forward, forward)}
    for name in names:
        logits, feature, adversarial, objective = METHODS[name]
        pair = FeaturePair(
            "stage_2", "stage_2", teacher_to_student=TeacherToStudent(objective=objective)
        )
        distiller = compiled(
            KTANDistiller(*models(), pair),
            logits_loss_weight=logits,
            feature_loss_weight=feature,
            adversarial_loss_weight=adversarial,
        )
        counts[name] = (operations_of_step(distiller, batch), alone + forward)
    return counts


def table(counts):
    """The counts as a Markdown table."""
    lines = ["| what | operations | times student and teacher |", "|---|---|---|"]
    for name, (found, base) in counts.items():
        lines.append(f"| {name} | {found:,} | {found / base:.2f} |")
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("benchmarks/results/step_operations.md"),
        help="file to write",
    )
    arguments = parser.parse_args(argv)
    about = (
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, keras_ktan "
        f"{keras_ktan.__version__}; residual networks of {SIZE}×{SIZE} images, Adam, accuracy; the "
        "map of stage 2."
    )
    text = f"{about}\n\n{table(count())}\n"
    print(text)
    arguments.output.write_text(text)


if __name__ == "__main__":
    main()
