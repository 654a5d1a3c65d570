"""Pictures with boxes: loaded, scaled, augmented, batched.

Boxes are `(ymin, xmin, ymax, xmax)` everywhere: as shares of the picture where it is kept, in
pixels of the network's input where it is trained on. A picture's boxes are padded to a fixed
number; a padded box has the label -1.
"""

import dataclasses
import pathlib

import keras
import numpy as np
import tensorflow as tf

PADDING_LABEL = -1
BORDER = 128.0  # grey, where a window reaches beyond the picture
LEAST_VISIBLE_SHARE = 0.4  # of a box's area; less of an object is no object any more


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures of one size with padded boxes.

    Args:
        images: Array `(count, height, width, 3)` of uint8.
        boxes: Array `(count, most_boxes, 4)` of float32, shares of height and width.
        labels: Array `(count, most_boxes)` of int32; -1 where there is no box.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.images)

    def part(self, indices):
        """Some of the pictures."""
        return Pictures(self.images[indices], self.boxes[indices], self.labels[indices])


def pad_boxes(boxes, labels, most_boxes=None):
    """Lists of unlike lengths as two arrays.

    Args:
        boxes: List of arrays `(boxes, 4)`, one a picture.
        labels: List of arrays `(boxes,)`.
        most_boxes: Int; `None`: as many as the fullest picture has, at least 1.

    Returns:
        Two arrays `(pictures, most_boxes, 4)` and `(pictures, most_boxes)`.
    """
    most_boxes = most_boxes or max([1, *map(len, labels)])
    padded_boxes = np.zeros((len(boxes), most_boxes, 4), "float32")
    padded_labels = np.full((len(boxes), most_boxes), PADDING_LABEL, "int32")
    for index, (own_boxes, own_labels) in enumerate(zip(boxes, labels, strict=True)):
        padded_boxes[index, : len(own_labels)] = np.reshape(own_boxes, (-1, 4))
        padded_labels[index, : len(own_labels)] = own_labels
    return padded_boxes, padded_labels


def load_pictures(dataset, split, size, data_dir=None):
    """A split of a TFDS data set with the features of `voc`.

    Args:
        dataset: Folder of a prepared data set (that of its `features.json`), or a TFDS name
            such as `"voc/2007"`, which is downloaded where it is missing.
        split: Name of the split.
        size: Tuple `(height, width)` that every picture is scaled to.
        data_dir: Folder of TFDS data sets for a name. `None`: TFDS's own.

    Returns:
        A tuple of `Pictures` and the list of class names.
    """
    # Imported here: drawn shapes need no TFDS.
    import tensorflow_datasets as tfds

    if (pathlib.Path(dataset) / "features.json").exists():
        builder = tfds.builder_from_directory(dataset)
    else:
        builder = tfds.builder(dataset, data_dir=data_dir)
        if not builder.is_prepared():
            print(f"{dataset} is not ready in {builder.data_dir}: TFDS downloads it ...")
            builder.download_and_prepare()
    names = builder.info.features["objects"].feature["label"].names
    images, boxes, labels = [], [], []
    for example in builder.as_dataset(split=split):
        image = tf.image.resize(example["image"], size, method="area")
        if image.shape[-1] == 1:
            image = tf.image.grayscale_to_rgb(image)
        images.append(tf.cast(tf.round(image), tf.uint8).numpy())
        boxes.append(example["objects"]["bbox"].numpy())
        labels.append(example["objects"]["label"].numpy())
    return Pictures(np.stack(images), *pad_boxes(boxes, labels)), list(names)


SHAPE_NAMES = ["disc", "square"]


def make_shapes(count, size, seed):
    """Discs and squares on a noisy ground; some lie upon others, some pictures are empty.

    Args:
        count: Number of pictures.
        size: Tuple `(height, width)`.
        seed: Int.

    Returns:
        `Pictures`; the classes are `SHAPE_NAMES`.
    """
    random = np.random.default_rng(seed)
    height, width = size
    rows, columns = np.mgrid[:height, :width] + 0.5
    images, all_boxes, all_labels = [], [], []
    for _ in range(count):
        image = random.normal(200, 10, (height, width, 3))
        boxes, labels = [], []
        for _ in range(random.integers(0, 6)):
            radius = random.uniform(0.08, 0.2) * height
            y = random.uniform(radius, height - radius)
            x = random.uniform(radius, width - radius)
            label = random.integers(len(SHAPE_NAMES))
            if label == 0:
                inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            else:
                inside = np.maximum(abs(rows - y), abs(columns - x)) < radius
            image[inside] = random.uniform(20, 150, 3) + random.normal(0, 10, (inside.sum(), 3))
            boxes.append([y - radius, x - radius, y + radius, x + radius])
            labels.append(label)
        images.append(np.clip(image, 0, 255).astype("uint8"))
        all_boxes.append(np.reshape(boxes, (-1, 4)) / [height, width, height, width])
        all_labels.append(labels)
    return Pictures(np.stack(images), *pad_boxes(all_boxes, all_labels))


