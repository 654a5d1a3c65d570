"""What T2S minimises, against the same objective worked out by hand."""

import keras
import numpy as np
import pytest
from helpers import all_values, random_array, to_numpy, variable_gradients
from keras import layers, ops

from keras_ktan import TeacherToStudent
from keras_ktan.training.t2s_context import T2SContext
from keras_ktan.training.t2s_objectives import (
    FeatureLossObjective,
    ReconstructionObjective,
    StudentHeadObjective,
    TaskObjective,
    attach_objective,
)

IMAGES = random_array(3, 8, 8, 1)
R = np.abs(random_array(3, 6, 6, 4, seed=5))  # in place of the map `tap`


def squares(outputs):
    return sum(ops.mean(ops.square(part)) for part in keras.tree.flatten(outputs))


def mean(outputs):
    return sum(ops.mean(part) for part in keras.tree.flatten(outputs))


def context(**parts):
    """The labels ask for small squares, the teacher for ten times small means."""
    return T2SContext(
        inputs=IMAGES,
        student_loss=squares,
        logits_loss=lambda outputs: 10 * mean(outputs),
        **parts,
    )


def expected_loss(outputs):
    """The same two objectives by NumPy."""
    outputs = to_numpy(outputs)
    return np.mean(outputs**2) + 10 * np.mean(outputs)


def tail():
    """What stands behind the tap: trained BatchNorm statistics, a dropout, a head."""
    norm = layers.BatchNormalization(name="norm")
    norm.build((None, 6, 6, 4))
    norm.moving_mean.assign(random_array(4, seed=1))
    norm.moving_variance.assign(1 + np.abs(random_array(4, seed=2)))
    head = layers.Dense(5, name="head")
    head.build((None, 4))
    return norm, layers.Dropout(0.9, name="drop"), layers.GlobalAveragePooling2D(), head


def run_tail(parts, features):
    """The layers one by one, without training."""
    norm, _, _, head = parts
    scale = 1 / np.sqrt(to_numpy(norm.moving_variance) + norm.epsilon)
    hidden = (features - to_numpy(norm.moving_mean)) * scale
    return hidden.mean((1, 2)) @ to_numpy(head.kernel) + to_numpy(head.bias)


def tap():
    return layers.Conv2D(4, 3, activation="relu", name="tap")


def functional(parts):
    inputs = keras.Input((8, 8, 1))
    hidden = tap()(inputs)
    for part in parts:
        hidden = part(hidden)
    return keras.Model(inputs, hidden)


def sequential(parts):
    return keras.Sequential([keras.Input((8, 8, 1)), tap(), *parts])


class Subclassed(keras.Model):
    def __init__(self, parts):
        super().__init__()
        self.tap = tap()
        self.parts = list(parts)

    def call(self, inputs):
        hidden = self.tap(inputs)
        for part in self.parts:
            hidden = part(hidden)
        return hidden


def subclassed(parts):
    model = Subclassed(parts)
    model(IMAGES)
    return model


def nested(parts):
    inner_input = keras.Input((8, 8, 1))
    inner = keras.Model(inner_input, tap()(inner_input), name="backbone")
    inputs = keras.Input((8, 8, 1))
    hidden = inner(inputs)
    for part in parts:
        hidden = part(hidden)
    return keras.Model(inputs, hidden)


def tap_inside_the_inner_model(parts):
    """The tap is followed by layers inside the nested model and outside of it."""
    inner_input = keras.Input((8, 8, 1))
    hidden = tap()(inner_input)
    inner = keras.Model(inner_input, parts[0](hidden), name="backbone")
    inputs = keras.Input((8, 8, 1))
    hidden = inner(inputs)
    for part in parts[1:]:
        hidden = part(hidden)
    return keras.Model(inputs, hidden)


