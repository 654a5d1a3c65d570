"""What `slim_student` makes: widths, names, importance, record, training, files."""

import json

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops
from slim_models import (
    SMALL,
    flat_layers,
    inputs_for,
    outputs_of,
    randomise,
    residual_net,
    text_transformer,
    vision_transformer,
)

from keras_ktan import KTANDistiller
from keras_ktan.report import compression_report
from keras_ktan.students import slim_student
from keras_ktan.utils.channel_record import ChannelRecord, channel_record_of

EVERY_SMALL = {**SMALL, "text": text_transformer, "vision": vision_transformer}


def dense_chain(*units):
    return keras.Sequential(
        [keras.Input((8,)), *(L.Dense(n, name=f"dense{i}") for i, n in enumerate(units))],
        name="chain",
    )


def kept(student, path):
    return channel_record_of(student).channels[path]


def values(variable):
    return ops.convert_to_numpy(variable)


# Widths


@pytest.mark.parametrize(
    ("width", "divisor", "expected"),
    [
        (0.25, None, [16, 8, 3, 4]),  # 8 of 24: 6 is nearest to 8; 10 is no multiple of 8: 2.5 -> 3
        (0.5, None, [32, 16, 5, 4]),  # 12 is as near to 8 as to 16: up
        (0.25, 1, [16, 6, 3, 4]),
        (0.5, 32, [32, 24, 10, 4]),  # at least the divisor, at most what the teacher has
        (1.0, 32, [64, 24, 10, 4]),
    ],
)
def test_widths_are_multiples_of_the_divisor(width, divisor, expected):
    student = slim_student(dense_chain(64, 24, 10, 4), width, divisor=divisor)
    assert [layer.units for layer in student.layers] == expected


def test_names_inputs_outputs_and_kinds_stay():
    teacher = SMALL["detector"]()
    student = slim_student(teacher, 0.5)
    assert list(flat_layers(student)) == list(flat_layers(teacher))
    assert type(student.get_layer("backbone")) is type(teacher.get_layer("backbone"))
    assert isinstance(student.get_layer("box_head"), keras.Sequential)
    assert {k: o.shape for k, o in student.output.items()} == {
        k: o.shape for k, o in teacher.output.items()
    }
    assert student.input.shape == teacher.input.shape and student.input.name == "image"
    assert student.name == "slim_detector"
    assert slim_student(teacher, 0.5, name="mine").name == "mine"
    assert isinstance(slim_student(dense_chain(16, 2)), keras.Sequential)


def test_patterns_choose_the_widths():
    student = slim_student(
        residual_net(), {"b0a_conv": 1.0, "b?a_*": 0.5, "hidden": 0.2}, divisor=1
    )
    widths = {path: layer.output.shape[-1] for path, layer in flat_layers(student).items()}
    assert widths["b0a_conv"] == 24 and widths["b1a_conv"] == 12
    assert widths["hidden"] == 8 and widths["stem_conv"] == 32


def test_shared_layers_keep_one_choice():
    inputs = keras.Input((8,))
    shared = L.Dense(16, name="shared")
    one = L.Dense(16, name="one")(inputs)
    two = L.Dense(16, name="two")(inputs)
    x = L.Concatenate()([shared(one), shared(two)])
    teacher = randomise(keras.Model(inputs, L.Dense(2)(x)))
    student = slim_student(teacher, 0.5)
    assert kept(student, "one") == kept(student, "two")
    (kernel, _) = student.get_layer("shared").weights
    rows, columns = kept(student, "one"), kept(student, "shared")
    expected = values(teacher.get_layer("shared").kernel)[np.ix_(rows, columns)]
    np.testing.assert_array_equal(values(kernel), expected)


# Targets


def test_target_of_parameters_finds_the_widest_student():
    # 8 -> n -> 2 has 11 n + 2 parameters: 200 // 11 = 18 units, rounded down to the divisor.
    teacher = dense_chain(64, 2)
    assert slim_student(teacher, target={"parameters": 200}).layers[0].units == 16
    assert slim_student(teacher, target={"parameters": 200}, divisor=1).layers[0].units == 18
    assert slim_student(teacher, target={"parameters": 10**6}).layers[0].units == 64


