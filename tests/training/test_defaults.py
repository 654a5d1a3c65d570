"""What `compile` settles where the user says nothing."""

import keras
import pytest
from models import image_data, image_model, learned_pair, loss_from_logits

from keras_ktan import KTANDistiller


def mean_squares(target, features):
    return keras.ops.mean(keras.ops.square(target - features), axis=(1, 2, 3))


def compiled(models=(6, 3), **arguments):
    teacher, student = (image_model(filters, f"model_{filters}") for filters in models)
    distiller = KTANDistiller(teacher, student)
    distiller.compile("sgd", loss_from_logits(), run_eagerly=True, **arguments)
    return distiller


@pytest.mark.promise(6)
@pytest.mark.parametrize(
    ("arguments", "weight"),
    [
        ({}, 3.0),
        ({"feature_loss": "normalized_mse"}, 3.0),
        ({"feature_loss": "cosine"}, 1.0),
        ({"feature_loss": mean_squares}, 1.0),
        ({"feature_loss": "cosine", "feature_loss_weight": 0.5}, 0.5),
        ({"feature_loss_weight": 0}, 0.0),
    ],
)
def test_the_loss_is_the_sum_with_the_default_weights(arguments, weight):
    distiller = compiled(**arguments)
    logs = distiller.train_on_batch(*image_data(8), return_dict=True)
    assert "adversarial_loss" not in logs and "discriminator_loss" not in logs
    feature = float(logs["feature_loss"]) if weight else 0.0
    assert ("feature_loss" in logs) == (weight > 0)
    expected = float(logs["student_loss"]) + float(logs["logits_loss"]) + weight * feature
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)
    assert not distiller.optimizer.discriminator


def test_a_weight_alone_switches_the_adversary_on():
    models = image_model(6, "teacher"), image_model(3, "student")
    distiller = KTANDistiller(*models, learned_pair())
    distiller.compile("sgd", loss_from_logits(), adversarial_loss_weight=0.02, run_eagerly=True)
    logs = distiller.train_on_batch(*image_data(8), return_dict=True)
    parts = [
        float(logs[f"{term}_loss"]) for term in ("student", "logits", "feature", "adversarial")
    ]
    expected = parts[0] + parts[1] + 3.0 * parts[2] + 0.02 * parts[3]
    assert float(logs["loss"]) == pytest.approx(expected, rel=1e-5)
