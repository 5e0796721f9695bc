"""``MCMC(SGWORLD(model))`` with nothing chosen: right within its tolerance on problems of several kinds."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size, gelman_rubin
from numpyro.infer import NUTS
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler

from sgworld_numpyro import SGWORLD
from sgworld_numpyro.linear_gaussian import linear_regression
from sgworld_numpyro.model.handlers import FullDataModel
from tests.problems import anisotropic_mean
from tests.runs import run

TOLERANCE = 0.02  # the default of bias_tolerance
MEAN_TOLERANCE = 0.1  # posterior sds
ERRORS = 4  # the largest of some sixty coordinates


class Problem(NamedTuple):
    """A model, its data, how long to run, and the exact mean and covariance if they are known."""

    model: Callable
    data: tuple
    samples: int
    exact: object = None


def logistic(x, y, samples):
    x = StandardScaler().fit_transform(x[:, x.std(0) > 0])
    x = np.column_stack([np.ones(len(x)), x]).astype(np.float32)

    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
        with numpyro.plate("rows", x.shape[0], subsample_size=32):
            xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
            numpyro.sample("obs", dist.Bernoulli(logits=xb @ w), obs=yb)

    return Problem(model, (x, y.astype(np.float32)), samples)


def breast_cancer():
    return logistic(*load_breast_cancer(return_X_y=True), samples=6000)


def three_or_eight():
    x, y = load_digits(return_X_y=True)
    chosen = (y == 3) | (y == 8)
    return logistic(x[chosen], y[chosen] == 8, samples=6000)


def gaussian_mean():
    problem = anisotropic_mean(10, rows=1000)
    return Problem(problem.model, problem.data, 3000, problem.exact)


def schools():
    """Eight schools of a hundred pupils each: effects as in the classical data, and what a pupil scatters by."""
    rng = np.random.default_rng(3)
    effects = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    school = np.repeat(np.arange(8), 100)
    score = (effects[school] + 15 * rng.normal(size=800)).astype(np.float32)

    def model(school, score):
        mu = numpyro.sample("mu", dist.Normal(0, 20))
        tau = numpyro.sample("tau", dist.HalfNormal(20))
        sigma = numpyro.sample("sigma", dist.HalfNormal(50))
        with numpyro.plate("schools", 8):
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
        with numpyro.plate("rows", score.shape[0], subsample_size=40):
            here, scores = numpyro.subsample(school, event_dim=0), numpyro.subsample(score, event_dim=0)
            numpyro.sample("obs", dist.Normal(theta[here], sigma), obs=scores)

    return Problem(model, (school, score), 8000)


def ill_conditioned():
    """A linear regression whose Hessian has the condition number 3000, in directions that are no coordinate's."""
    rng = np.random.default_rng(3)
    rotation = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    x = ((rng.normal(size=(5000, 10)) * np.geomspace(1, 3000**-0.5, 10)) @ rotation.T).astype(np.float32)
    y = (x @ rng.normal(size=10) + rng.normal(size=5000)).astype(np.float32)

    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0, 10).expand([10]).to_event(1))
        with numpyro.plate("rows", x.shape[0], subsample_size=50):
            xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
            numpyro.sample("obs", dist.Normal(xb @ w, 1.0), obs=yb)

    exact = linear_regression(x, y, 1.0, 10.0)
    assert 2500 < np.linalg.cond(exact.hessian) < 3500
    return Problem(model, (x, y), 3000, exact)


PROBLEMS = [gaussian_mean, breast_cancer, three_or_eight, schools, ill_conditioned]


class Moments(NamedTuple):
    """Mean and sd of each coordinate, with Monte Carlo errors: of the mean in sds, of the sd relative."""

    mean: np.ndarray
    sd: np.ndarray
    mean_error: np.ndarray
    sd_error: np.ndarray


def moments(samples):
    x = np.concatenate([np.reshape(x, (*x.shape[:2], -1)) for _, x in sorted(samples.items())], -1).astype(float)
    mean, sd = x.mean((0, 1)), x.std((0, 1))
    squares = ((x - mean) / sd) ** 2
    sd_error = squares.std((0, 1)) / 2 / np.sqrt(effective_sample_size(squares))
    return x, Moments(mean, sd, 1 / np.sqrt(effective_sample_size(x)), sd_error)


def reference(problem):
    if problem.exact is not None:
        sd = np.sqrt(np.diag(problem.exact.covariance))
        return Moments(problem.exact.mean, sd, np.zeros_like(sd), np.zeros_like(sd))
    kernel = NUTS(FullDataModel(problem.model), target_accept_prob=0.9)
    nuts = run(kernel, *problem.data, num_warmup=1000, num_samples=8000, num_chains=2, key=1)
    return moments(nuts.get_samples(group_by_chain=True))[1]


@pytest.mark.slow
@pytest.mark.parametrize("make", PROBLEMS)
def test_defaults(make):
    problem = make()
    kernel = SGWORLD(problem.model)
    mcmc = run(kernel, *problem.data, num_warmup=200, num_samples=problem.samples, num_chains=4)
    x, found = moments(mcmc.get_samples(group_by_chain=True))
    steps = kernel.minibatch_rows(mcmc.last_state)["rows"].shape[-2]
    r_hat = gelman_rubin(x).max()
    print(
        f"{make.__name__}: {4 * (200 + problem.samples) * steps:.2g} minibatch gradients, "
        f"{4 * (200 + problem.samples)} samples, r-hat {r_hat:.4f}, "
        f"least effective sample size {1 / found.mean_error.max() ** 2:.0f}"
    )
    exact = reference(problem)
    mean_error = np.hypot(found.mean_error, exact.mean_error)
    sd_error = np.hypot(found.sd_error, exact.sd_error)
    moved, widened = (found.mean - exact.mean) / exact.sd, found.sd / exact.sd - 1
    print(f"means off by at most {abs(moved).max():.3f} sds (errors up to {mean_error.max():.3f})")
    print(f"sds off by at most {100 * abs(widened).max():.1f} % (errors up to {100 * sd_error.max():.1f} %)")
    assert r_hat < 1.01
    assert np.all(abs(moved) < MEAN_TOLERANCE + ERRORS * mean_error)
    assert np.all(abs(widened) < 2 * TOLERANCE + ERRORS * sd_error)
    assert mean_error.max() < 0.06
    assert sd_error.max() < 0.05
