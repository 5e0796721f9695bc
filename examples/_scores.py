"""Scores of predicted class probabilities: against the truth, and against another sampler's predictions."""

import numpy as np

BINS = 15  # of the expected calibration error


def scores(probability, labels):
    """Scores of predicted class probabilities (row, class), by name.

    accuracy; nll: mean −log p(true class), in nats; ece: expected calibration error, the mean distance between
    confidence and accuracy in 15 bins of confidence (Guo et al. 2017); brier: mean squared distance from the truth.
    """
    confidence, right = probability.max(-1), probability.argmax(-1) == labels
    truth = np.take_along_axis(probability, labels[:, None].astype(int), -1)[:, 0]
    return {
        "accuracy": float(right.mean()),
        "nll": float(-np.log(np.maximum(truth, np.finfo(np.float32).tiny)).mean()),
        "ece": float(sum(share * abs(gap) for _, gap, share in calibration(confidence, right))),
        "brier": float((np.square(probability).sum(-1) - 2 * truth + 1).mean()),
    }


def calibration(confidence, right):
    """Mean confidence, accuracy minus it, and share of the rows, of each bin that has any."""
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    for bin_ in np.unique(number):
        inside = number == bin_
        mean = float(confidence[inside].mean())
        yield mean, float(right[inside].mean()) - mean, float(inside.mean())


def entropy(probability):
    """Mean entropy of the predicted classes, in nats; ln 10 = 2.30 is no idea at all."""
    p = np.maximum(probability, np.finfo(np.float32).tiny)
    return float(-(p * np.log(p)).sum(-1).mean())


def agreement(probability, reference):
    """Share of rows for which both predict the same class; of probabilities (row, class), from 0 to 1."""
    return float(np.mean(probability.argmax(-1) == reference.argmax(-1)))


def total_variation(probability, reference):
    """Mean over rows of ½ Σ |p − q|, the total variation distance of the predicted classes, from 0 to 1."""
    return float(0.5 * np.abs(probability - reference).sum(-1).mean())
