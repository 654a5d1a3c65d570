"""The part of a training that its curves show."""

import numpy as np
import pytest

from keras_ktan.plots.curves import _limits


def test_the_second_half_fills_the_picture():
    # Of accuracies: from the lowest of the second half, 0.8, to the highest of all, 0.9.
    curves = [np.array([0.1, 0.5, 0.9, 0.8]), np.array([0.2, 0.6, 0.85, 0.88])]
    assert _limits(curves, curves) == pytest.approx((0.79, 0.91))
    # A teacher above the curves stays in sight.
    assert _limits(curves, [*curves, np.array([1.0])]) == pytest.approx((0.78, 1.02))
    # Losses fall: from the lowest of all to the highest of the second half.
    assert _limits([np.array([9.0, 5.0, 1.5, 2.0])], [np.array([1.0])]) == pytest.approx((0.9, 2.1))
    assert _limits([np.array([1.0])], [np.array([1.0])]) == pytest.approx((0.9, 1.1))
