"""The adversarial losses: what the discriminator and the student minimise."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_ktan.losses.reductions import in_full_precision, mean_per_example
from keras_ktan.utils.numbers import validate_number


@keras.saving.register_keras_serializable(package="keras_ktan")
@dataclasses.dataclass(frozen=True)
class AdversarialLoss:
    """What the discriminator and the student minimise against each other.

    Each function gets maps of logits, one logit per receptive field of the discriminator, in
    `keras.config.floatx()`. Write them with `keras.ops`. To save a distiller with losses of your
    own, register the functions with `keras.saving.register_keras_serializable`.

    Args:
        generator: Function from the logits of the student's maps (fake) to a tensor of their
            shape: the student's loss.
        discriminator: Function from the logits of T2S's maps (real) and of the student's maps
            (fake) to a tensor of their shape: the discriminator's loss.
        accuracy: Function from real and fake logits to a tensor of their shape: 1 where the
            discriminator is right. `None`: it is right where a real logit is above `boundary`
            and where a fake one is not.
        boundary: Number; a map whose logit is above it is taken for a real one.

    Example:

    ```python
    from keras import ops
    from keras_ktan.losses import AdversarialLoss

    wasserstein = AdversarialLoss(
        generator=lambda fake: -fake, discriminator=lambda real, fake: fake - real
    )
    logits = ops.ones((2, 4, 4))
    print(wasserstein.generator_loss(logits))  # [-1, -1]
    ```
    """

    generator: Callable
    discriminator: Callable
    accuracy: Callable | None = None
    boundary: float = 0.0

    def __post_init__(self):
        for name in ("generator", "discriminator"):
            if not callable(getattr(self, name)):
                raise ValueError(
                    f"Received {name}={getattr(self, name)!r} for an AdversarialLoss. Expected a "
                    "function of logits. Write it with `keras.ops`."
                )
        validate_number("boundary", self.boundary, where=" for an AdversarialLoss", remedy="Try 0.")
        if self.accuracy is not None and not callable(self.accuracy):
            raise ValueError(
                f"Received accuracy={self.accuracy!r} for an AdversarialLoss. Expected a function "
                "of real and fake logits, or None. Leave it out to compare logits with `boundary`."
            )

    def discriminator_loss(
        self,
        real_logits: Any,
        fake_logits: Any,
        mask: Any = None,
        reduction: Callable = mean_per_example,
    ) -> Any:
        """What the discriminator minimises.

        Args:
            real_logits: Tensor `(batch, ...)`, logits of T2S's maps.
            fake_logits: Tensor `(batch, ...)`, logits of the student's maps.
            mask: Optional boolean tensor of their shape: where there is no padding.
            reduction: Function of the values at all positions and the mask.

        Returns:
            What `reduction` returns; by default a tensor `(batch,)`.
        """
        values = self.discriminator(*in_full_precision(real_logits, fake_logits))
        return reduction(values, mask)

    def generator_loss(
        self, fake_logits: Any, mask: Any = None, reduction: Callable = mean_per_example
    ) -> Any:
        """What the student minimises.

        Args:
            fake_logits: Tensor `(batch, ...)`, logits of the student's maps.
            mask: Optional boolean tensor of their shape: where there is no padding.
            reduction: Function of the values at all positions and the mask.

        Returns:
            What `reduction` returns; by default a tensor `(batch,)`.
        """
        return reduction(self.generator(*in_full_precision(fake_logits)), mask)

    def discriminator_accuracy(
        self,
        real_logits: Any,
        fake_logits: Any,
        mask: Any = None,
        reduction: Callable = mean_per_example,
    ) -> Any:
        """Share of logits that are right: 0.5 is guessing, at 1 the student learns nothing.

        Args:
            real_logits: Tensor `(batch, ...)`, logits of T2S's maps.
            fake_logits: Tensor `(batch, ...)`, logits of the student's maps.
            mask: Optional boolean tensor of their shape: where there is no padding.
            reduction: Function of the values at all positions and the mask.

        Returns:
            What `reduction` returns; by default a tensor `(batch,)`.
        """
        real, fake = in_full_precision(real_logits, fake_logits)
        if self.accuracy is not None:
            return reduction(self.accuracy(real, fake), mask)
        right = ops.cast(real > self.boundary, real.dtype)
        right = right + ops.cast(fake <= self.boundary, fake.dtype)
        return reduction(right, mask) / 2.0

    def get_config(self) -> dict:
        serialize = keras.saving.serialize_keras_object
        return {
            field.name: serialize(getattr(self, field.name)) for field in dataclasses.fields(self)
        }

    @classmethod
    def from_config(cls, config: dict) -> "AdversarialLoss":
        return cls(
            **{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()}
        )


ADVERSARIAL_LOSSES = {
    # Goodfellow et al., 2014 (arXiv 1406.2661), with the student's side non-saturating. The two
    # sides of every discriminator loss are averaged.
    "bce": AdversarialLoss(
        generator=lambda fake: ops.softplus(-fake),
        discriminator=lambda real, fake: 0.5 * (ops.softplus(-real) + ops.softplus(fake)),
    ),
    # Mao et al., 2017 (arXiv 1611.04076), with targets 1 for real and 0 for fake.
    "least_squares": AdversarialLoss(
        generator=lambda fake: ops.square(fake - 1.0),
        discriminator=lambda real, fake: 0.5 * (ops.square(real - 1.0) + ops.square(fake)),
        boundary=0.5,
    ),
    # Lim and Ye, 2017 (arXiv 1705.02894).
    "hinge": AdversarialLoss(
        generator=lambda fake: -fake,
        discriminator=lambda real, fake: 0.5 * (ops.relu(1.0 - real) + ops.relu(1.0 + fake)),
    ),
}


def get_adversarial_loss(identifier):
    """The adversarial loss that `compile` was given.

    Args:
        identifier: A name in `ADVERSARIAL_LOSSES`, or an `AdversarialLoss`.

    Returns:
        An `AdversarialLoss`.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(identifier, AdversarialLoss):
        return identifier
    if isinstance(identifier, str) and identifier in ADVERSARIAL_LOSSES:
        return ADVERSARIAL_LOSSES[identifier]
    raise ValueError(
        f"Received adversarial_loss={identifier!r}. Expected one of {sorted(ADVERSARIAL_LOSSES)} "
        "or an AdversarialLoss. Write `adversarial_loss='bce'`, for example."
    )
