"""KTANDistiller with every kind of model, map, backend switch and file."""

import json
import os
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from models import (
    CLASSES,
    assert_changed,
    assert_same,
    image_data,
    image_model,
    learned_pair,
    loss_from_logits,
    snapshot,
)

from keras_ktan import (
    FeatureDiscriminator,
    FeaturePair,
    KTANDistiller,
    OutputPair,
    TeacherToStudent,
    export_student,
)


def make_distiller(dtype=None, pairs=None, **compile_arguments):
    distiller = KTANDistiller(
        image_model(12, "teacher", seed=1, dtype=dtype),
        image_model(4, "student", seed=2, dtype=dtype),
        pairs or learned_pair(),
    )
    distiller.compile(
        **{
            "optimizer": keras.optimizers.AdamW(1e-2),
            "loss": loss_from_logits(),
            "metrics": ["accuracy"],
            "run_eagerly": True,  # a few steps: building a graph would take longer
            "adversarial_loss_weight": 0.02,
            **compile_arguments,
        }
    )
    return distiller


def train(distiller, steps=3):
    images, labels = image_data(16)
    for _ in range(steps):
        logs = distiller.train_on_batch(images, labels, return_dict=True)
    return logs


@pytest.mark.promise(9)
def test_each_players_state_lies_under_its_own_name_and_returns_to_it(tmp_path):
    """Files of other versions and of games with fewer networks must find it there."""
    without = make_distiller(adversarial_loss_weight=0.0)
    train(without)
    without.save_weights(tmp_path / "without.weights.h5")
    full = make_distiller()
    full.load_weights(tmp_path / "without.weights.h5")
    for network in ("student", "t2s"):
        kept, loaded = getattr(without.optimizer, network), getattr(full.optimizer, network)
        assert int(kept.iterations) == 3
        for one, other in zip(kept.variables, loaded.variables, strict=True):
            np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (one, other)))
    full.save_weights(tmp_path / "full.weights.h5")
    with h5py.File(tmp_path / "full.weights.h5") as file:
        for network in ("student", "t2s", "discriminator"):
            optimizer = getattr(full.optimizer, network)
            assert len(file["optimizer"][network]["vars"]) == len(optimizer.variables)
        assert "compile_arguments" not in file


