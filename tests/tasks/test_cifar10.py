"""CIFAR-10 as the examples and benchmarks read it, and their residual networks."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ktan_tasks.cifar10 import (
    augment,
    halve,
    load_cifar10,
    make_training_data,
    split_train,
)
from keras_ktan_tasks.residual_network import make_classifier

pytestmark = pytest.mark.graph


def parameters(depth, width):
    """Of the network by hand: convolutions without bias, 4 numbers a channel to normalise."""

    def convolution(size, taken, made):
        return size * size * taken * made + 4 * made

    total = convolution(3, 3, width)
    for taken, made in ((width, width), (width, 2 * width), (2 * width, 4 * width)):
        total += convolution(3, taken, made) + (2 * depth - 1) * convolution(3, made, made)
        total += convolution(1, taken, made) if made > taken else 0
    return total + 4 * width * 10 + 10


@pytest.mark.parametrize(
    "size, depth, width, count, shape",
    [
        (16, 2, 24, 394_354, (4, 4, 96)),  # the default teacher
        (16, 1, 8, 20_290, (4, 4, 32)),  # the default student
        (32, 3, 2, None, (8, 8, 8)),
    ],
)
def test_the_network_has_the_size_that_was_asked_for(size, depth, width, count, shape):
    model = make_classifier(size, depth, width, "some_name")
    assert model.count_params() == parameters(depth, width) == (count or parameters(depth, width))
    features = model.get_layer("features")
    assert isinstance(features, keras.layers.ReLU)
    assert features.output.shape == (None, *shape)
    assert model.output_shape == (None, 10)
    assert model.name == "some_name"
    # No way around the tapped map, so that the student's own head can be the objective.
    keras.Model(features.output, model.output)


def test_a_network_sees_the_whole_range_of_pixels_as_minus_one_to_one():
    model = make_classifier(16, 1, 1, "model")
    scale = next(layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling))
    np.testing.assert_allclose(scale(np.array([0.0, 127.5, 255.0])), [-1, 0, 1], atol=1e-6)


def test_means_of_two_by_two_pixels_by_hand():
    image = np.array(
        [[0, 1, 255, 255], [2, 3, 255, 255], [10, 20, 0, 0], [30, 40, 0, 1]], dtype="uint8"
    )
    images = np.stack([image, image[::-1]])[..., None].repeat(3, axis=-1)
    images[..., 1] = 255 - images[..., 1]
    halved = halve(images)
    # 1.5 is rounded up, 0.25 down.
    np.testing.assert_array_equal(halved[0, :, :, 0], [[2, 255], [25, 0]])
    np.testing.assert_array_equal(halved[1, :, :, 2], [[25, 0], [2, 255]])
    np.testing.assert_array_equal(halved[0, :, :, 1], [[254, 0], [230, 255]])
    assert halved.dtype == np.uint8


def test_validation_images_are_apart_and_stay_when_there_is_more_to_train_on():
    everything = (np.arange(20), np.arange(20) + 100)
    (images, labels), (kept_images, kept_labels) = split_train(everything, 6, 4)
    more, kept_again = split_train(everything, 16, 4)
    assert set(images) < set(more[0]) and len(images) == 6
    np.testing.assert_array_equal(kept_images, kept_again[0])
    assert not set(more[0]) & set(kept_images)
    np.testing.assert_array_equal(labels, images + 100)
    np.testing.assert_array_equal(kept_labels, kept_images + 100)
    with pytest.raises(ValueError, match="Received 17 training and 4 validation.*Expected 20"):
        split_train(everything, 17, 4)


def picture(size, channels=2):
    """One image whose pixels all differ."""
    return np.arange(size * size * channels, dtype="uint8").reshape(1, size, size, channels)


def test_without_crops_half_of_the_images_are_mirrored_and_nothing_else():
    image = picture(8)
    result = augment(tf.constant(image.repeat(200, axis=0)), (1, 2), crops=False).numpy()
    same = (result == image).all(axis=(1, 2, 3))
    mirrored = (result == image[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 70 < mirrored.sum() < 130


def test_crops_move_an_image_by_up_to_an_eighth_in_every_direction():
    image = picture(8)
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    views = [
        padded[0, row : row + 8, column : column + 8][:, ::mirror]
        for row in range(3)
        for column in range(3)
        for mirror in (1, -1)
    ]
    result = augment(tf.constant(image.repeat(400, axis=0)), (1, 2), crops=True).numpy()
    # A mirrored image is shifted after the mirror, which is the mirror of another shift.
    seen = [[(one == view).all() for view in views].index(True) for one in result]
    assert set(seen) == set(range(18))
    assert result.dtype == np.uint8


def batches(data):
    return [(images.numpy(), labels.numpy()) for images, labels in data]


def test_a_seed_gives_the_same_batches_in_every_run_and_new_ones_in_every_epoch():
    labels = np.arange(10)
    # Each label's image has values that no other has: no mix-up stays unseen.
    images = (20 * labels[:, None, None, None] + picture(4, 1)).astype("uint8")
    epochs = []
    for seed, global_seed in ((3, 0), (3, 1), (4, 0)):
        keras.utils.set_random_seed(global_seed)
        data = make_training_data(images, labels, 4, seed, crops=True)
        epochs.append([batches(data), batches(data)])
    for first, second in zip(*epochs[:2], strict=True):
        for (left, left_labels), (right, right_labels) in zip(first, second, strict=True):
            np.testing.assert_array_equal(left, right)
            np.testing.assert_array_equal(left_labels, right_labels)
    order = [[np.concatenate([batch[1] for batch in epoch]) for epoch in run] for run in epochs[1:]]
    assert (order[0][0] != order[0][1]).any()
    assert (order[0][0] != order[1][0]).any()
    for epoch in epochs[0]:
        assert [len(batch[1]) for batch in epoch] == [4, 4, 2]
        drawn_images, drawn_labels = join(epoch)
        assert sorted(drawn_labels) == list(labels)
        assert drawn_images.dtype == np.float32
        for image, label in zip(drawn_images, drawn_labels, strict=True):
            assert 20 * label <= image.min() and image.max() < 20 * label + 16


def test_an_epoch_augments_in_its_own_way():
    # All images are alike, so only mirroring and cropping can make two epochs differ.
    data = make_training_data(picture(8).repeat(12, axis=0), np.zeros(12), 4, 0, crops=True)
    first, second = (np.concatenate([images for images, _ in batches(data)]) for _ in range(2))
    assert (first != second).any()
    assert (first[:4] != first[4:8]).any()


def join(epoch):
    """All images and all labels of an epoch."""
    return [np.concatenate(parts) for parts in zip(*epoch, strict=True)]


def test_ready_images_are_read_without_a_download(monkeypatch):
    """Against a stand-in for TFDS, as no test may need the data."""
    calls = []

    class Builder:
        def __init__(self, name, data_dir):
            calls.append((name, data_dir))
            self.data_dir = data_dir
            self.first = b"\xff\xd8\xff\xe0" if data_dir == "jpeg" else b"\x89PNG"

        def is_prepared(self):
            return calls[-1][1] != "empty"

        def download_and_prepare(self):
            calls.append("download")

        def as_dataset(self, split, decoders=None, **how):
            if decoders:
                return tf.data.Dataset.from_tensors({"image": self.first})
            return list(split)

    class Decode:
        SkipDecoding = object

    class Stand:
        builder = Builder
        decode = Decode

        @staticmethod
        def as_numpy(parts):
            return parts

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", Stand)
    assert load_cifar10("jpeg") == ("train", "test", True)
    assert load_cifar10("png") == ("train", "test", False)
    assert "download" not in calls
    load_cifar10("empty")
    assert calls[-1] == "download"
    load_cifar10()
    assert calls[-1] == ("cifar10", None)
