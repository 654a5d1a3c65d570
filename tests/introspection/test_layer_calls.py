"""Standing between a layer and its callers, and leaving without a trace."""

import threading

import keras
import numpy as np
import pytest
from helpers import random_array, to_numpy

from keras_ktan.introspection.layer_calls import intercept_calls


def doubling(call, args, kwargs):
    return 2 * call(*args, **kwargs)


def adding(call, args, kwargs):
    return call(*args, **kwargs) + 1


def dense(units=3, **kwargs):
    layer = keras.layers.Dense(units, **kwargs)
    layer.build((None, 4))
    return layer


def is_untouched(layer):
    return "call" not in vars(layer) and "quantized_call" not in vars(layer)


def test_a_listener_gets_the_arguments_and_gives_the_output():
    layer, inputs = dense(), random_array(2, 4)
    expected = to_numpy(layer(inputs))
    heard = []

    def on_call(call, args, kwargs):
        heard.append(to_numpy(args[0]))
        return 2 * call(*args, **kwargs)

    with intercept_calls([(layer, on_call)]):
        outputs = to_numpy(layer(inputs))
    np.testing.assert_allclose(outputs, 2 * expected, rtol=1e-6)
    assert len(heard) == 1
    np.testing.assert_array_equal(heard[0], inputs)
    np.testing.assert_array_equal(to_numpy(layer(inputs)), expected)
    assert len(heard) == 1


def test_afterwards_the_layer_is_as_it_was():
    layer = dense()
    with intercept_calls([(layer, doubling)]):
        assert "call" in vars(layer)
    assert is_untouched(layer)


def test_after_an_exception_in_the_block_the_layers_are_as_they_were():
    first, second = dense(), dense()
    with pytest.raises(KeyError), intercept_calls([(first, doubling), (second, doubling)]):
        raise KeyError("from within")
    assert is_untouched(first) and is_untouched(second)


def test_after_an_exception_in_the_layer_it_is_as_it_was():
    layer = dense()
    with pytest.raises(Exception, match=r"(?s)."), intercept_calls([(layer, doubling)]):
        layer(random_array(2, 5))  # the layer takes 4
    assert is_untouched(layer)


def test_after_an_exception_in_a_listener_the_layer_is_as_it_was():
    layer = dense()

    def failing(call, args, kwargs):
        raise KeyError("listener")

    with pytest.raises(KeyError), intercept_calls([(layer, failing)]):
        layer(random_array(2, 4))
    assert is_untouched(layer)


def test_a_call_that_somebody_put_on_the_layer_itself_is_put_back():
    layer, inputs = dense(), random_array(2, 4)
    plain = to_numpy(layer(inputs))
    original = layer.call

    def own(inputs):
        return original(inputs) + 10

    layer.call = own
    with intercept_calls([(layer, doubling)]):
        np.testing.assert_allclose(to_numpy(layer(inputs)), 2 * (plain + 10), rtol=1e-6)
    assert vars(layer)["call"] is own


def test_two_listeners_of_one_layer_both_act():
    layer, inputs = dense(), random_array(2, 4)
    expected = to_numpy(layer(inputs))
    # The later one is the outer one: 2x, then + 1.
    with intercept_calls([(layer, doubling), (layer, adding)]):
        np.testing.assert_allclose(to_numpy(layer(inputs)), 2 * expected + 1, rtol=1e-6)
    with intercept_calls([(layer, doubling)]):
        with intercept_calls([(layer, adding)]):
            np.testing.assert_allclose(to_numpy(layer(inputs)), 2 * expected + 1, rtol=1e-6)
        np.testing.assert_allclose(to_numpy(layer(inputs)), 2 * expected, rtol=1e-6)
    assert is_untouched(layer)


def test_listeners_may_leave_in_any_order():
    layer, inputs = dense(), random_array(2, 4)
    expected = to_numpy(layer(inputs))
    first, second = intercept_calls([(layer, doubling)]), intercept_calls([(layer, adding)])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    np.testing.assert_allclose(to_numpy(layer(inputs)), expected + 1, rtol=1e-6)
    second.__exit__(None, None, None)
    np.testing.assert_array_equal(to_numpy(layer(inputs)), expected)
    assert is_untouched(layer)


def test_a_listener_hears_its_own_thread_alone():
    layer, inputs = dense(), random_array(2, 4)
    expected = to_numpy(layer(inputs))
    others = []

    def elsewhere():
        others.append(to_numpy(layer(inputs)))
        with intercept_calls([(layer, adding)]):
            others.append(to_numpy(layer(inputs)))
        others.append(to_numpy(layer(inputs)))

    with intercept_calls([(layer, doubling)]):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        np.testing.assert_allclose(to_numpy(layer(inputs)), 2 * expected, rtol=1e-6)
    np.testing.assert_array_equal(others[0], expected)
    np.testing.assert_allclose(others[1], expected + 1, rtol=1e-6)
    np.testing.assert_array_equal(others[2], expected)
    assert is_untouched(layer)


def test_a_quantised_layer_is_heard_too():
    layer, inputs = dense(), random_array(2, 4)
    layer.quantize("int8")
    expected = to_numpy(layer(inputs))
    with intercept_calls([(layer, doubling)]):
        np.testing.assert_allclose(to_numpy(layer(inputs)), 2 * expected, rtol=1e-6)
    np.testing.assert_array_equal(to_numpy(layer(inputs)), expected)
    assert is_untouched(layer)
