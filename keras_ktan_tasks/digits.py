"""The digits of scikit-learn: data, small classifiers, a teacher.

1,797 scanned digits of 8×8 pixels, which ship with scikit-learn.
"""

import keras
import numpy as np

TRAIN, VALIDATION = 1000, 297  # the other 500 are the test part
BATCH_SIZE = 32
STEPS_PER_EPOCH = -(-TRAIN // BATCH_SIZE)
EPOCHS = 40
LEARNING_RATE = 3e-2
TEACHER_FILTERS, STUDENT_FILTERS = (32, 64, 64), (6, 8)


def load_data():
    """The digits in a fixed order, cut into train, validation and test.

    Returns:
        Three tuples `(images, labels)`; images are `(count, 8, 8, 1)` between 0 and 1.
    """
    # Imported here: a command line is checked before, and says what to install.
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order, :, :, None] / 16.0).astype("float32")
    labels = digits.target[order].astype("int32")
    cuts = (TRAIN, TRAIN + VALIDATION)
    return list(zip(np.split(images, cuts), np.split(labels, cuts), strict=True))


def make_classifier(filters, name):
    """Convolutions with batch normalisation; the second one halves the image.

    Args:
        filters: Tuple of channel counts, one a convolution.
        name: The model's name.

    Returns:
        A `keras.Model` that returns logits. Its maps are the layers `"map_1"`, `"map_2"` and so
        on; the last one is `"features"`.
    """
    inputs = keras.Input((8, 8, 1), name="image")
    hidden = inputs
    for index, count in enumerate(filters):
        hidden = keras.layers.Conv2D(
            count, 3, strides=2 if index == 1 else 1, padding="same", use_bias=False
        )(hidden)
        hidden = keras.layers.BatchNormalization()(hidden)
        last = index == len(filters) - 1
        hidden = keras.layers.ReLU(name="features" if last else f"map_{index + 1}")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(hidden), name=name)


def make_optimizer(epochs, rate=LEARNING_RATE):
    """Adam with cosine decay."""
    decay = keras.optimizers.schedules.CosineDecay(rate, epochs * STEPS_PER_EPOCH)
    return keras.optimizers.Adam(decay)


def train_teacher(train, epochs):
    """The teacher, trained on the labels."""
    keras.utils.set_random_seed(1234)
    teacher = make_classifier(TEACHER_FILTERS, "teacher")
    teacher.compile(
        optimizer=make_optimizer(epochs, rate=4e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    teacher.fit(*train, batch_size=BATCH_SIZE, epochs=epochs, verbose=0)
    return teacher
