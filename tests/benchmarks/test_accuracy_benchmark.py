"""The harness behind the evidence: its plan, its arithmetic, and a whole tiny experiment."""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tomllib

import keras
import numpy as np
import pytest
from models import assert_changed, loss_from_logits, snapshot
from tiny_experiment import TINY

pytestmark = pytest.mark.graph

BENCHMARKS = pathlib.Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def fresh_modules(benchmarks_on_path):
    """Other tests may have put a module of the same name in its place."""
    for name in (
        "report",
        "experiment_results",
        "summaries",
        "experiment",
        "tasks",
        "runner",
        "method_distiller",
        "candidate_arms",
        "workers",
        "accuracy",
        "detection_task",
    ):
        sys.modules.pop(name, None)


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_the_interval_of_paired_differences_by_hand():
    from experiment_results import paired_difference

    values, base = {0: 3.0, 1: 5.0, 2: 10.0, 3: 1.0}, {0: 2.0, 1: 3.0, 2: 4.0}
    mean, half, count = paired_difference(values, base)  # of 1, 2 and 6
    assert (mean, count) == (3.0, 3)
    # Variance 7 of the differences; Student's t for 2 degrees of freedom is 4.302653.
    assert half == pytest.approx(4.302653 * np.sqrt(7 / 3), rel=1e-6)
    mean, half, count = paired_difference({0: 3.0}, base)
    assert (mean, count) == (1.0, 1)
    assert np.isnan(half)


SETTINGS = {"epochs": 4}


def test_a_row_of_the_table_by_hand():
    from report import format_table

    results = {
        "supervised": {0: (0.50, 8.0), 1: (0.52, 8.0)},
        "logit_distillation": {0: (0.54, 12.0), 1: (0.58, 20.0)},
    }
    *_, supervised, logits = format_table(SETTINGS, "test", results, 0.61).splitlines()
    # Gains of 4 and 6 points: mean 5, sd √2, t(1 degree) = 12.7062; the gap is 10 points.
    assert logits == (
        "| logit distillation | 2 | 56.00 ± 2.83 | +5.00 (-7.71 to +17.71) |  | 50% | 4.0 |"
    )
    assert supervised == ("| supervised | 2 | 51.00 ± 1.41 |  | -5.00 (-17.71 to +7.71) |  | 2.0 |")


def test_students_of_one_start_are_also_compared_with_each_other():
    from report import format_table

    results = {
        "supervised": {0: (0.50, 8.0), 1: (0.52, 8.0)},
        "slim, logit distillation": {0: (0.56, 8.0), 1: (0.58, 8.0)},
        "slim, KTAN, defaults": {0: (0.57, 8.0), 1: (0.61, 8.0)},
    }
    heading, _, teacher, *rows = format_table(SETTINGS, "test", results, 0.61).splitlines()
    assert "| against slim, logit distillation, 95 % interval |" in heading
    assert {line.count("|") for line in (heading, teacher, *rows)} == {9}
    # 1 and 3 points: mean 2, standard error 1.
    cells = [[cell.strip() for cell in row.split("|")][6] for row in rows]
    assert cells == ["", "", "+2.00 (-10.71 to +14.71)"]


def test_where_the_other_library_was_run_all_methods_stand_beside_it():
    from report import format_table

    library = "keras.distillation, KLDivergence object"
    results = {
        "supervised": {0: (0.50, 8.0), 1: (0.52, 8.0)},
        library: {0: (0.56, 8.0), 1: (0.58, 8.0)},
        "slim, KTAN, defaults": {0: (0.57, 8.0), 1: (0.61, 8.0)},
    }
    heading, _, teacher, *rows = format_table(SETTINGS, "test", results, 0.61).splitlines()
    assert f"| against {library}, 95 % interval |" in heading
    assert {line.count("|") for line in (heading, teacher, *rows)} == {9}
    cells = [[cell.strip() for cell in row.split("|")][6] for row in rows]
    assert cells == ["-6.00 (-6.00 to -6.00)", "", "+2.00 (-10.71 to +14.71)"]


