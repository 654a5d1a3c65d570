"""Promise 7: padded positions count in no term, whatever stands there and however many they are."""

import keras
import numpy as np
import pytest
from helpers import all_values, as_tensor, random_array, to_numpy
from keras import ops

from keras_ktan import FeatureDiscriminator, FeaturePair, KTANDistiller, TeacherToStudent
from keras_ktan.cache import TeacherCache
from keras_ktan.introspection.feature_tap import FeatureTap
from keras_ktan.layers.resize import resize_mask, resize_masked_map
from keras_ktan.losses import FEATURE_LOSSES, AdversarialLoss, feature_loss

LENGTHS = (5, 2, 3)
VALID = np.arange(5)[None, :] < np.array(LENGTHS)[:, None]
VOCABULARY, CLASSES = 7, 4


@pytest.mark.parametrize("name", [*FEATURE_LOSSES, "function", "keras"])
def test_a_feature_loss_is_that_of_the_examples_without_their_padding(name):
    loss = {
        "function": lambda target, features: ops.abs(target - features),
        "keras": keras.losses.MeanAbsoluteError(),
    }.get(name, name)
    target, features = random_array(3, 5, 4), random_array(3, 5, 4, seed=1)
    expected = [
        to_numpy(feature_loss(loss, target[i : i + 1, :n], features[i : i + 1, :n]))[0]
        for i, n in enumerate(LENGTHS)
    ]
    target[~VALID], features[~VALID] = 7.0, np.nan
    found = feature_loss(loss, as_tensor(target), as_tensor(features), mask=VALID)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-5)


def test_position_weights_of_padding_do_not_count():
    target, features = np.zeros((1, 3, 1), "float32"), np.array([[[1.0], [2.0], [9.0]]], "float32")
    found = feature_loss(
        "mse", target, features, as_tensor([[3.0, 1.0, 5.0]]), mask=np.array([[True, True, False]])
    )
    np.testing.assert_allclose(to_numpy(found), [(3 * 1 + 1 * 4) / 4])


def test_a_function_that_averages_positions_itself_is_an_error():
    maps = random_array(3, 5, 4)
    with pytest.raises(ValueError, match=r"Expected a value for each position.*Leave out"):
        feature_loss(lambda t, f: ops.mean(t - f, axis=(1, 2)), maps, maps, mask=VALID)


@pytest.mark.promise(7)
def test_an_adversarial_loss_is_that_of_the_logits_without_padding():
    logits = np.array([[1.0, 2.0, 50.0]], "float32")
    mask = np.array([[True, True, False]])
    loss = AdversarialLoss(generator=lambda fake: -fake, discriminator=lambda r, f: f - 2.0 * r)
    np.testing.assert_allclose(to_numpy(loss.generator_loss(logits, mask)), [-1.5])
    np.testing.assert_allclose(to_numpy(loss.discriminator_loss(logits, -logits, mask)), [-4.5])
    accuracy = loss.discriminator_accuracy(logits - 1.5, logits, mask)
    np.testing.assert_allclose(to_numpy(accuracy), [0.25])


@pytest.mark.parametrize("shape", [(5, 4), (5, 3, 4), (5, 3, 2, 4)], ids=["1d", "2d", "3d"])
def test_the_discriminator_sees_a_map_as_if_it_ended_at_its_padding(shape):
    discriminator = FeatureDiscriminator(noise_stddev=0.0, conditional=False)
    maps = random_array(3, *shape)
    discriminator(maps)
    # Padding must not come back by a bias.
    discriminator.biases.assign(np.ones(discriminator.biases.shape))
    expected = [to_numpy(discriminator(maps[i : i + 1, :n]))[0] for i, n in enumerate(LENGTHS)]
    maps[~VALID] = 30.0
    mask = np.broadcast_to(VALID.reshape(3, 5, *(1,) * (len(shape) - 2)), maps.shape[:-1])
    found = to_numpy(discriminator(maps, mask=ops.convert_to_tensor(np.array(mask))))
    for row, numbers in enumerate(expected):
        np.testing.assert_allclose(found[row, : LENGTHS[row]], numbers, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "values", "seen"),
    [
        (2, [[1.5, 3.0], [5.0, 0.0]], [[True, True], [True, False]]),  # halves
        (1, [[2.0], [5.0]], [[True], [True]]),
        # Up: cell 1 of 8 lies a quarter of the way to the next one.
        (8, [[1, 1.25, 1.75, 2.25, 2.75, 3, 3, 0], [5, 5, 5, 0, 0, 0, 0, 0]], None),
    ],
)
def test_a_resized_map_is_the_mean_of_what_is_no_padding(size, values, seen):
    features = np.array([[1, 2, 3, 99], [5, 99, 99, 99]], "float32")[..., None]
    mask = ops.convert_to_tensor(np.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool))
    found = to_numpy(resize_masked_map(as_tensor(features), (size,), mask))[..., 0]
    np.testing.assert_allclose(found, values, rtol=1e-6)
    seen = np.array(values) != 0 if seen is None else seen
    np.testing.assert_array_equal(to_numpy(resize_mask(mask, (size,))), seen)


