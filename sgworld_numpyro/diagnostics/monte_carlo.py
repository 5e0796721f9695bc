"""Computations that more than one diagnostic needs: memory, blocks, distance from a reference."""

from typing import NamedTuple

import numpy as np

from sgworld_numpyro.linear_gaussian import gaussian_kl, relative_covariance_error
from sgworld_numpyro.nonequilibrium.autoregression import check_full_rank
from sgworld_numpyro.nonequilibrium.moments import jackknife, lagged_moments

_WINDOW = 5  # autocorrelation times after which the sum is cut off (Sokal 1997)
_CORRECTIONS = 4
_MAX_AXES = 200
MIN_MEMORIES = 20  # autocorrelation times in half a chain, below which the estimate of that time is too small
ROUGH = "The chains are too few and too short to show their memory: errors are too small, nobody knows by how much."
MAX_BLOCKS, MIN_BLOCKS = 64, 8
_BLOCK_LENGTH = 5  # in autocorrelation times


def autocorrelation_time(x):
    """τ = 1 + 2 Σ_k ρ_k of each coordinate, in draws, from half chains about their own means; shape (dim,)."""
    chains, draws, dim = x.shape
    half = draws // 2
    halves = x[:, : 2 * half].reshape(2 * chains, half, dim)
    halves = halves - halves.mean(1, keepdims=True)
    size = 2 ** int(np.ceil(np.log2(2 * half)))
    power = sum(abs(np.fft.rfft(part, size, axis=0)) ** 2 for part in halves)
    covariance = np.fft.irfft(power, size, axis=0)[:half] / (2 * chains * (half - np.arange(half)[:, None]))
    tau = _windowed(covariance, half)
    for _ in range(_CORRECTIONS):
        # Each half's own mean took the variance of that mean away: at most all there is, as of a trend.
        tau = _windowed(covariance + covariance[0] * np.minimum(tau / half, 1), half)
    return tau


def _windowed(covariance, half):
    sums = 2 * np.cumsum(covariance / covariance[0], axis=0) - 1
    closed = np.arange(half)[:, None] >= _WINDOW * np.maximum(sums, 1)
    cut = np.where(closed.any(0), closed.argmax(0), half - 1)
    return np.maximum(sums[cut, np.arange(covariance.shape[1])], 1 / half)


def relaxation_time(tau):
    """T of an exponential decay e^{−t/T} of the autocorrelation, in draws, from τ = coth(1/2T)."""
    tau = np.maximum(tau, 1 + 1e-9)
    return 1 / np.log((tau + 1) / (tau - 1))


class Blocks(NamedTuple):
    """How to cut a run for its errors: into ``count`` blocks, which are ``independent`` or too short to be."""

    count: int  # type: ignore[assignment]  # a stable key of the numbers that are written
    independent: bool


