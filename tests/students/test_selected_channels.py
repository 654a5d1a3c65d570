"""A slim student's T2S selects the channels that the student kept."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_ktan import (
    FeaturePair,
    KTANDistiller,
    compression_report,
    feature_maps,
    slim_student,
)
from keras_ktan.utils.channel_record import channel_record_of


def make_teacher(seed=0):
    """Two residual stages whose channels have gammas of unlike size."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((16, 16, 3), name="image")
    hidden = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(inputs)
    hidden = layers.ReLU(name="stem_out")(layers.BatchNormalization(name="stem_norm")(hidden))
    for stage, filters in ((1, 16), (2, 32), (3, 32)):
        strides = 1 if stage == 1 else 2
        inner = layers.Conv2D(filters, 3, strides, "same", use_bias=False, name=f"conv_{stage}")
        inner = layers.BatchNormalization(name=f"norm_{stage}")(inner(hidden))
        short = layers.Conv2D(filters, 1, strides, use_bias=False, name=f"short_{stage}")(hidden)
        short = layers.BatchNormalization(name=f"short_norm_{stage}")(short)
        hidden = layers.Add(name=f"add_{stage}")([inner, short])
        hidden = layers.ReLU(name=f"stage_{stage}")(hidden)
    hidden = layers.GlobalAveragePooling2D(name="pool")(hidden)
    model = keras.Model(inputs, layers.Dense(5, name="logits")(hidden), name="teacher")
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(generator.normal(size=layer.gamma.shape))
    return model


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
DATA = (
    np.random.default_rng(1).normal(size=(16, 16, 16, 3)).astype("float32"),
    np.arange(16) % 5,
)


def test_the_default_pair_is_the_stage_before_the_last_by_name_with_the_kept_channels():
    teacher = make_teacher()
    student = slim_student(teacher, width=0.5)
    distiller = KTANDistiller(teacher, student)
    (pair,) = distiller.get_config()["feature_pairs"]
    assert pair["teacher_layer_name"] == pair["student_layer_name"] == "stage_2"
    assert feature_maps(teacher).default.path == "stage_2"
    (t2s,) = distiller.teacher_to_student_layers
    assert t2s.selects
    gammas = [
        np.abs(keras.ops.convert_to_numpy(teacher.get_layer(name).gamma))
        for name in ("norm_2", "short_norm_2")
    ]
    best = np.sort(np.argsort(-np.sum(gammas, axis=0))[:16])
    assert t2s.channels == best.tolist() == channel_record_of(student).channels["stage_2"]


def test_the_record_counts_and_not_what_is_most_important_now():
    teacher = make_teacher()
    student = slim_student(teacher, width=0.5)
    kept = channel_record_of(student).channels["stage_2"]
    for name in ("norm_2", "short_norm_2"):
        gamma = teacher.get_layer(name).gamma
        gamma.assign(1.0 / keras.ops.convert_to_tensor(gamma))  # the order turns round
    (t2s,) = KTANDistiller(teacher, student).teacher_to_student_layers
    assert t2s.channels == kept


@pytest.mark.parametrize("case", ["another teacher", "another layer", "a loaded student"])
def test_where_the_record_does_not_cover_the_map_the_most_important_count(case, tmp_path):
    teacher = make_teacher()
    student = slim_student(teacher, width=0.5, importance="random", seed=3)
    kept = channel_record_of(student).channels
    pair = FeaturePair("stage_2", "stage_2")
    if case == "another teacher":
        teacher = keras.models.clone_model(make_teacher(1))
        teacher = keras.Model(teacher.inputs, teacher.outputs, name="other")
    elif case == "another layer":
        pair = FeaturePair("stage_3", "stage_2")
    else:
        student.save(tmp_path / "student.keras")
        student = keras.saving.load_model(tmp_path / "student.keras")
    (t2s,) = KTANDistiller(teacher, student, pair).teacher_to_student_layers
    stage = pair.teacher_layer_name[-1]
    gammas = [
        np.abs(keras.ops.convert_to_numpy(teacher.get_layer(f"{kind}norm_{stage}").gamma))
        for kind in ("", "short_")
    ]
    best = np.argsort(-np.sum(gammas, axis=0), kind="stable")[:16]
    assert t2s.channels == np.sort(best).tolist() != kept["stage_2"]


