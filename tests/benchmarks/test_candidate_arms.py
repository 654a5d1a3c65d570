"""What the search compares beside the package: by hand, and by other ways to the same numbers."""

import keras
import numpy as np
import pytest
from keras import ops
from models import loss_from_logits, snapshot
from tiny_experiment import TINY

from keras_ktan import FeatureDiscriminator, KTANDistiller
from keras_ktan.losses import softened_kl

pytestmark = pytest.mark.graph

only_on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="these arms are for TensorFlow alone"
)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Where the one teacher of these tests is kept."""
    return tmp_path_factory.mktemp("teachers")


@pytest.fixture
def make_runner(tmp_path, teachers):
    """A function from the lines of an arm to a `Runner` and its method."""

    def make(lines, weights="logits = 1.0\nfeature = 1.0"):
        from experiment import read_experiment
        from runner import Runner
        from tasks import load_task

        path = tmp_path / "tiny.toml"
        arm = f"[methods.arm]\n{weights}\n{lines}"
        path.write_text(TINY.partition("[methods")[0] + arm)
        experiment = read_experiment(path)
        runner = Runner(experiment, load_task(experiment), teachers, verbose=0)
        return runner, experiment.methods[0]

    return make


def test_the_defaults_with_a_feature_weight_of_its_own(make_runner):
    from method_distiller import make_distiller

    weights = []
    for own in ("", "feature = { decaying = 2.0 }"):
        runner, method = make_runner("defaults = true", own)
        student, optimizer = runner.make_student(method), keras.optimizers.SGD(0.0)
        distiller, _ = make_distiller(method, runner.teacher, student, runner.task, optimizer, 8)
        weights.append(distiller.get_compile_config()["feature_loss_weight"])
    assert weights[0] == 3.0  # the package's own choice
    schedule = keras.saving.deserialize_keras_object(weights[1])
    np.testing.assert_allclose([schedule(step) for step in (0, 4, 8)], [2.0, 1.0, 0.0], atol=1e-6)
    # The map that the package chooses, and none that an arm without `defaults` would name.
    assert runner._cached_layers() == list(KTANDistiller(runner.teacher, student).teacher_paths)


def softplus(values):
    return np.log1p(np.exp(values))


def test_the_relativistic_loss_compares_each_real_map_with_the_fake_one_beside_it():
    from candidate_arms import RelativisticLoss

    loss = RelativisticLoss()
    real, fake = np.array([[1.0, -1.0]], "float32"), np.array([[0.0, 2.0]], "float32")
    found = [loss.discriminator_loss(real, fake), loss.generator_loss(fake)]
    expected = [softplus(np.array([-1.0, 3.0])).mean(), softplus(np.array([1.0, -3.0])).mean()]
    np.testing.assert_allclose([ops.mean(value) for value in found], expected, rtol=1e-6)


@only_on_tensorflow
def test_the_penalty_is_the_squared_gradient_of_the_mean_logit():
    from candidate_arms import PenalisedDiscriminator, RelativisticLoss

    keras.utils.set_random_seed(0)
    discriminator = PenalisedDiscriminator(filters=5, conditional=False)
    maps = np.random.default_rng(0).normal(size=(3, 2, 2, 4)).astype("float32")
    logits = discriminator(maps)
    points = maps / np.linalg.norm(maps.reshape(3, -1), axis=1)[:, None, None, None]
    squares = np.zeros(3)
    for place in np.ndindex(2, 2, 4):
        ends = []
        for sign in (1, -1):
            moved = points.astype("float64").copy()
            moved[(slice(None), *place)] += sign * 1e-3
            # The discriminator brings every map to one norm, in single precision.
            ends.append(np.asarray(FeatureDiscriminator.call(discriminator, moved.astype("f4"))))
        squares += ((ends[0] - ends[1]).mean(axis=(1, 2)) / 2e-3) ** 2
    assert float(discriminator.penalty) == pytest.approx(squares.mean(), rel=5e-3)
    plain, penalised = RelativisticLoss(), RelativisticLoss(discriminator, weight=3.0)
    added = penalised.discriminator_loss(logits, logits) - plain.discriminator_loss(logits, logits)
    np.testing.assert_allclose(added, 3.0 * discriminator.penalty, rtol=1e-4)


@only_on_tensorflow
def test_the_gradients_are_measured_at_the_students_map(make_runner):
    """By cutting the student in two there, and moving the map itself."""
    import tensorflow as tf
    from method_distiller import make_distiller

    runner, method = make_runner(
        "adversarial = { ratio = 0.1, from = 0.25, to = 0.75 }\n"
        "feature_loss = 'normalized_mse'\n"
        "discriminator = { noise_stddev = 0.0, conditional = false }"
    )
    student = runner.make_student(method)
    distiller, (callback,) = make_distiller(
        method, runner.teacher, student, runner.task, keras.optimizers.SGD(0.0), steps=8
    )
    images, labels = (part[:64] for part in runner.task.train)
    callback.set_model(distiller)
    found = callback.measure(images, labels)
    layer = student.get_layer("features")
    trunk = keras.Model(student.input, layer.output)
    head = keras.Model(layer.output, student.output)
    maps = tf.Variable(trunk(images))
    with tf.GradientTape(persistent=True) as tape:
        logits = head(maps)
        task = loss_from_logits()(labels, logits)
        task += ops.mean(softened_kl(runner.teacher(images), logits, 4.0))
        generator = ops.mean(ops.softplus(-distiller.discriminators[0](maps)))
    norms = [np.linalg.norm(tape.gradient(term, maps)) for term in (task, generator)]
    np.testing.assert_allclose(found, norms, rtol=1e-3)
    callback.on_train_batch_end(0)
    first = slice(0, 128)
    lengths = callback.measure(runner.task.train[0][first], runner.task.train[1][first])
    expected = lengths[0] / lengths[1]
    weights = [float(callback.schedule(ops.convert_to_tensor(step))) for step in (1, 2, 5, 6)]
    np.testing.assert_allclose(weights, [0.0, 0.1 * expected, 0.1 * expected, 0.0], rtol=1e-5)


@pytest.mark.slow
@only_on_tensorflow
def test_a_compiled_step_reads_the_measured_weight_anew(make_runner, monkeypatch):
    """30 after the first of four steps, times a ratio of 0.1: a schedule that goes from 0 to 3."""
    from candidate_arms import GradientRatio
    from method_distiller import make_distiller

    monkeypatch.setattr(GradientRatio, "measure", lambda *_: (60.0, 2.0))
    students = []
    for weight in (
        "{ ratio = 0.1, from = 0.0, to = 1.0 }",
        "{ value = 3.0, from = 0.0, to = 1.0 }",
    ):
        runner, method = make_runner(f"adversarial = {weight}\nfeature_loss = 'mse'")
        keras.utils.set_random_seed(0)
        optimizer = keras.optimizers.SGD(0.1)
        student = runner.make_student(method)
        distiller, callbacks = make_distiller(
            method, runner.teacher, student, runner.task, optimizer, steps=4
        )
        images, labels = (part[:64] for part in runner.task.train)
        distiller.fit(images, labels, 16, shuffle=False, verbose=0, callbacks=callbacks)
        students.append(snapshot(student))
    for one, other in zip(*students, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_where_the_teacher_is_wrong_it_says_nothing(make_runner):
    from candidate_arms import kl_without_mistakes, without_mistakes

    runner, _ = make_runner("")
    x, labels = without_mistakes(runner.make_data(seed=1)[0])
    (parts,) = x.values()
    teacher = np.asarray(runner.teacher.predict(parts["inputs"], verbose=0))
    right = teacher.argmax(-1) == labels
    assert 0 < right.sum() < len(right)
    student = np.random.default_rng(0).normal(size=teacher.shape).astype("float32")
    found = ops.convert_to_numpy(kl_without_mistakes(4.0)(parts["output:0"], student))
    expected = ops.convert_to_numpy(softened_kl(teacher, student, 4.0))
    np.testing.assert_allclose(found, np.where(right, expected, 0.0), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_by_the_discriminators_features_only_the_student_learns(make_runner):
    """Its gradient leaves the discriminator alone, which sees no map's size."""
    from candidate_arms import discriminator_features

    discriminator = FeatureDiscriminator(filters=5, conditional=False)
    maps = np.random.default_rng(0).normal(size=(2, 3, 2, 2, 4)).astype("float32")
    discriminator(maps[0])
    discriminator.biases.assign(ops.full_like(discriminator.biases, 0.5))
    loss = discriminator_features(discriminator)
    both = discriminator_features(discriminator, normalized_mse=3.0)
    own = ops.convert_to_numpy(loss(*maps))
    assert own.shape == (3,) and (own > 0.01).all()
    np.testing.assert_allclose(loss(maps[0], 2.0 * maps[1]), own, rtol=1e-4)
    unit = [part / np.sqrt((part**2).mean(axis=(1, 2, 3), keepdims=True)) for part in maps]
    distance = ((unit[0] - unit[1]) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(both(*maps), own + 3.0 * distance, rtol=1e-4)
    moved = []
    for feature_loss in ("normalized_mse", "discriminator"):
        runner, method = make_runner(f"adversarial = 1e-6\nfeature_loss = '{feature_loss}'")
        keras.utils.set_random_seed(0)
        moved.append(_after_one_step(runner, method))
    (discriminator, student), (other_discriminator, other_student) = moved
    for one, other in zip(discriminator, other_discriminator, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert _distance(student, other_student) > 1e-5


@pytest.mark.slow
def test_what_the_logits_loss_leaves_out_is_left_out_in_a_training(make_runner):
    runner, method = make_runner("teacher_mistakes = false\nfeature_loss = 'normalized_mse'")
    _, plain = make_runner("feature_loss = 'normalized_mse'")
    first = [runner.train(each, seed=0)[1]["logits_loss"][0] for each in (method, plain)]
    images, labels = runner.task.train
    teacher = np.asarray(runner.teacher.predict(images, verbose=0))
    right = (teacher.argmax(-1) == labels).mean()
    # The teacher is wrong about a good part of the digits, and its wrong logits are not smaller.
    assert right < 0.9 and first[0] < (right + 0.1) * first[1]


@pytest.mark.slow
@only_on_tensorflow
def test_a_relativistic_loss_and_its_penalty_move_whom_they_should(make_runner):
    """The penalty the discriminator alone; the loss, other than "bce", the student, too."""
    lines = {
        "bce": "",
        "relativistic": "adversarial_loss = 'relativistic'\ngradient_penalty = 0.0",
        "penalised": "adversarial_loss = 'relativistic'\ngradient_penalty = 50.0",
    }
    discriminators, students = {}, {}
    for name, more in lines.items():
        runner, method = make_runner(f"adversarial = 5.0\nfeature_loss = 'mse'\n{more}")
        keras.utils.set_random_seed(0)
        discriminators[name], students[name] = _after_one_step(runner, method)
    assert _distance(discriminators["relativistic"], discriminators["penalised"]) > 1e-6
    assert _distance(students["relativistic"], students["penalised"]) < 1e-6
    assert _distance(students["relativistic"], students["bce"]) > 1e-5


@pytest.mark.slow
def test_the_control_arms_discriminators(make_runner):
    """A frozen one stays as it was; a cooperative one lets the student's maps pass for real."""
    from method_distiller import make_distiller

    kernels, fakes = {}, {}
    for training in ("adversarial", "frozen", "cooperative"):
        runner, method = make_runner(
            f"adversarial = 0.02\nfeature_loss = 'mse'\ndiscriminator_training = '{training}'\n"
            "discriminator = { conditional = false, noise_stddev = 0.0 }"
        )
        keras.utils.set_random_seed(0)
        student, optimizer = runner.make_student(method), keras.optimizers.SGD(0.0)
        distiller, _ = make_distiller(method, runner.teacher, student, runner.task, optimizer, 8)
        discriminator = distiller.discriminators[0]
        if training == "cooperative":
            distiller.optimizer.discriminator.learning_rate = 1e-3
        images, labels = (part[:200] for part in runner.task.train)
        maps = keras.Model(student.input, student.get_layer("features").output)(images)
        before = [np.array(part) for part in discriminator.trainable_variables]
        was = float(ops.mean(discriminator(maps)))
        distiller.fit(images, labels, 20, shuffle=False, verbose=0)
        kernels[training] = _distance(before, discriminator.trainable_variables)
        fakes[training] = float(ops.mean(discriminator(maps))) - was
    assert kernels["frozen"] == 0.0 and kernels["adversarial"] > 0.0
    assert fakes["cooperative"] > 0.01 > fakes["adversarial"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("gradient_penalty = 1.0", "gradient_penalty without adversarial_loss = 'relativistic'"),
        ("feature_loss = 'discriminator'", "adversarial = 0.*no discriminator is trained"),
        ("teacher_mistakes = false\nlogits_loss = 'pearson'", "teacher_mistakes = false.*'kl'"),
        (
            "adversarial = 1.0\nadversarial_loss = 'relativistic'\n"
            "layers = { features = 'auto', other = 'auto' }",
            "several layers",
        ),
        (
            "adversarial = 1.0\nadversarial_loss = 'hinge'\ndiscriminator_training = 'frozen'",
            "discriminator_training='frozen' with another",
        ),
        (
            "layers = { features = { trainble = true } }",
            r"\['trainble'\] in layers.*Expected some of",
        ),
    ],
)
def test_an_arm_that_would_do_nothing_is_an_error(make_runner, wrong, message):
    with pytest.raises(ValueError, match=message):
        make_runner(wrong)


def _distance(weights, others):
    return max(np.abs(one - other).max() for one, other in zip(weights, others, strict=True))


def _after_one_step(runner, method):
    from method_distiller import make_distiller

    distiller, _ = make_distiller(
        method,
        runner.teacher,
        runner.make_student(method),
        runner.task,
        keras.optimizers.SGD(0.1),
        steps=1,
    )
    images, labels = (part[:64] for part in runner.task.train)
    distiller.train_on_batch(images, labels)
    return snapshot(distiller.discriminators[0]), snapshot(distiller.student)
