"""Residual classifiers of chosen depth and width, for teachers and students alike."""

import keras


def make_classifier(image_size, depth, width, name, classes=10):
    """A residual network of three stages; the second and the third halve the map.

    Args:
        image_size: Height and width of the images.
        depth: Residual blocks a stage.
        width: Channels of the first stage; each further stage has twice as many.
        name: The model's name.
        classes: Number of logits.

    Returns:
        A `keras.Model` from pixels of 0 to 255 to logits. Its stages end in the ReLUs `"stage_1"`,
        `"stage_2"` and, before the pooling, `"features"`.
    """

    def convolve(hidden, channels, size, strides=1):
        hidden = keras.layers.Conv2D(
            channels, size, strides, padding="same", use_bias=False, kernel_initializer="he_normal"
        )(hidden)
        return keras.layers.BatchNormalization()(hidden)

    inputs = keras.Input((image_size, image_size, 3), name="image")
    hidden = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    hidden = keras.layers.ReLU()(convolve(hidden, width, 3))
    for stage in range(3):
        channels = width * 2**stage
        for block in range(depth):
            strides = 2 if stage > 0 and block == 0 else 1
            shortcut = hidden if strides == 1 else convolve(hidden, channels, 1, strides)
            hidden = keras.layers.ReLU()(convolve(hidden, channels, 3, strides))
            hidden = keras.layers.Add()([convolve(hidden, channels, 3), shortcut])
            output_name = f"stage_{stage + 1}" if stage < 2 else "features"
            is_last = block == depth - 1
            hidden = keras.layers.ReLU(name=output_name if is_last else None)(hidden)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(hidden), name=name)
