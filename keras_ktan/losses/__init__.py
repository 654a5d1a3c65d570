"""The loss terms, one value per example, written with `keras.ops`."""

from keras_ktan.losses.adversarial import ADVERSARIAL_LOSSES, AdversarialLoss
from keras_ktan.losses.feature import FEATURE_LOSSES, feature_loss
from keras_ktan.losses.logits import (
    LOGITS_LOSSES,
    logits_loss,
    pearson,
    softened_kl,
    standardized_kl,
)
from keras_ktan.losses.regression import scaled_squared_error

__all__ = [
    "ADVERSARIAL_LOSSES",
    "FEATURE_LOSSES",
    "LOGITS_LOSSES",
    "AdversarialLoss",
    "feature_loss",
    "logits_loss",
    "pearson",
    "scaled_squared_error",
    "softened_kl",
    "standardized_kl",
]