def test_the_summary_compares_with_logit_distillation_and_leaves_out_methods_with_fewer_seeds(
    tmp_path,
):
    from summaries import format_summary

    methods = {"supervised": (0.4, 0.5), "logit_distillation": (0.5, 0.6), "KTAN": (0.51, 0.63)}
    runs = [
        (method, seed, value)
        for method, values in methods.items()
        for seed, value in enumerate(values)
    ]
    runs.append(("features", 0, 0.9))
    settings = {"title": "Tiny", "teacher's validation accuracy": 0.7}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    lines = [
        {"method": method, "seed": seed, "validation_accuracy": value, "seconds": 1.0}
        for method, seed, value in runs
    ]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    # Gains of 1 and 3 points over logits: mean 2, sd √2, t(1 degree) = 12.7062.
    assert format_summary([tmp_path]).splitlines() == [
        "| method | Tiny: validation accuracy, 2 seeds |",
        "|---|---|",
        "| teacher | 70.00 |",
        "| supervised | 45.00 ± 7.07 |",
        "| logit distillation | 55.00 ± 7.07 |",
        "| KTAN | 57.00 ± 8.49; +2.00 (-10.71 to +14.71) |",
    ]


def test_the_summary_says_where_a_way_has_fewer_seeds_than_the_others(tmp_path):
    from summaries import SUMMARY_SEEDS, format_summary

    seeds_of_methods = {"supervised": 7, "logit_distillation": 7, "KTAN": 6, "features": 4}
    assert seeds_of_methods["features"] < SUMMARY_SEEDS <= seeds_of_methods["KTAN"]
    (tmp_path / "settings.json").write_text(
        json.dumps({"title": "Tiny", "teacher's validation accuracy": 0.7})
    )
    lines = [
        {"method": method, "seed": seed, "validation_accuracy": 0.5, "seconds": 1.0}
        for method, seeds in seeds_of_methods.items()
        for seed in range(seeds)
    ]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert format_summary([tmp_path]).splitlines()[2:] == [
        "| teacher | 70.00 |",
        "| supervised | 50.00 ± 0.00 |",
        "| logit distillation | 50.00 ± 0.00 |",
        "| KTAN | 50.00 ± 0.00; +0.00 (+0.00 to +0.00); 6 seeds |",
    ]


def test_the_best_ways_of_a_search_by_hand(tmp_path):
    from summaries import format_best

    values = {
        "small": {
            "logit_distillation": (0.5, 0.6),
            "a": (0.53, 0.61),
            "b": (0.52, 0.6),
            "c": (0.9,),
        },
        "large": {
            "logit_distillation": (0.7,),
            "a": (0.66,),
            "b": (0.71, 0.9),
            "d": (0.9,),
            "supervised": (0.6,),
        },
    }
    for name, methods in values.items():
        (tmp_path / name).mkdir()
        settings = {"title": name, "teacher's validation accuracy": 0.8}
        (tmp_path / name / "settings.json").write_text(json.dumps(settings))
        lines = [
            {"method": method, "seed": seed, "validation_accuracy": value, "seconds": 1.0}
            for method, found in methods.items()
            for seed, value in enumerate(found)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "runs.jsonl").write_text(text)
    # a: (+3 +1) / 2 and -4; b: (+2 +0) / 2 and +1, where only the first seed has a partner.
    assert format_best([tmp_path / name for name in values]).splitlines() == [
        "| method | mean | small (validation images) | large (validation images) |",
        "|---|---|---|---|",
        "| b | +1.00 | +1.00 (2 seeds) | +1.00 (1 seed) |",
        "| a | -1.00 | +2.00 (2 seeds) | -4.00 (1 seed) |",
        "",
        "Not in every experiment: c; d; supervised.",
    ]


