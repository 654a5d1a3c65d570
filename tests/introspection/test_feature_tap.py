"""A tap reaches any layer by path, brings back what it made, and leaves the model alone."""

import sys
import threading

import keras
import numpy as np
import pytest
from helpers import assert_three_parts, gradients, random_array, to_numpy
from keras import layers, ops

from keras_ktan.introspection.feature_tap import FeatureTap, find_layer, select_output, split_path

INPUTS = random_array(3, 4)


class Pyramid(layers.Layer):
    """Returns a dict or a list of two tensors."""

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind
        self.low = layers.Dense(5, name="low")
        self.high = layers.Dense(6, name="high")

    def build(self, shape):
        self.low.build(shape)
        self.high.build(shape)

    def call(self, inputs):
        low, high = self.low(inputs), self.high(inputs)
        return {"P3": low, "P4": high} if self.kind == "dict" else [low, high]


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [layers.Dense(5, name="block_0"), layers.Dense(6, name="block_1")]
        self.heads = {"logits": layers.Dense(2, name="logits")}

    def call(self, inputs):
        for block in self.blocks:
            inputs = ops.relu(block(inputs))
        return self.heads["logits"](inputs)


def functional():
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(2, name="logits")(hidden), name="flat")


def sequential():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, name="hidden"), layers.Dense(2, name="logits")]
    )


def nested(depth=2):
    model = functional()
    for level in range(depth):
        inputs = keras.Input((4,))
        model = keras.Model(inputs, layers.Dense(3)(model(inputs)), name=f"level_{level}")
    return model


def pyramid(kind):
    inputs = keras.Input((4,))
    maps = Pyramid(kind, name="fpn")(inputs)
    low, high = maps.values() if kind == "dict" else maps
    return keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([low, high])))


def dense_by_numpy(layer, inputs):
    return inputs @ to_numpy(layer.kernel) + to_numpy(layer.bias)


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    ("make", "path"),
    [
        (functional, "hidden"),
        (sequential, "hidden"),
        (nested, "level_0/flat/hidden"),
        (lambda: pyramid("dict"), "fpn/low"),
    ],
)
def test_what_comes_back_is_what_the_layer_made(make, path):
    model = make()
    outputs, (caught,) = FeatureTap(model, [path], "student")(INPUTS)
    layer = find_layer(model, path, "student")
    expected = dense_by_numpy(layer, INPUTS)
    if layer.activation is keras.activations.relu:
        expected = np.maximum(expected, 0)
    np.testing.assert_allclose(to_numpy(caught), expected, atol=1e-6)
    np.testing.assert_array_equal(to_numpy(outputs), to_numpy(model(INPUTS)))


@pytest.mark.promise(8)
def test_layers_in_a_subclassed_models_lists_and_dicts():
    model = Subclassed()
    model(INPUTS)
    outputs, (second, first, logits) = FeatureTap(
        model, ["block_1", "block_0", "logits"], "teacher"
    )(INPUTS)
    expected_first = dense_by_numpy(model.blocks[0], INPUTS)
    expected_second = dense_by_numpy(model.blocks[1], np.maximum(expected_first, 0))
    np.testing.assert_allclose(to_numpy(first), expected_first, atol=1e-6)
    np.testing.assert_allclose(to_numpy(second), expected_second, atol=1e-6)
    np.testing.assert_array_equal(to_numpy(logits), to_numpy(outputs))


@pytest.mark.promise(8)
@pytest.mark.parametrize(("kind", "keys"), [("dict", ["P3", "P4"]), ("list", ["0", "1"])])
def test_a_key_chooses_among_several_outputs(kind, keys):
    model = pyramid(kind)
    _, (high, low) = FeatureTap(model, [f"fpn:{keys[1]}", f"fpn:{keys[0]}"], "student")(INPUTS)
    layer = model.get_layer("fpn")
    np.testing.assert_allclose(to_numpy(low), dense_by_numpy(layer.low, INPUTS), atol=1e-6)
    np.testing.assert_allclose(to_numpy(high), dense_by_numpy(layer.high, INPUTS), atol=1e-6)


