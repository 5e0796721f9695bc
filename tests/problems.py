"""Exactly solvable problems, each a NumPyro model with the ``LinearGaussian`` that says what its chains do."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_numpyro.linear_gaussian import LinearGaussian, gaussian_mean, linear_regression
from sgworld_numpyro.nonequilibrium.systems import LinearChain, beads, driven_ou

__all__ = [
    "LinearChain",
    "Measured",
    "Problem",
    "anisotropic_mean",
    "beads",
    "detailed_balance_ou",
    "driven_ou",
    "in_coordinates",
    "large_steps",
    "measure",
    "misspecified_regression",
]


class Problem(NamedTuple):
    model: Callable
    data: tuple
    exact: LinearGaussian


def anisotropic_mean(batch_size: int, rows: int = 200) -> Problem:
    """The mean of a 2-d Gaussian whose noise is correlated and four times wider one way than the other."""
    rng = np.random.default_rng(20)
    noise = np.array([[1.0, 0.6], [0.6, 2.0]])
    x = rng.multivariate_normal([0.3, -0.2], noise, size=rows).astype(np.float32)
    precision = np.linalg.inv(noise)

    def model(x):
        mean = numpyro.sample("mean", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
        with numpyro.plate("rows", x.shape[0], subsample_size=batch_size):
            batch = numpyro.subsample(x, event_dim=1)
            likelihood = dist.MultivariateNormal(mean, precision_matrix=jnp.asarray(precision))
            numpyro.sample("obs", likelihood, obs=batch)

    exact = gaussian_mean(x.astype(np.float64), noise, np.zeros(2), 100 * np.eye(2))
    return Problem(model, (jnp.asarray(x),), exact)


def in_coordinates(exact: LinearGaussian, root: np.ndarray) -> LinearGaussian:
    """The same problem in the coordinates L⁻¹θ, where L is ``root``."""
    return exact._replace(
        prior_precision=root.T @ exact.prior_precision @ root,
        prior_shift=root.T @ exact.prior_shift,
        row_hessians=root.T @ exact.row_hessians @ root,
        row_shifts=exact.row_shifts @ root,
    )


def misspecified_regression(batch_size, rows=60, bend=0.0):
    """Rows of unequal Hessians, whose noise grows with the predictor, and of which the model misses a bend."""
    rng = np.random.default_rng(4)
    x = np.stack([np.ones(rows), rng.exponential(size=rows)], 1).astype(np.float32)
    y = (x @ [0.5, 1.0] + bend * x[:, 1] ** 2 + (0.3 + x[:, 1]) * rng.normal(size=rows)).astype(np.float32)

    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0, 3).expand([2]).to_event(1))
        with numpyro.plate("rows", rows, subsample_size=batch_size):
            xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
            numpyro.sample("obs", dist.Normal(xb @ w, 1.0), obs=yb)

    return Problem(model, (x, y), linear_regression(x, y, 1.0, 3.0))


class Measured(NamedTuple):
    """Time averages of a chain, with standard errors from batch means."""

    mean: np.ndarray
    mean_error: np.ndarray
    second: np.ndarray
    second_error: np.ndarray


def measure(draws: np.ndarray, centre: np.ndarray, batches: int = 50) -> Measured:
    """Mean and second moment about ``centre`` of draws (chain, draw, dim), or of one chain's (draw, dim)."""
    draws = np.atleast_3d(draws) if draws.ndim == 3 else draws[None]
    x = draws.astype(np.float64) - centre
    products = x[..., :, None] * x[..., None, :]

    def average(values):
        chains, length = values.shape[:2]
        length -= length % batches
        means = values[:, :length].reshape(chains * batches, -1, *values.shape[2:]).mean(1)
        return means.mean(0), means.std(0, ddof=1) / np.sqrt(len(means))

    return Measured(*average(x), *average(products))


def detailed_balance_ou(step: float) -> LinearChain:
    """Anisotropic, correlated, in detailed balance to the last digit: A Σ is symmetric."""
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    mobility = np.diag([1.0, 0.4])
    A = np.eye(2) - step * mobility @ np.linalg.inv(covariance)
    return LinearChain(A, covariance - A @ covariance @ A.T, step, 0.0)


def large_steps(size: float) -> LinearChain:
    """Far from continuous time: the fastest direction moves ``size`` of its way at every step, and all turns."""
    A = np.eye(2) - size * np.array([[1.0, 0.5], [-0.5, 0.4]])
    return LinearChain(A, np.array([[1.0, 0.3], [0.3, 0.5]]), 1.0, np.nan)