def test_target_of_macs_is_a_share_of_the_teachers(capsys):
    # 10 n multiplications; an eighth of 640 is 80.
    student = slim_student(dense_chain(64, 2), target={"macs": 0.125})
    assert student.layers[0].units == 8
    assert "80 macs" in capsys.readouterr().out
    assert 0 < channel_record_of(student).width < 0.25
    slim_student(dense_chain(64, 2), target={"macs": 0.125}, verbose=False)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_target_holds_for_a_convolutional_net():
    teacher = residual_net()
    student = slim_student(teacher, target={"macs": 0.3}, divisor=1)
    report = compression_report(teacher, student)
    assert 0.25 < report.student.macs / report.teacher.macs <= 0.3


# Importance


def test_gammas_are_summed_over_the_blocks_that_are_added():
    inputs = keras.Input((4, 4, 3))
    parts = []
    for number in range(3):
        x = L.Conv2D(8, 1, name=f"conv{number}")(inputs)
        parts.append(L.BatchNormalization(name=f"bn{number}")(x))
    x = L.GlobalAveragePooling2D()(L.Add(name="sum")(parts))
    teacher = randomise(keras.Model(inputs, L.Dense(2)(x)))
    rows = [[9, 0, 0, 1, 1, 0, 2, 0], [0, 4, 0, 1, 1, 0, 2, 0], [0, 0, 5, -4, 1, 0, 2, 0.5]]
    for number, row in enumerate(rows):
        teacher.get_layer(f"bn{number}").gamma.assign(row)
    # Sums of the absolute values: 9, 4, 5, 6, 3, 0, 6, 0.5.
    student = slim_student(teacher, 0.5, divisor=1)
    for path in ("conv0", "bn1", "conv2", "sum"):
        assert kept(student, path) == [0, 2, 3, 6]


def test_without_gamma_the_kernels_norm_decides():
    teacher = dense_chain(4, 2)
    kernel = np.zeros((8, 4), "float32")
    kernel[0] = [1.0, -3.0, 0.1, 0.0]
    kernel[1] = [0.0, 0.0, 0.1, 2.0]
    teacher.layers[0].set_weights([kernel, np.zeros(4)])
    assert kept(slim_student(teacher, 0.5), "dense0") == [1, 3]


def test_activation_is_what_the_next_layer_reads():
    teacher = keras.Sequential(
        [keras.Input((2,)), L.Dense(4, "relu", name="hidden"), L.Dense(2, name="out")]
    )
    # The largest weights make activations below zero, which nobody reads.
    kernel = np.array([[-9, 1, 0.5, -9], [-9, 1, 0.5, 0]], "float32")
    teacher.layers[0].set_weights([kernel, np.zeros(4)])
    data = np.random.default_rng(0).uniform(0.1, 1, (16, 2)).astype("float32")
    assert kept(slim_student(teacher, 0.5), "hidden") == [0, 3]
    student = slim_student(teacher, 0.5, importance="activation", data=data)
    assert kept(student, "hidden") == [1, 2]


@pytest.mark.parametrize("name", ["residual", "shuffle", "lstm"])
def test_activation_runs_through_layers_and_operations(name):
    teacher = randomise(SMALL[name]())
    student = slim_student(teacher, 0.5, importance="activation", data=inputs_for(teacher))
    other = slim_student(teacher, 0.5)
    assert student.count_params() == other.count_params()
    assert channel_record_of(student).channels != channel_record_of(other).channels


def test_a_function_can_say_what_matters():
    teacher = dense_chain(8, 6, 2)

    def last_ones(layer):
        return np.arange(layer.units) if layer.name == "dense0" else None

    student = slim_student(teacher, 0.5, divisor=1, importance=last_ones)
    assert kept(student, "dense0") == [4, 5, 6, 7]
    norms = np.linalg.norm(values(teacher.layers[1].kernel), axis=0)
    assert kept(student, "dense1") == sorted(np.argsort(-norms)[:3].tolist())


