"""A third party's detector under the distiller, unchanged: KerasHub's RetinaNet."""

import keras
import numpy as np
import pytest
from models import assert_changed, assert_same, snapshot

from keras_ktan import FeatureDiscriminator, FeaturePair, KTANDistiller, OutputPair

pytestmark = pytest.mark.graph

keras_hub = pytest.importorskip(
    "keras_hub",
    reason="KerasHub is not installed; `pip install -e '.[detection]'` brings it",
)

SIZE = 64


def retinanet(filters, block_type, name, seed):
    """A RetinaNet of two levels on a small residual network, without a download."""
    keras.utils.set_random_seed(seed)
    encoder = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, filters, filters],
        stackwise_num_blocks=[1, 1, 1],
        stackwise_num_strides=[1, 2, 2],
        block_type=block_type,
        image_shape=(SIZE, SIZE, 3),
    )
    backbone = keras_hub.models.RetinaNetBackbone(
        image_encoder=encoder,
        min_level=3,
        max_level=4,
        use_p5=False,
        image_shape=(SIZE, SIZE, 3),
        name="backbone",
    )
    detector = keras_hub.models.RetinaNetObjectDetector(
        backbone,
        num_classes=2,
        bounding_box_format="yxyx",
        pre_logits_num_conv_layers=1,
        name=name,
    )
    # Without arguments: KerasHub's own losses.
    detector.compile(optimizer=keras.optimizers.SGD(1e-3))
    return detector


def pictures(count=4):
    """Noise with boxes that anchors match; the last picture has none."""
    images = np.random.default_rng(0).normal(size=(count, SIZE, SIZE, 3)).astype("float32")
    boxes = np.tile([[8.0, 8.0, 40.0, 40.0], [24.0, 24.0, 56.0, 56.0]], (count, 1, 1))
    labels = np.tile([0, 1], (count, 1))
    boxes[-1], labels[-1] = -1, -1
    return images, {"boxes": boxes.astype("float32"), "labels": labels.astype("float32")}


@pytest.fixture(scope="module")
def teacher():
    return retinanet(16, "bottleneck_block", "teacher", seed=1)


def make_distiller(teacher, student, **weights):
    discriminator = FeatureDiscriminator()
    distiller = KTANDistiller(
        teacher,
        student,
        [
            FeaturePair(
                f"backbone/fpn:{level}",
                f"backbone/fpn:{level}",
                weight=weight,
                discriminator=discriminator,
            )
            for level, weight in (("P3", 1.0), ("P4", 0.5))
        ],
        temperature=1.0,
        output_pairs=OutputPair("cls_logits", kind="sigmoid"),
    )
    distiller.compile(optimizer=keras.optimizers.SGD(1e-3), **weights)
    return distiller


def test_without_distillation_it_is_the_students_own_fit(teacher):
    images, truth = pictures()
    students = [retinanet(8, "basic_block", "student", seed=2) for _ in range(2)]
    off = {f"{term}_loss_weight": 0.0 for term in ("logits", "feature", "adversarial")}
    distiller = make_distiller(teacher, students[1], **off)
    before = snapshot(students[0])
    for model in (students[0], distiller):
        keras.utils.set_random_seed(3)
        # KerasHub's own `fit` does not shuffle arrays, whatever it is told.
        model.fit(images, truth, batch_size=2, epochs=1, shuffle=False, verbose=0)
    assert_changed(before, snapshot(students[0]))
    assert_same(snapshot(students[0]), snapshot(students[1]))


def test_a_retinanet_learns_is_judged_predicts_and_is_exported(teacher, tmp_path):
    import tensorflow as tf

    images, truth = pictures()
    student = retinanet(8, "basic_block", "student", seed=2)
    distiller = make_distiller(
        teacher,
        student,
        logits_loss_weight=1.0,
        feature_loss_weight=1.0,
        adversarial_loss_weight=0.02,
    )
    before = snapshot(teacher), snapshot(student)
    networks = [distiller.teacher_to_student_layers, distiller.discriminators]
    assert [len(network) for network in networks] == [2, 1]  # the levels share a discriminator
    players_before = [snapshot(*network) for network in networks]
    history = distiller.fit(images, truth, batch_size=2, epochs=3, verbose=0).history
    assert_same(before[0], snapshot(teacher))
    assert_changed(before[1], snapshot(student))
    for network, was in zip(networks, players_before, strict=True):
        assert_changed(was, snapshot(*network))
    # KerasHub's own losses and the distillation's terms, in one history.
    weighted = {
        "bbox_regression_loss": 0.0,
        "cls_logits_loss": 0.0,
        "student_loss": 1.0,
        "logits_loss": 1.0,
        "feature_loss": 1.0,
        "adversarial_loss": 0.02,
    }
    assert set(weighted) < set(history)
    for epoch in range(3):
        total = sum(weight * history[name][epoch] for name, weight in weighted.items())
        assert history["loss"][epoch] == pytest.approx(total, rel=1e-4)
        own = history["bbox_regression_loss"][epoch] + history["cls_logits_loss"][epoch]
        assert history["student_loss"][epoch] == pytest.approx(own, rel=1e-4)
    assert history["student_loss"][-1] < history["student_loss"][0]

    as_student = student.evaluate(images, truth, batch_size=2, verbose=0, return_dict=True)
    evaluated = distiller.evaluate(images, truth, batch_size=2, verbose=0, return_dict=True)
    assert evaluated == {name: pytest.approx(value) for name, value in as_student.items()}

    found = distiller.predict(images, batch_size=2, verbose=0)
    expected = student.predict(images, batch_size=2, verbose=0)
    assert {"boxes", "confidence", "labels"} <= set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)

    distiller.export(tmp_path / "student", verbose=False)
    serve = tf.saved_model.load(str(tmp_path / "student")).signatures["serving_default"]
    served = serve(images=tf.constant(images[:3]))
    outputs = student(images[:3], training=False)
    assert set(served) == set(outputs) == {"bbox_regression", "cls_logits"}
    for name, value in outputs.items():
        np.testing.assert_allclose(served[name], value, rtol=1e-4, atol=1e-4)
