"""Which output holds class logits, and whether it holds logits at all."""

import keras
import numpy as np
import pytest
from helpers import assert_three_parts
from keras import layers, ops

from keras_ktan.introspection.model_trace import ModelTrace
from keras_ktan.introspection.outputs import (
    ClassLogits,
    normalising_activation,
    validate_loss_on_logits,
)


def with_output(*behind, classes=3):
    """A Functional model whose last layers are given."""
    inputs = keras.Input((4,))
    hidden = layers.Dense(classes, name="scores")(inputs)
    for layer in behind:
        hidden = layer(hidden)
    return keras.Model(inputs, hidden)


def wrapped(inner):
    """The model nested in another, as its last layer."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, inner(layers.Dense(4)(inputs)))


class Subclassed(keras.Model):
    def __init__(self, *parts):
        super().__init__()
        self.parts = list(parts)

    def call(self, inputs):
        for part in self.parts:
            inputs = part(inputs)
        return inputs


def subclassed(*parts):
    model = Subclassed(*parts)
    model(np.zeros((1, 4), "float32"))
    return model


def softmax_argument():
    return with_output(layers.Dense(3, activation="softmax"))


NORMALISED = [
    (softmax_argument, "softmax"),
    (lambda: with_output(layers.Dense(3, activation="sigmoid")), "sigmoid"),
    (lambda: with_output(layers.Activation("softmax")), "softmax"),
    (lambda: with_output(layers.Activation("sigmoid")), "sigmoid"),
    (lambda: with_output(layers.Softmax()), "softmax"),
    (lambda: with_output(layers.Activation("softmax", dtype="float32")), "softmax"),
    (lambda: with_output(layers.Dense(3, activation=ops.softmax)), "softmax"),
    (lambda: with_output(layers.Softmax(), layers.Dropout(0.5)), "softmax"),
    (lambda: wrapped(softmax_argument()), "softmax"),
    (lambda: wrapped(wrapped(with_output(layers.Softmax()))), "softmax"),
    (
        lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")]),
        "softmax",
    ),
    (lambda: keras.Sequential([keras.Input((4,)), with_output(layers.Softmax())]), "softmax"),
    (lambda: subclassed(layers.Dense(3), layers.Dense(3, activation="softmax")), "softmax"),
    (lambda: subclassed(layers.Dense(3), layers.Softmax()), "softmax"),
    (lambda: subclassed(layers.Dense(4), softmax_argument()), "softmax"),
    (lambda: with_output(layers.Dense(3)), None),
    (lambda: with_output(layers.Dense(3, activation="softmax"), layers.Dense(3)), None),
    (lambda: with_output(layers.Dense(3, activation="relu")), None),
    (lambda: subclassed(softmax_argument(), layers.Dense(3)), None),
    (lambda: with_output(layers.Activation("linear", dtype="float32")), None),
]


@pytest.mark.parametrize(("make", "expected"), NORMALISED)
def test_a_softmax_or_sigmoid_is_seen(make, expected):
    assert normalising_activation(ModelTrace(make()), None) == expected


def logits_of(teacher, student, logits_output=None, activation="softmax"):
    return ClassLogits(ModelTrace(teacher), ModelTrace(student), logits_output, activation)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_probabilities_of_either_model_are_refused_when_logits_are_needed(role):
    models = [with_output(), with_output()]
    models[role == "student"] = softmax_argument()
    found = logits_of(*models)
    assert found.found and found.classes == 3
    with pytest.raises(ValueError) as error:
        found.require_logits()
    assert_three_parts(
        error.value,
        f"The {role}'s class scores come out of a softmax",
        "Expected raw logits",
        "Remove the activation",
    )


def test_logits_of_both_models_are_accepted_and_selected():
    found = logits_of(with_output(), with_output())
    assert found.found and found.per_image and found.classes == 3
    assert found.require_logits() is None
    assert found.select("the output") == "the output"


def several(kind="dict", boxes_first=True, activation=None, classes=3):
    inputs = keras.Input((4,))
    scores = layers.Dense(classes, activation=activation, name="scores")(inputs)
    boxes = layers.Dense(8, activation="sigmoid", name="boxes")(inputs)
    if kind == "list":
        return keras.Model(inputs, [boxes, scores] if boxes_first else [scores, boxes])
    return keras.Model(inputs, {"boxes": boxes, "a_class": scores})


@pytest.mark.parametrize(
    ("kind", "key", "classes"),
    [("dict", "a_class", 3), ("dict", "boxes", 8), ("list", 1, 3), ("list", 0, 8), ("list", -1, 3)],
)
def test_a_key_or_a_position_names_the_output(kind, key, classes):
    found = logits_of(several(kind), several(kind), key)
    assert found.found and found.classes == classes
    outputs = {"boxes": 8, "a_class": 3} if kind == "dict" else [8, 3]
    assert found.select(outputs) == classes


@pytest.mark.parametrize(
    ("kind", "key", "refused"),
    [
        ("dict", "a_class", None),
        ("dict", "boxes", "sigmoid"),
        ("list", 1, None),
        ("list", 0, "sigmoid"),
    ],
)
def test_the_activation_of_the_named_output_counts(kind, key, refused):
    assert normalising_activation(ModelTrace(several(kind)), key) == refused


def test_several_outputs_without_a_word_hold_no_logits():
    found = logits_of(several(), several())
    assert not found.found and found.classes is None


def test_a_single_output_of_another_rank_holds_no_logits():
    inputs = keras.Input((6, 4))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    assert not logits_of(model, model).found


def test_scores_for_each_position_are_no_condition_for_an_image():
    def model():
        inputs = keras.Input((6, 4))
        return keras.Model(inputs, {"scores": layers.Dense(3)(inputs)})

    found = logits_of(model(), model(), "scores")
    assert found.found and not found.per_image


def test_scores_of_an_image_and_of_its_positions_cannot_meet():
    inputs = keras.Input((6, 4))
    scores = layers.Dense(3)(inputs)
    per_position = keras.Model(inputs, {"scores": scores})
    per_image = keras.Model(inputs, {"scores": layers.GlobalAveragePooling1D()(scores)})
    with pytest.raises(ValueError, match="Expected"):
        logits_of(per_image, per_position, "scores").require_logits()
    with pytest.raises(ValueError, match="Expected"):
        logits_of(per_position, per_image, "scores").require_logits()


@pytest.mark.parametrize(
    ("kind", "key", "known"),
    [
        ("dict", "scores", "'a_class'"),
        ("dict", 0, "'a_class'"),
        ("list", 2, "[0, 1]"),
        ("list", "x", "[0, 1]"),
    ],
)
def test_a_wrong_key_names_the_right_ones(kind, key, known):
    with pytest.raises(ValueError) as error:
        logits_of(several(kind), several(kind), key)
    assert_three_parts(error.value, f"has no output {key!r}", "Expected one of", "Correct")
    assert known in str(error.value)


@pytest.mark.parametrize("key", [0, "scores"])
def test_a_key_for_a_single_output_is_refused(key):
    with pytest.raises(ValueError) as error:
        logits_of(with_output(), with_output(), key)
    assert_three_parts(error.value, f"{key!r}", "Expected", "leave it out")


def test_the_model_without_the_output_is_named():
    with pytest.raises(ValueError, match="The student '.*' has no output 'a_class'"):
        logits_of(several("dict"), several("list"), "a_class")


def test_unlike_classes_are_refused():
    with pytest.raises(ValueError) as error:
        logits_of(with_output(classes=5), with_output(classes=3)).require_logits()
    assert_three_parts(
        error.value, "The teacher scores 5 classes and the student 3", "Expected the same", "Give"
    )


def test_a_softmax_over_one_class_is_refused_and_a_sigmoid_is_not():
    with pytest.raises(ValueError) as error:
        logits_of(with_output(classes=1), with_output(classes=1)).require_logits()
    assert_three_parts(error.value, "single class score", "Expected two or more", "'sigmoid'")
    assert logits_of(with_output(classes=1), with_output(classes=1), None, "sigmoid").classes == 1


TAKE_PROBABILITIES = [
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
    "SparseCategoricalCrossentropy",  # the other spelling that Keras takes
    keras.losses.SparseCategoricalCrossentropy(),
    keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
    keras.losses.BinaryCrossentropy(),
    keras.losses.SparseCategoricalCrossentropy(name="my_loss"),
    keras.losses.CategoricalFocalCrossentropy(),
    keras.losses.sparse_categorical_crossentropy,  # a function
]


def loss_name(loss):
    return (
        loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", "none"))
    )


@pytest.mark.parametrize("loss", TAKE_PROBABILITIES, ids=loss_name)
def test_a_crossentropy_that_takes_probabilities_is_refused(loss):
    with pytest.raises(ValueError) as error:
        validate_loss_on_logits(loss)
    assert_three_parts(
        error.value, "takes the student's outputs for probabilities", "Expected", "from_logits=True"
    )


def test_the_remedy_is_code_that_works():
    with pytest.raises(ValueError) as error:
        validate_loss_on_logits("sparse_categorical_crossentropy")
    assert "keras.losses.SparseCategoricalCrossentropy(from_logits=True)" in str(error.value)


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        keras.losses.CategoricalFocalCrossentropy(from_logits=True),
        keras.losses.MeanSquaredError(),
        "mse",
        lambda y_true, y_pred: y_pred,
        None,
    ],
    ids=loss_name,
)
def test_other_losses_are_left_to_the_user(loss):
    assert validate_loss_on_logits(loss) is None
