"""The integral and the detailed fluctuation theorem, tested on the entropy production of a chain.

In a stationary state ⟨e^{−σ}⟩ = 1 and ln P(σ)/P(−σ) = σ, for the entropy production σ of stretches of any length
(Seifert 2012, "Stochastic thermodynamics, fluctuation theorems and molecular machines").
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from sgworld_numpyro.nonequilibrium.moments import time_blocks

MIN_WEIGHT_ESS = 100
_BINS = 40
_BLOCKS = 64


class SigmaHistogram(NamedTuple):
    """How the entropy production of stretches of one length is distributed.

    Attributes:
        edges: edges of bins that lie symmetrically about 0, of shape (bins + 1,), in nats.
        counts: stretches in each bin.
        centres: mean of |σ| over each pair of bins ±σ, of shape (bins / 2,).
        log_ratio: ln P(σ)/P(−σ) of these pairs; NaN where a bin is empty.
        log_ratio_error: its standard error, from the counts.
    """

    edges: Float[np.ndarray, "edges"]
    counts: Int[np.ndarray, "bins"]
    centres: Float[np.ndarray, "pairs"]
    log_ratio: Float[np.ndarray, "pairs"]
    log_ratio_error: Float[np.ndarray, "pairs"]


class FluctuationTheorems(NamedTuple):
    """Both theorems, for stretches of several lengths.

    Attributes:
        lengths: transitions in a stretch.
        integral: ⟨e^{−σ}⟩; NaN where events too rare for this run decide it: where ``weight_ess`` is below 100, or
            what stretches whose reversal was never seen should contribute is more than two standard errors.
        integral_error: its standard error.
        weight_ess: (Σw)² / Σw² with w = e^{−σ}: how many stretches carry the average.
        slope: b of ln P(σ)/P(−σ) = b σ, 1 by the theorem. It comes from a logistic regression of the sign of σ on
            |σ|, which needs no bins. NaN where all σ have one sign.
        slope_error: its standard error.
        histograms: one for each length.

    All but the last have shape (lengths,). A length of which the draws hold fewer than two stretches gets NaN.
    """

    lengths: Int[np.ndarray, "lengths"]
    integral: Float[np.ndarray, "lengths"]
    integral_error: Float[np.ndarray, "lengths"]
    weight_ess: Float[np.ndarray, "lengths"]
    slope: Float[np.ndarray, "lengths"]
    slope_error: Float[np.ndarray, "lengths"]
    histograms: tuple[SigmaHistogram, ...]


def fluctuation_theorems(
    sigma: Float[np.ndarray, "chain transition"], lengths: Sequence[int] = (1, 2, 3, 10, 100)
) -> FluctuationTheorems:
    """Test both fluctuation theorems on the entropy production of successive transitions.

    Errors come from blocks of time, so that correlations between stretches count.

    Args:
        sigma: entropy production per transition, in nats: that of predicted dynamics, or ``held_out_sigma(x)``. Of
            dynamics fitted to the same draws, σ obeys both theorems by construction if the draws are Gaussian.
        lengths: in how many transitions to measure; stretches do not overlap.

    Raises:
        ValueError: if ``sigma`` has another shape or is not finite, or a length is not positive.
    """
    sigma = np.asarray(sigma, float)
    if sigma.ndim == 1:
        sigma = sigma[None]
    if sigma.ndim != 2 or sigma.size == 0:
        raise ValueError(f"sigma has shape {sigma.shape}; want (chain, transition), as entropy_production returns it.")
    if not np.isfinite(sigma).all():
        raise ValueError("sigma is not all finite; a diverged chain has no stationary entropy production.")
    if len(lengths) == 0 or any(length < 1 or length != int(length) for length in lengths):
        raise ValueError(f"lengths={tuple(lengths)!r}; want positive whole numbers of transitions.")
    results = [(_of_stretches(s), _histogram(s.ravel())) for s in (_stretches(sigma, length) for length in lengths)]
    integral, integral_error, ess, slope, slope_error = np.array([numbers for numbers, _ in results]).T
    histograms = tuple(histogram for _, histogram in results)
    return FluctuationTheorems(np.array(lengths), integral, integral_error, ess, slope, slope_error, histograms)


def _stretches(sigma, length):
    windows = sigma.shape[1] // length
    return sigma[:, : windows * length].reshape(len(sigma), windows, length).sum(2)


def _of_stretches(stretches):
    if stretches.size < 2:
        return (np.nan,) * 5
    blocks = [stretches[cut] for cut in time_blocks(stretches.shape, _BLOCKS)]
    total = stretches.size
    least = float(stretches.min())
    weight = [np.exp(least - part) for part in blocks]  # in units of the largest, which can overflow
    integral = sum(w.sum() for w in weight) / total
    error = _spread([(w - integral).sum() for w in weight]) / total
    ess = (integral * total) ** 2 / sum((w**2).sum() for w in weight)
    slope, slope_error = _slope(blocks)
    # By the theorem the average lacks e^{−σ}P(−σ) = P(σ) for all reversals −σ that were too rare to be seen.
    lacking = float(np.mean(stretches > -least))
    if ess < MIN_WEIGHT_ESS or lacking > 2 * error * np.exp(min(-least, 700.0)):
        return np.nan, np.nan, ess, slope, slope_error
    integral, error = integral * np.exp(-least), error * np.exp(-least)
    return integral, error, ess, slope, slope_error


def _spread(block_sums):
    """Standard deviation of a sum over blocks whose summands have mean zero."""
    blocks = len(block_sums)
    return float(np.sqrt(np.sum(np.square(block_sums)) * blocks / (blocks - 1)))


def _slope(blocks):
    """The maximum of Σ ln(1 / (1 + e^{−bσ})) over b, by Newton's method; concave, with one maximum."""
    if min(part.min() for part in blocks) >= 0 or max(part.max() for part in blocks) <= 0:
        return np.nan, np.nan
    slope = 1.0
    for _ in range(50):
        scores, information = [], 0.0
        for part in blocks:
            wrong = expit(-slope * part)
            scores.append((part * wrong).sum())
            information += (part**2 * wrong * (1 - wrong)).sum()
        change = sum(scores) / information
        # A step past twice the slope would leave the region where the quadratic model holds.
        slope += float(np.clip(change, -0.5 * abs(slope) - 0.1, abs(slope) + 0.1))
        if abs(change) < 1e-9 * (1 + abs(slope)):
            break
    return slope, _spread(scores) / information


def _histogram(sigma):
    size = np.abs(sigma)
    # Symmetric bins up to where reversals are still seen often enough to compare.
    backwards = size[sigma < 0]
    reach = np.quantile(backwards, 1 - min(0.5, 10 / len(backwards))) if len(backwards) else size.max(initial=1.0)
    reach = reach if reach > 0 else 1.0
    edges = np.linspace(-reach, reach, _BINS + 1)
    counts = np.histogram(sigma, edges)[0]
    plus, minus = counts[_BINS // 2 :], counts[: _BINS // 2][::-1]
    pairs, totals = edges[_BINS // 2 :], plus + minus
    with np.errstate(divide="ignore", invalid="ignore"):
        centres = np.histogram(size, pairs, weights=size)[0] / totals
        log_ratio = np.log(plus / minus)
        error = np.sqrt(1 / plus + 1 / minus)
    seen = (plus > 0) & (minus > 0)
    return SigmaHistogram(edges, counts, centres, np.where(seen, log_ratio, np.nan), np.where(seen, error, np.nan))
