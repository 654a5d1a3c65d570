"""What the README says of `keras.distillation.Distiller`, each line shown here beside ours.

The statements are about Keras 3.15. Where a later Keras does better, the test of its side
fails: then the README's line has to go.
"""

import keras
import numpy as np
import pytest
from models import image_data, image_model, loss_from_logits

from keras_ktan import FeaturePair, KTANDistiller

LogitsDistillation = keras.distillation.LogitsDistillation
FeatureDistillation = keras.distillation.FeatureDistillation


def models(teacher_filters=4, **student_arguments):
    return (
        image_model(teacher_filters, "teacher", seed=1),
        image_model(4, "student", seed=2, **student_arguments),
    )


def kerass(teacher, student, losses=None, **compile_arguments):
    distiller = keras.distillation.Distiller(teacher, student, losses or [LogitsDistillation()])
    distiller.compile(keras.optimizers.SGD(0.0), loss=loss_from_logits(), **compile_arguments)
    return distiller


def ours(teacher, student, **compile_arguments):
    distiller = KTANDistiller(teacher, student, FeaturePair("features", "features"))
    distiller.compile(keras.optimizers.SGD(0.0), loss=loss_from_logits(), **compile_arguments)
    return distiller


def features_distillation():
    return [
        FeatureDistillation(teacher_layer_name="features", student_layer_name="features"),
    ]


def moving_mean(distiller):
    return np.array(
        keras.ops.convert_to_numpy(distiller.student.get_layer("norm").moving_mean), "float64"
    )


def mean_after_a_step(distiller):
    distiller.train_on_batch(*image_data(8))
    return moving_mean(distiller)


def test_student_forward_passes_in_a_step():
    once = mean_after_a_step(ours(*models()))
    twice = mean_after_a_step(kerass(*models(), features_distillation()))
    # One move from 0 with momentum 0.99 gives 0.01 of the batch mean, two give 0.0199.
    np.testing.assert_allclose(twice, 1.99 * once, rtol=1e-4)


def test_evaluation_and_batch_normalisation():
    images, labels = image_data(8)
    for make, moved in (
        (lambda: ours(*models()), False),
        (lambda: kerass(*models(), features_distillation()), True),
    ):
        distiller = make()
        before = moving_mean(distiller)
        distiller.evaluate(images, labels, verbose=0)
        assert np.array_equal(before, moving_mean(distiller)) != moved


def test_maps_of_unlike_shape():
    teacher, student = models(teacher_filters=12)
    with pytest.raises(Exception, match="(?i)shape|incompatible|size of tensor"):
        kerass(teacher, student, features_distillation()).train_on_batch(*image_data(8))
    assert (
        ours(teacher, student).train_on_batch(*image_data(8), return_dict=True)["feature_loss"] > 0
    )


def test_layers_of_nested_models():
    def nested(name):
        inputs = keras.Input((8, 8, 1))
        backbone = keras.Model(
            inputs, keras.layers.Conv2D(4, 3, name="map")(inputs), name="backbone"
        )
        outer = keras.Input((8, 8, 1))
        pooled = keras.layers.GlobalAveragePooling2D()(backbone(outer))
        return keras.Model(outer, keras.layers.Dense(5)(pooled), name=name)

    with pytest.raises(ValueError, match="(?i)layer"):
        kerass(
            nested("teacher"),
            nested("student"),
            [
                FeatureDistillation(
                    teacher_layer_name="backbone/map", student_layer_name="backbone/map"
                )
            ],
        )
    distiller = KTANDistiller(
        nested("teacher"), nested("student"), FeaturePair("backbone/map", "backbone/map")
    )
    distiller.compile("sgd", loss=loss_from_logits())
    assert distiller.train_on_batch(*image_data(8), return_dict=True)["feature_loss"] > 0


def test_sample_weights_and_regularisers():
    images, labels = image_data(8)
    nothing = np.zeros(8, "float32")
    student_loss = {}
    for name, make in (("ours", ours), ("keras", kerass)):
        for weights in (None, nothing):
            distiller = make(*models(regularizer=keras.regularizers.L2(1.0)))
            logs = distiller.train_on_batch(images, labels, sample_weight=weights, return_dict=True)
            student_loss[name, weights is None] = logs["student_loss"]
            if name == "ours":
                parts = logs["student_loss"] + logs["logits_loss"] + 3.0 * logs["feature_loss"]
                penalty = np.sum(
                    np.square(distiller.student.get_layer("features").get_weights()[0])
                )
                np.testing.assert_allclose(logs["loss"] - parts, penalty, rtol=1e-3)
            else:
                half = 0.5 * (logs["student_loss"] + logs["distillation_loss"])
                np.testing.assert_allclose(logs["total_loss"], half, rtol=1e-5)
    assert student_loss["ours", False] == 0.0 < student_loss["ours", True]
    assert student_loss["keras", False] == student_loss["keras", True]


def test_the_default_loss_on_logits():
    """Softmax and T² by hand: T = 3 (Keras's default), two examples of three classes."""
    from keras_ktan.losses import softened_kl

    teacher = np.array([[4.0, 1.0, 0.5], [0.2, 3.0, 1.0]], "float32")
    student = np.array([[1.0, 2.0, 0.5], [2.0, 1.0, 0.3]], "float32")

    def softmax(scores):
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    p, q = softmax(teacher / 3.0), softmax(student / 3.0)
    right = 9.0 * np.mean(np.sum(p * np.log(p / q), axis=-1))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(softened_kl(teacher, student, 3.0)).mean(),
        right,
        rtol=1e-5,
    )
    kerass_value = float(
        LogitsDistillation().compute_loss(
            keras.ops.convert_to_tensor(teacher), keras.ops.convert_to_tensor(student)
        )
    )
    assert abs(kerass_value - right) > 0.1 * right


def test_a_loaded_distiller(tmp_path):
    for make, keeps in (
        (lambda: ours(*models()), True),
        (lambda: kerass(*models(), features_distillation()), False),
    ):
        distiller = make()
        distiller.train_on_batch(*image_data(8))
        distiller.save(tmp_path / "distiller.keras")
        if keeps:
            loaded = keras.saving.load_model(tmp_path / "distiller.keras")
            assert int(loaded.optimizer.iterations) == 1
        else:
            with pytest.warns(UserWarning, match="`compile.*` was not called"):
                loaded = keras.saving.load_model(tmp_path / "distiller.keras")
            assert getattr(loaded, "optimizer", None) is None


def test_toggling_trainable():
    for make, thaws in (
        (lambda: ours(*models()), False),
        (lambda: kerass(*models(), features_distillation()), True),
    ):
        distiller = make()
        distiller.teacher.trainable = False
        distiller.trainable = False
        distiller.trainable = True
        assert distiller.teacher.trainable == thaws
