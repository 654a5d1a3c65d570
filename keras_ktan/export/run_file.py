"""A script: runs an exported file by its own runtime, where Keras and keras_ktan are not.

Its argument is a JSON file with `format`, `path`, `batch_size`, and the two .npz files `inputs`
and `outputs`. Names of tensors may hold a slash, which names in an .npz file should not: there
the arrays are numbered, and `names` and `output_names` (another JSON file) say which is which.
With `runs` it also times so many runs of the first example, under the name null. A file whose
batch axis is fixed gets batches of that size, the last one filled with copies of its last example.
With `any_name` a single input may have another name in the file.
"""

import json
import pathlib
import sys
import time

import numpy as np

_WARM_UP = 5


def saved_model(path):
    """A function of a dict of arrays that a SavedModel computes."""
    # This script is a process of its own; no module of the package imports it.
    import tensorflow as tf  # noqa: TID251

    loaded = tf.saved_model.load(path)
    serve = loaded.signatures["serving_default"]

    def run(batch):
        outputs = serve(**{name: tf.constant(array) for name, array in batch.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    run.keeps_alive = loaded
    specs = serve.structured_input_signature[1]
    run.inputs = list(specs)
    run.batch_size = next((spec.shape[0] for spec in specs.values()), None)
    return run


def litert(path):
    """The same by LiteRT's interpreter, floats quantised and outputs dequantised."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path)
    serve = interpreter.get_signature_runner("serving_default")
    takes, gives = serve.get_input_details(), serve.get_output_details()

    def run(batch):
        given = {name: quantise(batch[name], details) for name, details in takes.items()}
        return {name: dequantise(array, gives[name]) for name, array in serve(**given).items()}

    run.inputs = list(takes)
    sizes = [int(details["shape_signature"][0]) for details in takes.values()]
    run.batch_size = sizes[0] if sizes[0] > 0 else None
    return run


def onnx(path):
    """The same by ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(batch):
        return dict(zip(names, session.run(names, batch), strict=True))

    run.inputs = [taken.name for taken in session.get_inputs()]
    size = session.get_inputs()[0].shape[0]
    run.batch_size = size if isinstance(size, int) else None
    return run


def quantise(array, details):
    """Floats as the integers that an input takes; what is not quantised stays what it is."""
    scale, zero_point = details["quantization"]
    kind = np.dtype(details["dtype"])
    if not scale or kind.kind == "f":
        return array.astype(kind)
    limits = np.iinfo(kind)
    return np.clip(np.round(array / scale) + zero_point, limits.min, limits.max).astype(kind)


def dequantise(array, details):
    """The floats that an output's integers stand for; a copy of what the interpreter owns."""
    scale, zero_point = details["quantization"]
    if not scale or array.dtype.kind == "f":
        return np.array(array)
    return ((array.astype("float64") - zero_point) * scale).astype("float32")


def main(arguments):
    """Run the file batch by batch and write what it gives."""
    given = json.loads(pathlib.Path(arguments).read_text(encoding="utf-8"))
    runtimes = {"tf_saved_model": saved_model, "litert": litert, "onnx": onnx}
    run = runtimes[given["format"]](given["path"])
    with np.load(given["inputs"]) as arrays:
        inputs = {name: arrays[f"arr_{index}"] for index, name in enumerate(given["names"])}
    if given.get("any_name") and len(inputs) == len(run.inputs) == 1:
        inputs = dict(zip(run.inputs, inputs.values(), strict=True))
    found = computed(run, inputs, given["batch_size"])
    if given.get("runs"):
        found[None] = timed(run, inputs, given["runs"])
    names = list(found)
    np.savez(given["outputs"], *(found[name] for name in names))
    pathlib.Path(given["output_names"]).write_text(json.dumps(names), encoding="utf-8")


def computed(run, inputs, batch_size):
    """What the file gives for all examples."""
    size = run.batch_size or batch_size
    count = len(next(iter(inputs.values())))
    batches = []
    for start in range(0, count, size):
        batch = {name: array[start : start + size] for name, array in inputs.items()}
        batches.append(run(filled(batch, run.batch_size)))
    return {
        name: np.concatenate([batch[name] for batch in batches])[:count]
        for name in sorted(batches[0])
    }


def timed(run, inputs, runs):
    """Seconds of so many runs of the first example."""
    batch = filled({name: array[:1] for name, array in inputs.items()}, run.batch_size)
    seconds = []
    for turn in range(_WARM_UP + runs):
        started = time.perf_counter()
        run(batch)
        if turn >= _WARM_UP:
            seconds.append(time.perf_counter() - started)
    return np.array(seconds)


def filled(batch, size):
    """A batch of a fixed size, filled with copies of its last example."""
    if size is None:
        return batch
    missing = size - len(next(iter(batch.values())))
    return {
        name: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
        for name, array in batch.items()
    }


if __name__ == "__main__":
    # An import of either is an error from here on: the file must be enough.
    sys.modules["keras_ktan"] = sys.modules["keras"] = None
    main(sys.argv[1])
