"""The posteriors on which accuracy is compared: two quadratic ones and three logistic regressions with references.

What a run or a reference knows of a posterior are ``Moments``: the mean and sd of each coordinate, and how each
block of draws pulls on them, from which follow the errors of anything computed from them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, init_to_value
from sklearn.datasets import load_breast_cancer, load_digits

from sgworld_numpyro.linear_gaussian import LinearGaussian, gaussian_mean, linear_regression

NUM_ROWS, BATCH_SIZE = 1000, 10  # of the quadratic ones
PRIOR_SCALE = 10.0
REFERENCE_BLOCKS = 128


def correlated_mean(rng) -> LinearGaussian:
    """The mean of a Gaussian; the rows' coordinates are correlated, which the model does not know."""
    scale = np.array([1.0, 0.6])
    spread = np.outer(scale, scale) * [[1, 0.9], [0.9, 1]]
    x = rng.multivariate_normal([1.0, -1.0], spread, NUM_ROWS)
    return gaussian_mean(x, np.diag(scale**2), prior_covariance=PRIOR_SCALE**2 * np.eye(2))


def misspecified_regression(rng) -> LinearGaussian:
    """A line through a parabola, under noise that is skewed and grows to the right.

    A row's Hessian and its gradient are correlated then, which shifts the mean of reshuffled chains.
    """
    slope = rng.normal(size=NUM_ROWS)
    x = np.column_stack([np.ones(NUM_ROWS), slope])
    y = 1 + slope + 0.5 * slope**2 + np.exp(slope / 2) * (rng.exponential(size=NUM_ROWS) - 1)
    residuals = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return linear_regression(x, y, residuals.std(), PRIOR_SCALE)


class Moments(NamedTuple):
    """Means and sds, and how they respond to blocks of draws.

    Attributes:
        mean: (d,).
        sd: (d,).
        pulls: (blocks, 2, d), what a block has more than the mean of all, of the mean and of the sd.
        source: in words.
    """

    mean: np.ndarray
    sd: np.ndarray
    pulls: np.ndarray
    source: str


