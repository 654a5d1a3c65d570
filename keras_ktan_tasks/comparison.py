"""Several runs of a method: mean, deviation, and the paired difference to another method."""

import numpy as np
from scipy import stats  # scikit-learn brings it


def paired_interval(differences):
    """Mean difference and half of its 95 % interval, by Student's t.

    Args:
        differences: Array of one difference a seed, one or more.

    Returns:
        A tuple `(mean, half width)`; the half width of a single difference is NaN.
    """
    differences = np.asarray(differences)
    count = len(differences)
    if count < 2:
        return float(differences.mean()), float("nan")
    error = differences.std(ddof=1) / np.sqrt(count)
    return float(differences.mean()), float(stats.t.ppf(0.975, count - 1) * error)


def mean_and_deviation(values):
    """Mean and sample standard deviation; the deviation of one value is 0."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def method_title(method):
    """A method's name as tables and pictures show it."""
    return method.replace("_", " ")
