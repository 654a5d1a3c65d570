"""Teachers for the tests of `slim_student`, and the tools to make channels dead."""

import keras
import numpy as np
from keras import layers as L
from keras import ops


def randomise(model, seed=0):
    """Give a model weights, statistics and scales that all differ, and return it."""
    numbers = np.random.default_rng(seed)
    for variable in model.weights:
        name, shape = variable.path.split("/")[-1], tuple(variable.shape)
        if "int" in variable.dtype:
            continue
        if name in ("gamma", "scale", "moving_variance", "variance", "alpha"):
            values = numbers.uniform(0.5, 1.5, shape)
        elif len(shape) < 2:
            values = numbers.normal(0.0, 0.2, shape)
        else:
            # A depthwise kernel, whose last axis is 1, reads one channel.
            fan_in = max(1, int(np.prod(shape[:-2] if shape[-1] == 1 else shape[:-1])))
            values = numbers.normal(0.0, 1.5 / np.sqrt(fan_in), shape)
        variable.assign(values.astype("float32"))
    for layer in flat_layers(model).values():
        if isinstance(layer, L.Normalization):
            layer.finalize_state()
    return model


def flat_layers(model, prefix=""):
    """Layers by path, those of nested models with the model's path before them."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found.update(flat_layers(layer, prefix + layer.name + "/"))
        else:
            found[prefix + layer.name] = layer
    return found


def _clear(variable, axis, dead):
    if variable is None:
        return
    values = np.array(ops.convert_to_numpy(variable))
    index = [slice(None)] * values.ndim
    index[axis] = dead
    values[tuple(index)] = 0.0
    variable.assign(values)


def _clear_recurrent(layer, dead):
    cell = layer.cell
    gates = cell.kernel.shape[1] // layer.units
    columns = np.concatenate([np.asarray(dead) + gate * layer.units for gate in range(gates)])
    for variable in (cell.kernel, cell.recurrent_kernel, cell.bias):
        _clear(variable, -1, columns.astype(int))


def kill_channels(model, channels):
    """Zero everything that makes the channels which are not listed.

    Args:
        model: The teacher; its weights are changed.
        channels: Dict from paths to the indices that live.

    Returns:
        How many channels died.
    """
    died = 0
    for path, layer in flat_layers(model).items():
        living = channels.get(path, channels.get(f"{path}:0"))
        if living is None or not layer.weights:
            continue
        output = keras.tree.flatten(layer.output)[0]
        last = keras.config.image_data_format() == "channels_last" or len(output.shape) < 4
        dead = np.setdiff1d(np.arange(output.shape[-1 if last else 1]), living)
        layer = layer.layer if isinstance(layer, L.TimeDistributed) else layer
        kind = type(layer).__name__
        died += len(dead)
        if kind == "Bidirectional":
            half = layer.forward_layer.units
            joined = layer.merge_mode == "concat"
            _clear_recurrent(layer.forward_layer, dead[dead < half])
            _clear_recurrent(layer.backward_layer, dead[dead >= half] - half if joined else dead)
        elif kind in ("LSTM", "GRU", "SimpleRNN"):
            _clear_recurrent(layer, dead)
        elif kind in ("BatchNormalization", "GroupNormalization"):
            _clear(layer.gamma, 0, dead)
            _clear(layer.beta, 0, dead)
            if layer.gamma is None:
                _clear(layer.moving_mean, 0, dead)
        elif kind == "Embedding":
            _clear(layer.embeddings, 1, dead)
        elif kind.startswith("Depthwise"):
            _clear(layer.bias, 0, dead)
        elif kind.endswith("Transpose"):
            _clear(layer.kernel, -2, dead)
            _clear(layer.bias, 0, dead)
        elif kind.startswith("Separable"):
            _clear(layer.pointwise_kernel, -1, dead)
            _clear(layer.bias, 0, dead)
        elif kind.startswith("Conv") or kind in ("Dense", "EinsumDense"):
            _clear(layer.kernel, -1, dead)
            _clear(layer.bias, 0, dead)
    return died


def _block(x, filters, name, strides=1, groups=1):
    x = L.Conv2D(
        filters, 3, strides, padding="same", use_bias=False, groups=groups, name=f"{name}_conv"
    )(x)
    x = L.BatchNormalization(name=f"{name}_bn")(x)
    return L.ReLU(name=f"{name}_relu")(x)


def residual_net():
    """Residual blocks added with layers and with `+`, squeeze-and-excite, a Dense head."""
    inputs = keras.Input((16, 16, 3), name="image")
    x = L.Rescaling(1 / 128, -1, name="rescale")(inputs)
    x = _block(x, 32, "stem")
    for number in range(2):
        y = _block(x, 24, f"b{number}a")
        y = L.Conv2D(32, 1, name=f"b{number}b")(y)
        s = L.GlobalAveragePooling2D(name=f"b{number}_pool")(y)
        s = L.Reshape((1, 1, 32), name=f"b{number}_reshape")(s)
        s = L.Conv2D(8, 1, activation="swish", name=f"b{number}_reduce")(s)
        s = L.Conv2D(32, 1, activation="sigmoid", name=f"b{number}_expand")(s)
        y = L.Multiply(name=f"b{number}_excite")([y, s])
        x = L.Add(name="b0_add")([x, y]) if number == 0 else ops.relu(x + y)
    x = L.MaxPooling2D(4, name="pool")(x)
    x = L.Flatten(name="flatten")(x)
    x = L.Dense(40, activation="relu", name="hidden")(x)
    return keras.Model(inputs, L.Dense(5, activation="softmax", name="probs")(x), name="residual")


def grouped_net():
    """A convolution of many groups, one of few, depthwise and separable ones, PReLU."""
    inputs = keras.Input((8, 8, 3))
    x = _block(inputs, 64, "stem")
    x = _block(x, 64, "many", groups=16)
    x = _block(x, 64, "few", groups=2)
    x = L.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = L.PReLU(shared_axes=[1, 2], name="prelu")(x)
    x = L.SeparableConv2D(32, 3, padding="same", depth_multiplier=2, name="separable")(x)
    x = L.PReLU(name="prelu_everywhere")(x)
    x = L.GlobalMaxPooling2D(name="pool")(x)
    return keras.Model(inputs, L.Dense(4, name="logits")(x), name="grouped")


def shuffle_net():
    """Channels shuffled between groups by reshape and transpose, split, scaled by constants."""
    inputs = keras.Input((8, 8, 3))
    x = _block(inputs, 64, "stem")
    x = ops.reshape(x, (-1, 8, 8, 4, 16))
    x = ops.transpose(x, (0, 1, 2, 4, 3))
    x = ops.reshape(x, (-1, 8, 8, 64))
    x = x * np.linspace(0.5, 2.0, 64, dtype="float32") + 0.0
    first, second = ops.split(x, 2, axis=-1)
    first = L.Conv2D(32, 3, padding="same", name="branch")(first)
    x = ops.concatenate([ops.relu(first), second], axis=-1)
    x = x[:, 1:, :, :]
    x = ops.mean(x, axis=(1, 2))
    x = ops.expand_dims(x, 1)
    x = L.Conv1D(32, 1, activation="relu", name="last")(x)
    return keras.Model(inputs, L.Dense(4, name="logits")(ops.squeeze(x, 1)), name="shuffle")


def unet():
    """An encoder and a decoder with concatenations, transposed convolutions and upsampling."""
    inputs = keras.Input((16, 16, 2))
    a = _block(inputs, 16, "a")
    b = _block(L.MaxPooling2D(name="down_a")(a), 32, "b")
    c = _block(L.AveragePooling2D(2, name="down_b")(b), 64, "c")
    x = L.Conv2DTranspose(32, 2, 2, activation="relu", name="up_b")(c)
    x = _block(L.Concatenate(name="skip_b")([x, b]), 32, "d")
    x = L.UpSampling2D(interpolation="bilinear", name="up_a")(x)
    x = _block(L.Concatenate(name="skip_a")([x, a, inputs]), 16, "e")
    return keras.Model(inputs, L.Conv2D(3, 1, name="classes")(x), name="unet")


def detector():
    """A nested backbone with several outputs, an FPN, heads shared by its levels."""
    image = keras.Input((32, 32, 3))
    c3 = _block(_block(image, 16, "c2", 2), 32, "c3", 2)
    c4 = _block(c3, 64, "c4", 2)
    backbone = keras.Model(image, {"P3": c3, "P4": c4}, name="backbone")

    inputs = keras.Input((32, 32, 3), name="image")
    maps = backbone(inputs)
    p4 = L.Conv2D(32, 1, name="lateral4")(maps["P4"])
    p3 = L.Add(name="merge3")(
        [L.Conv2D(32, 1, name="lateral3")(maps["P3"]), L.UpSampling2D(name="up")(p4)]
    )
    head = keras.Sequential(
        [
            keras.Input((None, None, 32)),
            L.Conv2D(32, 3, padding="same", activation="relu", name="h1"),
            L.Conv2D(2 * 4, 3, padding="same", name="h2"),
        ],
        name="box_head",
    )
    scores = L.Conv2D(2 * 3, 3, padding="same", name="class_head")
    boxes = [L.Reshape((-1, 4), name=f"boxes{i}")(head(p)) for i, p in enumerate((p3, p4))]
    classes = [L.Reshape((-1, 3), name=f"classes{i}")(scores(p)) for i, p in enumerate((p3, p4))]
    outputs = {
        "boxes": L.Concatenate(axis=1, name="boxes")(boxes),
        "classes": L.Concatenate(axis=1, name="classes")(classes),
    }
    return keras.Model(inputs, outputs, name="detector")


def lstm_classifier():
    """Embedding, Bidirectional LSTM, GRU and a vanilla RNN."""
    tokens = keras.Input((10,), dtype="int32")
    x = L.Embedding(30, 32, mask_zero=True, name="embedding")(tokens)
    x = L.Bidirectional(L.LSTM(16, return_sequences=True), name="both")(x)
    x = L.GRU(24, return_sequences=True, name="gru")(x)
    x = L.Bidirectional(L.SimpleRNN(16, return_sequences=True), merge_mode="sum", name="summed")(x)
    x = L.LSTM(32, name="lstm")(x)
    return keras.Model(tokens, L.Dense(3, name="logits")(x), name="lstm_classifier")


def _transformer_block(x, width, name, norm):
    y = norm(f"{name}_norm1")(x)
    y = L.MultiHeadAttention(4, width // 4, name=f"{name}_attention")(y, y)
    x = L.Add(name=f"{name}_add1")([x, y])
    y = norm(f"{name}_norm2")(x)
    y = L.Dense(2 * width, activation="gelu", name=f"{name}_up")(y)
    y = L.Dense(width, name=f"{name}_down")(y)
    return L.Add(name=f"{name}_add2")([x, y])


def layer_norm(name):
    return L.LayerNormalization(epsilon=1e-6, name=name)


def text_transformer(norm=layer_norm):
    """Token and position embeddings, two blocks, mean over positions."""
    tokens = keras.Input((12,), dtype="int32")
    x = L.Embedding(40, 64, name="tokens")(tokens)
    positions = L.Embedding(12, 64, name="positions")(ops.cumsum(ops.ones_like(tokens), axis=1) - 1)
    x = x + positions
    for number in range(2):
        x = _transformer_block(x, 64, f"block{number}", norm)
    x = L.GlobalAveragePooling1D(name="pool")(norm("norm")(x))
    return keras.Model(tokens, L.Dense(3, name="logits")(x), name="text_transformer")


def vision_transformer(norm=layer_norm):
    """Patches by a convolution, a constant position code, attention with EinsumDense."""
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(64, 4, 4, name="patches")(inputs)
    x = L.Reshape((16, 64), name="tokens")(x)
    x = x + np.random.default_rng(0).normal(0, 0.5, (1, 16, 64)).astype("float32")
    x = _transformer_block(x, 64, "block0", norm)
    y = norm("norm1")(x)
    q, k, v = (
        L.EinsumDense("abc,cde->abde", (None, 4, 16), bias_axes="de", name=name)(y)
        for name in ("query", "key", "value")
    )
    scores = ops.softmax(ops.einsum("aecd,abcd->acbe", k, q) * 0.25, axis=-1)
    y = ops.einsum("acbe,aecd->abcd", scores, v)
    y = L.EinsumDense("abde,dec->abc", (None, 64), bias_axes="c", name="project")(y)
    x = ops.add(x, y)
    x = ops.mean(norm("norm")(x), axis=1)
    return keras.Model(inputs, L.Dense(5, name="logits")(x), name="vision_transformer")


SMALL = {
    "residual": residual_net,
    "grouped": grouped_net,
    "shuffle": shuffle_net,
    "unet": unet,
    "detector": detector,
    "lstm": lstm_classifier,
}

APPLICATIONS = {
    "ResNet50": 64,
    "ResNet50V2": 64,
    "MobileNet": 64,
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 64,
    "DenseNet121": 64,
    "VGG16": 64,
    "InceptionV3": 96,
    "Xception": 96,
    "ConvNeXtTiny": 64,
}


def application(name):
    """A model of `keras.applications` for small images, with random weights."""
    size = APPLICATIONS[name]
    make = getattr(keras.applications, name)
    return make(weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None)


def inputs_for(model, seed=1, batch=3):
    """A batch of random inputs."""
    numbers = np.random.default_rng(seed)
    (tensor,) = model.inputs
    shape = (batch, *tensor.shape[1:])
    if "int" in tensor.dtype:
        # No zeros: they are padding for an Embedding with a mask.
        return numbers.integers(1, 12, shape).astype("int32")
    if any(type(layer).__name__ == "Rescaling" for layer in model.layers):
        return numbers.uniform(0.0, 255.0, shape).astype("float32")
    return numbers.normal(0.0, 1.0, shape).astype("float32")


def outputs_of(model, inputs):
    """The model's outputs as flat arrays."""
    return [ops.convert_to_numpy(o) for o in keras.tree.flatten(model(inputs, training=False))]
