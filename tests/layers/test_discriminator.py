"""Logits are local, size-blind, reproducible, and conditional where they are meant to be."""

import keras
import numpy as np
import pytest
from helpers import all_values, assert_three_parts, gradients, random_array, to_numpy
from keras import ops

from keras_ktan import FeatureDiscriminator


def logits_of(discriminator, *args, **kwargs):
    return to_numpy(discriminator(*args, **kwargs))


@pytest.mark.parametrize(
    ("arguments", "reach"),
    [
        ({}, 2),  # two hidden windows of 3: one position further each
        ({"depth": 1}, 1),
        ({"depth": 1, "kernel_size": 5}, 2),
        ({"depth": 3, "kernel_size": 1}, 0),
    ],
)
def test_a_verdict_sees_its_receptive_field_and_no_more(arguments, reach):
    discriminator = FeatureDiscriminator(conditional=False, **arguments)
    features = random_array(1, 9, 9, 3)
    other = features.copy()
    other[0, 4, 4] *= -1.0  # a change that leaves the map's size as it was
    changed = logits_of(discriminator, features) != logits_of(discriminator, other)
    expected = np.zeros((9, 9), bool)
    expected[4 - reach : 5 + reach, 4 - reach : 5 + reach] = True
    np.testing.assert_array_equal(changed[0], expected)


def test_a_sequence_has_logits_along_its_length():
    discriminator = FeatureDiscriminator(conditional=False)
    features = random_array(1, 9, 3)
    other = features.copy()
    other[0, 4] *= -1.0
    changed = logits_of(discriminator, features) != logits_of(discriminator, other)
    np.testing.assert_array_equal(np.flatnonzero(changed[0]), [2, 3, 4, 5, 6])


def test_a_vector_has_one_logit():
    discriminator = FeatureDiscriminator(conditional=False)
    assert logits_of(discriminator, random_array(4, 6)).shape == (4,)