@pytest.mark.promise(9)
@pytest.mark.parametrize("trained_first", [True, False])
def test_save_and_load_give_the_same_next_step(tmp_path, trained_first):
    ramp = keras.optimizers.schedules.PolynomialDecay(1.0, 10, 0.1)
    distiller = make_distiller(
        feature_loss_weight=ramp, adversarial_loss="hinge", feature_loss="normalized_mse"
    )
    if trained_first:
        train(distiller)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")

    def everything(one):
        networks = (one.student, one.teacher, *one.teacher_to_student_layers, *one.discriminators)
        return snapshot(*networks, one.optimizer)

    assert_same(everything(distiller), everything(loaded))
    images, labels = image_data(16, seed=5)
    expected = distiller.train_on_batch(images, labels, return_dict=True)
    logs = loaded.train_on_batch(images, labels, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-6, err_msg=name)
    for one, other in zip(everything(distiller), everything(loaded), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.promise(9)
def test_loading_restores_all_three_optimizers(tmp_path):
    distiller = make_distiller(
        t2s_optimizer=keras.optimizers.RMSprop(1e-3), discriminator_optimizer="sgd"
    )
    train(distiller, steps=4)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras").optimizer
    kinds = [type(getattr(loaded, name)).__name__ for name in ("student", "t2s", "discriminator")]
    assert kinds == ["AdamW", "RMSprop", "SGD"]
    assert [int(o.iterations) for o in (loaded.student, loaded.t2s, loaded.discriminator)] == [
        4
    ] * 3


@pytest.mark.promise(9)
def test_shared_and_chosen_layers_survive_a_round_trip(tmp_path):
    shared = FeatureDiscriminator(filters=5, name="shared")
    pairs = [
        FeaturePair("features", "features", 2.0, TeacherToStudent(objective="task"), shared),
        FeaturePair("stem_out", "stem_out", 0.5, TeacherToStudent("reconstruction"), shared),
    ]
    distiller = make_distiller(pairs=pairs)
    train(distiller)
    assert len(distiller.discriminators) == 1
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert len(loaded.discriminators) == 1
    assert [pair.weight for pair in loaded.feature_pairs] == [2.0, 0.5]
    assert [layer.objective for layer in loaded.teacher_to_student_layers] == [
        "task",
        "reconstruction",
    ]
    images, labels = image_data(16, seed=5)
    expected = distiller.train_on_batch(images, labels, return_dict=True)
    logs = loaded.train_on_batch(images, labels, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-6, err_msg=name)


def test_several_pairs_add_up_by_their_weights():
    def feature_loss(*pairs):
        distiller = make_distiller(
            pairs=list(pairs), adversarial_loss_weight=0.0, optimizer=keras.optimizers.SGD(0.0)
        )
        return train(distiller, steps=1)["feature_loss"]

    one = feature_loss(FeaturePair("features", "features"))
    other = feature_loss(FeaturePair("stem_out", "stem_out"))
    both = feature_loss(
        FeaturePair("features", "features", weight=2.0),
        FeaturePair("stem_out", "stem_out", weight=0.5),
    )
    np.testing.assert_allclose(both, 2.0 * one + 0.5 * other, rtol=1e-5)


class Subclassed(keras.Model):
    """Blocks in a list, pooling by an operation: nothing that a graph could show."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [
            keras.layers.Conv2D(filters, 3, activation="relu", name=f"block_{index}")
            for index in range(2)
        ]
        self.head = keras.layers.Dense(CLASSES, name="head")

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return self.head(keras.ops.mean(inputs, axis=(1, 2)))


def subclassed(filters):
    model = Subclassed(filters)
    model(np.zeros((1, 8, 8, 1), "float32"))
    return model, "block_1"


def nested(filters):
    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Conv2D(filters, 3, activation="relu", name="out")(inputs)
    backbone = keras.Model(inputs, hidden, name="backbone")
    outer = keras.Input((8, 8, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(backbone(outer))
    return keras.Model(outer, keras.layers.Dense(CLASSES)(pooled)), "backbone/out"


def sequential(filters):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(filters, 3, strides=3, name="conv"),
            keras.layers.LeakyReLU(name="out"),
            keras.layers.Flatten(),
            keras.layers.Dense(CLASSES),
        ]
    )
    return model, "out"


def pyramid(filters):
    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Conv2D(filters, 3, activation="relu")(inputs)
    levels = {"P3": hidden, "P4": keras.layers.MaxPooling2D()(hidden)}
    backbone = keras.Model(inputs, levels, name="fpn")
    outer = keras.Input((8, 8, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(backbone(outer)["P4"])
    return keras.Model(outer, keras.layers.Dense(CLASSES)(pooled)), "fpn:P4"


def functional(filters):
    return image_model(filters, "functional"), "features"


def skipped(filters):
    # The tap has a connection around it: what lies behind needs more than its map.
    inputs = keras.Input((8, 8, 1))
    stem = keras.layers.Conv2D(filters, 3, padding="same")(inputs)
    tapped = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name="out")(stem)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([stem, tapped]))
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(pooled)), "out"


KINDS = [functional, sequential, subclassed, nested, pyramid, skipped]


@pytest.mark.promise(8)
@pytest.mark.parametrize(
    "kind",
    # The others are for the night: a step is compiled for each.
    [functional, *(pytest.param(kind, marks=pytest.mark.long) for kind in KINDS[1:])],
    ids=lambda kind: kind.__name__,
)
def test_a_student_of_any_kind_learns_to_match_its_target(kind):
    teacher, teacher_path = functional(12)
    student, student_path = kind(4)
    distiller = KTANDistiller(teacher, student, FeaturePair(teacher_path, student_path))
    distiller.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss=loss_from_logits(),
        student_loss_weight=0.0,
        logits_loss_weight=0.0,
        feature_loss_weight=1.0,
        adversarial_loss_weight=0.0,
        t2s_optimizer=keras.optimizers.SGD(0.0),
    )
    images, labels = image_data(16)
    history = distiller.fit(images, labels, batch_size=16, epochs=30, verbose=0).history
    assert history["feature_loss"][-1] < 0.8 * history["feature_loss"][0]


@pytest.mark.promise(8)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_teacher_of_any_kind_can_be_tapped(kind):
    teacher, teacher_path = kind(12)
    student, student_path = functional(4)
    distiller = KTANDistiller(teacher, student, FeaturePair(teacher_path, student_path))
    distiller.compile(loss=loss_from_logits(), adversarial_loss_weight=0.02)
    before = snapshot(teacher)
    logs = train(distiller, steps=1)
    assert_same(before, snapshot(teacher))
    assert 0.0 < logs["feature_loss"] < 2.0
    # A pyramid names one of several outputs, whose channels nothing says how important they are.
    assert distiller.teacher_to_student_layers[0].selects == (kind is not pyramid)


@pytest.mark.parametrize("rank", [3, 2])
@pytest.mark.slow
@pytest.mark.graph
def test_sequences_and_vectors(rank):
    def model(units, length, name):
        inputs = keras.Input((12, 3))
        if rank == 3:
            hidden = keras.layers.Conv1D(units, 3, strides=12 // length, padding="same")(inputs)
            hidden = keras.layers.ReLU(name="features")(hidden)
            hidden = keras.layers.GlobalAveragePooling1D()(hidden)
        else:
            hidden = keras.layers.Flatten()(inputs)
            hidden = keras.layers.Dense(units, activation="relu", name="features")(hidden)
        return keras.Model(inputs, keras.layers.Dense(CLASSES)(hidden), name=name)

    teacher, student = model(16, 12, "teacher"), model(5, 4, "student")
    distiller = KTANDistiller(teacher, student, FeaturePair("features", "features"))
    distiller.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        t2s_optimizer=keras.optimizers.SGD(0.0),  # a target that stands still
        loss=loss_from_logits(),
        feature_loss_weight=5.0,
    )
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(16, 12, 3)).astype("float32")
    labels = generator.integers(0, CLASSES, 16)
    history = distiller.fit(inputs, labels, batch_size=16, epochs=40, verbose=0).history
    assert history["feature_loss"][-1] < history["feature_loss"][0]
    assert history["student_loss"][-1] < history["student_loss"][0]


def test_feature_pairs_none_takes_the_maps_before_the_pooling():
    teacher, _ = nested(12)
    distiller = KTANDistiller(teacher, image_model(4, "student"))
    lines = []
    distiller.summary(print_fn=lines.append)
    # Both models have one stage of 8×8 or 6×6 positions before the last.
    assert "backbone/out (None, 6, 6, 12) -> stem_out (None, 8, 8, 4)" in "\n".join(lines)
    assert "objective selection (4 of the teacher's 12 channels" in "\n".join(lines)


@pytest.mark.promise(10)
@pytest.mark.parametrize(
    "switches",
    [
        {"run_eagerly": True},
        pytest.param({"jit_compile": True}, marks=pytest.mark.long),
        pytest.param({"steps_per_execution": 3}, marks=pytest.mark.slow),
    ],
    ids=["eager", "xla", "steps_per_execution"],
)
@pytest.mark.graph
def test_every_way_to_run_gives_the_same_weights(switches, double_precision):
    images, labels = image_data(20)

    def weights(**arguments):
        distiller = KTANDistiller(
            image_model(12, "teacher", batch_norm=False, seed=1),
            image_model(4, "student", batch_norm=False, seed=2),
            # XLA draws other random numbers from the same seed.
            FeaturePair("features", "features", discriminator=FeatureDiscriminator(noise_stddev=0)),
        )
        distiller.compile(
            optimizer=keras.optimizers.SGD(0.05),
            loss=loss_from_logits(),
            adversarial_loss_weight=0.02,
            **arguments,
        )
        distiller.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
        return snapshot(distiller.student, *distiller.teacher_to_student_layers)

    start = snapshot(image_model(4, "student", batch_norm=False, seed=2))
    plain = weights(jit_compile=False)
    assert_changed(start, plain[: len(start)])
    for one, other in zip(plain, weights(**switches), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.promise(10)
@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.long)]
)
@pytest.mark.slow
@pytest.mark.graph
def test_mixed_precision(policy):
    exact = train(make_distiller(), steps=1)
    keras.config.set_dtype_policy(policy)
    distiller = make_distiller(discriminator_optimizer="sgd", run_eagerly=False)
    for network in ("student", "t2s", "discriminator"):
        optimizer = getattr(distiller.optimizer, network)
        scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        assert scaled == (policy == "mixed_float16"), network
    layers = (*distiller.teacher_to_student_layers, *distiller.discriminators)
    assert {layer.dtype_policy.name for layer in layers} == {policy}
    images, labels = image_data(16)
    history = distiller.fit(images, labels, batch_size=16, epochs=41, verbose=0).history
    for name, value in exact.items():
        np.testing.assert_allclose(history[name][0], value, rtol=0.06, atol=0.02, err_msg=name)
    assert history["student_loss"][-1] < history["student_loss"][0]


@pytest.mark.promise(10)
def test_gradient_accumulation_moves_the_student_every_second_step():
    distiller = make_distiller(
        optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
        feature_loss_weight=0.0,
        adversarial_loss_weight=0.0,
        run_eagerly=False,
    )
    images, labels = image_data(16)
    kernel = distiller.student.get_layer("logits").kernel
    seen = [np.array(kernel)]
    for _ in range(4):
        distiller.train_on_batch(images, labels)
        seen.append(np.array(kernel))
    same = [np.array_equal(one, other) for one, other in zip(seen, seen[1:], strict=False)]
    assert same == [True, False, True, False]


def test_learning_rate_callbacks_move_the_students_optimizer():
    distiller = make_distiller(optimizer=keras.optimizers.SGD(0.5))
    images, labels = image_data(16)
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    distiller.fit(images, labels, epochs=2, verbose=0, callbacks=[schedule])
    assert float(distiller.optimizer.student.learning_rate) == 0.125
    assert float(distiller.optimizer.t2s.learning_rate) == pytest.approx(3e-3)
    assert float(distiller.optimizer.discriminator.learning_rate) == pytest.approx(5e-5)


@pytest.mark.slow
@pytest.mark.graph
def test_distillation_without_labels():
    distiller = make_distiller(student_loss_weight=0.0, metrics=None, run_eagerly=False)
    images, _ = image_data(16)
    history = distiller.fit(images, batch_size=16, epochs=30, verbose=0).history
    assert "student_loss" not in history
    assert history["logits_loss"][-1] < history["logits_loss"][0]


def test_models_of_probabilities_learn_from_maps_alone():
    def probabilities(filters, name):
        base = image_model(filters, name)
        return keras.Model(base.inputs, keras.layers.Softmax()(base.output), name=name)

    distiller = KTANDistiller(
        probabilities(12, "teacher"),
        probabilities(4, "student"),
        FeaturePair("features", "features", teacher_to_student=TeacherToStudent("reconstruction")),
    )
    distiller.compile(
        "adam", loss="sparse_categorical_crossentropy", logits_loss_weight=0, metrics=["accuracy"]
    )
    lines = []
    distiller.summary(print_fn=lines.append)
    shown = "\n".join(lines)
    assert "objective reconstruction" in shown and "discriminator conditional" in shown
    # Probabilities are not taken for logits: the condition is the teacher's own.
    images, _ = image_data(4)
    outputs = distiller.teacher(images)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(distiller.objectives.condition.teacher_probabilities(outputs)),
        keras.ops.convert_to_numpy(outputs),
        rtol=1e-5,
    )
    logs = train(distiller, steps=1)
    assert logs["feature_loss"] > 0 and "logits_loss" not in logs


_RELOAD = """
import json, sys
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
shapes, outputs = {}, []
for count in (1, 7):
    images = np.load(sys.argv[2])[:count]
    outputs.append(loaded(image=tf.constant(images))[sys.argv[4]].numpy())
np.save(sys.argv[3], np.concatenate(outputs))
print(json.dumps({
    "ours": "keras_ktan" in sys.modules,
    "inputs": list(loaded.structured_input_signature[1]),
    "outputs": list(loaded.structured_outputs),
}))
"""


@pytest.mark.slow
@pytest.mark.promise(13)
def test_the_exported_student_runs_where_keras_ktan_is_not(tmp_path):
    distiller = make_distiller()
    train(distiller)
    distiller.export(tmp_path / "student", verbose=False)
    images, _ = image_data(7)
    np.save(tmp_path / "images.npy", images)
    name = "logits"
    printed = subprocess.run(
        [
            sys.executable,
            "-c",
            _RELOAD,
            *(str(tmp_path / file) for file in ("student", "images.npy", "outputs.npy")),
            name,
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert json.loads(printed) == {"ours": False, "inputs": ["image"], "outputs": [name]}
    expected = distiller.student.predict(images, verbose=0)
    np.testing.assert_allclose(
        np.load(tmp_path / "outputs.npy"), np.concatenate([expected[:1], expected]), atol=1e-5
    )


_RELOAD_KEPT = """
import sys
sys.modules["keras_ktan"] = None  # an import of it is an error
import keras
import numpy as np
student = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[3], student.predict(np.load(sys.argv[2]), verbose=0))
"""


@pytest.mark.slow
@pytest.mark.promise(13)
def test_the_kept_student_is_a_plain_model_where_keras_ktan_is_not(tmp_path):
    distiller = make_distiller()
    before = snapshot(distiller.student)
    train(distiller)
    assert_changed(before, snapshot(distiller.student))
    distiller.student.save(tmp_path / "student.keras")
    images, _ = image_data(7)
    np.save(tmp_path / "images.npy", images)
    files = [str(tmp_path / name) for name in ("student.keras", "images.npy", "outputs.npy")]
    subprocess.run(
        [sys.executable, "-c", _RELOAD_KEPT, *files],
        check=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
    expected = distiller.student.predict(images, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.promise(13)
def test_exported_outputs_keep_their_names_whatever_their_order(tmp_path):
    import tensorflow as tf

    inputs = {"right": keras.Input((3,), name="right"), "left": keras.Input((2,), name="left")}
    outputs = {
        # Drops nothing in a file: it is the student as `predict` runs it.
        "y": keras.layers.Dense(2)(keras.layers.Dropout(0.5)(inputs["left"])),
        "x": keras.layers.Dense(4)(inputs["right"]),
    }
    student = keras.Model(inputs, outputs)
    export_student(student, tmp_path / "student", verbose=False)
    batch = {"right": np.ones((5, 3), "float32"), "left": np.ones((5, 2), "float32")}
    serve = tf.saved_model.load(str(tmp_path / "student")).signatures["serving_default"]
    served = serve(**{name: tf.constant(value) for name, value in batch.items()})
    expected = student.predict(batch, verbose=0)
    assert set(served) == {"x", "y"}
    for name, value in expected.items():
        np.testing.assert_allclose(served[name], value, rtol=1e-5)


def two_outputs(filters, name, seed):
    base = image_model(filters, name, batch_norm=False, seed=seed)
    size = keras.layers.Dense(1, name="size")(base.get_layer("pool").output)
    return keras.Model(base.inputs, {"logits": base.output, "size": size}, name=name)


@pytest.mark.promise(7)
@pytest.mark.parametrize("own_loss", [True, False])
def test_the_objective_does_not_reach_the_logs_of_several_outputs(own_loss):
    """Nothing moves at rate 0, so the logs of training must be those of evaluation."""
    student = two_outputs(4, "student", 2)
    losses = {"logits": loss_from_logits(), "size": "mse"}
    pair = OutputPair("logits", kind="softmax")
    distiller = KTANDistiller(two_outputs(12, "teacher", 1), student, output_pairs=pair)
    still = keras.optimizers.SGD(0.0)
    student.compile(keras.optimizers.SGD(0.0), loss=losses)
    distiller.compile(still, loss=losses if own_loss else None, logits_loss_weight=1.0)
    images, labels = image_data(12)
    targets = {"logits": labels, "size": np.ones((12, 1), "float32")}
    alone = student.evaluate(images, targets, verbose=0, return_dict=True)
    through = distiller.evaluate(images, targets, verbose=0, return_dict=True)
    assert through.keys() == alone.keys()
    history = distiller.fit(images, targets, batch_size=12, verbose=0).history
    for name, value in alone.items():
        np.testing.assert_allclose(through[name], value, rtol=1e-5, err_msg=name)
        if name != "loss":
            np.testing.assert_allclose(history[name][0], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(history["student_loss"][0], alone["loss"], rtol=1e-5)
    assert history["ktan_logits_loss"][0] > 0


class OldFashioned(keras.Model):
    """A loss of its own, written before Keras passed `training`."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return keras.ops.mean(keras.ops.square(y_pred - keras.ops.one_hot(y, CLASSES)))


