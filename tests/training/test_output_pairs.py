"""Outputs of every kind: what the logits loss is, against NumPy, and what is an error."""

import re

import keras
import numpy as np
import pytest
from helpers import assert_three_parts, random_array, to_numpy
from keras import layers, ops

from keras_ktan import FeaturePair, KTANDistiller, OutputPair, TeacherToStudent

ALONE = {"feature_loss_weight": 0.0, "adversarial_loss_weight": 0.0}
T = 4.0


def mlp(units, classes=3, end=None, seed=1, inputs=(4,), name=None):
    """Raw scores with a spread, and then whatever `end` makes of them."""
    keras.utils.set_random_seed(seed)
    image = keras.Input(inputs)
    hidden = layers.Dense(units, activation="relu")(image)
    spread = keras.initializers.RandomNormal(0.0, 1.0)
    scores = layers.Dense(classes, kernel_initializer=spread, name="scores")(hidden)
    return keras.Model(image, scores if end is None else end(scores), name=name)


def scores_of(model, x):
    """The raw scores, before whatever is at the model's end."""
    inner = keras.Model(model.inputs, model.get_layer("scores").output)
    return to_numpy(inner(x)).astype("float64")


def distilled(teacher, student, loss, x, y, pairs=None, **arguments):
    """Compile, and the logs of one step at rate 0."""
    distiller = KTANDistiller(teacher, student, output_pairs=pairs, temperature=T)
    still = keras.optimizers.SGD(0.0)
    distiller.compile(still, loss, run_eagerly=True, **{**ALONE, **arguments})
    return distiller, distiller.train_on_batch(x, y, return_dict=True)


def softmax_kl(teacher, student):
    p, q = (np.exp(z / T) / np.exp(z / T).sum(-1, keepdims=True) for z in (teacher, student))
    return T**2 * np.mean(np.sum(p * np.log(p / q), axis=-1))


def sigmoid_kl(teacher, student):
    p, q = (1.0 / (1.0 + np.exp(-z / T)) for z in (teacher, student))
    return T**2 * np.mean(np.sum(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)), axis=-1))


def inputs_and_labels(classes=3, count=12):
    return random_array(count, 4), np.arange(count) % classes


SOFTMAXES = {
    "a layer": layers.Softmax(),
    "an activation": layers.Activation("softmax"),
    "ops": lambda x: ops.softmax(x, axis=-1),
    "a function in a layer": layers.Activation(lambda x: ops.softmax(x, axis=-1)),
    "a Lambda": layers.Lambda(lambda x: ops.softmax(x, axis=-1)),
    "an average": lambda x: layers.Average()([layers.Softmax()(x), layers.Softmax()(x)]),
}


@pytest.mark.parametrize("end", SOFTMAXES)
def test_a_softmax_at_the_end_distils_like_the_logits_before_it(end):
    teacher, student = mlp(8, end=SOFTMAXES[end]), mlp(4, end=SOFTMAXES[end], seed=2)
    x, y = inputs_and_labels()
    _, logs = distilled(teacher, student, "sparse_categorical_crossentropy", x, y)
    raw = scores_of(teacher, x), scores_of(student, x)
    np.testing.assert_allclose(logs["logits_loss"], softmax_kl(*raw), rtol=1e-4)
    # The labelled loss gets the probabilities, as it expects them.
    p = np.exp(raw[1]) / np.exp(raw[1]).sum(-1, keepdims=True)
    expected = -np.mean(np.log(p[np.arange(12), y]))
    np.testing.assert_allclose(logs["student_loss"], expected, rtol=1e-4)


@pytest.mark.promise(14)
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_one_model_may_end_in_a_softmax_and_the_other_in_logits(role):
    ends = {role: layers.Softmax()}
    teacher = mlp(8, end=ends.get("teacher"))
    student = mlp(4, end=ends.get("student"), seed=2)
    x, y = inputs_and_labels()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=role == "teacher")
    _, logs = distilled(teacher, student, loss, x, y)
    expected = softmax_kl(scores_of(teacher, x), scores_of(student, x))
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)


