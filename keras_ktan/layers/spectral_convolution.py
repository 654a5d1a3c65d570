"""A convolution whose kernel, as a matrix, has largest singular value 1."""

import keras
from keras import ops


def _unit(vector):
    return vector * ops.rsqrt(ops.maximum(ops.sum(ops.square(vector)), 1e-12))


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
        self.kernel = None

    def build(self, input_shape):
        window = (self.kernel_size,) * (len(input_shape) - 2)
        self.kernel = self.add_weight(
            shape=(*window, input_shape[-1], self.filters),
            initializer="glorot_uniform",
            name="kernel",
        )
        # The direction that the kernel stretches most; it is learned by power
        # iteration, not by gradient, and saved with the weights.
        self.power_vector = self.add_weight(
            shape=(self.filters,),
            initializer="random_normal",
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

    def _matrix(self):
        return ops.reshape(ops.cast(self.kernel, keras.config.floatx()), (-1, self.filters))

    def advance_power_iteration(self):
        """Move the power vector one iteration nearer to the largest singular vector."""
        matrix = self._matrix()
        left = _unit(ops.matmul(matrix, self.power_vector))
        self.power_vector.assign(ops.stop_gradient(_unit(ops.matmul(left, matrix))))

    def normalized_kernel(self):
        """The kernel divided by its estimated largest singular value.

        Returns:
            Tensor of the kernel's shape; its gradient flows to the kernel.
        """
        matrix = self._matrix()
        right = ops.stop_gradient(_unit(ops.convert_to_tensor(self.power_vector)))
        left = ops.stop_gradient(_unit(ops.matmul(matrix, right)))
        largest = ops.sum(left * ops.matmul(matrix, right))
        return ops.cast(self.kernel, keras.config.floatx()) / ops.maximum(largest, 1e-6)

    def call(self, inputs):
        kernel = ops.cast(self.normalized_kernel(), inputs.dtype)
        if len(inputs.shape) == 2:
            outputs = ops.matmul(inputs, kernel)
        else:
            outputs = ops.conv(inputs, kernel, padding="same", data_format="channels_last")
        return outputs if self.bias is None else outputs + ops.cast(self.bias, outputs.dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "use_bias": self.use_bias,
        }
