"""The detectors of the examples and benchmarks: boxes that move with pixels, loss, AP."""

import types

import numpy as np
import pytest
import tensorflow as tf
from helpers import as_tensor, gradients, to_numpy

pytestmark = pytest.mark.graph

LN2 = np.log(2.0)
# A pixel is red if its centre lies in the box: half a pixel each way. Where colours have changed,
# the limit is no longer half of red: 0.2 of a source pixel more, seen at up to 1.5 times its size.
AFTER_COLOURS = 0.8


@pytest.fixture
def data():
    from keras_ktan_tasks import detection_data

    return detection_data


@pytest.fixture
def detector():
    from keras_ktan_tasks import compact_detector

    return compact_detector


@pytest.fixture
def average_precision():
    pytest.importorskip("pycocotools", reason="AP is pycocotools' (extra: detection, or dev)")
    from keras_ktan_tasks import detection_metrics

    return detection_metrics.average_precision


def red_rectangles(data, count=64, size=(48, 64), seed=0):
    """A red rectangle on black in each picture, off its edge, with its box."""
    random = np.random.default_rng(seed)
    images = np.zeros((count, *size, 3), "uint8")
    boxes = np.zeros((count, 1, 4), "float32")
    for index in range(count):
        sides = random.integers(8, 20, 2)
        start = random.integers(1, np.array(size) - sides)
        end = start + sides
        images[index, start[0] : end[0], start[1] : end[1], 0] = 255
        boxes[index, 0] = [*(start / size), *(end / size)]
    return data.Pictures(images, boxes, np.zeros((count, 1), "int32"))


def extent_of_red(image):
    """ymin, xmin, ymax, xmax of what is redder than half, in pixels; `None`: nothing is.

    A border's grey is not red, whatever brightness and contrast make of it.
    """
    is_red = image[..., 0] - image[..., 1:].max(axis=-1) > 100
    if not is_red.any():
        return None
    rows, columns = np.flatnonzero(is_red.any(axis=1)), np.flatnonzero(is_red.any(axis=0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])


def test_a_box_stays_on_its_object_in_every_window(data):
    pictures, size = red_rectangles(data), (32, 48)
    windows = data.draw_windows(len(pictures), (1, 2))
    seen = data.look_through(pictures.images, windows, size).numpy()
    boxes, labels = data.move_boxes(pictures.boxes, pictures.labels, windows, size)
    windows = windows.numpy()
    mirrored = windows[:, :2] > windows[:, 2:]
    sizes = abs(windows[:, 2:] - windows[:, :2])
    # All kinds of windows are among them: four ways to mirror, closer and farther, off the edge.
    assert {tuple(kind) for kind in mirrored} == {(a, b) for a in (0, 1) for b in (0, 1)}
    assert sizes.min() < 0.8 and sizes.max() > 1.1 and windows.min() < -0.05
    kept = 0
    for image, box, label in zip(seen, boxes.numpy()[:, 0], labels.numpy()[:, 0], strict=True):
        if label == 0:
            kept += 1
            # A pixel is red if its centre lies in the box: half a pixel each way, and a
            # little for sides of which interpolation between four pixels rounds the corners.
            np.testing.assert_allclose(extent_of_red(image), box, atol=0.6)
    assert kept > 40