def test_probabilities_that_float32_can_hardly_hold_keep_their_logits():
    """p down to 1e-26: a clip at Keras's epsilon, 1e-7, would give another target at T = 4."""
    teacher, student = mlp(8, end=layers.Softmax()), mlp(4, end=layers.Softmax(), seed=2)
    x, y = inputs_and_labels()
    raw = scores_of(teacher, x)
    # Each backend draws other weights; the last layer has no bias that is not 0.
    kernel = teacher.get_layer("scores").kernel
    kernel.assign(kernel * (60.0 / np.max(raw.max(-1) - raw.min(-1))))
    raw = scores_of(teacher, x)
    np.testing.assert_allclose(np.max(raw.max(-1) - raw.min(-1)), 60.0, rtol=1e-4)
    _, logs = distilled(teacher, student, "sparse_categorical_crossentropy", x, y)
    np.testing.assert_allclose(
        logs["logits_loss"], softmax_kl(raw, scores_of(student, x)), rtol=1e-3
    )


BINARY = {
    "BinaryCrossentropy": keras.losses.BinaryCrossentropy(from_logits=True),
    "BinaryFocalCrossentropy": keras.losses.BinaryFocalCrossentropy(from_logits=True),
    "squared hinge": "squared_hinge",
}


@pytest.mark.parametrize("loss", BINARY)
def test_multi_label_scores_are_independent_of_each_other(loss):
    teacher, student = mlp(8, 4), mlp(4, 4, seed=2)
    x, _ = inputs_and_labels()
    y = (random_array(12, 4, seed=5) > 0).astype("float32")
    _, logs = distilled(teacher, student, BINARY[loss], x, y)
    expected = sigmoid_kl(scores_of(teacher, x), scores_of(student, x))
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)


@pytest.mark.parametrize("end", [layers.Activation("sigmoid"), ops.sigmoid])
def test_sigmoids_at_the_end_distil_like_the_logits_before_them(end):
    teacher, student = mlp(8, 4, end=end), mlp(4, 4, end=end, seed=2)
    x, _ = inputs_and_labels()
    y = (random_array(12, 4, seed=5) > 0).astype("float32")
    _, logs = distilled(teacher, student, "binary_crossentropy", x, y)
    expected = sigmoid_kl(scores_of(teacher, x), scores_of(student, x))
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-3)


@pytest.mark.promise(14)
def test_all_present_is_not_all_absent():
    """A softmax would call +5, +5, +5 and -5, -5, -5 the same: its loss would be 0."""

    def constant(score, seed):
        inputs = keras.Input((4,))
        bias = keras.initializers.Constant(score)
        dense = layers.Dense(3, kernel_initializer="zeros", bias_initializer=bias, name="scores")
        return keras.Model(inputs, dense(inputs))

    x, _ = inputs_and_labels()
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    _, logs = distilled(constant(5.0, 1), constant(-5.0, 2), loss, x, np.ones((12, 3), "float32"))
    p, q = 1 / (1 + np.exp(-5 / T)), 1 / (1 + np.exp(5 / T))
    expected = T**2 * 3 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)


def pinball(y_true, y_pred):
    error = y_true - y_pred
    return ops.mean(ops.maximum(0.9 * error, -0.1 * error), axis=-1)


REGRESSIONS = {
    "MSE": "MSE",
    "MAE": "MAE",
    "mae in small letters": "mae",
    "Huber": "Huber",
    "a function of Keras": keras.losses.mean_squared_error,
    "a list": ["mse"],
    "a dict": {"y": "mse"},
    "poisson": "poisson",
    "an object": keras.losses.LogCosh(),
    "cosine": keras.losses.CosineSimilarity(),
}


def embedding(units, seed, positions=()):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((*positions, 4))
    spread = keras.initializers.RandomNormal(0.0, 1.0)
    hidden = layers.Dense(units, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(3, kernel_initializer=spread, name="y")(hidden))


@pytest.mark.parametrize("loss", REGRESSIONS)
def test_a_regression_in_every_spelling(loss):
    teacher, student = embedding(8, 1), embedding(4, 2)
    x, y = random_array(12, 4), random_array(12, 3, seed=1) ** 2
    if isinstance(REGRESSIONS[loss], list):
        y = [y]
    _, logs = distilled(teacher, student, REGRESSIONS[loss], x, y)
    theirs, own = (to_numpy(model(x)).astype("float64") for model in (teacher, student))
    expected = np.mean((theirs - own) ** 2 / theirs.var(axis=0))
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)