def test_candidates_stand_beside_the_default_of_their_own_start(tmp_path):
    from report import main

    values = {
        "logit_distillation": (0.50, 0.52),
        "slim, logit distillation": (0.60, 0.60),
        "selection": (0.55, 0.53),
        "slim, selection": (0.65, 0.63),
        "adversary": (0.56,),
        "slim, adversary": (0.64, 0.68),
    }
    settings = {"title": "T", "teacher's validation accuracy": 0.8, "epochs": 4}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    lines = [
        {"method": method, "seed": seed, "validation_accuracy": value, "seconds": 10.0}
        for method, found in values.items()
        for seed, value in enumerate(found)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "runs.jsonl").write_text(text)
    main([str(tmp_path), "--candidates", str(tmp_path / "found.md")])
    rows = (tmp_path / "found.md").read_text().splitlines()
    assert rows[0] == "T, 4 epochs; validation accuracy."
    # By hand: +1 with the one seed that both have; (-1 +5) / 2 and (+4 +8) / 2.
    assert rows[6:9] == [
        "| adversary | 1 | 56.00 | +1.00 | +1.00 | +6.00 | 2.5 |",
        "| selection | 2 | 54.00 |  |  | +3.00 | 2.5 |",
        "| logit distillation | 2 | 51.00 | -5.00, -1.00 | -3.00 |  | 2.5 |",
    ]
    assert rows[10:15] == [
        "## From the teacher's channels",
        "",
        rows[4],
        rows[5],
        "| adversary | 2 | 66.00 | -1.00, +5.00 | +2.00 | +6.00 | 2.5 |",
    ]


def write_runs(folder, tested_seeds):
    (folder / "test").mkdir(parents=True)
    settings = SETTINGS | {"teacher's validation accuracy": 0.7}
    (folder / "settings.json").write_text(json.dumps(settings))
    runs = [
        {"method": "supervised", "seed": seed, "validation_accuracy": 0.6, "seconds": 1.0}
        for seed in (0, 1)
    ]
    tests = [{"method": "supervised", "seed": seed, "test_accuracy": 0.5} for seed in tested_seeds]
    tests.append({"method": "teacher", "test_accuracy": 0.8})
    for path, lines in (("runs.jsonl", runs), ("test/runs.jsonl", tests)):
        (folder / path).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("tested_seeds", "expected"), [((0, 1), ("test", 0.5, 0.8)), ((0,), ("validation", 0.6, 0.7))]
)
def test_test_and_validation_accuracies_are_never_mixed(tmp_path, tested_seeds, expected):
    from experiment_results import read_runs

    write_runs(tmp_path, tested_seeds)
    _, measure, results, teacher = read_runs(tmp_path)
    assert list(results) == ["supervised"]
    assert (measure, results["supervised"][0][0], teacher) == expected


def test_the_plan_goes_seed_by_seed_and_a_way_may_have_fewer(tiny):
    from accuracy import plan_of
    from experiment import read_experiment

    tiny.write_text(TINY.replace("logits = 1.0", "logits = 1.0\nseeds = 1"))
    experiment = read_experiment(tiny)
    plan = [(seed, method.name) for seed, method in plan_of(experiment, 2)]
    assert plan == [(0, "supervised"), (0, "logit_distillation"), (1, "supervised")]
    assert len(plan_of(experiment.only(["logit_distillation"]), 2)) == 1


@pytest.mark.parametrize(
    ("weight", "at_steps"),
    [
        ("2.0", (2.0, 2.0, 2.0)),
        ("{ decaying = 2.0 }", (2.0, 1.0, 0.0)),  # half a cosine: the middle is half the height
        ("{ early = 2.0 }", (2.0, 0.0, 0.0)),
    ],
)
def test_a_weight_over_the_training(tiny, weight, at_steps):
    from experiment import read_experiment
    from method_distiller import weight_over_training

    tiny.write_text(TINY.replace("logits = 1.0", f"logits = 1.0\nfeature = {weight}"))
    found = weight_over_training(read_experiment(tiny).methods[1].feature, steps=30)
    values = [float(found(step)) if callable(found) else found for step in (0, 15, 30)]
    np.testing.assert_allclose(values, at_steps, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("logits = 1.0\nlogit = 2.0", r"received \['logit'\].*Expected some of"),
        ("library = 'torchdistill'", "library='torchdistill'.*Expected one of"),
        ("student = 'tiny'", "student='tiny'.*Expected one of"),
        ("defaults = true\nlogits = 2.0", "settings beside defaults = true.*Leave"),
        ("distillation_loss = 'KLDivergence'", "library='keras_ktan'.*Leave it out"),
        (
            "library = 'keras.distillation'\ndistillation_loss = 'KLDivergenc'",
            "'KLDivergenc'.*Expected a class of keras.losses",
        ),
    ],
)
def test_an_unknown_word_in_a_file_is_an_error(tiny, wrong, message):
    from experiment import read_experiment

    tiny.write_text(TINY.replace("logits = 1.0", wrong))
    with pytest.raises(ValueError, match=message):
        read_experiment(tiny)


