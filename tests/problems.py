"""Exactly solvable problems, each a NumPyro model with the ``LinearGaussian`` that says what its chains do."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_numpyro.linear_gaussian import LinearGaussian, gaussian_mean


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
