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
