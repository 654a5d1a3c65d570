"""Students that logits_of every position, by a loss of their own: what a detector asks for."""

import keras
import numpy as np
import pytest
from helpers import assert_three_parts, to_numpy
from keras import ops
from models import assert_same, snapshot

from keras_ktan import (
    FeatureDiscriminator,
    FeaturePair,
    KTANDistiller,
    OutputPair,
    TeacherToStudent,
)

CLASSES = 3


class Dense(keras.Model):
    """Two levels, class scores and a size at each of their positions, and its own loss.

    Labels are a dict that no Keras loss knows; predictions are decoded to classes.
    """

    def __init__(self, filters, name=None):
        inputs = keras.Input((8, 8, 1), name="image")
        fine = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(inputs)
        coarse = keras.layers.AveragePooling2D(2)(fine)
        pyramid = keras.layers.Identity(name="pyramid")({"P3": fine, "P4": coarse})
        head = keras.layers.Conv2D(CLASSES + 1, 1, name="head")
        both = keras.layers.Concatenate(axis=1)(
            [keras.layers.Reshape((-1, CLASSES + 1))(head(level)) for level in pyramid.values()]
        )
        super().__init__(inputs, {"scores": both[..., :-1], "size": both[..., -1]}, name=name)
        self.filters = filters
        self.size_error = keras.metrics.Mean("size_error")

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        size = ops.convert_to_tensor(y["size"])[:, None]  # torch gets what the caller gave
        error = ops.mean(ops.abs(y_pred["size"] - size), axis=-1)
        self.size_error.update_state(error)
        if sample_weight is not None:
            error = error * ops.convert_to_tensor(sample_weight)
        return ops.mean(error)

    def decode(self, outputs):
        return {"class": ops.argmax(outputs["scores"], axis=-1)}

    if keras.backend.backend() == "jax":

        def predict_step(self, state, data):
            x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
            outputs, others = self.stateless_call(*state, x, training=False)
            return self.decode(outputs), others

    else:

        def predict_step(self, data):
            x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
            return self.decode(self(x, training=False))


def make(filters, name, seed):
    keras.utils.set_random_seed(seed)
    return Dense(filters, name)


def batch(count=6):
    random = np.random.default_rng(0)
    images = random.normal(size=(count, 8, 8, 1)).astype("float32")
    return images, {"size": np.linspace(0, 2, count).astype("float32")}


def make_distiller(pairs=None, scores="scores", activation="sigmoid", **arguments):
    distiller = KTANDistiller(
        make(12, "teacher", 1),
        make(4, "student", 2),
        pairs or FeaturePair("pyramid:P3", "pyramid:P3"),
        temperature=2.0,
        output_pairs=None if scores is None else OutputPair(scores, kind=activation),
    )
    distiller.compile(keras.optimizers.SGD(0.0), run_eagerly=True, **arguments)
    return distiller


def softened(teacher, student, activation):
    """T²·KL of the softened probabilities, position by position, in float64."""
    teacher, student = teacher.astype("float64") / 2.0, student.astype("float64") / 2.0
    if activation == "softmax":
        p, q = (np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True) for z in (teacher, student))
        divergence = p * np.log(p / q)
    else:
        p, q = (1.0 / (1.0 + np.exp(-z)) for z in (teacher, student))
        divergence = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return 4.0 * divergence.sum(axis=-1).mean()


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_softened_scores_of_every_position(activation):
    distiller = make_distiller(
        activation=activation,
        logits_loss_weight=2.0,
        feature_loss_weight=0.0,
        adversarial_loss_weight=0.0,
    )
    images, labels = batch()
    weights = np.array([1, 0, 2, 1, 1, 3], "float32")
    logs = distiller.train_on_batch(images, labels, sample_weight=weights, return_dict=True)
    teacher, student = (
        {name: to_numpy(value) for name, value in model(images).items()}
        for model in (distiller.teacher, distiller.student)
    )
    assert teacher["scores"].shape == (6, 64 + 16, CLASSES)
    expected = softened(teacher["scores"], student["scores"], activation)
    error = np.abs(student["size"] - labels["size"][:, None]).mean(axis=-1)
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)
    np.testing.assert_allclose(logs["student_loss"], np.mean(error * weights), rtol=1e-5)
    np.testing.assert_allclose(logs["size_error"], np.mean(error), rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], logs["student_loss"] + 2 * expected, rtol=1e-4)


