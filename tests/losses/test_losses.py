"""Every loss against numbers worked out by hand or in NumPy with float64."""

import keras
import numpy as np
import pytest
from helpers import as_tensor, gradients, random_array, to_numpy
from keras import ops

from keras_ktan.losses import (
    ADVERSARIAL_LOSSES,
    feature_loss,
    logits_loss,
    scaled_squared_error,
    softened_kl,
)

# KL((3/4, 1/4) || (1/2, 1/2)) = 3/4 ln 3/2 + 1/4 ln 1/2
KL_OF_THREE_TO_ONE = 0.130812035941


def reference_divergence(teacher, student, temperature, activation):
    """`T^2 KL` per vector of scores, in float64, from the probabilities themselves."""
    teacher = np.asarray(teacher, "float64") / temperature
    student = np.asarray(student, "float64") / temperature
    if activation == "softmax":
        p = np.exp(teacher) / np.exp(teacher).sum(-1, keepdims=True)
        q = np.exp(student) / np.exp(student).sum(-1, keepdims=True)
        divergence = p * np.log(p / q)
    else:
        p, q = 1 / (1 + np.exp(-teacher)), 1 / (1 + np.exp(-student))
        divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return divergence.sum(-1) * temperature**2


def test_softmax_two_classes_by_hand():
    # Divided by T = 2 the teacher says ln 3 against 0, that is 3/4 to 1/4; the student 1/2 each.
    loss = softened_kl([[2 * np.log(3.0), 0.0]], [[5.0, 5.0]], temperature=2.0)
    np.testing.assert_allclose(to_numpy(loss), [4 * KL_OF_THREE_TO_ONE], rtol=1e-6)


def test_sigmoid_two_labels_by_hand():
    # The first label is 3/4 against 1/2, the second 1/4 against 1/2: the same divergence twice.
    loss = softened_kl(
        [[3 * np.log(3.0), -3 * np.log(3.0)]], [[0.0, 0.0]], temperature=3.0, kind="sigmoid"
    )
    np.testing.assert_allclose(to_numpy(loss), [9 * 2 * KL_OF_THREE_TO_ONE], rtol=1e-5)


@pytest.mark.promise(6)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_equals_the_closed_form(activation, temperature):
    teacher, student = 3 * random_array(6, 7, seed=1), 3 * random_array(6, 7, seed=2)
    loss = softened_kl(teacher, student, temperature, activation)
    expected = reference_divergence(teacher, student, temperature, activation)
    np.testing.assert_allclose(to_numpy(loss), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_positions_are_averaged_and_classes_are_summed(activation):
    teacher, student = random_array(3, 4, 2, 5, seed=1), random_array(3, 4, 2, 5, seed=2)
    loss = softened_kl(teacher, student, 2.0, activation)
    expected = reference_divergence(teacher, student, 2.0, activation).mean(axis=(1, 2))
    assert loss.shape == (3,)
    np.testing.assert_allclose(to_numpy(loss), expected, rtol=1e-4)


@pytest.mark.promise(6)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_factor_is_the_temperature_squared(activation):
    teacher, student = random_array(4, 5, seed=1), random_array(4, 5, seed=2)
    at_one = to_numpy(softened_kl(teacher, student, 1.0, activation))
    at_seven = to_numpy(softened_kl(7 * teacher, 7 * student, 7.0, activation))
    np.testing.assert_allclose(at_seven, 49 * at_one, rtol=1e-4)


def test_the_students_gradient_is_t_times_the_difference_of_the_probabilities():
    teacher, student = random_array(1, 4, seed=1), random_array(1, 4, seed=2)
    (gradient,) = gradients(lambda scores: ops.sum(softened_kl(teacher, scores, 5.0)), student)

    def softmax(scores):
        return np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)

    np.testing.assert_allclose(
        gradient, 5 * (softmax(student / 5) - softmax(teacher / 5)), rtol=1e-4
    )


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equal_scores_have_no_divergence_and_no_gradient(activation):
    scores = 4 * random_array(3, 6)
    loss = softened_kl(scores, scores, 3.0, activation)
    np.testing.assert_allclose(to_numpy(loss), 0.0, atol=1e-6)
    (gradient,) = gradients(
        lambda student: ops.sum(softened_kl(scores, student, 3.0, activation)), scores
    )
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_a_constant_added_to_all_scores_of_a_softmax_changes_nothing():
    teacher, student = random_array(4, 5, seed=1), random_array(4, 5, seed=2)
    np.testing.assert_allclose(
        to_numpy(softened_kl(teacher + 8, student - 3, 2.0)),
        to_numpy(softened_kl(teacher, student, 2.0)),
        rtol=1e-4,
    )