def test_random_choices_and_random_weights_follow_the_seed():
    teacher = dense_chain(64, 2)

    def make(seed):
        student = slim_student(teacher, 0.25, initialize="random", importance="random", seed=seed)
        return kept(student, "dense0"), values(student.layers[0].kernel)

    (first, kernel), (again, same_kernel), (other, other_kernel) = make(1), make(1), make(2)
    assert first == again and first != other
    np.testing.assert_array_equal(kernel, same_kernel)
    assert not np.allclose(kernel, other_kernel)
    assert not np.isin(kernel, values(teacher.layers[0].kernel)).any()


# Weights


def test_attention_keeps_the_size_of_its_products():
    query = keras.Input((5, 16))
    attention = L.MultiHeadAttention(2, 16, name="attention")
    x = attention(L.Dense(16, name="in")(query), query)
    teacher = randomise(keras.Model(query, L.Dense(3, name="out")(x)))
    for projection in (attention.query_dense, attention.key_dense, attention.value_dense):
        kernel, bias = (np.array(values(v)) for v in projection.weights)
        kernel[:, :, 5:13] = 0.0
        bias[:, 5:13] = 0.0
        projection.set_weights([kernel, bias])
    inputs = inputs_for(teacher)
    student = slim_student(teacher, {"attention": 0.5})
    slim = student.get_layer("attention")
    assert slim.key_dim == 8 and slim.num_heads == 2
    # The output of the attention is as wide as its query, which stays.
    np.testing.assert_allclose(outputs_of(student, inputs), outputs_of(teacher, inputs), atol=1e-5)


def test_attention_of_grouped_queries_keeps_the_size_of_its_products():
    inputs = keras.Input((5, 16))
    attention = L.GroupQueryAttention(16, 4, 2, name="attention")
    teacher = randomise(keras.Model(inputs, L.Dense(3, name="out")(attention(inputs, inputs))))
    dead = {"query": slice(3, 11), "key": slice(3, 11), "value": slice(8, 16)}
    for variable in attention.weights:
        _, layer, name = variable.path.rsplit("/", 2)
        if layer in dead:
            array = np.array(values(variable))
            array[..., dead[layer]] = 0.0
            variable.assign(array)
    data = inputs_for(teacher)
    student = slim_student(teacher, 0.5)
    assert student.get_layer("attention").head_dim == 8
    np.testing.assert_allclose(outputs_of(student, data), outputs_of(teacher, data), atol=1e-5)


