"""TeacherCache: the same training without a teacher's pass, and never a wrong target."""

import errno
import os

import keras
import numpy as np
import pytest
from helpers import assert_three_parts
from models import assert_changed, image_data, image_model, loss_from_logits, snapshot
from small_caches import (
    COUNT,
    NUMBER_VIEWS,
    small_cache,
    small_teacher,
    vectors,
)

from keras_ktan import (
    FeaturePair,
    KTANDistiller,
    OutputPair,
    TeacherCache,
    TeacherToStudent,
)
from keras_ktan.cache.files import CacheFiles
from keras_ktan.cache.teacher_forward import TeacherForward
from keras_ktan.utils.cached_batch import unpack

FEW = 11  # with batches of 8: a last one of 3
VIEWS = {
    "plain": lambda batch: batch,
    "mirrored": lambda batch: batch[:, :, ::-1],
    "shifted": lambda batch: np.roll(batch, 1, axis=1),
}


def make_distiller(feature_pairs=None, teacher=None, **compiled):
    teacher = teacher or image_model(12, "teacher", seed=1)
    student = image_model(4, "student", regularizer=keras.regularizers.L2(1e-2), seed=2)
    keras.utils.set_random_seed(3)  # T2S and the discriminator
    distiller = KTANDistiller(teacher, student, feature_pairs)
    distiller.compile(
        **{
            "optimizer": keras.optimizers.SGD(0.05, momentum=0.9),
            "t2s_optimizer": keras.optimizers.SGD(0.05),
            "discriminator_optimizer": keras.optimizers.SGD(0.05),
            "loss": loss_from_logits(),
            "metrics": ["accuracy"],
            "adversarial_loss_weight": 0.5,
            **compiled,
        }
    )
    return distiller


def filled(distiller, directory, images, views=VIEWS, **arguments):
    cache = TeacherCache(distiller, directory, views=views, **arguments)
    cache.fill(images, verbose=0)
    return cache


class PlainBatches(keras.utils.PyDataset):
    """A cache's batches, in its order and its views, without the teacher's part."""

    def __init__(self, cached):
        super().__init__()
        self.cached = cached

    def __len__(self):
        return len(self.cached)

    def __getitem__(self, index):
        x, *others = self.cached[index]
        return (unpack(x)[0], *others)


def pair(objective, *layers):
    return FeaturePair(*layers, teacher_to_student=TeacherToStudent(objective=objective))


PAIRS = {
    "task": lambda: pair("task", "features", "features"),
    "several": lambda: [
        pair("student_head", "features", "features"),
        pair("reconstruction", "stem_out", "stem_out"),
    ],
}


def trained_both_ways(tmp_path, pairs, **compiled):
    """Histories and all variables, with the teacher running and from its cache."""
    images, labels = image_data(FEW)
    weights = np.linspace(0.0, 2.0, FEW).astype("float32")
    histories, networks = [], []
    for wrap in (PlainBatches, lambda dataset: dataset):
        distiller = make_distiller(PAIRS[pairs](), **compiled)
        start = snapshot(distiller)
        dataset = filled(distiller, tmp_path, images).dataset(
            images, labels, batch_size=8, seed=5, sample_weight=weights
        )
        history = distiller.fit(
            wrap(dataset),
            epochs=2,
            verbose=0,
            shuffle=False,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=dataset.begin_epoch)],
        )
        assert_changed(start, snapshot(distiller))
        histories.append(history.history)
        networks.append(snapshot(distiller, distiller.optimizer))
    return histories, networks


