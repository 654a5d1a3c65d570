"""What the two models see in some images, as numbers and as a picture."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_ktan.introspection.feature_tap import FeatureTap
from keras_ktan.losses.feature import feature_loss
from keras_ktan.plots.figure import figure_class
from keras_ktan.training.padding import meeting_map

if TYPE_CHECKING:
    import matplotlib.figure

    from keras_ktan.distiller import KTANDistiller


def feature_map_panels(
    distiller: KTANDistiller,
    images: np.ndarray,
    student_without: keras.Model | None = None,
    pair: int = 0,
) -> dict[str, np.ndarray]:
    """The numbers behind the panels of `plot_feature_maps`.

    A map of many channels is shown as its energy: at each position the root mean square over
    the channels. It says where a model sees something and does not depend on which
    channel sees it, so that models with unlike channels can be compared. What the channels say
    is in `feature_map_agreement`.

    Args:
        distiller: A compiled and trained `KTANDistiller` whose maps are of rank 4.
        images: Array `(count, height, width, channels)`.
        student_without: Optional `keras.Model` with the distiller's student's layer names,
            trained without KTAN.
        pair: Int, which of the distiller's feature pairs.

    Returns:
        Dict from a panel's title to an array `(count, map_height, map_width)` of float32:
        energies of the teacher's map, as T2S projects it, and of the students' maps, and,
        where there is a discriminator, its logits of the map of the KTAN student, without
        noise, minus the boundary of the adversarial loss: above 0 it takes the map for real.

    Raises:
        ValueError: If the distiller compares no maps, or none of rank 4.
    """
    return {name: values for name, (values, _) in _panels(distiller, images, student_without, pair)}


def feature_map_agreement(
    distiller: KTANDistiller,
    images: np.ndarray,
    student_without: keras.Model | None = None,
    pair: int = 0,
) -> dict[str, np.ndarray]:
    """How far the students' channels point where those of T2S's map point.

    Args:
        distiller: See `feature_map_panels`.
        images: See `feature_map_panels`.
        student_without: See `feature_map_panels`.
        pair: See `feature_map_panels`.

    Returns:
        Dict from the title of a student's panel to an array `(count,)`: the mean over the
        positions of the cosine between the student's and T2S's channels, from -1 to 1. It is 1
        minus what the feature loss `"cosine"` measures. Nothing asks it of a student without
        KTAN; maps behind a ReLU are never below 0.

    Raises:
        ValueError: As `feature_map_panels`.
    """
    panels = _panels(distiller, images, student_without, pair)
    return {name: found for name, (_, found) in panels if found is not None}


def _panels(distiller, images, student_without, pair):
    """A list of titles with the numbers of a panel and, for a student, its agreement."""
    objectives = distiller.objectives
    if objectives is None or not objectives.pairs:
        raise ValueError(
            "Received a KTANDistiller that is not compiled, or with 0 for the weights of features "
            "and adversary. Expected one that uses maps. Compile it with a "
            "`feature_loss_weight` above 0."
        )
    if not 0 <= pair < len(objectives.pairs):
        raise ValueError(
            f"Received pair={pair}. Expected a number from 0 to {len(objectives.pairs) - 1}, one "
            "of the distiller's feature pairs. Leave it out for the first."
        )
    chosen = objectives.pairs[pair]
    if len(chosen.student_shape) != 4:
        raise ValueError(
            f"Received a pair whose student's map has the shape {chosen.student_shape}. Expected "
            "rank 4, `(batch, height, width, channels)`. Name another pair."
        )
    images = np.asarray(images)
    teacher = objectives.teacher_forward(images)
    student = objectives.student_forward(images, training=False)
    student_maps = student.maps
    targets = objectives.targets(teacher, student)
    target = targets[pair].map
    panels = [
        ("teacher", (_energy(targets[pair].teacher_map), None)),
        ("teacher, projected by T2S", (_energy(target), None)),
    ]
    students = {"student with KTAN": student_maps[pair]}
    if student_without is not None:
        path = chosen.pair.student_layer_name
        _, (without,) = FeatureTap(student_without, [path], "student")(images)
        without, _ = meeting_map(chosen, "student", without, None)
        students = {"student without KTAN": without, **students}
    for name, features in students.items():
        agreement = 1.0 - _numpy(feature_loss("cosine", target, features))
        panels.append((name, (_energy(features), agreement)))
    if objectives.uses_discriminator:
        logits = objectives.discriminator_forward(
            teacher.outputs, targets, student_maps, step=None
        )[pair][1]
        boundary = objectives.adversarial_loss.boundary
        panels.append(("discriminator", (_numpy(logits) - boundary, None)))
    return panels


def plot_feature_maps(
    distiller: KTANDistiller,
    images: np.ndarray,
    filepath: str | os.PathLike,
    student_without: keras.Model | None = None,
    pair: int = 0,
    title: str | None = None,
) -> matplotlib.figure.Figure:
    """Draw what the teacher sees in some images, and what the students see.

    One row an image: the image; the energy (root mean square over the channels) of the
    teacher's map, as T2S projects it, and of the student's map without and with KTAN, each
    from black (0) to bright (the largest in its map); and the discriminator's
    logits of the KTAN student's map, over the image: green where they are above 0, purple where
    not. Under a student's map stands its `feature_map_agreement` for the image.

    Args:
        distiller: See `feature_map_panels`.
        images: See `feature_map_panels`; shown from their lowest to their highest value.
        filepath: Where to write the picture; the ending says the format.
        student_without: See `feature_map_panels`; `None` leaves its column out.
        pair: See `feature_map_panels`.
        title: Optional title.

    Returns:
        The `matplotlib.figure.Figure`.

    Raises:
        ValueError: As `feature_map_panels`.
        ImportError: If the matplotlib package is missing.

    Example:

    ```python
    import keras
    import numpy as np
    from keras_ktan import KTANDistiller
    from keras_ktan.plots import plot_feature_maps

    def classifier(filters, name):
        return keras.Sequential(
            [
                keras.Input((8, 8, 1), name="image"),
                keras.layers.Conv2D(filters, 3, activation="relu"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(10, name="logits"),
            ],
            name=name,
        )

    images, labels = np.random.rand(64, 8, 8, 1), np.random.randint(0, 10, 64)
    distiller = KTANDistiller(classifier(32, "teacher"), classifier(4, "student"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss=loss)
    distiller.fit(images, labels, verbose=0)
    plot_feature_maps(distiller, images[:3], "/tmp/maps.png")
    ```
    """
    found = dict(_panels(distiller, images, student_without, pair))
    panels = {name: values for name, (values, _) in found.items()}
    images = np.asarray(images, "float32")
    rows, columns = len(images), 1 + len(panels)
    figure = figure_class()(figsize=(1.7 * columns, 1.75 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    # One scale for all logits, the same to both sides of 0.
    largest = np.max(np.abs(panels.get("discriminator", 1.0)))
    for row, image in enumerate(images):
        shown = (image - image.min()) / max(float(np.ptp(image)), 1e-6)
        edges = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
        grid[row, 0].imshow(shown, cmap="gray")
        for axes, (name, values) in zip(grid[row, 1:], panels.items(), strict=True):
            if name == "discriminator":
                axes.imshow(np.mean(shown, axis=-1), cmap="gray", vmin=0, vmax=1)
                logits = axes.imshow(
                    values[row], cmap="PRGn", vmin=-largest, vmax=largest, alpha=0.6, extent=edges
                )
            else:
                axes.imshow(values[row], cmap="magma", vmin=0, vmax=values[row].max())
            agreement = found[name][1]
            if agreement is not None:
                axes.set_xlabel(f"cosine with T2S: {agreement[row]:.2f}", fontsize=9)
    for axes, name in zip(grid[0], ["image", *panels], strict=True):
        axes.set_title(name.replace(", ", ",\n").replace(" with", "\nwith"), fontsize=10)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    if "discriminator" in panels:
        bar = figure.colorbar(logits, ax=grid[:, -1], shrink=0.8, ticks=[-largest, 0, largest])
        bar.ax.set_yticklabels(["fake", "undecided", "real"])
    figure.suptitle(title)
    figure.savefig(filepath, dpi=150)
    return figure


def _energy(features):
    return np.sqrt(np.mean(np.square(_numpy(features)), axis=-1))


def _numpy(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))
