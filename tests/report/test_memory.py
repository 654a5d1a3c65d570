"""Memory at the widest moment, by hand. Float32: 4 bytes a value; one example."""

import keras
import pytest
from keras import layers

from keras_ktan.report import measure_size


def peak(model):
    size = measure_size(model)
    return size.peak_activation_bytes / 4, size.peak_is_complete


def residual(add):
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same")(inputs)  # 128 + 256
    y = layers.Conv2D(16, 1)(x)  # x 256 + 1024
    y = layers.ReLU()(y)  # x 256 + 1024 + 1024: the widest
    y = layers.Conv2D(4, 1)(y)  # x 256 + 1024 + 256
    x = add(x, y)  # 256 + 256 + 256
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))  # 256 + 4


@pytest.mark.parametrize(
    "add", [lambda x, y: layers.Add()([x, y]), lambda x, y: x + y], ids=["layer", "operation"]
)
def test_a_residual_net(add):
    assert peak(residual(add)) == (256 + 1024 + 1024, True)


def test_without_the_shortcut_less_is_alive():
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    x = layers.ReLU()(layers.Conv2D(16, 1)(x))
    assert peak(keras.Model(inputs, x)) == (1024 + 1024, True)


def test_a_nested_model_is_looked_into():
    inputs = keras.Input((8, 8, 2))
    outer = keras.Model(inputs, layers.Dense(3)(residual(lambda x, y: x + y)(inputs)))
    assert peak(outer) == (256 + 1024 + 1024, True)


def test_an_input_that_is_needed_late_and_an_early_output_stay():
    first, second = keras.Input((10,)), keras.Input((20,))
    early = layers.Dense(5)(first)
    x = layers.Dense(7)(layers.Dense(100)(early))
    model = keras.Model([first, second], [layers.Concatenate()([x, second]), early])
    # The Dense from 100 to 7, with the second input and the early output.
    assert peak(model) == (100 + 7 + 20 + 5, True)


def test_a_dropout_makes_no_tensor():
    inputs = keras.Input((10,))
    x = layers.Dropout(0.5)(layers.Dense(20)(inputs))
    assert peak(keras.Model(inputs, layers.Dense(30)(x))) == (20 + 30, True)


def test_bytes_are_those_of_the_type():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(10, 4, dtype="float16")(tokens)
    size = measure_size(keras.Model(tokens, x))
    assert size.peak_activation_bytes == 6 * 4 + 6 * 4 * 2


def test_an_attention_holds_the_scores_of_all_pairs():
    inputs = keras.Input((10, 8))
    layer = layers.MultiHeadAttention(num_heads=4, key_dim=2)
    # Input; queries, keys and values of 4x2 for each position; 4 heads of 10x10 scores.
    expected = 10 * 8 + 3 * 10 * 8 + 4 * 100
    assert peak(keras.Model(inputs, layer(inputs, inputs))) == (expected, True)


def test_a_recurrent_layer_is_one_step():
    model = keras.Sequential([keras.Input((5, 4)), layers.LSTM(3, return_sequences=True)])
    assert peak(model) == (5 * 4 + 5 * 3, True)


def test_what_an_own_call_makes_is_not_seen_and_the_number_says_so():
    class Residual(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inside = layers.Dense(8)

        def build(self, shape):
            self.inside.build(shape)

        def call(self, inputs):
            return inputs + self.inside(inputs)

    model = keras.Sequential([keras.Input((8,)), Residual(), layers.Dense(2)])
    assert peak(model) == (16, False)


def test_an_open_size_has_no_number():
    model = keras.Sequential([keras.Input((None, 8)), layers.Dense(2)])
    assert measure_size(model).peak_activation_bytes is None


def test_a_fixed_batch_counts_for_one_example():
    model = keras.Sequential([keras.Input(batch_shape=(4, 8)), layers.Dense(2)])
    assert peak(model) == (10, True)
