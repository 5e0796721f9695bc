"""The thermodynamic uncertainty relation: a steady current costs entropy production."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sgworld_numpyro.nonequilibrium.autoregression import least_squares
from sgworld_numpyro.nonequilibrium.currents import areas_of_blocks
from sgworld_numpyro.nonequilibrium.draws import Draws
from sgworld_numpyro.nonequilibrium.moments import LaggedMoments, as_moments


class UncertaintyRelation(NamedTuple):
    """How precise a current of the chain is, and what entropy production that takes.

    Attributes:
        current: mean of the current per transition.
        current_error: its standard error.
        dispersion: T Var J_T / ⟨J_T⟩² of the current J_T over blocks of T transitions. By the relation it is at least
            2 / (e^Π − 1), with Π the entropy production per transition, and 2 / Π where time is nearly continuous.
        dispersion_error: its standard error.
        rate_bound: ln(1 + 2 / dispersion), hence a lower bound on Π in nats per transition. It needs no model of
            the dynamics: compare with ``entropy_production``.
        rate_bound_error: its standard error.
    """

    current: float
    current_error: float
    dispersion: float
    dispersion_error: float
    rate_bound: float
    rate_bound_error: float


def uncertainty_relation(
    x: Draws | LaggedMoments, weights: Float[np.ndarray, "dim dim"] | None = None, *, blocks: int = 256
) -> UncertaintyRelation:
    """Test Var J_T / ⟨J_T⟩² ≥ 2 / [T (e^Π − 1)] on the area current J = ½ Σ_ij W_ij (x_i x'_j − x_j x'_i).

    The bound holds for blocks much longer than the relaxation time (Barato & Seifert 2015; for steps of finite size
    Proesmans & Van den Broeck 2017). Estimation from few blocks makes the dispersion uncertain by √(2/blocks).

    Args:
        x: draws (chain, draw, dim), or their ``LaggedMoments``, with blocks of nearly equal length.
        weights: antisymmetric weights W of the planes; by default those of the entropy production of the linear
            description, which make the bound nearly tight close to equilibrium. Each half of the blocks is then
            measured with the weights that the other half gives: of its own it would show a current by chance.
        blocks: into how many blocks to cut the draws.

    Raises:
        ValueError: if the weights have the wrong shape or no antisymmetric part, there are fewer than eight blocks, or
            their lengths differ by more than a tenth.
    """
    moments = as_moments(x, blocks)
    count = moments.length
    if len(count) < 8 or count.max() > 1.1 * count.min() + 1:
        raise ValueError(
            f"{len(count)} blocks of {int(count.min())} to {int(count.max())} transitions; the variance of a current "
            "wants eight or more of nearly equal length."
        )
    dim = moments.dim
    areas = areas_of_blocks(moments)
    if weights is None:
        even = np.arange(len(count)) % 2 == 0
        of_even, of_odd = (
            _weights(LaggedMoments(moments.origin, *(s[half] for s in moments.sums))) for half in (even, ~even)
        )
        currents = np.einsum("bij,bij->b", np.where(even[:, None, None], of_odd, of_even), areas)
    else:
        weights = np.asarray(weights, float)
        if weights.shape != (dim, dim) or not np.any(weights != weights.T):
            raise ValueError(f"weights of shape {weights.shape}; want ({dim}, {dim}), antisymmetric and not all zero.")
        currents = np.einsum("ij,bij->b", (weights - weights.T) / 2, areas)
    number, length = len(currents), float(count.mean())
    mean, variance = float(currents.mean()), float(currents.var(ddof=1))
    mean_error = float(np.sqrt(variance / number))
    # ⟨J⟩² is estimated without the variance of the mean that its square would contain.
    square = mean**2 - mean_error**2
    if square <= 0:
        return UncertaintyRelation(mean, mean_error, np.inf, np.nan, 0.0, np.nan)
    dispersion = length * variance / square
    relative = np.sqrt(2 / (number - 1) + (2 * mean * mean_error / square) ** 2)
    bound = float(np.log1p(2 / dispersion))
    slope = 2 / (dispersion * (dispersion + 2))
    return UncertaintyRelation(
        mean, mean_error, dispersion, float(dispersion * relative), bound, float(slope * dispersion * relative)
    )


def _weights(moments):
    """Of the planes in the entropy production of a fit: the antisymmetric part of D⁻¹ C Σ⁻¹, up to a factor."""
    _, propagator, noise, covariance = (field[0] for field in least_squares(moments.pooled()))
    lagged = propagator @ covariance
    weights = np.linalg.solve(noise, lagged.T - lagged) @ np.linalg.inv(covariance)
    return (weights - weights.T) / 2
