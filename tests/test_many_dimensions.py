"""Tuning in more dimensions than matrices are made in, against posteriors that are known."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC

from sgworld_numpyro import BAOAB, SGWORLD, RandomReshuffle, tuning_report
from sgworld_numpyro.preconditioners import Dense, Diagonal
from sgworld_numpyro.tuning.curvature import Rates
from sgworld_numpyro.tuning.diagonal_looks import ACCURACY, SOME_GROUPS, DiagonalLooks
from sgworld_numpyro.tuning.many_dimensions import _step_size
from sgworld_numpyro.tuning.step_size import SHIFT, Discretisation

GROUPS, EACH, SCALE = 1000, 8, 0.6


@pytest.fixture(scope="module")
def hierarchy():
    """A centred hierarchy and its data: the density has no maximum, it grows without bound as the scale goes to 0."""
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(GROUPS, dtype=np.int32), EACH))
    y = (0.7 + SCALE * rng.normal(size=GROUPS)[group] + rng.normal(size=len(group))).astype(np.float32)

    def model(group, y):
        mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfNormal(1))
        theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([GROUPS]).to_event(1))
        with numpyro.plate("rows", len(y), subsample_size=200):
            g, own = numpyro.subsample(group, event_dim=0), numpyro.subsample(y, event_dim=0)
            numpyro.sample("y", dist.Normal(theta[g], 1), obs=own)

    return model, (group, y)


def exact_moments(group, y):
    """Means and sds of mu and tau, on a grid, the groups' own effects integrated out."""
    means = np.bincount(group, y) / EACH
    mu, tau = np.linspace(0.4, 1.0, 301)[:, None], np.linspace(0.45, 0.75, 401)
    variance = tau**2 + 1 / EACH
    squares = np.sum(means**2) - 2 * mu * means.sum() + GROUPS * mu**2
    log_density = -0.5 * GROUPS * np.log(variance) - 0.5 * squares / variance - mu**2 / 50 - tau**2 / 2
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    moments = {}
    for name, grid in (("mu", mu), ("tau", tau)):
        mean = np.sum(weights * grid)
        moments[name] = mean, np.sqrt(np.sum(weights * (grid - mean) ** 2))
    return moments


def test_the_bulk_of_a_hierarchy_is_not_at_its_mode(hierarchy):
    model, data = hierarchy
    mcmc = MCMC(
        SGWORLD(model),
        num_warmup=200,
        num_samples=1000,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), *data)
    draws = mcmc.get_samples(group_by_chain=True)
    report = tuning_report(mcmc)
    assert report.window_passes > 0
    assert report.predicted_shift < 0.05
    for name, (mean, sd) in exact_moments(*data).items():
        found = np.asarray(draws[name], float)
        effective = effective_sample_size(found)
        assert split_gelman_rubin(found) < 1.1
        assert effective > 50
        assert abs(found.mean() - mean) / sd < 3.5 / np.sqrt(effective) + report.predicted_shift
        assert abs(found.std() / sd - 1) < 3.5 / np.sqrt(2 * effective) + report.predicted_bias


def test_biases_of_all_coordinates_add_up():
    """Each within the tolerance, they would move what sees them all, here their sum of squares, by more of its sds."""
    law = Discretisation(
        scheme=RandomReshuffle(),
        integrator=BAOAB(),
        num_rows=4000,
        batch_size=100,
        at_ends=True,
        temperature=1.0,
        minibatch_noise=True,
        tolerance=0.02,
    )
    rates, dim = Rates(2.2, 1.0, 0.4, 0.0, 0.0, 0.0), 2000
    longest, step_size = float(law.choose(1.0, rates)), _step_size(law, 1.0, rates, dim)
    assert longest / 2 < step_size < longest
    excess, *_ = law.parts(step_size, 1.0, rates._replace(fastest=rates.mean))
    moved = dim * float(excess) / np.sqrt(2 * dim)  # the sum has mean d and variance 2 d
    assert 0.8 * SHIFT * law.tolerance < moved <= SHIFT * law.tolerance
    assert _step_size(law, 1.0, rates, 10) == longest