def test_examples_do_not_see_each_other():
    discriminator = FeatureDiscriminator(conditional=False)
    features = random_array(3, 5, 5, 4)
    alone = np.concatenate([logits_of(discriminator, features[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(logits_of(discriminator, features), alone, atol=1e-6)


def test_a_part_of_a_larger_map_is_judged_as_on_its_own():
    discriminator = FeatureDiscriminator(conditional=False)
    small = random_array(1, 8, 8, 3)
    large = np.tile(small, (1, 2, 2, 1))  # the same size per position
    logits = logits_of(discriminator, small)
    assert logits_of(discriminator, large).shape == (1, 16, 16)
    # Away from the edges, where the small map is padded.
    np.testing.assert_allclose(
        logits_of(discriminator, large)[:, 2:6, 2:6], logits[:, 2:6, 2:6], atol=1e-5
    )


@pytest.mark.parametrize("shape", [(2, 5, 5, 4), (2, 5, 4), (2, 4)])
def test_the_size_of_an_examples_map_says_nothing(shape):
    discriminator = FeatureDiscriminator(conditional=False)
    features = random_array(*shape)
    sizes = np.array([0.2, 50.0], "float32").reshape(2, *[1] * (len(shape) - 1))
    np.testing.assert_allclose(
        logits_of(discriminator, features * sizes, step=3),
        logits_of(discriminator, features, step=3),
        atol=1e-5,
    )


def test_noise_is_a_function_of_step_and_seed():
    features = random_array(2, 6, 6, 4)
    discriminator = FeatureDiscriminator(conditional=False)
    plain = logits_of(discriminator, features)
    drawn = {step: logits_of(discriminator, features, step=step) for step in (0, 1, 2)}
    logits = [plain, *drawn.values()]
    for index, one in enumerate(logits):
        for other in logits[index + 1 :]:
            assert np.abs(one - other).max() > 1e-3
    for step, expected in drawn.items():
        again = logits_of(discriminator, features, step=ops.convert_to_tensor(step))
        np.testing.assert_array_equal(again, expected)
    reseeded = FeatureDiscriminator(conditional=False, seed=1)
    reseeded.build(features.shape)
    reseeded.set_weights(discriminator.get_weights())
    np.testing.assert_array_equal(logits_of(reseeded, features), plain)
    assert np.abs(logits_of(reseeded, features, step=0) - drawn[0]).max() > 1e-3


def test_noise_draws_from_no_random_state():
    discriminator = FeatureDiscriminator(conditional=False)
    features = random_array(2, 6, 6, 4)
    keras.utils.set_random_seed(1)
    first = logits_of(discriminator, features, step=5)
    before = all_values(discriminator)
    keras.utils.set_random_seed(2)
    np.testing.assert_array_equal(logits_of(discriminator, features, step=5), first)
    for old, new in zip(before, all_values(discriminator), strict=True):
        np.testing.assert_array_equal(old, new)


def test_maps_come_to_root_mean_square_one_and_the_noise_has_the_asked_size():
    discriminator = FeatureDiscriminator(depth=1, noise_stddev=0.5, conditional=False)
    features = np.abs(random_array(1, 40, 40, 8)) * 7
    discriminator.build(features.shape)
    seen = {}
    hidden = discriminator.hidden[0]
    original = hidden.call

    def call(inputs):
        seen["inputs"] = to_numpy(inputs)
        return original(inputs)

    hidden.call = call
    discriminator(features)
    clean = seen["inputs"]
    np.testing.assert_allclose(np.sqrt(np.mean(clean**2)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(clean, features / np.sqrt(np.mean(features**2)), rtol=1e-4)
    discriminator(features, step=1)
    noise = seen["inputs"] - clean
    np.testing.assert_allclose(noise.std(), 0.5, rtol=0.03)
    assert abs(noise.mean()) < 0.02


def test_noise_can_be_switched_off():
    discriminator = FeatureDiscriminator(noise_stddev=0.0, conditional=False)
    features = random_array(2, 5, 5, 3)
    np.testing.assert_array_equal(
        logits_of(discriminator, features, step=9), logits_of(discriminator, features)
    )


def leaky(values):
    return np.where(values > 0, values, 0.2 * values)


def test_logits_of_vectors_by_numpy():
    discriminator = FeatureDiscriminator(filters=5, depth=2, conditional=True)
    features, condition = random_array(3, 4), np.eye(3, 6, dtype="float32")
    discriminator.build(features.shape, condition.shape)

    def normalised(layer):
        kernel = to_numpy(layer.kernel)
        _, values, directions = np.linalg.svd(kernel)
        if layer.power_vector is not None:  # where the power iteration would end
            layer.power_vector.assign(directions[0][:, None])
        return kernel / values[0]

    hidden = features / np.sqrt((features**2).mean(1, keepdims=True))
    biases = random_array(2, 5, seed=4)
    discriminator.biases.assign(biases)
    for layer, bias in zip(discriminator.hidden, biases, strict=True):
        hidden = leaky(hidden @ normalised(layer) + bias)
    discriminator.logits.bias.assign([0.7])
    plain = hidden @ normalised(discriminator.logits)[:, 0] + 0.7
    np.testing.assert_allclose(logits_of(discriminator, features), plain, atol=1e-4)
    fits = (hidden * (condition @ normalised(discriminator.projection))).sum(1)
    np.testing.assert_allclose(
        logits_of(discriminator, features, condition), plain + fits, atol=1e-4
    )


def test_a_conditional_verdict_depends_on_the_examples_own_condition():
    discriminator = FeatureDiscriminator()
    features = random_array(2, 5, 5, 3)
    cat, dog = np.eye(4, dtype="float32")[:2]
    both_cats = logits_of(discriminator, features, np.stack([cat, cat]))
    cat_and_dog = logits_of(discriminator, features, np.stack([cat, dog]))
    np.testing.assert_allclose(both_cats[0], cat_and_dog[0], atol=1e-6)
    assert np.all(np.abs(both_cats[1] - cat_and_dog[1]) > 1e-6)


def test_an_unconditional_discriminator_does_not_weigh_a_condition():
    discriminator = FeatureDiscriminator(conditional=False)
    features = random_array(2, 5, 5, 3)
    np.testing.assert_array_equal(
        logits_of(discriminator, features, np.eye(2, dtype="float32")),
        logits_of(discriminator, features),
    )


def test_without_a_condition_there_is_no_projection():
    discriminator = FeatureDiscriminator()
    discriminator.build((None, 5, 5, 3))
    assert discriminator.projection.kernel is None
    # Two hidden layers' biases and kernels, a logit's kernel and bias.
    assert [tuple(v.shape) for v in discriminator.trainable_variables] == [
        (2, 16),
        (3, 3, 3, 16),
        (3, 3, 16, 16),
        (1, 1, 16, 1),
        (1,),
    ]
    discriminator.advance_power_iterations()  # not troubled by the missing projection


def test_advancing_moves_every_power_vector_and_nothing_else():
    discriminator = FeatureDiscriminator()
    discriminator.build((None, 5, 5, 3), (None, 4))
    before = {id(variable): to_numpy(variable).copy() for variable in discriminator.variables}
    discriminator.advance_power_iterations()
    moved = [v for v in discriminator.variables if not np.array_equal(before[id(v)], to_numpy(v))]
    layers = (*discriminator.hidden, discriminator.projection)
    assert discriminator.logits.power_vector is None  # one filter has one direction only
    vectors = {id(layer.power_vector) for layer in layers}
    assert vectors <= {id(variable) for variable in moved}
    assert all(variable.name == "power_vector" for variable in moved)


def test_a_judgement_in_training_mode_changes_no_variable():
    discriminator = FeatureDiscriminator()
    features, condition = random_array(2, 5, 5, 3), np.eye(2, 4, dtype="float32")
    discriminator(features, condition)
    before = all_values(discriminator)
    discriminator(features, condition, step=3, training=True)
    for old, new in zip(before, all_values(discriminator), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_students_gradient_passes_through_and_not_along_the_map():
    discriminator = FeatureDiscriminator(conditional=False)
    features = random_array(1, 5, 5, 3)
    (gradient,) = gradients(lambda values: ops.sum(discriminator(values)), features)
    assert np.linalg.norm(gradient) > 0.1
    # Making the map larger or smaller changes no logit, so the gradient has no such part.
    inner = np.sum(gradient * features)
    assert abs(inner) < 1e-4 * np.linalg.norm(gradient) * np.linalg.norm(features)


def test_config_and_weights_round_trip():
    discriminator = FeatureDiscriminator(
        filters=6, depth=3, kernel_size=1, noise_stddev=0.1, conditional=True, seed=11, name="d"
    )
    features, condition = random_array(2, 4, 4, 3), np.eye(2, 5, dtype="float32")
    expected = logits_of(discriminator, features, condition, step=2)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(discriminator))
    assert copy.get_config() == discriminator.get_config()
    assert copy.get_config()["seed"] == 11 and copy.get_config()["noise_stddev"] == 0.1
    if not copy.built:
        copy.build(features.shape, condition.shape)
    copy.set_weights(discriminator.get_weights())
    np.testing.assert_array_equal(logits_of(copy, features, condition, step=2), expected)


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_float16", 0.01), ("mixed_bfloat16", 0.1)]
)
def test_half_precision_sizes_maps_in_full_precision(policy, tolerance):
    discriminator = FeatureDiscriminator(conditional=False, dtype=policy)
    # Squares of 1000 are beyond float16.
    features = 1000 * random_array(2, 5, 5, 3)
    half = logits_of(discriminator, ops.cast(features, policy.removeprefix("mixed_")))
    full = FeatureDiscriminator(conditional=False)
    full.build(features.shape)
    full.set_weights(discriminator.get_weights())
    np.testing.assert_allclose(half.astype("float32"), logits_of(full, features), atol=tolerance)


@pytest.mark.parametrize(
    ("arguments", "came"),
    [
        ({"filters": 0}, "filters=0"),
        ({"filters": 2.5}, "filters=2.5"),
        ({"depth": 0}, "depth=0"),
        ({"depth": "two"}, "depth='two'"),
        ({"kernel_size": -3}, "kernel_size=-3"),
        ({"kernel_size": (3, 3)}, "kernel_size=(3, 3)"),
        ({"filters": True}, "filters=True"),
    ],
)
def test_sizes_are_whole_numbers_of_one_or_more(arguments, came):
    with pytest.raises(ValueError) as error:
        FeatureDiscriminator(**arguments)
    assert_three_parts(error.value, came, "Expected a whole number of 1 or more", "Try")


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf"), "0.3", None])
def test_noise_is_a_number_of_zero_or_more(noise):
    with pytest.raises(ValueError) as error:
        FeatureDiscriminator(noise_stddev=noise)
    assert_three_parts(error.value, f"noise_stddev={noise!r}", "Expected", "Use 0 to switch")


@pytest.mark.parametrize("conditional", ["yes", None, 2])
def test_conditional_is_true_false_or_auto(conditional):
    with pytest.raises(ValueError) as error:
        FeatureDiscriminator(conditional=conditional)
    assert_three_parts(error.value, f"conditional={conditional!r}", "Expected True", "Leave it out")


@pytest.mark.parametrize("seed", [-1, 1.5, "one"])
def test_a_seed_is_a_whole_number_of_zero_or_more(seed):
    with pytest.raises(ValueError) as error:
        FeatureDiscriminator(seed=seed)
    assert_three_parts(error.value, f"seed={seed!r}", "Expected", "")
