"""Where the student must be like its target: weights of positions in the feature loss."""

import functools

import keras
import numpy as np
import pytest
from helpers import as_tensor, assert_three_parts, random_array, to_numpy
from keras import ops
from models import assert_same, image_data, image_model, loss_from_logits, snapshot

from keras_ktan import FeaturePair, KTANDistiller, TeacherCache, TeacherToStudent
from keras_ktan.losses import feature_loss

SCORED = "scores"


@keras.saving.register_keras_serializable(package="test_position_weights")
def confidence(outputs):
    """The best class's probability at each position of a map of scores."""
    return ops.max(ops.sigmoid(outputs[SCORED]), axis=-1)


@keras.saving.register_keras_serializable(package="test_position_weights")
class Confidence:
    """The same, raised by a number that is saved with it."""

    def __init__(self, least):
        self.least = least

    def __call__(self, outputs):
        return self.least + confidence(outputs)

    def get_config(self):
        return {"least": self.least}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def dense_model(filters, seed, strides=2, size=8):
    """Scores at each position of the map `features`, and nothing that is a class logit."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((size, size, 1), name="image")
    hidden = keras.layers.Conv2D(
        filters, 3, strides=strides, padding="same", activation="relu", name="features"
    )(inputs)
    outputs = {
        SCORED: keras.layers.Conv2D(3, 1, name=SCORED)(hidden),
        "size": keras.layers.Conv2D(1, 1, name="size")(hidden),
    }
    return keras.Model(inputs, outputs, name=f"dense_{filters}")


def make_distiller(
    position_weights=confidence, objective="reconstruction", strides=2, size=8, **compiled
):
    pair = FeaturePair(
        "features",
        "features",
        teacher_to_student=TeacherToStudent(objective=objective),
        position_weights=position_weights,
    )
    teacher, student = (dense_model(n, seed, strides, size) for n, seed in ((8, 1), (4, 2)))
    distiller = KTANDistiller(teacher, student, pair, output_pairs=[])
    distiller.compile(
        **{
            "optimizer": keras.optimizers.SGD(0.1),
            "loss": {SCORED: "mse", "size": "mse"},
            "adversarial_loss_weight": 0.0,
            "run_eagerly": True,  # a few steps: building a graph would take longer
            **compiled,
        }
    )
    return distiller


def batch(count=6, size=4):
    images, _ = image_data(count)
    return images, {
        SCORED: random_array(count, size, size, 3, seed=3),
        "size": random_array(count, size, size, 1, seed=4),
    }


@pytest.mark.promise(6)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Two positions, (3, 4) against (4, 3) counts 1 and (2, 0) against (-2, 0) counts 3.
        ("cosine", (1 / 25 + 3 * 2) / 4),
        ("mse", ((1 + 1) / 2 + 3 * (16 + 0) / 2) / 4),
        # Both maps have the mean square 29 / 4.
        ("normalized_mse", ((1 + 1) / 2 + 3 * (16 + 0) / 2) / 4 / (29 / 4)),
    ],
)
@pytest.mark.parametrize("size", [1.0, 1e-20], ids=["ordinary", "tiny"])
def test_two_positions_by_hand(name, expected, size):
    target = as_tensor([[[3.0, 4.0], [2.0, 0.0]]])
    features = as_tensor([[[4.0, 3.0], [-2.0, 0.0]]])
    weights = as_tensor([[1.0 * size, 3.0 * size]])
    loss = feature_loss(name, target, features, weights)
    np.testing.assert_allclose(to_numpy(loss), [expected], rtol=1e-5)


def test_an_example_without_any_weight_has_no_feature_loss():
    target, features = random_array(2, 3, 3, 4, seed=1), random_array(2, 3, 3, 4, seed=2)
    weights = np.ones((2, 3, 3), "float32")
    weights[1] = 0.0
    loss = to_numpy(feature_loss("cosine", target, features, weights))
    expected = to_numpy(feature_loss("cosine", target, features))
    np.testing.assert_allclose(loss, [expected[0], 0.0], rtol=1e-5)


def test_the_teachers_outputs_say_what_a_position_counts():
    distiller = make_distiller(feature_loss="mse", run_eagerly=False)
    images, labels = batch()
    heard = distiller.teacher(images)[SCORED]
    weights = 1.0 / (1.0 + np.exp(-to_numpy(heard).astype("float64").max(axis=-1)))
    tap = keras.Model(distiller.student.input, distiller.student.get_layer("features").output)
    features = to_numpy(tap(images))
    teacher_tap = keras.Model(
        distiller.teacher.input, distiller.teacher.get_layer("features").output
    )
    (t2s,) = distiller.teacher_to_student_layers
    target = to_numpy(t2s(teacher_tap(images), size=(4, 4)))
    distances = ((target - features).astype("float64") ** 2).mean(axis=-1)
    per_example = (weights * distances).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))
    logs = distiller.train_on_batch(images, labels, return_dict=True)
    np.testing.assert_allclose(logs["feature_loss"], per_example.mean(), rtol=1e-4)
    # Not what it is without the weights.
    assert abs(per_example.mean() / distances.mean() - 1.0) > 1e-3


def test_a_t2s_that_the_feature_loss_moves_weighs_alike():
    distiller = make_distiller(objective=None)
    logs = distiller.train_on_batch(*batch(), return_dict=True)
    np.testing.assert_allclose(logs["t2s_loss"], logs["feature_loss"], rtol=1e-5)
    plain = make_distiller(None, objective=None).train_on_batch(*batch(), return_dict=True)
    assert abs(plain["t2s_loss"] / logs["t2s_loss"] - 1.0) > 1e-4


@pytest.mark.parametrize("weigh", [confidence, Confidence(0.25)], ids=["function", "object"])
def test_save_and_load_give_the_same_next_step(tmp_path, weigh):
    distiller = make_distiller(weigh)
    distiller.train_on_batch(*batch())
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    found = loaded.feature_pairs[0].position_weights
    assert found is confidence or found.least == 0.25
    expected = distiller.train_on_batch(*batch(), return_dict=True)
    logs = loaded.train_on_batch(*batch(), return_dict=True)
    assert logs == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}


@pytest.mark.parametrize(
    "weigh",
    [
        lambda outputs: confidence(outputs),
        functools.partial(confidence),
        Confidence(0.5).__call__,
    ],
    ids=["lambda", "partial", "method"],
)
def test_a_function_that_loading_cannot_find_is_refused_when_it_is_saved(tmp_path, weigh):
    distiller = make_distiller(weigh)
    with pytest.raises(ValueError) as error:
        distiller.save(tmp_path / "distiller.keras")
    assert_three_parts(
        error.value, "position_weights=", "loading can find", "register_keras_serializable"
    )


# TensorFlow's graph optimizer mistakes the tensor in max(sigmoid(tensor)) for another one of the
# batch: the image, which has the map's size where nothing is strided.
@pytest.mark.parametrize("strides", [1, 2])
def test_a_cache_brings_the_teachers_outputs_along(tmp_path, strides):
    networks = []
    for name in ("running", "kept"):
        distiller = make_distiller(strides=strides, run_eagerly=False)
        images, labels = batch(size=8 // strides)
        if name == "running":
            distiller.fit(images, labels, epochs=2, batch_size=6, verbose=0)
        else:
            cache = TeacherCache(distiller, tmp_path / "cache")
            cache.fill(images, verbose=0)
            distiller.fit(cache.dataset(images, labels, batch_size=6), epochs=2, verbose=0)
        networks.append(snapshot(distiller.student))
    for one, other in zip(*networks, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_weight_of_0_asks_nobody_but_a_t2s_that_matches():
    def asked(objective):
        calls = []

        def weigh(outputs):
            calls.append(1)
            return confidence(outputs)

        distiller = make_distiller(
            weigh,
            objective,
            feature_loss_weight=0.0,
            adversarial_loss_weight=0.1,
        )
        before = len(calls)
        distiller.train_on_batch(*batch())
        return len(calls) - before

    assert asked("reconstruction") == 0
    assert asked(None) == 1


def test_of_two_pairs_one_may_have_weights():
    def feature_loss(*pairs):
        distiller = KTANDistiller(
            dense_model(8, 1), dense_model(4, 2), list(pairs), output_pairs=[]
        )
        for layer in distiller.teacher_to_student_layers:
            layer.mix.kernel.assign(np.ones(layer.mix.kernel.shape))
        distiller.compile(
            keras.optimizers.SGD(0.0),
            loss={SCORED: "mse", "size": "mse"},
            adversarial_loss_weight=0.0,
            run_eagerly=True,
        )
        return distiller.train_on_batch(*batch(), return_dict=True)["feature_loss"]

    def pair(name, weigh=None):
        t2s = TeacherToStudent(objective="reconstruction")
        return FeaturePair(name, name, teacher_to_student=t2s, position_weights=weigh)

    one, other = feature_loss(pair("features", confidence)), feature_loss(pair(SCORED))
    assert abs(one / feature_loss(pair("features")) - 1.0) > 1e-4
    both = feature_loss(pair("features", confidence), pair(SCORED))
    np.testing.assert_allclose(both, one + other, rtol=1e-5)


def test_maps_of_open_sizes():
    # A graph is where a size can be open.
    fixed, open_sizes = (make_distiller(size=size, run_eagerly=False) for size in (8, None))
    for role in ("teacher", "student"):
        getattr(open_sizes, role).set_weights(getattr(fixed, role).get_weights())
    for one, other in zip(
        open_sizes.teacher_to_student_layers, fixed.teacher_to_student_layers, strict=True
    ):
        one.set_weights(other.get_weights())
    expected = fixed.train_on_batch(*batch(), return_dict=True)["feature_loss"]
    found = open_sizes.train_on_batch(*batch(), return_dict=True)["feature_loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # One weight for a whole image, which no shape shows: as if there were none.
    alike, plain = (
        make_distiller(weigh, size=None, run_eagerly=False).train_on_batch(
            *batch(), return_dict=True
        )["feature_loss"]
        for weigh in (lambda outputs: ops.exp(outputs["size"][:, :1, :1, 0]), None)
    )
    np.testing.assert_allclose(alike, plain, rtol=1e-5)


def test_a_weight_below_0_stops_the_run():
    distiller = make_distiller(lambda outputs: outputs["size"][..., 0] - 5.0)
    before = snapshot(distiller.student)
    with pytest.raises(FloatingPointError, match=r"(?s)feature_loss.*position_weights"):
        distiller.fit(*batch(), verbose=0)
    assert_same(before, snapshot(distiller.student))


def test_a_distiller_that_was_saved_before_there_were_weights_has_none():
    config = make_distiller(None).get_config()
    for pair in config["feature_pairs"]:
        del pair["position_weights"]
    assert KTANDistiller.from_config(config).feature_pairs[0].position_weights is None


@pytest.mark.promise(11)
@pytest.mark.parametrize(
    ("weigh", "words"),
    [
        (lambda outputs: outputs["scores"], ["(None, 4, 4, 3)", "(None, 4, 4)", "Reshape"]),
        (lambda outputs: outputs["scores"][:, ::2, :, 0], ["(None, 2, 4)", "(None, 4, 4)", "pool"]),
        (lambda outputs: 1.0, ["returned float", "(None, 4, 4)", "Reshape"]),
        (keras.layers.Identity(), ["<Identity", "a function", "Write a function"]),
        ("scores", ["'scores'", "a function", "Write a function"]),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(weigh, words):
    with pytest.raises(ValueError) as error:
        make_distiller(weigh)
    assert_three_parts(error.value, *words)


@pytest.mark.promise(11)
def test_a_map_without_positions_and_a_loss_that_averages_them_are_refused():
    teacher, student = image_model(6, "teacher"), image_model(4, "student")
    pair = FeaturePair("pool", "pool", position_weights=lambda logits: logits[:, 0])
    with pytest.raises(ValueError) as error:
        KTANDistiller(teacher, student, pair)
    assert_three_parts(error.value, "(None, 4)", "a map with positions", "out")
    pair = FeaturePair("features", "features", position_weights=lambda logits: _spread(logits))
    distiller = KTANDistiller(teacher, student, pair)
    with pytest.raises(ValueError) as error:
        distiller.compile(loss=loss_from_logits(), feature_loss="pooled_cosine")
    assert_three_parts(error.value, "pooled_cosine", "position by position", "'cosine'")


def _spread(logits):
    """The first logit at every position."""
    return ops.broadcast_to(ops.sigmoid(logits[:, :1, None]), (ops.shape(logits)[0], 4, 4))


@pytest.mark.promise(11)
def test_a_function_that_fails_says_how_it_was_called():
    with pytest.raises(KeyError) as error:
        make_distiller(lambda outputs: outputs["nothing"])
    assert "keras.ops" in "".join(error.value.__notes__)


def test_the_teacher_stays_as_it_was():
    distiller = make_distiller()
    before = snapshot(distiller.teacher)
    distiller.train_on_batch(*batch())
    assert_same(before, snapshot(distiller.teacher))
