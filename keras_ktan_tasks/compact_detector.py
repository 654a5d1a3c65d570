"""A compact one-stage detector of chosen width: FCOS, with few channels and two levels.

FCOS (Tian et al., 2019, arXiv 1904.01355) predicts at every position of a feature pyramid
(Lin et al., 2017, arXiv 1612.03144) the class scores, the distances to the four sides of the
box that the position lies in, and how good that box is. Here the last is its overlap with the
true box (Wu et al., 2020, arXiv 1912.05992) in place of FCOS's centre-ness, which is near 0 for
objects as small as a stride. Positions near a box's centre learn it (centre sampling).
"""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

STRIDES = {"P3": 8, "P4": 16}
# A box whose half side is longer than so many strides belongs to the next level.
LONGEST_HALF_SIDE = 3.0
CENTRE_RADIUS = 1.5  # strides; FCOS's own
QUALITY_WEIGHT = 0.5
PRIOR = 0.02  # first class score of every position (Lin et al., 2017, arXiv 1708.02002)


def positions(image_size):
    """Where the predictions are made.

    Args:
        image_size: Tuple `(height, width)`, multiples of the greatest stride.

    Returns:
        Two float32 arrays: centres `(positions, 2)` as y and x in pixels, and strides
        `(positions,)`; all of P3 row by row, then P4.
    """
    centres, strides = [], []
    for stride in STRIDES.values():
        rows, columns = (np.arange(size // stride) * stride + stride / 2 for size in image_size)
        grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        centres.append(grid)
        strides.append(np.full(len(grid), stride))
    return np.concatenate(centres).astype("float32"), np.concatenate(strides).astype("float32")


def intersection(first, second):
    """Area that boxes share, and the area of their union.

    Args:
        first: Tensor `(..., 4)` of boxes.
        second: Tensor of the same shape.

    Returns:
        Two tensors of shape `(...)`.
    """
    sides = ops.maximum(
        ops.minimum(first[..., 2:], second[..., 2:]) - ops.maximum(first[..., :2], second[..., :2]),
        0.0,
    )
    shared = ops.prod(sides, axis=-1)
    areas = [ops.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (first, second)]
    return shared, areas[0] + areas[1] - shared


def overlap(first, second):
    """Intersection over union of boxes (IoU), 0 to 1."""
    shared, union = intersection(first, second)
    return shared / ops.maximum(union, 1e-6)


def generalized_overlap(first, second):
    """GIoU, -1 to 1 (Rezatofighi et al., 2019, arXiv 1902.09630).

    Args:
        first: Tensor `(..., 4)` of boxes.
        second: Tensor of the same shape.

    Returns:
        Tensor of shape `(...)`.
    """
    shared, union = intersection(first, second)
    hull = ops.prod(
        ops.maximum(first[..., 2:], second[..., 2:]) - ops.minimum(first[..., :2], second[..., :2]),
        axis=-1,
    )
    hull = ops.maximum(hull, 1e-6)
    return shared / ops.maximum(union, 1e-6) - (hull - union) / hull


def assign(boxes, labels, image_size):
    """Which box each position learns.

    Args:
        boxes: Tensor `(batch, most_boxes, 4)` in pixels.
        labels: Tensor `(batch, most_boxes)`; below 0 where there is no box.
        image_size: Tuple `(height, width)`.

    Returns:
        Two tensors: the box of each position `(batch, positions, 4)` and its label
        `(batch, positions)`, -1 where a position learns that nothing is there. Of several boxes
        a position learns the smallest.
    """
    centres, strides = map(ops.convert_to_tensor, positions(image_size))
    boxes = ops.cast(boxes, "float32")[:, None]
    centre, stride = centres[None, :, None], strides[None, :, None]
    half_sides = (boxes[..., 2:] - boxes[..., :2]) / 2.0
    inside = ops.all((centre > boxes[..., :2]) & (centre < boxes[..., 2:]), axis=-1)
    offset = ops.max(ops.abs(centre - (boxes[..., :2] + half_sides)), axis=-1)
    longest = ops.max(half_sides, axis=-1)
    first, *_, last = STRIDES.values()
    fits = (longest <= LONGEST_HALF_SIDE * stride) | (stride == last)
    fits &= (longest > LONGEST_HALF_SIDE * stride / 2.0) | (stride == first)
    may = inside & (offset < CENTRE_RADIUS * stride) & fits & (labels >= 0)[:, None]
    area = ops.where(may, ops.prod(half_sides, axis=-1), float("inf"))
    chosen = ops.argmin(area, axis=-1)
    own_labels = ops.take_along_axis(labels, chosen, axis=1)
    own_boxes = ops.take_along_axis(boxes[:, 0], chosen[..., None], axis=1)
    return own_boxes, ops.where(ops.any(may, axis=-1), own_labels, -1)


@keras.saving.register_keras_serializable(package="compact_detector")
class ObjectWeights:
    """Where on a level of the pyramid the teacher sees an object, for `FeaturePair`.

    Called with a detector's outputs it returns a tensor `(batch, height, width)`: the best score
    of each position of the level, plus `least`.

    Args:
        image_size: Tuple `(height, width)`.
        level: `"P3"` or `"P4"`.
        least: What a position without any object counts.
    """

    def __init__(self, image_size, level, least=0.1):
        self.config = {"image_size": tuple(image_size), "level": level, "least": least}
        sizes = [tuple(length // stride for length in image_size) for stride in STRIDES.values()]
        place = list(STRIDES).index(level)
        self.size = sizes[place]
        self.first = sum(height * width for height, width in sizes[:place])

    def __call__(self, outputs):
        height, width = self.size
        logits = outputs["score_logits"][:, self.first : self.first + height * width]
        scores = ops.max(ops.sigmoid(logits), axis=-1)
        return self.config["least"] + ops.reshape(scores, (-1, height, width))

    def get_config(self):
        return self.config

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="compact_detector")
class BoxesFromDistances(keras.layers.Layer):
    """Boxes in pixels from distances in strides.

    Args:
        image_size: Tuple `(height, width)`.
        **kwargs: Passed on to `keras.layers.Layer`.
    """

    def __init__(self, image_size, **kwargs):
        super().__init__(**kwargs)
        self.image_size = tuple(image_size)

    def call(self, distances):
        centres, strides = map(ops.convert_to_tensor, positions(self.image_size))
        distances = distances * strides[None, :, None]
        return ops.concatenate(
            [centres[None] - distances[..., :2], centres[None] + distances[..., 2:]], axis=-1
        )

    def get_config(self):
        return {**super().get_config(), "image_size": self.image_size}


@keras.saving.register_keras_serializable(package="compact_detector")
class ScoreLogits(keras.layers.Layer):
    """The logits of class score times quality: what boxes are ranked by, in one number."""

    def call(self, class_logits, quality_logits):
        log_score = ops.log_sigmoid(class_logits) + ops.log_sigmoid(quality_logits)
        # logit(s) = log s - log(1 - s); a score of exactly 1 would have none.
        return log_score - ops.log(-ops.expm1(ops.minimum(log_score, -1e-6)))


class KeepBestBoxes(keras.layers.Layer):
    """Scores, non-maximum suppression class by class, and the best boxes that are left.

    Args:
        most_boxes: Number of boxes that are returned of a picture; padded with score 0.
        overlap_limit: Of two boxes of a class that overlap more the better one is kept.
        least_score: A box below it is dropped.
        **kwargs: Passed on to `keras.layers.Layer`.
    """

    def __init__(self, most_boxes=60, overlap_limit=0.55, least_score=0.02, **kwargs):
        super().__init__(**kwargs)
        self.most_boxes = most_boxes
        self.overlap_limit = overlap_limit
        self.least_score = least_score

    def call(self, outputs):
        # A mean of the two factors: a product of two is small.
        scores = ops.sqrt(ops.sigmoid(outputs["score_logits"]))
        boxes, scores, classes, _ = tf.image.combined_non_max_suppression(
            outputs["boxes"][:, :, None],
            scores,
            max_output_size_per_class=self.most_boxes,
            max_total_size=self.most_boxes,
            iou_threshold=self.overlap_limit,
            score_threshold=self.least_score,
            clip_boxes=False,
        )
        return {"boxes": boxes, "scores": scores, "classes": tf.cast(classes, tf.int32)}

    def get_config(self):
        return {
            **super().get_config(),
            "most_boxes": self.most_boxes,
            "overlap_limit": self.overlap_limit,
            "least_score": self.least_score,
        }


@keras.saving.register_keras_serializable(package="compact_detector")
class CompactDetector(keras.Model):
    """An FCOS detector; `predict` gives boxes, scores and classes.

    Called, it returns a dict with an entry for each of its positions: `"class_logits"` `(batch,
    positions, classes)`, `"quality_logits"` `(batch, positions, 1)`, `"score_logits"` `(batch,
    positions, classes)`, which hold both, and `"boxes"` `(batch, positions, 4)` in pixels. The
    pyramid's levels are the layers `"P3"` and `"P4"`, and what the heads make of a level before
    their last layer is `"class_head_P3"`, `"box_head_P3"` and so on. Labels are a dict of
    `"boxes"` `(batch, most_boxes, 4)` in pixels and `"labels"` `(batch, most_boxes)`, -1 where
    there is no box. Needs no `loss` in `compile`.

    Args:
        image_size: Tuple `(height, width)`, multiples of 16.
        classes: Number of classes.
        widths: Tuple of four: channels at strides 2, 4, 8 and 16.
        pyramid_width: Channels of the pyramid and of the heads.
        depth: Residual blocks at strides 8 and 16.
        head_depth: Convolutions in each head before its last one.
        box_weight: What the boxes' loss counts beside the classes'.
        network: Functional model of the same input and outputs to take in place of the one that the
            numbers of channels describe, such as a narrower copy of another detector. `widths`,
            `pyramid_width`, `depth` and `head_depth` say nothing then.
        name: The model's name.
    """

    def __init__(
        self,
        image_size,
        classes,
        widths,
        pyramid_width,
        depth=1,
        head_depth=1,
        box_weight=1.5,
        network=None,
        name=None,
    ):
        if len(widths) != 4 or any(size % 16 for size in image_size):
            raise ValueError(
                f"Received image_size={image_size} and widths={widths}. Expected a height and a "
                "width that are multiples of 16, and four widths. Change them."
            )
        self.settings = {
            "image_size": tuple(image_size),
            "classes": classes,
            "widths": tuple(widths),
            "pyramid_width": pyramid_width,
            "depth": depth,
            "head_depth": head_depth,
        }
        if network is None:
            inputs, outputs = _network(**self.settings)
        else:
            inputs, outputs = network.input, network.output
        super().__init__(inputs, outputs, name=name)
        self.has_own_network = network is not None
        self.settings["box_weight"] = box_weight
        self.focal = keras.losses.BinaryFocalCrossentropy(
            apply_class_balancing=True, from_logits=True, reduction=None
        )
        self.cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)
        self.keep_best = KeepBestBoxes()
        self.class_loss = keras.metrics.Mean("class_loss")
        self.box_loss = keras.metrics.Mean("box_loss")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        boxes, labels = assign(y["boxes"], y["labels"], self.settings["image_size"])
        found = ops.cast(labels >= 0, "float32")
        # The sums over positions are counted in positions that have a box, as in FCOS.
        count = ops.maximum(ops.sum(found), 1.0)
        weight = found if sample_weight is None else found * ops.reshape(sample_weight, (-1, 1))
        classes = y_pred["class_logits"].shape[-1]
        true_classes = ops.one_hot(labels, classes, dtype="float32")
        # Keras takes the mean over the classes.
        class_loss = self.focal(true_classes, y_pred["class_logits"]) * classes
        if sample_weight is not None:
            class_loss = class_loss * ops.reshape(sample_weight, (-1, 1))
        class_loss = ops.sum(class_loss) / count
        # Padding has no area; a box elsewhere takes its place so that no gradient is NaN.
        boxes = ops.where(found[..., None] > 0, boxes, ops.stop_gradient(y_pred["boxes"]))
        box_loss = ops.sum(weight * (1.0 - generalized_overlap(boxes, y_pred["boxes"]))) / count
        quality = ops.stop_gradient(overlap(boxes, y_pred["boxes"]))[..., None]
        quality_loss = self.cross_entropy(quality, y_pred["quality_logits"])
        quality_loss = ops.sum(weight * quality_loss) / count
        self.class_loss.update_state(class_loss)
        self.box_loss.update_state(box_loss)
        box_loss = self.settings["box_weight"] * box_loss
        total = class_loss + box_loss + QUALITY_WEIGHT * quality_loss
        for extra in self.losses:
            total = total + extra
        return total

    def predict_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.keep_best(self(x, training=False))

    def with_decoding(self):
        """The detector as it is shipped: a model from an image to boxes, scores and classes."""
        outputs = self.keep_best(self.output)
        return keras.Model(self.input, outputs, name=f"{self.name}_with_decoding")

    def get_config(self):
        config = {"name": self.name, **self.settings}
        if self.has_own_network:
            network = keras.Model(self.input, self.output, name=f"{self.name}_network")
            config["network"] = keras.saving.serialize_keras_object(network)
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        if "network" in config:
            network = keras.saving.deserialize_keras_object(
                config["network"], custom_objects=custom_objects
            )
            config = {**config, "network": network}
        return cls(**config)


def _network(image_size, classes, widths, pyramid_width, depth, head_depth):
    layers = keras.layers

    def convolve(hidden, channels, size=3, strides=1):
        hidden = layers.Conv2D(
            channels,
            size,
            strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
        )(hidden)
        return layers.BatchNormalization(momentum=0.97)(hidden)

    def residual_block(hidden, channels, strides=1):
        shortcut = hidden
        if strides > 1:
            shortcut = convolve(layers.AveragePooling2D(strides)(hidden), channels, 1)
        inner = layers.ReLU()(convolve(hidden, channels, 3, strides))
        return layers.ReLU()(layers.Add()([convolve(inner, channels), shortcut]))

    inputs = keras.Input((*image_size, 3), name="image")
    hidden = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    for channels in widths[:2]:
        hidden = layers.ReLU()(convolve(hidden, channels, 3, 2))
    bottom_up = []
    for channels in widths[2:]:
        for block in range(depth):
            hidden = residual_block(hidden, channels, 2 if block == 0 else 1)
        bottom_up.append(hidden)
    top_down, fine = layers.ReLU()(convolve(bottom_up[1], pyramid_width, 1)), bottom_up[0]
    fine = layers.Add()(
        [convolve(fine, pyramid_width, 1), layers.UpSampling2D(interpolation="bilinear")(top_down)]
    )
    levels = {
        "P3": layers.ReLU(name="P3")(convolve(layers.ReLU()(fine), pyramid_width)),
        "P4": layers.ReLU(name="P4")(convolve(top_down, pyramid_width)),
    }

    def head(outputs, name, bias):
        # The same weights at every level.
        chain = [
            layers.Conv2D(
                pyramid_width,
                3,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
                name=f"{name}_{index}",
            )
            for index in range(head_depth)
        ]
        last = layers.Conv2D(
            outputs,
            3,
            padding="same",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            bias_initializer=keras.initializers.Constant(bias),
            name=name,
        )

        def predict(hidden, level):
            for layer in chain:
                hidden = layer(hidden)
            # A name of its own for each level, which the shared layers do not have.
            hidden = last(layers.Identity(name=f"{name}_{level}")(hidden))
            return layers.Reshape((-1, outputs))(hidden)

        return predict

    predict_classes = head(classes, "class_head", float(np.log(PRIOR / (1 - PRIOR))))
    predict_boxes = head(5, "box_head", 1.0)
    class_logits = [predict_classes(hidden, level) for level, hidden in levels.items()]
    box_outputs = layers.Concatenate(axis=1)(
        [predict_boxes(hidden, level) for level, hidden in levels.items()]
    )
    distances = layers.Activation("softplus")(box_outputs[..., :4])
    class_logits = layers.Concatenate(axis=1, name="class_logits")(class_logits)
    quality_logits = layers.Identity(name="quality_logits")(box_outputs[..., 4:])
    return inputs, {
        "boxes": BoxesFromDistances(image_size, name="boxes")(distances),
        "class_logits": class_logits,
        "quality_logits": quality_logits,
        "score_logits": ScoreLogits(name="score_logits")(class_logits, quality_logits),
    }
