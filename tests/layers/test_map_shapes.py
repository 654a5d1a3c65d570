"""Maps of unlike ranks: the forms in which they meet, and what a step makes of them."""

import keras
import numpy as np
import pytest
from helpers import as_tensor, random_array, to_numpy
from models import CLASSES, loss_from_logits

from keras_ktan import FeaturePair, KTANDistiller, TeacherToStudent
from keras_ktan.introspection.feature_tap import FeatureTap
from keras_ktan.layers.map_shapes import find_grid, meeting_forms
from keras_ktan.layers.resize import resize_map

L = keras.layers


@pytest.mark.parametrize(
    ("count", "positions", "grid"),
    [
        (196, (7, 7), (0, (14, 14))),
        (197, (7, 7), (1, (14, 14))),  # ViT
        (198, (7, 7), (2, (14, 14))),  # DeiT
        (201, (14, 14), (5, (14, 14))),  # DINOv2
        (33, (8, 16), (1, (4, 8))),
        (50, (None, None), (1, (7, 7))),
        (48, (8, 16), None),
        (None, (7, 7), None),
        (1, (7, 7), None),
    ],
)
def test_the_grid_that_tokens_stand_for(count, positions, grid):
    assert find_grid(count, positions) == grid


def test_tokens_are_folded_row_by_row_behind_the_extra_ones():
    form, other = meeting_forms((None, 7, 1), (None, 4, 6, 2))
    tokens = np.arange(7, dtype="float32")[None, :, None]
    mask = np.array([[1, 1, 1, 1, 1, 1, 0]], bool)
    features, mask = form.apply(as_tensor(tokens), keras.ops.convert_to_tensor(mask))
    np.testing.assert_array_equal(to_numpy(features)[0, ..., 0], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(to_numpy(mask)[0], [[1, 1, 1], [1, 1, 0]])
    assert (form.shape, other.shape) == ((None, 2, 3, 1), (None, 4, 6, 2))
    assert form.changes and not other.changes


def test_a_vector_meets_the_mean_of_what_is_no_padding():
    _, form = meeting_forms((None, 5), (None, 3, 2))
    features = as_tensor([[[1, 10], [3, 30], [99, 99]]])
    pooled, mask = form.apply(
        features, keras.ops.convert_to_tensor(np.array([[True, True, False]]))
    )
    np.testing.assert_allclose(to_numpy(pooled), [[2, 20]])
    assert mask is None and form.shape == (None, 2)


@pytest.mark.parametrize(
    "shapes",
    [
        ((None, 48, 8), (None, 8, 16, 4)),
        ((None, None, 8), (None, 4, 4, 4)),
        ((None, 4, 4, 4, 8), (None, 4, 4, 4)),
        ((None, 4, 4, 4, 4, 8), (None, 4, 4, 4)),
    ],
)
def test_maps_that_cannot_meet_are_an_error(shapes):
    with pytest.raises(ValueError, match=r"Received a teacher's map.*Expected.*Name layers"):
        meeting_forms(*shapes)


def test_a_volume_is_resized_along_each_axis():
    volume = random_array(2, 4, 6, 2, 3)
    expected = volume.reshape(2, 2, 2, 3, 2, 2, 3).mean(axis=(2, 4))
    found = resize_map(as_tensor(volume), (2, 3, 2))
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-5, atol=1e-6)


def transformer(width, name):
    """A class token and 4×4 patches."""
    inputs = keras.Input((8, 8, 1), name="image")
    hidden = L.Reshape((16, width))(L.Conv2D(width, 2, strides=2)(inputs))
    hidden = L.Dense(width, name="tokens")(L.ZeroPadding1D((1, 0))(hidden))
    pooled = L.GlobalAveragePooling1D(name="vector")(hidden)
    return keras.Model(inputs, L.Dense(CLASSES)(pooled), name=name)


def convolutional(width, name):
    inputs = keras.Input((8, 8, 1), name="image")
    hidden = L.Conv2D(width, 3, padding="same", name="map")(inputs)
    pooled = L.GlobalAveragePooling2D(name="vector")(hidden)
    return keras.Model(inputs, L.Dense(CLASSES)(pooled), name=name)


def volumes(width, name):
    inputs = keras.Input((4, 4, 4, 1), name="volume")
    hidden = L.Conv3D(width, 3, strides=2 if name == "student" else 1, padding="same", name="map")
    return keras.Model(inputs, L.Dense(CLASSES)(L.GlobalAveragePooling3D()(hidden(inputs))))


def grid(tokens):
    return tokens[:, 1:].reshape(len(tokens), 4, 4, -1)


def halves(features):
    return features.reshape(len(features), 4, 2, 4, 2, -1).mean(axis=(2, 4))


def thirds(volume):
    return volume.reshape(len(volume), 2, 2, 2, 2, 2, 2, -1).mean(axis=(2, 4, 6))