@pytest.mark.parametrize(
    ("make", "path", "how"),
    [
        (functional, "tap", "layers after the tap"),
        (sequential, "tap", "student_head"),
        (subclassed, "tap", "R in place"),
        (nested, "backbone/tap", "R in place"),
        (nested, "backbone", "student_head"),
        (tap_inside_the_inner_model, "backbone/tap", "R in place"),
    ],
)
def test_student_head_is_the_students_own_later_layers(make, path, how):
    parts = tail()
    student = make(parts)
    objective = StudentHeadObjective(student, path)
    loss = objective.loss(ops.convert_to_tensor(R), context())
    np.testing.assert_allclose(float(loss), expected_loss(run_tail(parts, R)), rtol=1e-4)
    assert how in objective.describe()


@pytest.mark.parametrize("make", [functional, subclassed])
def test_student_head_changes_nothing_of_the_student(make):
    student = make(tail())
    objective = StudentHeadObjective(student, "tap")
    before = all_values(student)
    for _ in range(2):
        objective.loss(ops.convert_to_tensor(R), context())
    for old, new in zip(before, all_values(student), strict=True):
        np.testing.assert_array_equal(old, new)
    assert "call" not in vars(student.layers[0]) and "call" not in vars(student.layers[1])


def test_student_head_with_a_connection_around_the_tap():
    inputs = keras.Input((8, 8, 1))
    stem = layers.Conv2D(4, 3, name="stem")
    around = stem(inputs)
    tapped = layers.Conv2D(4, 1, activation="relu", name="tap")(around)
    joined = layers.Add()([around, tapped])
    head = layers.Dense(5)
    student = keras.Model(inputs, head(layers.GlobalAveragePooling2D()(joined)))
    objective = StudentHeadObjective(student, "tap")
    pooled = (to_numpy(stem(IMAGES)) + R).mean((1, 2))
    expected = pooled @ to_numpy(head.kernel) + to_numpy(head.bias)
    loss = objective.loss(ops.convert_to_tensor(R), context())
    np.testing.assert_allclose(float(loss), expected_loss(expected), rtol=1e-4)


def test_student_head_for_one_output_of_a_pyramid():
    inner_input = keras.Input((8, 8, 1))
    low = layers.Conv2D(4, 3, name="low")(inner_input)
    high = layers.Conv2D(3, 3, name="high")(low)
    pyramid = keras.Model(inner_input, {"low": low, "high": high}, name="fpn")
    inputs = keras.Input((8, 8, 1))
    maps = pyramid(inputs)
    low_head, high_head = layers.Dense(2, name="on_low"), layers.Dense(2, name="on_high")
    student = keras.Model(inputs, [low_head(maps["low"]), high_head(maps["high"])])
    objective = StudentHeadObjective(student, "fpn:low")
    # The other output of the pyramid stays what the pyramid makes of the images.
    unchanged = to_numpy(high_head(pyramid(IMAGES)["high"]))
    replaced = R @ to_numpy(low_head.kernel) + to_numpy(low_head.bias)
    loss = objective.loss(ops.convert_to_tensor(R), context())
    expected = expected_loss(unchanged) + expected_loss(replaced)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-4)


