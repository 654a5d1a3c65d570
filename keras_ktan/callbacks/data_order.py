"""Whether a training's batches follow from the number of the epoch."""

import keras


def begins_epochs(x):
    """Whether the data want to know which epoch comes, by a method `begin_epoch(epoch)`."""
    return callable(getattr(x, "begin_epoch", None))


def why_order_is_lost(x, shuffle, steps_per_epoch, ordered):
    """Why a process that starts in an epoch cannot draw this epoch's batches again.

    Args:
        x: As `fit` takes it.
        shuffle: Likewise.
        steps_per_epoch: Likewise.
        ordered: What the user says: `True`, or `None` to find out.

    Returns:
        A clause, or `None` where it can.

    Raises:
        ValueError: If the user says that it can, and it cannot.
    """
    sure = _known_reason(x, shuffle, steps_per_epoch)
    if ordered is None:
        return sure or _unknown_reason(x)
    if sure:
        raise ValueError(
            f"Received ordered=True for a ResumableBackup, but {sure}. Expected data whose batches "
            "follow from the number of the epoch. Pass `shuffle=False` and no `steps_per_epoch`, "
            "with arrays, a `TeacherCache`'s data set or a `keras.utils.PyDataset`, or leave "
            "`ordered` out."
        )
    return None


def _known_reason(x, shuffle, steps_per_epoch):
    if steps_per_epoch is not None:
        return "with `steps_per_epoch` an epoch begins where the one before it ended"
    if hasattr(x, "__next__"):
        return "a generator cannot begin anew"
    if shuffle and (_are_arrays(x) or isinstance(x, keras.utils.PyDataset)):
        return "`shuffle=True` draws the order from the state of the process"
    return None


def _unknown_reason(x):
    if isinstance(x, keras.utils.PyDataset):
        if begins_epochs(x) or type(x).on_epoch_end is keras.utils.PyDataset.on_epoch_end:
            return None
        return "the data set's `on_epoch_end` may change it, and it has no `begin_epoch(epoch)`"
    if _are_arrays(x):
        return None
    return f"nothing says whether a {type(x).__name__} gives the same batches again"


def _are_arrays(x):
    leaves = keras.tree.flatten(x)
    return bool(leaves) and all(hasattr(leaf, "shape") for leaf in leaves)
