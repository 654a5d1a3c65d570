"""Promise 14: augmentation layers in the student show both models the same images."""

import keras
import numpy as np
import pytest
from helpers import all_values, random_array, to_numpy
from models import CLASSES, loss_from_logits

from keras_ktan import FeaturePair, KTANDistiller, TeacherToStudent
from keras_ktan.cache import TeacherCache

L = keras.layers


def augmented(model, *layers):
    """A model with augmentation layers in front of another one's."""
    inputs = keras.Input((8, 8, 1), name="image")
    hidden = inputs
    for layer in layers:
        hidden = layer(hidden)
    return keras.Model(inputs, model(hidden), name=f"augmented_{model.name}")


def classifier(name, filters=3, seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            L.Conv2D(filters, 3, activation="relu", name="features"),
            L.Flatten(),
            L.Dense(CLASSES, name="logits"),
        ],
        name=name,
    )


def turns():
    return [L.RandomRotation(0.5, seed=3, name="turn"), L.RandomTranslation(0.3, 0.3, seed=4)]


def data():
    return random_array(8, 8, 8, 1), np.arange(8) % CLASSES


def compiled(teacher, student, **arguments):
    path = "student/features" if "augmented" in student.name else "features"
    pair = FeaturePair("features", path, teacher_to_student=TeacherToStudent("reconstruction"))
    distiller = KTANDistiller(teacher, student, pair)
    distiller.compile(
        keras.optimizers.SGD(0.1),
        loss_from_logits(),
        **{"feature_loss": "mse", "adversarial_loss_weight": 0.0, **arguments},
    )
    return distiller


def test_two_equal_models_agree_on_every_augmented_image():
    """Their logits are equal where both see one image, and nowhere near it where they do not."""
    teacher = classifier("teacher")
    student = classifier("student", seed=5)
    student.set_weights(teacher.get_weights())
    distiller = compiled(teacher, augmented(student, *turns()), student_loss_weight=0.0)
    for _ in range(2):
        logs = distiller.train_on_batch(*data(), return_dict=True)
        distiller.student.get_layer("student").set_weights(teacher.get_weights())
        assert logs["logits_loss"] < 1e-6
    others = to_numpy(teacher(data()[0])), to_numpy(distiller.student(data()[0], training=True))
    assert np.abs(others[0] - others[1]).max() > 0.05


def test_the_losses_are_those_of_the_augmented_images():
    """Computed beside: the student's random layers begin with the same seeds in both runs."""
    teacher, student = classifier("teacher", 5), classifier("student", 3, seed=1)
    distiller = compiled(teacher, augmented(student, *turns()))
    images, labels = data()
    for layer in turns():
        images = layer(images, training=True)
    plain = compiled(teacher, keras.models.clone_model(student))
    plain.student.set_weights(student.get_weights())
    for one, other in zip(
        plain.teacher_to_student_layers, distiller.teacher_to_student_layers, strict=True
    ):
        one.set_weights(other.get_weights())
    expected = plain.train_on_batch(to_numpy(images), labels, return_dict=True)
    found = distiller.train_on_batch(data()[0], labels, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)


def test_the_seeds_advance_once_a_step_and_the_teachers_own_layers_are_inert():
    states = []
    for with_teacher in (True, False):
        teacher = augmented(classifier("teacher", 5), L.RandomRotation(0.5, seed=9, name="own"))
        student = augmented(classifier("student", 3, seed=1), *turns())
        distiller = KTANDistiller(teacher, student)
        distiller.compile("sgd", loss_from_logits(), feature_loss_weight=0.0,
                          adversarial_loss_weight=0.0,
                          logits_loss_weight=float(with_teacher))  # fmt: skip
        before = all_values(teacher)
        distiller.train_on_batch(*data())
        for one, other in zip(before, all_values(teacher), strict=True):
            np.testing.assert_array_equal(one, other)
        layers = student.layers[1:3]
        states.append([to_numpy(layer.generator.state) for layer in layers])
    np.testing.assert_array_equal(states[0], states[1])


@pytest.mark.promise(14)
def test_elsewhere_it_is_an_error_where_the_teacher_is_used():
    student = augmented(classifier("student"), L.Rescaling(2.0), *turns())
    with pytest.raises(ValueError, match="'turn'.*Augment in the data"):
        compiled(classifier("teacher", 5), student)
    compiled(  # nothing is compared with the teacher
        classifier("teacher", 5), student, logits_loss_weight=0.0, feature_loss_weight=0.0
    )


def test_together_with_a_cache_it_is_an_error(tmp_path):
    distiller = compiled(classifier("teacher", 5), augmented(classifier("student"), *turns()))
    images, labels = data()
    cache = TeacherCache(distiller, tmp_path / "cache")
    cache.fill(images, verbose=0)
    before = all_values(distiller.student)
    with pytest.raises(ValueError, match="TeacherCache.*augmentation layers.*`views` of the cache"):
        distiller.fit(cache.dataset(images, labels, batch_size=4, seed=0), verbose=0)
    for one, other in zip(before, all_values(distiller.student), strict=True):
        np.testing.assert_array_equal(one, other)