def test_what_is_hardly_seen_is_no_object(data):
    boxes = np.array([[[0.0, 0.0, 0.5, 0.5], [0.4, 0.4, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]])
    labels = np.array([[2, 1, -1]])
    # The window's lower right part: of the first box 0.2² of 0.5² is in it, the second whole.
    windows = np.array([[0.3, 0.3, 1.0, 1.0]], "float32")
    boxes, labels = boxes.astype("float32"), labels.astype("int32")
    moved, kept = data.move_boxes(boxes, labels, windows, (70, 140))
    assert kept.numpy().tolist() == [[-1, 1, -1]]
    np.testing.assert_allclose(moved[0], [[0] * 4, [10, 20, 70, 140], [0] * 4], atol=1e-4)
    # Mirrored both methods, it lies at the beginning.
    moved, _ = data.move_boxes(boxes, labels, windows[:, [2, 3, 0, 1]], (70, 140))
    np.testing.assert_allclose(moved[0, 1], [0, 0, 60, 120], atol=1e-4)


def test_a_box_is_cut_at_the_border(data):
    windows = np.array([[0.25, 0.0, 1.0, 1.0]], "float32")
    boxes, labels = np.array([[[0.0, 0.0, 0.75, 0.5]]], "float32"), np.array([[1]], "int32")
    moved, kept = data.move_boxes(boxes, labels, windows, (30, 40))
    assert kept.numpy().tolist() == [[1]]  # two thirds of it are seen
    np.testing.assert_allclose(moved[0, 0], [0, 0, 20, 20], atol=1e-4)


def test_training_batches_hold_the_boxes_of_their_own_pictures(data):
    pictures, size = red_rectangles(data, count=12), (48, 64)

    def batches(seed):
        made = data.make_training_data(pictures, size, batch_size=5, seed=seed)
        return [
            (x.numpy(), {k: v.numpy() for k, v in y.items()}) for _ in range(2) for x, y in made
        ]

    first, again, other = batches(3), batches(3), batches(4)
    assert [len(x) for x, _ in first] == [5, 5, 2] * 2
    on_object = 0
    for images, y in first:
        for image, box, label in zip(images, y["boxes"][:, 0], y["labels"][:, 0], strict=True):
            if label == 0:
                np.testing.assert_allclose(extent_of_red(image), box, atol=AFTER_COLOURS)
                on_object += 1
    assert on_object > 12
    for (images, y), (same, same_y) in zip(first, again, strict=False):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(y["boxes"], same_y["boxes"])
    assert not np.array_equal(first[0][0], other[0][0])
    assert not np.array_equal(first[0][0], first[3][0])  # the second epoch is another


def test_views_are_many_versions_of_each_picture(data):
    pictures, size = red_rectangles(data, count=5), (48, 64)
    images, truth = data.make_views(pictures, size, count=4, seed=1)
    assert images.shape == (20, *size, 3) and images.dtype == "uint8"
    assert truth["boxes"].shape == (20, 1, 4) and truth["labels"].shape == (20, 1)
    assert len(np.unique(images.reshape(20, -1), axis=0)) == 20
    on_object = truth["labels"][:, 0] == 0
    assert on_object.sum() > 10
    for index in np.flatnonzero(on_object):
        extent = extent_of_red(images[index].astype("float32"))
        np.testing.assert_allclose(extent, truth["boxes"][index, 0], atol=AFTER_COLOURS)


def test_colours_change_and_nothing_moves(data):
    images = np.full((40, 2, 2, 3), 100.0, "float32")
    changed = data.change_colours(images, (5, 6), strength=0.2).numpy()
    # Equal pixels stay equal within a picture; pictures differ by up to contrast, brightness
    # and colour: (100 - 127.5) · ±0.2 + 127.5 · ±0.2 + 100 · ±0.1 · 1.2, together.
    assert np.ptp(changed, axis=(1, 2)).max() == 0
    assert np.ptp(changed[:, 0, 0], axis=0).min() > 20
    assert abs(changed - 100).max() < 5.5 + 25.5 + 12
    assert np.ptp(changed[:, 0, 0], axis=1).max() > 5  # colours change by themselves


def test_whole_pictures_are_seen_unmoved(data):
    pictures = red_rectangles(data, count=4)
    images, truth = data.as_network_input(pictures, (48, 64))
    np.testing.assert_allclose(images, pictures.images, atol=1e-3)
    for image, box in zip(images, truth["boxes"][:, 0], strict=True):
        np.testing.assert_allclose(extent_of_red(image), box, atol=1e-4)
    half, truth = data.as_network_input(pictures, (24, 32))
    np.testing.assert_allclose(truth["boxes"][0, 0] * 2, extent_of_red(images[0]), atol=1e-4)
    # Every pixel of the half-sized picture lies between four of the whole one.
    quarters = pictures.images.reshape(4, 24, 2, 32, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(half, quarters, atol=1e-2)


def test_drawn_shapes_lie_in_their_boxes(data):
    size = (40, 60)
    pictures = data.make_shapes(30, size, seed=0)
    counts = (pictures.labels >= 0).sum(axis=1)
    assert counts.min() == 0 and counts.max() == 5
    single = np.flatnonzero(counts == 1)
    assert len(single) > 1
    for index in single:
        is_shape = pictures.images[index].mean(axis=-1) < 175
        rows, columns = np.flatnonzero(is_shape.any(axis=1)), np.flatnonzero(is_shape.any(axis=0))
        extent = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
        np.testing.assert_allclose(extent, pictures.boxes[index, 0] * [*size, *size], atol=1.01)
        # A square fills its box, a disc π/4 of it.
        share = is_shape.sum() / np.prod(np.subtract(extent[2:], extent[:2]))
        assert (share > 0.9) == (pictures.labels[index, 0] == 1)


def test_the_tuning_pictures_are_cut_off(data):
    pictures = red_rectangles(data, count=10)
    pictures.images[:, 0, 0, 1] = np.arange(10)
    train, tuning = data.split_pictures(pictures, 3)
    assert (len(train), len(tuning)) == (7, 3)
    numbers = np.concatenate([part.images[:, 0, 0, 1] for part in (train, tuning)])
    assert sorted(numbers) == list(range(10)) and list(numbers) != list(range(10))
    for count in (0, 10):
        with pytest.raises(ValueError, match="Expected 1 to 9"):
            data.split_pictures(pictures, count)


def test_a_voc_data_set_is_scaled_and_padded(data, monkeypatch, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="extra: data")
    two = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 1.0, 1.0]], "float32")
    checks = np.zeros((8, 6, 3), "uint8")
    checks[::2, ::2] = 200  # a quarter of the pixels: the area mean is 50

    def example(image, boxes, labels):
        objects = {"bbox": tf.constant(boxes), "label": tf.constant(labels, tf.int64)}
        return {"image": tf.constant(image), "objects": objects}

    builder = types.SimpleNamespace(
        info=types.SimpleNamespace(
            features={
                "objects": types.SimpleNamespace(
                    feature={"label": types.SimpleNamespace(names=["cat", "dog"])}
                )
            }
        ),
        as_dataset=lambda split: [
            example(checks, two, [1, 0]),
            example(checks[:4], two[:0], []),
        ],
    )
    (tmp_path / "features.json").write_text("{}")
    monkeypatch.setattr(tfds, "builder_from_directory", lambda folder: builder)
    pictures, names = data.load_pictures(str(tmp_path), "train", (4, 3))
    assert names == ["cat", "dog"]
    assert pictures.labels.tolist() == [[1, 0], [-1, -1]]
    np.testing.assert_array_equal(pictures.boxes, [two, np.zeros((2, 4))])
    assert pictures.images.shape == (2, 4, 3, 3) and (pictures.images[0] == 50).all()


