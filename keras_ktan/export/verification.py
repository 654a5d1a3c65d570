"""Compares what a file computes with what the student computes."""

import keras
import numpy as np

# What an answer of a single value may differ by, as a share of the output's size (our choice:
# int8 has 256 steps, so that rounding alone stays well below).
SINGLE_VALUE_TOLERANCE = 0.05


def student_outputs(model, examples, batch_size=32):
    """What the student computes, by the outputs' names, softmax included where asked for.

    That is `student.predict`. Where a student has a `predict_step` of its own or another structure
    (a detector's decoded boxes), it is the student's call, which is what files hold.

    Args:
        model: A `ServingModel`.
        examples: Dict from input names to NumPy arrays, as the file takes them.
        batch_size: How many examples to run at once.

    Returns:
        A dict from output names to NumPy arrays.

    Raises:
        ValueError: If an output holds a NaN, or if a softmax is asked for where the student ends
            in one.
    """
    inputs = model.inputs_of_student(examples)
    student = model.student
    # A step of its own may want more than the call does, such as a known size of the batch.
    found = None
    if type(student).predict_step is keras.Model.predict_step:
        found = student.predict(inputs, batch_size=batch_size, verbose=0)
    if found is None or not _same_structure(found, model.output_structure()):
        found = _called(student, inputs, batch_size)
    outputs = dict(zip(model.output_names, map(np.asarray, keras.tree.flatten(found)), strict=True))
    for name, array in outputs.items():
        if not np.all(np.isfinite(array)):
            raise ValueError(
                f"The student '{student.name}' computes a NaN or an infinite value in its output "
                f"'{name}' on these examples. Expected finite numbers. Train it anew, or load its "
                "last good weights."
            )
    for name in model.softmax_names:
        outputs[name] = _softmax(outputs[name], name)
    return outputs


def differences(expected, found):
    """How far two sets of outputs are apart.

    Args:
        expected: Dict from output names to the student's arrays.
        found: Dict from output names to the file's arrays.

    Returns:
        A dict from output names to `(largest difference, share of equal answers)`, the first
        divided by the largest absolute value expected.

    Raises:
        RuntimeError: If names or shapes differ.
    """
    if set(expected) != set(found):
        raise RuntimeError(
            f"The file has the outputs {sorted(found)}, the student {sorted(expected)}."
        )
    for name, array in expected.items():
        if array.shape != found[name].shape:
            raise RuntimeError(
                f"The file's output '{name}' has the shape {found[name].shape}, the student's "
                f"{array.shape}."
            )
    return {name: _difference(array, found[name]) for name, array in expected.items()}


def _difference(expected, found):
    expected, found = expected.astype("float64"), found.astype("float64")
    size = max(float(np.max(np.abs(expected), initial=0.0)), np.finfo("float32").tiny)
    gaps = np.abs(found - expected) / size
    gaps = np.where(np.isfinite(gaps), gaps, np.inf)
    if expected.ndim > 1 and expected.shape[-1] > 1:
        same = np.argmax(expected, axis=-1) == np.argmax(found, axis=-1)
        # NumPy's argmax takes a NaN for the largest.
        same &= np.all(np.isfinite(found), axis=-1)
    else:
        same = gaps <= SINGLE_VALUE_TOLERANCE
    return float(np.max(gaps, initial=0.0)), float(np.mean(same)) if same.size else 1.0


def _same_structure(found, expected):
    try:
        keras.tree.assert_same_structure(found, expected)
    except (ValueError, TypeError):
        return False
    return all(
        len(array.shape) == len(spec.shape)
        for array, spec in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True)
    )


def _called(student, inputs, batch_size):
    count = len(keras.tree.flatten(inputs)[0])
    batches = []
    for start in range(0, count, batch_size):
        batch = keras.tree.map_structure(
            lambda array, start=start: keras.ops.convert_to_tensor(
                array[start : start + batch_size]
            ),
            inputs,
        )
        outputs = student(batch, training=False)
        batches.append(keras.tree.map_structure(keras.ops.convert_to_numpy, outputs))
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *batches)


def _softmax(logits, name):
    sums_to_one = np.allclose(logits.sum(axis=-1), 1.0, atol=1e-3)
    if sums_to_one and np.all(logits >= 0):
        raise ValueError(
            f"Received a softmax for the output '{name}', whose values are probabilities already: "
            "they are not negative and sum to 1. Expected logits. Leave `softmax` out."
        )
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
