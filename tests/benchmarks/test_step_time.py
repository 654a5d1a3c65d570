"""The benchmark of a step's time, at a tiny size, and the networks it measures."""

import json
import pathlib

import keras
import numpy as np
import pytest

from keras_ktan import KTANDistiller

pytestmark = pytest.mark.graph

BENCHMARKS = pathlib.Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """A function that imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return __import__


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_resnet18_has_the_parameters_of_the_paper(benchmark):
    model = benchmark("resnets").make_resnet18(224)
    # Kernels, batch normalisation and the head of ResNet-18, as torchvision counts them.
    assert trainable(model) == 11_689_512
    assert model.get_layer("features").output.shape == (None, 7, 7, 512)


def test_resnet56_and_20_have_their_layers(benchmark):
    teacher, student = benchmark("resnets").resnet56_and_20()
    for model, depth in ((teacher, 56), (student, 20)):
        kernels = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        # All but the head, and two projections on shortcuts.
        assert len(kernels) == depth - 1 + 2
        assert model.get_layer("features").output.shape == (None, 8, 8, 64)


@pytest.mark.long
@pytest.mark.parametrize(("models", "size"), [("resnet56_and_20", 8), ("resnet50_and_18", 32)])
def test_the_pairs_join_maps_of_the_stage_before_the_last(benchmark, models, size):
    teacher, student = getattr(benchmark("resnets"), models)(size)
    lines = []
    KTANDistiller(teacher, student).summary(print_fn=lambda line, **_: lines.append(line))
    (pair,) = [line for line in lines if line.startswith("  pair ")]
    # Of 32×32 pixels ResNet-50 leaves 1×1 in its last stage and in the one before 2×2.
    expected = {
        "resnet56_and_20": "pair stage_2 (None, 4, 4, 32) -> stage_2 (None, 4, 4, 32)",
        "resnet50_and_18": "pair conv3_block4_out (None, 4, 4, 512) -> re_lu_8 (None, 4, 4, 128)",
    }
    assert expected[models] in pair


@pytest.mark.long
@pytest.mark.parametrize(("dtype", "xla"), [("bfloat16", "off"), ("float32", "on")])
def test_images_per_second_are_measured_for_each_combination(benchmark, tmp_path, dtype, xla):
    images_per_second = benchmark("images_per_second")
    backend, output = keras.backend.backend(), tmp_path / "result"
    command = f"--models small --dtypes {dtype} --xla {xla} --image-size 4 --batch-size 2 --steps 1"
    command += f" --rounds 2 --backends {backend} --output {output}"
    images_per_second.main(command.split())
    (result,) = json.loads(output.with_suffix(".json").read_text())
    page = output.with_suffix(".md").read_text()
    assert f"| small | {backend} | {dtype} | {xla} |" in page
    if (backend, xla) == ("torch", "on"):
        # `torch.compile` fails on our step (`backend_limits.py`), and the page says so.
        assert "did not run" in page and result["error"] in page
        return
    assert "error" not in result, result
    assert result["device"] and "mixed_bfloat16" not in result["about"]
    assert ("bfloat16" in result["about"]) == (dtype == "bfloat16") and result["batch_size"] == 2
    assert f"XLA {xla}" in result["about"]
    seconds = result["seconds_per_step"]
    assert set(seconds) == {"student.fit", "teacher.predict", "KTAN: + adversary"}
    # A student's round beside each round of the other two.
    assert [len(values) for values in seconds.values()] == [4, 2, 2]
    assert all(min(values) > 0 for values in seconds.values())
    assert set(result["times_student"]) == {"teacher.predict", "KTAN: + adversary"}
    assert result["device"] in page.split("\n")[0]


@pytest.mark.long
def test_the_cache_and_keras_own_distiller_are_measured(benchmark, tmp_path):
    step_time = benchmark("step_time")
    output = tmp_path / "result"
    command = f"--image-size 4 --batch-size 2 --steps 2 --rounds 1 --output {output} --only"
    step_time.main([*command.split(), step_time.TEACHER, step_time.CACHED, step_time.KERAS])
    rows = output.with_suffix(".md").read_text().splitlines()[4:]
    names = ["student.fit", "teacher.predict", step_time.CACHED, step_time.KERAS]
    assert [row.split("|")[1].strip() for row in rows] == names


def test_a_ratio_is_that_of_two_rounds_side_by_side(benchmark):
    step_time = benchmark("step_time")
    now, speed = [0.0], [1.0]

    def runs(seconds):
        def run():
            now[0] += seconds * speed[0]
            speed[0] *= 1.0 if seconds == 10 else 3.0  # slower after each pair

        return run

    contestants = {"student.fit": runs(10), "one": runs(15), "other": runs(40)}
    seconds, ratios = step_time.measure(contestants, 2, 5, clock=lambda: now[0])
    assert ratios == {"one": pytest.approx([1.5, 1.5]), "other": pytest.approx([4.0, 4.0])}
    # Warm-up left a speed of 9; 10 and 15 at it, 10 and 40 at 27, and so on; 5 steps each.
    assert seconds["student.fit"] == pytest.approx([18.0, 54.0, 162.0, 486.0])
    assert seconds["other"] == pytest.approx([216.0, 1944.0])
    # Of 1 and 1.44 the geometric mean is 1.2; Student's t of one degree of freedom is 12.706.
    low, high = 1.2 / 1.2**12.706, 1.2 * 1.2**12.706
    assert step_time.format_ratio([1.0, 1.44]) == f"1.20 ({low:.2f} to {high:.2f})"
    assert step_time.format_ratio([1.5]) == "1.50"
    programs = {"one": {"arguments": 1200, "operations": 31}}
    rows = step_time.format_table({"one": [0.01, 0.03, 0.02]}, {"one": [1.5]}, programs).split("\n")
    assert rows[2] == "| one | 20.0 (10.0 to 30.0) | 1.50 | 1,200 arguments, 31 operations |"


def test_what_a_step_consists_of(benchmark):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy())
    batch = np.zeros((3, 4), "float32"), np.zeros(3, "int32")
    program = benchmark("step_programs").program_of_step(model, batch)
    if keras.backend.backend() == "torch":  # runs uncompiled
        assert program == {}
        return
    assert program["operations"] > 10
    if keras.backend.backend() == "jax":
        # In: kernel, bias, SGD's step and rate, the loss's sum and count, images, labels. Out: the
        # first six again and the loss.
        assert (program["arguments"], program["results"]) == (8, 7)


def test_ratios_of_steps_stand_in_the_table_of_two_versions(benchmark, tmp_path):
    step_cost = benchmark("step_cost")
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(json.dumps({"backend": "jax", "times_student": {"+ logits": [2.0]}}))
    after.write_text(json.dumps({"backend": "jax", "times_student": {"+ logits": [1.5]}}))
    row = "| JAX, a step, + logits, times student.fit, 95 % | 2.00 | 1.50 |"
    assert row in step_cost.join([before], [after])


def test_a_combination_that_does_not_run_is_named(benchmark, monkeypatch, tmp_path):
    images_per_second = benchmark("images_per_second")
    (tmp_path / "step_time.py").write_text("print('fine so far')\nraise MemoryError('a | b')\n")
    monkeypatch.setattr(images_per_second, "BENCHMARKS", tmp_path)
    failed = images_per_second.measure("small", "torch", "bfloat16", True, [])
    assert failed["error"] == "MemoryError: a | b"
    row = images_per_second.format_table([failed]).split("\n")[2]
    assert row == "| small | torch | bfloat16 | on | did not run: MemoryError: a / b | | | | |"


def test_the_table_by_hand(benchmark):
    row = {
        "models": "small",
        "backend": "jax",
        "dtype": "float32",
        "xla": True,
        "device": "a card",
        "batch_size": 60,
        "seconds_per_step": {
            "student.fit": [0.1, 0.2, 9.0],
            "teacher.predict": [0.3, 0.3, 0.3],
            "KTAN: + adversary": [0.6, 0.625, 0.7],
        },
    }
    page = benchmark("images_per_second").format_page([row])
    assert "on: a card." in page
    # 60 images in 0.2 s, in 0.3 s, in both one after the other, and in 0.625 s.
    assert "| small | jax | float32 | on | 300 | 200 | 120 | 96 | 0.80 |" in page


@pytest.mark.long
def test_the_pairs_can_be_distilled(benchmark, monkeypatch, tmp_path):
    """The path that a GPU takes, with networks of the same kind but narrow."""
    step_time, resnets = benchmark("step_time"), benchmark("resnets")

    def narrow(image_size):
        teacher = resnets.make_resnet18(image_size, width=3, classes=10)
        return teacher, resnets.make_resnet18(image_size, width=2, classes=10)

    monkeypatch.setitem(step_time.PAIRS, "resnet50-resnet18", (narrow, 32, 2))
    output = tmp_path / "result"
    command = f"--models resnet50-resnet18 --steps 1 --rounds 1 --output {output} --only"
    step_time.main([*command.split(), step_time.TEACHER, "KTAN: + adversary"])
    result = json.loads(output.with_suffix(".json").read_text())
    assert "resnet50-resnet18" in result["about"] and "32×32×3" in result["about"]
    page = output.with_suffix(".md").read_text()
    assert [line.split("|")[1].strip() for line in page.splitlines()[4:]] == [
        "student.fit",
        "teacher.predict",
        "KTAN: + adversary",
    ]
