"""The local velocity, by which probability flows through each place: v(x) = J(x)/p(x), 0 everywhere in equilibrium.

It is fitted in the basis of currents: v(x) = Σ φ(x) c with the coefficients of the regression of Stratonovich's moves,
G c = E[½ (φ(x) + φ(x')) (x' − x)], G = E φ φᵀ (Frishman & Ronceray 2020, Phys. Rev. X 10, 021009).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sgworld_numpyro.nonequilibrium.basis import CurrentBasis, Functions, current_basis
from sgworld_numpyro.nonequilibrium.currents import plane_of
from sgworld_numpyro.nonequilibrium.draws import Draws, as_draws, halves
from sgworld_numpyro.nonequilibrium.moments import time_blocks
from sgworld_numpyro.nonequilibrium.variational import current_bound, root_of_inverse


class LocalVelocity(NamedTuple):
    """The velocity of the probability at some places, per transition, in units of the draws.

    Attributes:
        velocity: v, of shape (places, dim).
        error: its standard errors.
        order: degree of the monomials that were chosen; 1 of functions of your own.
        p_value: how often a chain in detailed balance would show as much, anywhere: over the whole field.
        rate: E[vᵀ D⁻¹ v] in nats a transition, the entropy production where steps are short; NaN without D.
        rate_error: its standard error.
    """

    velocity: Float[np.ndarray, "places dim"]
    error: Float[np.ndarray, "places dim"]
    order: int
    p_value: float
    rate: float
    rate_error: float


class VelocityField(NamedTuple):
    """The local velocity in a plane, on a grid of cells, and the density that it carries.

    Attributes:
        x: centres of the cells along the first coordinate, of shape (bins,).
        y: centres along the second.
        velocity: v, of shape (2, bins, bins), indexed (component, along x, along y).
        error: standard errors of ``velocity``.
        density: probability density, of shape (bins, bins).
        order: degree of the monomials that were chosen.
        p_value: how often a chain in detailed balance would show as much in the whole plane.
    """

    x: Float[np.ndarray, "bins"]
    y: Float[np.ndarray, "bins"]
    velocity: Float[np.ndarray, "2 bins bins"]
    error: Float[np.ndarray, "2 bins bins"]
    density: Float[np.ndarray, "bins bins"]
    order: int
    p_value: float

    @property
    def current(self) -> Float[np.ndarray, "2 bins bins"]:
        """The smooth probability current, density times velocity."""
        return self.density * self.velocity


def local_velocity(
    x: Draws,
    places: Float[np.ndarray, "places dim"],
    *,
    order: int = 3,
    basis: Functions | None = None,
    diffusion: Float[np.ndarray, "dim dim"] | None = None,
    blocks: int = 64,
    surrogates: int = 199,
    seed: int = 0,
) -> LocalVelocity:
    """The velocity of the probability at places of your choice, with errors and one p-value for all of it.

    Args:
        x: draws (chain, draw, dim), of short steps: v is the drift less what diffuses back.
        places: where to give it, of shape (places, dim). Far from all draws monomials are extrapolated no farther than
            four robust standard deviations.
        order: largest degree of the monomials; chosen up to it as by ``entropy_production(x, "currents")``.
        basis: functions of your own, likewise.
        diffusion: D of a transition, half the covariance of its noise, where it is known: ``rate`` is then a check of
            the entropy production that needs no exponential averages.
        blocks: into how many blocks to cut the draws.
        surrogates: how many random reversals of blocks make the null.
        seed: seed of the reversals.

    Raises:
        ValueError: as ``entropy_production(x, "currents")``, and for places or a diffusion matrix of another dimension.
    """
    x, places = as_draws(x), np.asarray(places, float)
    dim = x.shape[2]
    if places.ndim != 2 or places.shape[1] != dim:
        raise ValueError(f"places have shape {places.shape}; want (places, {dim}), as the draws have {dim} dimensions.")
    if diffusion is not None and np.shape(diffusion) != (dim, dim):
        raise ValueError(f"diffusion has shape {np.shape(diffusion)}; want ({dim}, {dim}).")
    found = current_bound(x, current_basis(x, order, basis), blocks=blocks, surrogates=surrogates, seed=seed)
    chosen = current_basis(x, found.level + 1, basis)
    fit = _Regression.of(x, chosen)
    coefficients = fit.coefficients
    stiffness = np.zeros((dim, dim)) if diffusion is None else np.linalg.inv(np.asarray(diffusion, float))
    from_units = np.linalg.inv(chosen.units)
    stiffness = from_units @ stiffness @ from_units.T
    scores, powers, lengths = [], [], []  # of each block
    for chain, block in time_blocks((x.shape[0], x.shape[1] - 1), blocks):
        score, power = np.zeros_like(coefficients), 0.0
        for part in chosen.parts(block):
            means, moves = _regressors(x[chain], chosen, part)
            velocity = coefficients.T @ means
            left = moves - velocity
            score += means @ left.T
            power += float(np.sum((velocity + 2 * left) * (stiffness @ velocity)))
        scores.append(score)
        powers.append(power)
        lengths.append(block.stop - block.start)
    at = chosen.values(places)
    total, count = sum(lengths), len(lengths)
    deviations = [at @ fit.inverse @ score @ from_units / total for score in scores]
    few = count / max(count - 1, 1)
    rate = rate_error = np.nan
    if diffusion is not None:
        first, second = (_Regression.of(half, chosen).coefficients for half in halves(x))
        rate = float(np.sum((first.T @ fit.gram @ second) * stiffness))  # of a single fit, noise would be squared
        rate_error = float(
            np.sqrt(few * np.sum((np.array(powers) - np.array(lengths) * sum(powers) / total) ** 2)) / total
        )
    error = np.sqrt(few * np.sum(np.square(deviations), 0))
    return LocalVelocity(at @ coefficients @ from_units, error, found.level + 1, found.p_value, rate, rate_error)


def velocity_field(
    x: Draws, dims: tuple[int, int] = (0, 1), *, bins: int = 16, reach: float = 2.5, blocks: int = 64, **options
) -> VelocityField:
    """The local velocity in the plane of two coordinates: a smooth ``probability_current`` whose significance is known.

    Args:
        x: draws (chain, draw, dim).
        dims: the two coordinates; what the others do is averaged over.
        bins: cells along each axis.
        reach: extent of the grid from the mean, in standard deviations.
        blocks: into how many blocks to cut the draws.
        options: ``order``, ``basis``, ``surrogates`` and ``seed`` of ``local_velocity``.

    Raises:
        ValueError: as ``probability_current`` and ``local_velocity``.
    """
    plane, edges = plane_of(as_draws(x), dims, bins, reach)
    horizontal, vertical = ((e[1:] + e[:-1]) / 2 for e in edges)
    places = np.stack(np.meshgrid(horizontal, vertical, indexing="ij"), -1).reshape(-1, 2)
    found = local_velocity(plane, places, blocks=blocks, **options)
    flat = plane.reshape(-1, 2)
    area = (edges[0][1] - edges[0][0]) * (edges[1][1] - edges[1][0])
    density = np.histogram2d(flat[:, 0], flat[:, 1], bins=edges)[0] / (len(flat) * area)
    velocity, error = (field.T.reshape(2, bins, bins) for field in (found.velocity, found.error))
    return VelocityField(horizontal, vertical, velocity, error, density, found.order, found.p_value)


class _Regression(NamedTuple):
    """Moves against functions of the position, both means over transitions."""

    gram: Float[np.ndarray, "functions functions"]
    mean: Float[np.ndarray, "functions dim"]

    @property
    def inverse(self) -> Float[np.ndarray, "functions functions"]:
        root = root_of_inverse(self.gram)
        return root @ root.T

    @property
    def coefficients(self) -> Float[np.ndarray, "functions dim"]:
        return self.inverse @ self.mean

    @classmethod
    def of(cls, x: Draws, basis: CurrentBasis) -> "_Regression":
        sums = [0.0, 0.0]
        for chain in x:
            for part in basis.parts(slice(0, x.shape[1] - 1)):
                means, moves = _regressors(chain, basis, part)
                sums = [sums[0] + means @ means.T, sums[1] + means @ moves.T]
        return cls(*(np.asarray(s) / (x.shape[0] * (x.shape[1] - 1)) for s in sums))


def _regressors(chain, basis, part):
    positions = chain[part.start : part.stop + 1]
    return basis.means(positions), basis.moves(positions)