def test_one_path_may_be_caught_twice():
    _, (first, second) = FeatureTap(functional(), ["hidden", "hidden"], "student")(INPUTS)
    np.testing.assert_array_equal(to_numpy(first), to_numpy(second))


def test_the_gradient_passes_through_what_was_caught():
    model = functional()
    tap = FeatureTap(model, ["hidden"], "student")
    (gradient,) = gradients(lambda inputs: ops.sum(tap(inputs)[1][0]), INPUTS)
    layer = model.get_layer("hidden")
    alive = dense_by_numpy(layer, INPUTS) > 0
    np.testing.assert_allclose(gradient, alive @ to_numpy(layer.kernel).T, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_training_is_passed_on(training):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dropout(0.999, name="drop"), layers.Dense(2)]
    )
    _, (caught,) = FeatureTap(model, ["drop"], "student")(INPUTS, training=training)
    assert np.array_equal(to_numpy(caught), INPUTS) is not training


def test_the_model_goes_on_with_a_substitute():
    model = functional()
    substitute = random_array(3, 5, seed=9)
    tap = FeatureTap(model, ["hidden"], "student")
    outputs, (caught,) = tap(INPUTS, substitutes={"hidden": substitute})
    np.testing.assert_array_equal(to_numpy(caught), substitute)
    np.testing.assert_allclose(
        to_numpy(outputs), dense_by_numpy(model.get_layer("logits"), substitute), atol=1e-6
    )
    np.testing.assert_array_equal(to_numpy(tap(INPUTS)[0]), to_numpy(model(INPUTS)))


@pytest.mark.parametrize(("kind", "key"), [("dict", "P4"), ("list", "1")])
def test_a_substitute_for_one_of_several_outputs_leaves_the_others(kind, key):
    model = pyramid(kind)
    substitute = random_array(3, 6, seed=9)
    path = f"fpn:{key}"
    outputs, (caught,) = FeatureTap(model, [path], "student")(
        INPUTS, substitutes={path: substitute}
    )
    np.testing.assert_array_equal(to_numpy(caught), substitute)
    low = dense_by_numpy(model.get_layer("fpn").low, INPUTS)
    expected = dense_by_numpy(model.layers[-1], np.concatenate([low, substitute], axis=1))
    np.testing.assert_allclose(to_numpy(outputs), expected, atol=1e-5)


def test_the_model_is_left_alone():
    model = nested()
    layer = find_layer(model, "level_0/flat/hidden", "student")
    tap = FeatureTap(model, ["level_0/flat/hidden"], "student")
    tap(INPUTS)
    assert "call" not in vars(layer)
    with pytest.raises(Exception, match=r"(?s)."):
        tap(random_array(3, 7))
    assert "call" not in vars(layer)


def test_an_attached_tap_catches_its_own_passes_and_lets_every_other_call_pass():
    model = nested()
    path = "level_0/flat/hidden"
    layer = find_layer(model, path, "student")
    tap = FeatureTap(model, [path], "student")
    outputs, (expected,) = tap(INPUTS)
    in_thread = []

    def run():
        in_thread.append(to_numpy(tap(2 * INPUTS)[1][0]))

    with tap.attached():
        stand_in = vars(layer)["call"]
        for _ in range(2):
            again, (caught,) = tap(INPUTS)
            np.testing.assert_array_equal(to_numpy(caught), to_numpy(expected))
            np.testing.assert_array_equal(to_numpy(again), to_numpy(outputs))
        # Once more than one pass may: it is none of the tap's.
        np.testing.assert_array_equal(to_numpy(model(INPUTS)), to_numpy(outputs))
        _, (other,) = tap(INPUTS, substitutes={path: 0 * expected})
        np.testing.assert_array_equal(to_numpy(model(INPUTS)), to_numpy(outputs))
        with tap.attached():
            np.testing.assert_array_equal(to_numpy(tap(INPUTS)[1][0]), to_numpy(expected))
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert vars(layer)["call"] is stand_in
    np.testing.assert_allclose(
        in_thread[0], np.maximum(dense_by_numpy(layer, 2 * INPUTS), 0), atol=1e-5
    )
    assert "call" not in vars(layer)
    with pytest.raises(RuntimeError, match="the training stops"), tap.attached():
        raise RuntimeError("the training stops")
    assert "call" not in vars(layer)
    np.testing.assert_array_equal(to_numpy(tap(INPUTS)[1][0]), to_numpy(expected))