def assert_alike(histories, networks):
    assert histories[0].keys() == histories[1].keys()
    for name, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][name], rtol=1e-4, atol=1e-6, err_msg=name)
    for one, other in zip(*networks, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("pairs", PAIRS)
def test_the_same_losses_and_weights_as_with_the_teacher_running(pairs, tmp_path):
    assert_alike(*trained_both_ways(tmp_path, pairs, run_eagerly=True))


def test_no_teacher_runs_in_a_step(tmp_path, monkeypatch):
    # Validation data stays plain.
    images, labels = image_data(FEW)
    distiller = make_distiller(run_eagerly=True)
    dataset = filled(distiller, tmp_path, images).dataset(images, labels, batch_size=10)
    calls = []
    call = distiller.teacher.call
    monkeypatch.setattr(
        distiller.teacher, "call", lambda *args, **kwargs: calls.append(1) or call(*args, **kwargs)
    )
    distiller.fit(dataset, validation_data=(images, labels), verbose=0)
    assert not calls
    distiller.fit(images, labels, batch_size=10, verbose=0)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "compiled", [{"jit_compile": True}, {"jit_compile": False, "steps_per_execution": 2}]
)
@pytest.mark.graph
def test_compiled_steps_give_what_steps_one_by_one_give(compiled, tmp_path):
    histories, weights = [], []
    for arguments in ({"run_eagerly": True}, compiled):
        distiller = KTANDistiller(
            small_teacher(8),
            small_teacher(4, seed=1, name="student"),
            FeaturePair("hidden", "hidden"),
        )
        distiller.compile(
            keras.optimizers.SGD(0.1),
            loss=loss_from_logits(),
            adversarial_loss_weight=0,  # XLA draws other noise
            **arguments,
        )
        dataset = filled(distiller, tmp_path, vectors(), views=NUMBER_VIEWS).dataset(
            vectors(), np.arange(COUNT) % 2, batch_size=5
        )
        histories.append(distiller.fit(dataset, epochs=2, verbose=0).history)
        weights.append(snapshot(distiller))
    assert_alike(histories, weights)


