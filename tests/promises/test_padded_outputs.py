"""Promise 7: padded positions count in no logits loss, be it of tags or of numbers."""

import keras
import numpy as np
import pytest
from helpers import all_values, as_tensor, random_array, to_numpy
from keras import ops

from keras_ktan import KTANDistiller, OutputPair
from keras_ktan.cache import TeacherCache
from keras_ktan.losses.logits import logits_loss
from keras_ktan.losses.regression import scaled_squared_error

LENGTHS = (5, 2, 3)
VALID = np.arange(5)[None, :] < np.array(LENGTHS)[:, None]
VOCABULARY, TAGS = 7, 4


@pytest.mark.promise(7)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("kl", "softmax"),
        ("kl", "sigmoid"),
        ("standardized_kl", "softmax"),
        ("function", "softmax"),
        ("keras", "softmax"),
        ("regression", "regression"),
    ],
)
def test_a_logits_loss_is_that_of_the_examples_without_their_padding(name, kind):
    def loss(teacher, student, mask=None):
        if name == "regression":
            return scaled_squared_error(teacher, student, np.array([1.0, 2, 3, 4]), mask)
        given = {
            "function": lambda teacher, student: ops.abs(teacher - student),
            "keras": keras.losses.MeanAbsoluteError(),
        }.get(name, name)
        return logits_loss(given, teacher, student, 3.0, kind, mask)

    teacher, student = random_array(3, 5, TAGS), random_array(3, 5, TAGS, seed=1)
    expected = [
        to_numpy(loss(teacher[i : i + 1, :n], student[i : i + 1, :n]))[0]
        for i, n in enumerate(LENGTHS)
    ]
    teacher[~VALID], student[~VALID] = 7.0, np.nan
    found = loss(as_tensor(teacher), as_tensor(student), ops.convert_to_tensor(VALID))
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-5)


def correlation(one, other):
    return np.corrcoef(one, other)[0, 1]


@pytest.mark.promise(7)
def test_pearson_correlates_each_position_over_the_examples_that_have_it():
    teacher, student = random_array(3, 6, 2), random_array(3, 6, 2, seed=1)
    valid = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]], bool)
    p, q = (1 / (1 + np.exp(-logits.astype("float64") / 2.0)) for logits in (teacher, student))
    within = [
        np.mean([1 - correlation(p[i, t], q[i, t]) for t in range(6) if valid[i, t]])
        for i in range(3)
    ]
    over = np.mean(
        [
            1 - correlation(p[valid[:, t], t, c], q[valid[:, t], t, c])
            for t in range(4)  # the last two are padding in every example
            for c in range(2)
        ]
    )
    teacher[~valid], student[~valid] = 30.0, np.nan
    found = logits_loss(
        "pearson",
        as_tensor(teacher),
        as_tensor(student),
        2.0,
        "sigmoid",
        ops.convert_to_tensor(valid),
    )
    np.testing.assert_allclose(to_numpy(found), 4.0 * (np.array(within) + over), rtol=1e-4)


def tagger(width, name, masks=True):
    inputs = keras.Input((None,), dtype="int32")
    hidden = keras.layers.Embedding(VOCABULARY, width, mask_zero=masks)(inputs)
    return keras.Model(inputs, keras.layers.Dense(TAGS, name="tags")(hidden), name=name)


def batch(length):
    """Three sequences, the longest of 4, with as much padding behind them as asked for."""
    x = np.zeros((3, length), "int32")
    for row, count in enumerate((4, 2, 3)):
        x[row, :count] = np.random.default_rng(row).integers(1, VOCABULARY, count)
    return x


def make_distiller(kind, logits_loss="kl", teacher_masks=True, student_masks=True):
    keras.utils.set_random_seed(0)
    teacher = tagger(6, "teacher", teacher_masks)
    student = tagger(3, "student", student_masks)
    distiller = KTANDistiller(teacher, student, output_pairs=OutputPair(kind=kind))
    distiller.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.MeanSquaredError()
        if kind == "regression"
        else keras.losses.CategoricalCrossentropy(from_logits=True),
        student_loss_weight=0.0,
        logits_loss=logits_loss,
        feature_loss_weight=0.0,
        adversarial_loss_weight=0.0,
    )
    return distiller


@pytest.mark.parametrize(
    ("kind", "loss", "masks"),
    [
        ("softmax", "kl", (True, True)),
        ("softmax", "kl", (True, False)),
        ("softmax", "pearson", (False, True)),
        ("regression", "kl", (True, True)),
        ("regression", "kl", (False, True)),
    ],
)
def test_more_padding_changes_no_logits_loss_and_no_weight(kind, loss, masks):
    found = []
    for length in (4, 10):
        distiller = make_distiller(kind, loss, *masks)
        x = batch(length)
        y = np.zeros((3, length, TAGS), "float32")
        logs = [distiller.train_on_batch(x, y, return_dict=True) for _ in range(2)]
        found.append(([log["logits_loss"] for log in logs], all_values(distiller)))
    (first, weights), (second, others) = found
    assert first[0] > 0
    np.testing.assert_allclose(first, second, rtol=1e-4)
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_variance_is_that_of_what_is_no_padding():
    distiller = make_distiller("regression")
    x = batch(9)
    distiller.train_on_batch(x, np.zeros((3, 9, TAGS), "float32"))
    made = to_numpy(distiller.teacher(x))[x != 0].astype("float64")
    (variance,) = distiller.output_variances
    assert len(made) == 9 == to_numpy(variance.count)
    np.testing.assert_allclose(to_numpy(variance.result()), made.var(axis=0), rtol=1e-4)


def test_a_cache_keeps_the_mask_of_the_teachers_output(tmp_path):
    """The student has none of its own here."""
    x, y = batch(8), np.zeros((3, 8, TAGS), "float32")
    logs = []
    for cached in (False, True):
        distiller = make_distiller("softmax", student_masks=False)
        data = (x, y)
        if cached:
            cache = TeacherCache(distiller, tmp_path / "cache", precision="float32")
            cache.fill(x, verbose=0)
            data = (cache.dataset(x, y, batch_size=3, seed=0),)
        history = distiller.fit(*data, batch_size=3, epochs=2, shuffle=False, verbose=0)
        logs.append(history.history["logits_loss"])
    np.testing.assert_allclose(logs[1], logs[0], rtol=1e-4)
