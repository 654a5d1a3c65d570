"""What `compile` settles for the user."""

from keras_ktan.layers.running_variance import RunningVariance

_ADVERSARYS = {"adversarial_loss": "bce", "discriminator_optimizer": None}


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
    _validate_adversary(arguments)
    defaults = {
        "logits": 1.0,
        # Its values are small: a mean square of differences between maps of mean square 1.
        "feature": 3.0 if arguments["feature_loss"] == "normalized_mse" else 1.0,
        "adversarial": 0.0,
    }
    for term, default in defaults.items():
        if arguments[f"{term}_loss_weight"] is None:
            arguments[f"{term}_loss_weight"] = default if allowed[term] else 0.0


def _validate_adversary(arguments):
    """What belongs to the adversary alone is not taken without it."""
    if arguments["adversarial_loss_weight"] is not None:
        return
    given = [name for name, default in _ADVERSARYS.items() if arguments[name] != default]
    if given:
        raise ValueError(
            f"Received {', '.join(given)} without adversarial_loss_weight, which is 0 by default. "
            "Expected a weight beside it, or neither. Pass `adversarial_loss_weight=0.02`, for "
            f"example, or leave {' and '.join(given)} out."
        )


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
