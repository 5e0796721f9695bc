"""A basis of currents: functions of a transition that change sign when time is reversed.

With ε = −1 for momenta and 1 for other coordinates, both from their mean, and functions φ of the position,

    j(x, x') = ½ [φ(x) + φ(εx')] (x' − εx),   j(εx', εx) = −j(x, x'),

one for each φ and coordinate. Without momenta it is Stratonovich's φ ∘ dx over a transition. Monomials φ of degree 0
and 1 make every quadratic j there is, among them the entropy production of linear chains.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from sgworld_numpyro.nonequilibrium.autoregression import check_full_rank
from sgworld_numpyro.nonequilibrium.draws import Draws

Functions = Callable[[Float[np.ndarray, "n dim"]], Float[np.ndarray, "n functions"]]

MAX_CURRENTS = 2000  # their second moments take 32 MB, and a fit to a million transitions minutes
MAX_ORDER = 9  # beyond which monomials of one coordinate are hardly independent to double precision
REACH = 4.0  # robust standard deviations, to where one Gaussian number in 16 000 gets
MAX_LEVERAGE = 0.2  # share that one transition may have in what the draws say of some combination of currents
_CHUNK = 2**20  # numbers at a time: 8 MB
_LOOKED_AT = 2**16  # draws, for robust standard deviations
_TO_SD = 1.4826  # from the median of |x| of a centred Gaussian
_LEAST_SPREAD = 0.25  # robust standard deviation over the standard deviation, of laws with heavier tails than these


def monomial_currents(dim: int, order: int) -> int:
    """How many currents the monomials of degree 0 to ``order`` make in ``dim`` dimensions."""
    return dim * comb(dim + order, order)


def largest_order(dim: int, order: int = 3, most: int = MAX_CURRENTS) -> int:
    """The largest order up to ``order`` whose currents are at most ``most``; 0 if there is none."""
    return max((m for m in range(1, order + 1) if monomial_currents(dim, m) <= most), default=0)


def radial_functions(x: Draws, count: int = 30, *, width: float = 1.0, seed: int = 0) -> Functions:
    """1 and Gaussians around some of the draws: functions for laws that monomials describe badly.

    Args:
        x: draws (chain, draw, dim).
        count: how many Gaussians; their centres are draws chosen at random.
        width: their standard deviation along each coordinate, in standard deviations of the draws.
        seed: seed of the choice.

    Raises:
        ValueError: if there are fewer draws than Gaussians, or the width is not positive.
    """
    flat = np.asarray(x, float).reshape(-1, np.shape(x)[-1])
    if not 1 <= count <= len(flat) or not width > 0:
        raise ValueError(f"count={count} and width={width}; want 1 to {len(flat)} Gaussians of positive width.")
    scale = width * flat.std(0)
    centres = flat[np.random.default_rng(seed).choice(len(flat), count, replace=False)] / scale

    def functions(position):
        unit = position / scale
        square = (unit**2).sum(1)[:, None] - 2 * unit @ centres.T + (centres**2).sum(1)
        return np.concatenate([np.ones((len(unit), 1)), np.exp(-square / 2)], axis=1)

    return functions


@dataclass(frozen=True)
class Monomials:
    """All products of up to ``order`` coordinates; those of lower degree come first."""

    dim: int
    order: int

    def __call__(self, x: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n functions"]:
        """The monomials at each position."""
        found = np.ones((comb(self.dim + self.order, self.order), len(x)))
        made, last = 1, [(0, 0)]  # of each monomial of the last degree its row, and the first coordinate to go on with
        for _ in range(self.order):
            degree = []
            for row, first in last:
                for d in range(first, self.dim):
                    np.multiply(found[row], x[:, d], out=found[made])
                    degree.append((made, d))
                    made += 1
            last = degree
        return found.T


class CurrentBasis(NamedTuple):
    """How currents are computed from draws; ``current_basis`` makes one.

    Attributes:
        centre: the mean of the draws, of shape (dim,).
        parity: ε, of shape (dim,).
        units: what offsets from the mean are multiplied with from the right, of shape (dim, dim).
        functions: φ.
        potentials: functions ψ of the same, whose differences ψ(x') − ψ(x) are much like some of the currents; none
            where there are momenta.
        reach: where to cut off offsets in those units, of which φ are functions; infinite where φ are functions of the
            position as it is.
        longest: where to cut off moves x' − εx in those units, of shape (dim,).
        levels: numbers of currents that make nested bases, the last that of all.
        leverage: R with R Rᵀ = (Σ j jᵀ)⁻¹, by which transitions too rare to learn from are known: their currents are 0.
            None where all are kept.
    """

    centre: Float[np.ndarray, "dim"]
    parity: Float[np.ndarray, "dim"]
    units: Float[np.ndarray, "dim dim"]
    functions: Functions
    potentials: Functions | None
    reach: float
    longest: Float[np.ndarray, "dim"]
    levels: tuple[int, ...]
    leverage: Float[np.ndarray, "currents rank"] | None = None

    @property
    def size(self) -> int:
        """How many currents there are."""
        return self.levels[-1]

    def parts(self, transitions: slice) -> Iterator[slice]:
        """Cut a stretch of transitions into parts whose currents take little memory."""
        length = max(1, _CHUNK // self.size)
        for start in range(transitions.start, transitions.stop, length):
            yield slice(start, min(start + length, transitions.stop))

    def values(self, positions: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n functions"]:
        """φ at positions."""
        return self.functions(self._arguments(positions))

    def differences(self, positions: Float[np.ndarray, "draw dim"]) -> Float[np.ndarray, "potentials transition"]:
        """ψ(x') − ψ(x) of successive positions: of mean 0 in every stationary state."""
        if self.potentials is None:
            return np.zeros((0, len(positions) - 1))
        return np.diff(self.potentials(self._arguments(positions)), axis=0).T

    def _arguments(self, positions):
        """What φ and ψ are functions of."""
        if np.isfinite(self.reach):
            return np.clip((positions - self.centre) @ self.units, -self.reach, self.reach)
        return positions

    def means(self, positions: Float[np.ndarray, "draw dim"]) -> Float[np.ndarray, "functions transition"]:
        """½ [φ(x) + φ(εx')] of successive positions."""
        now = self.values(positions)
        reverse = self.values(self.centre + self.parity * (positions - self.centre)) if np.any(self.parity < 0) else now
        return (now[:-1] + reverse[1:]).T / 2

    def moves(self, positions: Float[np.ndarray, "draw dim"]) -> Float[np.ndarray, "dim transition"]:
        """Moves x' − εx between successive positions, in units and cut off."""
        moves = _moves((positions - self.centre) @ self.units, self.parity)
        return np.clip(moves, -self.longest, self.longest).T

    def of(self, chain: Float[np.ndarray, "draw dim"], part: slice) -> Float[np.ndarray, "currents transition"]:
        """The currents of some transitions of a chain, those of one φ together."""
        positions = chain[part.start : part.stop + 1]
        moves = self.moves(positions)
        currents = (self.means(positions)[:, None, :] * moves).reshape(-1, moves.shape[1])
        if self.leverage is not None:
            currents[:, self.rare(currents)] = 0.0
        return currents

    def rare(self, currents: Float[np.ndarray, "currents transition"]) -> Bool[np.ndarray, "transition"]:
        """Which transitions alone, or with a few more, decide on some combination of currents."""
        if self.leverage is None:
            return np.zeros(currents.shape[1], bool)
        return ((self.leverage.T @ currents) ** 2).sum(0) > MAX_LEVERAGE


def current_basis(
    x: Draws, order: int = 3, functions: Functions | None = None, parity: Float[np.ndarray, "dim"] | None = None
) -> CurrentBasis:
    """Currents of monomials up to ``order``, or of other functions.

    Monomials are of coordinates of unit covariance, from the mean and no farther out than four robust standard
    deviations. Moves are cut off likewise: of heavy tails no single draw decides.

    Raises:
        ValueError: for an order that is not a positive whole number, too many currents, functions that return anything
            but an array (n, functions) of finite numbers, or draws that move in fewer dimensions than they have.
    """
    dim = x.shape[2]
    parity = np.ones(dim) if parity is None else parity
    levels = _levels_of_monomials(dim, order) if functions is None else _level_of(functions, x)
    centre = x.mean((0, 1))
    covariance = np.sum([(chain - centre).T @ (chain - centre) for chain in x], 0) / (x.shape[0] * x.shape[1])
    check_full_rank(covariance, "the stationary covariance")
    scale = np.sqrt(np.diag(covariance))
    # Momenta and the others apart: a triangular root then mixes neither with the other.
    correlation = covariance / np.outer(scale, scale) * (np.outer(parity, parity) > 0)
    units = np.linalg.inv(np.linalg.cholesky(correlation)).T / scale[:, None]
    every = max(1, x.shape[0] * (x.shape[1] - 1) // _LOOKED_AT)
    now, after = ((part.reshape(-1, dim)[::every] - centre) @ units for part in (x[:, :-1], x[:, 1:]))
    spread = _robust_spread(now)
    units = units / spread
    pairs = np.stack([now, after]) / spread
    longest = REACH * _robust_spread(_moves(pairs, parity)[0])
    reach = REACH if functions is None else np.inf
    phi: Functions = Monomials(dim, int(order)) if functions is None else functions
    # the gradients of monomials are those of one degree less
    psi: Functions | None = Monomials(dim, int(order) + 1) if functions is None else functions
    if np.any(parity < 0):
        psi = None
    return CurrentBasis(centre, parity, units, phi, psi, reach, longest, levels)


def _moves(unit, parity):
    """From x to x', successive positions along the first axis: x' − εx."""
    return unit[1:] - unit[:-1] * parity


def _robust_spread(values):
    """Standard deviations, or that of the bulk where tails are heavy."""
    deviation = np.sqrt((values**2).mean(0))
    bulk = _TO_SD * np.median(np.abs(values - np.median(values, 0)), 0)
    return np.clip(bulk, _LEAST_SPREAD * deviation, deviation)


def _levels_of_monomials(dim, order):
    if not 1 <= order <= MAX_ORDER or order != int(order):
        raise ValueError(f"order={order!r}; want a whole number from 1 to {MAX_ORDER}.")
    order = int(order)
    if monomial_currents(dim, order) > MAX_CURRENTS:
        fits = largest_order(dim, order)
        lower = f"order={fits}, which makes {monomial_currents(dim, fits)}, or " if fits else ""
        fewer = max(d for d in range(1, dim) if monomial_currents(d, order) <= MAX_CURRENTS)
        raise ValueError(
            f"order={order} in {dim} dimensions makes {monomial_currents(dim, order)} currents, more than the "
            f"{MAX_CURRENTS} that can be fitted. Use {lower}at most {fewer} dimensions: "
            f"principal_components(x, {fewer}).apply(x)."
        )
    return tuple(monomial_currents(dim, m) for m in range(1, int(order) + 1))


def _level_of(functions, x):
    few = x[0, : min(5, x.shape[1])]
    values = np.asarray(functions(few))
    if values.ndim != 2 or len(values) != len(few) or not values.size or not np.isfinite(values).all():
        raise ValueError(
            f"basis makes of positions of shape {few.shape} an array of shape {values.shape}, finite or not; want "
            "finite numbers of shape (positions, functions)."
        )
    dim, count = x.shape[2], values.shape[1]
    if count * dim > MAX_CURRENTS:
        raise ValueError(
            f"{count} functions in {dim} dimensions make {count * dim} currents, more than the {MAX_CURRENTS} that can "
            f"be fitted; give {MAX_CURRENTS // dim} functions or fewer."
        )
    return (count * dim,)
