"""GTSRB, the German Traffic Sign Recognition Benchmark: loaded, and split by track."""

import pathlib

import numpy as np

CLASSES = 43


def load_gtsrb(split, data_dir=None):
    """A split of a prepared TFDS data set `gtsrb`.

    Args:
        split: `"train"` or `"test"`.
        data_dir: Folder of TFDS data sets, which holds `gtsrb/1.0.0`. `None`: this folder.

    Returns:
        A tuple `(images, labels, tracks)` of arrays; `tracks` numbers the tracks of each label.
    """
    # Imported here: `split_by_track` needs no TFDS.
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(pathlib.Path(data_dir or ".") / "gtsrb" / "1.0.0")
    data = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
    return data["image"], data["label"].astype("int32"), data["track"]


def split_by_track(images, labels, tracks, validation_share):
    """Cut validation images, whole tracks at a time.

    The frames of one track show one sign and are nearly the same picture, so images cut singly
    would be known from training.

    Args:
        images: Array.
        labels: Array of ints.
        tracks: Array of ints, the number of the track within its label.
        validation_share: Share of each label's tracks; at least one is cut, and one is kept.

    Returns:
        Two tuples `(images, labels)`: training and validation.

    Raises:
        ValueError: If a label has one track only.
    """
    generator = np.random.default_rng(0)
    is_validation = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = np.unique(tracks[labels == label])
        if len(own) < 2:
            raise ValueError(
                f"Received {len(own)} track of the label {label}. Expected 2 or more, so that "
                "training and validation both have one. Leave the label out."
            )
        count = min(max(1, round(validation_share * len(own))), len(own) - 1)
        chosen = generator.permutation(own)[:count]
        is_validation |= (labels == label) & np.isin(tracks, chosen)
    return (images[~is_validation], labels[~is_validation]), (
        images[is_validation],
        labels[is_validation],
    )
