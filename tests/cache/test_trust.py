"""Whose targets a batch holds, and what they are worth: never another teacher's, never spoilt."""

import threading

import keras
import numpy as np
import pytest
from helpers import assert_three_parts
from models import assert_changed, assert_same, loss_from_logits, snapshot
from small_caches import COUNT, array_file, small_cache, small_teacher, vectors

from keras_ktan import FeaturePair, KTANDistiller, TeacherCache
from keras_ktan.cache.key import sample_of
from keras_ktan.utils.cached_batch import unpack

LABELS = np.arange(COUNT) % 2


def make_distiller(teacher, **arguments):
    student = small_teacher(4, seed=1, name="student")
    distiller = KTANDistiller(teacher, student, FeaturePair("hidden", "hidden"))
    distiller.compile(
        keras.optimizers.SGD(0.1),
        loss=loss_from_logits(),
        adversarial_loss_weight=0,
        jit_compile=False,
        **arguments,
    )
    return distiller


class Wrapped(keras.utils.PyDataset):
    """A data set that hands a cache's batches on."""

    def __init__(self, dataset):
        super().__init__()
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return self.dataset[index]


def generator(dataset):
    while True:
        yield from (dataset[index] for index in range(len(dataset)))


WAYS = {
    "a wrapper": lambda distiller, data: distiller.fit(Wrapped(data), verbose=0),
    "a generator": lambda distiller, data: distiller.fit(
        generator(data), steps_per_epoch=2, verbose=0
    ),
    "train_on_batch": lambda distiller, data: distiller.train_on_batch(*data[0]),
}


@pytest.mark.graph
@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=[] if way == "a generator" else [pytest.mark.promise(14)])
        for way in WAYS
    ],
)
def test_another_teachers_targets_do_not_pass_while_the_step_is_traced(way, tmp_path):
    others = small_cache(tmp_path, teacher=small_teacher(seed=5))
    others.fill(vectors(), verbose=0)
    distiller = make_distiller(small_teacher())
    before = snapshot(distiller, distiller.optimizer)
    with pytest.raises(ValueError, match="other weights or layers.*distiller's own.*Fill a cache"):
        WAYS[way](distiller, others.dataset(vectors(), LABELS, batch_size=10))
    if way == "train_on_batch":  # Keras on JAX gives no weights back after an error in `fit`
        assert_same(before, snapshot(distiller, distiller.optimizer))
    # Another object with the same weights is the same teacher.
    own = small_cache(tmp_path / "own", teacher=small_teacher())
    own.fill(vectors(), verbose=0)
    fresh = make_distiller(small_teacher())
    before = snapshot(fresh.student)
    WAYS[way](fresh, own.dataset(vectors(), LABELS, batch_size=10))
    assert_changed(before, snapshot(fresh.student))


def test_the_teacher_of_now_counts_and_not_the_one_of_the_first_step(tmp_path):
    distiller = make_distiller(small_teacher())
    first = small_cache(tmp_path / "first", teacher=distiller.teacher)
    first.fill(vectors(), verbose=0)
    distiller.train_on_batch(*first.dataset(vectors(), LABELS)[0])
    distiller.teacher.set_weights(small_teacher(seed=7).get_weights())
    second = small_cache(tmp_path / "second", teacher=distiller.teacher)
    second.fill(vectors(), verbose=0)
    distiller.train_on_batch(*second.dataset(vectors(), LABELS)[0])
    with pytest.raises(ValueError, match="made from something else"):
        first.dataset(vectors(), LABELS)