@pytest.mark.promise(6)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_half_precision_scores_are_judged_in_full_precision(activation):
    teacher = (3 * random_array(6, 7, seed=1)).astype("float16")
    student = (3 * random_array(6, 7, seed=2)).astype("float16")
    loss = softened_kl(teacher, student, 4.0, activation)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    expected = reference_divergence(teacher, student, 4.0, activation)
    # float16 itself would be wrong from the third digit on.
    np.testing.assert_allclose(to_numpy(loss), expected, rtol=2e-5)


@pytest.mark.promise(6)
def test_a_loss_beyond_the_largest_half_precision_number_is_right():
    # Divided by T = 100: (6, -6) against (-6, 6), a divergence of about 12; times T^2 = 120,000.
    teacher = np.array([[600.0, -600.0]], "float16")
    loss = softened_kl(teacher, -teacher, 100.0)
    p = 1 / (1 + np.exp(-12.0))
    np.testing.assert_allclose(to_numpy(loss), [1e4 * 12 * (2 * p - 1)], rtol=1e-5)


# Feature matching. Lengths 5 and 5, inner product 24.
THREE_FOUR, FOUR_THREE = [3.0, 4.0], [4.0, 3.0]


@pytest.mark.promise(6)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cosine", 1 - 24 / 25),
        ("mse", 1.0),  # both differences are 1
        ("normalized_mse", 2 / 25),  # both have mean square 25/2
        ("pooled_cosine", 1 - 24 / 25),
    ],
)
def test_two_vectors_by_hand(name, expected):
    loss = feature_loss(name, as_tensor([THREE_FOUR]), as_tensor([FOUR_THREE]))
    np.testing.assert_allclose(to_numpy(loss), [expected], rtol=1e-5)


@pytest.mark.promise(6)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Two positions: the first as above, the second against its own opposite.
        ("cosine", (1 / 25 + 2) / 2),
        ("mse", (1 + 1 + 4 * 4 + 0) / 4),
        # Target: mean square (9 + 16 + 4 + 0) / 4; features the same.
        ("normalized_mse", (1 + 1 + 16 + 0) / 4 / (29 / 4)),
        # Sums (5, 4) and (2, 3): inner product 22, lengths sqrt(41) and sqrt(13).
        ("pooled_cosine", 1 - 22 / np.sqrt(41 * 13)),
    ],
)
def test_two_positions_by_hand(name, expected):
    target = as_tensor([[THREE_FOUR, [2.0, 0.0]]])
    features = as_tensor([[FOUR_THREE, [-2.0, 0.0]]])
    loss = feature_loss(name, target, features)
    np.testing.assert_allclose(to_numpy(loss), [expected], rtol=1e-5)


def reference_matching(name, target, features):
    """The four distances for each example of maps of rank 4, in float64."""
    target, features = np.asarray(target, "float64"), np.asarray(features, "float64")

    def cosine(one, other):
        inner = (one * other).sum(-1)
        return 1 - inner / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)

    values = []
    for one, other in zip(target, features, strict=True):
        if name == "cosine":
            value = cosine(one, other).mean()
        elif name == "mse":
            value = ((one - other) ** 2).mean()
        elif name == "normalized_mse":
            one, other = one / np.sqrt((one**2).mean()), other / np.sqrt((other**2).mean())
            value = ((one - other) ** 2).mean()
        else:
            value = cosine(one.mean((0, 1)), other.mean((0, 1)))
        values.append(value)
    return values


NAMES = ["cosine", "mse", "normalized_mse", "pooled_cosine"]