@pytest.mark.parametrize("positions", [(5,), (3, 2)])
def test_embeddings_of_any_rank_have_one_variance_per_dimension(positions):
    teacher, student = embedding(8, 1, positions), embedding(4, 2, positions)
    kernel = teacher.get_layer("y").kernel
    kernel.assign(kernel * np.array([1.0, 10.0, 100.0], "float32"))
    x, y = random_array(6, *positions, 4), random_array(6, *positions, 3, seed=1)
    distiller, logs = distilled(teacher, student, "mse", x, y)
    theirs, own = (to_numpy(model(x)).astype("float64") for model in (teacher, student))
    variance = theirs.reshape(-1, 3).var(axis=0)
    expected = np.mean((theirs - own) ** 2 / variance)
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)
    np.testing.assert_allclose(
        to_numpy(distiller.output_variances[0].variance), variance, rtol=1e-4
    )


def test_the_variance_runs_over_steps_is_saved_and_stands_still_in_evaluate(tmp_path):
    teacher, student = embedding(8, 1), embedding(4, 2)
    x, y = random_array(20, 4), random_array(20, 3, seed=1)
    distiller, _ = distilled(teacher, student, "mse", x[:12], y[:12])
    distiller.train_on_batch(x[12:], y[12:])
    theirs = to_numpy(teacher(x)).astype("float64")
    state = [to_numpy(v).copy() for v in distiller.output_variances[0].variables]
    np.testing.assert_allclose(state[0], 20)
    np.testing.assert_allclose(state[1], theirs.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(state[2], theirs.var(axis=0), rtol=1e-5)
    distiller.evaluate(x, y, verbose=0)
    distiller.predict(x, verbose=0)
    distiller.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for variance in (distiller.output_variances[0], loaded.output_variances[0]):
        for one, other in zip(state, variance.variables, strict=True):
            np.testing.assert_array_equal(one, to_numpy(other))
    # The next step of both is the same.
    logs = [model.train_on_batch(x[:5], y[:5], return_dict=True) for model in (distiller, loaded)]
    np.testing.assert_allclose(logs[0]["logits_loss"], logs[1]["logits_loss"], rtol=1e-6)
    assert not any(v.trainable for v in loaded.output_variances[0].variables)


def test_a_single_number_for_each_example():
    def model(units, seed):
        base = embedding(units, seed)
        return keras.Model(base.inputs, ops.sum(base.output, axis=-1))

    teacher, student = model(8, 1), model(4, 2)
    x, y = random_array(12, 4), random_array(12, seed=1)
    _, logs = distilled(teacher, student, "mse", x, y)
    theirs, own = (to_numpy(model(x)).astype("float64") for model in (teacher, student))
    expected = np.mean((theirs - own) ** 2) / theirs.var()
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)


def test_a_loss_that_nobody_knows_asks_for_the_kind():
    teacher, student = embedding(8, 1), embedding(4, 2)
    x, y = random_array(12, 4), random_array(12, 3, seed=1)
    with pytest.raises(ValueError) as error:
        distilled(teacher, student, pinball, x, y)
    assert_three_parts(error.value, "'pinball'", "Expected", "OutputPair(kind='softmax')")
    _, logs = distilled(teacher, student, pinball, x, y, OutputPair(kind="regression"))
    theirs, own = (to_numpy(model(x)).astype("float64") for model in (teacher, student))
    expected = np.mean((theirs - own) ** 2 / theirs.var(axis=0))
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)
    # A term that is off asks nothing.
    _, logs = distilled(teacher, student, pinball, x, y, logits_loss_weight=0)
    assert "logits_loss" not in logs


DENSE = {"tokens": (7,), "pixels": (4, 6), "voxels": (2, 3, 2)}


