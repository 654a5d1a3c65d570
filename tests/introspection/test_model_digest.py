"""Digests of models: equal for the same model, whatever its layers are called, else unlike."""

import keras
import pytest

from keras_ktan.introspection.model_digest import config_digest, teacher_digest, weights_digest


def functional(activation="relu", name=None, merge=keras.ops.add, inner="relu"):
    inputs = keras.Input((3,))
    backbone = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, activation=inner)])
    hidden = keras.layers.Dense(3, activation=activation, name=name)(inputs)
    merged = merge(hidden, backbone(inputs))
    return keras.Model(inputs, {"a": keras.layers.Dense(2)(merged), "b": hidden})


def test_the_same_code_gives_the_same_digest_and_names_do_not_count():
    assert config_digest(functional()) == config_digest(functional())
    assert config_digest(functional(name="relu")) == config_digest(functional(name="a name"))


def difference(order):
    inputs = keras.Input((3,))
    made = [keras.layers.Dense(3)(inputs), inputs]
    return keras.Model(inputs, keras.layers.Subtract()(made[::order]))


UNLIKE = {
    "named after its activation": (
        lambda: functional("relu", name="relu"),
        lambda: functional("tanh", name="tanh"),
    ),
    "named after another's activation": (
        lambda: functional("relu", name="tanh"),
        lambda: functional("tanh", name="relu"),
    ),
    "operation": (functional, lambda: functional(merge=keras.ops.subtract)),
    "inner activation": (functional, lambda: functional(inner="tanh")),
    "order": (lambda: difference(1), lambda: difference(-1)),
    "policy": (
        lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="float32")]),
        lambda: keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(2, name="float16", dtype="float16")]
        ),
    ),
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_other_structures_have_other_digests(kind):
    one, other = (make() for make in UNLIKE[kind])
    assert config_digest(one) != config_digest(other)


def test_every_weight_counts_and_its_shape():
    model = functional()
    before = teacher_digest(model)
    model.layers[-1].bias.assign([0.0, 1e-6])
    assert teacher_digest(model) != before

    def zeros(inputs, units):
        dense = keras.layers.Dense(units, use_bias=False, kernel_initializer="zeros")
        return weights_digest(keras.Sequential([keras.Input((inputs,)), dense]))

    assert zeros(2, 3) != zeros(3, 2)
