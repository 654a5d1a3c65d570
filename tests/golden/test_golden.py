"""A file that this version wrote, or an earlier one that it must still read."""

import pathlib

import keras
import numpy as np
import pytest
from golden.make_golden import data

from keras_ktan import KTANDistiller
from keras_ktan.utils.config_format import FORMAT

FOLDER = pathlib.Path(__file__).parent


@pytest.mark.promise(9)
def test_the_golden_file_loads_and_goes_on():
    distiller = keras.saving.load_model(FOLDER / "golden.keras")
    assert isinstance(distiller, KTANDistiller)
    expected = np.load(FOLDER / "golden.npz")
    images, labels = data()
    outputs = distiller.predict(images, verbose=0)
    np.testing.assert_allclose(outputs, expected["outputs"], rtol=1e-4, atol=1e-5)
    assert int(distiller.step_counter) == 4
    # The next step: every weight of a term, every network's weights and every optimizer's state.
    # Backends draw other noise from the same seed, so what the discriminator says may differ.
    logs = distiller.train_on_batch(images, labels, return_dict=True)
    assert sorted(logs) == expected["names"].tolist()
    known = dict(zip(expected["names"].tolist(), expected["logs"], strict=True))
    for name in ("student_loss", "logits_loss", "feature_loss", "t2s_loss"):
        np.testing.assert_allclose(float(logs[name]), known[name], rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("part", ["config", "compile"])
def test_another_format_and_an_unknown_key_are_errors_that_name_the_version(part):
    distiller = keras.saving.load_model(FOLDER / "golden.keras")
    config = distiller.get_config() if part == "config" else distiller.get_compile_config()
    read = KTANDistiller.from_config if part == "config" else distiller.compile_from_config
    assert config["format"] == FORMAT
    with pytest.raises(ValueError, match=f"format {FORMAT + 1}.*Expected format {FORMAT}"):
        read({**config, "format": FORMAT + 1})
    with pytest.raises(ValueError, match=r"unknown keys \['temprature'\].*Expected format"):
        read({**config, "temprature": 2.0})
    with pytest.raises(ValueError, match=f"format None.*Expected format {FORMAT}"):
        read({key: value for key, value in config.items() if key != "format"})