def test_evaluate_and_predict_are_the_students_own():
    distiller = make_distiller()
    images, labels = batch()
    student = distiller.student
    student.compile(run_eagerly=True)
    before = snapshot(student, distiller.teacher)
    evaluated = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    alone = student.evaluate(images, labels, verbose=0, return_dict=True)
    assert set(evaluated) == {"loss", "size_error"} == set(alone)
    assert evaluated == {name: pytest.approx(value) for name, value in alone.items()}
    found = distiller.predict(images, verbose=0)
    assert set(found) == {"class"}
    expected = np.argmax(to_numpy(student(images)["scores"]), axis=-1)
    np.testing.assert_array_equal(found["class"], expected)
    assert_same(before[: len(student.weights)], snapshot(student)[: len(student.weights)])


def test_softened_scores_are_off_until_they_are_asked_for():
    images, labels = batch()
    with pytest.warns(UserWarning, match="not distilled: .*'scores'"):
        distiller = make_distiller(scores=None)
    logs = distiller.train_on_batch(images, labels, return_dict=True)
    assert "logits_loss" not in logs and logs["feature_loss"] > 0
    with pytest.raises(ValueError) as error:
        make_distiller(scores=None, logits_loss_weight=1.0)
    assert_three_parts(
        error.value, "no output of the teacher is paired", "Expected a pair", "output_pairs"
    )


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_levels_have_layers_of_their_own_or_share_them(shared):
    def given():
        return {
            "teacher_to_student": TeacherToStudent(objective="reconstruction"),
            "discriminator": FeatureDiscriminator(noise_stddev=0.0),
        }

    one = given()
    pairs = [
        FeaturePair(f"pyramid:{level}", f"pyramid:{level}", **(one if shared else given()))
        for level in ("P3", "P4")
    ]
    distiller = make_distiller(pairs, feature_loss="cosine", adversarial_loss_weight=0.02)
    count = 1 if shared else 2
    assert len(distiller.teacher_to_student_layers) == len(distiller.discriminators) == count
    images, labels = batch()

    def levels(model):
        # Keras lists a layer's dict in the order of its keys.
        return keras.Model(model.input, model.get_layer("pyramid").output)(images)

    theirs, own = levels(distiller.teacher), levels(distiller.student)
    matching = generator_loss = 0.0
    for pair, their, student_map in zip(pairs, theirs, own, strict=True):
        target = pair.teacher_to_student(their)
        logits = to_numpy(pair.discriminator(student_map))
        vectors = [to_numpy(ops.normalize(part, axis=-1)) for part in (target, student_map)]
        # Where either is all zero the cosine is 0.
        matching += np.mean(1.0 - np.sum(vectors[0] * vectors[1], axis=-1))
        generator_loss += np.mean(np.log1p(np.exp(-logits)))
    before = [snapshot(layer) for layer in distiller.discriminators]
    logs = distiller.train_on_batch(images, labels, return_dict=True)
    np.testing.assert_allclose(logs["feature_loss"], matching, rtol=1e-3)
    np.testing.assert_allclose(logs["adversarial_loss"], generator_loss, rtol=1e-4)
    for layer, was in zip(distiller.discriminators, before, strict=True):
        assert not np.array_equal(was[0], snapshot(layer)[0])


@pytest.mark.parametrize("scores", [None, "scores"])
def test_the_students_head_is_judged_by_its_own_loss_and_its_metrics_do_not_see_it(scores):
    pair = FeaturePair(
        "pyramid:P3",
        "pyramid:P3",
        teacher_to_student=TeacherToStudent(objective="student_head"),
    )
    distiller = make_distiller(pair, scores=scores, adversarial_loss_weight=0.0)
    images, labels = batch()
    student = distiller.student
    pyramids = [
        keras.Model(model.input, model.get_layer("pyramid").output)(images)
        for model in (distiller.teacher, student)
    ]
    target, coarse = pair.teacher_to_student(pyramids[0][0]), pyramids[1][1]
    head = student.get_layer("head")
    on_target = ops.concatenate(
        [ops.reshape(head(level), (6, -1, CLASSES + 1)) for level in (target, coarse)], axis=1
    )
    on_target = to_numpy(on_target)
    expected = np.abs(on_target[..., -1] - labels["size"][:, None]).mean()
    if scores is not None:
        teacher = to_numpy(distiller.teacher(images)["scores"])
        expected += softened(teacher, on_target[..., :-1], "sigmoid")
    own_error = np.abs(to_numpy(student(images)["size"]) - labels["size"][:, None]).mean()
    logs = distiller.train_on_batch(images, labels, return_dict=True)
    np.testing.assert_allclose(logs["t2s_loss"], expected, rtol=1e-4)
    np.testing.assert_allclose(logs["size_error"], own_error, rtol=1e-5)
