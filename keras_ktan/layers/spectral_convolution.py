"""A convolution whose kernel, as a matrix, has largest singular value 1."""

import keras
from keras import ops


def _inverse_length(vector):
    # What is added keeps 0 from becoming infinite and is lost beside any kernel in use.
    return ops.rsqrt(ops.sum(ops.square(vector)) + 1e-30)


def _random_direction(shape, dtype=None):
    vector = keras.initializers.RandomNormal()(shape, dtype)
    return vector * _inverse_length(vector)


@keras.saving.register_keras_serializable(package="keras_ktan")
class SpectralConvolution(keras.layers.Layer):
    """Convolution (or matrix product) with a spectrally normalised kernel.

    `keras.layers.SpectralNormalization` overwrites its kernel during a training
    forward pass, so that the student's generator loss would change the
    discriminator. Here the normalised kernel is a function of the kernel, a forward pass
    changes nothing, and `advance_power_iteration` is called once per step.

    Args:
        filters: Positive int, the number of output channels.
        kernel_size: Positive int, the window along each axis between batch and channels.
        use_bias: Whether to add a bias.
        **kwargs: Passed on to `keras.layers.Layer`.

    Input: tensor of rank 2, 3 or 4, channels last. Output: the same shape with
    `filters` channels (padding is `"same"`).

    Reference:
        - [Miyato et al., 2018](https://arxiv.org/abs/1802.05957)
    """

    def __init__(self, filters, kernel_size=1, use_bias=True, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.use_bias = use_bias
        self.kernel = self.power_vector = None

    def build(self, input_shape):
        window = (self.kernel_size,) * (len(input_shape) - 2)
        self.kernel = self.add_weight(
            shape=(*window, input_shape[-1], self.filters),
            initializer="glorot_uniform",
            name="kernel",
        )
        if self.filters > 1:
            # The direction that the kernel stretches most, a column of length one; it is learned
            # by power iteration, not by gradient, and saved with the weights. One filter has no
            # other direction, and its largest singular value is its length.
            self.power_vector = self.add_weight(
                shape=(self.filters, 1),
                initializer=_random_direction,
                trainable=False,
                dtype=keras.config.floatx(),
                autocast=False,
                aggregation="mean",
                name="power_vector",
            )
        self.bias = (
            self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")
            if self.use_bias
            else None
        )

    def _matrix(self, kernel):
        return ops.reshape(kernel, (-1, self.filters))

    def advance_power_iteration(self):
        """Move the power vector one iteration nearer to the largest singular vector."""
        if self.power_vector is None:
            return
        matrix = self._matrix(ops.cast(self.kernel, keras.config.floatx()))
        left = ops.reshape(ops.matmul(matrix, self.power_vector), (1, -1))
        right = ops.reshape(ops.matmul(left, matrix), (-1, 1))
        self.power_vector.assign(right * _inverse_length(right))

    def normalized_kernel(self):
        """The kernel divided by its estimated largest singular value.

        The estimate is the length to which the kernel stretches the power vector. Its gradient is
        that of the singular value between its two vectors where these are stopped.

        Returns:
            Tensor of the kernel's shape; its gradient flows to the kernel.
        """
        kernel = ops.cast(self.kernel, keras.config.floatx())
        stretched = kernel
        if self.power_vector is not None:
            stretched = ops.matmul(self._matrix(kernel), self.power_vector)
        return kernel * _inverse_length(stretched)

    def call(self, inputs):
        kernel = ops.cast(self.normalized_kernel(), inputs.dtype)
        if len(inputs.shape) == 2:
            outputs = ops.matmul(inputs, kernel)
        else:
            outputs = ops.conv(inputs, kernel, padding="same", data_format="channels_last")
        if self.bias is None:
            return outputs
        return ops.add(outputs, ops.cast(self.bias, outputs.dtype))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "use_bias": self.use_bias,
        }