class Halve(keras.layers.Layer):
    """Every second step, with its mask."""

    def call(self, inputs):
        return inputs[:, ::2]

    def compute_mask(self, inputs, previous_mask):
        return None if previous_mask is None else previous_mask[:, ::2]


class Attention(keras.Model):
    """A subclassed model whose attention takes the mask from the tensor that is tapped."""

    def __init__(self, width, name):
        super().__init__(name=name)
        self.embed = keras.layers.Embedding(VOCABULARY, width, mask_zero=True, name="features")
        self.attend = keras.layers.MultiHeadAttention(2, 4, name="attend")
        self.pool = keras.layers.GlobalAveragePooling1D(name="pool")
        self.head = keras.layers.Dense(CLASSES, name="logits")

    def call(self, tokens):
        hidden = self.embed(tokens)
        return self.head(self.pool(self.attend(hidden, hidden)))


def tokens(width, name):
    """Embedding, Dense, pooling."""
    inputs = keras.Input((None,), dtype="int32")
    hidden = keras.layers.Embedding(VOCABULARY, width, mask_zero=True)(inputs)
    hidden = keras.layers.Dense(width, activation="relu", name="features")(hidden)
    hidden = keras.layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(hidden), name=name)


def recurrent(width, name):
    """Masking in a nested model, and a recurrent layer on top."""
    inputs = keras.Input((None, 1))
    body = keras.Sequential(
        [
            keras.Input((None, 1)),
            keras.layers.Masking(),
            keras.layers.Dense(width, activation="tanh"),
            keras.layers.LSTM(width, return_sequences=True, name="features"),
        ],
        name="body",
    )
    hidden = keras.layers.GRU(width)(body(inputs))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(hidden), name=name)


def halved(width, name):
    """A map of half the length."""
    inputs = keras.Input((None,), dtype="int32")
    hidden = keras.layers.Embedding(VOCABULARY, width, mask_zero=True)(inputs)
    hidden = Halve(name="features")(hidden)
    hidden = keras.layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(hidden), name=name)


def attention(width, name):
    model = Attention(width, name)
    model(np.ones((1, 4), "int32"))
    return model


KINDS = {
    "tokens": (tokens, tokens, "features"),
    "recurrent": (recurrent, recurrent, "body/features"),
    "attention": (attention, attention, "features"),
    "unlike lengths": (halved, tokens, "features"),
}


def batch(kind, length):
    """Three sequences, the longest of 4, with as much padding behind them as asked for."""
    x = np.zeros((3, length), "int32")
    for row, count in enumerate((4, 2, 3)):
        x[row, :count] = np.random.default_rng(row).integers(1, VOCABULARY, count)
    y = np.array([0, 1, 2], "int32")
    return (x[..., None].astype("float32") / 3 if kind == "recurrent" else x), y


def make_distiller(kind, objective, feature="cosine", **weights):
    make_teacher, make_student, path = KINDS[kind]
    keras.utils.set_random_seed(0)
    teacher, student = make_teacher(6, "teacher"), make_student(4, "student")
    keras.utils.set_random_seed(1)
    pair = FeaturePair(
        path,
        path,
        teacher_to_student=TeacherToStudent(objective),
        discriminator=FeatureDiscriminator(noise_stddev=0.0),
    )
    distiller = KTANDistiller(teacher, student, pair)
    distiller.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        adversarial_loss_weight=0.5,
        feature_loss=feature,
        t2s_optimizer=keras.optimizers.SGD(0.1),
        discriminator_optimizer=keras.optimizers.SGD(0.1),
        run_eagerly=True,  # a few steps: building a graph would take longer
        **weights,
    )
    return distiller


