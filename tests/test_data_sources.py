"""The same examples in the same order, from whatever Keras reads, give the same weights."""

import importlib.util

import keras
import numpy as np
import pytest
from models import assert_changed, image_data, image_model, loss_from_logits, snapshot

from keras_ktan import FeatureDiscriminator, FeaturePair, KTANDistiller

BATCH_SIZE, COUNT = 4, 10  # batches of 4, 4 and 2


def examples():
    """Images, labels and weights of the examples."""
    return (*image_data(COUNT), np.linspace(0.2, 2.0, COUNT).astype("float32"))


def numpy_arrays():
    images, labels, weights = examples()
    return {"x": images, "y": labels, "sample_weight": weights, "batch_size": BATCH_SIZE}


def py_dataset():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return -(-COUNT // BATCH_SIZE)

        def __getitem__(self, index):
            rows = slice(index * BATCH_SIZE, (index + 1) * BATCH_SIZE)
            return tuple(array[rows] for array in examples())

    return {"x": Batches()}


def generator():
    def batches():
        while True:
            for start in range(0, COUNT, BATCH_SIZE):
                yield tuple(array[start : start + BATCH_SIZE] for array in examples())

    return {"x": batches(), "steps_per_epoch": -(-COUNT // BATCH_SIZE)}


def tf_data():
    import tensorflow as tf

    return {"x": tf.data.Dataset.from_tensor_slices(examples()).batch(BATCH_SIZE)}


def torch_data_loader():
    import torch

    tensors = [torch.from_numpy(array) for array in examples()]
    dataset = torch.utils.data.TensorDataset(*tensors)
    return {"x": torch.utils.data.DataLoader(dataset, batch_size=BATCH_SIZE)}


def needing(source, package):
    missing = importlib.util.find_spec(package) is None
    skip = pytest.mark.skipif(missing, reason=f"{package} is not installed")
    return pytest.param(source, marks=skip, id=source.__name__)


def weights_after_training(source):
    distiller = KTANDistiller(
        image_model(6, "teacher", batch_norm=False, seed=1),
        image_model(3, "student", batch_norm=False, seed=2),
        FeaturePair("features", "features", discriminator=FeatureDiscriminator(filters=4)),
    )
    distiller.compile(
        keras.optimizers.SGD(0.1), loss=loss_from_logits(), adversarial_loss_weight=0.5
    )
    start = snapshot(distiller.student)
    distiller.fit(**source(), epochs=2, shuffle=False, verbose=0)
    assert int(distiller.optimizer.iterations) == 6
    assert_changed(start, snapshot(distiller.student))
    return snapshot(
        distiller.student, *distiller.teacher_to_student_layers, *distiller.discriminators
    )


@pytest.fixture(scope="module")
def from_numpy():
    keras.utils.set_random_seed(0)
    return weights_after_training(numpy_arrays)


@pytest.mark.slow
@pytest.mark.promise(7)
@pytest.mark.parametrize(
    "source",
    [
        py_dataset,
        generator,
        needing(tf_data, "tensorflow"),
        needing(torch_data_loader, "torch"),
    ],
)
def test_a_source_gives_the_weights_that_numpy_arrays_give(source, from_numpy):
    found = weights_after_training(source)
    for one, other in zip(from_numpy, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-7)