# The detector. At 16×32 its positions are 2×4 of stride 8, then 1×2 of stride 16.


def test_positions_by_hand(detector):
    centres, strides = detector.positions((16, 32))
    fine = [[y, x] for y in (4, 12) for x in (4, 12, 20, 28)]
    np.testing.assert_array_equal(centres, [*fine, [8, 8], [8, 24]])
    np.testing.assert_array_equal(strides, [8] * 8 + [16] * 2)


def test_overlaps_by_hand(detector):
    first = np.array([[0, 0, 2, 2], [0, 0, 1, 1], [1, 1, 3, 3]], "float32")
    second = np.array([[1, 1, 3, 3], [0, 2, 1, 3], [1, 1, 3, 3]], "float32")
    np.testing.assert_allclose(detector.overlap(first, second), [1 / 7, 0, 1], atol=1e-6)
    np.testing.assert_allclose(
        detector.generalized_overlap(first, second), [1 / 7 - 2 / 9, -1 / 3, 1], atol=1e-6
    )


def test_each_position_learns_the_smallest_box_near_whose_centre_it_lies(detector):
    boxes = np.array([[[0, 0, 16, 16], [1, 1, 7, 7], [0, 0, 0, 0]]], "float32")
    labels = np.array([[1, 0, -1]])
    own_boxes, own_labels = detector.assign(boxes, labels, (16, 32))
    # The big box's centre is (8, 8): four positions of P3 are near. The small one has the first.
    assert np.asarray(own_labels).tolist() == [[0, 1, -1, -1, 1, 1, -1, -1, -1, -1]]
    np.testing.assert_array_equal(own_boxes[0, 0], [1, 1, 7, 7])
    np.testing.assert_array_equal(own_boxes[0, 5], [0, 0, 16, 16])


