"""How the detectors of the examples and benchmarks are trained and evaluated."""

import keras
import numpy as np

from keras_ktan import OutputPair
from keras_ktan_tasks.detection_data import as_network_input
from keras_ktan_tasks.detection_metrics import average_precision

# The detectors' output of class logits, for `KTANDistiller`.
LOGITS_ARGUMENTS = {"output_pairs": OutputPair("score_logits", kind="sigmoid")}
VIEWS_SEED = 4321  # of the augmented versions that all students see


def make_optimizer(steps, rate, weight_decay=1e-4):
    """AdamW that warms up and then decays to 0 over so many steps."""
    warmup = min(100, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, warmup_target=rate, warmup_steps=warmup
    )
    return keras.optimizers.AdamW(schedule, weight_decay=weight_decay, clipnorm=10.0)


def describe_losses(logs):
    """The parts of a detector's loss in words."""
    return f"class loss {logs['class_loss']:.3f}, box loss {logs['box_loss']:.3f}"


def evaluate(detector, pictures, size, class_names):
    """AP of a detector on whole pictures."""
    images, truth = as_network_input(pictures, size)
    # `predict` would build a graph for every one of the many students.
    parts = [
        detector.predict_step((images[start : start + 32],)) for start in range(0, len(images), 32)
    ]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return average_precision(found, truth, class_names)