@pytest.mark.parametrize("name", NAMES)
def test_images_give_one_value_per_example(name):
    target, features = random_array(5, 4, 3, 6, seed=1), random_array(5, 4, 3, 6, seed=2)
    loss = to_numpy(feature_loss(name, target, features))
    assert loss.shape == (5,)
    np.testing.assert_allclose(loss, reference_matching(name, target, features), rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 4, 6), (3, 6)])
def test_an_equal_map_is_at_distance_zero_and_any_other_is_not(name, shape):
    target = random_array(*shape, seed=1)
    same = to_numpy(feature_loss(name, target, target))
    np.testing.assert_allclose(same, 0.0, atol=1e-6)
    other = to_numpy(feature_loss(name, target, random_array(*shape, seed=2)))
    assert np.all(other > 0.01)


def test_cosine_does_not_see_the_size_of_a_position():
    target, features = random_array(2, 3, 3, 4, seed=1), random_array(2, 3, 3, 4, seed=2)
    sizes = np.exp(random_array(2, 3, 3, 1, seed=3))
    np.testing.assert_allclose(
        to_numpy(feature_loss("cosine", target, features * sizes)),
        to_numpy(feature_loss("cosine", target, features)),
        rtol=1e-4,
    )


def test_normalized_mse_sees_the_size_of_a_position_but_not_of_an_example():
    target, features = random_array(2, 3, 3, 4, seed=1), random_array(2, 3, 3, 4, seed=2)
    plain = to_numpy(feature_loss("normalized_mse", target, features))
    per_example = np.array([0.1, 30.0], "float32").reshape(2, 1, 1, 1)
    scaled = feature_loss("normalized_mse", target, features * per_example)
    np.testing.assert_allclose(to_numpy(scaled), plain, rtol=1e-4)
    per_position = np.exp(random_array(2, 3, 3, 1, seed=3))
    uneven = to_numpy(feature_loss("normalized_mse", target, features * per_position))
    assert np.all(np.abs(uneven - plain) > 0.01)


def test_mse_sees_the_size():
    target = random_array(2, 3, 3, 4)
    loss = to_numpy(feature_loss("mse", target, 3 * target))
    np.testing.assert_allclose(loss, (4 * target**2).mean((1, 2, 3)), rtol=1e-5)


def test_pooled_cosine_does_not_see_where_things_are_and_cosine_does():
    target = random_array(2, 4, 4, 5)
    mixed = target.reshape(2, 16, 5)[:, np.random.default_rng(3).permutation(16)]
    mixed = mixed.reshape(target.shape)
    blind = to_numpy(feature_loss("pooled_cosine", target, mixed))
    np.testing.assert_allclose(blind, 0.0, atol=1e-5)
    assert np.all(to_numpy(feature_loss("cosine", target, mixed)) > 0.3)


@pytest.mark.parametrize("name", ["cosine", "pooled_cosine"])
def test_a_dead_position_is_at_distance_one(name):
    target, features = as_tensor([[3.0, 4.0]]), as_tensor([[0.0, 0.0]])
    np.testing.assert_allclose(to_numpy(feature_loss(name, target, features)), [1.0])


@pytest.mark.parametrize("name", NAMES)
def test_a_step_against_the_gradient_comes_nearer(name):
    target, features = random_array(2, 3, 3, 4, seed=1), random_array(2, 3, 3, 4, seed=2)

    def distance(values):
        return ops.sum(feature_loss(name, target, values))

    (gradient,) = gradients(distance, features)
    nearer = features - 1e-2 * gradient / np.abs(gradient).max()
    assert float(distance(as_tensor(nearer))) < float(distance(as_tensor(features))) - 1e-4


@pytest.mark.promise(6)
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_maps_are_compared_in_full_precision(name):
    # Squares of 300 and their sums are beyond float16.
    target = (300 * random_array(2, 4, 4, 8, seed=1)).astype("float16")
    features = (300 * random_array(2, 4, 4, 8, seed=2)).astype("float16")
    loss = feature_loss(name, target, features)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    np.testing.assert_allclose(
        to_numpy(loss), reference_matching(name, target, features), rtol=1e-4
    )