def split_pictures(pictures, held_out):
    """Cut some pictures off, in an order that is fixed.

    Args:
        pictures: `Pictures`.
        held_out: Int, how many to cut off.

    Returns:
        Two `Pictures`: the rest and those cut off.

    Raises:
        ValueError: If nothing would be left on a side.
    """
    if not 0 < held_out < len(pictures):
        raise ValueError(
            f"Received {held_out} pictures to hold out of {len(pictures)}. Expected 1 to "
            f"{len(pictures) - 1}. Change the number."
        )
    order = np.random.default_rng(0).permutation(len(pictures))
    return pictures.part(order[held_out:]), pictures.part(order[:held_out])


def draw_windows(count, seed, zoom=(0.7, 1.25), stretch=1.1):
    """Windows into pictures: which part is looked at, and whether mirrored.

    Args:
        count: Number of windows.
        seed: Integer tensor of shape `(2,)`; the same seed gives the same windows.
        zoom: Least and greatest size of a window as a share of the picture; above 1 the window
            reaches beyond it.
        stretch: A window's height and width differ by this factor at most, each way.

    Returns:
        Tensor `(count, 4)`: y and x of the window's beginning, y and x of its end, as shares of
        the picture. Where the end comes before the beginning the picture is mirrored.
    """
    draws = tf.random.stateless_uniform((count, 6), seed)
    logs = tf.math.log(tf.constant(zoom, tf.float32))
    scale = tf.exp(logs[0] + draws[:, :1] * (logs[1] - logs[0]))
    ratio = tf.exp((draws[:, 1:2] - 0.5) * np.log(stretch))
    sizes = tf.concat([scale * ratio, scale / ratio], axis=1)
    starts = draws[:, 2:4] * (1.0 - sizes)
    ends = starts + sizes
    is_mirrored = draws[:, 4:6] < 0.5
    return tf.concat(
        [tf.where(is_mirrored, ends, starts), tf.where(is_mirrored, starts, ends)], axis=1
    )


def look_through(images, windows, size):
    """What is seen of pictures through windows.

    Args:
        images: Tensor `(batch, height, width, 3)`.
        windows: Tensor `(batch, 4)`; see `draw_windows`.
        size: Tuple `(height, width)` of the result.

    Returns:
        Float tensor `(batch, *size, 3)`.
    """
    # `crop_and_resize` counts from pixel centre to pixel centre, a window from edge to edge.
    source = tf.cast(tf.shape(images)[1:3], tf.float32)
    target = tf.constant(size, tf.float32)
    start, end = windows[:, :2], windows[:, 2:]
    step = (end - start) / target
    first, last = start + step / 2.0, end - step / 2.0
    corners = tf.concat([first * source - 0.5, last * source - 0.5], axis=1)
    corners /= tf.concat([source - 1.0, source - 1.0], axis=0)
    return tf.image.crop_and_resize(
        images, corners, tf.range(tf.shape(images)[0]), size, extrapolation_value=BORDER
    )


def move_boxes(boxes, labels, windows, size):
    """Where the boxes lie in what is seen through the windows.

    Args:
        boxes: Tensor `(batch, most_boxes, 4)`, shares of the picture.
        labels: Tensor `(batch, most_boxes)`.
        windows: Tensor `(batch, 4)`; see `draw_windows`.
        size: Tuple `(height, width)` of the result.

    Returns:
        Two tensors: boxes in pixels of the result, cut at its border, and labels. Of a box of
        which too little is seen nothing is left but padding.
    """
    start, extent = windows[:, None, :2], windows[:, None, 2:] - windows[:, None, :2]
    corners = tf.stack([(boxes[..., :2] - start) / extent, (boxes[..., 2:] - start) / extent])
    # A mirrored window swaps a box's beginning and its end.
    moved = tf.concat([tf.reduce_min(corners, axis=0), tf.reduce_max(corners, axis=0)], axis=-1)
    moved *= tf.constant([*size, *size], tf.float32)
    cut = tf.clip_by_value(moved, 0.0, tf.constant([*size, *size], tf.float32))

    def area(sides):
        return tf.reduce_prod(sides[..., 2:] - sides[..., :2], axis=-1)

    is_seen = area(cut) >= LEAST_VISIBLE_SHARE * area(moved)
    is_seen &= tf.reduce_min(cut[..., 2:] - cut[..., :2], axis=-1) >= 1.0
    is_kept = is_seen & (labels != PADDING_LABEL)
    return tf.where(is_kept[..., None], cut, 0.0), tf.where(is_kept, labels, PADDING_LABEL)