@pytest.mark.parametrize("name", DENSE)
def test_dense_scores_are_distilled_position_by_position(name):
    shape = (*DENSE[name], 4)
    teacher, student = mlp(8, inputs=shape), mlp(4, seed=2, inputs=shape)
    x = random_array(5, *shape)
    y = np.random.default_rng(0).integers(0, 3, (5, *DENSE[name]))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    _, logs = distilled(teacher, student, loss, x, y)
    expected = softmax_kl(scores_of(teacher, x), scores_of(student, x))
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("theirs", "own"), [((8, 8), (4, 4)), ((16,), (8,)), ((1, 8), (8, 8)), ((4, 1), (4, 6))]
)
def test_unlike_grids_are_an_error_at_construction(theirs, own):
    """Also those that would broadcast."""

    def model(grid, units):
        inputs = keras.Input((16, 4) if len(grid) == 1 else (16, 16, 4))
        pool = layers.MaxPooling1D if len(grid) == 1 else layers.MaxPooling2D
        size = tuple(16 // n if n <= 16 else 1 for n in grid)
        hidden = pool(size if len(size) > 1 else size[0])(inputs)
        return keras.Model(inputs, layers.Dense(3)(hidden))

    with pytest.raises(ValueError) as error:
        KTANDistiller(model(theirs, 8), model(own, 4))
    assert_three_parts(error.value, "The teacher's output has shape", "Expected the same", "Resize")
    distiller = KTANDistiller(model(theirs, 8), model(own, 4), output_pairs=[])
    with pytest.raises(ValueError, match="no output of the teacher is paired"):
        distiller.compile("adam", "mse", logits_loss_weight=1.0)


@pytest.mark.promise(14)
def test_unlike_grids_that_the_models_leave_open_are_seen_at_compile():
    def model(strides):
        inputs = keras.Input((None, 4))
        return keras.Model(inputs, layers.Conv1D(3, 2, strides=strides, padding="same")(inputs))

    distiller = KTANDistiller(model(1), model(2))
    with pytest.raises(ValueError, match=r"shape \(None, 16, 3\) and the student's \(None, 8, 3\)"):
        distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def heads(units, seed, **classes):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    hidden = layers.Dense(units, activation="relu")(inputs)
    spread = keras.initializers.RandomNormal(0.0, 1.0)
    return keras.Model(
        inputs,
        {name: layers.Dense(n, kernel_initializer=spread)(hidden) for name, n in classes.items()},
    )


HEAD_LOSSES = {
    "color": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "tags": keras.losses.BinaryCrossentropy(from_logits=True),
    "size": "mse",
}


def head_targets(count=12):
    random = np.random.default_rng(3)
    return {
        "color": random.integers(0, 5, count),
        "tags": random.integers(0, 2, (count, 3)).astype("float32"),
        "size": random.normal(size=(count, 2)).astype("float32"),
    }


def head_terms(teacher, student, x):
    theirs, own = (
        {name: to_numpy(value).astype("float64") for name, value in model(x).items()}
        for model in (teacher, student)
    )
    return {
        "color": softmax_kl(theirs["color"], own["color"]),
        "tags": sigmoid_kl(theirs["tags"], own["tags"]),
        "size": np.mean((theirs["size"] - own["size"]) ** 2 / theirs["size"].var(axis=0)),
    }


def test_one_model_is_shown_more_inputs_than_the_other():
    """Two decide that the teacher gives raw scores; a head that begins at 0 is shown eight."""
    inputs = keras.Input((4,))
    teacher = keras.Model(inputs, layers.Dense(3, bias_initializer="ones")(inputs))
    inputs = keras.Input((4,))
    student = keras.Model(inputs, layers.Dense(3, kernel_initializer="zeros")(inputs))
    distiller = KTANDistiller(teacher, student)
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    (output,) = distiller.objectives.outputs
    assert output.kind == "softmax"


def test_several_heads_of_three_kinds_pair_by_their_keys():
    teacher, student = (heads(n, n, color=5, tags=3, size=2) for n in (8, 4))
    x = random_array(12, 4)
    distiller, logs = distilled(teacher, student, HEAD_LOSSES, x, head_targets())
    expected = sum(head_terms(teacher, student, x).values())
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)
    kinds = {output.name: output.kind for output in distiller.objectives.outputs}
    assert kinds == {
        "the output 'color'": "softmax",
        "the output 'tags'": "sigmoid",
        "the output 'size'": "regression",
    }


def test_pairs_by_name_with_weights():
    teacher, student = (heads(n, n, color=5, tags=3, size=2) for n in (8, 4))
    x = random_array(12, 4)
    pairs = [OutputPair("tags", weight=2.0), OutputPair("color", "color", weight=0.5)]
    _, logs = distilled(teacher, student, HEAD_LOSSES, x, head_targets(), pairs)
    terms = head_terms(teacher, student, x)
    np.testing.assert_allclose(
        logs["logits_loss"], 2 * terms["tags"] + 0.5 * terms["color"], rtol=1e-4
    )