def test_every_batch_holds_what_the_teacher_gives_for_the_very_view(tmp_path):
    teacher, images, labels = small_teacher(), vectors(), np.arange(COUNT)
    cache = small_cache(tmp_path, teacher=teacher)
    cache.fill(images, verbose=0)
    dataset = cache.dataset(
        images,
        labels,
        batch_size=6,
        sample_weight=labels / 2,
        label_views={"turned": lambda batch: -batch},
    )
    whole = keras.Model(teacher.input, [teacher.get_layer("hidden").output, teacher.output])
    seen, turned = [], 0
    assert [len(batch[1]) for batch in dataset] == [6, 6, 6, 2]
    for x, y, weight in dataset:
        inputs, outputs, maps = unpack(x)
        for row, label in enumerate(y):
            number = abs(label)
            is_turned = not np.array_equal(inputs[row], images[number])
            turned += is_turned
            expected = images[number][::-1] if is_turned else images[number]
            np.testing.assert_array_equal(inputs[row], expected)
            assert label == (-number if is_turned else number)
            assert weight[row] == number / 2
            seen.append(number)
        hidden, logits = whole.predict_on_batch(inputs)
        np.testing.assert_allclose(maps["hidden"], hidden, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(outputs["0"], logits, rtol=1e-5, atol=1e-6)
    assert sorted(seen) == list(range(COUNT))
    assert 0 < turned < COUNT


def drawn(dataset, epoch):
    dataset.begin_epoch(epoch)
    return np.concatenate([unpack(x)[0] for x, _ in dataset])


def test_each_epoch_has_its_own_order_and_views_and_the_seed_brings_them_back(tmp_path):
    cache = small_cache(tmp_path)
    cache.fill(vectors(), verbose=0)
    one, same, other = (
        cache.dataset(vectors(), np.arange(COUNT), batch_size=8, seed=seed) for seed in (1, 1, 2)
    )
    first, second = drawn(one, 0), drawn(one, 1)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(drawn(same, 1), second)
    np.testing.assert_array_equal(drawn(same, 0), first)
    assert not np.array_equal(drawn(other, 0), first)
    still = cache.dataset(vectors(), np.arange(COUNT), batch_size=8, shuffle=False)
    np.testing.assert_array_equal(np.sort(drawn(still, 0), axis=1), np.sort(vectors(), axis=1))


def test_fit_goes_on_with_the_order_of_the_epoch_it_resumes_at(tmp_path):
    images, labels = image_data(FEW)
    weights = []
    for stop in (2, 1):
        distiller = make_distiller(run_eagerly=True)
        dataset = filled(distiller, tmp_path, images).dataset(images, labels, batch_size=8)
        distiller.fit(dataset, epochs=stop, verbose=0)
        if stop == 1:
            fresh = filled(distiller, tmp_path, images).dataset(images, labels, batch_size=8)
            distiller.fit(fresh, initial_epoch=1, epochs=2, verbose=0)
        weights.append(snapshot(distiller))
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_half_precision_takes_half_the_room_and_little_accuracy(tmp_path):
    for precision in ("float32", "float16"):
        small_cache(tmp_path / precision, precision=precision).fill(vectors(), verbose=0)
    datasets = [
        small_cache(tmp_path / precision, precision=precision).dataset(
            vectors(), np.arange(COUNT), batch_size=COUNT
        )
        for precision in ("float32", "float16")
    ]
    full, half = (unpack(dataset[0][0])[2]["hidden"] for dataset in datasets)
    assert (full.dtype, half.dtype) == ("float32", "float16")
    assert not np.array_equal(full, half)
    # Ten bits of mantissa: half a unit in the last place is 2^-11 of the number.
    np.testing.assert_allclose(half, full, rtol=2.0**-11, atol=1e-7)


@pytest.mark.parametrize(
    ("factor", "words"),
    [(1e6, ("reaches", "65504", "float32")), (np.inf, ("NaN or infinite", "numbers", "Look at"))],
)
def test_outputs_that_do_not_fit_are_refused(factor, words, tmp_path):
    images = vectors()
    images[9] *= factor
    # A rectifier may take what is not a number for 0.
    cache = small_cache(tmp_path, teacher=small_teacher(activation="linear"), precision="float16")
    with pytest.raises(ValueError) as error:
        cache.fill(images, verbose=0)
    assert_three_parts(error.value, *words)
    assert "images 9 to 9" in str(error.value)


def count_images(monkeypatch):
    """Which images the teacher is run on to be kept."""
    seen = []
    compute = TeacherForward.compute

    def counted(self, arrays, images, start, stop):
        seen.extend(range(start, stop))
        return compute(self, arrays, images, start, stop)

    monkeypatch.setattr(TeacherForward, "compute", counted)
    return seen


def finished(directory):
    files = CacheFiles(directory)
    return files.finished(files.read_key()[1])


def files_of(directory):
    return {path.name[8:]: path.read_bytes() for path in directory.glob("*.npy")}


@pytest.mark.reliability
def test_a_full_disk_is_an_error_and_fill_goes_on_where_it_stopped(tmp_path, monkeypatch):
    small_cache(tmp_path / "whole").fill(vectors(), verbose=0)
    fsync, calls = os.fsync, []

    def full_disk(number):
        calls.append(number)
        if len(calls) > 5:  # the key, then two arrays and the list for each chunk
            raise OSError(errno.ENOSPC, "No space left on device")
        return fsync(number)

    monkeypatch.setattr("keras_ktan.cache.files.os.fsync", full_disk)
    cache = small_cache(tmp_path / "stopped")
    with pytest.raises(OSError, match="The disk is full") as error:
        cache.fill(vectors(), verbose=0)
    assert error.value.errno == errno.ENOSPC
    assert_three_parts(error.value, "are free", "Expected room for all", "call `fill` again")
    monkeypatch.setattr("keras_ktan.cache.files.os.fsync", fsync)
    assert finished(tmp_path / "stopped") == {"plain": 8, "turned": 0}
    with pytest.raises(ValueError, match="holds 8 of 40 images"):
        small_cache(tmp_path / "stopped").dataset(vectors())
    # Cut off in the middle of a line, as a killed process leaves it.
    with open(tmp_path / "stopped" / "chunks.jsonl", "ab") as file:
        file.write(b'{"view": "plain", "sta')
    again = small_cache(tmp_path / "stopped")
    seen = count_images(monkeypatch)
    again.fill(vectors(), verbose=0)
    assert seen == [*range(8, 20), *range(20)]
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")
    again.dataset(vectors())


def test_a_disk_that_is_too_small_is_an_error_before_the_teacher_runs_on(tmp_path, monkeypatch):
    usage = type("usage", (), {"free": 959})
    monkeypatch.setattr("keras_ktan.cache.files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="The disk is full") as error:
        small_cache(tmp_path).fill(vectors(), verbose=0)  # 20 images, 2 views, 4 + 2 floats: 960
    assert error.value.errno == errno.ENOSPC
    assert finished(tmp_path) == {"plain": 0, "turned": 0}
    usage.free = 960
    small_cache(tmp_path).fill(vectors(), verbose=0)


OTHERS = {
    "teacher's weights": {"teacher": lambda: small_teacher(seed=1)},
    "teacher's config": {"teacher": lambda: small_teacher(activation="tanh")},
    "teacher's config ": {"teacher": lambda: small_teacher(dtype="mixed_bfloat16")},
    "layers": {"layer_names": lambda: ["hidden", "dense_of_another"]},
    "views": {"views": lambda: {"plain": NUMBER_VIEWS["plain"]}},
    "what the views give": {"views": lambda: {**NUMBER_VIEWS, "turned": lambda batch: -batch}},
    "precision": {"precision": lambda: "float16"},
}


@pytest.mark.parametrize("part", OTHERS)
@pytest.mark.parametrize("method", ["fill", "dataset"])
def test_a_cache_of_something_else_is_refused(part, method, tmp_path):
    def teacher():
        model = small_teacher()
        return keras.Model(
            model.input, keras.layers.Identity(name="dense_of_another")(model.output)
        )

    if part == "layers":
        small_cache(tmp_path, teacher=teacher()).fill(vectors(), verbose=0)
        other = small_cache(tmp_path, teacher=teacher(), layer_names=OTHERS[part]["layer_names"]())
    else:
        small_cache(tmp_path).fill(vectors(), verbose=0)
        other = small_cache(tmp_path, **{name: make() for name, make in OTHERS[part].items()})
    with pytest.raises(ValueError) as error:
        getattr(other, method)(vectors())
    assert_three_parts(error.value, f"({part.strip()}: ", "Expected the same", "another directory")


@pytest.mark.parametrize("method", ["fill", "dataset"])
def test_one_number_of_the_data_changed_is_other_data(method, tmp_path):
    small_cache(tmp_path).fill(vectors(), verbose=0)
    images = vectors()
    images[-1, -1] += 1e-3
    with pytest.raises(ValueError, match=r"\(images: "):
        getattr(small_cache(tmp_path), method)(images)


def test_more_maps_than_needed_do_no_harm(tmp_path):
    small_cache(tmp_path).fill(vectors(), verbose=0)
    fewer = small_cache(tmp_path, layer_names=None)
    fewer.fill(vectors(), verbose=0)
    assert len(fewer.dataset(vectors())) == 1


def test_a_teacher_built_twice_by_the_same_code_is_the_same_teacher(tmp_path):
    def teacher():
        keras.utils.set_random_seed(0)
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)])

    first, second = teacher(), teacher()
    assert first.layers[0].name != second.layers[0].name
    small_cache(tmp_path, teacher=first, layer_names=None).fill(vectors(), verbose=0)
    second.compile("sgd", "mse")
    second.trainable = False
    small_cache(tmp_path, teacher=second, layer_names=None).dataset(vectors())


