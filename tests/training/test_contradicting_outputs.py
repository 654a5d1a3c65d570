"""Outputs whose kind is easily taken for another: an error or a warning, and no healthy number."""

import functools

import keras
import numpy as np
import pytest
from helpers import assert_three_parts, random_array, to_numpy
from keras import layers, ops

from keras_ktan import KTANDistiller, OutputPair

T = 4.0
ALONE = {"feature_loss_weight": 0.0, "adversarial_loss_weight": 0.0}
CATEGORICAL = keras.losses.SparseCategoricalCrossentropy
CLASSES = 3


def model(units, end=None, inputs=(4,), head_loss=None):
    keras.utils.set_random_seed(units)
    image = keras.Input(inputs)
    hidden = layers.Dense(units, activation="relu")(image)
    scores = layers.Dense(CLASSES, name="scores")(hidden)
    made = keras.Model(image, scores if end is None else end(scores))
    if head_loss is not None:
        made.compile("sgd", head_loss)
    return made


def compiled(teacher, student, loss, pairs=None, **arguments):
    distiller = KTANDistiller(teacher, student, output_pairs=pairs, temperature=T)
    distiller.compile(keras.optimizers.SGD(0.0), loss, **{**ALONE, **arguments})
    return distiller


def softmax_kl(teacher, student):
    teacher, student = (np.exp(to_numpy(z).astype("float64") / T) for z in (teacher, student))
    p, q = (z / z.sum(-1, keepdims=True) for z in (teacher, student))
    return T**2 * np.mean(np.sum(p * np.log(p / q), axis=-1))


class Hidden(keras.Model):
    """Nothing shows what its values are: they are made inside `call`."""

    def __init__(self, end, refuses_two=False):
        super().__init__()
        self.dense = layers.Dense(CLASSES)
        self.end, self.refuses_two = end, refuses_two

    def call(self, inputs):
        if self.refuses_two and inputs.shape[0] == 2:
            raise RuntimeError("not two")
        return self.end(self.dense(inputs))


def hidden(end, inputs=(4,), **arguments):
    made = Hidden(end, **arguments)
    made(np.zeros((1, *inputs), "float32"))
    return made


TEACHERS = {
    "sigmoids": lambda: hidden(ops.sigmoid),
    "a softmax over tokens": lambda: hidden(lambda x: ops.softmax(x, axis=1), inputs=(5, 4)),
    "scores that could not be looked at": lambda: hidden(lambda x: 5.0 * x, refuses_two=True),
}


@pytest.mark.promise(14)
@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_whose_values_nothing_explains_is_not_taken_for_a_softmax(name, from_logits):
    """Neither for raw scores because its loss is on logits, nor for log p because it is not."""
    inputs = (5, 4) if "tokens" in name else (4,)
    student = model(4, None if from_logits else layers.Softmax(), inputs)
    with pytest.raises(ValueError) as error:
        compiled(TEACHERS[name](), student, CATEGORICAL(from_logits=from_logits))
    assert_three_parts(error.value, "It is not clear whether the teacher's", "Expected", "End the")


def test_a_head_that_begins_at_zero_holds_raw_scores():
    """All its values are in [0, 1]."""
    teacher, student = model(8), hidden(lambda x: 0.0 * x)
    x = random_array(6, 4)
    pair = OutputPair(kind="softmax")
    logs = compiled(teacher, student, lambda y, z: ops.mean(z, axis=-1), pair).train_on_batch(
        x, np.zeros(6), return_dict=True
    )
    np.testing.assert_allclose(logs["logits_loss"], softmax_kl(teacher(x), student(x)), rtol=1e-4)


AXES = {
    "sparse": lambda **axis: CATEGORICAL(from_logits=True, **axis),
    "one of many": lambda **axis: keras.losses.CategoricalCrossentropy(from_logits=True, **axis),
    "focal": lambda **axis: keras.losses.CategoricalFocalCrossentropy(from_logits=True, **axis),
    "a function": lambda **axis: functools.partial(
        keras.losses.categorical_crossentropy, from_logits=True, **axis
    ),
}