def test_a_loss_of_its_own_that_takes_no_training_argument():
    base = image_model(4, "student")
    student = OldFashioned(base.inputs, base.output)
    distiller = KTANDistiller(image_model(12, "teacher"), student)
    distiller.compile(keras.optimizers.SGD(0.0), loss=None, adversarial_loss_weight=0.0)
    images, labels = image_data(16)
    logs = distiller.train_on_batch(images, labels, return_dict=True)
    outputs = keras.ops.convert_to_numpy(keras.ops.stop_gradient(student(images, training=True)))
    expected = np.mean(np.square(outputs - np.eye(CLASSES)[labels]))
    np.testing.assert_allclose(logs["student_loss"], expected, rtol=1e-4)


def test_feature_transfer_between_models_of_unlike_classes():
    base = image_model(12, "teacher")
    logits = keras.layers.Dense(9)(base.get_layer("pool").output)
    distiller = KTANDistiller(keras.Model(base.inputs, logits), image_model(4, "student"))
    with pytest.raises(ValueError, match="scores 9 classes and the student 5"):
        distiller.compile(loss=loss_from_logits(), adversarial_loss_weight=0.02)
    distiller.compile(loss=loss_from_logits(), logits_loss_weight=0.0)
    logs = train(distiller, steps=1)
    assert "logits_loss" not in logs and logs["feature_loss"] > 0


def test_a_regressor_is_not_taken_for_a_classifier():
    teacher, student = image_model(12, "teacher"), image_model(4, "student")
    distiller = KTANDistiller(teacher, student, output_pairs=[])
    distiller.compile(keras.optimizers.SGD(0.0), loss="mse")
    images, _ = image_data(16)
    targets = np.ones((16, CLASSES), "float32")
    logs = distiller.train_on_batch(images, targets, return_dict=True)
    assert "logits_loss" not in logs and logs["feature_loss"] > 0
