"""What stands below the table of a report."""

import collections


def remarks(report):
    """Sentences on what the numbers leave out, the classes that lost, and what looks wrong.

    Args:
        report: A `CompressionReport`.

    Returns:
        A list of lines.
    """
    lines = [f"WARNING: {warning}" for warning in report.warnings]
    sizes = {"teacher": report.teacher, "student": report.student}
    for role, size in sizes.items():
        if size.uncounted_layers:
            lines.append(f"MACs of the {role} leave out: {', '.join(size.uncounted_layers)}")
    unseen = sorted({name for size in sizes.values() for name in size.unseen_classes})
    if unseen:
        lines.append(
            f"MACs leave out what {', '.join(unseen)} multiply by operations in their own `call`, "
            "if anything: `macs_rules` counts it"
        )
    if report.latencies:
        runs = report.latencies["student"].runs
        lines.append(
            f"latency of one example, {runs} runs: the models by `predict_on_batch`, whose own "
            f"milliseconds are included, {report.device}"
        )
        if report.files:
            lines.append("latency of the files: by their own runtimes, on the same machine's CPU")
    if report.examples:
        lines.append(f"data: {report.examples:,} examples")
    if report.class_losses:
        listed = ", ".join(
            f"class {loss.label} {loss.teacher:.1%} to {loss.student:.1%} (of {loss.examples})"
            for loss in report.class_losses
        )
        lines.append(f"classes that lost most: {listed}")
    shares = collections.Counter(
        round(kept / total, 2) for kept, total in report.kept_widths.values()
    )
    if shares:
        counts = ", ".join(f"{share:g} in {count}" for share, count in sorted(shares.items()))
        lines.append(f"share of the channels kept, in how many layers: {counts}")
    return lines + list(report.notes)
