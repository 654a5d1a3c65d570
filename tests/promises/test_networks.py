"""Promises 5 to 7: each network lowers its own loss and no other; losses equal closed forms."""

import keras
import numpy as np
import pytest
from models import image_data, image_model, loss_from_logits

from keras_ktan import (
    FeatureDiscriminator,
    FeaturePair,
    KTANDistiller,
    OutputPair,
    TeacherToStudent,
)

SGD = keras.optimizers.SGD


def make_distiller(discriminator=None, dropout=0.0, regularizer=None, **arguments):
    """Without noise and with plain gradient steps, so that one step can be followed."""
    discriminator = discriminator or FeatureDiscriminator(noise_stddev=0.0)
    distiller = KTANDistiller(
        image_model(12, "teacher", batch_norm=False, seed=1),
        image_model(
            4, "student", batch_norm=False, dropout=dropout, regularizer=regularizer, seed=2
        ),
        FeaturePair(
            "features",
            "features",
            teacher_to_student=TeacherToStudent("student_head"),
            discriminator=discriminator,
        ),
    )
    compile_arguments = {
        "run_eagerly": True,  # a step or two: building a graph would take longer
        "optimizer": SGD(0.0),
        "t2s_optimizer": SGD(0.0),
        "discriminator_optimizer": SGD(0.0),
        "loss": loss_from_logits(),
        "feature_loss": "cosine",
        "feature_loss_weight": 1.0,
        "adversarial_loss_weight": 0.02,
        **arguments,
    }
    distiller.compile(**compile_arguments)
    for layer in (*discriminator.hidden, discriminator.logits, discriminator.projection):
        # Where power iterations end up, so that the spectral norms stand still.
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        *_, right = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]))
        if layer.power_vector is not None:
            layer.power_vector.assign(right[:1].T)
    return distiller


def values(variables):
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def moves(distiller, data, steps=1):
    """How far each network's weights went."""
    groups = {
        "student": distiller.student_variables,
        "t2s": distiller.t2s_variables,
        "discriminator": distiller.discriminator_variables,
    }
    before = {name: values(group) for name, group in groups.items()}
    for _ in range(steps):
        distiller.train_on_batch(*data)
    return {
        name: [after - start for after, start in zip(values(group), before[name], strict=True)]
        for name, group in groups.items()
    }


def size(differences):
    return sum(float(np.sum(np.abs(difference))) for difference in differences)


@pytest.mark.promise(5)
@pytest.mark.parametrize(
    "adversarial_loss",
    ["bce", *(pytest.param(name, marks=pytest.mark.long) for name in ("least_squares", "hinge"))],
)
def test_the_students_step_lowers_the_generator_loss(adversarial_loss):
    distiller = make_distiller(
        optimizer=SGD(0.05),
        student_loss_weight=0.0,
        logits_loss_weight=0.0,
        feature_loss_weight=0.0,
        adversarial_loss_weight=1.0,
        adversarial_loss=adversarial_loss,
        run_eagerly=False,
    )
    data = image_data(16)
    logs = [distiller.train_on_batch(*data, return_dict=True) for _ in range(40)]
    losses = [log["adversarial_loss"] for log in logs]
    assert losses[-1] < losses[0] - 1e-3
    if adversarial_loss != "least_squares":
        # There one side's gain is the other's loss; squares can let both gain.
        assert logs[-1]["discriminator_loss"] > logs[0]["discriminator_loss"]


@pytest.mark.slow
@pytest.mark.promise(5)
@pytest.mark.parametrize(
    "adversarial_loss",
    ["bce", *(pytest.param(name, marks=pytest.mark.long) for name in ("least_squares", "hinge"))],
)
def test_the_discriminators_step_lowers_its_own_loss(adversarial_loss):
    distiller = make_distiller(
        discriminator_optimizer=SGD(0.05),
        adversarial_loss_weight=1.0,
        adversarial_loss=adversarial_loss,
        run_eagerly=False,
    )
    data = image_data(16)
    logs = [distiller.train_on_batch(*data, return_dict=True) for _ in range(40)]
    assert logs[-1]["discriminator_loss"] < logs[0]["discriminator_loss"] - 1e-3
    if adversarial_loss != "least_squares":
        assert logs[-1]["adversarial_loss"] > logs[0]["adversarial_loss"]


@pytest.mark.promise(5)
def test_each_optimizer_moves_its_own_player_and_no_other():
    data = image_data(16)
    for network, argument in {
        "student": "optimizer",
        "t2s": "t2s_optimizer",
        "discriminator": "discriminator_optimizer",
    }.items():
        moved = moves(make_distiller(**{argument: SGD(0.1)}), data)
        assert size(moved.pop(network)) > 0
        assert all(size(differences) == 0 for differences in moved.values())


