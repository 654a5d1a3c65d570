"""The methods that were trained, side by side."""

from keras_ktan.report.table import aligned


def method_table(methods, markdown=True):
    """A table of the best epochs.

    Args:
        methods: `CompressionResult.methods`.
        markdown: Whether it is Markdown, or columns of text.

    Returns:
        Text.
    """
    monitor = next(iter(methods.values()))["monitor"]
    tests = list(next(iter(methods.values()))["test"])
    header = ["method", "best epoch", monitor, *(f"test {name}" for name in tests)]
    lines = []
    for method, found in methods.items():
        values = [f"{value:.4f}" for value in (found["best"], *found["test"].values())]
        of = len(found["history"])
        lines.append([method_title(method), f"{found['best_epoch']} of {of}", *values])
    if not markdown:
        return "\n".join(aligned([header, *lines]))
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def method_title(method):
    """A method's name as people write it."""
    return method.replace("_", " ")


def better_baseline(methods, mode):
    """The baseline that surpasses KTAN on the validation data.

    Args:
        methods: `CompressionResult.methods`.
        mode: `"min"` or `"max"`.

    Returns:
        Its name, or `None`.
    """
    sign = 1 if mode == "max" else -1
    best = max(methods, key=lambda method: sign * methods[method]["best"])
    return best if sign * methods[best]["best"] > sign * methods["KTAN"]["best"] else None