@pytest.mark.parametrize(
    ("kind", "objective"),
    [
        ("tokens", "student_head"),
        ("tokens", "task"),
        ("tokens", "reconstruction"),
        ("recurrent", "student_head"),
        ("attention", "student_head"),
        ("unlike lengths", "student_head"),
        ("unlike lengths", "reconstruction"),
    ],
)
def test_more_padding_changes_no_term_and_no_weight(kind, objective):
    found = []
    for length in (4, 10):
        distiller = make_distiller(kind, objective)
        x, y = batch(kind, length)
        logs = [distiller.train_on_batch(x, y, return_dict=True) for _ in range(2)]
        found.append((logs, all_values(distiller)))
    (first, weights), (second, others) = found
    assert {"feature_loss", "adversarial_loss", "t2s_loss", "discriminator_loss"} <= set(first[0])
    for one, other in zip(first, second, strict=True):
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=2e-4, atol=1e-5, err_msg=name)
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("feature", ["mse", "normalized_mse", "pooled_cosine"])
def test_the_feature_loss_in_a_step_is_the_mean_over_unpadded_sequences(feature):
    distiller = make_distiller("tokens", "task", feature)
    x, y = batch("tokens", 9)
    per_example = []
    for row, count in enumerate((4, 2, 3)):  # each alone, without its padding
        alone = x[row : row + 1, :count]
        _, (teacher,) = FeatureTap(distiller.teacher, ["features"], "teacher")(alone)
        _, (student,) = FeatureTap(distiller.student, ["features"], "student")(alone)
        target = distiller.teacher_to_student_layers[0](teacher)
        per_example.append(to_numpy(feature_loss(feature, target, student))[0])
    logs = distiller.train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(logs["feature_loss"], np.mean(per_example), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tap_finds_the_mask_of_each_kind(kind):
    make, _, path = KINDS[kind]
    x, _ = batch(kind, 6)
    masks = FeatureTap(make(6, "teacher"), [path], "teacher").forward(x).map_masks
    expected = (x[..., 0] if kind == "recurrent" else x) != 0
    if kind == "unlike lengths":
        expected = expected[:, ::2]
    np.testing.assert_array_equal(to_numpy(masks[0]), expected)


@pytest.mark.promise(14)
def test_a_mask_of_another_length_is_an_error():
    class Wrong(Halve):
        def compute_mask(self, inputs, previous_mask):
            return previous_mask

    def wrong(width, name):
        inputs = keras.Input((6,), dtype="int32")
        hidden = keras.layers.Embedding(VOCABULARY, width, mask_zero=True)(inputs)
        hidden = keras.layers.Dense(width)(Wrong(name="features")(hidden)[:, :3])
        return keras.Model(inputs, keras.layers.Dense(CLASSES)(hidden[:, 0]), name=name)

    pair = FeaturePair("features", "features")
    distiller = KTANDistiller(wrong(6, "teacher"), wrong(4, "student"), pair)
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=r"'features' of the student.*Correct `compute_mask`"):
        distiller.train_on_batch(*batch("tokens", 6))


def test_a_cache_keeps_the_teachers_mask(tmp_path):
    x, y = batch("unlike lengths", 8)
    logs = []
    for cached in (False, True):
        distiller = make_distiller("unlike lengths", "task")
        data = (x, y)
        if cached:
            cache = TeacherCache(distiller, tmp_path / "cache", precision="float32")
            cache.fill(x, verbose=0)
            data = (cache.dataset(x, y, batch_size=3, seed=0),)
        history = distiller.fit(*data, batch_size=3, epochs=2, shuffle=False, verbose=0)
        logs.append(history.history)
    for name, values in logs[0].items():
        np.testing.assert_allclose(logs[1][name], values, rtol=1e-4, err_msg=name)
