"""T2S renders any map in any shape; which objective it settles on; what it refuses."""

import keras
import numpy as np
import pytest
from helpers import all_values, assert_three_parts, gradients, random_array, to_numpy
from keras import layers, ops

from keras_ktan import FeaturePair, KTANDistiller, TeacherToStudent
from keras_ktan.training.t2s_objectives import (
    FeatureLossObjective,
    ReconstructionObjective,
    StudentHeadObjective,
    TaskObjective,
    attach_objective,
)


def connected(teacher_shape, student_shape, students_activation=None, **kwargs):
    layer = TeacherToStudent(**kwargs)
    layer.connect((None, *teacher_shape), (None, *student_shape), students_activation)
    layer.mix.bias.assign(random_array(student_shape[-1], seed=8))
    return layer


def reference_resize(features, size):
    """Exact areas going down, linear interpolation between cells' centres going up."""

    def along(values, wanted):
        if wanted <= len(values):
            return np.repeat(values, wanted).reshape(wanted, -1).mean(axis=1)
        centres = (np.arange(wanted) + 0.5) * len(values) / wanted - 0.5
        return np.interp(centres, np.arange(len(values)), values)

    for axis, wanted in enumerate(size, start=1):
        features = np.apply_along_axis(along, axis, features.astype("float64"), wanted)
    return features


SHAPES = [
    ((8, 8, 6), (4, 4, 3)),
    ((7, 5, 3), (3, 2, 8)),  # ratios that are not whole
    ((3, 4, 5), (7, 9, 2)),  # up
    ((9, 2, 4), (4, 5, 4)),  # down and up
    ((4, 4, 4), (4, 4, 4)),  # no change of shape is no identity: channels are mixed
    ((10, 4), (3, 6)),
    ((3, 6), (10, 4)),
    ((12,), (5,)),
    ((5,), (12,)),
]


@pytest.mark.promise(8)
@pytest.mark.parametrize(("teacher_shape", "student_shape"), SHAPES)
def test_any_shape_to_any_shape(teacher_shape, student_shape):
    layer = connected(teacher_shape, student_shape)
    features = random_array(2, *teacher_shape)
    rendered = to_numpy(layer(features, size=student_shape[:-1]))
    assert rendered.shape == (2, *student_shape)
    expected = reference_resize(features, student_shape[:-1]) @ to_numpy(layer.mix.kernel)
    np.testing.assert_allclose(rendered, expected + to_numpy(layer.mix.bias), atol=1e-4)


def test_without_a_size_height_and_width_stay():
    layer = connected((5, 3, 4), (9, 9, 2))
    assert layer(random_array(2, 5, 3, 4)).shape == (2, 5, 3, 2)


@pytest.mark.parametrize(("teacher_shape", "student_shape"), SHAPES[1:2] + SHAPES[5:8:2])
def test_out_of_a_relu_comes_nothing_negative(teacher_shape, student_shape):
    features = random_array(4, *teacher_shape)
    linear = connected(teacher_shape, student_shape)
    rectified = connected(teacher_shape, student_shape, keras.activations.relu)
    rectified.mix.set_weights(linear.mix.get_weights())
    plain = to_numpy(linear(features, size=student_shape[:-1]))
    assert plain.min() < 0 < plain.max()
    np.testing.assert_allclose(
        to_numpy(rectified(features, size=student_shape[:-1])), np.maximum(plain, 0), atol=1e-6
    )


@pytest.mark.parametrize(
    ("asked", "students", "expected"),
    [
        ("auto", "relu", lambda x: np.maximum(x, 0)),
        ("auto", None, lambda x: x),
        (None, "relu", lambda x: x),
        ("tanh", "relu", np.tanh),
        (keras.activations.sigmoid, None, lambda x: 1 / (1 + np.exp(-x))),
    ],
)
def test_the_activation_is_the_students_unless_one_is_asked_for(asked, students, expected):
    layer = connected((3,), (4,), students, activation=asked)
    features = random_array(5, 3)
    mixed = features @ to_numpy(layer.mix.kernel) + to_numpy(layer.mix.bias)
    np.testing.assert_allclose(to_numpy(layer(features)), expected(mixed), atol=1e-5)