def moments(draws, num_blocks, source):
    """Of draws (chains, samples, d), each chain cut into blocks that are long beside the relaxation."""
    chains, samples, dim = draws.shape
    each = max(num_blocks // chains, 1)
    draws = draws[:, : samples // each * each].reshape(chains * each, -1, dim).astype(float)
    mean = draws.mean((0, 1))
    offset = draws - mean
    squares = (offset**2).mean(1)
    variance = squares.mean(0)
    pulls = np.stack([offset.mean(1), (squares - variance) / (2 * np.sqrt(variance))], axis=1)
    return Moments(mean, np.sqrt(variance), pulls, source)


class Logistic(NamedTuple):
    """A Bayesian logistic regression; the first column of ``x`` is of ones, the prior of all weights standard normal.

    The batch size divides the rows, so that a pass ends where a period does.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    batch_size: int

    @property
    def batches(self):
        """R, batches a pass."""
        return len(self.y) // self.batch_size

    def model(self, x, y):
        weights = numpyro.sample("weights", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
        with numpyro.plate("rows", len(x), subsample_size=self.batch_size):
            batch, label = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
            numpyro.sample("obs", dist.Bernoulli(logits=batch @ weights), obs=label)

    def laplace(self):
        """Mode and covariance of the normal approximation there, by Newton's method."""
        x, weights = self.x.astype(float), np.zeros(self.x.shape[1])
        for _ in range(30):
            chance = 1 / (1 + np.exp(-x @ weights))
            hessian = (x.T * (chance * (1 - chance))) @ x + np.eye(len(weights))
            weights = weights - np.linalg.solve(hessian, x.T @ (chance - self.y) + weights)
        covariance = np.linalg.inv(hessian)
        return weights, (covariance + covariance.T) / 2


def _standardised(name, features, labels, batch_size):
    """Whole batches of the rows, all columns that vary."""
    rows = len(labels) // batch_size * batch_size
    features, labels = features[:rows], labels[:rows]
    features = features[:, features.std(0) > 0]
    x = np.column_stack([np.ones(len(features)), (features - features.mean(0)) / features.std(0)])
    return Logistic(name, x.astype(np.float32), labels.astype(np.int32), batch_size)


def breast_cancer(rng):
    features, labels = load_breast_cancer(return_X_y=True)
    kept = rng.permutation(len(labels))
    return _standardised("breast cancer", features[kept], labels[kept], 32)


def digits(rng):
    """Threes against eights."""
    features, labels = load_digits(return_X_y=True)
    kept = rng.permutation(np.flatnonzero((labels == 3) | (labels == 8)))
    return _standardised("digits 3 and 8", features[kept], labels[kept] == 8, 32)


def synthetic(rng, rows=100_000, dim=20, batch_size=100):
    features = rng.normal(size=(rows, dim - 1))
    logits = features @ rng.normal(size=dim - 1) / np.sqrt(dim)
    return _standardised("synthetic", features, rng.random(rows) < 1 / (1 + np.exp(-logits)), batch_size)


def by_nuts(posterior, full_data_model, num_chains, num_samples, seed):
    """Moments from NUTS on all rows."""
    mode, covariance = posterior.laplace()
    kernel = NUTS(
        full_data_model,
        inverse_mass_matrix=jnp.asarray(covariance),
        dense_mass=True,
        adapt_mass_matrix=False,
        init_strategy=init_to_value(values={"weights": jnp.asarray(mode)}),
    )
    mcmc = MCMC(
        kernel,
        num_warmup=300,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(seed), posterior.x, posterior.y)
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["weights"])
    return moments(draws, REFERENCE_BLOCKS, f"NUTS, {num_chains * num_samples} draws")


def by_importance(posterior, num_draws, rng):
    """Moments from draws of the Laplace approximation, weighted by posterior over approximation.

    For many rows the two are close, and NUTS is dear. Draws come in pairs on either side of the mode, and what is
    estimated is the difference from the normal's own moments, which are known.
    """
    mode, covariance = posterior.laplace()
    root = np.linalg.cholesky(covariance)
    x, dim = posterior.x.astype(float), len(mode)
    half, each = num_draws // (2 * REFERENCE_BLOCKS), 2 * (num_draws // (2 * REFERENCE_BLOCKS))
    offsets, log_weights = np.empty((REFERENCE_BLOCKS, each, dim)), np.empty((REFERENCE_BLOCKS, each))
    at_mode = x @ mode
    for block in range(REFERENCE_BLOCKS):
        standard = rng.normal(size=(half, dim))
        standard = np.concatenate([standard, -standard])
        offsets[block] = standard @ root.T
        logits = at_mode + offsets[block] @ x.T
        likelihood = logits @ posterior.y - np.logaddexp(0, logits).sum(1)
        prior = -((mode + offsets[block]) ** 2).sum(1) / 2
        log_weights[block] = likelihood + prior + (standard**2).sum(1) / 2
    weights = np.exp(log_weights - log_weights.max())
    weights = (weights / weights.mean())[..., None]
    shift = (weights * offsets).mean((0, 1))
    squares = weights * (offsets - shift) ** 2
    variance = np.diag(covariance) + (squares - offsets**2).mean((0, 1))
    sd = np.sqrt(variance)
    on_mean = (weights * (offsets - shift)).mean(1)
    on_variance = squares - weights * squares.mean((0, 1)) - (offsets**2 - (offsets**2).mean((0, 1)))
    pulls = np.stack([on_mean, on_variance.mean(1) / (2 * sd)], axis=1)
    effective = weights.sum() ** 2 / (weights**2).sum()
    source = f"{weights.size} weighted draws of the Laplace approximation, worth {effective:.0f}"
    return Moments(mode + shift, sd, pulls, source)