def test_a_dense_metric_is_not_learnt(hierarchy):
    model, data = hierarchy
    with pytest.raises(ValueError, match=rf"up to 1000 dimensions, and the model has {GROUPS + 2}"):
        SGWORLD(model, preconditioner=Dense()).init(jax.random.key(0), 1, None, data, {})


@pytest.mark.parametrize("preconditioner", [Diagonal(np.ones(3)), Dense(np.eye(3))])
def test_a_preconditioner_of_other_dimensions(hierarchy, preconditioner):
    model, data = hierarchy
    with pytest.raises(ValueError, match=rf"shape \(3.*does not fit a model of {GROUPS + 2} unconstrained coordinates"):
        SGWORLD(model, 1e-4, preconditioner=preconditioner).init(jax.random.key(0), 1, None, data, {})


def test_no_group_is_left_without_the_curvature_of_its_prior(hierarchy):
    """Few random signs leave one of a thousand without any, by what its effect has to do with mean and scale."""
    model, data = hierarchy
    kernel = SGWORLD(model, step_size=1e-4)
    kernel.init(jax.random.key(0), 1, None, data, {})
    log_scale = -2.0
    effects = 0.7 + np.exp(log_scale) * np.random.default_rng(2).normal(size=GROUPS)
    positions = np.tile(np.r_[0.7, log_scale, effects], (4, 1))  # mu, tau, theta
    curvatures = DiagonalLooks(kernel._bindings.current, seed=0).slopes(positions).curvatures
    assert curvatures[:, 2:].mean(0).min() > 0.5 * np.exp(-2 * log_scale)


def test_rates_are_those_of_the_hessian_of_all_rows():
    """Where there are hardly more rows than coordinates, the steepest direction of some rows is not that of all."""
    rows, dim = 2000, 1001
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(rows, dim)) * np.geomspace(1, 5, dim)).astype(np.float32)
    w = rng.normal(size=dim) / 50
    y = (x @ w + rng.normal(size=rows)).astype(np.float32)

    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([dim]).to_event(1))
        with numpyro.plate("rows", rows, subsample_size=50):
            xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
            numpyro.sample("y", dist.Normal(xb @ w, 1), obs=yb)

    kernel = SGWORLD(model, step_size=1e-3, preconditioner=Diagonal(np.ones(dim)))
    kernel.init(jax.random.key(0), 1, None, (x, y), {})
    looks = DiagonalLooks(kernel._bindings.current, seed=0)

    x, y = x.astype(float), y.astype(float)
    hessian = x.T @ x + np.eye(dim)
    covariance = np.linalg.inv(hessian)
    position = covariance @ (x.T @ y) + np.linalg.cholesky(covariance) @ rng.normal(size=dim)
    slopes = looks.slopes(position[None])
    residuals = y - x @ position
    gradient = position - x.T @ residuals
    np.testing.assert_allclose(slopes.gradients[0], gradient, atol=1e-3 * np.abs(gradient).max())
    of_rows = -(x * residuals[:, None]) * rows  # gradients in which each stands for all
    away = of_rows - of_rows.mean(0)
    ratio = slopes.curvatures[0] / ((away**2).mean(0) / rows + 1)
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert ratio.std() < 1.2 * np.sqrt(2 / SOME_GROUPS)

    metric = Diagonal((1 / slopes.curvatures[0]).astype(np.float32))
    root = np.sqrt(1 / slopes.curvatures[0].astype(float))
    values = np.linalg.eigvalsh(root[:, None] * hessian * root)
    rates, steepest = looks.rates(position, slopes.gradients[0], metric, 1.0, None)
    assert rates.fastest == pytest.approx(values[-1], rel=ACCURACY)
    assert rates.mean == pytest.approx(values.mean(), rel=0.2)
    assert rates.slope == 0  # odd in the inputs, whose law is even
    along = ((away * root) @ steepest).var() / rows / rates.fastest
    total = ((away * root) ** 2).sum(1).mean() / rows / dim / rates.mean
    assert rates.noise - rates.anchored_noise == pytest.approx(max(along, total), rel=0.1)
    inputs = x * root
    of_hessians = rows**2 * np.mean((inputs @ steepest) ** 2 * np.sum(inputs**2, axis=1))
    per_batch = (rows - 50) / (rows - 1) / 50
    assert rates.hessian_noise == pytest.approx(of_hessians * per_batch, rel=0.1)
