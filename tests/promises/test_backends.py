"""The same distillation on every installed backend: the same numbers, and no other backend."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from models import image_data, image_model, loss_from_logits

from keras_ktan import KTANDistiller
from keras_ktan.utils.cached_batch import batch_key, pack

BACKENDS = [
    name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name) is not None
]
TESTS = pathlib.Path(__file__).parent.parent

_GAME = """
import sys
import keras
import numpy as np
from models import assert_changed, assert_same, image_data, image_model, loss_from_logits
from models import snapshot, use_double_precision
from keras_ktan import FeatureDiscriminator, FeaturePair, KTANDistiller, TeacherToStudent

use_double_precision()
pair = FeaturePair(
    "features",
    "features",
    teacher_to_student=TeacherToStudent("student_head"),
    discriminator=FeatureDiscriminator(noise_stddev=0.0),
)
distiller = KTANDistiller(
    image_model(12, "teacher", strides=1),
    image_model(4, "student", regularizer=keras.regularizers.L2(1e-2)),
    pair,
)
networks = (
    distiller.teacher,
    distiller.student,
    *distiller.teacher_to_student_layers,
    *distiller.discriminators,
)
distiller.compile(
    optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
    t2s_optimizer=keras.optimizers.SGD(0.05),
    discriminator_optimizer=keras.optimizers.SGD(0.05),
    loss=loss_from_logits(),
    adversarial_loss_weight=0.5,
)
generator = np.random.default_rng(0)
for network in networks:
    for weight in network.weights:
        # Variances must be above 0; all else is drawn as weights usually are.
        value = 0.3 * generator.normal(size=weight.shape)
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value)
before = [snapshot(network) for network in networks]
assert all(array.dtype == "float64" for array in sum(before, []) if array.dtype.kind == "f")
logs = []
for step in range(4):
    images, labels = image_data(12, seed=step)
    weights = np.linspace(0.0, 2.0, 12).astype("float32")
    found = distiller.train_on_batch(images, labels, sample_weight=weights, return_dict=True)
    logs.append([float(found[name]) for name in sorted(found)])
after = [snapshot(network) for network in networks]
assert_same(before[0], after[0])
for begin, end in zip(before[1:], after[1:], strict=True):
    assert_changed(begin, end)
moved = [end - begin for begin, end in zip(sum(before, []), sum(after, []), strict=True)]
np.savez(sys.argv[1], np.array(logs), *moved)
"""


def run_python(backend, code, *arguments):
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    finished = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout


@pytest.mark.promise(5)
@pytest.mark.own_processes(*BACKENDS)
@pytest.mark.skipif(len(BACKENDS) < 2, reason="only one backend is installed")
def test_all_backends_move_all_weights_alike(tmp_path):
    results = {}
    for backend in BACKENDS:
        path = tmp_path / f"{backend}.npz"
        run_python(backend, _GAME, path)
        with np.load(path) as arrays:
            results[backend] = [arrays[name] for name in arrays.files]
    first = results.pop(BACKENDS[0])
    for backend, arrays in results.items():
        assert len(arrays) == len(first)
        for one, other in zip(first, arrays, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=backend)


@pytest.mark.slow
@pytest.mark.own_processes(*BACKENDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_backend_is_imported_that_keras_does_not_import(backend):
    code = """
