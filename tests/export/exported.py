"""Small students that the tests of exports share, and how to run a file without the package."""

import json
import subprocess
import sys

import keras
import numpy as np


def two_heads(seed=0):
    """Images and a vector in, logits and a box out; names that do not sort as they stand."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 3), name="photo")
    aside = keras.Input((4,), name="aside")
    hidden = keras.layers.Conv2D(8, 3, activation="relu")(image)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    hidden = keras.layers.Concatenate()([hidden, aside])
    logits = keras.layers.Dense(5, name="logits")(hidden)
    return keras.Model([image, aside], [logits, keras.layers.Dense(4, name="box")(hidden)])


def classifier(width=32, seed=0, **options):
    """Images in, logits of five classes out; big enough for 8 bits to pay."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 3), name="image")
    hidden = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(image)
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Conv2D(width, 3, strides=2)(keras.layers.ReLU()(hidden))
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(hidden))
    logits = keras.layers.Dense(5, name="logits", kernel_initializer="orthogonal", **options)
    return keras.Model(image, logits(hidden), name="student")


def photos(count=60, seed=0):
    """Images from 0 to 1, each mostly of one colour, so that answers are no close calls."""
    generator = np.random.default_rng(seed)
    colour = generator.uniform(0, 1, (count, 1, 1, 3))
    noise = generator.uniform(0, 1, (count, 8, 8, 3))
    return (0.8 * colour + 0.2 * noise).astype("float32")


_RUNNERS = {
    "saved_model": """
import tensorflow as tf
loaded = tf.saved_model.load(path)
serve = loaded.signatures["serving_default"]
takes = {name: list(spec.shape) for name, spec in serve.structured_input_signature[1].items()}
found = {name: value.numpy() for name, value in
         serve(**{name: tf.constant(value) for name, value in inputs.items()}).items()}
""",
    "litert": """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path=path)
serve = interpreter.get_signature_runner()
takes = {name: [int(size) if size >= 0 else None for size in details["shape_signature"]]
         for name, details in serve.get_input_details().items()}
found = serve(**inputs)
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(path)
takes = {tensor.name: [size if isinstance(size, int) else None for size in tensor.shape]
         for tensor in session.get_inputs()}
names = [tensor.name for tensor in session.get_outputs()]
found = dict(zip(names, session.run(names, inputs)))
""",
}


def run_where_keras_ktan_is_not(kind, path, inputs, folder):
    """Run a file in a process in which importing Keras or keras_ktan is an error.

    Args:
        kind: `"saved_model"`, `"litert"` or `"onnx"`.
        path: The file.
        inputs: Dict from input names to arrays.
        folder: Where to write what goes between the processes.

    Returns:
        The inputs' shapes by name, and the outputs by name.
    """
    np.savez(folder / "given.npz", **inputs)
    script = f"""
import json, sys
sys.modules["keras_ktan"] = sys.modules["keras"] = None
import numpy as np
path = {str(path)!r}
inputs = dict(np.load({str(folder / "given.npz")!r}))
{_RUNNERS[kind]}
np.savez({str(folder / "found.npz")!r}, **found)
print(json.dumps(takes))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=folder
    )
    with np.load(folder / "found.npz") as found:
        return json.loads(ended.stdout.splitlines()[-1]), dict(found)