@pytest.mark.promise(9)
def test_the_selection_is_saved_with_the_distiller(tmp_path):
    teacher = make_teacher()
    student = slim_student(teacher, width=0.5, importance="random", seed=3)
    distiller = KTANDistiller(teacher, student)
    distiller.compile(keras.optimizers.SGD(0.1), LOSS, adversarial_loss_weight=0.02)
    distiller.train_on_batch(*DATA)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    one, other = (d.train_on_batch(*DATA, return_dict=True) for d in (distiller, loaded))
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-5, err_msg=name)


def test_at_full_width_the_student_begins_as_the_teacher_and_the_feature_loss_at_0():
    teacher = make_teacher()
    distiller = KTANDistiller(teacher, slim_student(teacher, width=1.0))
    distiller.compile(keras.optimizers.SGD(0.0), LOSS, adversarial_loss_weight=0.0)
    images, labels = DATA
    # Batch normalisation as in inference, so that both models see the same.
    for layer in distiller.student.layers:
        layer.trainable = not isinstance(layer, layers.BatchNormalization)
    distiller.compile(keras.optimizers.SGD(0.0), LOSS, adversarial_loss_weight=0.0)
    logs = distiller.train_on_batch(images, labels, return_dict=True)
    np.testing.assert_allclose(float(logs["feature_loss"]), 0.0, atol=1e-5)
    np.testing.assert_allclose(float(logs["logits_loss"]), 0.0, atol=1e-5)


def test_one_of_several_outputs_of_a_nested_model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    low = layers.Conv2D(8, 3, padding="same", name="low_conv")(inputs)
    high = layers.Conv2D(8, 3, 2, "same", name="high_conv")(low)
    inner = keras.Model(inputs, {"low": low, "high": high}, name="pyramid")
    inputs = keras.Input((8, 8, 3), name="image")
    maps = inner(inputs)
    pooled = [layers.GlobalAveragePooling2D()(maps[name]) for name in ("low", "high")]
    outputs = layers.Dense(5, name="logits")(layers.Concatenate()(pooled))
    teacher = keras.Model(inputs, outputs, name="teacher")
    student = slim_student(teacher, width=0.5, divisor=1, importance="random", seed=1)
    record = channel_record_of(student).channels
    for name in ("low", "high"):
        pair = FeaturePair(f"pyramid:{name}", f"pyramid:{name}")
        (t2s,) = KTANDistiller(teacher, student, pair).teacher_to_student_layers
        assert t2s.channels == record[f"pyramid/{name}_conv"]


def test_the_report_says_which_widths_were_kept():
    teacher = make_teacher()
    student = slim_student(teacher, width=0.5)
    report = compression_report(teacher, student)
    assert report.kept_widths["stem"] == (8, 16)
    assert report.kept_widths["conv_2"] == report.kept_widths["short_2"] == (16, 32)
    assert report.kept_widths["logits"] == (5, 5)
    # Seven convolutions and seven normalisations at a half; the output layer whole.
    assert "share of the channels kept, in how many layers: 0.5 in 14, 1 in 1" in str(report)
    other = compression_report(teacher, make_teacher(1))
    assert other.kept_widths == {} and "share of" not in str(other)


def test_the_summary_says_where_t2s_comes_from():
    teacher = make_teacher()
    for student, source in (
        (slim_student(teacher, width=0.5), "those that the student kept"),
        (keras.models.clone_model(slim_student(teacher, width=0.5)), "the most important ones"),
    ):
        lines = []
        KTANDistiller(teacher, student).summary(print_fn=lines.append)
        assert any(f"selection (16 of the teacher's 32 channels, {source}" in one for one in lines)
