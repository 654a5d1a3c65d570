"""CIFAR-10: loaded, halved, split, augmented."""

import keras
import numpy as np


def load_cifar10(data_dir=None):
    """CIFAR-10 through TFDS; downloaded only where it is not prepared yet.

    Args:
        data_dir: Folder of TFDS data sets. `None`: TFDS's own.

    Returns:
        A tuple `(train, test, is_jpeg)`: two tuples `(images, labels)` of arrays and whether
        the images are kept as JPEG.
    """
    # Imported here: the other functions need no TFDS.
    import tensorflow_datasets as tfds

    builder = tfds.builder("cifar10", data_dir=data_dir)
    if not builder.is_prepared():
        print(f"CIFAR-10 is not ready in {builder.data_dir}: TFDS downloads it ...", flush=True)
        builder.download_and_prepare()
    train, test = tfds.as_numpy(
        builder.as_dataset(split=["train", "test"], batch_size=-1, as_supervised=True)
    )
    undecoded = builder.as_dataset(split="test", decoders={"image": tfds.decode.SkipDecoding()})
    first = next(iter(undecoded.take(1)))["image"].numpy()
    return train, test, first.startswith(b"\xff\xd8")  # the mark of a JPEG file


def halve(images):
    """Means of 2×2 pixels, rounded to whole numbers, halves up.

    Args:
        images: Array `(count, height, width, channels)` of uint8, height and width even.

    Returns:
        Array `(count, height / 2, width / 2, channels)` of uint8.
    """
    sums = sum(images[:, i::2, j::2].astype("uint16") for i in (0, 1) for j in (0, 1))
    return ((sums + 2) // 4).astype("uint8")


def split_train(train, train_images, validation_images):
    """Cut training and validation images from the train split.

    The order is fixed, and the validation images are its end: they stay the same when the
    number of training images changes.

    Args:
        train: Tuple `(images, labels)`.
        train_images: Int.
        validation_images: Int, 1 or more.

    Returns:
        Two tuples `(images, labels)`.

    Raises:
        ValueError: If there are fewer images than asked for.
    """
    images, labels = train
    if train_images + validation_images > len(labels):
        raise ValueError(
            f"Received {train_images} training and {validation_images} validation images. "
            f"Expected {len(labels)} or fewer together. Lower one of them."
        )
    order = np.random.default_rng(0).permutation(len(labels))
    parts = order[:train_images], order[-validation_images:]
    return [(images[part], labels[part].astype("int32")) for part in parts]


def augment(images, seed, crops, mirrors=True):
    """Mirror half of the images and shift each by up to an eighth of its size.

    Args:
        images: Tensor `(batch, size, size, channels)`.
        seed: Integer tensor of shape `(2,)`; the same seed gives the same images.
        crops: Whether to shift. The border is filled with the image's own reflection.
        mirrors: Whether to mirror.

    Returns:
        Tensor of the same shape and type.
    """
    import tensorflow as tf

    draws = tf.random.stateless_uniform((tf.shape(images)[0], 3), seed)
    if mirrors:
        is_mirrored = (draws[:, 0] < 0.5)[:, None, None, None]
        images = tf.where(is_mirrored, images[:, :, ::-1], images)
    if crops:
        size = images.shape[1]
        margin = size // 8
        frame = (margin, margin)
        padded = tf.pad(images, ((0, 0), frame, frame, (0, 0)), "REFLECT")
        corners = tf.cast(draws[:, 1:] * (2 * margin + 1), tf.int32)
        rows, columns = (corners[:, axis, None] + tf.range(size) for axis in (0, 1))
        images = tf.gather(padded, rows, axis=1, batch_dims=1)
        images = tf.gather(images, columns, axis=2, batch_dims=1)
    return images


def make_training_data(images, labels, batch_size, seed, crops, mirrors=True):
    """Shuffled, augmented batches that are new in each epoch and the same for each seed.

    A data set counts its epochs, so each run needs one of its own.

    Args:
        images: Array of uint8.
        labels: Array.
        batch_size: Int.
        seed: Int. It becomes Keras's and TensorFlow's global seed.
        crops: See `augment`.
        mirrors: See `augment`.

    Returns:
        A `tf.data.Dataset` of `(images, labels)`, images as float32 from 0 to 255.
    """
    import tensorflow as tf

    # tf.data mixes the global seed into an operation's own; without this line a resumed run
    # would not see the batches of an uninterrupted one.
    keras.utils.set_random_seed(seed)
    with tf.device("CPU"):
        images, labels = tf.constant(images), tf.constant(labels)

    def load(indices, augmentation_seed):
        batch = augment(tf.gather(images, indices), augmentation_seed, crops, mirrors)
        return tf.cast(batch, tf.float32), tf.gather(labels, indices)

    count = len(labels)
    indices = tf.data.Dataset.range(count).shuffle(count, seed=seed).batch(batch_size)
    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2)
    return tf.data.Dataset.zip(indices, seeds).map(load).prefetch(2)