def test_a_teacher_with_one_head_and_a_student_with_two():
    teacher, student = mlp(8, 5), heads(4, 2, color=5, size=2)
    x, losses = random_array(12, 4), {name: HEAD_LOSSES[name] for name in ("color", "size")}
    targets = {name: head_targets()[name] for name in losses}
    with pytest.warns(UserWarning, match="not distilled: the teacher's single output"):
        _, logs = distilled(teacher, student, losses, x, targets)
    assert "logits_loss" not in logs
    pair = OutputPair(student_output="color")
    _, logs = distilled(teacher, student, losses, x, targets, pair)
    expected = softmax_kl(scores_of(teacher, x), to_numpy(student(x)["color"]).astype("float64"))
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)


@pytest.mark.promise(14)
def test_a_teacher_with_more_heads_than_the_student_says_what_is_left_out():
    teacher, student = heads(8, 1, color=5, tags=3, size=2), heads(4, 2, color=5)
    x, y = random_array(12, 4), {"color": head_targets()["color"]}
    # Backends flatten a dict in unlike orders.
    left_out = r"the teacher's ('tags', 'size'|'size', 'tags')"
    with pytest.warns(UserWarning, match=left_out) as warned:
        distiller, logs = distilled(teacher, student, {"color": HEAD_LOSSES["color"]}, x, y)
    assert len([one for one in warned if one.category is UserWarning]) == 1
    own, theirs = (to_numpy(model(x)["color"]).astype("float64") for model in (student, teacher))
    np.testing.assert_allclose(logs["logits_loss"], softmax_kl(theirs, own), rtol=1e-4)
    lines = []
    distiller.summary(print_fn=lambda line, *args, **kwargs: lines.append(line))
    assert [line for line in lines if re.fullmatch(f"  left out: {left_out}", line)]
    assert "  output pair the output 'color': softmax (teacher raw scores" in "\n".join(lines)


def test_heads_at_positions_with_unlike_places():
    def model(units, seed, order):
        base = heads(units, seed, color=5, size=2)
        return keras.Model(base.inputs, [base.output[name] for name in order])

    teacher, student = model(8, 1, ["size", "color"]), model(4, 2, ["color", "size"])
    x, targets = random_array(12, 4), head_targets()
    losses = [HEAD_LOSSES["color"], "mse"]
    pairs = [OutputPair(1, 0), OutputPair(0, 1, weight=3.0)]
    y = [targets["color"], targets["size"]]
    _, logs = distilled(teacher, student, losses, x, y, pairs)
    theirs, own = ([to_numpy(t).astype("float64") for t in m(x)] for m in (teacher, student))
    expected = softmax_kl(theirs[1], own[0]) + 3 * np.mean(
        (theirs[0] - own[1]) ** 2 / theirs[0].var(axis=0)
    )
    np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)


def softmax_ending(classes=3, seed=1):
    return mlp(4, classes, layers.Softmax(), seed)


def sigmoid_ending(classes=3, seed=1):
    return mlp(4, classes, layers.Activation("sigmoid"), seed)


