"""Stationary moments of the linear recursions behind `linear_gaussian`, on plain arrays.

A step is θ' = θ − h(H_b θ + g_b) + noise, in coordinates centred at the mode. Given the batches, the noise
adds hT(α I + β K_b) to the second moment, K_b = I − hH_b: (α, β) = (2, 0) for Euler–Maruyama, and (1, 1) for
Leimkuhler–Matthews, since θ_n already holds √(hT/2) of the ξ_n that it meets again.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sgworld_numpyro._orders import (
    MEMORYLESS,
    Orders,
    batch_sum_covariance,
    memoryless_variance,
    possible_orders,
)

NOISE = {"euler_maruyama": (2.0, 0.0), "leimkuhler_matthews": (1.0, 1.0)}


# Mean and covariance at each phase, and the standard errors of both.
Moments = tuple[
    Float[np.ndarray, "steps d"],
    Float[np.ndarray, "steps d d"],
    Float[np.ndarray, "steps d"],
    Float[np.ndarray, "steps d d"],
]


class Chain(NamedTuple):
    """The arguments of `linear_gaussian.stationary_moments` that say what is run."""

    scheme: str
    integrator: str
    step_size: float
    batch_size: int
    temperature: float
    order: Int[np.ndarray, "steps batch"] | None


class NoStationaryLaw(ArithmeticError):
    """The mean or the covariance of the chain grows without bound."""


# One Hessian for all rows: the gradient noise is additive, and the eigenvectors of H part the dimensions.


def equal_hessians(hessian: Float[np.ndarray, "d d"], row_shifts: Float[np.ndarray, "rows d"], chain: Chain) -> Moments:
    """Mean, from the mode, and covariance at each phase, with zero standard errors.

    Along an eigenvector of H a batch only kicks, θ' = κθ + kick + noise with κ = 1 − hλ, and the covariance
    of two kicks is the population covariance of the rows times a number that the scheme decides.
    """
    scheme, integrator, step_size, batch_size, temperature, order = chain
    eigenvalues, vectors = np.linalg.eigh(hessian)
    contraction = 1 - step_size * eigenvalues
    if np.abs(contraction).max() >= 1:
        raise NoStationaryLaw
    num_rows = len(row_shifts)
    kicks = step_size * num_rows / batch_size * (row_shifts - row_shifts.mean(0)) @ vectors
    if order is not None:
        batch_kicks = kicks[order].sum(1)
        if scheme == "batch_reshuffle":  # the batches of a partition are reshuffled as single rows would be
            kicks, num_rows, batch_size = batch_kicks, len(order), 1
    if order is None or scheme == "batch_reshuffle":
        kick_covariance = batch_sum_covariance(scheme, num_rows, batch_size)
        factors = periodic_covariance(contraction, kick_covariance, repeated=scheme == "shuffle_once")
        spread = factors * (kicks.T @ kicks / num_rows)
        mean = np.zeros(spread.shape[:-1])
    else:
        mean = periodic_mean(contraction, batch_kicks)
        spread = np.zeros((*mean.shape, len(contraction)))
    identity, along_step = NOISE[integrator]
    # hT (α + βκ) / (1 − κ²), without the cancellation that would hide how little the best schemes are off.
    injected = temperature * (identity + along_step * contraction) / (eigenvalues * (1 + contraction))
    return _exact(mean @ vectors.T, vectors @ (spread + np.diag(injected)) @ vectors.T)


def periodic_mean(
    contraction: Float[np.ndarray, " d"], kicks: Float[np.ndarray, "steps d"]
) -> Float[np.ndarray, "steps d"]:
    """Periodic solution of x_{k+1} = κ x_k + kick_k, at k = 0, 1, …."""

    def sweep(x: np.ndarray) -> np.ndarray:
        visited = [x]
        for kick in kicks:
            visited.append(contraction * visited[-1] + kick)
        return np.stack(visited)

    gained = sweep(np.zeros_like(contraction))[-1]
    return sweep(gained / (1 - contraction ** len(kicks)))[:-1]


def periodic_covariance(
    contraction: Float[np.ndarray, " d"], kick_covariance: Float[np.ndarray, "steps steps"], repeated: bool
) -> Float[np.ndarray, "steps d d"]:
    """Stationary covariance of x_{k+1} = κ x_k + kick_k for each pair of eigenvalues, at k = 0, 1, ….

    Args:
        contraction: κ for each eigenvector.
        kick_covariance: covariance of the kicks of any two steps of a period.
        repeated: whether the same kicks come again every period, rather than independent ones.
    """
    steps = len(kick_covariance)
    pair = np.multiply.outer(contraction, contraction)

    def sweep(with_kicks: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        visited = [own]
        for k in range(steps):
            driven = contraction * with_kicks[:, k]
            own = pair * own + driven[:, None] + driven[None, :] + kick_covariance[k, k]
            with_kicks = contraction[:, None] * with_kicks + kick_covariance[k]
            visited.append(own)
        return with_kicks, np.stack(visited)

    nothing = np.zeros((len(contraction), steps))
    with_kicks, gained = sweep(nothing, np.zeros_like(pair))
    kept = contraction**steps
    if repeated:
        loss = 1 - kept
        start = with_kicks / loss[:, None], gained[-1] / np.multiply.outer(loss, loss)
    else:
        start = nothing, gained[-1] / (1 - np.multiply.outer(kept, kept))
    return sweep(*start)[1][:-1]


# A Hessian for each row: a batch takes M = E[(1, θ)(1, θ)ᵀ] to F M Fᵀ + noise, F = [[1, 0], [−h g, K]]. That
# is F ⊗ F on the vector of M; as M_00 = 1, the noise can stand in its column, and a period is one matrix.


def unequal_hessians(
    row_hessians: Float[np.ndarray, "rows d d"],
    row_gradients: Float[np.ndarray, "rows d"],
    chain: Chain,
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
    scheme, integrator, step_size, batch_size, temperature, order = chain
    num_rows, dim = row_gradients.shape
    row_maps = np.zeros((num_rows, 1 + dim, 1 + dim))
    row_maps[:, 0, 0] = 1
    row_maps[:, 1:, 0] = -step_size * row_gradients
    row_maps[:, 1:, 1:] = np.eye(dim) - step_size * row_hessians
    noise = step_size * temperature * np.array(NOISE[integrator])
    if scheme in MEMORYLESS:
        variance = memoryless_variance(scheme, num_rows, batch_size)
        return _exact(*moments(fixed_points(memoryless_maps(row_maps, variance, noise))))
    orders = possible_orders(scheme, num_rows, batch_size, order, num_orders, seed)
    return moments_over_orders(row_maps, orders, noise)


def memoryless_maps(
    row_maps: Float[np.ndarray, "rows 1+d 1+d"], variance: float, noise: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "1 (1+d)**2 (1+d)**2"]:
    """Second-moment map of a step whose batch is independent of all others.

    Args:
        row_maps: F of each row standing for all rows; that of a batch is their mean.
        variance: variance of a batch mean in units of the population variance of the rows.
        noise: multiples of I and of K that the injected noise adds.
    """
    mean = row_maps.mean(0)
    spread = _second_moment_map(row_maps - mean, np.zeros_like(mean))
    return (_second_moment_map(mean[None], _noise_covariance(mean, noise)) + variance * spread)[None]


def maps_along(
    row_maps: Float[np.ndarray, "rows 1+d 1+d"],
    orders: Int[np.ndarray, "chains visits steps batch"],
    noise: Float[np.ndarray, "2"],
) -> Float[np.ndarray, "chains steps (1+d)**2 (1+d)**2"]:
    """Each chain's second-moment maps over the first 1, 2, … steps of a period, averaged over its visits."""
    chains, visits, steps, _ = orders.shape
    dim = row_maps.shape[-1]
    path = np.broadcast_to(np.eye(dim), (chains, visits, dim, dim))
    injected = np.zeros_like(path)
    maps = np.empty((chains, steps, dim**2, dim**2))
    for k in range(steps):
        batch = row_maps[orders[:, :, k]].mean(2)
        path = batch @ path
        injected = batch @ injected @ batch.mT + _noise_covariance(batch, noise)
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


