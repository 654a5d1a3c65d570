"""A student without some of its teacher's residual blocks: the others compute what they did."""

import keras
import numpy as np
import pytest
from helpers import assert_three_parts
from keras import layers as L
from slim_models import inputs_for, outputs_of, randomise

from keras_ktan import KTANDistiller
from keras_ktan.students import slim_student
from keras_ktan.utils.channel_record import channel_record_of


def block(x, name, plus=False):
    y = L.Conv2D(x.shape[-1], 3, padding="same", name=f"{name}_conv")(x)
    y = L.BatchNormalization(name=f"{name}_norm")(y)
    y = x + y if plus else L.Add(name=f"{name}_add")([y, x])
    return L.ReLU(name=f"{name}_out")(y)


def stage(x, name, plus=False):
    x = L.ReLU(name=f"{name}_begin")(L.Conv2D(16, 3, 2, padding="same", name=f"{name}_down")(x))
    return block(block(x, f"{name}_1", plus), f"{name}_2", plus)


def flat(plus=False):
    inputs = keras.Input((16, 16, 3), name="image")
    x = stage(stage(inputs, "a", plus), "b", plus)
    x = L.GlobalAveragePooling2D(name="pool")(x)
    return randomise(keras.Model(inputs, L.Dense(5, name="logits")(x), name="flat"))


def nested():
    inputs = keras.Input((16, 16, 3))
    backbone = keras.Model(inputs, stage(stage(inputs, "a"), "b"), name="backbone")
    return randomise(
        keras.Sequential(
            [keras.Input((16, 16, 3)), backbone, L.GlobalAveragePooling2D(), L.Dense(5)],
            name="nested",
        )
    )


def summary_of(distiller):
    lines = []
    distiller.summary(print_fn=lambda line, **more: lines.append(line))
    return "\n".join(lines)


def silence(layer):
    """Let a block add nothing."""
    for variable in (layer.gamma, layer.beta):
        variable.assign(np.zeros(variable.shape, "float32"))


@pytest.mark.parametrize("plus", [False, True], ids=["layer", "operation"])
def test_blocks_that_add_nothing_can_be_left_out(plus):
    teacher = flat(plus)
    for name in ("a_2_norm", "b_2_norm"):
        silence(teacher.get_layer(name))
    names = [op.name for op in teacher.operations if type(op).__name__ == "Add"]
    student = slim_student(teacher, 1.0, drop_blocks=[names[1], names[3]])
    inputs = inputs_for(teacher)
    np.testing.assert_allclose(
        outputs_of(student, inputs)[0], outputs_of(teacher, inputs)[0], rtol=1e-5, atol=1e-5
    )
    # Two convolutions of 16 to 16 channels with their normalisations are gone.
    assert teacher.count_params() - student.count_params() == 2 * (9 * 16 * 16 + 16 + 4 * 16)
    left = {layer.name for layer in student.layers}
    assert "a_2_conv" not in left and {"a_2_out", "b_2_out", "a_1_conv"} <= left


def test_what_is_left_out_does_not_count_any_more():
    teacher = flat()
    inputs = inputs_for(teacher)
    student = slim_student(teacher, 1.0, drop_blocks=["b_*_add"])
    # By hand: the map behind `b_begin` is handed on to the pooling.
    begin = keras.Model(teacher.input, teacher.get_layer("b_begin").output)
    pooled = np.mean(outputs_of(begin, inputs)[0], axis=(1, 2))
    kernel, bias = teacher.get_layer("logits").get_weights()
    np.testing.assert_allclose(outputs_of(student, inputs)[0], pooled @ kernel + bias, atol=1e-4)


def test_blocks_of_a_nested_model():
    teacher = nested()
    silence(teacher.get_layer("backbone").get_layer("a_1_norm"))
    student = slim_student(teacher, 1.0, drop_blocks=["backbone/a_1_add"])
    inputs = inputs_for(teacher)
    np.testing.assert_allclose(
        outputs_of(student, inputs)[0], outputs_of(teacher, inputs)[0], rtol=1e-5, atol=1e-5
    )
    assert student.count_params() < teacher.count_params()


def test_the_rest_is_narrowed_and_t2s_still_selects():
    teacher = flat()
    student = slim_student(teacher, 0.5, drop_blocks=["a_2_add", "b_2_add"])
    assert student.get_layer("a_1_conv").filters == 8
    kept = channel_record_of(student).channels["a_2_out"]
    assert len(kept) == 8
    distiller = KTANDistiller(teacher, student)
    assert distiller.teacher_paths == ["a_2_out"]
    assert "objective selection (8 of the teacher's 16 channels" in summary_of(distiller)


def test_a_target_is_a_share_of_the_whole_teacher():
    teacher = flat()
    student = slim_student(
        teacher, target={"parameters": 0.5}, divisor=1, drop_blocks=["a_2_add", "b_2_add"]
    )
    share = student.count_params() / teacher.count_params()
    assert 0.45 < share <= 0.5


def projected():
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, 2, padding="same")(inputs)
    short = L.Conv2D(8, 1, 2)(inputs)
    x = L.GlobalAveragePooling2D()(L.Add(name="sum")([x, short]))
    return keras.Model(inputs, L.Dense(2)(x), name="projected")


@pytest.mark.parametrize(
    ("make", "blocks", "parts"),
    [
        (flat, ["c_1_add"], ("['c_1_add']", "'a_1_add', 'a_2_add'", "Correct")),
        (flat, ["a_1_conv"], ("['a_1_conv']", "'a_1_add'", "Correct")),
        (flat, "a_1_add", ("'a_1_add'", "a list", "Write")),
        (flat, [], ("[]", "a list", "Write")),
        (projected, ["sum"], ("'sum'", "a block's input", "name others")),
    ],
)
def test_what_cannot_be_left_out(make, blocks, parts):
    with pytest.raises(ValueError) as error:
        slim_student(make(), 0.5, drop_blocks=blocks)
    assert_three_parts(error.value, *parts)