CATEGORICAL = keras.losses.SparseCategoricalCrossentropy
CONTRADICTIONS = {
    "raw scores, a loss on probabilities": (mlp, mlp, "sparse_categorical_crossentropy", "auto"),
    "raw scores, binary": (mlp, mlp, keras.losses.BinaryCrossentropy(), "auto"),
    "raw scores, a function": (mlp, mlp, keras.losses.categorical_crossentropy, "auto"),
    "softmax, from_logits": (mlp, softmax_ending, CATEGORICAL(from_logits=True), "auto"),
    "sigmoid, from_logits": (
        mlp,
        sigmoid_ending,
        keras.losses.BinaryCrossentropy(from_logits=True),
        "auto",
    ),
    "sigmoid beside one class of many": (mlp, mlp, CATEGORICAL(from_logits=True), "sigmoid"),
    "softmax beside binary": (
        mlp,
        mlp,
        keras.losses.BinaryCrossentropy(from_logits=True),
        "softmax",
    ),
    "sigmoid teacher, categorical": (sigmoid_ending, mlp, CATEGORICAL(from_logits=True), "auto"),
    "softmax teacher, binary": (
        softmax_ending,
        mlp,
        keras.losses.BinaryCrossentropy(from_logits=True),
        "auto",
    ),
    "softmax teacher, regression": (softmax_ending, mlp, "mse", "auto"),
    "a softmax called sigmoid": (softmax_ending, softmax_ending, CATEGORICAL(), "sigmoid"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_what_contradicts_itself_is_an_error(name):
    teacher, student, loss, kind = CONTRADICTIONS[name]
    student = student(4, 3) if student is mlp else student(seed=2)
    teacher = teacher(8, 3) if teacher is mlp else teacher()
    distiller = KTANDistiller(teacher, student, output_pairs=OutputPair(kind=kind))
    with pytest.raises(ValueError, match="Expected"):
        distiller.compile("adam", loss, **ALONE)
    # No word of it where no term looks at the teacher.
    distiller.compile("adam", loss, logits_loss_weight=0, **ALONE)


@pytest.mark.promise(14)
def test_a_teacher_that_hides_whether_it_gives_probabilities_is_an_error():
    teacher, student = mlp(8, end=ops.sigmoid), mlp(4, seed=2)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    with pytest.raises(ValueError) as error:
        KTANDistiller(teacher, student).compile("adam", loss, **ALONE)
    assert_three_parts(error.value, "It is not clear whether the teacher's", "Expected", "End the")


@pytest.mark.parametrize("spelling", ["dict", "whole", "function"])
def test_a_remedy_is_code_that_works(spelling):
    loss = {
        "dict": {"scores": "sparse_categorical_crossentropy"},
        "whole": "sparse_categorical_crossentropy",
        "function": keras.losses.sparse_categorical_crossentropy,
    }[spelling]
    with pytest.raises(ValueError) as error:
        KTANDistiller(mlp(8), mlp(4, seed=2)).compile("adam", loss, **ALONE)
    assert "keras.losses.SparseCategoricalCrossentropy(from_logits=True)" in str(error.value)


def test_with_no_loss_only_named_outputs_pair():
    student = mlp(4, seed=2)
    student.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = inputs_and_labels()
    teacher = mlp(8)
    distiller, logs = distilled(teacher, student, None, x, y)
    assert "logits_loss" not in logs and not distiller.objectives.outputs
    expected = softmax_kl(scores_of(teacher, x), scores_of(student, x))
    for pair in (OutputPair(), OutputPair(kind="softmax")):  # the student's own loss says the kind
        _, logs = distilled(teacher, student, None, x, y, pair)
        np.testing.assert_allclose(logs["logits_loss"], expected, rtol=1e-4)
    student.compile("sgd", lambda y, scores: keras.ops.mean(scores, axis=-1))
    with pytest.raises(ValueError, match="OutputPair"):  # raw scores without a loss that says what
        distilled(teacher, student, None, x, y, OutputPair())


def test_a_pair_survives_its_config_and_the_distiller_its_file(tmp_path):
    pair = OutputPair("a", 1, kind="sigmoid", weight=0.5)
    config = keras.saving.serialize_keras_object(pair)
    assert keras.saving.deserialize_keras_object(config).get_config() == pair.get_config()
    teacher, student = (heads(n, n, color=5, tags=3, size=2) for n in (8, 4))
    x = random_array(12, 4)
    distiller, _ = distilled(
        teacher, student, HEAD_LOSSES, x, head_targets(), [OutputPair("tags"), OutputPair("size")]
    )
    distiller.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    logs = [m.train_on_batch(x, head_targets(), return_dict=True) for m in (distiller, loaded)]
    np.testing.assert_allclose(logs[0]["logits_loss"], logs[1]["logits_loss"], rtol=1e-6)


def test_a_model_of_vectors_distils_its_logits_and_asks_for_nothing(recwarn):
    teacher, student = mlp(8), mlp(4, seed=2)
    distiller = KTANDistiller(teacher, student)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
    logs = distiller.train_on_batch(*inputs_and_labels(), return_dict=True)
    assert set(logs) == {"loss", "student_loss", "logits_loss"}
    assert not [w for w in recwarn if "not distilled" in str(w.message)]
    with pytest.raises(ValueError) as error:
        distiller.compile("adam", loss, feature_loss_weight=1.0)
    assert_three_parts(error.value, "no feature map", "Expected", "Or leave `feature_loss_weight`")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"features_loss_weight": 2.0}, ("features_loss_weight=2.0", "Write `feature_loss_weight")),
        ({"temperature": 2.0}, ("temperature=2.0", "no such argument")),
        ({"logit_loss": "kl"}, ("logit_loss='kl'", "Write `logits_loss=")),
        ({"loss_weights": {"feature": 2.0}}, ("'feature': 2.0", "`feature_loss_weight=2.0`")),
        ({"loss_weights": {"logits_loss": 0.5}}, ("'logits_loss'", "`logits_loss_weight=0.5`")),
    ],
)
def test_a_misspelt_argument_is_told_the_right_one(arguments, words):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with pytest.raises(ValueError, match="Expected") as error:
        KTANDistiller(mlp(8), mlp(4, seed=2)).compile("adam", loss, **{**ALONE, **arguments})
    for part in words:
        assert part in str(error.value)