def test_a_sample_is_spread_over_the_data_and_grows_with_it():
    assert list(sample_of(5)) == [0, 1, 2, 3, 4]
    assert len(sample_of(64)) == len(sample_of(65)) == len(sample_of(4096)) == 64
    large = sample_of(1_000_000)
    np.testing.assert_array_equal(large // 1000, np.arange(1000))  # one of each thousand
    np.testing.assert_array_equal(large, sample_of(1_000_000))
    assert 350 < np.mean(large % 1000) < 650


def view_changed_from(row, count, images):
    """A view that sees the images from a row on otherwise; it knows them by their first number."""
    changed = set(images[row : row + count, 0].tolist())

    def view(batch):
        return np.where(np.isin(batch[:, :1], list(changed)), -batch, batch)

    return view


@pytest.mark.parametrize("changed", ["view", "teacher"])
def test_half_of_the_targets_wrong_are_seen_and_what_remains_possible(changed, tmp_path):
    images = vectors(400)

    def cache(row, count):
        view = view_changed_from(row, count, images)
        if changed == "view":
            return small_cache(tmp_path, views={"view": view}, batch_size=64)
        teacher = small_teacher()
        call = teacher.call
        teacher.call = lambda inputs, **arguments: call(
            keras.ops.convert_to_tensor(view(keras.ops.convert_to_numpy(inputs))), **arguments
        )
        return TeacherCache(teacher, tmp_path, batch_size=64)

    cache(0, 0).fill(images, verbose=0)
    with pytest.raises(ValueError, match="what the views give|is not what the cache"):
        cache(200, 200).dataset(images)
    # 13 images in a row meet the sample of one in 6.25; a single one may lie beside it.
    with pytest.raises(ValueError, match="what the views give|is not what the cache"):
        cache(100, 13).dataset(images)
    unseen = next(row for row in range(400) if row not in sample_of(400))
    cache(unseen, 1).dataset(images)


def test_every_view_of_the_teacher_is_probed(tmp_path):
    teacher = small_teacher()
    cache = small_cache(tmp_path, teacher=teacher)
    cache.fill(vectors(), verbose=0)
    call = teacher.call

    def odd_when_turned(inputs, **arguments):
        array = keras.ops.convert_to_numpy(inputs)
        turned = not any(np.array_equal(array[0], image) for image in vectors())
        return call(-inputs if turned else inputs, **arguments)

    teacher.call = odd_when_turned
    with pytest.raises(ValueError, match="is not what the cache"):
        cache.dataset(vectors())


def test_the_weights_are_hashed_once_for_a_data_set_and_once_for_a_training(tmp_path, monkeypatch):
    import keras_ktan.cache.contents as contents
    import keras_ktan.introspection.model_digest as model_digest

    distiller = make_distiller(small_teacher())
    cache = small_cache(tmp_path, teacher=distiller.teacher)
    cache.fill(vectors(), verbose=0)
    hashed = []
    digest = model_digest.weights_digest

    def counted(*arguments):
        hashed.append(1)
        return digest(*arguments)

    monkeypatch.setattr(contents, "weights_digest", counted)
    monkeypatch.setattr(model_digest, "weights_digest", counted)
    dataset = cache.dataset(vectors(), LABELS, batch_size=10)
    assert len(hashed) == 1
    distiller.fit(dataset, epochs=2, verbose=0)
    assert len(hashed) == 2


def test_files_are_verified_unless_told_otherwise(tmp_path):
    cache = small_cache(tmp_path)
    cache.fill(vectors(), verbose=0)
    path = array_file(tmp_path, "view_0_array_1")
    content = path.read_bytes()
    # Of image 19 in the first view: the sample takes the images in turns from the views.
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="something else in rows 16 to 19"):
        cache.dataset(vectors())
    assert len(cache.dataset(vectors(), verify=False)) == 1


def test_several_workers_give_the_same_batches_as_one(tmp_path):
    readers = set()

    def view(batch):
        readers.add(threading.current_thread().name)
        return batch

    cache = small_cache(tmp_path, views={"view": view, "turned": lambda batch: batch[:, ::-1]})
    cache.fill(vectors(), verbose=0)
    one, three = (
        cache.dataset(vectors(), LABELS, batch_size=3, workers=workers) for workers in (1, 3)
    )
    readers.clear()
    three[0]  # Keras looks at a batch before the first epoch
    for epoch in (1, 0, 4):
        one.begin_epoch(epoch)
        three.begin_epoch(epoch)
        for expected, found in zip(one, three, strict=True):
            for left, right in zip(
                keras.tree.flatten(expected), keras.tree.flatten(found), strict=True
            ):
                np.testing.assert_array_equal(left, right)
    assert len(readers) > 1
    with pytest.raises(ValueError, match="workers=0.*1 or more"):
        cache.dataset(vectors(), workers=0)


def output_teacher(activation, scale=1.0):
    """A teacher whose outputs are an activation of its inputs, times a number."""
    inputs = keras.Input((3,))
    scaled = keras.layers.Rescaling(scale, name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Activation(activation)(scaled))


