"""Average precision of a detector, as COCO counts it (pycocotools)."""

import contextlib
import io

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def average_precision(predictions, truth, class_names):
    """AP over overlaps of 0.50 to 0.95, at 0.50 and 0.75, and of each class.

    Args:
        predictions: Dict of arrays `"boxes"` `(count, boxes, 4)` as ymin, xmin, ymax, xmax,
            `"scores"` and `"classes"` `(count, boxes)`; padding has the score 0.
        truth: Dict of arrays `"boxes"` `(count, most_boxes, 4)` and `"labels"` `(count,
            most_boxes)`; padding has the label -1.
        class_names: List of names.

    Returns:
        Dict from `"AP"`, `"AP50"`, `"AP75"` and `"AP <class>"` to a number between 0 and 1;
        NaN for a class without a true box.
    """
    annotations = []
    for image, (boxes, labels) in enumerate(zip(truth["boxes"], truth["labels"], strict=True)):
        for box, label in zip(boxes[labels >= 0], labels[labels >= 0], strict=True):
            annotation = {"id": len(annotations) + 1, "image_id": image, "category_id": int(label)}
            side = _as_coco(box)
            annotations.append(
                {**annotation, "bbox": side, "area": side[2] * side[3], "iscrowd": 0}
            )
    detections = [
        {"image_id": image, "category_id": int(label), "bbox": _as_coco(box), "score": float(score)}
        for image, parts in enumerate(
            zip(predictions["boxes"], predictions["scores"], predictions["classes"], strict=True)
        )
        for box, score, label in zip(*parts, strict=True)
        if score > 0
    ]
    images = [{"id": image} for image in range(len(truth["labels"]))]
    categories = [{"id": index, "name": name} for index, name in enumerate(class_names)]
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of every step
        known = COCO()
        known.dataset = {"images": images, "categories": categories, "annotations": annotations}
        known.createIndex()
        found = COCO()
        found.dataset = {"images": images, "categories": categories}
        found.createIndex()
        if detections:
            found = known.loadRes(detections)
        evaluation = COCOeval(known, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # all areas, 100 boxes a picture

    def mean(values):
        values = values[values > -1]  # -1: no true box
        return float(values.mean()) if values.size else float("nan")

    return {
        "AP": mean(precision),
        "AP50": mean(precision[0]),
        "AP75": mean(precision[5]),
        **{f"AP {name}": mean(precision[:, :, i]) for i, name in enumerate(class_names)},
    }


def _as_coco(box):
    """x, y, width and height."""
    ymin, xmin, ymax, xmax = map(float, box)
    return [xmin, ymin, xmax - xmin, ymax - ymin]