@pytest.mark.parametrize("make", [functional, subclassed])
def test_student_head_teaches_t2s(make):
    parts = tail()
    student = make(parts)
    t2s = TeacherToStudent(objective="student_head")
    t2s.connect((None, 6, 6, 7), (None, 6, 6, 4))
    teacher_map = random_array(3, 6, 6, 7, seed=6)
    objective = StudentHeadObjective(student, "tap")
    kernel = to_numpy(t2s.mix.kernel)
    found, _ = variable_gradients(
        lambda: objective.loss(t2s(teacher_map), context()), t2s.trainable_variables
    )
    # The tail is linear, so that its matrix can be written down and the chain rule with it.
    norm, _, _, head = parts
    scale = 1 / np.sqrt(to_numpy(norm.moving_variance) + norm.epsilon)
    matrix = scale[:, None] * to_numpy(head.kernel)
    outputs = run_tail(parts, teacher_map @ kernel)
    by_outputs = 2 * outputs / outputs.size + 10 / outputs.size
    expected = teacher_map.mean((1, 2)).T @ by_outputs @ matrix.T
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 5, 5, 4), (3, 5, 4), (3, 4)])
@pytest.mark.parametrize("with_labels", [True, False])
def test_task_is_a_linear_head_on_the_average(shape, with_labels):
    objective = TaskObjective(5)
    target = random_array(*shape)
    objective.build(shape)
    objective.head.bias.assign(random_array(5, seed=2))
    pooled = target.reshape(3, -1, 4).mean(axis=1)
    logits = pooled @ to_numpy(objective.head.kernel) + to_numpy(objective.head.bias)
    loss = objective.loss(
        ops.convert_to_tensor(target),
        T2SContext(
            class_logits_loss=lambda found: 10 * mean(found),
            class_student_loss=squares if with_labels else None,
        ),
    )
    expected = 10 * logits.mean() + (np.mean(logits**2) if with_labels else 0)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("teacher_shape", "target_shape"),
    [
        ((3, 4, 4, 5), (3, 4, 4, 2)),
        ((3, 4, 4, 5), (3, 2, 2, 2)),
        ((3, 7, 5), (3, 7, 2)),
        ((3, 5), (3, 2)),
    ],
)
def test_reconstruction_is_the_share_that_r_does_not_give_back(teacher_shape, target_shape):
    t2s = TeacherToStudent(objective="reconstruction")
    t2s.connect(teacher_shape, target_shape)
    objective = attach_objective(t2s, None, "tap", 5, None)
    assert isinstance(objective, ReconstructionObjective)
    decoder = objective.decoder
    decoder.mix.bias.assign(random_array(5, seed=3))
    teacher_map, target = random_array(*teacher_shape, seed=1), random_array(*target_shape, seed=2)
    grown = target.astype("float64")
    for axis in range(1, len(target_shape) - 1):
        wanted, size = teacher_shape[axis], target_shape[axis]
        centres = (np.arange(wanted) + 0.5) * size / wanted - 0.5
        grown = np.apply_along_axis(
            lambda values, at=centres: np.interp(at, np.arange(len(values)), values), axis, grown
        )
    rebuilt = grown @ to_numpy(decoder.mix.kernel) + to_numpy(decoder.mix.bias)
    expected = np.sum((rebuilt - teacher_map) ** 2) / np.sum(teacher_map**2)
    loss = objective.loss(ops.convert_to_tensor(target), T2SContext(teacher_map=teacher_map))
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)


def test_reconstruction_has_no_unit():
    t2s = TeacherToStudent(objective="reconstruction")
    t2s.connect((None, 4, 4, 5), (None, 4, 4, 2))
    objective = attach_objective(t2s, None, "tap", 5, None)
    teacher_map, target = random_array(2, 4, 4, 5), random_array(2, 4, 4, 2)
    small = objective.loss(ops.convert_to_tensor(target), T2SContext(teacher_map=teacher_map))
    large = objective.loss(
        ops.convert_to_tensor(30 * target), T2SContext(teacher_map=30 * teacher_map)
    )
    np.testing.assert_allclose(float(small), float(large), rtol=1e-4)


def test_without_an_objective_t2s_follows_the_student_and_the_student_is_held():
    t2s = TeacherToStudent(objective=None)
    t2s.connect((None, 3), (None, 2))
    student_weight = keras.Variable(random_array(2))
    teacher_map = random_array(4, 3)

    def loss():
        return FeatureLossObjective().loss(
            t2s(teacher_map),
            T2SContext(
                student_map=ops.ones((4, 2)) * student_weight,
                feature_loss=lambda target, features: ops.mean(ops.square(target - features)),
            ),
        )

    mixed = teacher_map @ to_numpy(t2s.mix.kernel)
    difference = mixed - to_numpy(student_weight)
    np.testing.assert_allclose(float(loss()), np.mean(difference**2), rtol=1e-5)
    kernel, students = variable_gradients(loss, [t2s.mix.kernel, student_weight])
    np.testing.assert_allclose(kernel, teacher_map.T @ (2 * difference / 8), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(students, 0.0)


def test_each_objective_says_what_it_is():
    student = functional(tail())
    assert "comparison only" in FeatureLossObjective().describe()
    assert StudentHeadObjective(student, "tap").describe().startswith("student_head")
    assert TaskObjective(2).describe().startswith("task")
