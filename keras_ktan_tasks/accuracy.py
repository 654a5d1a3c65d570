"""Accuracy of a classifier."""

import keras
import numpy as np


def accuracy(model, data, batch_size=256):
    """Share of images that a model classifies correctly.

    Args:
        model: A `keras.Model` that returns logits.
        data: A tuple `(inputs, labels)` of arrays.
        batch_size: Int.

    Returns:
        Float between 0 and 1.
    """
    inputs, labels = data
    correct = 0
    for start in range(0, len(labels), batch_size):
        batch = inputs[start : start + batch_size].astype("float32")
        # `predict` would build a graph for every one of the many students.
        logits = model(batch, training=False)
        predicted = np.argmax(keras.ops.convert_to_numpy(logits), axis=-1)
        correct += int(np.sum(predicted == labels[start : start + batch_size]))
    return correct / len(labels)