def test_an_attached_tap_catches_a_layer_that_was_quantised_or_got_another_call_meanwhile():
    model = functional()
    layer = model.get_layer("hidden")
    tap = FeatureTap(model, ["hidden"], "student")
    expected = to_numpy(tap(INPUTS)[1][0])
    with tap.attached():
        call = layer.call
        layer.call = lambda *args, **kwargs: 2 * call(*args, **kwargs)  # as a callback may
        np.testing.assert_allclose(to_numpy(tap(INPUTS)[1][0]), 2 * expected, rtol=1e-6)
        del layer.call
        np.testing.assert_allclose(to_numpy(tap(INPUTS)[1][0]), expected, rtol=1e-6)
        layer.call = wrapper = lambda *args, **kwargs: 3 * call(*args, **kwargs)
    assert vars(layer)["call"] is wrapper  # whoever put it there takes it away
    np.testing.assert_allclose(to_numpy(tap(INPUTS)[1][0]), 3 * expected, rtol=1e-6)
    del layer.call
    with tap.attached():
        layer.quantize("int8")
        caught = to_numpy(tap(INPUTS)[1][0])
        np.testing.assert_allclose(caught, expected, atol=0.1 * np.abs(expected).max())
        assert np.abs(caught - expected).max() > 0
    assert not {"call", "quantized_call"} & set(vars(layer))


def test_a_tap_in_another_thread_catches_its_own_pass():
    caught = {}
    barrier = threading.Barrier(2, timeout=120)

    class Waiting(keras.layers.Layer):
        """Both passes are inside the model at the same time."""

        # Else Keras finds it by a call of its own when the model is built.
        def compute_output_shape(self, input_shape):
            return input_shape

        def call(self, inputs):
            barrier.wait()
            return inputs

    hidden = functional().get_layer("hidden")
    # Built here: Keras does not build one model from two threads at a time.
    model = keras.Sequential([keras.Input((4,)), hidden, Waiting()])
    taps = [FeatureTap(model, ["hidden"], "student") for _ in range(2)]

    def run(index):
        try:
            caught[index] = to_numpy(taps[index](INPUTS * (1 + index))[1][0])
        except BaseException:
            barrier.abort()  # the other would wait for this one
            raise

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # they change places everywhere, also as they come and go
    try:
        for _ in range(30):
            caught.clear()
            threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for index in range(2):
                expected = np.maximum(dense_by_numpy(hidden, INPUTS * (1 + index)), 0)
                np.testing.assert_allclose(caught[index], expected, atol=1e-5)
            assert "call" not in vars(hidden)
    finally:
        sys.setswitchinterval(interval)


def test_a_quantised_layer_can_be_tapped():
    model = functional()
    model.quantize("int8")
    hidden = model.get_layer("hidden")
    expected = to_numpy(hidden(INPUTS))
    outputs, (caught,) = FeatureTap(model, ["hidden"], "student")(INPUTS)
    np.testing.assert_array_equal(to_numpy(caught), expected)
    np.testing.assert_array_equal(to_numpy(outputs), to_numpy(model(INPUTS)))
    assert "quantized_call" not in vars(hidden)


@pytest.mark.promise(8)
def test_a_wrong_path_names_the_nearest_layers():
    with pytest.raises(ValueError) as error:
        FeatureTap(nested(), ["level_0/flat/hiden"], "teacher")
    assert_three_parts(
        error.value,
        "No layer 'level_0/flat/hiden' in the teacher",
        "level_0/flat/hidden",
        "Correct",
    )
    assert "teacher_layer_name" in str(error.value)


