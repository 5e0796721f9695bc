"""``MCMC(SGWORLD(model))`` with nothing chosen: right within its tolerance of exact posteriors.

``test_default_suite.py`` asks it of posteriors of many kinds, in shorter runs and with wider bounds.
"""

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size, gelman_rubin

from sgworld_numpyro import SGWORLD
from sgworld_numpyro.linear_gaussian import linear_regression
from tests.problems import Problem, anisotropic_mean
from tests.runs import run

TOLERANCE = 0.02  # the default of bias_tolerance
MEAN_TOLERANCE = 0.1  # posterior sds
ERRORS = 4  # the largest of ten coordinates


def gaussian_mean():
    return anisotropic_mean(10, rows=1000)


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
    return Problem(model, (x, y), exact)


@pytest.mark.slow
@pytest.mark.parametrize("make", [gaussian_mean, ill_conditioned])
def test_defaults(make):
    model, data, exact = make()
    mcmc = run(SGWORLD(model), *data, num_warmup=200, num_samples=3000, num_chains=4)
    (x,) = (np.asarray(draws, float) for draws in mcmc.get_samples(group_by_chain=True).values())
    mean, sd = x.mean((0, 1)), x.std((0, 1))
    squares = ((x - mean) / sd) ** 2
    mean_error = 1 / np.sqrt(effective_sample_size(x))  # in sds
    sd_error = squares.std((0, 1)) / 2 / np.sqrt(effective_sample_size(squares))  # relative
    exact_sd = np.sqrt(np.diag(exact.covariance))
    assert gelman_rubin(x).max() < 1.01
    assert np.all(abs(mean - exact.mean) / exact_sd < MEAN_TOLERANCE + ERRORS * mean_error)
    assert np.all(abs(sd / exact_sd - 1) < 2 * TOLERANCE + ERRORS * sd_error)
    assert mean_error.max() < 0.06
    assert sd_error.max() < 0.05
