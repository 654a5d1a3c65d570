"""The discriminator: whose feature map is this, the teacher's or the student's?"""

import keras
from keras import ops

from keras_ktan.spectral_convolution import SpectralConvolution


class _StepSeed(keras.random.SeedGenerator):
    """A seed that is a function of the step, so that a resumed run draws the same noise.

    Keras saves no layer's random state; a number that follows from the step needs none.
    """

    def __init__(self, first, second):  # no state variable is wanted
        self._seed = ops.stack([ops.cast(first, "uint32"), ops.cast(second, "uint32")])

    def next(self, ordered=True):
        return self._seed


@keras.saving.register_keras_serializable(package="keras_ktan")
class FeatureDiscriminator(keras.layers.Layer):
    """Says of every part of a feature map whether it is the teacher's.

    It answers with a map of verdicts, one per receptive field, so that it judges how
    neighbouring positions go together. It must not win: a discriminator that is always
    right teaches the student nothing. Therefore it sees maps of equal size (root
    mean square 1) with noise on them, is narrow, spectrally normalised, and learns slowly.

    Args:
        filters: Positive int, channels of the hidden layers.
        depth: Positive int, number of hidden convolutions.
        kernel_size: Positive int, their window.
        noise_stddev: Number, 0 or more: standard deviation of the noise on the maps,
            which have root mean square 1.
        conditional: `True`: the verdict also weighs whether the map fits the teacher's
            class probabilities for that image; `False`: it does not; `"auto"`: where the
            models have class logits.
        seed: Int, 0 or more, of the noise.
        **kwargs: Passed on to `keras.layers.Layer`.

    Defaults: our choice. With less noise the discriminator was right 88 to 98 times of 100 in
    `benchmarks/results/choose_game_digits.md`, and taught less.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    import keras
    from keras_ktan import FeatureDiscriminator

    discriminator = FeatureDiscriminator(conditional=False)
    verdicts = discriminator(keras.ops.ones((2, 4, 4, 32)))
    print(verdicts.shape)  # (2, 4, 4)
    ```

    Reference:
        - [Liu et al., 2018](https://arxiv.org/abs/1810.08126): a discriminator on feature maps
        - [Miyato et al., 2018](https://arxiv.org/abs/1802.05957): spectral normalisation
        - [Miyato and Koyama, 2018](https://arxiv.org/abs/1802.05637): conditioning by projection
    """

    def __init__(
        self,
        filters=16,
        depth=2,
        kernel_size=3,
        noise_stddev=2.0,
        conditional="auto",
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        for name, value in {"filters": filters, "depth": depth, "kernel_size": kernel_size}.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"Received {name}={value!r} for the discriminator. Expected a whole number "
                    f"of 1 or more. Try `FeatureDiscriminator({name}=3)`."
                )
        if not isinstance(noise_stddev, (int, float)) or not 0 <= noise_stddev < float("inf"):
            raise ValueError(
                f"Received noise_stddev={noise_stddev!r} for the discriminator. Expected 0 or "
                "more. Use 0 to switch the noise off."
            )
        if conditional not in (True, False, "auto"):
            raise ValueError(
                f"Received conditional={conditional!r} for the discriminator. Expected True, "
                "False or 'auto'. Leave it out to let the models decide."
            )
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(
                f"Received seed={seed!r} for the discriminator. Expected a whole number of 0 or "
                "more. Leave it out to get 0."
            )
        self.filters = filters
        self.depth = depth
        self.kernel_size = kernel_size
        self.noise_stddev = noise_stddev
        self.conditional = conditional if conditional == "auto" else bool(conditional)
        self.seed = seed
        self.hidden = [
            SpectralConvolution(
                filters, kernel_size, name=f"hidden_{index}", dtype=self.dtype_policy
            )
            for index in range(depth)
        ]
        self.verdict = SpectralConvolution(1, name="verdict", dtype=self.dtype_policy)
        self.projection = SpectralConvolution(
            filters, use_bias=False, name="projection", dtype=self.dtype_policy
        )

    def build(self, features_shape, condition_shape=None):
        shape = tuple(features_shape)
        for layer in self.hidden:
            layer.build(shape)
            shape = (*shape[:-1], self.filters)
        self.verdict.build(shape)
        if condition_shape is not None and self.conditional is not False:
            self.projection.build(tuple(condition_shape))

    def call(self, features, condition=None, step=None, side=0):
        """Judge a batch of maps.

        Args:
            features: Tensor `(batch, ..., channels)`.
            condition: Tensor `(batch, classes)` of the teacher's probabilities, or `None`.
            step: Scalar int tensor that the noise is drawn from; `None`: no noise.
            side: 0 or 1: the two sides of one step get noise of their own.

        Returns:
            Tensor `(batch, ...)` of verdicts, one per position.
        """
        inner_axes = tuple(range(1, len(features.shape)))
        precise = ops.cast(features, keras.config.floatx())
        size = ops.mean(ops.square(precise), axis=inner_axes, keepdims=True)
        hidden = features * ops.cast(ops.rsqrt(ops.maximum(size, 1e-6)), features.dtype)
        if step is not None and self.noise_stddev > 0:
            noise = keras.random.normal(
                ops.shape(hidden),
                stddev=self.noise_stddev,
                dtype=hidden.dtype,
                seed=_StepSeed(ops.cast(step, "int32") * 2 + side, self.seed),
            )
            hidden = hidden + noise
        for layer in self.hidden:
            hidden = ops.leaky_relu(layer(hidden), negative_slope=0.2)
        verdicts = self.verdict(hidden)[..., 0]
        if condition is None or self.conditional is False:
            return verdicts
        direction = self.projection(ops.cast(condition, hidden.dtype))
        positions = (1,) * (len(features.shape) - 2)
        direction = ops.reshape(direction, (-1, *positions, self.filters))
        return verdicts + ops.sum(hidden * direction, axis=-1)

    def advance_power_iterations(self):
        """Update the spectral norms' estimates; called once per training step."""
        for layer in (*self.hidden, self.verdict, self.projection):
            if layer.built:
                layer.advance_power_iteration()

    def compute_output_shape(self, features_shape, condition_shape=None):
        return tuple(features_shape[:-1])

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "depth": self.depth,
            "kernel_size": self.kernel_size,
            "noise_stddev": self.noise_stddev,
            "conditional": self.conditional,
            "seed": self.seed,
        }