@pytest.mark.promise(8)
def test_a_name_without_its_path_names_the_path():
    with pytest.raises(ValueError) as error:
        FeatureTap(nested(depth=4), ["hidden"], "student")
    message = str(error.value)
    # So deep inside that the strings are not alike.
    assert "nearest are ['level_2/level_1/level_0/flat/hidden'" in message
    assert "'outer/inner'" in message


@pytest.mark.promise(8)
def test_a_name_that_two_layers_have_is_refused():
    class Twins(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.one, self.two = layers.Dense(4, name="twin"), layers.Dense(4, name="twin")

        def call(self, inputs):
            return self.two(self.one(inputs))

    model = Twins(name="twins")
    model(INPUTS)
    with pytest.raises(ValueError) as error:
        FeatureTap(model, ["twin"], "student")
    assert_three_parts(
        error.value, "2 layers", "Expected a path that names one", "names of their own"
    )


def test_a_layer_that_runs_twice_is_refused():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    model = keras.Model(inputs, shared(shared(inputs)), name="loop")
    with pytest.raises(ValueError) as error:
        FeatureTap(model, ["shared"], "student")(INPUTS)
    assert_three_parts(
        error.value, "ran 2 times", "Expected exactly once", "Name a layer that runs"
    )
    assert "call" not in vars(shared)


def test_a_layer_that_does_not_run_is_refused():
    class Spare(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.spare = layers.Dense(2, name="used"), layers.ReLU(name="spare")

        def call(self, inputs):
            return self.used(inputs)

    model = Spare()
    model(INPUTS)
    with pytest.raises(ValueError) as error:
        FeatureTap(model, ["spare"], "teacher")(INPUTS)
    assert_three_parts(error.value, "ran 0 times", "Expected exactly once", "Name a layer")


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    ("kind", "path", "came", "expected", "remedy"),
    [
        ("dict", "fpn", "returns several tensors (['P3', 'P4'])", "Expected one", "'fpn:P3'"),
        ("list", "fpn", "returns several tensors (['0', '1'])", "Expected one", "'fpn:0'"),
        ("dict", "fpn:P5", "No output 'P5' at 'fpn:P5'", "['P3', 'P4']", "behind the colon"),
        ("list", "fpn:2", "No output '2' at 'fpn:2'", "['0', '1']", "behind the colon"),
        ("list", "fpn:P3", "No output 'P3'", "['0', '1']", "behind the colon"),
        ("dict", "dense:0", "single tensor", "Expected a path without a colon", "Remove ':0'"),
    ],
)
def test_keys_that_do_not_fit(kind, path, came, expected, remedy):
    inputs = keras.Input((4,))
    maps = Pyramid(kind, name="fpn")(inputs)
    first = maps["P3"] if kind == "dict" else maps[0]
    model = keras.Model(inputs, layers.Dense(2, name="dense")(first))
    with pytest.raises(ValueError) as error:
        FeatureTap(model, [path], "student")(INPUTS)
    assert_three_parts(error.value, came, expected, remedy)


def test_split_path_and_select_output():
    assert split_path("backbone/fpn:P3") == ("backbone/fpn", "P3")
    assert split_path("backbone/fpn") == ("backbone/fpn", None)
    assert select_output({"a": 1, "b": 2}, "b", "x:b") == 2
    assert select_output((1, 2), "0", "x:0") == 1
    assert select_output(7, None, "x") == 7


def test_a_forward_pass_makes_no_layers(monkeypatch):
    """On torch every step runs through here; making a layer takes half a millisecond."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")])
    tap = FeatureTap(model, ["hidden"], "student")
    tap(keras.ops.ones((2, 4)))
    made = []
    original = keras.layers.Layer.__init__
    monkeypatch.setattr(
        keras.layers.Layer,
        "__init__",
        lambda self, *args, **kwargs: (made.append(type(self)), original(self, *args, **kwargs))[1],
    )
    tap(keras.ops.ones((2, 4)))
    assert made == []