def test_the_committed_experiments_can_be_read_and_the_sizes_differ_in_the_student_alone():
    from experiment import FOLDER, experiment_names, read_experiment

    assert {"digits", "cifar10_16_small", "cifar10_16_large"} <= set(experiment_names())
    for name in experiment_names():
        methods = [method.name for method in read_experiment(FOLDER / f"{name}.toml").methods]
        assert len(set(methods)) == len(methods) > 1
    small, large = (
        tomllib.loads((FOLDER / f"cifar10_16_{name}.toml").read_text())
        for name in ("small", "large")
    )
    different = {name for name in small | large if small.get(name) != large.get(name)}
    assert different <= {"title", "student", "epochs"}  # so they share their teacher


def test_an_experiment_takes_what_it_leaves_out_from_its_base():
    from experiment import FOLDER, read_experiment

    base, second = (
        read_experiment(FOLDER / f"recipe_cifar10_16_small{name}.toml")
        for name in ("", "_teacher_2")
    )
    assert base.teacher_seed != second.teacher_seed
    assert dataclasses.replace(second, title=base.title, teacher_seed=base.teacher_seed) == base
    # Of two files, the nearer one counts.
    assert base.epochs == 30 and read_experiment(FOLDER / "cifar10_16_small.toml").epochs == 60


