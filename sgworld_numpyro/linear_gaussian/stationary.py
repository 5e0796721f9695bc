"""Stationary moments of the linear recursions behind `linear_gaussian`, on plain arrays.

A step is that of `steps`, in coordinates centred at the mode, where g_b(θ) = H_b θ + g_b.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sgworld_numpyro.integrators import NamedIntegrator
from sgworld_numpyro.linear_gaussian.orders import (
    Orders,
    batch_sum_covariance,
    memoryless_variance,
    possible_orders,
    rows_a_part,
)
from sgworld_numpyro.linear_gaussian.steps import LAWS, LinearStep
from sgworld_numpyro.subsampling import NamedScheme

# Mean and covariance at each phase, and the standard errors of both.
Moments = tuple[
    Float[np.ndarray, "steps d"],
    Float[np.ndarray, "steps d d"],
    Float[np.ndarray, "steps d"],
    Float[np.ndarray, "steps d d"],
]


class Process(NamedTuple):
    """The arguments of `linear_gaussian.stationary_moments` that say what is run; the friction is the integrator's."""

    scheme: NamedScheme
    integrator: NamedIntegrator
    step_size: float
    batch_size: int
    temperature: float
    friction: float
    order: Int[np.ndarray, "steps batch"] | None

    @property
    def step(self) -> LinearStep:
        """The integrator's step."""
        return LAWS[type(self.integrator)].step(self.step_size, self.temperature, self.friction)


class NoStationaryLaw(ArithmeticError):
    """The mean or the covariance of the chain grows without bound."""


# One Hessian for all rows: the gradient noise is additive, and the eigenvectors of H part the dimensions.


def equal_hessians(
    hessian: Float[np.ndarray, "d d"], row_shifts: Float[np.ndarray, "rows d"], chain: Process
) -> Moments:
    """Mean, from the mode, and covariance at each phase, with zero standard errors.

    Along an eigenvector of H a batch only kicks, z' = κz + kick + noise with κ of m × m numbers, and the
    covariance of two kicks is the population covariance of the rows times a number that the scheme decides.
    """
    scheme, integrator, step_size, batch_size, temperature, friction, order = chain
    eigenvalues, vectors = np.linalg.eigh(hessian)
    contraction = chain.step.with_curvature(eigenvalues)
    if np.abs(np.linalg.eigvals(contraction)).max() >= 1:
        raise NoStationaryLaw
    direction = chain.step.after @ chain.step.kick
    num_rows = len(row_shifts)
    part = rows_a_part(scheme, num_rows, batch_size)
    gradients = num_rows / batch_size * (row_shifts.mean(0) - row_shifts) @ vectors
    if order is not None:
        batch_gradients = gradients[order].sum(1)
        if part is not None:  # the parts of a partition are reshuffled as single rows would be
            gradients, num_rows, batch_size = batch_gradients, len(order), batch_size // part
    if order is None or part is not None:
        kick_covariance = batch_sum_covariance(scheme, num_rows, batch_size)
        factors = periodic_covariance(contraction, direction, kick_covariance, repeated=scheme.redraws == "never")
        spread = factors[..., 0, 0] * (gradients.T @ gradients / num_rows)
        mean = np.zeros(spread.shape[:-1])
    else:
        mean = periodic_mean(contraction, batch_gradients[..., None] * direction)[..., 0]
        spread = np.zeros((*mean.shape, len(eigenvalues)))
    injected = temperature * LAWS[type(integrator)].variance(step_size, friction, eigenvalues)
    return _exact(mean @ vectors.T, vectors @ (spread + np.diag(injected)) @ vectors.T)


