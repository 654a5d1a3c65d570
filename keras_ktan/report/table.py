"""The table of a report, as text and as Markdown."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        label: What is measured.
        values: Dict from column names to texts; a column that is missing stays empty.
        ratio: How many times smaller the student is, as text.
    """

    label: str
    values: dict
    ratio: str = ""


RATIO = "times smaller"


def table_rows(report):
    """The lines of a report's table.

    Args:
        report: A `CompressionReport`.

    Returns:
        A list of `Row`.
    """
    rows = [
        _size_row(report, "parameters", "parameters"),
        _size_row(report, "MACs", "macs", report.macs_are_complete),
        _size_row(report, "weight bytes", "weight_bytes"),
    ]
    if report.files:
        rows.append(Row("file bytes", {file.name: f"{file.bytes:,}" for file in report.files}))
    rows.append(_peak_row(report))
    for percentile in ("p50", "p95"):
        values = {
            name: _milliseconds(getattr(latency, percentile))
            for name, latency in report.latencies.items()
        }
        rows.append(Row(f"latency {percentile}, ms", values))
    for label, field, form in (
        ("accuracy", "accuracy", "{:.1%}"),
        ("agreement with the teacher", "agreement", "{:.1%}"),
        ("expected calibration error", "calibration_error", "{:.3f}"),
    ):
        found = {name: getattr(quality, field) for name, quality in report.qualities.items()}
        values = {name: form.format(value) for name, value in found.items() if value is not None}
        rows.append(Row(label, values))
    metrics = dict.fromkeys(
        name for quality in report.qualities.values() for name in quality.metrics
    )
    for metric in metrics:
        values = {
            name: f"{quality.metrics[metric]:.4g}"
            for name, quality in report.qualities.items()
            if metric in quality.metrics
        }
        rows.append(Row(metric, values))
    return [row for row in rows if row.values]


def as_text(report):
    """The table with aligned columns.

    Args:
        report: A `CompressionReport`.

    Returns:
        A list of lines.
    """
    rows = table_rows(report)
    header = ["", "teacher", "student", RATIO, *(file.name for file in report.files)]
    return aligned([header, *(_cells(row, report) for row in rows)])


def aligned(cells):
    """Rows of cells as lines, the first column to the left and the others to the right.

    Args:
        cells: List of lists of texts, all of the same length.

    Returns:
        A list of lines.
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if not index else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def as_markdown(report):
    """The table in Markdown.

    Args:
        report: A `CompressionReport`.

    Returns:
        A list of lines.
    """
    header = ["", "teacher", "student", RATIO, *(f"`{file.name}`" for file in report.files)]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    lines += [_cells(row, report) for row in table_rows(report)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cells(row, report):
    names = [file.name for file in report.files]
    values = [row.values.get(name, "") for name in ("teacher", "student", *names)]
    return [row.label, *values[:2], row.ratio, *values[2:]]


def _size_row(report, label, field, is_complete=True):
    sizes = {role: getattr(getattr(report, role), field) for role in ("teacher", "student")}
    values = {role: _number(size) for role, size in sizes.items()}
    ratio = "-"
    if is_complete and None not in sizes.values():
        ratio = f"{sizes['teacher'] / max(sizes['student'], 1):.1f}"
    return Row(label, values, ratio)


def _peak_row(report):
    field = "peak_activation_bytes"
    row = _size_row(
        report,
        "peak activation bytes",
        field,
        report.teacher.peak_is_complete and report.student.peak_is_complete,
    )
    values = {
        role: value if getattr(report, role).peak_is_complete else f"at least {value}"
        for role, value in row.values.items()
    }
    return dataclasses.replace(row, values=values)


def _milliseconds(value):
    # A small file takes microseconds.
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _number(size):
    return "open size" if size is None else f"{size:,}"