class Secretive(keras.Model):
    """A model that tells Keras nothing of what it does."""

    factor = 1.0

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs):
        return self.factor * self.layer(inputs)

    def get_config(self):
        raise NotImplementedError


def test_a_subclassed_teacher_whose_code_changed_is_refused(tmp_path):
    teacher = Secretive(keras.layers.Dense(2))
    teacher(vectors())
    cache = small_cache(tmp_path, teacher=teacher, layer_names=None)
    cache.fill(vectors(), verbose=0)
    cache.dataset(vectors())
    teacher.factor = 1.1
    with pytest.raises(ValueError, match="is not what the cache in"):
        cache.dataset(vectors())


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (lambda batch: batch + np.random.normal(), ("something else alone", "by itself", "random")),
        (lambda batch: batch - batch.mean(), ("something else alone", "by itself", "view of its")),
        (lambda batch: batch[:, :2], ("unlike shapes", "the same from all", "one size")),
    ],
)
def test_a_view_that_cannot_be_kept_is_refused(view, words, tmp_path):
    cache = small_cache(tmp_path, views={"plain": lambda batch: batch, "odd": view})
    with pytest.raises(ValueError) as error:
        cache.fill(vectors(), verbose=0)
    assert_three_parts(error.value, *words)


def test_a_view_that_writes_into_its_batch_leaves_the_images_alone(tmp_path):
    def negate(batch):
        batch *= -1
        return batch

    images = vectors()
    cache = small_cache(tmp_path, views={"negated": negate})
    cache.fill(images, verbose=0)
    cache.dataset(images)[0]
    np.testing.assert_array_equal(images, vectors())


