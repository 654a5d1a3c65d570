"""Train the same small student by four methods with the same budget, and compare.

What the four methods are, one run of one of them, the table, and the check that the exported
student works without this package.
"""

import subprocess
import sys
import time

import keras
import numpy as np

from keras_ktan import KTANDistiller
from keras_ktan_tasks.comparison import mean_and_deviation, method_title

# From each method to the terms that it adds to the labelled loss: logits, features, adversary.
METHODS = {
    "supervised": (False, False, False),
    "logit_distillation": (True, False, False),
    "feature_distillation": (False, True, False),
    "KTAN": (True, True, True),
}
# Chosen on validation images of the digits: benchmarks/results/README.md.
ADVERSARY_WEIGHT = 0.02


def loss_weights(method, steps, feature_weight=None):
    """The weights of one method's loss terms.

    The weights of features and adversary decay to 0: when the labels are learned their losses
    are small, and a feature loss of constant weight would pull the student away from them.

    Args:
        method: One of `METHODS`.
        steps: Steps of the whole training.
        feature_weight: A constant weight of the feature loss. `None`: it decays from 1.

    Returns:
        Dict of arguments for `KTANDistiller.compile`.
    """

    def decaying(weight):
        return keras.optimizers.schedules.CosineDecay(weight, steps)

    if feature_weight is None:
        feature_weight = decaying(1.0)
    has_logits, has_features, has_adversary = METHODS[method]
    return {
        "student_loss_weight": 1.0,
        "logits_loss_weight": 1.0 if has_logits else 0.0,
        "feature_loss_weight": feature_weight if has_features else 0.0,
        "adversarial_loss_weight": decaying(ADVERSARY_WEIGHT) if has_adversary else 0.0,
    }


def train_student(
    method,
    seed,
    teacher,
    make_student,
    train_data,
    validation_data,
    epochs,
    steps_per_epoch,
    make_optimizer,
    feature_pairs=None,
    feature_weight=None,
    temperature=4.0,
    batch_size=None,
    callbacks=(),
    **compile_arguments,
):
    """Train a new student by one method with one seed.

    The seed fixes the student's initial weights and the order of the batches, so that the
    four methods start alike.

    Args:
        method: One of `METHODS`.
        seed: Int.
        teacher: The trained teacher.
        make_student: Function without arguments that builds the student.
        train_data: A `tf.data.Dataset`, or a tuple `(inputs, labels)` of arrays.
        validation_data: The same, evaluated after each epoch.
        epochs: Int.
        steps_per_epoch: Int, for the weights that decay over the training.
        make_optimizer: Function without arguments that makes the student's optimizer.
        feature_pairs: See `KTANDistiller`.
        feature_weight: See `loss_weights`.
        temperature: See `KTANDistiller`.
        batch_size: For arrays.
        callbacks: Keras callbacks.
        **compile_arguments: More for `KTANDistiller.compile`.

    Returns:
        A tuple of the student, the history and the seconds that `fit` took.
    """
    keras.utils.set_random_seed(seed)
    student = make_student()
    distiller = KTANDistiller(teacher, student, feature_pairs, temperature=temperature)
    distiller.compile(
        **{
            "optimizer": make_optimizer(),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "metrics": ["accuracy"],
            **loss_weights(method, epochs * steps_per_epoch, feature_weight),
            **compile_arguments,
        }
    )
    inputs, targets = train_data if isinstance(train_data, tuple) else (train_data, None)
    keras.utils.set_random_seed(seed)
    start = time.perf_counter()
    history = distiller.fit(
        inputs,
        targets,
        batch_size=batch_size,
        epochs=epochs,
        validation_data=validation_data,
        callbacks=list(callbacks),
        shuffle=targets is not None,  # a data set shuffles itself, and Keras warns
        verbose=0,
    )
    return student, history.history, time.perf_counter() - start


def format_table(accuracies, teacher_accuracy):
    """Compare the methods in a table.

    Args:
        accuracies: Dict from a method to its test accuracies, one a seed, in the same order.
        teacher_accuracy: Float.

    Returns:
        A Markdown table. The last two columns compare with the supervised baseline, seed by
        seed; they are empty where it was not run.
    """
    lines = [
        "| method | test accuracy, mean ± sd | against the supervised baseline "
        "| share of the gap closed |",
        "|---|---|---|---|",
        f"| teacher | {teacher_accuracy:.2%} | | |",
    ]
    base = np.array(accuracies.get("supervised", [np.nan]))
    gap = teacher_accuracy - base.mean()
    for method, values in accuracies.items():
        mean, deviation = mean_and_deviation(values)
        row = f"| {method_title(method)} | {mean:.2%} ± {100 * deviation:.2f} |"
        if method == "supervised" or "supervised" not in accuracies:
            row += " | |"
        else:
            gain, spread = mean_and_deviation(np.array(values) - base)
            error = spread / np.sqrt(len(values))
            row += f" {100 * gain:+.2f} ± {100 * error:.2f} (standard error) |"
            row += f" {gain / gap:.0%} |" if gap > 0 else " no gap |"
        lines.append(row)
    return "\n".join(lines)


_RELOAD = """
import sys
import numpy as np
import tensorflow as tf
path, inputs, outputs = sys.argv[1:]
serve = tf.saved_model.load(path).signatures["serving_default"]
(name,) = serve.structured_input_signature[1]
found = serve(**{name: tf.constant(np.load(inputs))})
assert "keras_ktan" not in sys.modules
np.savez(outputs, **{key: value.numpy() for key, value in found.items()})
"""


def check_saved_model(path, student, inputs):
    """Load a SavedModel in a fresh process without `keras_ktan` and compare.

    Args:
        path: `pathlib.Path` of the SavedModel.
        student: The student it was made from.
        inputs: Array of inputs.

    Returns:
        The largest difference between the two models' outputs.
    """
    given, returned = path.parent / "reload_inputs.npy", path.parent / "reload_outputs.npz"
    np.save(given, inputs)
    reload = subprocess.run(
        [sys.executable, "-c", _RELOAD, str(path), str(given), str(returned)],
        capture_output=True,
        text=True,
    )
    if reload.returncode:
        raise RuntimeError(f"The SavedModel did not load in a fresh process:\n{reload.stderr}")
    expected = student.predict(inputs, verbose=0)
    with np.load(returned) as found:
        if not isinstance(expected, dict):
            # A single output, whatever its name.
            (name,) = found
            expected = {name: expected}
        differences = [np.abs(found[name] - expected[name]).max() for name in expected]
    given.unlink()
    returned.unlink()
    return float(max(differences))
