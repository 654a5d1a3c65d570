"""Numbers about answers: accuracy, calibration, chance, and which classes lost."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class ModelQuality:
    """What a model or an exported file gets on the data.

    Args:
        accuracy: Share of the labels that are answered; `None` if it is no classifier.
        agreement: Share of the examples for which the answer is the teacher's; `None` for the
            teacher.
        calibration_error: `expected_calibration_error`; `None` where there is no probability.
        metrics: Dict of the compiled metrics of a model that is no classifier.
    """

    accuracy: float | None = None
    agreement: float | None = None
    calibration_error: float | None = None
    metrics: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ClassLoss:
    """A class of which the student knows less than the teacher.

    Args:
        label: The class.
        teacher: Share of its examples that the teacher answers.
        student: The student's share.
        examples: How many there are.
    """

    label: int
    teacher: float
    student: float
    examples: int


def expected_calibration_error(confidences, correct, bins=15):
    """How far confidence is from accuracy.

    Examples are sorted into bins of equal width by their confidence. The error is the mean, over
    examples, of the difference between the accuracy and the mean confidence of their bin.

    Args:
        confidences: Array of the probabilities of the answers, in [0, 1].
        correct: Array of booleans.
        bins: How many bins.

    Returns:
        A float from 0 to 1.

    Reference:
        - Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks",
          [arXiv 1706.04599](https://arxiv.org/abs/1706.04599) (2017)
    """
    confidences = np.asarray(confidences, "float64")
    correct = np.asarray(correct, "float64")
    # A bin holds its upper edge.
    places = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(places, weights=correct - confidences, minlength=bins)
    return float(np.sum(np.abs(gaps)) / len(confidences))


def classes_that_lost(labels, teacher, student, most=5):
    """The classes whose accuracy fell most.

    Args:
        labels: Array of class numbers.
        teacher: Array of the teacher's answers.
        student: Array of the student's answers.
        most: How many classes to name.

    Returns:
        A list of `ClassLoss`, the greatest fall first, without classes that lost nothing.
    """
    losses = []
    for label in np.unique(labels):
        own = labels == label
        shares = [float(np.mean(answers[own] == label)) for answers in (teacher, student)]
        losses.append(ClassLoss(int(label), *shares, int(np.sum(own))))
    losses.sort(key=lambda loss: (loss.student - loss.teacher, -loss.examples, loss.label))
    return [loss for loss in losses[:most] if loss.student < loss.teacher]


def is_near_chance(labels, answers, level=0.01):
    """Whether answers are no better than answers that do not look at the inputs.

    Such answers, given as often for each class as these are, agree with the labels in a share of
    `sum(share of the label * share of the answer)`. The number of right answers is compared with
    a binomial distribution of that share.

    Args:
        labels: Array of class numbers.
        answers: Array of class numbers.
        level: The probability below which chance is ruled out (our choice).

    Returns:
        `True` if chance gives as many right answers with a probability above `level`. `False`
        where all labels are the same, which says nothing.
    """
    count = len(labels)
    classes, shares = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        return False
    chance = sum(
        share / count * np.mean(answers == label)
        for label, share in zip(classes, shares, strict=True)
    )
    return binomial_tail(count, chance, int(np.sum(labels == answers))) > level


def binomial_tail(count, chance, successes):
    """The probability of at least so many successes.

    Args:
        count: How many trials.
        chance: Probability of a success in each.
        successes: How many at least.

    Returns:
        A float.
    """
    if successes <= 0 or chance >= 1:
        return 1.0
    if chance <= 0:
        return 0.0
    log_of_all = math.lgamma(count + 1)
    return math.fsum(
        math.exp(
            log_of_all
            - math.lgamma(k + 1)
            - math.lgamma(count - k + 1)
            + k * math.log(chance)
            + (count - k) * math.log1p(-chance)
        )
        for k in range(successes, count + 1)
    )