@pytest.mark.promise(5)
def test_the_discriminator_gets_no_gradient_from_the_students_loss():
    data = image_data(16)
    steps = [
        moves(
            make_distiller(discriminator_optimizer=SGD(0.1), adversarial_loss_weight=weight), data
        )["discriminator"]
        for weight in (0.1, 50.0)
    ]
    for one, other in zip(*steps, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.promise(5)
def test_the_student_gets_no_gradient_from_the_discriminators_loss():
    # Were the student moved by `tell apart` too, its step would not scale with the weight.
    data = image_data(16)
    only_adversary = {
        "student_loss_weight": 0.0,
        "logits_loss_weight": 0.0,
        "feature_loss_weight": 0.0,
    }
    steps = [
        moves(
            make_distiller(optimizer=SGD(0.5), adversarial_loss_weight=weight, **only_adversary),
            data,
        )
        for weight in (0.5, 1.0)
    ]
    for half, whole in zip(steps[0]["student"], steps[1]["student"], strict=True):
        np.testing.assert_allclose(2.0 * half, whole, rtol=1e-4, atol=1e-7)
    assert size(steps[0]["student"]) > 0


@pytest.mark.promise(5)
def test_t2s_gets_no_gradient_from_the_feature_loss():
    data = image_data(16)
    steps = [
        moves(make_distiller(t2s_optimizer=SGD(0.1), feature_loss_weight=weight), data)["t2s"]
        for weight in (1.0, 100.0)
    ]
    for one, other in zip(*steps, strict=True):
        np.testing.assert_array_equal(one, other)
    assert size(steps[0]) > 0


@pytest.mark.promise(5)
def test_the_student_head_objective_moves_no_weight_of_the_student():
    moved = moves(make_distiller(t2s_optimizer=SGD(0.5)), image_data(16))
    assert size(moved["t2s"]) > 0
    assert size(moved["student"]) == 0


def log_softmax(scores):
    scores = scores - scores.max(axis=-1, keepdims=True)
    return scores - np.log(np.sum(np.exp(scores), axis=-1, keepdims=True))


@pytest.mark.promise(6)
def test_all_logged_losses_equal_closed_forms():
    """Every number of one step, from the models' outputs by NumPy in double precision."""
    distiller = make_distiller(
        regularizer=keras.regularizers.L2(0.02),
        student_loss_weight=0.7,
        logits_loss_weight=0.5,
        feature_loss_weight=3.0,
        adversarial_loss_weight=0.25,
        run_eagerly=False,
    )
    teacher, student = distiller.teacher, distiller.student
    images, labels = image_data(10)
    weights = np.linspace(0.0, 2.0, 10).astype("float32")

    def outputs_and_maps(model):
        both = keras.Model(model.inputs, [model.output, model.get_layer("features").output])
        return [np.array(part, "float64") for part in both.predict(images, verbose=0)]

    teacher_logits, teacher_maps = outputs_and_maps(teacher)
    student_logits, student_maps = outputs_and_maps(student)
    mix, bias = (np.array(v, "float64") for v in values(distiller.t2s_variables))
    targets = np.maximum(teacher_maps @ mix + bias, 0.0)
    kernel, head_bias = (np.array(v, "float64") for v in student.get_layer("logits").get_weights())
    head_logits = targets.mean(axis=(1, 2)) @ kernel + head_bias
    probabilities = np.exp(log_softmax(teacher_logits)).astype("float32")
    (discriminator,) = distiller.discriminators
    real, fake = (
        np.array(keras.ops.convert_to_numpy(discriminator(maps.astype("float32"), probabilities)))
        for maps in (targets, student_maps)
    )

    def cross_entropy(logits):
        picked = log_softmax(logits)[np.arange(10), labels]
        return np.mean(-picked * weights)

    def softened(logits):
        p, q = log_softmax(teacher_logits / 4.0), log_softmax(logits / 4.0)
        return 16.0 * np.mean(np.sum(np.exp(p) * (p - q), axis=-1))

    def cosine(one, other):
        # A vector shorter than 0.001 counts as one of that length.
        norms = [np.maximum(np.linalg.norm(maps, axis=-1), 1e-3) for maps in (one, other)]
        return np.sum(one * other, axis=-1) / (norms[0] * norms[1])

    softplus = lambda logits: np.log1p(np.exp(logits))  # noqa: E731
    expected = {
        "student_loss": cross_entropy(student_logits),
        "logits_loss": softened(student_logits),
        "feature_loss": np.mean(1.0 - cosine(targets, student_maps)),
        "adversarial_loss": np.mean(softplus(-fake)),
        "t2s_loss": cross_entropy(head_logits) + softened(head_logits),
        "discriminator_loss": (np.mean(softplus(-real)) + np.mean(softplus(fake))) / 2,
        "discriminator_accuracy": (np.mean(real > 0) + np.mean(fake <= 0)) / 2,
    }
    regularisation = 0.02 * np.sum(np.square(student.get_layer("features").get_weights()[0]))
    expected["loss"] = (
        0.7 * expected["student_loss"]
        + 0.5 * expected["logits_loss"]
        + 3.0 * expected["feature_loss"]
        + 0.25 * expected["adversarial_loss"]
        + regularisation
    )
    logs = distiller.train_on_batch(images, labels, sample_weight=weights, return_dict=True)
    assert logs.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=2e-4, err_msg=name)