def test_a_large_box_belongs_to_the_coarse_level_and_its_rim_to_none(detector):
    boxes, labels = np.array([[[0, 0, 64, 64]]], "float32"), np.array([[1]])
    _, own_labels = detector.assign(boxes, labels, (64, 64))
    fine, coarse = np.split(np.asarray(own_labels)[0], [64])
    assert (fine == -1).all()
    # Centres at 8, 24, 40, 56: those within 24 of the box's centre (32, 32) are the inner four.
    expected = np.full((4, 4), -1)
    expected[1:3, 1:3] = 1
    assert coarse.reshape(4, 4).tolist() == expected.tolist()


def make_tiny(detector, classes=2):
    return detector.CompactDetector((16, 32), classes, (4, 4, 4, 4), 4)


def outputs_at_zero(boxes):
    """Predictions with all logits 0 and given boxes."""
    return {
        "class_logits": as_tensor(np.zeros((1, 10, 2))),
        "quality_logits": as_tensor(np.zeros((1, 10, 1))),
        "boxes": as_tensor(boxes),
    }


def test_the_loss_by_hand(detector):
    truth = {"boxes": as_tensor([[[0.0, 0, 16, 16]]]), "labels": np.array([[1]])}
    model = make_tiny(detector)
    perfect = outputs_at_zero(np.tile([0, 0, 16, 16], (1, 10, 1)))
    # Focal loss at p = 1/2: α(1-p)²·ln 2 = ln 2 / 16 where the class is, 3 ln 2 / 16 where not.
    # 4 positions of 10 have class 1 of 2; the sum is counted in those 4.
    classes = (4 * 1 / 16 + 16 * 3 / 16) * LN2 / 4
    quality = LN2  # cross-entropy of an overlap of 1 at p = 1/2
    loss = to_numpy(model.compute_loss(None, truth, perfect, None))
    np.testing.assert_allclose(loss, classes + detector.QUALITY_WEIGHT * quality, rtol=1e-5)
    # Boxes of the left half: IoU 1/2, and no hull beyond the union: GIoU 1/2.
    half = outputs_at_zero(np.tile([0, 0, 16, 8], (1, 10, 1)))
    loss = to_numpy(model.compute_loss(None, truth, half, None))
    expected = classes + detector.QUALITY_WEIGHT * LN2 + 1.5 * 0.5
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    # A sample weight counts all of it.
    loss = to_numpy(model.compute_loss(None, truth, half, as_tensor([2.0])))
    np.testing.assert_allclose(loss, 2 * expected, rtol=1e-5)
    assert float(model.box_loss.result()) > 0  # its metrics have seen it


def test_a_batch_without_any_object_teaches_background_alone(detector):
    truth = {"boxes": as_tensor(np.zeros((1, 3, 4))), "labels": np.array([[-1, -1, -1]])}
    outputs = outputs_at_zero(np.tile([0, 0, 16, 16], (1, 10, 1)))
    model = make_tiny(detector)
    loss = to_numpy(model.compute_loss(None, truth, outputs, None))
    np.testing.assert_allclose(loss, 20 * 3 / 16 * LN2, rtol=1e-5)
    names = ["boxes", "quality_logits", "class_logits"]
    boxes, quality, classes = gradients(
        lambda *parts: model.compute_loss(None, truth, dict(zip(names, parts, strict=True)), None),
        *(to_numpy(outputs[name]) for name in names),
    )
    assert np.abs(boxes).max() == np.abs(quality).max() == 0
    # d/dz of α(σ(z))²·softplus(z) at 0, α = 3/4: 2·¼·½·ln 2 + ¼·½, times α; all push down.
    np.testing.assert_allclose(classes, 0.75 * (LN2 / 4 + 1 / 8), rtol=1e-5)


