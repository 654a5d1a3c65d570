"""What `compile` settles for the user."""

from keras_ktan.layers.running_variance import RunningVariance

_WEIGHTS = {"logits": 1.0, "feature": 1.0, "adversarial": 0.02}


def settle_weights(arguments, pairing):
    """A weight of `None` is the default where the models allow the term, else 0.

    Args:
        arguments: Dict of `compile`'s arguments; the weights in it are replaced.
        pairing: The `Pairing` of both models.
    """
    allowed = {
        "logits": pairing.outputs.may_pair(arguments["loss"]),
        "feature": bool(pairing.pairs),
        "adversarial": bool(pairing.pairs),
    }
    for term, default in _WEIGHTS.items():
        if arguments[f"{term}_loss_weight"] is None:
            arguments[f"{term}_loss_weight"] = default if allowed[term] else 0.0


def connect_variances(outputs, known):
    """Give each regression output the running variance of the teacher's values.

    Args:
        outputs: The settled output pairs.
        known: The `RunningVariance` layers of an earlier call, which are kept where they fit.

    Returns:
        The list of the layers that are used now.
    """
    known = {layer.name: layer for layer in known}
    used = []
    for place, output in enumerate(outputs):
        if output.kind == "regression":
            name = f"variance_{place}"
            layer = known.get(name)
            if layer is None or layer.dimensions != output.size:
                layer = RunningVariance(output.size, name=name)
            output.variance = layer
            used.append(layer)
    return used