import sys, json
import keras
known = ("tensorflow", "jax", "torch")
brought = [name for name in known if name in sys.modules]
import keras_ktan
print(json.dumps([brought, [name for name in known if name in sys.modules]]))
"""
    by_keras, by_both = json.loads(run_python(backend, code))
    assert backend in by_keras
    assert by_both == by_keras


def counting_distiller(monkeypatch):
    ramp = keras.optimizers.schedules.PolynomialDecay(1.0, 10, 0.1)
    distiller = KTANDistiller(
        image_model(6, "teacher", batch_norm=False), image_model(3, "student", batch_norm=False)
    )
    # A metric makes its variables when it first sees data, and so would throw away a trace.
    distiller.compile(
        "sgd",
        loss=loss_from_logits(),
        metrics=["accuracy"],
        feature_loss_weight=ramp,
        adversarial_loss_weight=0.02,
    )
    traces = []
    original = type(distiller.objectives).student_forward

    def student_forward(self, inputs):
        traces.append(inputs.shape)
        return original(self, inputs)

    monkeypatch.setattr(type(distiller.objectives), "student_forward", student_forward)
    return distiller, traces


@pytest.mark.promise(10)
@pytest.mark.graph
def test_the_step_is_traced_once_a_batch_size_over_epochs_and_schedules(monkeypatch):
    distiller, traces = counting_distiller(monkeypatch)
    images, labels = image_data(20)
    distiller.fit(images, labels, batch_size=8, epochs=4, verbose=0)  # batches of 8, 8 and 4
    # TensorFlow traces arrays with an open batch axis, JAX each size of a batch.
    expected = {"tensorflow": 1, "jax": 2}[keras.backend.backend()]
    assert len(traces) == expected
    distiller.fit(images, labels, batch_size=8, epochs=2, verbose=0)
    assert len(traces) == expected


@pytest.mark.graph
def test_a_longer_training_puts_itself_between_no_more_layers_and_their_callers(monkeypatch):
    """Compiled steps do so while they are traced; on torch a training does it once."""
    from keras_ktan.introspection import layer_calls

    made = []
    original = layer_calls._Intercepted.__init__

    def count(self, layer, attribute):
        made.append(layer.name)
        original(self, layer, attribute)

    monkeypatch.setattr(layer_calls._Intercepted, "__init__", count)
    student = image_model(3, "student", seed=2)
    distiller = KTANDistiller(image_model(8, "teacher"), student)
    distiller.compile("sgd", loss_from_logits())
    images, labels = image_data(8)
    counts = []
    for epochs in (1, 3):
        made.clear()
        distiller.fit(images, labels, batch_size=4, epochs=epochs, verbose=0)
        counts.append(len(made))
    # Both models' paired layer, once a training, or at all while the step is traced.
    assert counts[0] == 2
    assert counts[1] == (2 if keras.backend.backend() == "torch" else 0)
    assert all("call" not in vars(layer) for layer in student.layers)


@pytest.mark.promise(10)
def test_no_teacher_weight_is_a_constant_of_the_compiled_program():
    import jax

    from keras_ktan.training.steps.teacher_weights import BatchesWithTeacher

    def model(units, name):
        inputs = keras.Input((4, 4, 1))
        hidden = keras.layers.Conv2D(8, 1, name="features", activation="relu")(inputs)
        hidden = keras.layers.Flatten()(hidden)
        hidden = keras.layers.Dense(units)(hidden)
        return keras.Model(inputs, keras.layers.Dense(5)(hidden), name=name)

    distiller = KTANDistiller(model(5000, "teacher"), model(5, "student"))
    distiller.compile("sgd", loss=loss_from_logits(), adversarial_loss_weight=0.02)
    images, labels = image_data(4, size=4)
    state = tuple(
        [variable.value for variable in variables]
        for variables in (
            distiller.trainable_variables,
            distiller.non_trainable_variables,
            distiller.optimizer.variables,
            distiller.metrics_variables,
        )
    )
    teacher = [variable.value for variable in distiller.teacher.variables]
    batch = next(BatchesWithTeacher(iter([(images, labels)]), teacher))
    step = jax.jit(distiller.train_step).lower(state, batch)
    program = step.as_text()
    # 665,000 teacher weights written out would be millions of characters, as here.
    baked_in = jax.jit(lambda x: distiller.teacher(x)).lower(images).as_text()
    assert len(baked_in) > 1_000_000
    assert len(program) < 500_000
    # They enter once and do not leave: what comes out is the state and the logs.
    entering, leaving = (
        len(jax.tree_util.tree_leaves(info)) for info in (step.args_info, step.out_info)
    )
    assert entering == sum(map(len, state)) + len(distiller.teacher.variables) + 2
    assert leaving == sum(map(len, state)) + 1 + len(distiller.objectives.computed_terms())


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="state is handed over on JAX alone")
def test_the_teacher_has_no_part_in_evaluations_and_in_steps_that_need_none(monkeypatch):
    distiller = KTANDistiller(image_model(6, "teacher"), image_model(3, "student"))
    teachers = {id(variable) for variable in distiller.teacher.variables}
    assert not teachers & {id(variable) for variable in distiller.non_trainable_variables}
    images, labels = image_data(4)
    entered = []

    def train_step(self, state, data):
        entered.append(len(data.teacher))
        raise StopIteration

    monkeypatch.setattr(KTANDistiller, "train_step", train_step)

    def enters(x, **weights):
        distiller.compile("sgd", loss=loss_from_logits(), run_eagerly=True, **weights)
        distiller.make_train_function()
        with pytest.raises(StopIteration):
            distiller.train_function((), iter([(x, labels)]))
        return entered[-1]

    off = {f"{term}_loss_weight": 0.0 for term in ("logits", "feature", "adversarial")}
    assert enters(images) == len(teachers) > 0
    assert enters(images, **off) == 0
    # What a `TeacherCache` holds stands in for the teacher.
    assert enters(pack(images, {}, {}, batch_key("some digest"))) == 0


def test_the_metrics_of_a_student_with_a_loss_of_its_own_count_from_the_first_step():
    # Such a student makes its metrics' variables when it first sees data.
    images, labels = image_data(16)
    student = image_model(3, "student", batch_norm=False)
    student.compile(loss=loss_from_logits(), metrics=["accuracy"])
    distiller = KTANDistiller(image_model(6, "teacher", batch_norm=False), student)
    distiller.compile(keras.optimizers.SGD(0.0), loss=None)
    logs = distiller.fit(images, labels, batch_size=8, verbose=0).history
    # Its own optimizer trains nothing, so it has no slots that files would carry along.
    assert student.optimizer is not None and not student.optimizer.built
    expected = student.evaluate(images, labels, batch_size=8, return_dict=True, verbose=0)
    assert expected["accuracy"] > 0
    np.testing.assert_allclose(logs["accuracy"], [expected["accuracy"]], rtol=1e-6)