@pytest.mark.promise(7)
def test_sample_and_class_weights_act_on_the_labels_alone():
    images, labels = image_data(16)
    plain = make_distiller(run_eagerly=False).train_on_batch(images, labels, return_dict=True)
    halved = make_distiller(run_eagerly=False).train_on_batch(
        images, labels, sample_weight=np.full(16, 0.5, "float32"), return_dict=True
    )
    np.testing.assert_allclose(halved["student_loss"], 0.5 * plain["student_loss"], rtol=1e-5)
    for name in ("logits_loss", "feature_loss", "adversarial_loss", "discriminator_loss"):
        np.testing.assert_allclose(halved[name], plain[name], rtol=1e-5)


@pytest.mark.promise(7)
def test_logs_are_means_over_the_examples_with_a_partial_last_batch():
    images, labels = image_data(11)
    whole, batches = (make_distiller(run_eagerly=False) for _ in range(2))
    whole = whole.train_on_batch(images, labels, return_dict=True)
    history = batches.fit(images, labels, batch_size=8, shuffle=False, verbose=0).history
    # Nothing moves at rate 0, so batches of 8 and 3 must average to the whole.
    for name in ("loss", "student_loss", "logits_loss", "feature_loss", "t2s_loss"):
        np.testing.assert_allclose(history[name][0], whole[name], rtol=1e-4, err_msg=name)


def test_a_schedule_is_read_at_every_step():
    ramp = keras.optimizers.schedules.PiecewiseConstantDecay([1, 2], [0.0, 1.0, 10.0])
    # In a graph: there a weight could stay what it was when it was traced.
    distiller = make_distiller(
        feature_loss_weight=ramp, adversarial_loss_weight=0.0, run_eagerly=False
    )
    data = image_data(16)
    logs = [distiller.train_on_batch(*data, return_dict=True) for _ in range(4)]
    rest = [log["loss"] - log["student_loss"] - log["logits_loss"] for log in logs]
    # Steps 0 and 1 weigh 0, step 2 weighs 1, step 3 weighs 10 (Keras's boundaries are inclusive).
    np.testing.assert_allclose(
        rest, [0.0, 0.0, logs[2]["feature_loss"], 10 * logs[3]["feature_loss"]], atol=1e-5
    )


@pytest.mark.promise(7)
def test_dictionary_outputs_and_targets_are_honoured():
    def two_headed(filters, name, seed):
        base = image_model(filters, name, batch_norm=False, seed=seed)
        pooled = base.get_layer("pool").output
        size = keras.layers.Dense(1, name="size")(pooled)
        return keras.Model(base.inputs, {"kind": base.output, "size": size}, name=name)

    images, labels = image_data(12)
    sizes = np.linspace(0, 1, 12).astype("float32")[:, None]
    student = two_headed(4, "student", 2)
    distiller = KTANDistiller(
        two_headed(12, "teacher", 1), student, output_pairs=OutputPair("kind")
    )
    distiller.compile(
        optimizer=SGD(0.0),
        loss={"kind": loss_from_logits(), "size": "mse"},
        loss_weights={"kind": 1.0, "size": 3.0},
        metrics={"kind": ["accuracy"]},
    )
    outputs = student.predict(images, verbose=0)
    logs = distiller.train_on_batch(images, {"kind": labels, "size": sizes}, return_dict=True)
    entropy = -np.mean(log_softmax(outputs["kind"].astype("float64"))[np.arange(12), labels])
    error = np.mean(np.square(outputs["size"] - sizes))
    np.testing.assert_allclose(logs["student_loss"], entropy + 3.0 * error, rtol=1e-4)
    np.testing.assert_allclose(logs["kind_loss"], entropy, rtol=1e-4)
    np.testing.assert_allclose(logs["size_loss"], error, rtol=1e-4)
    accuracy = np.mean(np.argmax(outputs["kind"], -1) == labels)
    np.testing.assert_allclose(logs["kind_accuracy"], accuracy, rtol=1e-5)