def test_decoding_by_hand(detector):
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30]]])
    logit = {p: np.log(p / (1 - p)) for p in (0.9, 0.8, 0.6, 0.0001)}
    low = logit[0.0001]
    class_logits = [[logit[0.9], low], [logit[0.8], low], [low, logit[0.6]], [low, low]]
    found = detector.KeepBestBoxes(most_boxes=3)(
        {
            "boxes": tf.constant(boxes, tf.float32),
            "score_logits": detector.ScoreLogits()(
                tf.constant([class_logits], tf.float32),
                tf.fill((1, 4, 1), tf.cast(logit[0.9], tf.float32)),
            ),
        }
    )
    # The second overlaps the first by 0.9 in the same class; the third is of another class;
    # the fourth is nothing. Scores are √(class · quality).
    np.testing.assert_allclose(found["scores"], [[0.9, np.sqrt(0.54), 0]], rtol=1e-5)
    assert found["classes"].numpy().tolist() == [[0, 1, 0]]
    np.testing.assert_array_equal(found["boxes"][0, :2], [[0, 0, 10, 10], [0, 0, 10, 10]])


def test_score_logits_by_hand(detector):
    # Probabilities 3/4 and 2/3: their product is 1/2, of which the logit is 0. 1/2 · 1/2: -ln 3.
    logits = to_numpy(
        detector.ScoreLogits()(
            as_tensor([[np.log(3.0)], [0.0], [60.0]]), as_tensor([[np.log(2.0)], [0.0], [60.0]])
        )
    )
    np.testing.assert_allclose(logits[:2, 0], [0.0, -np.log(3.0)], atol=1e-5)
    assert 13 < logits[2, 0] < 15  # as near to certain as one can say


def test_weights_are_high_where_the_teacher_sees_an_object(detector):
    # 16×32 pixels: P3 has 2 rows of 4 positions, P4 one row of 2.
    scores = np.full((1, 10, 2), -50.0)
    scores[0, 6] = [0.0, -3.0]  # P3, second row, third column: 1/2
    scores[0, 9] = [-2.0, np.log(3.0)]  # P4, second column: 3/4
    outputs = {"score_logits": as_tensor(scores)}
    found = {
        level: to_numpy(detector.ObjectWeights((16, 32), level)(outputs)) for level in ("P3", "P4")
    }
    np.testing.assert_allclose(
        found["P3"], [[[0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1]]], rtol=1e-5
    )
    np.testing.assert_allclose(found["P4"], [[[0.1, 0.85]]], rtol=1e-5)


def test_boxes_from_distances_by_hand(detector):
    distances = np.tile([0.5, 1.0, 1.5, 2.0], (1, 10, 1)).astype("float32")
    boxes = detector.BoxesFromDistances((16, 32))(distances)
    np.testing.assert_allclose(boxes[0, 1], [0, 4, 16, 28])  # around (4, 12), stride 8
    np.testing.assert_allclose(boxes[0, 9], [0, 8, 32, 56])  # around (8, 24), stride 16


def test_predictions_are_decoded_and_a_detector_comes_back_from_its_file(detector, tmp_path):
    import keras

    model = make_tiny(detector)
    images = np.random.default_rng(0).uniform(0, 255, (3, 16, 32, 3)).astype("float32")
    model.keep_best.least_score = 0.0
    found = model.predict(images, verbose=0)
    assert {name: value.shape for name, value in found.items()} == {
        "boxes": (3, 60, 4),
        "scores": (3, 60),
        "classes": (3, 60),
    }
    by_hand = model.keep_best(model(images, training=False))
    assert (found["scores"][:, :10] > 0).all() and found["scores"][:, 21:].max() == 0
    np.testing.assert_allclose(found["scores"], by_hand["scores"], rtol=1e-5)
    model.save(tmp_path / "detector.keras")
    loaded = keras.saving.load_model(tmp_path / "detector.keras")
    for name, value in model(images).items():
        np.testing.assert_array_equal(value, loaded(images)[name])
    with pytest.raises(ValueError, match="multiples of 16"):
        detector.CompactDetector((16, 30), 2, (4, 4, 4, 4), 4)


# Average precision.

TRUTH = {
    "boxes": np.array([[[0, 0, 10, 10], [20, 20, 40, 40]], [[5, 5, 15, 15], [0, 0, 0, 0]]], float),
    "labels": np.array([[0, 1], [0, -1]]),
}
NAMES = ["small", "large"]


def found(boxes, classes, scores=None):
    scores = np.where(np.array(classes) >= 0, 0.9, 0.0) if scores is None else np.array(scores)
    return {"boxes": np.array(boxes, float), "classes": np.array(classes), "scores": scores}