def test_an_output_of_the_students_may_have_the_name_of_a_term():
    """Then `loss_weights` means the output."""
    teacher, student = (heads(n, n, logits=5, feature=2) for n in (8, 4))
    losses = {"logits": HEAD_LOSSES["color"], "feature": "mse"}
    x, y = random_array(12, 4), head_targets()
    targets = {"logits": y["color"], "feature": y["size"]}
    weights = {"logits": 0.0, "feature": 3.0}
    _, logs = distilled(teacher, student, losses, x, targets, loss_weights=weights)
    error = np.mean((to_numpy(student(x)["feature"]) - y["size"]) ** 2)
    np.testing.assert_allclose(logs["student_loss"], 3 * error, rtol=1e-4)


@pytest.mark.parametrize("wanted", ["loss", "metrics", "weighted_metrics"])
def test_fit_without_targets_that_somebody_wants(wanted):
    arguments = {} if wanted == "loss" else {wanted: ["accuracy"], "student_loss_weight": 0.0}
    distiller = KTANDistiller(mlp(8), mlp(4, seed=2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss, run_eagerly=True, **{**ALONE, **arguments})
    x, _ = inputs_and_labels()
    with pytest.raises(ValueError) as error:
        distiller.fit(x, verbose=0)
    assert_three_parts(error.value, "without y", "Expected both", "Pass `y`")
    distiller = KTANDistiller(mlp(8), mlp(4, seed=2))
    distiller.compile("adam", loss, run_eagerly=True, student_loss_weight=0.0, **ALONE)
    history = distiller.fit(x, verbose=0).history
    assert history["logits_loss"][0] == pytest.approx(history["loss"][0]) and history["loss"][0] > 0


def test_the_task_head_of_t2s_gets_the_activation_that_the_loss_expects():
    """A linear head on R, the teacher's own map here: its scores become probabilities first."""

    def model(units, seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((4, 4, 1))
        hidden = layers.Conv2D(units, 3, activation="relu", name="map")(inputs)
        pooled = layers.GlobalAveragePooling2D()(hidden)
        return keras.Model(inputs, layers.Dense(3, activation="softmax")(pooled))

    teacher, student = model(8, 1), model(4, 2)
    t2s = TeacherToStudent(objective="task")
    distiller = KTANDistiller(
        teacher, student, FeaturePair("map", "map", teacher_to_student=t2s), temperature=T
    )
    distiller.compile(
        keras.optimizers.SGD(0.0),
        "sparse_categorical_crossentropy",
        t2s_optimizer=keras.optimizers.SGD(0.0),
        adversarial_loss_weight=0.0,
        run_eagerly=True,
    )
    x, y = random_array(6, 4, 4, 1), np.arange(6) % 3
    target = t2s(keras.Model(teacher.inputs, teacher.get_layer("map").output)(x))
    scores = to_numpy(t2s.objective_layer(target)).astype("float64")
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    theirs = np.log(to_numpy(teacher(x)).astype("float64"))
    expected = softmax_kl(theirs, scores) - np.mean(np.log(p[np.arange(6), y]))
    logs = distiller.train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(logs["t2s_loss"], expected, rtol=1e-3)
