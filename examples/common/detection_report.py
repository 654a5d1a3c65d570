"""What a detection experiment shows: a table, a picture, and the shipped model checked."""

import pathlib
import time

import numpy as np
import tensorflow as tf

from keras_ktan import compression_report, export_student
from keras_ktan_tasks.comparison import mean_and_deviation, method_title

COLOURS = ("limegreen", "tab:blue", "tab:red", "gold", "tab:purple")


def export_with_decoding(detector, path, image):
    """Write a detector as it is shipped, and see what that costs.

    Args:
        detector: A `CompactDetector`.
        path: `pathlib.Path` of the SavedModel: images in; boxes, scores and classes out.
        image: Array `(1, height, width, 3)` to measure the time with.

    Returns:
        Dict of `"saved_model_bytes"` and `"milliseconds"`, the median time of one image.
    """
    export_student(detector.with_decoding(), path, verbose=False)
    size = sum(file.stat().st_size for file in pathlib.Path(path).rglob("*") if file.is_file())
    serve = tf.saved_model.load(path).signatures["serving_default"]
    image, seconds = tf.constant(image), []
    for _ in range(60):
        start = time.perf_counter()
        serve(image=image)["scores"].numpy()
        seconds.append(time.perf_counter() - start)
    # The first calls still prepare.
    return {
        "saved_model_bytes": size,
        "milliseconds": round(1000 * float(np.median(seconds[10:])), 2),
    }


def format_results(results, costs, teacher, student, class_names):
    """Compare the models in two tables.

    Args:
        results: Dict from `"teacher"` and each method to a list of dicts of AP, one a seed.
        costs: Dict from `"teacher"` and `"student"` to what `export_with_decoding` returned.
        teacher: The teacher.
        student: A student.
        class_names: List of names.

    Returns:
        Two Markdown tables: AP, mean ± sd over the seeds, with the gain over the supervised
        baseline and its standard error, seed by seed; and sizes.
    """
    names = ["AP", "AP50", "AP75", *(f"AP {name}" for name in class_names)]
    lines = [
        "| | " + " | ".join(names) + " | AP against the supervised baseline |",
        "|---" * (len(names) + 2) + "|",
    ]
    base = results.get("supervised")
    for method, found in results.items():
        row = f"| {method_title(method)} |"
        for name in names:
            mean, deviation = mean_and_deviation([100 * run[name] for run in found])
            row += f" {mean:.1f} |" if method == "teacher" else f" {mean:.1f} ± {deviation:.1f} |"
        if base and method not in ("teacher", "supervised"):
            pairs = zip(found, base, strict=True)
            gain, spread = mean_and_deviation([100 * (run["AP"] - own["AP"]) for run, own in pairs])
            row += f" {gain:+.1f} ± {spread / np.sqrt(len(found)):.1f} (standard error)"
        lines.append(row + " |")
    report = compression_report(teacher, student)
    rows = [
        ("parameters", report.teacher.parameters, report.student.parameters),
        ("MACs", report.teacher.macs, report.student.macs),
        ("bytes of the SavedModel", *(costs[r]["saved_model_bytes"] for r in costs)),
        ("milliseconds an image", *(costs[r]["milliseconds"] for r in costs)),
    ]
    lines += ["", "| | teacher | student | times smaller |", "|---|---|---|---|"]
    lines += [f"| {name} | {big:,} | {small:,} | {big / small:.1f} |" for name, big, small in rows]
    return "\n".join(lines)


def draw_detections(images, columns, class_names, path, least_score=0.4):
    """Pictures with boxes, a column a model.

    Args:
        images: Array `(count, height, width, 3)` from 0 to 255, one row each.
        columns: Dict from a title to a dict of arrays: `"boxes"` `(count, boxes, 4)` in shares
            of the picture, `"classes"` and, unless it is the truth, `"scores"` `(count, boxes)`.
        class_names: List of names.
        path: Where to write the PNG.
        least_score: Boxes below it are not drawn.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle
    from PIL import Image

    count, height, width = images.shape[:3]
    figure = Figure(
        figsize=(3 * len(columns), 3 * count * height / width + 0.5), layout="constrained"
    )
    grid = figure.subplots(count, len(columns), squeeze=False)
    for column, (heading, found) in enumerate(columns.items()):
        grid[0, column].set_title(heading)
        for row in range(count):
            axes = grid[row, column]
            # From edge to edge, as boxes count; else from the first pixel's centre.
            axes.imshow(images[row].astype("uint8"), extent=(0, width, height, 0))
            axes.set_axis_off()
            scores = found.get("scores", np.ones(found["classes"].shape))[row]
            for index in np.flatnonzero((scores >= least_score) & (found["classes"][row] >= 0)):
                y, x, bottom, right = found["boxes"][row][index] * [height, width, height, width]
                colour = COLOURS[int(found["classes"][row][index]) % len(COLOURS)]
                axes.add_patch(
                    Rectangle((x, y), right - x, bottom - y, fill=False, edgecolor=colour, lw=1.2)
                )
    handles = [
        Patch(color=COLOURS[index % len(COLOURS)], label=name)
        for index, name in enumerate(class_names)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
    figure.savefig(path, dpi=110)
    # 256 colours: a third of the bytes. The rare ones, boxes and legend, must not be merged.
    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
        reduced.save(path, optimize=True)