# Adversarial losses.
LN3 = np.log(3.0)


@pytest.mark.promise(6)
@pytest.mark.parametrize(
    ("name", "real", "fake", "discriminator_loss", "generator_loss"),
    [
        # Undecided logits: ln 2 on each side.
        ("bce", 0.0, 0.0, np.log(2), np.log(2)),
        # sigmoid(ln 3) = 3/4: -ln 3/4 for the real one, -ln 1/4 for the fake one.
        ("bce", LN3, LN3, (np.log(4 / 3) + np.log(4)) / 2, np.log(4 / 3)),
        ("bce", LN3, -LN3, np.log(4 / 3), np.log(4)),
        ("least_squares", 0.5, 0.25, (0.5**2 + 0.25**2) / 2, 0.75**2),
        ("least_squares", 2.0, -1.0, (1 + 1) / 2, 4.0),
        ("hinge", 0.25, -0.5, (0.75 + 0.5) / 2, 0.5),
        ("hinge", 3.0, -2.0, 0.0, 2.0),  # beyond the margin on both sides
        ("hinge", -1.0, 2.0, (2 + 3) / 2, -2.0),
    ],
)
def test_logits_by_hand(name, real, fake, discriminator_loss, generator_loss):
    loss = ADVERSARIAL_LOSSES[name]
    real, fake = as_tensor([real]), as_tensor([fake])
    np.testing.assert_allclose(
        to_numpy(loss.discriminator_loss(real, fake)), [discriminator_loss], rtol=1e-5
    )
    np.testing.assert_allclose(to_numpy(loss.generator_loss(fake)), [generator_loss], rtol=1e-5)


ADVERSARIAL = ["bce", "least_squares", "hinge"]


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_logits_of_one_example_are_averaged(name):
    loss = ADVERSARIAL_LOSSES[name]
    real, fake = random_array(3, 4, 2, seed=1), random_array(3, 4, 2, seed=2)
    # Each logit as an example of its own.
    each = to_numpy(loss.discriminator_loss(real.reshape(24, 1), fake.reshape(24, 1)))
    averaged = to_numpy(loss.discriminator_loss(real, fake))
    np.testing.assert_allclose(averaged, each.reshape(3, 8).mean(1), rtol=1e-5)
    each = to_numpy(loss.generator_loss(fake.reshape(24, 1)))
    averaged = to_numpy(loss.generator_loss(fake))
    np.testing.assert_allclose(averaged, each.reshape(3, 8).mean(1), rtol=1e-5)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_student_and_discriminator_pull_a_fake_verdict_in_opposite_directions(name):
    loss = ADVERSARIAL_LOSSES[name]
    # Inside the range where each of the three has a slope: (0, 1).
    real, fake = as_tensor([[0.2, 0.6]]), np.array([[0.1, 0.9]], "float32")
    (students,) = gradients(lambda logits: ops.sum(loss.generator_loss(logits)), fake)
    (discriminators,) = gradients(
        lambda logits: ops.sum(loss.discriminator_loss(real, logits)), fake
    )
    assert np.all(students < 0), "raising the fake logit must lower what the student minimises"
    assert np.all(discriminators > 0), "and raise what the discriminator minimises"


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_discriminator_wants_real_logits_high(name):
    loss = ADVERSARIAL_LOSSES[name]
    fake = as_tensor([[0.3, 0.3]])
    (gradient,) = gradients(
        lambda logits: ops.sum(loss.discriminator_loss(logits, fake)), np.array([[0.1, 0.9]])
    )
    assert np.all(gradient < 0)


def test_bce_still_pulls_at_a_student_that_is_seen_through():
    # Non-saturating: at a logit of -20 the slope is 1, where log(1 - sigmoid) has 2e-9.
    (gradient,) = gradients(
        lambda fake: ops.sum(ADVERSARIAL_LOSSES["bce"].generator_loss(fake)), [[-20.0]]
    )
    np.testing.assert_allclose(gradient, [[-1.0]], rtol=1e-5)


