"""Images per second of KTAN against the sum of its parts, on every backend, type and compiler.

Starts `step_time.py` in a process of its own for each combination, and writes one table. On a
machine with a GPU, with the three backends installed:

    python benchmarks/images_per_second.py

XLA on and off are Keras's `jit_compile`: on JAX without it every operation is dispatched on its
own, on torch with it the step goes through `torch.compile`. What does not run is named in the
table with the last line of its error.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

BENCHMARKS = pathlib.Path(__file__).resolve().parent
STUDENT, TEACHER, KTAN = "student.fit", "teacher.predict", "KTAN: + adversary"


def measure(models, backend, dtype, jit_compile, options):
    """One combination in a process of its own.

    Args:
        models: Name of the pair of models, as `step_time.py` knows it.
        backend: The name of the backend.
        dtype: `"float32"` or `"bfloat16"`.
        jit_compile: Whether to compile with XLA.
        options: List of further options of `step_time.py`.

    Returns:
        Dict with the combination and what `step_time.py` wrote, or `"error"` in its place.
    """
    combination = {"models": models, "backend": backend, "dtype": dtype, "xla": jit_compile}
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "result"
        command = [sys.executable, str(BENCHMARKS / "step_time.py"), "--models", models]
        command += ["--dtype", dtype, "--only", TEACHER, KTAN, "--output", str(output), *options]
        command += ["--jit-compile"] if jit_compile else []
        finished = subprocess.run(
            command,
            env={**os.environ, "KERAS_BACKEND": backend},
            stderr=subprocess.PIPE,
            text=True,
        )
        if finished.returncode != 0:
            lines = finished.stderr.strip().splitlines() or ["no message"]
            return {**combination, "error": lines[-1][:200]}
        return {**combination, **json.loads(output.with_suffix(".json").read_text())}


def format_table(results):
    """A Markdown table of medians.

    The sum of the parts is what a step would give that trains the student and runs the teacher,
    one after the other, and does nothing else.

    Args:
        results: List of what `measure` gave.

    Returns:
        Markdown text.
    """
    lines = [
        "| models | backend | type | XLA | student.fit | teacher.predict | sum of the parts "
        "| KTAN | KTAN / sum |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        start = (
            f"| {result['models']} | {result['backend']} | {result['dtype']} "
            f"| {'on' if result['xla'] else 'off'} |"
        )
        if "error" in result:
            lines.append(f"{start} did not run: {result['error'].replace('|', '/')} | | | | |")
            continue
        student, teacher, ktan = (
            statistics.median(result["seconds_per_step"][name]) for name in (STUDENT, TEACHER, KTAN)
        )
        cells = [
            f"{result['batch_size'] / seconds:.0f}"
            for seconds in (student, teacher, student + teacher, ktan)
        ]
        lines.append(f"{start} {' | '.join(cells)} | {(student + teacher) / ktan:.2f} |")
    return "\n".join(lines)


def format_page(results):
    """The whole page: on what it was measured, and the table.

    Args:
        results: List of what `measure` gave.

    Returns:
        Markdown text.
    """
    devices = sorted({result["device"] for result in results if "device" in result})
    return (
        f"Images per second, median of the rounds, on: {'; '.join(devices) or 'nothing that ran'}."
        f"\n\n{format_table(results)}\n"
    )


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="+", default=["resnet56-resnet20", "resnet50-resnet18"], metavar="PAIR"
    )
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--xla", nargs="+", choices=["off", "on"], default=["off", "on"])
    parser.add_argument("--batch-size", type=int, help="images in a batch; default: the pair's")
    parser.add_argument("--image-size", type=int, help="height and width; default: the pair's")
    parser.add_argument("--steps", type=int, default=20, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument(
        "--profile",
        type=pathlib.Path,
        metavar="FOLDER",
        help="write the backend's own trace of a round of each there; shows where a step's time "
        "goes on a GPU",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=BENCHMARKS / "results" / "images_per_second",
        help="where to write OUTPUT.json and OUTPUT.md",
    )
    arguments = parser.parse_args(argv)
    options = ["--steps", str(arguments.steps), "--rounds", str(arguments.rounds)]
    if arguments.batch_size:
        options += ["--batch-size", str(arguments.batch_size)]
    if arguments.image_size:
        options += ["--image-size", str(arguments.image_size)]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    results = []
    for models, backend, dtype, xla in itertools.product(
        arguments.models, arguments.backends, arguments.dtypes, arguments.xla
    ):
        print(f"{models}, {backend}, {dtype}, XLA {xla}", flush=True)
        more = []
        if arguments.profile:
            more = ["--profile", str(arguments.profile / f"{models}_{backend}_{dtype}_xla_{xla}")]
        results.append(measure(models, backend, dtype, xla == "on", options + more))
        # Written after each: a stopped run keeps its rows.
        arguments.output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        arguments.output.with_suffix(".md").write_text(format_page(results))
    print(f"\n{format_page(results)}")


if __name__ == "__main__":
    main()