def test_fit_refuses_another_teacher_and_a_missing_map_before_the_first_step(tmp_path):
    images, labels = image_data(COUNT)
    maker = image_model(12, "teacher", seed=1)
    for name, arguments, words in (
        ("other", {"teacher": image_model(12, "teacher", seed=9)}, ("other weights", "own", "new")),
        ("missing", {"teacher": maker}, ("lacks the maps", "every map", "TeacherCache(distiller")),
    ):
        cache = TeacherCache(maker, tmp_path / name, layer_names=["features"])
        cache.fill(images, verbose=0)
        dataset = cache.dataset(images, labels, batch_size=8)
        distiller = make_distiller(**arguments)
        before = snapshot(distiller, distiller.optimizer)
        with pytest.raises(ValueError) as error:
            distiller.fit(dataset, verbose=0)
        assert_three_parts(error.value, *words)
        if name == "missing":
            with pytest.raises(ValueError, match="lacks the maps"):
                distiller.train_on_batch(*dataset[0])
        for one, other in zip(before, snapshot(distiller, distiller.optimizer), strict=True):
            np.testing.assert_array_equal(one, other)


def two_headed(units, name):
    """Dicts in, dicts out, and a map in a dict."""
    inputs = {"left": keras.Input((3,), name="left"), "right": keras.Input((3,), name="right")}
    joined = keras.layers.Concatenate()([inputs["left"], inputs["right"]])
    hidden = keras.layers.Dense(units, activation="relu", name="features")(joined)
    outputs = {
        "boxes": keras.layers.Dense(4, name="boxes")(hidden),
        "classes": keras.layers.Dense(3, name="classes")(hidden),
    }
    return keras.Model(inputs, outputs, name=name)