# Models and layers, and both maps as they meet, from the maps as they are.
PAIRS = {
    "tokens to image": (transformer, convolutional, "tokens", "map",
                        lambda t: np.asarray(to_numpy(resize_map(as_tensor(grid(t)), (8, 8)))),
                        lambda s: s),
    "image to tokens": (convolutional, transformer, "map", "tokens", halves, grid),
    "vector to image": (transformer, convolutional, "vector", "map",
                        lambda t: t, lambda s: s.mean(axis=(1, 2))),
    "image to vector": (convolutional, transformer, "map", "vector",
                        lambda t: t.mean(axis=(1, 2)), lambda s: s),
    "tokens to vector": (transformer, convolutional, "tokens", "vector",
                         lambda t: t.mean(axis=1), lambda s: s),
    "volumes": (volumes, volumes, "map", "map", thirds, lambda s: s),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_the_feature_loss_is_that_of_the_maps_as_they_meet(name):
    make_teacher, make_student, teacher_path, student_path, as_teacher, as_student = PAIRS[name]
    keras.utils.set_random_seed(0)
    teacher, student = make_teacher(6, "teacher"), make_student(3, "student")
    channels = [4, 0, 3]
    pair = FeaturePair(teacher_path, student_path, teacher_to_student=TeacherToStudent(
        "selection", channels=channels))  # fmt: skip
    images = random_array(4, *teacher.input_shape[1:])
    _, (teacher_map,) = FeatureTap(teacher, [teacher_path], "teacher")(images)
    _, (student_map,) = FeatureTap(student, [student_path], "student")(images)
    target = as_teacher(to_numpy(teacher_map))[..., channels]
    expected = np.mean(np.square(target - as_student(to_numpy(student_map))))
    distiller = KTANDistiller(teacher, student, pair)
    distiller.compile("adam", loss_from_logits(), feature_loss="mse")
    logs = distiller.train_on_batch(images, np.arange(4), return_dict=True)
    np.testing.assert_allclose(logs["feature_loss"], expected, rtol=1e-4)
    assert 0 < logs["discriminator_accuracy"] < 1


@pytest.mark.parametrize("objective", ["auto", "task", "reconstruction", "student_head"])
def test_a_learned_t2s_of_a_folded_student(objective):
    """The student's layers cannot go on with T2S's map, which lacks the class token."""
    pair = FeaturePair("map", "tokens", teacher_to_student=TeacherToStudent(objective))
    models = convolutional(3, "teacher"), transformer(6, "student")
    if objective == "student_head":
        with pytest.raises(ValueError, match="as 4×4 tokens behind 1 more.*Expected"):
            KTANDistiller(*models, pair)
        return
    distiller = KTANDistiller(*models, pair)
    distiller.compile("adam", loss_from_logits(), t2s_optimizer=keras.optimizers.Adam(0.05))
    data = random_array(8, 8, 8, 1), np.arange(8) % CLASSES
    losses = [distiller.train_on_batch(*data, return_dict=True)["t2s_loss"] for _ in range(8)]
    assert losses[-1] < losses[0]


def test_by_default_nothing_fails_for_maps_that_cannot_meet():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 3), name="series")
    hidden = L.Conv1D(4, 3, padding="same")(inputs)
    teacher = keras.Model(inputs, L.Dense(CLASSES)(L.GlobalAveragePooling1D()(hidden)))
    again = keras.Input((12, 3), name="series")
    hidden = L.Conv2D(2, 3, padding="same")(L.Reshape((12, 3, 1))(again))
    student = keras.Model(again, L.Dense(CLASSES)(L.GlobalAveragePooling2D()(hidden)))
    distiller = KTANDistiller(teacher, student)
    with pytest.warns(UserWarning, match="not distilled.*Expected a number of tokens"):
        distiller.compile("adam", loss_from_logits())
    logs = distiller.train_on_batch(random_array(4, 12, 3), np.arange(4), return_dict=True)
    assert "logits_loss" in logs and "feature_loss" not in logs
    with pytest.raises(ValueError, match="Expected a number of tokens"):
        distiller.compile("adam", loss_from_logits(), feature_loss_weight=1.0)


@pytest.mark.parametrize(
    ("other", "name"), [("tanh", "tanh"), ("relu6", "relu6"), (None, "linear")]
)
def test_one_t2s_for_maps_out_of_two_activations_is_an_error(other, name):
    def model(width, name, second):
        inputs = keras.Input((8, 8, 1))
        hidden = L.Conv2D(width, 3, activation="relu", name="one")(inputs)
        hidden = L.Conv2D(width, 3, activation=second, name="two")(hidden)
        return keras.Model(inputs, L.Dense(CLASSES)(L.Flatten()(hidden)), name=name)

    def distiller(second):
        t2s = TeacherToStudent("reconstruction")
        pairs = [FeaturePair(name, name, teacher_to_student=t2s) for name in ("one", "two")]
        return KTANDistiller(model(6, "teacher", "relu"), model(3, "student", second), pairs)

    assert len(distiller("relu").teacher_to_student_layers) == 1
    with pytest.raises(ValueError, match=f"different activations: relu and {name}.*of its own"):
        distiller(other)


