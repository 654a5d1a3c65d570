"""Whether a data set has an end."""


def validate_ends(name, data):
    """Check that a data set does not say that it goes on for ever.

    Args:
        name: The argument's name.
        data: A `tf.data.Dataset`, a `keras.utils.PyDataset`, or data of another kind, which say
            nothing about their end.

    Raises:
        ValueError: If it does.
    """
    if hasattr(data, "num_batches"):  # a PyDataset
        is_endless = data.num_batches is None
    else:
        # What tf.data calls infinite.
        is_endless = hasattr(data, "cardinality") and int(data.cardinality()) == -1
    if is_endless:
        raise ValueError(
            f"Received {name} without an end. Expected a finite data set: one epoch. Leave "
            "`repeat()` out or cut it with `take(n)`; a PyDataset says its number of batches in "
            "`__len__`. `fit` repeats the data for every epoch by itself."
        )
