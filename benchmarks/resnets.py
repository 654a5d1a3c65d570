"""The pairs of models that `step_time.py` measures, beside its own small one.

ResNets as in "Deep Residual Learning for Image Recognition" (https://arxiv.org/abs/1512.03385),
with projections where a shortcut changes its shape.
"""

import keras

from keras_ktan_tasks.residual_network import make_classifier


def make_resnet18(image_size, width=64, classes=1000):
    """ResNet-18, or the same network of another width.

    Args:
        image_size: Height and width of the images.
        width: Channels of the first of the four stages; each further one has twice as many.
        classes: Number of logits.

    Returns:
        A `keras.Model` from images to logits. Its last map is the layer `"features"`.
    """
    layers = keras.layers

    def convolve(hidden, channels, size, strides=1):
        hidden = layers.Conv2D(channels, size, strides, padding="same", use_bias=False)(hidden)
        return layers.BatchNormalization()(hidden)

    inputs = keras.Input((image_size, image_size, 3), name="image")
    hidden = layers.ReLU()(convolve(inputs, width, 7, 2))
    hidden = layers.MaxPooling2D(3, 2, padding="same")(hidden)
    for stage in range(4):
        channels = width * 2**stage
        for block in range(2):
            strides = 2 if stage > 0 and block == 0 else 1
            shortcut = hidden if strides == 1 else convolve(hidden, channels, 1, strides)
            hidden = layers.ReLU()(convolve(hidden, channels, 3, strides))
            hidden = layers.Add()([convolve(hidden, channels, 3), shortcut])
            is_last = stage == 3 and block == 1
            hidden = layers.ReLU(name="features" if is_last else None)(hidden)
    hidden = layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(hidden), name="resnet18")


def resnet56_and_20(image_size=32):
    """ResNet-56 and ResNet-20 for small images: 9 and 3 blocks a stage, from 16 channels."""
    return (
        make_classifier(image_size, 9, 16, "resnet56"),
        make_classifier(image_size, 3, 16, "resnet20"),
    )


def resnet50_and_18(image_size=224):
    """Keras's own ResNet-50, with random weights, and ResNet-18."""
    teacher = keras.applications.ResNet50(
        weights=None, input_shape=(image_size, image_size, 3), classifier_activation=None
    )
    return teacher, make_resnet18(image_size)
