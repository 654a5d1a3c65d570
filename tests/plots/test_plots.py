"""The arrays behind the pictures of feature maps, computed a second time by other means."""

import keras
import numpy as np
import pytest
from models import assert_same, image_data, image_model, loss_from_logits, snapshot

from keras_ktan import FeatureDiscriminator, FeaturePair, KTANDistiller
from keras_ktan.plots import (
    feature_map_agreement,
    feature_map_panels,
    plot_feature_maps,
)


def make_distiller(adversarial_loss="bce", **weights):
    teacher = image_model(6, "teacher", seed=1, strides=1)
    pair = FeaturePair("features", "features", discriminator=FeatureDiscriminator(filters=3))
    distiller = KTANDistiller(teacher, image_model(2, "student", seed=2), pair)
    distiller.compile(
        "sgd",
        loss=loss_from_logits(),
        adversarial_loss=adversarial_loss,
        run_eagerly=True,
        **{"adversarial_loss_weight": 0.02, **weights},
    )
    return distiller, pair


def layer_output(model, name, images):
    cut = keras.Model(model.input, model.get_layer(name).output)
    return keras.ops.convert_to_numpy(cut(images, training=False)).astype("float64")


def energy(values):
    return np.sqrt(np.sum(values**2, axis=-1) / values.shape[-1])


@pytest.mark.parametrize(("adversarial_loss", "boundary"), [("bce", 0.0), ("least_squares", 0.5)])
def test_the_panels_hold_the_maps(adversarial_loss, boundary):
    distiller, _ = make_distiller(adversarial_loss)
    images, labels = image_data(4)
    distiller.fit(images, labels, batch_size=4, verbose=0)
    without = image_model(2, "other", seed=3)
    panels = feature_map_panels(distiller, images, without)
    agreement = feature_map_agreement(distiller, images, without)
    assert list(agreement) == ["student without KTAN", "student with KTAN"]
    assert list(panels) == [
        "teacher",
        "teacher, projected by T2S",
        "student without KTAN",
        "student with KTAN",
        "discriminator",
    ]
    teacher_map = layer_output(distiller.teacher, "features", images)
    assert teacher_map.shape == (4, 8, 8, 6)
    np.testing.assert_allclose(panels["teacher"], energy(teacher_map), rtol=1e-5)
    # T2S: means of 2×2 positions of the channels that it selects.
    (t2s,) = distiller.teacher_to_student_layers
    rendered = teacher_map.reshape(4, 4, 2, 4, 2, 6).mean(axis=(2, 4))[..., t2s.channels]
    np.testing.assert_allclose(panels["teacher, projected by T2S"], energy(rendered), rtol=1e-4)
    for name, model in {"without": without, "with": distiller.student}.items():
        features = layer_output(model, "features", images)
        np.testing.assert_allclose(panels[f"student {name} KTAN"], energy(features), rtol=1e-5)
        lengths = [np.linalg.norm(values, axis=-1) for values in (features, rendered)]
        cosines = np.sum(features * rendered, axis=-1) / np.maximum(lengths[0] * lengths[1], 1e-9)
        np.testing.assert_allclose(
            agreement[f"student {name} KTAN"], cosines.mean(axis=(1, 2)), rtol=1e-3, atol=1e-5
        )
    # The discriminator sees the student's map without noise, and the teacher's probabilities.
    (discriminator,) = distiller.discriminators
    student_map = layer_output(distiller.student, "features", images)
    logits = layer_output(distiller.teacher, "logits", images)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    logits = discriminator(student_map.astype("float32"), probabilities.astype("float32"))
    expected = keras.ops.convert_to_numpy(logits) - boundary
    assert expected.shape == (4, 4, 4)
    np.testing.assert_allclose(panels["discriminator"], expected, rtol=1e-4, atol=1e-5)


def test_what_is_drawn_is_what_the_panels_hold(tmp_path):
    distiller, _ = make_distiller()
    images, _ = image_data(2)
    without = image_model(2, "other", seed=3)
    figure = plot_feature_maps(distiller, images, tmp_path / "maps.png", without, title="Maps")
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    panels = feature_map_panels(distiller, images, without)
    agreement = feature_map_agreement(distiller, images, without)
    axes = np.array(figure.axes[:12]).reshape(2, 6)
    for row in range(2):
        drawn = [np.asarray(one.get_images()[-1].get_array()) for one in axes[row]]
        shown = images[row, ..., 0]
        shown = (shown - shown.min()) / (shown.max() - shown.min())
        np.testing.assert_allclose(drawn[0], shown, rtol=1e-6)
        for array, values in zip(drawn[1:], panels.values(), strict=True):
            np.testing.assert_array_equal(array, values[row])
        for column, name in ((3, "student without KTAN"), (4, "student with KTAN")):
            assert axes[row, column].get_xlabel() == f"cosine with T2S: {agreement[name][row]:.2f}"
        # Both sides of the boundary get the same depth of colour.
        logit = axes[row, 5].get_images()[-1]
        largest = np.abs(panels["discriminator"]).max()
        np.testing.assert_allclose(logit.get_clim(), (-largest, largest))
    titles = [one.get_title().replace("\n", " ") for one in axes[0]]
    assert titles == ["image", *panels]


def test_panels_that_there_is_nothing_for_are_left_out():
    distiller, _ = make_distiller(adversarial_loss_weight=0.0)
    images, _ = image_data(2)
    assert list(feature_map_panels(distiller, images)) == [
        "teacher",
        "teacher, projected by T2S",
        "student with KTAN",
    ]


def test_drawing_changes_no_variable(tmp_path):
    distiller, _ = make_distiller()
    images, labels = image_data(4)
    distiller.fit(images, labels, batch_size=4, verbose=0)
    models = [distiller.teacher, distiller.student, *distiller.discriminators]
    before = snapshot(*models)
    plot_feature_maps(distiller, images, tmp_path / "maps.png")
    assert_same(before, snapshot(*models))


def test_maps_that_cannot_be_drawn_are_refused():
    images, _ = image_data(2)
    distiller, _ = make_distiller(adversarial_loss_weight=0.0, feature_loss_weight=0.0)
    with pytest.raises(ValueError, match="Expected one that uses maps. Compile it"):
        feature_map_panels(distiller, images)
    distiller, _ = make_distiller()
    with pytest.raises(ValueError, match="Received pair=1. Expected a number from 0 to 0"):
        feature_map_panels(distiller, images, pair=1)
    vectors = FeaturePair("pool", "pool")
    distiller = KTANDistiller(image_model(6, "teacher"), image_model(2, "student"), vectors)
    distiller.compile("sgd", loss=loss_from_logits(), adversarial_loss_weight=0.02)
    with pytest.raises(ValueError, match="Expected rank 4"):
        feature_map_panels(distiller, images)
