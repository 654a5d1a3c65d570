"""T2S by selection: R is a choice of the teacher's channels, nothing is trained."""

import keras
import numpy as np
import pytest
from helpers import all_values, assert_three_parts, random_array, to_numpy
from keras import layers, ops
from models import image_data, image_model, loss_from_logits

from keras_ktan import FeaturePair, KTANDistiller, TeacherToStudent


def connected(channels=None, proposed=None, teacher=5, student=2, **arguments):
    t2s = TeacherToStudent(channels=channels, **{"objective": "selection", **arguments})
    t2s.connect((None, 4, 4, teacher), (None, 4, 4, student), channels=proposed)
    return t2s


def test_r_is_the_chosen_channels():
    teacher_map = random_array(2, 4, 4, 5)
    t2s = connected([3, 1])
    np.testing.assert_array_equal(to_numpy(t2s(teacher_map)), teacher_map[..., [3, 1]])
    assert t2s.weights == []


def test_height_and_width_are_averaged_over_areas():
    teacher_map = random_array(2, 4, 4, 5)
    averaged = teacher_map.reshape(2, 2, 2, 2, 2, 5).mean((2, 4))
    found = to_numpy(connected([4, 0])(teacher_map, size=(2, 2)))
    np.testing.assert_allclose(found, averaged[..., [4, 0]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", ["auto", "selection"])
def test_the_channels_that_matter_are_taken_where_none_were_named(objective):
    t2s = connected(proposed=[0, 4], objective=objective)
    assert t2s.selects and t2s.channels == [0, 4]


def test_more_channels_than_the_teachers_are_learned_and_refused_by_name():
    assert not connected(teacher=2, student=5, objective="auto").selects
    with pytest.raises(ValueError) as error:
        connected(teacher=2, student=5)
    assert_three_parts(error.value, "'selection'", "Expected no more than", "leave `objective`")


def test_without_anything_that_says_which_matter_it_is_learned_and_refused_by_name():
    assert not connected(objective="auto").selects
    with pytest.raises(ValueError, match="which ones matter"):
        connected()


@pytest.mark.parametrize(
    ("channels", "came"),
    [
        ([0, 5], "channel 5"),
        ([1, 1], "[1, 1]"),
        ([0], "1 channels"),
        ([0, -1], "channel=-1"),
        ([0, True], "channel=True"),
        ("01", "channels='01'"),
        ([], "[]"),
        (3, "channels=3"),
    ],
)
def test_wrong_channels_are_refused(channels, came):
    with pytest.raises(ValueError) as error:
        connected(channels)
    assert_three_parts(error.value, came, "Expected", "leave `channels` out")


def test_numpy_channels_are_channels():
    assert connected(np.array([3, 1])).channels == [3, 1]


@pytest.mark.parametrize(
    ("teachers", "students", "expected"),
    [
        ("swish", "swish", [-1.0, 2.0]),
        ("relu", "swish", [-1.0, 2.0]),
        (None, "relu", [0.0, 2.0]),
        (None, None, [-1.0, 2.0]),
        ("relu", None, [-1.0, 2.0]),
    ],
)
def test_an_activation_is_not_applied_twice(teachers, students, expected):
    t2s = TeacherToStudent("selection", channels=[0])
    t2s.connect((None, 5), (None, 1), activation=students, teacher_activation=teachers)
    found = to_numpy(t2s(np.array([[-1.0, 0, 0, 0, 0], [2.0, 0, 0, 0, 0]], "float32")))[:, 0]
    if (teachers, students) == ("relu", "swish"):
        expected = to_numpy(ops.silu(np.array([-1.0, 2.0], "float32")))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_two_relu_layers_are_one_activation():
    t2s = TeacherToStudent("selection", channels=[0])
    same = {"activation": layers.ReLU(max_value=6, name="a"), "teacher_activation": layers.ReLU(6)}
    t2s.connect((None, 2), (None, 1), **same)
    assert t2s.settled_activation is keras.activations.linear
    other = TeacherToStudent("selection", channels=[0])
    other.connect((None, 2), (None, 1), activation=layers.ReLU(6), teacher_activation="relu")
    np.testing.assert_allclose(to_numpy(other(np.array([[7.0, 0.0]], "float32"))), [[6.0]])


def test_a_learned_t2s_may_begin_as_the_selection():
    teacher_map = random_array(2, 4, 4, 5)
    for arguments in ({"trainable": True}, {"objective": "student_head"}):
        t2s = connected([3, 1], **arguments)
        assert not t2s.selects and len(t2s.trainable_variables) == 2
        np.testing.assert_allclose(
            to_numpy(t2s(teacher_map)), teacher_map[..., [3, 1]], rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("arguments", [{}, {"trainable": True}, {"objective": "reconstruction"}])
def test_config_round_trip_keeps_the_channels(arguments):
    t2s = connected([3, 1], **arguments)
    copy = TeacherToStudent.from_config(t2s.get_config())
    copy.connect((None, 4, 4, 5), (None, 4, 4, 2), channels=[0, 1])
    assert copy.channels == [3, 1] and copy.selects == t2s.selects
    assert copy.get_config() == t2s.get_config()


def make_distiller(**arguments):
    teacher = image_model(12, "teacher", seed=1)
    kernel = to_numpy(teacher.get_layer("features").kernel).copy()
    kernel[..., [2, 3, 7, 11]] *= 10.0  # the channels that matter
    teacher.get_layer("features").kernel.assign(kernel)
    arguments.setdefault("feature_pairs", FeaturePair("features", "features"))
    return KTANDistiller(teacher, image_model(4, "student", seed=2), **arguments)


@pytest.mark.promise(5)
def test_by_default_a_selection_teaches_and_nothing_of_t2s_is_trained():
    distiller = make_distiller()
    lines = []
    distiller.summary(print_fn=lines.append)
    assert any(
        "selection (4 of the teacher's 12 channels, the most important ones; fixed)" in line
        for line in lines
    )
    distiller.compile(keras.optimizers.SGD(0.1), loss_from_logits(), adversarial_loss_weight=0.0)
    images, labels = image_data(16)
    (t2s,) = distiller.teacher_to_student_layers
    assert t2s.channels == [2, 3, 7, 11] and distiller.t2s_variables == []
    assert distiller.optimizer.t2s is None
    before = all_values(distiller.student)
    logs = distiller.train_on_batch(images, labels, return_dict=True)
    assert "t2s_loss" not in logs
    # The feature loss by hand: the chosen and the student's channels, each example brought to mean
    # square 1.
    tap = keras.Model(distiller.teacher.inputs, distiller.teacher.get_layer("features").output)
    target = to_numpy(tap(images, training=False))[..., [2, 3, 7, 11]]
    student = image_model(4, "student", seed=2)
    student.set_weights(before)
    tap = keras.Model(student.inputs, student.get_layer("features").output)
    features = to_numpy(tap(images, training=True))

    def unit(maps):
        return maps / np.sqrt(np.mean(maps**2, (1, 2, 3), keepdims=True))

    expected = np.mean((unit(target) - unit(features)) ** 2)
    np.testing.assert_allclose(float(logs["feature_loss"]), expected, rtol=1e-4)


@pytest.mark.promise(9)
def test_a_loaded_distiller_selects_the_same_channels(tmp_path):
    distiller = make_distiller()
    distiller.compile(keras.optimizers.SGD(0.1), loss_from_logits(), adversarial_loss_weight=0.02)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    (t2s,) = loaded.teacher_to_student_layers
    assert t2s.selects and t2s.channels == [2, 3, 7, 11]


def test_of_two_pairs_one_may_select_and_one_learn():
    """What is learned does not depend on a pair beside it that selects."""

    def t2s_loss(*pairs):
        learned = TeacherToStudent("student_head")
        learning = FeaturePair("stem_out", "stem_out", teacher_to_student=learned)
        distiller = make_distiller(feature_pairs=[*pairs, learning])
        distiller.compile(
            keras.optimizers.SGD(0.1), loss_from_logits(), adversarial_loss_weight=0.02
        )
        learned.set_weights([np.full((12, 4), 0.1, "float32"), np.zeros(4, "float32")])
        assert len(distiller.t2s_variables) == 2
        return float(distiller.train_on_batch(*image_data(16), return_dict=True)["t2s_loss"])

    alone = t2s_loss()
    np.testing.assert_allclose(t2s_loss(FeaturePair("features", "features")), alone, rtol=1e-5)
