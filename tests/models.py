"""Small models and data that the tests share."""

import keras
import numpy as np

from keras_ktan import FeaturePair, TeacherToStudent

CLASSES = 5
LOSS = keras.losses.SparseCategoricalCrossentropy


def image_model(
    filters,
    name,
    dropout=0.0,
    batch_norm=True,
    regularizer=None,
    strides=2,
    size=8,
    seed=0,
    dtype=None,
):
    """A classifier of small grey images; its last map is the layer `features`."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((size, size, 1), name="image")
    hidden = keras.layers.Conv2D(filters, 3, padding="same", name="stem", dtype=dtype)(inputs)
    if batch_norm:
        hidden = keras.layers.BatchNormalization(name="norm", dtype=dtype)(hidden)
    hidden = keras.layers.ReLU(name="stem_out", dtype=dtype)(hidden)
    hidden = keras.layers.Conv2D(
        filters,
        3,
        strides=strides,
        padding="same",
        kernel_regularizer=regularizer,
        activation="relu",
        name="features",
        dtype=dtype,
    )(hidden)
    if dropout:
        hidden = keras.layers.Dropout(dropout, name="dropout", dtype=dtype)(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pool", dtype=dtype)(hidden)
    logits = keras.layers.Dense(CLASSES, name="logits", dtype=dtype)(hidden)
    return keras.Model(inputs, logits, name=name)


def learned_pair():
    """The maps `features` of two such models, with a T2S that learns; by default it selects."""
    return FeaturePair(
        "features", "features", teacher_to_student=TeacherToStudent(objective="student_head")
    )


def image_data(count=20, size=8, seed=0):
    """Random images and labels."""
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(count, size, size, 1)).astype("float32")
    return images, generator.integers(0, CLASSES, count).astype("int32")


def loss_from_logits():
    """The usual loss of the tests."""
    return LOSS(from_logits=True)


def use_double_precision():
    """Let Keras compute in float64, on JAX too.

    Where two computations of the same steps are compared, it allows a bound that only errors
    exceed. After the four steps of `test_oracle.py` they part by 1e-6 and more in float32, and by
    1e-10 in float64. A race that moved weights by 2e-5 in one run of ten looked like round-off in
    float32. Nothing is computed here: a script may still have devices to set up.
    """
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")


def snapshot(*models):
    """Copies of all variables of some models, random states included."""
    return [
        np.array(keras.ops.convert_to_numpy(variable))
        for model in models
        for variable in model.variables
    ]


def assert_same(first, second):
    """Two snapshots are equal to the bit."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def assert_changed(first, second):
    """At least one variable differs."""
    assert any(not np.array_equal(one, other) for one, other in zip(first, second, strict=True))