def blocks_of(x) -> Blocks:
    """Blocks that are longer than the chain's memory; whole chains where these do not show how long that is."""
    chains, draws, dim = x.shape
    times = [autocorrelation_time(x).max()]
    if 1 < dim <= _MAX_AXES:
        # directions in which the draws hardly vary can be the slowest, and do not show in any coordinate
        times.append(autocorrelation_time(x @ np.linalg.eigh(np.cov(x.reshape(-1, dim).T))[1]).max())
    memory_seen = draws // 2 >= MIN_MEMORIES * max(times)
    if chains >= MIN_BLOCKS and not memory_seen:
        return Blocks(chains, True)
    most, least = max(1, MAX_BLOCKS // chains), -(-MIN_BLOCKS // chains)
    return Blocks(chains * int(np.clip(draws / (_BLOCK_LENGTH * max(times)), least, most)), memory_seen)


class Estimate(NamedTuple):
    """A number and its Monte Carlo standard error."""

    value: float
    error: float

    def root(self):
        """Of a square whose noise has been removed: the root with its error, or None and an upper limit."""
        if self.value > 2 * self.error:
            return np.sqrt(self.value), self.error / (2 * np.sqrt(self.value))
        return None, np.sqrt(max(self.value, 0) + 2 * self.error)


class Spread(NamedTuple):
    """How far the draws' mean and covariance are from a reference, the noise's bias removed.

    Attributes:
        mean_difference: of each coordinate, in posterior sds.
        mean_error: its standard error.
        variance_ratio: of each coordinate, to the reference's.
        variance_ratio_error: its standard error.
        width: relative excess of the variance, averaged over directions.
        squared_covariance_error: square of the relative covariance error.
        kl: KL(Gaussian of the draws ‖ Gaussian of the reference), in nats.
        blocks: what the errors come from.
    """

    mean_difference: np.ndarray
    mean_error: np.ndarray
    variance_ratio: np.ndarray
    variance_ratio_error: np.ndarray
    width: Estimate
    squared_covariance_error: Estimate
    kl: Estimate
    blocks: Blocks


def noise_of(reference) -> float:
    """Expected square of the relative covariance error of a reference that was sampled itself; 0 if it does not say.

    The covariance of n Gaussian draws has (d + 1)/n, and its sds have relative errors of 1/√(2n).
    """
    if not {"sd_error", "mean_error"} <= reference.keys():
        return 0.0
    variances = np.diag(reference["covariance"])
    return float((len(variances) + 1) * np.mean(2 * reference["sd_error"] ** 2 / variances))


def spread(x, reference) -> Spread:
    """Distances of draws (chain, draw, dim) from a reference's "mean" and "covariance".

    A reference that was sampled itself says so with "mean_error" and "sd_error": its noise is then taken into account.

    Raises:
        ValueError: if the covariance of the draws or of the reference is singular.
    """
    mean, covariance = reference["mean"], reference["covariance"]
    dim, sd = len(mean), np.sqrt(np.diag(covariance))
    check_full_rank(covariance, "the covariance of the reference")
    check_full_rank(np.cov(x.reshape(-1, dim).T).reshape(dim, dim), "the covariance of the draws")
    precision = np.linalg.inv(covariance)

    def statistics(runs):
        count, first, square = runs.length[:, None], runs.first, runs.s00
        offset = first / count
        found = square / count[..., None] - offset[:, :, None] * offset[:, None, :]
        centre = runs.origin + offset
        whole = (
            np.einsum("ij,bji->b", precision, found) / dim - 1,
            relative_covariance_error(found, covariance) ** 2,
            gaussian_kl(centre, found, mean, covariance),
        )
        variances = found.diagonal(axis1=1, axis2=2)
        return np.concatenate([(centre - mean) / sd, variances / sd**2, np.stack(whole, 1)], axis=1)

    blocks = blocks_of(x)
    found = jackknife(statistics, lagged_moments(x, blocks.count))
    value, error = found.value - found.bias, found.error
    width, squared, kl = (Estimate(float(v), float(e)) for v, e in zip(value[-3:], error[-3:], strict=True))
    mean_error, ratio_error = error[:dim], error[dim : 2 * dim]
    noise = noise_of(reference)
    if noise:
        relative = reference["sd_error"] / sd
        mean_error = np.hypot(mean_error, reference["mean_error"] / sd)
        ratio_error = np.hypot(ratio_error, 2 * relative)
        squared = Estimate(squared.value - noise, float(np.hypot(squared.error, noise * 2 / np.sqrt(dim + 1))))
        shift = np.sum((reference["mean_error"] / sd) ** 2) / 2
        kl = Estimate(kl.value - dim * noise / 4 - shift, float(np.hypot(kl.error, noise * dim / np.sqrt(dim + 1) / 2)))
        width = Estimate(width.value, float(np.hypot(width.error, np.sqrt(np.mean(4 * relative**2) / dim))))
    return Spread(value[:dim], mean_error, value[dim : 2 * dim], ratio_error, width, squared, kl, blocks)


def mean_of(x) -> tuple[Estimate, bool]:
    """Mean of one quantity (chain, draw) with its error from blocks, and whether these are independent."""
    chains, draws = x.shape
    if not np.ptp(x) > 0:
        return Estimate(float(x.mean()), 0.0), True
    blocks = blocks_of(x[..., None])
    each = blocks.count // chains
    length = draws // each
    means = x[:, : each * length].reshape(blocks.count, length).mean(1)
    return Estimate(float(x.mean()), float(means.std(ddof=1) / np.sqrt(blocks.count))), blocks.independent
