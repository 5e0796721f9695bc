"""Do currents flow? Areas that the chain sweeps out, and maps of the probability current."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sgworld_numpyro.nonequilibrium.draws import Draws, as_draws
from sgworld_numpyro.nonequilibrium.moments import (
    LaggedMoments,
    as_moments,
    exceedance,
    jackknife,
    random_reversals,
    time_blocks,
)


class Circulation(NamedTuple):
    """The mean area that a stationary chain sweeps out in every coordinate plane, per transition.

    Attributes:
        matrix: C, antisymmetric, of shape (dim, dim), in units of the draws squared. C[i, j] > 0 if the chain turns
            from coordinate i towards coordinate j. All zero in detailed balance.
        error: standard errors of its elements.
        null_error: the standard deviation of its elements if time had no direction.
        p_value: how often a chain in detailed balance would circulate as much, in any plane.
    """

    matrix: Float[np.ndarray, "dim dim"]
    error: Float[np.ndarray, "dim dim"]
    null_error: Float[np.ndarray, "dim dim"]
    p_value: float


def circulation(x: Draws | LaggedMoments, *, blocks: int = 64, surrogates: int = 999, seed: int = 0) -> Circulation:
    """C = ½ E[x_t x_{t+1}ᵀ − x_{t+1} x_tᵀ], the stochastic area per transition (Ghanta, Neu & Teitsworth 2017).

    It needs no model of the dynamics; of a linear chain it is ½ (Σ Aᵀ − A Σ). The null is a randomization test: in
    detailed balance a block read backwards is as likely as the block, so blocks are reversed at random.

    Args:
        x: draws (chain, draw, dim), or their ``LaggedMoments``.
        blocks: into how many blocks to cut the draws; each must be much longer than the relaxation time.
        surrogates: how many random reversals make the null.
        seed: seed of the reversals.

    Raises:
        ValueError: if the draws are of the wrong shape or not finite.
    """
    moments = as_moments(x, blocks)
    if surrogates < 1:
        raise ValueError(f"surrogates={surrogates}; want at least 1, and 999 for p-values down to 0.001.")
    estimate = jackknife(_areas_of_runs, moments)
    of_blocks = areas_of_blocks(moments)  # a block read backwards only changes its sign
    share = moments.length / moments.length.sum()
    signs = 1 - 2 * random_reversals(len(share), surrogates, seed).astype(int)
    null = np.einsum("sb,b,bij->sij", signs, share, of_blocks)
    null_error = np.sqrt((null**2).mean(0))
    planes = np.triu_indices(moments.dim, 1)
    units = np.where(null_error[planes] > 0, null_error[planes], 1.0)

    def size(areas):
        return ((areas[(..., *planes)] / units) ** 2).sum(-1)

    p_value = exceedance(float(size(estimate.value)), size(null)) if len(units) else 1.0
    return Circulation(estimate.value, estimate.error, null_error, p_value)


def areas_of_blocks(moments: LaggedMoments) -> Float[np.ndarray, "blocks dim dim"]:
    """Mean area per transition that each block sweeps out, about the mean of the run."""
    return _antisymmetric(moments.centred().s01 / moments.length[:, None, None])


def _areas_of_runs(runs):
    """The same with each block taken for a run by itself, about its own mean."""
    length = runs.length[:, None, None]
    return _antisymmetric((runs.s01 - runs.first[:, :, None] * runs.second[:, None, :] / length) / length)


def _antisymmetric(matrices):
    return (matrices - matrices.transpose(0, 2, 1)) / 2


class ProbabilityCurrent(NamedTuple):
    """A current in a plane, on a grid of cells; NaN in cells of fewer than five visits.

    Attributes:
        x: centres of the cells along the first coordinate, of shape (bins,).
        y: centres along the second.
        current: probability that flows per transition and unit length, of shape (2, bins, bins), indexed
            (component, along x, along y).
        error: standard errors of ``current``.
        density: probability density, of shape (bins, bins).
    """

    x: Float[np.ndarray, "bins"]
    y: Float[np.ndarray, "bins"]
    current: Float[np.ndarray, "2 bins bins"]
    error: Float[np.ndarray, "2 bins bins"]
    density: Float[np.ndarray, "bins bins"]


def probability_current(
    x: Draws, dims: tuple[int, int] = (0, 1), *, bins: int = 16, reach: float = 2.5, blocks: int = 64
) -> ProbabilityCurrent:
    """The probability current in the plane of two coordinates, for a quiver plot.

    J(r) = E[Δx δ(r − (x_t + x_{t+1})/2)]: each move is booked half way, which makes the estimate odd under time
    reversal (Battle et al. 2016). In detailed balance it vanishes everywhere.

    Args:
        x: draws (chain, draw, dim).
        dims: the two coordinates.
        bins: cells along each axis.
        reach: extent of the grid from the mean, in standard deviations.
        blocks: into how many blocks to cut the draws for the standard errors.

    Raises:
        ValueError: if the draws are of the wrong shape or not finite, a coordinate does not exist or does
            not move, or the grid has no cells.
    """
    plane, edges = plane_of(as_draws(x), dims, bins, reach)
    area = (edges[0][1] - edges[0][0]) * (edges[1][1] - edges[1][0])
    middles, moves = (plane[:, 1:] + plane[:, :-1]) / 2, np.diff(plane, axis=1)
    sums, counts, visits = [], [], 0.0
    for cut in time_blocks(middles.shape[:2], blocks):
        (x_middle, y_middle), move = middles[cut].T, moves[cut]
        sums.append([np.histogram2d(x_middle, y_middle, bins=edges, weights=move[:, k])[0] for k in (0, 1)])
        visits = visits + np.histogram2d(x_middle, y_middle, bins=edges)[0]
        counts.append(len(move))
    total = sum(counts)
    of_blocks = np.array(sums) / (np.array(counts)[:, None, None, None] * area)
    share = np.array(counts) / total
    current = np.einsum("b,bkij->kij", share, of_blocks)
    deviation = share[:, None, None, None] * (of_blocks - current)
    error = np.sqrt((deviation**2).sum(0) * len(share) / max(len(share) - 1, 1))
    unvisited = np.asarray(visits) < 5  # with fewer there is no standard error to speak of
    current[:, unvisited] = error[:, unvisited] = np.nan
    horizontal, vertical = ((e[1:] + e[:-1]) / 2 for e in edges)
    return ProbabilityCurrent(horizontal, vertical, current, error, visits / (total * area))


def plane_of(
    x: Draws, dims: tuple[int, int], bins: int, reach: float
) -> tuple[Draws, list[Float[np.ndarray, "edges"]]]:
    """Draws of two coordinates, and the edges of a grid of cells around their mean.

    Raises:
        ValueError: if a coordinate does not exist or does not move, or the grid has no cells.
    """
    if len(set(dims)) != 2 or not all(0 <= d < x.shape[2] for d in dims):
        raise ValueError(f"dims={dims!r}; want two different coordinates of the {x.shape[2]} that the draws have.")
    if bins < 1 or not reach > 0:
        raise ValueError(f"bins={bins} and reach={reach} make no grid; want a positive number of each.")
    plane = x[:, :, list(dims)]
    mean, spread = plane.mean((0, 1)), plane.std((0, 1))
    if not np.all(spread > 0):
        raise ValueError(f"coordinate {dims[int(np.argmin(spread))]} does not move; choose another plane.")
    return plane, [np.linspace(m - reach * s, m + reach * s, bins + 1) for m, s in zip(mean, spread, strict=True)]
