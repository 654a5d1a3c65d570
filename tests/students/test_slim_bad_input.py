"""What `slim_student` cannot do, it says before it builds anything."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from slim_models import inputs_for, outputs_of, randomise

from keras_ktan.students import slim_student
from keras_ktan.students.layer_rules import Narrowing, same_channels, weight
from keras_ktan.utils.channel_record import channel_record_of


def chain(*layers):
    return keras.Sequential([keras.Input((8,)), *layers, L.Dense(2, name="out")], name="chain")


def two_parts():
    inputs = keras.Input((8,))
    parts = [L.Dense(16, name=name)(inputs) for name in ("one", "two")]
    return keras.Model(inputs, L.Dense(2)(L.Add()(parts)))


class Widened(L.Layer):
    """A layer that holds a width."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, x):
        return ops.matmul(x, self.kernel)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Doubled(L.Layer):
    """A layer without weights."""

    def call(self, x):
        return 2 * x


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"width": 0}, ["`width` contains 0", "above 0 and up to 1"]),
        ({"width": 1.5}, ["`width` contains 1.5", "Pass 0.25"]),
        ({"width": True}, ["`width` contains True"]),
        ({"width": float("nan")}, ["`width` contains nan"]),
        ({"width": "half"}, ["'half'", "Expected numbers"]),
        ({"width": {}}, ["empty dict", "'*': 0.25"]),
        ({"width": {"hidden": 2}}, ["`width` contains 2"]),
        ({"width": {"nothing*": 0.5}}, ["'nothing*'", "'hidden'", "Correct or remove"]),
        ({"width": {"*": 0.5, "hidden": 0.25}}, ["'hidden'", "the first that matches counts"]),
        ({"divisor": 0}, ["`divisor=0`", "at least 1"]),
        ({"divisor": 2.0}, ["`divisor=2.0`"]),
        ({"initialize": "zeros"}, ["`initialize='zeros'`", "'random'"]),
        ({"importance": "size"}, ["`importance='size'`", "'gamma'"]),
        ({"importance": "activation"}, ["`data` missing", "importance='activation', data="]),
        ({"data": np.ones((2, 8))}, ["`data` given"]),
        ({"target": {"bytes": 0.5}}, ["'bytes'", "'macs' or 'parameters'"]),
        ({"target": {"macs": 1.5}}, ["1.5", "a share"]),
        ({"target": {"macs": 0}}, ["{'macs': 0}"]),
        ({"target": 0.25}, ["`target=0.25`"]),
        ({"target": {"macs": 0.5, "parameters": 0.5}}, ["one entry"]),
        ({"target": {"parameters": 20}}, ["at most 20 parameters", "has 90", "`divisor=1`"]),
        ({"importance": lambda layer: np.ones(3)}, ["shape (3,)", "'hidden'", "16 channels"]),
    ],
)
def test_arguments(arguments, parts):
    with pytest.raises(ValueError) as error:
        slim_student(chain(L.Dense(16, name="hidden")), **arguments)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("teacher", "parts"),
    [
        (lambda: None, ["NoneType", "Expected a built `keras.Model`"]),
        (Subclassed, ["'subclassed'", "Subclassed", "student of your own"]),
        (lambda: keras.Sequential([L.Dense(2)]), ["has not been built", "keras.Input"]),
        (lambda: chain(Widened(4, name="mine")), ["'mine'", "Widened", "rules={Widened"]),
        (lambda: chain(L.Lambda(lambda x: x * 2, name="fun")), ["'fun'", "may hold a width"]),
    ],
)
def test_teachers(teacher, parts):
    with pytest.raises(ValueError) as error:
        slim_student(teacher())
    for part in parts:
        assert part in str(error.value)


def test_nested_subclassed_models_are_named():
    inputs = keras.Input((8,))
    teacher = keras.Model(inputs, Subclassed()(L.Dense(16)(inputs)))
    with pytest.raises(ValueError, match="'subclassed' of the class Subclassed"):
        slim_student(teacher)


def test_weights_that_are_no_numbers():
    teacher = chain(L.Dense(16, name="hidden"))
    teacher.layers[0].kernel.assign(np.full((8, 16), np.nan))
    with pytest.raises(ValueError, match="kernel' contains numbers that are not finite"):
        slim_student(teacher)


def test_tied_layers_with_unlike_widths():
    with pytest.raises(ValueError, match="'one' the factor 0.5 and 'two' the factor 0.25"):
        slim_student(two_parts(), {"one": 0.5, "two": 0.25})


def test_a_shared_layer_with_unlike_configurations():
    inputs = keras.Input((4, 8))
    flat = L.Reshape((32,), name="flat")
    parts = [flat(L.Dense(8, name=name)(inputs)) for name in ("one", "two")]
    teacher = keras.Model(inputs, L.Dense(2)(L.Concatenate()(parts)))
    student = slim_student(teacher, 0.5, divisor=1)
    assert student.get_layer("flat").target_shape == (16,)
    with pytest.raises(ValueError, match="'flat' is shared .* values .*16.*8"):
        slim_student(teacher, {"one": 0.5, "two": 0.25}, divisor=1)


def test_rules_teach_it_new_layers():
    def widened(call):
        units = call.new_channels(call.layer.units)
        output = call.output_channels(units)
        kernel = weight(call.layer.kernel, {0: call.ids(call.input), 1: units}, "kernel", 1)
        return Narrowing([output], kernel, {"units": units})

    teacher = randomise(chain(L.Dense(16, name="a"), Doubled(), Widened(8, name="mine"), L.ReLU()))
    rules = {Widened: widened, Doubled: same_channels}
    kernel = np.array(ops.convert_to_numpy(teacher.get_layer("mine").kernel))
    kernel[:, ::2] = 0.0
    teacher.get_layer("mine").kernel.assign(kernel)
    student = slim_student(teacher, {"mine": 0.5}, divisor=1, rules=rules)
    assert student.get_layer("mine").units == 4
    assert channel_record_of(student).channels["mine"] == [1, 3, 5, 7]
    inputs = inputs_for(teacher)
    np.testing.assert_allclose(outputs_of(student, inputs), outputs_of(teacher, inputs), atol=1e-5)


def test_a_wrong_rule_is_found_out():
    with pytest.raises(ValueError, match="'mine' .* shape"):
        slim_student(chain(L.Dense(16), Widened(16, name="mine")), rules={Widened: same_channels})