def moments(second_moments: Float[np.ndarray, "... steps D"]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of θ from E[(1, θ)(1, θ)ᵀ] as vectors."""
    dim = math.isqrt(second_moments.shape[-1])
    second_moments = second_moments.reshape(*second_moments.shape[:-1], dim, dim)
    mean = second_moments[..., 1:, 0]
    return mean, second_moments[..., 1:, 1:] - mean[..., :, None] * mean[..., None, :]


def moments_over_orders(
    row_maps: Float[np.ndarray, "rows 1+d 1+d"], orders: Orders, noise: Float[np.ndarray, "2"]
) -> Moments:
    """Mean and covariance at each phase, averaged over the orders, and their standard errors.

    Where chains differ for ever their laws are averaged; where one chain meets all orders, its maps.
    """
    along = (maps_along(row_maps, group, noise) for group in orders.rows)
    if orders.quenched:
        groups = np.stack([fixed_points(maps).mean(0) for maps in along])
    else:
        groups = np.stack([maps[0] for maps in along])

    def estimate(mean_of_groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return moments(mean_of_groups if orders.quenched else fixed_points(mean_of_groups))

    count = len(groups)
    mean, covariance = estimate(groups.mean(0))
    if count == 1:
        return _exact(mean, covariance)
    left_out = estimate((groups.sum(0) - groups) / (count - 1))
    mean_error, covariance_error = (np.sqrt((count - 1) * values.var(0)) for values in left_out)
    return mean, covariance, mean_error, covariance_error


def _exact(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    return mean, covariance, np.zeros_like(mean), np.zeros_like(covariance)


def _noise_covariance(maps: np.ndarray, noise: Float[np.ndarray, "2"]) -> np.ndarray:
    identity, contraction = noise
    covariance = np.zeros_like(maps)
    linear = maps[..., 1:, 1:]
    covariance[..., 1:, 1:] = identity * np.eye(linear.shape[-1]) + contraction * linear
    return covariance


def _second_moment_map(maps: np.ndarray, injected: np.ndarray) -> np.ndarray:
    """Mean of F ⊗ F over the third axis from the end, and the injected noise."""
    dim = maps.shape[-1]
    product = np.einsum("...nij,...nkl->...ikjl", maps, maps) / maps.shape[-3]
    product = product.reshape(*product.shape[:-4], dim**2, dim**2)
    product[..., 0] += injected.reshape(product.shape[:-1])
    return product