def change_colours(images, seed, strength=0.15):
    """Brightness, contrast and each colour's strength by up to a share of themselves.

    Args:
        images: Float tensor `(batch, height, width, 3)` from 0 to 255.
        seed: Integer tensor of shape `(2,)`.
        strength: Float.

    Returns:
        Tensor of the same shape, from 0 to 255.
    """
    draws = tf.random.stateless_uniform((tf.shape(images)[0], 5), seed, -strength, strength)
    contrast, brightness, colours = draws[:, :1], draws[:, 1:2], draws[:, 2:] / 2.0
    factors, shift = (1.0 + contrast) * (1.0 + colours), 127.5 * brightness - 127.5 * contrast
    changed = images * factors[:, None, None, :] + shift[:, None, None, :]
    return tf.clip_by_value(changed, 0.0, 255.0)


def make_training_data(pictures, size, batch_size, seed):
    """Shuffled, augmented batches, new in each epoch and the same for each seed.

    Args:
        pictures: `Pictures`.
        size: Tuple `(height, width)` of the network's input.
        batch_size: Int.
        seed: Int. It becomes Keras's and TensorFlow's global seed.

    Returns:
        A `tf.data.Dataset` of `(images, {"boxes", "labels"})`, boxes in pixels.
    """
    # tf.data mixes the global seed into an operation's own.
    keras.utils.set_random_seed(seed)
    with tf.device("CPU"):
        images, boxes, labels = map(tf.constant, (pictures.images, pictures.boxes, pictures.labels))

    def load(indices, window_seed, colour_seed):
        windows = draw_windows(tf.shape(indices)[0], window_seed)
        seen = look_through(tf.gather(images, indices), windows, size)
        moved, kept = move_boxes(
            tf.gather(boxes, indices), tf.gather(labels, indices), windows, size
        )
        return change_colours(seen, colour_seed), {"boxes": moved, "labels": kept}

    count = len(pictures)
    indices = tf.data.Dataset.range(count).shuffle(count, seed=seed).batch(batch_size)
    window_seeds, colour_seeds = (
        tf.data.Dataset.random(seed=seed + offset, rerandomize_each_iteration=True).batch(2)
        for offset in (0, 1_000_000)
    )
    return tf.data.Dataset.zip(indices, window_seeds, colour_seeds).map(load).prefetch(2)


def make_views(pictures, size, count, seed):
    """Augmented versions of every picture, made once, so that a teacher need look only once.

    Args:
        pictures: `Pictures`.
        size: Tuple `(height, width)` of the network's input.
        count: Int, versions of each picture.
        seed: Int.

    Returns:
        A tuple of images `(pictures · count, *size, 3)` of uint8 and a dict of arrays `"boxes"`,
        in pixels, and `"labels"`.
    """
    batches = make_training_data(pictures, size, 32, seed)
    images, boxes, labels = [], [], []
    for _ in range(count):  # each pass over the data set augments anew
        for seen, truth in batches:
            images.append(tf.cast(tf.round(seen), tf.uint8).numpy())
            boxes.append(truth["boxes"].numpy())
            labels.append(truth["labels"].numpy())
    return np.concatenate(images), {
        "boxes": np.concatenate(boxes),
        "labels": np.concatenate(labels),
    }


def as_network_input(pictures, size):
    """Whole pictures as the network sees them, with boxes in its pixels.

    Args:
        pictures: `Pictures`.
        size: Tuple `(height, width)`.

    Returns:
        A tuple of images `(count, *size, 3)` of float32 and a dict of arrays `"boxes"` and
        `"labels"`.
    """
    windows = tf.tile([[0.0, 0.0, 1.0, 1.0]], (len(pictures), 1))
    images = look_through(pictures.images, windows, size)
    return images.numpy(), {
        "boxes": pictures.boxes * np.array([*size, *size], "float32"),
        "labels": pictures.labels,
    }