def test_a_slim_detector_has_the_teachers_outputs_at_full_width_and_a_loss_of_its_own(
    detector, tmp_path
):
    import keras

    from keras_ktan.utils.channel_record import channel_record_of
    from keras_ktan_tasks.slim_detector import slim_detector

    teacher = detector.CompactDetector((32, 32), 2, (4, 6, 8, 8), 8, box_weight=1.0)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    truth = {
        "boxes": np.array([[[2.0, 2.0, 14.0, 12.0]]] * 2, "float32"),
        "labels": np.array([[1], [0]], "int32"),
    }
    same = slim_detector(teacher, 1.0, width=1.0)
    expected, found = teacher(images), same(images)
    for name, value in expected.items():
        np.testing.assert_allclose(to_numpy(found[name]), to_numpy(value), rtol=1e-5, atol=1e-5)
    losses = [
        to_numpy(model.compute_loss(images, truth, model(images))) for model in (teacher, same)
    ]
    assert losses[0] > 0
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)

    half = slim_detector(teacher, 3.0, name="half", width=0.5, divisor=1)
    assert half.count_params() < 0.4 * teacher.count_params()
    assert channel_record_of(half).channels["P3"] == sorted(channel_record_of(half).channels["P3"])
    assert len(channel_record_of(half).channels["P3"]) == 4
    # The boxes' loss has its own weight; the rest is the same.
    heavier = to_numpy(half.compute_loss(images, truth, expected))
    box_loss = to_numpy(half.box_loss.result())
    np.testing.assert_allclose(heavier - losses[0], 2.0 * box_loss, rtol=1e-4)

    half.save(tmp_path / "half.keras")
    loaded = keras.saving.load_model(tmp_path / "half.keras")
    assert loaded.settings["box_weight"] == 3.0
    for name, value in half(images).items():
        np.testing.assert_allclose(to_numpy(loaded(images)[name]), to_numpy(value), rtol=1e-5)


def test_perfect_predictions_have_an_ap_of_1(average_precision):
    result = average_precision(found(TRUTH["boxes"], TRUTH["labels"]), TRUTH, NAMES)
    names = ["AP", "AP50", "AP75", "AP small", "AP large"]
    assert result == {name: pytest.approx(1.0) for name in names}


def test_shifted_predictions_count_where_they_overlap_enough(average_precision):
    shift = np.where(TRUTH["labels"][..., None] == 0, 2, 0) * [0, 1, 0, 1]
    result = average_precision(found(TRUTH["boxes"] + shift, TRUTH["labels"]), TRUTH, NAMES)
    # 10×10 shifted by 2: 80 / 120, enough for 0.50, 0.55, 0.60 and 0.65 of ten overlaps.
    assert result["AP small"] == pytest.approx(0.4)
    assert result["AP large"] == pytest.approx(1.0)
    assert result["AP50"] == pytest.approx(1.0) and result["AP75"] == pytest.approx(0.5)
    assert result["AP"] == pytest.approx(0.7)


def test_no_predictions_have_an_ap_of_0(average_precision):
    nothing = found(np.zeros((2, 3, 4)), np.full((2, 3), -1))
    assert average_precision(nothing, TRUTH, NAMES)["AP"] == 0.0


def test_a_picture_without_boxes_can_only_cost(average_precision):
    truth = {"boxes": np.zeros((2, 1, 4)), "labels": np.array([[0], [-1]])}
    truth["boxes"][0] = [0, 0, 10, 10]
    boxes = np.tile([0.0, 0, 10, 10], (2, 1, 1))
    right = found(boxes, [[0], [0]], [[0.9], [0.0]])
    assert average_precision(right, truth, NAMES)["AP small"] == pytest.approx(1.0)
    # A better score where nothing is: the one right box comes second, a precision of 1/2.
    wrong = found(boxes, [[0], [0]], [[0.5], [0.9]])
    assert average_precision(wrong, truth, NAMES)["AP small"] == pytest.approx(0.5)
    # A class that is nowhere has no AP, and the mean does without it.
    assert np.isnan(average_precision(right, truth, NAMES)["AP large"])
    assert average_precision(right, truth, NAMES)["AP"] == pytest.approx(1.0)