def fill_half(directory, teacher, layer_names=None):
    small_cache(
        directory, teacher=teacher, layer_names=layer_names, precision="float16", batch_size=COUNT
    ).fill(vectors(), verbose=0)


def test_half_precision_that_loses_small_numbers_is_refused(tmp_path):
    # Of three probabilities the smallest is often below 6e-8, which half precision takes for 0.
    with pytest.raises(ValueError) as error:
        fill_half(tmp_path / "softmax", output_teacher("softmax", scale=20.0))
    assert_three_parts(
        error.value, "outputs:0 for images 0 to 19", "Expected at most 0.5%", "precision='float32'"
    )
    fill_half(tmp_path / "logits", output_teacher("linear", scale=20.0))
    fill_half(tmp_path / "even", output_teacher("softmax"))
    # A map of small numbers only is lost; a few beside large ones are not.
    with pytest.raises(ValueError, match="maps:hidden .* loses .* of its numbers' size"):
        fill_half(tmp_path / "map", output_teacher("softmax", scale=1e-7), ["hidden"])


def test_the_loss_of_half_precision_is_the_mean_relative_error(tmp_path):
    from keras_ktan.cache.rounding import rounded

    entry = {"name": "outputs:0", "view": "plain", "dtype": "float16"}
    # 1.0 stays, 2^-26 becomes 0: one number of 250 lost is 0.4 %, one of 150 is 0.67 %.
    values = np.ones((10, 25), "float32")
    values[0, 0] = 2.0**-26
    assert rounded(values, entry, 0)[0, 0] == 0
    with pytest.raises(ValueError, match="loses 0.7%"):
        rounded(values[:6], entry, 0)


def test_images_that_are_no_numbers_are_refused_though_the_teacher_hides_them(tmp_path):
    images = vectors()
    images[9, 1] = np.nan
    inputs = keras.Input((3,))
    hidden = keras.layers.Lambda(lambda x: keras.ops.where(x > 0, x, 0.0), name="hidden")(inputs)
    teacher = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    with pytest.raises(ValueError) as error:
        small_cache(tmp_path, teacher=teacher, views=None).fill(images, verbose=0)
    assert_three_parts(error.value, "images 9 to 9 in view 'plain'", "Expected numbers", "Look at")


def masking_teacher(masked):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="relu", name="hidden")(inputs)
    below_0 = keras.initializers.Constant(-9.0)  # seen to be no probabilities
    logits = keras.layers.Dense(2, bias_initializer=below_0)(hidden)
    mask = np.where(masked, -np.inf, 0.0).astype("float32")
    masked = keras.layers.Lambda(lambda x: keras.ops.add(x, mask), name="masked")(logits)
    return keras.Model(inputs, masked, name="teacher")


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_teacher_that_masks_classes_trains_from_a_cache_as_without(precision, tmp_path):
    students = []
    for cached in (True, False):
        keras.utils.set_random_seed(2)
        distiller = make_distiller(masking_teacher([False, True]))
        cache = small_cache(tmp_path, teacher=distiller.teacher, precision=precision)
        cache.fill(vectors(), verbose=0)
        data = cache.dataset(vectors(), np.zeros(COUNT, int), batch_size=COUNT)
        batch = data[0]
        assert np.all(unpack(batch[0])[1]["0"][:, 1] == -np.inf)
        if not cached:
            batch = (unpack(batch[0])[0], *batch[1:])
        logs = distiller.train_on_batch(*batch, return_dict=True)
        assert np.isfinite(logs["logits_loss"])
        students.append(snapshot(distiller.student))
    for one, other in zip(*students, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3 if precision == "float16" else 1e-5)


def test_all_classes_masked_or_an_infinite_map_is_refused(tmp_path):
    with pytest.raises(ValueError) as error:
        small_cache(tmp_path / "all", teacher=masking_teacher([True, True])).fill(vectors())
    assert_three_parts(error.value, "outputs:0 for images 0 to 0", "-inf in an output", "Look at")
    teacher = masking_teacher([False, True])
    cache = small_cache(tmp_path / "map", teacher=teacher, layer_names=["masked"])
    with pytest.raises(ValueError, match="maps:masked.* holds NaN or infinite"):
        cache.fill(vectors())