@pytest.mark.long
def test_supervised_is_plain_training_of_the_student(tiny, tmp_path):
    """Also through the cache: all methods have the same order, views and initial weights."""
    from experiment import read_experiment
    from runner import Runner
    from tasks import load_task

    tiny.write_text(TINY.replace("epochs = 1", "epochs = 2"))
    experiment = read_experiment(tiny)
    runner = Runner(experiment, load_task(experiment), tmp_path / "teachers")
    supervised = experiment.methods[0]
    trained, _, _ = runner.train(supervised, seed=3)
    keras.utils.set_random_seed(3)
    student = runner.make_student()
    student.compile(
        runner.make_optimizer(experiment.learning_rate, runner.steps), loss=loss_from_logits()
    )
    keras.utils.set_random_seed(3)
    data = runner.make_plain_data(3)
    student.fit(data, epochs=2, callbacks=[data.callback], shuffle=False, verbose=0)
    # One input pipeline has an entry more than the other, and threads may split the work unlike.
    for one, other in zip(snapshot(trained), snapshot(student), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_keras_own_distiller_can_be_given_a_loss_that_takes_probabilities(tiny, tmp_path):
    from experiment import read_experiment
    from runner import Runner
    from tasks import load_task

    library = 'library = "keras.distillation"\ntemperature = 2.0'
    tiny.write_text(
        TINY.replace("logits = 1.0", f'{library}\ndistillation_loss = "KLDivergence"')
        + f"\n[methods.default]\n{library}"
    )
    experiment = read_experiment(tiny)
    runner = Runner(experiment, load_task(experiment), tmp_path / "teachers")
    teacher, student = np.log([[0.5, 0.5]]) * 2.0, np.log([[0.8, 0.2]]) * 2.0
    values = []
    for method in experiment.methods[1:]:
        (loss,) = runner._distiller_of_keras(method, runner.make_student()).distillation_losses
        given = (values.astype("float32") for values in (teacher, student))
        values.append(float(keras.ops.convert_to_numpy(loss.compute_loss(*given))))
    # At temperature 2 these are the probabilities; T² times their divergence.
    assert values[0] == pytest.approx(4 * np.log(0.25 / 0.16) / 2, rel=1e-5)
    assert values[1] != pytest.approx(values[0], rel=0.1)


@pytest.mark.long
def test_a_teacher_may_see_other_images_than_the_students(tiny, tmp_path):
    import tensorflow as tf
    from experiment import read_experiment
    from runner import Runner
    from tasks import load_task

    tiny.write_text("teacher_augmented = true\n" + TINY)
    experiment = read_experiment(tiny)
    task = load_task(experiment)
    with pytest.raises(ValueError, match="teacher_augmented = true with task = 'digits'"):
        Runner(experiment, task, tmp_path / "teachers")

    def darkened(factor):
        images, labels = task.train
        data = tf.data.Dataset.from_tensor_slices((factor * images, labels))
        return dataclasses.replace(task, make_augmented=lambda size, seed: data.batch(size))

    teachers = {
        factor: Runner(experiment, darkened(factor), tmp_path / "teachers").teacher
        for factor in (0.5, 0.25)
    }
    keras.utils.set_random_seed(experiment.teacher_seed)
    expected = task.make_model(experiment.teacher, "teacher")
    steps = Runner(experiment, darkened(0.5), tmp_path / "teachers")
    data = darkened(0.5).make_augmented(experiment.batch_size, experiment.teacher_seed)
    expected.compile(
        steps.make_optimizer(experiment.teacher_learning_rate, 4), loss=loss_from_logits()
    )
    expected.fit(data, epochs=steps.teacher_epochs, shuffle=False, verbose=0)
    for one, other in zip(snapshot(teachers[0.5]), snapshot(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    # Images that are moved otherwise are another teacher's.
    assert_changed(snapshot(teachers[0.5]), snapshot(teachers[0.25]))


@pytest.mark.long
def test_runs_side_by_side_are_those_that_come_one_after_another_though_one_fails(tiny, tmp_path):
    from experiment import read_experiment
    from runner import Runner
    from tasks import load_task
    from workers import settings_of_method, weights_path

    impossible = (
        "[methods.impossible]\nadversarial = 0.1\ndiscriminator = { noise_stddev = -1.0 }\n"
    )
    tiny.write_text(TINY.replace("[methods.supervised]", impossible + "[methods.supervised]"))
    output = tmp_path / "output"
    # As it is typed: TensorFlow's threads are settled before it starts.
    command = [sys.executable, str(BENCHMARKS / "accuracy.py"), str(tiny), "--output", str(output)]
    failed = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True)
    assert failed.returncode == 1
    assert "The run of 'impossible' with seed 0 failed" in failed.stderr
    lines = (output / "runs.jsonl").read_text().splitlines()
    runs = {run["method"]: run for run in map(json.loads, lines)}
    assert runs.keys() == {"supervised", "logit_distillation"}
    experiment = read_experiment(tiny)
    runner = Runner(experiment, load_task(experiment), tmp_path / "teachers")
    student = runner.make_student()
    for method in experiment.methods[1:]:
        student.load_weights(weights_path(output, 0, method))
        expected, history, _ = runner.train(method, 0)
        # Threads may split the work unlike.
        for one, other in zip(snapshot(student), snapshot(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        run = runs[method.name]
        assert (run["settings"], run["workers"]) == (settings_of_method(method), 2)
        assert run["history"]["loss"] == pytest.approx(history["loss"], abs=1e-4)
    # Runs with other threads would be others.
    alone = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True)
    assert alone.returncode == 2
    assert "threads of a run (--threads) was 1, now TensorFlow's own" in alone.stderr


def test_a_worker_ends_with_the_process_that_started_it(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        """
import multiprocessing, os, signal, time
from orphans import end_with_parent

def work(pipe):
    end_with_parent()
    pipe.send("works")
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=work, args=(there,)).start()
    print(here.recv(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    # This waits for everybody who holds the pipe that they write to, so for the worker, too.
    ended = subprocess.run(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS)},
    )
    assert (ended.stdout.split(), ended.returncode) == ([b"works"], -signal.SIGKILL)


def test_every_worker_is_one_that_ends_with_its_parent(monkeypatch):
    import workers

    done = []
    monkeypatch.setattr(workers, "end_with_parent", lambda: done.append("tied"))
    monkeypatch.setattr(workers, "limit_threads", lambda count: done.append(count))
    monkeypatch.setattr(workers.signal, "signal", lambda number, act: done.append(number))
    with workers.started_workers(1, 3) as pool:
        assert pool is None and done == []

    def executor(count, context, initializer, arguments):
        initializer(*arguments)
        return contextlib.nullcontext(concurrent.futures.ThreadPoolExecutor(count))

    monkeypatch.setattr(workers.concurrent.futures, "ProcessPoolExecutor", executor)
    with workers.started_workers(2, 3):
        assert done == [signal.SIGINT, "tied", 3]


@pytest.mark.long
def test_an_experiment_runs_once_reads_the_test_at_the_end_and_refuses_a_mixture(
    tiny, tmp_path, monkeypatch, capsys
):
    import accuracy

    output = tmp_path / "output"
    arguments = [str(tiny), "--output", str(output), "--workers", "1"]
    accuracy.main([*arguments, "--methods", "supervised"])
    assert not (output / "test").exists()
    assert "validation accuracy" in (output / "table.md").read_text()
    accuracy.main(arguments)
    runs = (output / "runs.jsonl").read_text()
    assert [json.loads(line)["method"] for line in runs.splitlines()] == [
        "supervised",
        "logit_distillation",
    ]
    table = (output / "table.md").read_text()
    assert "test accuracy" in table
    tested = [json.loads(line) for line in (output / "test" / "runs.jsonl").open()]
    images, labels = accuracy.load_task(accuracy.read_experiment(tiny)).load_test()
    student = keras.saving.load_model(next((tmp_path / "teachers").glob("*.keras")))
    assert tested[0]["method"] == "teacher"
    predicted = np.argmax(student.predict(images, verbose=0), axis=-1)
    assert tested[0]["test_accuracy"] == pytest.approx(np.mean(predicted == labels), abs=1e-9)
    # The same command again trains nothing and reads nothing.
    accuracy.main(arguments)
    assert (output / "runs.jsonl").read_text() == runs
    assert (output / "table.md").read_text() == table
    # Another version of the code, other settings.
    capsys.readouterr()
    monkeypatch.setattr(accuracy, "code_digest", lambda: "another")
    with pytest.raises(SystemExit):
        accuracy.main(arguments)
    assert "code was" in capsys.readouterr().err
    monkeypatch.undo()
    tiny.write_text(TINY.replace("0.03", "0.02"))
    with pytest.raises(SystemExit):
        accuracy.main(arguments)
    assert "learning_rate was 0.03, now 0.02" in capsys.readouterr().err
    # Another method of the same name; a further method is welcome.
    tiny.write_text(TINY.replace("logits = 1.0", "logits = 2.0"))
    with pytest.raises(SystemExit):
        accuracy.main(arguments)
    assert "'logits': 1.0" in capsys.readouterr().err


@pytest.mark.long
def test_a_given_teacher_is_taken_as_it_is_and_named_in_the_settings(tiny, tmp_path, capsys):
    import accuracy
    from experiment import read_experiment
    from tasks import load_task

    from keras_ktan_tasks.run_log import digest

    experiment = read_experiment(tiny)
    teacher = load_task(experiment).make_model(experiment.teacher, "teacher")
    teacher.save(tmp_path / "given.keras")
    output = str(tmp_path / "output")
    arguments = [str(tiny), "--output", output, "--methods", "supervised", "--workers", "1"]
    accuracy.main([*arguments, "--teacher", str(tmp_path / "given.keras")])
    settings = json.loads((tmp_path / "output" / "settings.json").read_text())
    assert settings["teacher's weights"] == digest(teacher.get_weights())
    assert settings["teacher was given"]
    assert not list((tmp_path / "teachers").glob("*.keras"))  # none was trained
    load_task(experiment).make_model(experiment.student, "student").save(tmp_path / "small.keras")
    with pytest.raises(SystemExit):
        accuracy.main([*arguments, "--teacher", str(tmp_path / "small.keras")])
    assert "Expected the experiment's teacher" in capsys.readouterr().err
    # With another one, or without, these runs are not gone on with; none is trained for nothing.
    load_task(experiment).make_model(experiment.teacher, "teacher").save(tmp_path / "other.keras")
    with pytest.raises(SystemExit):
        accuracy.main([*arguments, "--teacher", str(tmp_path / "other.keras")])
    assert "teacher's weights was" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        accuracy.main(arguments)
    assert "teacher was given was True, now False" in capsys.readouterr().err
    assert not list((tmp_path / "teachers").glob("*.keras"))


DETECTION = """
title = "Tiny shapes"
task = "detection"
epochs = 1
batch_size = 16
learning_rate = 0.01
teacher_learning_rate = 0.01
seeds = 1

[data]
dataset = "shapes"
image_size = [48, 64]
versions = 2
held_out = 80

[teacher]
widths = [8, 8, 8, 8]
pyramid_width = 8

[student]
widths = [4, 4, 4, 4]
pyramid_width = 4

[methods.KTAN]
logits = 10.0
temperature = 1.0
feature = { decaying = 0.3 }
adversarial = { decaying = 0.001 }
layers = { box_head_P3 = "student_head" }
"""


@pytest.mark.long
def test_detectors_are_measured_by_their_average_precision(tmp_path):
    import accuracy
    import tensorflow as tf
    from experiment import read_experiment
    from tasks import load_task
    from workers import weights_path

    from keras_ktan_tasks.detection import evaluate
    from keras_ktan_tasks.detection_data import SHAPE_NAMES, make_shapes, split_pictures

    path, output = tmp_path / "shapes.toml", tmp_path / "output"
    path.write_text(DETECTION)
    # One step of each: building the graphs would take longer.
    tf.config.run_functions_eagerly(True)
    try:
        accuracy.main([str(path), "--output", str(output), "--workers", "1"])
    finally:
        tf.config.run_functions_eagerly(False)
    experiment = read_experiment(path)
    student = load_task(experiment).make_model(experiment.student, "student")
    student.load_weights(weights_path(output, 0, experiment.methods[0]))
    teacher = keras.saving.load_model(next((tmp_path / "teachers").glob("*.keras")))
    _, held_out = split_pictures(make_shapes(96, (48, 64), seed=0), 80)
    pictures = {"validation": held_out, "test": make_shapes(32, (48, 64), seed=1)}
    expected = {
        (part, detector.name): evaluate(detector, pictures[part], (48, 64), SHAPE_NAMES)["AP"]
        for part in pictures
        for detector in (student, teacher)
    }
    # One epoch over 16 pictures in 1 batch: the teacher's rate has come down to 0, though the
    # students see them in two versions.
    assert float(teacher.optimizer.learning_rate) == pytest.approx(0.0, abs=1e-9)
    assert len(set(expected.values())) > 1  # else any of them would do
    (run,) = map(json.loads, (output / "runs.jsonl").open())
    settings = json.loads((output / "settings.json").read_text())
    read_once = {run["method"]: run for run in map(json.loads, (output / "test/runs.jsonl").open())}
    assert {
        ("validation", "student"): run["validation_AP"],
        ("validation", "teacher"): settings["teacher's validation AP"],
        ("test", "student"): read_once["KTAN"]["test_AP"],
        ("test", "teacher"): read_once["teacher"]["test_AP"],
    } == pytest.approx(expected, abs=1e-6)
    table = (output / "table.md").read_text()
    assert "test AP, mean ± sd" in table
    assert f"| KTAN | 1 | {100 * expected['test', 'student']:.2f} |" in table


def test_the_experiment_with_blood_cells_is_the_one_of_the_example(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS.parent / "examples"))
    import distill_detector as example
    from experiment import FOLDER, read_experiment

    experiment = read_experiment(FOLDER / "bccd.toml")
    networks = (experiment.teacher, experiment.student)
    for network, expected in zip(networks, example.networks(False), strict=True):
        assert network == {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in expected.items()
        }
    assert experiment.epochs == example.STUDENT_EPOCHS
    assert experiment.teacher_epochs == example.TEACHER_EPOCHS
    assert experiment.data["versions"] == example.VIEWS
    assert experiment.learning_rate == example.STUDENT_RATE
    assert experiment.teacher_learning_rate == example.TEACHER_RATE
    methods = {method.name: method for method in experiment.methods}
    for name, theirs in {
        "supervised": "supervised",
        "logit_distillation": "logit_distillation",
        "feature_distillation": "feature_distillation",
        "KTAN": "KTAN",
    }.items():
        method = methods[name]
        pairs, weights = example.make_objectives(theirs, steps=1)
        assert method.layers == {pair.teacher_layer_name: "student_head" for pair in pairs}
        assert {pair.teacher_to_student.objective for pair in pairs} == {"student_head"}
        assert method.logits == weights["logits_loss_weight"]
        for term in ("feature", "adversarial"):
            expected = weights[f"{term}_loss_weight"]
            if expected:  # a schedule
                expected = {"decaying": expected.get_config()["initial_learning_rate"]}
            assert getattr(method, term) == expected
        if method.logits:
            assert method.temperature == example.TEMPERATURE
