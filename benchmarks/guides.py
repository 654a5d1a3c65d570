"""The small tables of the guides in docs/guides: four methods, three seeds, minutes on one core.

    python benchmarks/guides.py multi_label

trains a teacher and its students, and writes the table `benchmarks/results/guides/multi_label.md`
and the runs to `runs.jsonl` beside it. Each seed draws the student's examples, the order of
batches and the weights of a random start. Every method has the same examples and as many passes
over them. No setting was chosen on the test examples: width and passes stood before the first run.
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np
from guide_tasks import STUDENT_EXAMPLES, TASKS, TEACHER_EXAMPLES, TEST_EXAMPLES

from keras_ktan import KTANDistiller, slim_student

BATCH_SIZE = 32
# With so few examples what Keras does between epochs costs more than an epoch itself.
PASSES_A_CALL = 10
RESULTS = pathlib.Path(__file__).parent / "results" / "guides"
NOTHING = {"logits_loss_weight": 0.0, "feature_loss_weight": 0.0, "adversarial_loss_weight": 0.0}
# Where the student's weights begin, and what differs from the defaults of `compile`.
METHODS = {
    "supervised baseline, random start": ("random", NOTHING),
    "supervised baseline": ("teacher", NOTHING),
    "logit distillation": ("teacher", {**NOTHING, "logits_loss_weight": None}),
    "KTAN by default": ("teacher", {}),
    "KTAN with an adversary": ("teacher", {"adversarial_loss_weight": 0.02}),
}


def compile_model(model, task, examples, epochs, **weights):
    """Compile a teacher or a distiller with Adam and cosine decay."""
    steps = epochs * -(-examples // BATCH_SIZE)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        task.loss(),
        jit_compile=False,
        **weights,
    )


def scores(model, task, x, y):
    """What the metrics of a task say of a model."""
    outputs = model.predict(x, batch_size=250, verbose=0)
    found = {}
    for name, metric in task.metrics().items():
        metric.update_state(y, outputs)
        found[name] = float(metric.result()) * (100 if name.endswith("%") else 1)
    return found


def run(name, seeds, epochs=None):
    """Train the teacher and every method with every seed.

    Args:
        name: A name in `TASKS`.
        seeds: List of integers.
        epochs: Passes for all, in place of the task's own; for a test.

    Returns:
        A list of dicts, one a run.
    """
    task = TASKS[name]
    keras.utils.set_random_seed(1234)
    x, y = task.data()
    test = x[TEACHER_EXAMPLES:][:TEST_EXAMPLES], y[TEACHER_EXAMPLES:][:TEST_EXAMPLES]
    x, y = x[:TEACHER_EXAMPLES], y[:TEACHER_EXAMPLES]
    teacher = task.teacher()
    begun = time.time()
    compile_model(teacher, task, len(x), epochs or task.teacher_epochs)
    teacher.fit(x, y, batch_size=BATCH_SIZE, epochs=epochs or task.teacher_epochs, verbose=0)
    runs = [_record(name, "teacher", None, teacher, task, test, begun)]
    passes = epochs or task.student_epochs
    for method, (start, weights) in METHODS.items():
        if method == "KTAN with an adversary" and not task.with_adversary:
            continue
        distiller = KTANDistiller(teacher, slim_student(teacher, task.width, name="student"))
        compile_model(distiller, task, STUDENT_EXAMPLES * passes, 1, **weights)
        variables = [*distiller.variables, *distiller.optimizer.variables]
        fresh = [variable.numpy() for variable in variables]
        for seed in seeds:
            begun = time.time()
            for variable, value in zip(variables, fresh, strict=True):
                variable.assign(value)
            keras.utils.set_random_seed(seed)
            if start == "random":
                student = slim_student(teacher, task.width, initialize="random")
                distiller.student.set_weights(student.get_weights())
            chosen = np.random.default_rng(seed).permutation(len(x))[:STUDENT_EXAMPLES]
            for done in range(0, passes, PASSES_A_CALL):
                rows = np.tile(chosen, min(PASSES_A_CALL, passes - done))
                distiller.fit(x[rows], y[rows], batch_size=BATCH_SIZE, verbose=0)
            runs.append(_record(name, method, seed, distiller, task, test, begun))
    return runs


def _record(name, method, seed, model, task, test, begun):
    record = {
        "task": name,
        "method": method,
        "seed": seed,
        "parameters": getattr(model, "student", model).count_params(),
        "scores": scores(model, task, *test),
        "seconds": round(time.time() - begun, 1),
    }
    print(record, flush=True)
    return record


def table(runs):
    """The runs of one task as a Markdown table, mean ± standard deviation over the seeds."""
    metrics = list(runs[0]["scores"])
    lines = [
        f"| method | parameters | {' | '.join(metrics)} |",
        "|---|---|" + "---|" * len(metrics),
    ]
    for method in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == method]
        cells = []
        for metric in metrics:
            values = [run["scores"][metric] for run in own]
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}")
        lines.append(f"| {method} | {own[0]['parameters']:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def save(name, runs, folder):
    """Write the table, and the runs in place of earlier ones of the same task."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "runs.jsonl"
    lines = kept.read_text().splitlines() if kept.exists() else []
    lines = [line for line in lines if json.loads(line)["task"] != name]
    kept.write_text("\n".join([*lines, *map(json.dumps, runs)]) + "\n")
    (folder / f"{name}.md").write_text(table(runs))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="passes for all, for a quick look")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    runs = run(chosen.task, chosen.seeds, chosen.epochs)
    save(chosen.task, runs, chosen.output)
    print(table(runs))


if __name__ == "__main__":
    main()
