"""Data sets in a TeacherCache: read twice, the same both times, and kept with their labels."""

import keras
import numpy as np
import pytest
from helpers import assert_three_parts
from small_caches import COUNT, small_cache, small_teacher, vectors

from keras_ktan.utils.cached_batch import unpack

LABELS = np.arange(COUNT)


class Batches(keras.utils.PyDataset):
    """Images and labels, changed by a function where one is given."""

    def __init__(self, change=lambda read, parts: parts, size=6, weights=None):
        super().__init__()
        self.change, self.size, self.weights, self.read = change, size, weights, 0

    def __len__(self):
        return -(-COUNT // self.size)

    def __getitem__(self, index):
        rows = slice(index * self.size, (index + 1) * self.size)
        self.read += 1
        parts = (vectors()[rows], LABELS[rows])
        if self.weights is not None:
            parts = (*parts, self.weights[rows])
        return self.change(self.read, parts)


def tf_data(batch=None, **changes):
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((vectors(), LABELS))
    return data.batch(batch) if batch else data


def rows(dataset):
    """Labels with the image and the teacher's map that came with them."""
    found = {}
    for x, labels, *_ in dataset:
        inputs, _, maps = unpack(x)
        found |= {
            int(label): (image, map_)
            for label, image, map_ in zip(labels, inputs, maps["hidden"], strict=True)
        }
    return found


@pytest.mark.parametrize("kind", ["PyDataset", "batched", "one by one", "last one left out"])
def test_a_data_set_gives_what_its_arrays_give(kind, tmp_path):
    make = {
        "PyDataset": Batches,
        "batched": lambda: tf_data(6),
        "one by one": tf_data,
        "last one left out": lambda: tf_data(6).take(3),
    }[kind]
    count = 18 if kind == "last one left out" else COUNT
    cache = small_cache(tmp_path / "data set", views=None)
    cache.fill(make(), verbose=0)
    found = rows(cache.dataset(make(), batch_size=8, seed=1))
    arrays = small_cache(tmp_path / "arrays", views=None)
    arrays.fill(vectors()[:count], verbose=0)
    expected = rows(arrays.dataset(vectors()[:count], LABELS[:count], batch_size=8, seed=1))
    assert list(found) == list(expected)  # the same order, too
    for label, (image, map_) in found.items():
        np.testing.assert_array_equal(image, vectors()[label])
        np.testing.assert_array_equal(map_, expected[label][1])
    # The same images in another form are the same cache.
    assert len(rows(cache.dataset(vectors()[:count], LABELS[:count]))) == count


def test_weights_come_along_and_labels_may_be_given_beside_a_data_set_without(tmp_path):
    weights = np.linspace(0, 1, COUNT).astype("float32")
    cache = small_cache(tmp_path / "weights", views=None)
    cache.fill(Batches(weights=weights), verbose=0)
    for _, labels, weight in cache.dataset(Batches(weights=weights), batch_size=8):
        np.testing.assert_array_equal(weight, weights[labels])
    with pytest.raises(ValueError, match="labels beside a data set.*Leave `labels` out"):
        cache.dataset(Batches(weights=weights), LABELS)

    def images_alone(read, parts):
        return parts[0]

    cache = small_cache(tmp_path / "alone", views=None)
    cache.fill(Batches(images_alone), verbose=0)
    assert [len(batch) for batch in cache.dataset(Batches(images_alone))] == [1]
    found = rows(cache.dataset(Batches(images_alone), LABELS))
    np.testing.assert_array_equal(found[7][0], vectors()[7])


def shuffled(read, parts):
    return parts if read <= 4 else tuple(part[::-1] for part in parts)


def one_label_less(read, parts):
    return parts[0], parts[1][1:]


class EndlessBatches(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return vectors(), LABELS


ODD = {
    "another order": (lambda: Batches(shuffled), ("another order", "the same each", "shuffle")),
    "shuffled": (
        lambda: tf_data().shuffle(COUNT, seed=3),
        ("another order", "the same each time", "`TeacherCache.dataset` shuffles"),
    ),
    "a generator": (
        lambda: (image for image in vectors()),
        ("generator, which can be read once", "PyDataset", "into arrays"),
    ),
    "a function": (lambda: vectors, ("function", "arrays", "PyDataset")),
    "endless": (lambda: tf_data().repeat(), ("images without an end", "finite", "take(n)")),
    "endless batches": (
        lambda: EndlessBatches(),
        ("images without an end", "finite", "__len__"),
    ),
    "fewer labels": (
        lambda: Batches(one_label_less),
        ("(6, 3), (5,)", "as many labels", "Resize"),
    ),
    "text": (
        lambda: tf_data(4).map(lambda image, label: (image, label, np.array(["a"] * 4))),
        ("object", "numbers", "Encode text"),
    ),
    "other axes": (
        lambda: tf_data(4).batch(2),
        ("(2, 4, 3)", "(None, 3)", "`map` the images"),
    ),
    "unlike shapes": (
        lambda: Batches(lambda read, parts: (parts[0][:, :read], parts[1])),
        ("(6, 2)", "same for every image", "Resize or pad"),
    ),
    "dicts": (
        lambda: tf_data().map(lambda image, label: {"image": image, "label": label}),
        ("['image', 'label']", "tuples of images", "as_supervised=True"),
    ),
    "empty": (lambda: tf_data(4).take(0), ("without images", "at least one", "Fill it")),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_data_set_that_cannot_be_kept_is_refused(kind, tmp_path):
    make, words = ODD[kind]
    with pytest.raises(ValueError) as error:
        small_cache(tmp_path).fill(make(), verbose=0)
    assert_three_parts(error.value, *words)
    assert not list(tmp_path.glob("key.json"))


def test_an_endless_data_set_that_does_not_say_so_ends_at_the_disks_end(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 100_000})
    monkeypatch.setattr("keras_ktan.cache.files.shutil.disk_usage", lambda path: usage)

    class Endless(Batches):
        def __len__(self):
            return 10**9

    with pytest.raises(ValueError, match=r"more than [\d,]+ images.*goes on.*take\(n\)"):
        small_cache(tmp_path).fill(Endless(lambda read, parts: (vectors(), LABELS)), verbose=0)


def test_another_data_set_than_the_one_that_was_kept_is_refused(tmp_path):
    cache = small_cache(tmp_path, views=None)
    cache.fill(Batches(), verbose=0)
    with pytest.raises(ValueError, match=r"\(images: "):
        cache.dataset(Batches(lambda read, parts: (-parts[0], parts[1])))

    def other_labels():
        return Batches(lambda read, parts: (parts[0], parts[1] + 1))

    with pytest.raises(ValueError, match="does not keep these images and labels.*`fill"):
        cache.dataset(other_labels())
    # The images are the same: their labels alone are kept anew, beneath those who read.
    reading = cache.dataset(Batches())
    cache.fill(other_labels(), verbose=0)
    assert sorted(rows(cache.dataset(other_labels()))) == list(range(1, COUNT + 1))
    assert sorted(rows(reading)) == list(range(COUNT))


def test_arrays_first_and_then_the_data_set_of_the_same_images(tmp_path, monkeypatch):
    cache = small_cache(tmp_path, views=None)
    cache.fill(vectors(), verbose=0)
    with pytest.raises(ValueError, match="does not keep"):
        cache.dataset(Batches())
    monkeypatch.setattr(
        "keras_ktan.cache.teacher_forward.TeacherForward.compute",
        lambda *arguments: pytest.fail("the teacher runs"),
    )
    cache.fill(Batches(), verbose=0)
    assert len(rows(cache.dataset(Batches()))) == COUNT


def test_a_kept_label_that_changed_on_the_disk_is_refused(tmp_path):
    cache = small_cache(tmp_path, views=None)
    cache.fill(Batches(), verbose=0)
    (path,) = tmp_path.glob("*-data_1.npy")
    kept = np.load(path, mmap_mode="r+")
    kept[3] = 0
    kept.flush()
    with pytest.raises(ValueError, match="data_1.npy' is damaged.*Delete the directory"):
        cache.dataset(Batches())


def test_dicts_of_inputs_by_name_one_by_one(tmp_path):
    tf = pytest.importorskip("tensorflow")
    parts = {"left": keras.Input((3,), name="left"), "right": keras.Input((3,), name="right")}
    joined = keras.layers.Concatenate(name="hidden")([parts["left"], parts["right"]])
    teacher = keras.Model(parts, keras.layers.Dense(2)(joined))
    images = {"left": vectors(), "right": -vectors()}
    data = tf.data.Dataset.from_tensor_slices((images, LABELS))
    cache = small_cache(tmp_path, teacher=teacher, views=None)
    cache.fill(data, verbose=0)
    for label, (_, map_) in rows_of_dicts(cache.dataset(data)).items():
        np.testing.assert_array_equal(map_, [*vectors()[label], *-vectors()[label]])


def rows_of_dicts(dataset):
    return {
        int(label): (None, map_)
        for x, labels in dataset
        for label, map_ in zip(labels, unpack(x)[2]["hidden"], strict=True)
    }


def test_images_of_a_cache_are_not_filled_into_another(tmp_path):
    cache = small_cache(tmp_path / "one")
    cache.fill(vectors(), verbose=0)
    with pytest.raises(ValueError, match="what `TeacherCache.dataset` made.*images themselves"):
        small_cache(tmp_path / "two", teacher=small_teacher()).fill(cache.dataset(vectors()))