@pytest.mark.parametrize(("name", "boundary"), [("bce", 0), ("least_squares", 0.5), ("hinge", 0)])
def test_accuracy_counts_a_logit_on_the_boundary_as_fake(name, boundary):
    def accuracy(real, fake):
        return to_numpy(
            ADVERSARIAL_LOSSES[name].discriminator_accuracy(as_tensor(real), as_tensor(fake))
        )

    above, below = boundary + 1e-3, boundary - 1e-3
    np.testing.assert_array_equal(accuracy([above], [below]), [1.0])
    np.testing.assert_array_equal(accuracy([below], [above]), [0.0])
    np.testing.assert_array_equal(accuracy([boundary], [boundary]), [0.5])
    np.testing.assert_array_equal(accuracy([above], [boundary]), [1.0])
    # Three of four logits on the first example, one of four on the second.
    np.testing.assert_array_equal(
        accuracy([[above, above], [below, below]], [[below, above], [below, above]]), [0.75, 0.25]
    )


@pytest.mark.promise(6)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_half_precision_logits_are_compared_in_full_precision(name):
    logits = random_array(4, 3, 3).astype("float16")
    loss = ADVERSARIAL_LOSSES[name]
    for value, full in (
        (
            loss.discriminator_loss(logits, -logits),
            loss.discriminator_loss(*map(as_tensor, (logits, -logits))),
        ),
        (loss.generator_loss(logits), loss.generator_loss(as_tensor(logits))),
        (
            loss.discriminator_accuracy(logits, logits),
            loss.discriminator_accuracy(*map(as_tensor, (logits, logits))),
        ),
    ):
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        np.testing.assert_array_equal(to_numpy(value), to_numpy(full))


def test_classes_that_both_models_mask_by_minus_infinity_do_not_count():
    teacher, student = random_array(3, 6, seed=1), random_array(3, 6, seed=2)
    masked = np.array([0, 1, 0, 0, 1, 0], bool)
    kept = [array[:, ~masked] for array in (teacher, student)]
    holed = [np.where(masked, -np.inf, array).astype("float32") for array in (teacher, student)]
    for name in ("kl", "standardized_kl"):
        found = to_numpy(logits_loss(name, as_tensor(holed[0]), as_tensor(holed[1]), 4.0))
        expected = to_numpy(logits_loss(name, as_tensor(kept[0]), as_tensor(kept[1]), 4.0))
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_a_teacher_that_masks_classes_teaches_their_absence(kind):
    teacher, student = random_array(3, 4, seed=1), random_array(3, 4, seed=2)
    teacher[:, 2] = -np.inf
    t, s = teacher.astype("float64") / 4.0, student.astype("float64") / 4.0
    if kind == "softmax":
        p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (t, s))
        shares = np.where(p > 0, p * np.log(np.maximum(p, 1e-300) / q), 0.0)
    else:
        p, q = (1 / (1 + np.exp(-z)) for z in (t, s))
        on = np.where(p > 0, p * np.log(np.maximum(p, 1e-300) / q), 0.0)
        shares = on + (1 - p) * np.log((1 - p) / (1 - q))

    def mean(logits):
        return ops.mean(softened_kl(as_tensor(teacher), logits, 4.0, kind))

    np.testing.assert_allclose(
        to_numpy(mean(as_tensor(student))), 16 * shares.sum(-1).mean(), rtol=1e-5
    )
    (gradient,) = gradients(mean, student)
    # d KL / d z is T·(q - p), for either kind.
    np.testing.assert_allclose(gradient, 4.0 * (q - p) / 3, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "axis"), [((6,), None), ((6, 3), 3), ((4, 5, 3), 3), ((2, 3, 4, 2), 2)]
)
def test_squared_differences_in_units_of_the_variance(shape, axis):
    teacher, student = random_array(*shape, seed=1), random_array(*shape, seed=2)
    variance = np.float32(2.5) if axis is None else np.array([0.5, 0.0, 40.0][:axis], "float32")
    found = to_numpy(scaled_squared_error(as_tensor(teacher), as_tensor(student), variance))
    scale = np.where(variance > 0, variance, 1.0)  # what does not vary is not scaled
    expected = ((teacher - student) ** 2 / scale).reshape(shape[0], -1).mean(axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