@pytest.mark.promise(14)
@pytest.mark.parametrize("name", AXES)
def test_classes_that_the_loss_takes_from_another_axis_are_an_error(name):
    teacher, student = model(8, inputs=(5, 4)), model(4, inputs=(5, 4))
    with pytest.raises(ValueError) as error:
        compiled(teacher, student, AXES[name](axis=1))
    assert_three_parts(error.value, "on axis 1", "Expected them on the last axis", "Permute")
    for axis in (-1, 2):
        (output,) = compiled(teacher, student, AXES[name](axis=axis)).objectives.outputs
        assert output.kind == "softmax"


OWN_LOSSES = {
    "categorical": (None, CATEGORICAL(from_logits=True), "softmax"),
    "by name": (layers.Softmax(), "sparse_categorical_crossentropy", "softmax"),
    "binary": (None, keras.losses.BinaryCrossentropy(from_logits=True), "sigmoid"),
    "a number": (None, ["mse"], "regression"),
}


@pytest.mark.parametrize("name", OWN_LOSSES)
def test_without_a_loss_the_one_that_the_student_was_compiled_with_says_the_kind(name):
    end, loss, kind = OWN_LOSSES[name]
    student = model(4, end, head_loss=loss)
    distiller = compiled(model(8), student, None, OutputPair())
    (output,) = distiller.objectives.outputs
    assert output.kind == kind
    # As before, nothing is paired that nobody named.
    with pytest.warns(UserWarning, match="not distilled: the single output"):
        assert compiled(model(8), student, None).objectives.outputs == []


@pytest.mark.promise(14)
@pytest.mark.parametrize(
    ("end", "loss", "kind", "words"),
    [
        (None, keras.losses.BinaryCrossentropy(from_logits=True), "softmax", "'BinaryCrossentropy"),
        (None, "mse", "sigmoid", "'mse'"),
        (layers.Softmax(), CATEGORICAL(from_logits=True), "auto", "Leave out `from_logits=True`"),
        (None, "sparse_categorical_crossentropy", "softmax", "Expected `from_logits=True`"),
    ],
)
def test_what_the_students_own_loss_contradicts_is_an_error(end, loss, kind, words):
    student = model(4, end, head_loss=loss)
    with pytest.raises(ValueError, match="Expected") as error:
        compiled(model(8), student, None, OutputPair(kind=kind))
    assert words in str(error.value)


def two_heads(units):
    keras.utils.set_random_seed(units)
    image = keras.Input((4,))
    hidden = layers.Dense(units, activation="relu")(image)
    return keras.Model(
        image, {name: layers.Dense(CLASSES, name=name)(hidden) for name in ("color", "shape")}
    )


@pytest.mark.promise(14)
@pytest.mark.parametrize("losses", [{}, {"shape": None}])
def test_a_head_without_a_loss_is_left_out_and_said(losses):
    teacher, student = two_heads(8), two_heads(4)
    losses = {"color": CATEGORICAL(from_logits=True), **losses}
    with pytest.warns(UserWarning, match="not distilled: the output 'shape' .it has no loss"):
        distiller = compiled(teacher, student, losses)
    lines = []
    distiller.summary(print_fn=lambda line, *args, **kwargs: lines.append(line))
    assert any("left out: the output 'shape' (it has no loss" in line for line in lines)
    x = random_array(6, 4)
    logs = distiller.train_on_batch(x, {"color": np.arange(6) % CLASSES}, return_dict=True)
    expected = softmax_kl(teacher(x)["color"], student(x)["color"])
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)
    # Asked for by name it is an error that asks for the kind, and then it counts.
    pairs = [OutputPair("color"), OutputPair("shape")]
    with pytest.raises(ValueError, match="It is not clear what the output 'shape' means"):
        compiled(teacher, student, losses, pairs)
    pairs[1] = OutputPair("shape", kind="softmax")
    logs = compiled(teacher, student, losses, pairs).train_on_batch(
        x, {"color": np.arange(6) % CLASSES}, return_dict=True
    )
    expected += softmax_kl(teacher(x)["shape"], student(x)["shape"])
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)
