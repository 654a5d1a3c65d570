"""A script: converts a SavedModel to LiteRT, in a process of its own.

The converter is C++ that ends its process on some models (a recurrent loop in full int8), and with
it would go a student that nobody has saved.

Its argument is a JSON file with `saved_model`, `path`, `precision`, `input_dtype`, `output_dtype`,
`batch_size`, and, for full int8, `inputs` (an .npz file of numbered arrays) and their `names`.
"""

import json
import pathlib
import sys

import numpy as np


def batches_of(given):
    """A function that gives the calibration's batches, as the converter wants it."""
    with np.load(given["inputs"]) as arrays:
        examples = {name: arrays[f"arr_{index}"] for index, name in enumerate(given["names"])}
    size = given["batch_size"] or 1

    def batches():
        count = len(next(iter(examples.values())))
        for start in range(0, count - size + 1, size):
            yield {name: array[start : start + size] for name, array in examples.items()}

    return batches


def main(arguments):
    """Convert as the JSON file says."""
    # LiteRT's converter is a part of TensorFlow. No module of the package imports this script.
    import tensorflow as tf  # noqa: TID251

    given = json.loads(pathlib.Path(arguments).read_text(encoding="utf-8"))
    converter = tf.lite.TFLiteConverter.from_saved_model(
        given["saved_model"], signature_keys=["serving_default"]
    )
    precision = given["precision"]
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = batches_of(given)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.dtypes.as_dtype(given["input_dtype"] or "float32")
        converter.inference_output_type = tf.dtypes.as_dtype(given["output_dtype"] or "float32")
    content = converter.convert()
    pathlib.Path(given["path"]).write_bytes(content)


if __name__ == "__main__":
    main(sys.argv[1])