@pytest.mark.parametrize(
    "last",
    [
        lambda: [layers.Conv2D(3, 3, activation="relu", name="tap")],
        lambda: [layers.Conv2D(3, 3), layers.ReLU(), layers.MaxPooling2D(name="tap")],
    ],
)
def test_in_a_distiller_r_lives_where_the_students_map_lives(last):
    def model(*parts):
        return keras.Sequential(
            [keras.Input((9, 9, 2)), *parts, layers.GlobalAveragePooling2D(), layers.Dense(4)]
        )

    distiller = KTANDistiller(
        model(layers.Conv2D(8, 3, name="tap")), model(*last()), FeaturePair("tap", "tap")
    )
    (t2s,) = distiller.teacher_to_student_layers
    rendered = to_numpy(t2s(random_array(4, 7, 7, 8), size=(3, 3)))
    assert rendered.min() == 0 and rendered.max() > 0.1


def test_each_output_of_a_layer_with_several_has_its_own_activation():
    def model():
        inner_input = keras.Input((6, 4))
        low = layers.Dense(4, name="low")(inner_input)
        high = layers.Dense(4, activation="relu", name="high")(low)
        inner = keras.Model(inner_input, {"low": low, "high": high}, name="fpn")
        inputs = keras.Input((6, 4))
        both = layers.Concatenate()(list(inner(inputs).values()))
        return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(both)))

    distiller = KTANDistiller(
        model(), model(), [FeaturePair("fpn:low", "fpn:low"), FeaturePair("fpn:high", "fpn:high")]
    )
    low, high = (
        to_numpy(layer(random_array(5, 6, 4))) for layer in distiller.teacher_to_student_layers
    )
    assert low.min() < 0
    assert high.min() == 0 and high.max() > 0.1


def test_the_gradient_reaches_mix_and_map():
    layer = connected((4, 4, 3), (2, 2, 2))
    (gradient,) = gradients(
        lambda features: ops.sum(layer(features, size=(2, 2))), random_array(1, 4, 4, 3)
    )
    # Each cell of the source is a quarter of one cell of the target.
    expected = np.broadcast_to(to_numpy(layer.mix.kernel).sum(axis=1) / 4, (1, 4, 4, 3))
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_half_precision():
    layer = connected((5, 5, 4), (3, 3, 2), dtype="mixed_float16")
    full = connected((5, 5, 4), (3, 3, 2))
    full.mix.set_weights(layer.mix.get_weights())
    features = random_array(2, 5, 5, 4)
    rendered = layer(features, size=(3, 3))
    assert keras.backend.standardize_dtype(rendered.dtype) == "float16"
    np.testing.assert_allclose(
        to_numpy(rendered).astype("float32"), to_numpy(full(features, size=(3, 3))), atol=1e-2
    )


@pytest.mark.parametrize("objective", ["auto", "student_head", "task", "reconstruction", None])
@pytest.mark.parametrize("activation", ["auto", "relu", None])
def test_config_round_trip(objective, activation):
    layer = TeacherToStudent(objective=objective, activation=activation, name="t2s")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config()
    assert copy.objective == objective
    copy.connect((None, 3), (None, 2), keras.activations.tanh)
    features = random_array(6, 3)
    mixed = features @ to_numpy(copy.mix.kernel)
    expected = {"auto": np.tanh(mixed), "relu": np.maximum(mixed, 0), None: mixed}[activation]
    np.testing.assert_allclose(to_numpy(copy(features)), expected, atol=1e-5)


def classifier():
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, name="tap"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )


@pytest.mark.parametrize(
    ("objective", "classes", "kind", "weights"),
    [
        # T2S itself holds a kernel and a bias: 2 weights.
        ("auto", 4, StudentHeadObjective, 2),
        ("auto", None, ReconstructionObjective, 4),
        ("student_head", 4, StudentHeadObjective, 2),
        ("student_head", None, StudentHeadObjective, 2),
        ("task", 4, TaskObjective, 4),
        ("reconstruction", 4, ReconstructionObjective, 4),
        (None, 4, FeatureLossObjective, 2),
    ],
)
def test_the_objective_is_settled_with_its_weights(objective, classes, kind, weights):
    student = classifier()
    layer = connected((8, 8, 5), (4, 4, 3), objective=objective)
    settled = attach_objective(layer, student, "tap", 5, classes)
    assert type(settled) is kind
    assert len(layer.trainable_variables) == weights
    students = {id(variable) for variable in student.variables}
    assert not students & {id(variable) for variable in layer.variables}
    # Asked again, as a second pair that shares the layer would, it adds no weight.
    attach_objective(layer, student, "tap", 5, classes)
    assert len(layer.trainable_variables) == weights
    shapes = [tuple(variable.shape) for variable in layer.trainable_variables[2:]]
    assert shapes == {TaskObjective: [(3, 4), (4,)], ReconstructionObjective: [(3, 5), (5,)]}.get(
        kind, []
    )


def test_the_task_objective_needs_classes():
    layer = connected((8, 8, 5), (4, 4, 3), objective="task")
    with pytest.raises(ValueError) as error:
        attach_objective(layer, classifier(), "tap", 5, None)
    assert_three_parts(error.value, "objective='task'", "Expected a classifier", "output_pairs")


@pytest.mark.parametrize("objective", ["teacher", 3, ["task"], True])
def test_an_unknown_objective_is_refused(objective):
    with pytest.raises(ValueError) as error:
        TeacherToStudent(objective=objective)
    assert_three_parts(error.value, f"objective={objective!r}", "Expected one of", "Leave it out")


def test_an_unknown_activation_is_refused_where_it_is_given():
    with pytest.raises(ValueError) as error:
        TeacherToStudent(activation="rellu")
    assert_three_parts(error.value, "activation='rellu'", "Expected", "")


@pytest.mark.parametrize(
    ("teacher_shape", "student_shape"),
    [((8, 8, 3), (7, 3)), ((7, 3), (8, 8, 3)), ((2, 4, 4, 3), (4, 4, 3)), ((2,) * 5, (2,) * 5)],
)
def test_maps_of_unlike_or_unknown_rank_are_refused(teacher_shape, student_shape):
    with pytest.raises(ValueError) as error:
        connected(teacher_shape, student_shape)
    came = f"{(None, *teacher_shape)} and a student's map of shape {(None, *student_shape)}"
    assert_three_parts(error.value, came, "Expected", "Reshape")


@pytest.mark.parametrize("shapes", [((4, 4, None), (4, 4, 2)), ((4, 4, 2), (4, 4, None))])
def test_open_channels_are_refused(shapes):
    layer = TeacherToStudent()
    with pytest.raises(ValueError) as error:
        layer.connect((None, *shapes[0]), (None, *shapes[1]))
    assert_three_parts(error.value, "maps of shapes", "Expected a known number", "Name layers")


def test_one_layer_for_two_pairs_of_equal_channels():
    layer = connected((8, 8, 5), (4, 4, 3))
    before = all_values(layer)
    layer.connect((None, 6, 6, 5), (None, 9, 9, 3))
    for old, new in zip(before, all_values(layer), strict=True):
        np.testing.assert_array_equal(old, new)
    assert layer(random_array(1, 6, 6, 5), size=(9, 9)).shape == (1, 9, 9, 3)


@pytest.mark.parametrize("shapes", [((8, 8, 6), (4, 4, 3)), ((8, 8, 5), (4, 4, 2))])
def test_one_layer_for_two_pairs_of_unlike_channels_is_refused(shapes):
    layer = connected((8, 8, 5), (4, 4, 3))
    with pytest.raises(ValueError) as error:
        layer.connect((None, *shapes[0]), (None, *shapes[1]))
    assert_three_parts(
        error.value,
        f"maps of {shapes[0][-1]} and {shapes[1][-1]} channels after maps of 5 and 3",
        "Expected the same numbers",
        "Give each pair a layer of its own",
    )


def test_a_layer_that_knows_no_student_is_refused():
    with pytest.raises(ValueError) as error:
        TeacherToStudent()(random_array(1, 4, 4, 3))
    assert_three_parts(error.value, "before it knows the student's shape", "Expected", "connect")
