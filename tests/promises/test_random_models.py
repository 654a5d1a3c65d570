"""Promises 3, 5 and 14 for pairs of models that nobody chose.

Hypothesis draws both models and what `compile` is told. A drawn pair trains two steps; what must
hold for every pair is checked.
"""

import keras
import numpy as np
import pytest
from helpers import to_numpy
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from keras import layers as L

from keras_ktan import KTANDistiller

CLASSES = 4
QUICK = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a smaller example would take minutes to find
    suppress_health_check=list(HealthCheck),
)
LONG = settings(QUICK, max_examples=300)

models = st.fixed_dictionaries(
    {
        "filters": st.lists(st.integers(1, 6), min_size=1, max_size=3),
        "kind": st.sampled_from(["plain", "residual", "depthwise", "concatenated", "nested"]),
        "normalisation": st.sampled_from([None, "batch", "layer"]),
        "activation": st.sampled_from(["relu", "swish", "tanh", "linear"]),
        "dropout": st.booleans(),
        "pooling": st.sampled_from(["average", "max", "flatten"]),
        "softmax": st.booleans(),
    }
)
weights = st.sampled_from([0.0, 0.02, 1.0])
terms = st.fixed_dictionaries(
    {
        "student_loss_weight": st.sampled_from([0.5, 1.0]),
        "logits_loss_weight": weights,
        "feature_loss_weight": weights,
        "adversarial_loss_weight": weights,
        "logits_loss": st.sampled_from(["kl", "standardized_kl", "pearson"]),
        "feature_loss": st.sampled_from(["cosine", "mse", "normalized_mse", "pooled_cosine"]),
        "adversarial_loss": st.sampled_from(["bce", "least_squares", "hinge"]),
    }
)


def stage(x, filters, description, strides):
    x = L.Conv2D(filters, 3, strides, padding="same")(x)
    if description["normalisation"] == "batch":
        x = L.BatchNormalization()(x)
    elif description["normalisation"] == "layer":
        x = L.LayerNormalization()(x)
    x = L.Activation(description["activation"])(x)
    if description["kind"] == "residual":
        return L.Add()([x, L.Conv2D(filters, 3, padding="same", activation="relu")(x)])
    if description["kind"] == "depthwise":
        return L.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    if description["kind"] == "concatenated":
        return L.Concatenate()([x, L.Conv2D(2, 1, activation="relu")(x)])
    return x


def build(description, name):
    keras.utils.set_random_seed(len(name))
    inputs = x = keras.Input((8, 8, 2), name="image")
    for place, filters in enumerate(description["filters"]):
        x = stage(x, filters, description, 2 if place else 1)
    if description["kind"] == "nested":
        x = keras.Model(inputs, x, name="backbone")(inputs)
    if description["dropout"]:
        x = L.Dropout(0.3)(x)
    pooling = {"average": L.GlobalAveragePooling2D, "max": L.GlobalMaxPooling2D}
    x = pooling.get(description["pooling"], L.Flatten)()(x)
    activation = "softmax" if description["softmax"] else None
    return keras.Model(inputs, L.Dense(CLASSES, activation=activation)(x), name=name)


def values(variables):
    return [to_numpy(variable).copy() for variable in variables]


def check(teacher, student, compiled):
    teacher, softmax = build(teacher, "teacher"), student["softmax"]
    student = build(student, "student")
    numbers = np.random.default_rng(0)
    images = numbers.normal(size=(6, 8, 8, 2)).astype("float32")
    labels = numbers.integers(0, CLASSES, 6)
    distiller = KTANDistiller(teacher, student)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax)
    distiller.compile(keras.optimizers.SGD(1e-2), loss, **compiled)
    before, start = values(teacher.variables), values(student.trainable_variables)
    for _ in range(2):
        logs = distiller.train_on_batch(images, labels, return_dict=True)
    # The teacher stays; the student moves, and no optimizer knows the teacher.
    for old, new in zip(before, values(teacher.variables), strict=True):
        np.testing.assert_array_equal(old, new)
    moved = zip(start, values(student.trainable_variables), strict=True)
    assert any(not np.array_equal(old, new) for old, new in moved)
    own = {id(variable) for variable in teacher.variables}
    assert not own & {id(variable) for variable in distiller.trainable_variables}
    # Every term that was asked for is logged, and no other; the loss is their weighted sum.
    asked = {
        name.removesuffix("_weight") for name, v in compiled.items() if name[-7:] == "_weight" and v
    }
    terms = {"student_loss", "logits_loss", "feature_loss", "adversarial_loss"}
    assert {name for name in logs if name in terms} == asked
    total = sum(compiled[f"{name}_weight"] * logs[name] for name in asked)
    np.testing.assert_allclose(logs["loss"], total, rtol=1e-4, atol=1e-5)
    # Outside `fit` it is the student.
    np.testing.assert_array_equal(
        distiller.predict_on_batch(images), student.predict_on_batch(images)
    )


@pytest.mark.reliability
@pytest.mark.slow
@QUICK
@given(models, models, terms)
def test_any_pair_keeps_the_promises(teacher, student, compiled):
    check(teacher, student, compiled)


@pytest.mark.reliability
@pytest.mark.long
@LONG
@given(models, models, terms)
def test_many_pairs_keep_the_promises(teacher, student, compiled):
    check(teacher, student, compiled)