def test_dicts_of_inputs_and_outputs(tmp_path):
    images = {"left": vectors(), "right": -2 * vectors()}
    labels = {"boxes": np.tile(vectors()[:, :1], 4), "classes": np.arange(COUNT) % 3}
    swap = {
        "plain": lambda batch: batch,
        "swapped": lambda batch: {"left": batch["right"], "right": batch["left"]},
    }
    results = []
    for wrap in (PlainBatches, lambda dataset: dataset):
        keras.utils.set_random_seed(1)
        distiller = KTANDistiller(
            two_headed(8, "teacher"),
            two_headed(4, "student"),
            FeaturePair("features", "features"),
            output_pairs=OutputPair("classes"),
        )
        distiller.compile(
            "sgd",
            loss={"boxes": "mse", "classes": loss_from_logits()},
            logits_loss_weight=1.0,
            run_eagerly=True,
        )
        dataset = filled(distiller, tmp_path, images, views=swap).dataset(
            images, labels, batch_size=8, seed=2
        )
        losses = [
            distiller.train_on_batch(*wrap(dataset)[index], return_dict=True) for index in range(3)
        ]
        results.append([losses[-1], snapshot(distiller)])
    (plain_logs, plain), (cached_logs, cached) = results
    assert plain_logs.keys() == cached_logs.keys()
    for name, value in plain_logs.items():
        np.testing.assert_allclose(cached_logs[name], value, rtol=1e-5, err_msg=name)
    for one, other in zip(plain, cached, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_evaluate_and_predict_take_a_cache_for_the_student_alone(tmp_path):
    images, labels = image_data(COUNT)
    distiller = make_distiller()
    dataset = filled(distiller, tmp_path, images, views=None).dataset(
        images, labels, batch_size=COUNT, shuffle=False
    )
    np.testing.assert_array_equal(
        distiller.predict(dataset, verbose=0), distiller.predict(images, verbose=0)
    )
    expected = distiller.evaluate(images, labels, batch_size=COUNT, verbose=0, return_dict=True)
    assert distiller.evaluate(dataset, verbose=0, return_dict=True) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"precision": "int8"}, ("precision='int8'", "float32", "Write")),
        ({"views": {}}, ("views={}", "names to functions", "Write")),
        ({"layer_names": "hidden"}, ("layer_names='hidden'", "a list", "['hidden']")),
        ({"layer_names": ["hiden"]}, ("No layer 'hiden'", "hidden", "Correct")),
        ({"batch_size": 0}, ("batch_size=0", "1 or more", "Write")),
        ({"teacher": "teacher"}, ("teacher='teacher'", "KTANDistiller", "Pass")),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, words, tmp_path):
    with pytest.raises(ValueError) as error:
        small_cache(tmp_path, **arguments)
    assert_three_parts(error.value, *words)


def test_lengths_that_differ_and_unknown_label_views_are_refused(tmp_path):
    cache = small_cache(tmp_path)
    cache.fill(vectors(), verbose=0)
    with pytest.raises(ValueError, match=r"labels of lengths \[19\]. Expected .* 20"):
        cache.dataset(vectors(), np.zeros(19))
    with pytest.raises(ValueError, match="sample_weight of lengths"):
        cache.dataset(vectors(), np.zeros(20), sample_weight=np.zeros(21))
    with pytest.raises(ValueError, match=r"label_views for \['mirored'\]"):
        cache.dataset(vectors(), np.zeros(20), label_views={"mirored": np.negative})


def test_the_same_weights_in_other_layers_are_another_teacher_for_fit_too(tmp_path):
    images, labels = image_data(COUNT)
    teacher = image_model(12, "teacher", seed=1)
    other = keras.Model(teacher.inputs, keras.layers.Softmax()(teacher.output), name="teacher")
    cache = TeacherCache(other, tmp_path, layer_names=["features"])
    cache.fill(images, verbose=0)
    distiller = make_distiller(teacher=teacher)
    with pytest.raises(ValueError, match="other weights or layers.*Expected the distiller's own"):
        distiller.fit(cache.dataset(images, labels), verbose=0)


def test_a_part_of_a_pass_and_weights_without_labels_are_refused(tmp_path):
    images, labels = image_data(COUNT)
    distiller = make_distiller()
    cache = filled(distiller, tmp_path, images)
    with pytest.raises(ValueError, match="steps_per_epoch=1.*Expected None.*Leave it out"):
        distiller.fit(cache.dataset(images, labels), steps_per_epoch=1, verbose=0)
    with pytest.raises(ValueError, match="without labels.*Expected both.*Leave"):
        cache.dataset(images, sample_weight=np.ones(COUNT))


def test_a_view_that_rounds_unlike_in_a_batch_is_kept(tmp_path):
    # The last bits of a matrix product depend on the number of rows.
    mixing = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")

    def mixed(batch):
        bits = np.float32(1e-7) * len(batch)
        return (batch.reshape(len(batch), -1) @ mixing).reshape(batch.shape) * (1 + bits)

    images, labels = image_data(COUNT)
    images[0, 0, 0, 0] = np.float32(3.0)
    distiller = make_distiller()
    cache = filled(distiller, tmp_path, images, views={"mixed": mixed})
    assert len(cache.dataset(images, labels, batch_size=8)) == 3
