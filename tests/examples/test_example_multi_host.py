"""What a user starts on each machine, here twice on one."""

import importlib.util
import json
import pathlib
import re
import sys

import numpy as np
import pytest
from processes import free_address, run_together

pytestmark = pytest.mark.graph

EXAMPLES = pathlib.Path(__file__).parent.parent.parent / "examples"
SCRIPT = EXAMPLES / "distill_multi_host.py"

pytest.importorskip("sklearn", reason="the digits ship with scikit-learn (extra: examples)")


@pytest.fixture
def multi_host():
    import distill_multi_host

    return distill_multi_host


def test_the_processes_shares_make_up_each_batch(multi_host):
    numbers = np.arange(1000)
    alone = multi_host.ShareOfBatches(numbers, numbers, process=0, processes=1)
    both = [multi_host.ShareOfBatches(numbers, numbers, process, 2) for process in (0, 1)]
    epochs = []
    for _ in range(2):
        seen = []
        for index in range(len(alone)):
            shares = [share[index][0] for share in both]
            assert [len(share) for share in shares] == [16, 16]
            np.testing.assert_array_equal(np.concatenate(shares), alone[index][0])
            seen.extend(alone[index][0])
        assert len(seen) == len(set(seen)) == 992
        epochs.append(seen)
        for share in (alone, *both):
            share.on_epoch_end()
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", "2", "--process", "1"], "needs --coordinator"),
        (["--process", "1"], "--process must be from 0"),
        (["--epochs", "0"], "--epochs must be 1 or more"),
    ],
)
def test_wrong_options_end_at_once(multi_host, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(multi_host.keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(sys, "argv", ["distill_multi_host.py", *arguments])
    with pytest.raises(SystemExit):
        multi_host.parse_arguments()
    assert message in capsys.readouterr().err


def test_another_backend_than_jax_is_refused(multi_host, monkeypatch, capsys):
    monkeypatch.setattr(multi_host.keras.backend, "backend", lambda: "torch")
    monkeypatch.setattr(sys, "argv", ["distill_multi_host.py"])
    with pytest.raises(SystemExit):
        multi_host.parse_arguments()
    assert "need KERAS_BACKEND=jax" in capsys.readouterr().err


def student_of(printed, process):
    (found,) = re.findall(r"^process (\d): student (\w{16})$", printed, flags=re.MULTILINE)
    assert int(found[0]) == process
    return found[1]


@pytest.mark.long
@pytest.mark.promise(10)
@pytest.mark.own_processes("jax")
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_two_processes_end_with_the_student_of_one(tmp_path):
    address = free_address()
    folders = [tmp_path / name for name in ("alone", "first", "second")]
    options = [["--epochs", 1, "--output", folder] for folder in folders]
    cluster = ["--coordinator", address, "--processes", 2, "--process"]
    (alone,) = run_together(SCRIPT, [options[0]], backend="jax")
    first, second = run_together(
        SCRIPT, [[*options[1], *cluster, 0], [*options[2], *cluster, 1]], backend="jax"
    )
    assert student_of(first, 0) == student_of(second, 1)
    student_of(alone, 0)
    assert "on the test part" in first
    assert "teacher" not in second and not folders[2].exists()

    results = [json.loads((folder / "results.json").read_text()) for folder in folders[:2]]
    assert [(result["processes"], result["devices"]) for result in results] == [(1, 1), (2, 2)]
    assert results[1]["student"] == student_of(first, 0)
    assert results[0]["history"].keys() == results[1]["history"].keys()
    for name, values in results[0]["history"].items():
        np.testing.assert_allclose(results[1]["history"][name], values, rtol=1e-4, err_msg=name)
    import keras

    models = [keras.saving.load_model(folder / "student.keras") for folder in folders[:2]]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        # Adam enlarges round-off; 31 steps moved the weights by about 0.1.
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)
