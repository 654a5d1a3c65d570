"""Matplotlib, where it is installed."""


def figure_class():
    """The class of a figure, without a window and without global state.

    Raises:
        ImportError: If the matplotlib package is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "The matplotlib package is not installed. Expected it for pictures. Install it with "
            '`pip install "keras-ktan[plots]"`.'
        ) from error
    return Figure