def periodic_mean(
    contraction: Float[np.ndarray, "d m m"], kicks: Float[np.ndarray, "steps d m"]
) -> Float[np.ndarray, "steps d m"]:
    """Periodic solution of x_{k+1} = κ x_k + kick_k, at k = 0, 1, …."""

    def sweep(x: np.ndarray) -> np.ndarray:
        visited = [x]
        for kick in kicks:
            visited.append((contraction @ visited[-1][..., None])[..., 0] + kick)
        return np.stack(visited)

    gained = sweep(np.zeros(contraction.shape[:-1]))[-1]
    lost = np.eye(contraction.shape[-1]) - np.linalg.matrix_power(contraction, len(kicks))
    return sweep(np.linalg.solve(lost, gained[..., None])[..., 0])[:-1]


def periodic_covariance(
    contraction: Float[np.ndarray, "d m m"],
    direction: Float[np.ndarray, " m"],
    kick_covariance: Float[np.ndarray, "steps steps"],
    repeated: bool,
) -> Float[np.ndarray, "steps d d m m"]:
    """Stationary covariance of x_{k+1} = κ x_k + direction · kick_k for each pair of eigenvalues, at k = 0, 1, ….

    Args:
        contraction: κ for each eigenvector.
        direction: what a kick of size one adds to the state.
        kick_covariance: covariance of the kicks of any two steps of a period.
        repeated: whether the same kicks come again every period, rather than independent ones.
    """
    steps = len(kick_covariance)
    dim, size = contraction.shape[:2]
    left, right = contraction[:, None], contraction.mT[None]
    kicked = np.outer(direction, direction)

    def sweep(with_kicks: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        visited = [own]
        for k in range(steps):
            with_kicks = contraction @ with_kicks
            driven = with_kicks[:, :, k, None] * direction
            own = left @ own @ right + driven[:, None] + driven.mT[None] + kick_covariance[k, k] * kicked
            with_kicks = with_kicks + direction[:, None] * kick_covariance[k]
            visited.append(own)
        return with_kicks, np.stack(visited)

    nothing = np.zeros((dim, size, steps))
    with_kicks, gained = sweep(nothing, np.zeros((dim, dim, size, size)))
    kept = np.linalg.matrix_power(contraction, steps)
    if repeated:
        rest = np.linalg.inv(np.eye(size) - kept)
        start = rest @ with_kicks, rest[:, None] @ gained[-1] @ rest.mT[None]
    else:
        both = np.einsum("aij,bkl->abikjl", kept, kept).reshape(dim, dim, size**2, size**2)
        total = np.linalg.solve(np.eye(size**2) - both, gained[-1].reshape(dim, dim, size**2, 1))
        start = nothing, total.reshape(dim, dim, size, size)
    return sweep(*start)[1][:-1]


def periodic_variances(
    contraction: Float[np.ndarray, "problems m m"],
    direction: Float[np.ndarray, "problems m"],
    kick_covariance: Float[np.ndarray, "steps steps"],
    repeated: bool,
) -> Float[np.ndarray, "steps problems m m"]:
    """What `periodic_covariance` gives of one eigenvalue with itself, for many problems of one dimension at once.

    Args:
        contraction: κ of each problem.
        direction: what a kick of size one adds to its state.
        kick_covariance: covariance of the kicks of any two steps of a period.
        repeated: whether the same kicks come again every period, rather than independent ones.
    """
    steps, (problems, size) = len(kick_covariance), direction.shape
    kicked = direction[:, :, None] * direction[:, None, :]

    def sweep(with_kicks: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        visited = [own]
        for k in range(steps):
            with_kicks = contraction @ with_kicks
            driven = with_kicks[:, :, k, None] * direction[:, None, :]
            own = contraction @ own @ contraction.mT + driven + driven.mT + kick_covariance[k, k] * kicked
            with_kicks = with_kicks + direction[:, :, None] * kick_covariance[k]
            visited.append(own)
        return with_kicks, np.stack(visited)

    nothing = np.zeros((problems, size, steps))
    with_kicks, gained = sweep(nothing, np.zeros((problems, size, size)))
    kept = np.linalg.matrix_power(contraction, steps)
    if repeated:
        rest = np.linalg.inv(np.eye(size) - kept)
        start = rest @ with_kicks, rest @ gained[-1] @ rest.mT
    else:
        both = np.einsum("aij,akl->aikjl", kept, kept).reshape(problems, size**2, size**2)
        total = np.linalg.solve(np.eye(size**2) - both, gained[-1].reshape(problems, size**2, 1))
        start = nothing, total.reshape(problems, size, size)
    return sweep(*start)[1][:-1]


# A Hessian for each row: a batch takes M = E[(1, z)(1, z)ᵀ] to S M Sᵀ + noise, S = C K_b A in the coordinates
# (1, z). That is S ⊗ S on the vector of M; as M_00 = 1, the noise can stand in its column, and a period is one
# matrix. C K_b is linear in the rows of the batch, and noise that comes before the kick is squeezed with it.


def unequal_hessians(
    row_hessians: Float[np.ndarray, "rows d d"],
    row_gradients: Float[np.ndarray, "rows d"],
    chain: Process,
    num_orders: int,
    seed: int,
) -> Moments:
    """Mean, from the mode, and covariance at each phase, with their standard errors.

    Args:
        row_hessians: Hessian when one row stands for all; a batch has the mean of its rows'.
        row_gradients: gradient at the mode likewise.
        chain: what is run.
        num_orders: how many orders to sample where there are too many.
        seed: of that sample.
    """
    num_rows, dim = row_gradients.shape
    parts = _Parts.of(chain.step, row_hessians, row_gradients)
    if chain.scheme.redraws == "step":
        variance = memoryless_variance(chain.scheme, num_rows, chain.batch_size)
        return _exact(*moments(fixed_points(memoryless_maps(parts, variance)), dim))
    orders = possible_orders(chain.scheme, num_rows, chain.batch_size, chain.order, num_orders, seed)
    return moments_over_orders(parts, orders, dim)


class _Parts(NamedTuple):
    """A step in the coordinates (1, z) of n = 1 + m d dimensions; its covariances have a zero for the 1.

    Attributes:
        rows: C K of each row standing for all; that of a batch is their mean.
        before: A.
        before_noise: covariance of ζ.
        after_noise: covariance of ζ'.
        met_again: covariance of the state before the kick with ζ'.
    """

    rows: Float[np.ndarray, "rows n n"]
    before: Float[np.ndarray, "n n"]
    before_noise: Float[np.ndarray, "n n"]
    after_noise: Float[np.ndarray, "n n"]
    met_again: Float[np.ndarray, "n n"]

    @classmethod
    def of(cls, step: LinearStep, hessians: np.ndarray, gradients: np.ndarray) -> "_Parts":
        num_rows, dim = gradients.shape
        size = 1 + len(step.kick) * dim

        def spread(matrix: np.ndarray, constant: float) -> np.ndarray:
            whole = np.zeros((size, size))
            whole[0, 0] = constant
            whole[1:, 1:] = np.kron(matrix, np.eye(dim))
            return whole

        kicks = np.zeros((num_rows, size, size))
        kicks[:, 1:, 0] = np.einsum("m,ni->nmi", step.kick, gradients).reshape(num_rows, -1)
        kicks[:, 1:, 1 : 1 + dim] = np.einsum("m,nij->nmij", step.kick, hessians).reshape(num_rows, -1, dim)
        noises = (spread(covariance, 0.0) for covariance in (step.before_noise, step.after_noise, step.met_again))
        return cls(spread(step.after, 1.0) @ (np.eye(size) + kicks), spread(step.before, 1.0), *noises)

    def noise(self, batch: Float[np.ndarray, "... n n"]) -> Float[np.ndarray, "... n n"]:
        """Second moment that the noise of a step adds."""
        cross = batch @ self.met_again
        return batch @ self.before_noise @ batch.mT + cross + cross.mT + self.after_noise


def memoryless_maps(parts: _Parts, variance: float) -> Float[np.ndarray, "1 n**2 n**2"]:
    """Second-moment map of a step whose batch is independent of all others.

    Args:
        parts: of the step.
        variance: variance of a batch mean in units of the population variance of the rows.
    """
    mean = parts.rows.mean(0)
    apart = parts.rows - mean
    squeezed = (apart @ parts.before_noise @ apart.mT).mean(0)
    own = _second_moment_map((mean @ parts.before)[None], parts.noise(mean))
    return (own + variance * _second_moment_map(apart @ parts.before, squeezed))[None]


def maps_along(
    parts: _Parts, orders: Int[np.ndarray, "chains visits steps batch"]
) -> Float[np.ndarray, "chains steps n**2 n**2"]:
    """Each chain's second-moment maps over the first 1, 2, … steps of a period, averaged over its visits."""
    chains, visits, steps, _ = orders.shape
    size = len(parts.before)
    path = np.broadcast_to(np.eye(size), (chains, visits, size, size))
    injected = np.zeros_like(path)
    maps = np.empty((chains, steps, size**2, size**2))
    for k in range(steps):
        batch = parts.rows[orders[:, :, k]].mean(2)
        step = batch @ parts.before
        path = step @ path
        injected = step @ injected @ step.mT + parts.noise(batch)
        maps[:, k] = _second_moment_map(path, injected.mean(1))
    return maps


def fixed_points(maps: Float[np.ndarray, "... steps D D"]) -> Float[np.ndarray, "... steps D"]:
    """Stationary second moments at phases 0, 1, … from the maps over the first 1, 2, … steps.

    Raises:
        NoStationaryLaw: if the map over the period, the last one, does not contract.
    """
    period = maps[..., -1, :, :]
    linear, constant = period[..., 1:, 1:], period[..., 1:, :1]
    if np.abs(np.linalg.eigvals(linear)).max() >= 1:
        raise NoStationaryLaw
    rest = np.linalg.solve(np.eye(linear.shape[-1]) - linear, constant)[..., 0]
    start = np.concatenate([np.ones_like(rest[..., :1]), rest], axis=-1)
    later = np.einsum("...kij,...j->...ki", maps[..., :-1, :, :], start)
    return np.concatenate([start[..., None, :], later], axis=-2)


def moments(second_moments: Float[np.ndarray, "... steps D"], dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of θ, the first d coordinates of z, from E[(1, z)(1, z)ᵀ] as vectors."""
    size = math.isqrt(second_moments.shape[-1])
    second_moments = second_moments.reshape(*second_moments.shape[:-1], size, size)[..., : 1 + dim, : 1 + dim]
    mean = second_moments[..., 1:, 0]
    return mean, second_moments[..., 1:, 1:] - mean[..., :, None] * mean[..., None, :]


def moments_over_orders(parts: _Parts, orders: Orders, dim: int) -> Moments:
    """Mean and covariance at each phase, averaged over the orders, and their standard errors.

    Where chains differ for ever their laws are averaged; where one chain meets all orders, its maps.
    """
    along = (maps_along(parts, group) for group in orders.rows)
    if orders.quenched:
        groups = np.stack([fixed_points(maps).mean(0) for maps in along])
    else:
        groups = np.stack([maps[0] for maps in along])

    def estimate(mean_of_groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return moments(mean_of_groups if orders.quenched else fixed_points(mean_of_groups), dim)

    count = len(groups)
    mean, covariance = estimate(groups.mean(0))
    if count == 1:
        return _exact(mean, covariance)
    left_out = estimate((groups.sum(0) - groups) / (count - 1))
    mean_error, covariance_error = (np.sqrt((count - 1) * values.var(0)) for values in left_out)
    return mean, covariance, mean_error, covariance_error


def _exact(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    return mean, covariance, np.zeros_like(mean), np.zeros_like(covariance)


def _second_moment_map(maps: np.ndarray, injected: np.ndarray) -> np.ndarray:
    """Mean of F ⊗ F over the third axis from the end, and the injected noise."""
    dim = maps.shape[-1]
    product = np.einsum("...nij,...nkl->...ikjl", maps, maps) / maps.shape[-3]
    product = product.reshape(*product.shape[:-4], dim**2, dim**2)
    product[..., 0] += injected.reshape(product.shape[:-1])
    return product
