"""Slim students of every architecture go the whole way: a step with all terms, a file, an export.

The multiplications are counted by TensorFlow's own graph, not by the layers.
"""

import keras
import numpy as np
import pytest
from slim_models import (
    APPLICATIONS,
    SMALL,
    application,
    flat_layers,
    inputs_for,
    outputs_of,
    randomise,
    text_transformer,
    vision_transformer,
)

from keras_ktan import KTANDistiller, compression_report
from keras_ktan.export import export_student
from keras_ktan.students import slim_student

OTHERS = {**SMALL, "text": text_transformer, "vision": vision_transformer}
# A graph holds the body of a recurrent layer's loop once. test_macs.py counts these by hand.
NOT_IN_THE_GRAPH = ("lstm",)
WIDTHS = (0.25, 0.5)


def loss_of(model):
    if model.name == "residual":  # ends in a softmax
        return keras.losses.SparseCategoricalCrossentropy()
    if isinstance(model.output, dict):
        return {"boxes": "mse", "classes": keras.losses.BinaryCrossentropy(from_logits=True)}
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def labels_for(model, batch):
    numbers = np.random.default_rng(2)

    def one(tensor):
        shape = (batch, *tensor.shape[1:])
        if isinstance(model.output, dict):
            return numbers.integers(0, 2, shape).astype("float32")
        return numbers.integers(0, shape[-1], shape[:-1])

    return keras.tree.map_structure(one, model.output)


def products_in_graph(model):
    """Multiply-accumulates of one example, from the operations of a traced forward pass."""
    import tensorflow as tf

    (tensor,) = model.inputs
    spec = tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype)
    graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec).graph
    total = 0
    for operation in graph.get_operations():
        shapes = [tuple(part.shape) for part in operation.inputs]
        made = tuple(operation.outputs[0].shape) if operation.outputs else ()
        if operation.type in ("Conv2D", "DepthwiseConv2dNative"):
            total += np.prod(made[1:3]) * np.prod(shapes[1])
        elif operation.type == "Conv2DBackpropInput":  # a transposed convolution
            total += np.prod(shapes[2][1:3]) * np.prod(shapes[1])
        elif operation.type == "MatMul":
            inner = shapes[0][0 if operation.get_attr("transpose_a") else 1]
            total += np.prod(made) * inner
        elif operation.type in ("BatchMatMulV2", "BatchMatMul"):
            inner = shapes[0][-2 if operation.get_attr("adj_x") else -1]
            total += np.prod(made) * inner
        elif operation.type == "Einsum":
            terms = operation.get_attr("equation").decode().split("->")[0].split(",")
            sizes = {}
            for term, shape in zip(terms, shapes, strict=True):
                assert "." not in term
                sizes |= dict(zip(term, shape, strict=True))
            total += np.prod(list(sizes.values()))
    return int(total) + grouped_products(model)


def grouped_products(model):
    """Those of grouped convolutions, which Keras hides in functions of their own."""
    return sum(
        int(np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:-1]))
        for layer in flat_layers(model).values()
        if isinstance(layer, keras.layers.Conv2D) and layer.groups > 1
    )


def check(name, teacher, width, folder):
    teacher = randomise(teacher)
    student = slim_student(teacher, width)
    if name not in NOT_IN_THE_GRAPH:
        report = compression_report(teacher, student)
        assert report.student.macs == products_in_graph(student)
        assert report.teacher.macs == products_in_graph(teacher)
    inputs = inputs_for(teacher)
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in student.trainable_weights]
    distiller = KTANDistiller(teacher, student)
    distiller.compile(
        keras.optimizers.SGD(1e-3),
        loss_of(teacher),
        adversarial_loss_weight=0.02,
        jit_compile=False,
    )
    logs = distiller.train_on_batch(inputs, labels_for(teacher, len(inputs)), return_dict=True)
    terms = {term for term, value in logs.items() if term.endswith("_loss") and value > 0}
    assert {"student_loss", "logits_loss", "feature_loss", "adversarial_loss"} <= terms, logs
    assert "discriminator_loss" in terms
    moved = [
        not np.array_equal(keras.ops.convert_to_numpy(variable), old)
        for variable, old in zip(student.trainable_weights, before, strict=True)
        if variable.path.endswith(("/kernel", "/embeddings", "/gamma"))
    ]
    assert np.mean(moved) > 0.99  # a ReLU that is dead for three inputs gives no gradient

    distiller.save(folder / "distiller.keras")
    loaded = keras.saving.load_model(folder / "distiller.keras").student
    for one, other in zip(outputs_of(student, inputs), outputs_of(loaded, inputs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * np.abs(one).max())
    # Compares the file with `student.predict` in a process of its own; a difference is an error.
    result = export_student(student, folder / "student", data=inputs, verbose=False)
    assert result.agreement == 1.0


@pytest.mark.graph
@pytest.mark.slow
def test_a_residual_net_goes_the_whole_way(tmp_path):
    check("residual", SMALL["residual"](), 0.25, tmp_path)


@pytest.mark.graph
@pytest.mark.long
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", OTHERS)
def test_every_small_architecture_goes_the_whole_way(name, width, tmp_path):
    check(name, OTHERS[name](), width, tmp_path)


@pytest.mark.graph
@pytest.mark.long
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_application_goes_the_whole_way(name, width, tmp_path):
    check(name, application(name), width, tmp_path)
