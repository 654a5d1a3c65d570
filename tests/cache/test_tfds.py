"""A data set of TensorFlow Datasets in a `TeacherCache`: prepared on the disk, read as users do."""

import keras
import numpy as np
import pytest
from helpers import assert_three_parts, to_numpy

from keras_ktan import FeaturePair, KTANDistiller, TeacherCache
from keras_ktan.utils.cached_batch import unpack

L = keras.layers
COUNT = 12
# The labels number the images.
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 6, 3)).astype("uint8")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set on the disk as TFDS keeps them: images, labels, and boxes that are not wanted."""
    tf = pytest.importorskip("tensorflow")
    tfds = pytest.importorskip("tensorflow_datasets", reason="extra: data")
    folder = tmp_path_factory.mktemp("tfds") / "squares" / "1.0.0"
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(6, 6, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=COUNT),
            "objects": tfds.features.Sequence({"bbox": tfds.features.BBoxFeature()}),
        }
    )
    split = tfds.core.SplitInfo(
        name="train",
        shard_lengths=[COUNT],
        num_bytes=0,
        filename_template=tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name="squares", split="train", filetype_suffix="tfrecord"
        ),
    )
    with tf.io.TFRecordWriter(str(folder / "squares-train.tfrecord-00000-of-00001")) as writer:
        for number, image in enumerate(IMAGES):
            example = {"image": image, "label": number, "objects": {"bbox": []}}
            writer.write(features.serialize_example(features.encode_example(example)))
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=[split],
        supervised_keys=("image", "label"),
    )
    return tfds.builder_from_directory(folder)


def classifier(filters, name):
    keras.utils.set_random_seed(filters)
    inputs = keras.Input((6, 6, 3), name="image")
    hidden = L.Rescaling(1 / 255.0)(inputs)
    hidden = L.Conv2D(filters, 3, activation="relu", name="features")(hidden)
    pooled = L.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, L.Dense(COUNT, name="logits")(pooled), name=name)


def make_distiller():
    distiller = KTANDistiller(
        classifier(5, "teacher"), classifier(3, "student"), FeaturePair("features", "features")
    )
    distiller.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return distiller


FORMS = {
    "one by one": lambda builder: builder.as_dataset(split="train", as_supervised=True),
    "a part in batches": lambda builder: builder.as_dataset(
        split="train[25%:]", as_supervised=True, batch_size=5
    ),
    "dicts, mapped": lambda builder: builder.as_dataset(split="train").map(
        lambda example: (example["image"], example["label"])
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_kept_maps_are_the_teachers_own_and_a_step_from_them_is_a_plain_step(
    form, prepared, tmp_path
):
    data, distiller = FORMS[form](prepared), make_distiller()
    cache = TeacherCache(distiller, tmp_path, views={"turned": lambda images: images[:, ::-1]})
    cache.fill(data, verbose=0)
    kept = cache.dataset(data, batch_size=COUNT, seed=0)
    ((x, labels),) = list(kept)
    images, outputs, maps = unpack(x)
    assert len(set(labels)) == len(labels) == (9 if "a part" in form else COUNT)
    # PNG loses nothing: these are the arrays that the data set was made of.
    turned = IMAGES[labels][:, ::-1]
    np.testing.assert_array_equal(images, turned)
    inner = keras.Model(distiller.teacher.inputs, distiller.teacher.get_layer("features").output)
    np.testing.assert_allclose(maps["features"], to_numpy(inner(turned)), rtol=1e-5, atol=1e-6)
    theirs = to_numpy(distiller.teacher(turned))
    np.testing.assert_allclose(outputs["0"], theirs, rtol=1e-5, atol=1e-6)
    logs = distiller.fit(kept, epochs=1, verbose=0).history
    plain = make_distiller().train_on_batch(turned, labels, return_dict=True)
    assert logs.keys() == plain.keys()
    for name, value in plain.items():
        np.testing.assert_allclose(logs[name], [value], rtol=1e-4, err_msg=name)


REFUSED = {
    "dicts": (
        lambda builder: builder.as_dataset(split="train"),
        ("['image', 'label', 'objects']", "tuples of images", "as_supervised=True"),
    ),
    "shuffled": (
        lambda builder: builder.as_dataset(split="train", as_supervised=True).shuffle(COUNT),
        ("another order", "the same each", "shuffle"),
    ),
    "boxes": (
        lambda builder: builder.as_dataset(split="train").map(
            lambda example: {"image": example["image"], "objects": example["objects"]}
        ),
        ("['image', 'objects']", "tuples of images", "`map("),
    ),
}


@pytest.mark.parametrize("form", REFUSED)
def test_a_form_that_cannot_be_kept_says_what_to_write(form, prepared, tmp_path):
    make, words = REFUSED[form]
    with pytest.raises(ValueError) as error:
        TeacherCache(make_distiller(), tmp_path).fill(make(prepared), verbose=0)
    assert_three_parts(error.value, *words)
