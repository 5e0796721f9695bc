"""Second moments of the transitions of a chain, in blocks.

Everything that the linear description needs of a chain, however long: moments of chunks are joined with ``+``, so that
a run of 10⁸ transitions is measured while it is made. The blocks, each contiguous in time, say how far a number can be
trusted (delete-one-block jackknife), and what it would be if time had no direction: read some of them backwards.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from sgworld_numpyro.nonequilibrium.draws import Draws, as_draws


class LaggedMoments(NamedTuple):
    """Sums over the transitions x_t → x_{t+1} of each block, of draws measured from ``origin``.

    Attributes:
        origin: what is subtracted from the draws, of shape (dim,). Near their mean, so that no digits are lost.
        length: transitions in each block, of shape (blocks,).
        first: Σ x_t, of shape (blocks, dim).
        second: Σ x_{t+1}, of shape (blocks, dim).
        s00: Σ x_t x_tᵀ, of shape (blocks, dim, dim).
        s01: Σ x_t x_{t+1}ᵀ, of shape (blocks, dim, dim).
        s11: Σ x_{t+1} x_{t+1}ᵀ, of shape (blocks, dim, dim).
    """

    origin: Float[np.ndarray, "dim"]
    length: Float[np.ndarray, "blocks"]
    first: Float[np.ndarray, "blocks dim"]
    second: Float[np.ndarray, "blocks dim"]
    s00: Float[np.ndarray, "blocks dim dim"]
    s01: Float[np.ndarray, "blocks dim dim"]
    s11: Float[np.ndarray, "blocks dim dim"]

    @property
    def transitions(self) -> int:
        """The number of transitions."""
        return int(self.length.sum())

    @property
    def dim(self) -> int:
        """The number of dimensions."""
        return len(self.origin)

    @property
    def sums(self) -> tuple[np.ndarray, ...]:
        """All sums, blocks first."""
        return self[1:]

    def __add__(self, other: "LaggedMoments") -> "LaggedMoments":  # type: ignore[override]
        """The moments of two chunks of a run. A transition from one to the other is left out."""
        if not np.array_equal(self.origin, other.origin):
            raise ValueError(
                "these moments have different origins; measure every chunk from the same one: "
                "lagged_moments(x, origin=first.origin)."
            )
        return LaggedMoments(self.origin, *map(np.concatenate, zip(self.sums, other.sums, strict=True)))

    def continued(self, chunk: "LaggedMoments") -> "LaggedMoments":
        """The moments of this chunk and the next of the same blocks, which grow longer; by ``+`` they grow more.

        For chains so slow that a block must be a whole chain: ``lagged_moments(x, blocks=len(x))``.
        """
        if len(self.length) != len(chunk.length) or not np.array_equal(self.origin, chunk.origin):
            raise ValueError("the chunks have other blocks or another origin; measure each as the first was measured.")
        return LaggedMoments(self.origin, *(a + b for a, b in zip(self.sums, chunk.sums, strict=True)))

    def pooled(self) -> "LaggedMoments":
        """The same sums with all blocks taken as one."""
        return LaggedMoments(self.origin, *(s.sum(0, keepdims=True) for s in self.sums))

    def left_out(self) -> "LaggedMoments":
        """As many blocks, each the sum of all the others."""
        return LaggedMoments(self.origin, *(s.sum(0) - s for s in self.sums))

    def centred(self) -> "LaggedMoments":
        """The same moments with the mean of all draws as the origin."""
        pooled = self.pooled()
        mean = (pooled.first[0] + pooled.second[0]) / (2 * pooled.length[0])
        length = self.length[:, None, None]

        def moved(s, left, right):
            return s - left[:, :, None] * mean - mean[:, None] * right[:, None, :] + length * np.outer(mean, mean)

        return LaggedMoments(
            self.origin + mean,
            self.length,
            self.first - self.length[:, None] * mean,
            self.second - self.length[:, None] * mean,
            moved(self.s00, self.first, self.first),
            moved(self.s01, self.first, self.second),
            moved(self.s11, self.second, self.second),
        )

    def reversals(self, backwards: Bool[np.ndarray, "surrogates blocks"], parity=1.0) -> "LaggedMoments":
        """Sums of all blocks, some read backwards, about the mean; a new block for each choice of which.

        Args:
            backwards: the choices.
            parity: −1 for the coordinates that change sign with time, measured from their mean.
        """
        sums = self.centred()
        sign = np.broadcast_to(np.asarray(parity, float), self.dim)
        flips = np.outer(sign, sign)
        back = backwards.astype(float)

        def mixed(forwards, reverse):
            return np.tensordot(1 - back, forwards, 1) + np.tensordot(back, reverse, 1)

        return LaggedMoments(
            sums.origin,
            np.full(len(back), self.length.sum()),
            mixed(sums.first, sums.second * sign),
            mixed(sums.second, sums.first * sign),
            mixed(sums.s00, sums.s11 * flips),
            mixed(sums.s01, sums.s01.transpose(0, 2, 1) * flips),
            mixed(sums.s11, sums.s00 * flips),
        )


def lagged_moments(x: Draws, blocks: int = 64, origin: Float[np.ndarray, "dim"] | None = None) -> LaggedMoments:
    """Moments of the transitions of a stationary chain, or of a chunk of one.

    Args:
        x: draws of shape (chain, draw, dim), or (draw, dim) of a single chain.
        blocks: into how many blocks to cut, at least; chains are cut into equally many. A block should be much longer
            than the chain's relaxation time, and there should be dozens of them.
        origin: where to measure from, by default the mean of these draws.

    Raises:
        ValueError: if the draws have another shape, fewer than two draws a chain, or values that are not finite.
    """
    x = as_draws(x)
    chains, draws, dim = x.shape
    if blocks < 1:
        raise ValueError(f"blocks={blocks}; want at least 1, and dozens for standard errors.")
    origin = x.mean((0, 1)) if origin is None else np.asarray(origin, float)
    if origin.shape != (dim,):
        raise ValueError(f"origin has shape {origin.shape}; draws of {dim} dimensions want ({dim},).")
    sums: list[list[np.ndarray]] = []
    for chain, block in time_blocks((chains, draws - 1), blocks):
        offset = x[chain, block.start : block.stop + 1] - origin
        now, after = offset[:-1], offset[1:]
        length = np.asarray(float(len(now)))
        sums.append([length, now.sum(0), after.sum(0), now.T @ now, now.T @ after, after.T @ after])
    return LaggedMoments(origin, *(np.stack(s) for s in zip(*sums, strict=True)))


def time_blocks(shape: tuple[int, ...], blocks: int) -> list[tuple[int, slice]]:
    """Cut an array of shape (chain, time) into ``blocks`` or more, as many from every chain: the index of each."""
    chains, length = shape
    edges = np.linspace(0, length, min(length, -(-blocks // chains)) + 1).astype(int)
    return [(chain, slice(start, stop)) for chain in range(chains) for start, stop in pairwise(edges)]


def as_moments(x, blocks: int = 64) -> LaggedMoments:
    """Moments of draws, or the moments themselves where they are given."""
    return x if isinstance(x, LaggedMoments) else lagged_moments(x, blocks)


class Jackknifed(NamedTuple):
    """A statistic of all blocks, its standard error, and its bias of order 1/blocks.

    Attributes:
        value: from all blocks.
        error: standard error.
        bias: estimate of E value − truth.
    """

    value: np.ndarray
    error: np.ndarray
    bias: np.ndarray


def jackknife(statistic: Callable[[LaggedMoments], np.ndarray], moments: LaggedMoments) -> Jackknifed:
    """Delete-one-block jackknife of a statistic of pooled moments (Quenouille 1956; Tukey 1958).

    Neighbouring blocks must be nearly independent. With a single block the error and the bias are NaN.

    Args:
        statistic: gives an array of shape (blocks, ...), each block's moments taken as those of a whole run.
        moments: the run's.
    """
    value = statistic(moments.pooled())[0]
    blocks = len(moments.length)
    if blocks < 2:
        return Jackknifed(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    spread = statistic(moments.left_out())
    centre = spread.mean(0)
    error = np.sqrt((blocks - 1) / blocks * ((spread - centre) ** 2).sum(0))
    return Jackknifed(value, error, (blocks - 1) * (centre - value))


def random_reversals(blocks: int, surrogates: int, seed: int) -> Bool[np.ndarray, "surrogates blocks"]:
    """Which blocks each surrogate reads backwards."""
    return np.random.default_rng(seed).integers(0, 2, (surrogates, blocks)).astype(bool)


def exceedance(statistic: float, surrogates: Float[np.ndarray, "surrogates"]) -> float:
    """p-value of a randomization test: the share of surrogates, and of the run itself, at or above it.

    A surrogate of which nothing could be said (NaN) counts as above.
    """
    return (1 + int(np.sum(~(surrogates < statistic)))) / (1 + len(surrogates))
