"""One batch for two models of which one takes an input more."""

import keras


def input_names(model):
    """Names of what a model takes, in the order of its flattened inputs.

    Args:
        model: A built `keras.Model`.

    Returns:
        A list of strings; `None` for a model whose inputs have no names.
    """
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    structure = None if isinstance(model, keras.Sequential) else model.input
    if isinstance(structure, dict):
        flat = all(not keras.tree.is_nested(tensor) for tensor in structure.values())
        return sorted(structure) if flat else None
    return [tensor.name for tensor in inputs]


def validate_order(x, teacher, student):
    """A batch without names, for two models that take inputs of the same names.

    Args:
        x: The inputs of a batch.
        teacher: A built `keras.Model`.
        student: A built `keras.Model`.

    Raises:
        ValueError: If the models would take one tensor for different inputs.
    """
    names = [input_names(model) for model in (teacher, student)]
    if isinstance(x, dict) or None in names or names[0] == names[1]:
        return
    made_up = any(name.startswith(("keras_tensor", "input_layer")) for name in names[0])
    if not made_up and sorted(names[0]) == sorted(names[1]):
        raise ValueError(
            f"Received a batch of inputs without names, but the teacher takes {names[0]} and the "
            f"student {names[1]}: another order. Expected names, because one batch goes into both. "
            "Pass a dict from names to inputs, or build both models with the same order."
        )


def select_inputs(model, x):
    """What a model takes of a batch whose inputs have names.

    Args:
        model: A built `keras.Model`.
        x: The inputs of a batch.

    Returns:
        The model's own inputs, in its structure, where `x` is a dict that holds them and others;
        else `x` as it is.
    """
    names = input_names(model) if isinstance(x, dict) else None
    if not names or set(x) <= set(names) or not set(x) >= set(names):
        return x
    structure = None if isinstance(model, keras.Sequential) else model.input
    if isinstance(structure, dict):
        return {name: x[name] for name in names}
    chosen = [x[name] for name in names]
    return chosen if isinstance(structure, (list, tuple)) else chosen[0]