def test_dtypes_stay_and_everything_is_trainable():
    teacher = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            L.Conv2D(16, 1, dtype="mixed_bfloat16"),
            L.BatchNormalization(dtype="float32"),
            L.Flatten(),
            L.Dense(2),
        ]
    )
    teacher.trainable = False
    student = slim_student(teacher, 0.5)
    assert student.layers[0].dtype_policy.name == "mixed_bfloat16"
    assert student.layers[0].kernel.dtype == "float32"
    # Kernels and biases of two layers, gamma and beta.
    assert len(student.trainable_weights) == 6 and not teacher.trainable_weights


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *((name, 0.25) for name in EVERY_SMALL if name != "lstm"),
        pytest.param("lstm", 0.25, marks=pytest.mark.slow),
        *(pytest.param(name, 0.5, marks=pytest.mark.long) for name in EVERY_SMALL),
    ],
)
@pytest.mark.graph  # TensorFlow on a CPU has no eager gradient of grouped convolutions
def test_students_train_save_and_load(name, width, tmp_path):
    teacher = randomise(EVERY_SMALL[name]())
    student = slim_student(teacher, width)
    assert student.count_params() < 0.8 * teacher.count_params()
    inputs = inputs_for(teacher)
    before = [np.array(values(v)) for v in student.trainable_weights]
    eagerly = keras.backend.backend() == "tensorflow"  # no seconds for tracing one step
    student.compile(keras.optimizers.SGD(0.1), loss="mse", run_eagerly=eagerly)
    targets = keras.tree.map_structure(lambda o: np.ones(o.shape, "float32"), student(inputs))
    student.train_on_batch(inputs, targets)
    # Kernels and gammas; biases in front of a normalisation have no gradient.
    for variable, old in zip(student.trainable_weights, before, strict=True):
        if variable.path.endswith(("/kernel", "/embeddings", "/gamma")):
            assert not np.array_equal(values(variable), old), variable.path
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    assert channel_record_of(loaded) is None
    for one, other in zip(outputs_of(student, inputs), outputs_of(loaded, inputs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_macs_are_those_of_the_report():
    student = slim_student(residual_net(), 0.5, divisor=1)
    # Convolutions of the blocks at 16x16, squeeze-and-excite at 1x1, Dense on 4x4x16.
    block = 256 * (9 * 16 * 12 + 12 * 16) + 16 * 4 + 4 * 16
    expected = 256 * 9 * 3 * 16 + 2 * block + 16 * 16 * 20 + 20 * 5
    assert compression_report(student, student).student.macs == expected


# The record


def test_the_record_names_the_channels_of_every_tensor():
    inputs = keras.Input((2, 2, 3), name="image")
    a = L.Conv2D(4, 1, name="a")(inputs)
    b = L.Conv2D(2, 1, name="b")(inputs)
    x = L.Concatenate(name="joined")([a, b, inputs])
    x = ops.relu(x)
    x = L.Flatten(name="flat")(x)
    teacher = keras.Model(inputs, L.Dense(2, name="out")(x), name="teacher")

    def importance(layer):
        return {"a": [0, 5, 0, 6], "b": [1, 0]}.get(layer.name)

    student = slim_student(teacher, 0.5, importance=importance)
    record = channel_record_of(student)
    assert record.teacher_name == "teacher" and record.width == 0.5
    joined = [1, 3, 4, 6, 7, 8]
    relu = next(path for path in record.channels if path.startswith("relu"))
    assert record.channels == {
        "image": [0, 1, 2],
        "a": [1, 3],
        "b": [0],
        "joined": joined,
        relu: joined,
        "flat": [9 * position + channel for position in range(4) for channel in joined],
        "out": [0, 1],
    }
    config = json.loads(json.dumps(record.get_config()))
    assert ChannelRecord.from_config(config) == record


def test_a_model_of_the_users_class_around_the_same_layers_has_the_record():
    class OwnLoss(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.square(y - y_pred))

    def teacher(name):
        inputs = keras.Input((8, 8, 3))
        x = L.Conv2D(8, 3, name=f"{name}_conv")(inputs)
        x = L.Conv2D(6, 3, strides=2)(x)
        return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)), name=name)

    # The last four channels, which no importance of the package would choose.
    importance = {"teacher_conv": [0, 0, 0, 0, 1, 1, 1, 1]}
    first = teacher("teacher")
    network = slim_student(first, 0.5, importance=lambda layer: importance.get(layer.name))
    student = OwnLoss(network.input, network.output)
    assert channel_record_of(student) is channel_record_of(network)
    lines = []
    KTANDistiller(first, student).summary(print_fn=lambda line, **_: lines.append(line))
    assert any("teacher_conv" in line and "those that the student kept" in line for line in lines)
    # Of layers of two students nothing says whose channels count.
    other = slim_student(teacher("other"), 0.5)
    both = keras.Model([network.input, other.input], [network.output, other.output])
    assert channel_record_of(both) is None
    # An input is shared by models that have nothing else in common.
    stranger = keras.Model(network.input, L.Dense(2)(L.Flatten()(network.input)))
    assert channel_record_of(stranger) is None
    # A layer of another model beside it has kept nothing.
    mixed = keras.Model(network.input, L.Dense(2, name="own")(network.layers[-2].output))
    assert channel_record_of(mixed, "teacher_conv") is channel_record_of(network)
    assert channel_record_of(mixed, "own") is None


def test_the_record_reaches_into_nested_models_and_several_outputs():
    student = slim_student(SMALL["detector"](), 0.5)
    channels = channel_record_of(student).channels
    backbone = student.get_layer("backbone")
    assert channels["backbone:0"] == channels["backbone/c3_relu"]
    assert len(channels["backbone/c4_conv"]) == backbone.get_layer("c4_conv").filters == 32
    for path, layer in flat_layers(student).items():
        if path in channels and not isinstance(layer, keras.layers.InputLayer):
            assert len(channels[path]) == layer.output.shape[-1], path
