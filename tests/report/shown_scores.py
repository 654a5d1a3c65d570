"""Classifiers whose scores are some of their inputs, so that a test decides what they answer."""

import keras
import numpy as np
from keras import layers


def window(start, width, total, activation=None, name=None):
    """A model whose scores are some of its inputs."""
    model = keras.Sequential(
        [keras.Input((total,)), layers.Dense(width, use_bias=False, activation=activation)],
        name=name,
    )
    model.layers[0].set_weights([np.eye(total)[:, start : start + width]])
    return model


def one_hot(numbers, classes):
    return np.eye(classes, dtype="float32")[np.asarray(numbers)]


LABELS = [0, 1, 2, 0, 1, 2, 0, 1]
TEACHER = [0, 1, 2, 0, 1, 2, 0, 2]  # 7 of 8
STUDENT = [0, 1, 2, 0, 0, 2, 1, 2]  # 5 of 8, and 6 agree with the teacher


def two_models(sharpness=2.0, **activations):
    x = np.concatenate([sharpness * one_hot(TEACHER, 3), sharpness * one_hot(STUDENT, 3)], axis=1)
    teacher = window(0, 3, 6, activations.get("teacher"), "teacher")
    return teacher, window(3, 3, 6, activations.get("student"), "student"), x