def test_features_of_channels_first_models_are_an_error():
    def model(width, name, permute=False):
        inputs = keras.Input((1, 8, 8))
        conv = L.Conv2D(width, 3, data_format="channels_first", name="conv")
        hidden = L.ReLU(name="features")(conv(inputs))
        if permute:
            hidden = L.Permute((2, 3, 1), name="moved")(hidden)
        return keras.Model(inputs, L.Dense(CLASSES)(L.Flatten()(hidden)), name=name)

    for path in ("features", "conv"):
        with pytest.raises(ValueError, match="channels_first.*Expected the channels.*Permute"):
            KTANDistiller(model(6, "teacher"), model(3, "student"), FeaturePair(path, path))
    models = model(6, "teacher", permute=True), model(3, "student", permute=True)
    distiller = KTANDistiller(*models, FeaturePair("moved", "moved"))
    (t2s,) = distiller.teacher_to_student_layers
    assert (t2s.mix.units, t2s.student_form.shape) == (3, (None, 6, 6, 3))


def with_segments(name, width, structure):
    tokens, segments = keras.Input((5,), name="tokens"), keras.Input((5,), name="segments")
    hidden = L.Dense(width)(L.Concatenate()([tokens, segments]))
    inputs = {"dict": {"tokens": tokens, "segments": segments}, "list": [tokens, segments]}
    return keras.Model(inputs[structure], L.Dense(CLASSES)(hidden), name=name)


def without_segments(name, width, structure):
    tokens = keras.Input((5,), name="tokens")
    outputs = L.Dense(CLASSES)(L.Dense(width)(tokens))
    return keras.Model({"tokens": tokens} if structure == "dict" else tokens, outputs, name=name)


@pytest.mark.parametrize("structures", [("dict", "dict"), ("list", "single"), ("dict", "single")])
@pytest.mark.parametrize("extra", ["teacher", "student"])
def test_an_input_that_only_one_model_takes_is_passed_to_it_by_its_name(extra, structures):
    keras.utils.set_random_seed(0)
    large, small = structures
    if extra == "teacher":
        teacher = with_segments("teacher", 8, large)
        student = without_segments("student", 4, small)
    else:
        teacher = without_segments("teacher", 8, small)
        student = with_segments("student", 4, large)
    x = {"tokens": random_array(4, 5), "segments": random_array(4, 5, seed=1)}
    y = np.arange(4)

    def outputs(model, structure):
        both = [x["tokens"], x["segments"]]
        takes = {"dict": x, "list": both, "single": x["tokens"]}
        if structure == "dict":
            takes["dict"] = {name: x[name] for name in model.input}
        return to_numpy(model(takes[structure]))

    of_teacher = outputs(teacher, large if extra == "teacher" else small)
    of_student = outputs(student, small if extra == "teacher" else large)
    distiller = KTANDistiller(teacher, student)
    distiller.compile("sgd", loss_from_logits(), logits_loss=keras.losses.MeanSquaredError())
    np.testing.assert_allclose(distiller.predict(x, verbose=0), of_student, rtol=1e-5, atol=1e-6)
    logs = distiller.fit(x, y, batch_size=4, verbose=0).history
    expected = np.mean(np.square(of_teacher - of_student))
    np.testing.assert_allclose(logs["logits_loss"], [expected], rtol=1e-4)
    assert np.isclose(distiller.evaluate(x, y, verbose=0), distiller.evaluate(x, y, verbose=0))


def ordered(width, names, structure=list):
    """Of its two inputs, which go by their names, the second one counts twice."""
    tensors = {name: keras.Input((5,), name=name) for name in names}
    hidden = L.Concatenate()([tensors["tokens"], 2 * tensors["segments"]])
    inputs = tensors if structure is dict else list(tensors.values())
    return keras.Model(inputs, L.Dense(CLASSES)(L.Dense(width)(hidden)))


@pytest.mark.promise(14)
@pytest.mark.parametrize("structure", [list, dict])
def test_inputs_of_the_same_names_in_another_order_need_names(structure):
    keras.utils.set_random_seed(0)
    teacher = ordered(8, ["tokens", "segments"])
    student = ordered(4, ["segments", "tokens"], structure)
    x = {"tokens": random_array(4, 5), "segments": random_array(4, 5, seed=1)}
    distiller = KTANDistiller(teacher, student)
    distiller.compile(keras.optimizers.SGD(0.0), loss_from_logits(), run_eagerly=True,
                      logits_loss=keras.losses.MeanSquaredError())  # fmt: skip
    with pytest.raises(ValueError, match="another order.*Expected names.*Pass a dict"):
        distiller.train_on_batch(list(x.values()), np.arange(4))
    logs = distiller.train_on_batch(x, np.arange(4), return_dict=True)
    theirs = to_numpy(teacher([x["tokens"], x["segments"]]))
    own = to_numpy(student(x))
    np.testing.assert_allclose(logs["logits_loss"], np.mean((theirs - own) ** 2), rtol=1e-4)


def test_models_without_a_common_input_are_an_error():
    with pytest.raises(ValueError, match="Rename the inputs of one"):
        other = keras.Input((5,), name="other")
        KTANDistiller(
            with_segments("teacher", 8, "dict"), keras.Model({"other": other}, L.Dense(5)(other))
        )
