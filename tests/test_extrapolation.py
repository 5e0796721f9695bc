"""Moments at h, h/2 and extrapolated to none, against the exact stationary laws of the same chains."""

import json
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import NUTS
from scipy import stats

from sgworld_numpyro import (
    SGLD,
    SGWORLD,
    BatchReshuffle,
    EulerMaruyama,
    FullBatch,
    LeimkuhlerMatthews,
    ShuffleOnce,
    SymmetricReshuffle,
    WellingTeh,
    WithReplacement,
    extrapolation,
)
from sgworld_numpyro.extrapolation import Extrapolation, _bonferroni, _order_of, extrapolate
from sgworld_numpyro.integrators import BAOAB, UBU
from sgworld_numpyro.linear_gaussian import linear_regression, stationary_moments
from sgworld_numpyro.results.run_attributes import name_of
from tests.problems import anisotropic_mean

BATCH, BATCHES, CHAINS = 50, 4, 16
PASSES = 4  # a sample, over the data: half a relaxation time of the slow direction
PROBLEM = anisotropic_mean(BATCH)
FASTEST = np.linalg.eigvalsh(PROBLEM.exact.hessian).max()
BEYOND = stats.t.isf(stats.norm.sf(5), CHAINS - 1)  # as rare as five standard errors of a known size


def at_pass_time(pass_time):
    """The step size of R h λ in the fastest direction."""
    return pass_time / BATCHES / FASTEST


def run(kernel, samples=3000, warmup=60, **options):
    return extrapolate(kernel, jax.random.key(3), *PROBLEM.data, num_warmup=warmup, num_samples=samples, **options)


@pytest.fixture(scope="module")
def sgld():
    return run(SGLD(PROBLEM.model, at_pass_time(0.8), steps_per_sample=PASSES * BATCHES), samples=900, warmup=20)


def test_moments_are_those_of_the_chains(sgld):
    assert sgld.names == ("mean[0]", "mean[1]")
    for i, h in enumerate(sgld.step_sizes):
        exact = stationary_moments(PROBLEM.exact, WithReplacement(), EulerMaruyama(), h, BATCH).period_end
        assert (abs(sgld.mean[i] - exact[0]) <= BEYOND * sgld.mean_error[i]).all()
        assert (abs(sgld.variance[i] - np.diag(exact[1])) <= BEYOND * sgld.variance_error[i]).all()


def test_the_error_of_the_mean_belongs_to_the_variance(monkeypatch):
    """Chains of a single draw each: their variance is that of a sample, with one degree of freedom for its mean."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(2, 8, 2))  # run, chain, coordinate
    runs = iter(means)
    monkeypatch.setattr(extrapolation, "_moments_from", lambda *_: lambda *_: (one := next(runs), np.zeros_like(one)))
    found = run(SGLD(PROBLEM.model, at_pass_time(0.8)), num_chains=8)
    np.testing.assert_allclose(found.variance, means.var(1, ddof=1))
    np.testing.assert_allclose(found.extrapolated_variance, 2 * means[1].var(0, ddof=1) - means[0].var(0, ddof=1))


def test_the_limit_is_the_posterior(sgld):
    assert (sgld.order, sgld.moved) == (1, True)
    assert (abs(sgld.extrapolated_mean - PROBLEM.exact.mean) <= BEYOND * sgld.extrapolated_mean_error).all()
    variance = np.diag(PROBLEM.exact.covariance)
    assert (abs(sgld.extrapolated_variance - variance) <= BEYOND * sgld.extrapolated_variance_error).all()
    # the run's errors allow no more
    assert (abs(sgld.variance[0] - variance) > 4 * sgld.extrapolated_variance_error).any()
    off = abs(sgld.extrapolated_variance / variance - 1).max()
    assert off < abs(sgld.variance[0] / variance - 1).max() / 4


def test_both_runs_are_counted(sgld):
    assert sgld.step_sizes[1] == sgld.step_sizes[0] / 2
    assert sgld.gradients == CHAINS * 920 * PASSES * (BATCHES + 2 * BATCHES)


def test_a_small_step_moves_nothing():
    found = run(SGWORLD(PROBLEM.model, at_pass_time(0.2)), samples=1500, warmup=100)
    assert not found.moved
    for i in range(2):
        assert (abs(found.mean[i] - PROBLEM.exact.mean) <= BEYOND * found.mean_error[i]).all()
    assert "No mean or variance moved" in str(found)


def test_chains_in_pairs_share_their_order():
    """The mean of a chain that shuffles once depends on its order, in proportion to h: it cancels in pairs only."""
    found = run(SGWORLD(PROBLEM.model, at_pass_time(1.2), subsampling=ShuffleOnce()), samples=3000)
    unpaired = np.hypot(2 * found.mean_error[1], found.mean_error[0])
    assert (found.extrapolated_mean_error < unpaired / 2)[0]
    assert (abs(found.extrapolated_mean - PROBLEM.exact.mean) <= BEYOND * found.extrapolated_mean_error).all()
    # the law of all orders together, of which these are a few
    for i, h in enumerate(found.step_sizes):
        exact = stationary_moments(PROBLEM.exact, ShuffleOnce(), EulerMaruyama(), h, BATCH).period_end
        assert (abs(found.mean[i] - exact[0]) <= BEYOND * found.mean_error[i]).all()


def test_what_is_tuned_is_tuned_once():
    found = run(SGWORLD(PROBLEM.model), samples=1000, warmup=20)
    assert found.order == 2
    assert found.gradients % (CHAINS * 1020 * (BATCHES + 2 * BATCHES)) == 0  # of whole periods
    assert found.step_sizes[1] == found.step_sizes[0] / 2
    assert (abs(found.extrapolated_mean - PROBLEM.exact.mean) <= BEYOND * found.extrapolated_mean_error).all()
    variance = np.diag(PROBLEM.exact.covariance)
    assert (abs(found.extrapolated_variance - variance) <= BEYOND * found.extrapolated_variance_error).all()


def test_a_given_order_weighs():
    """Four thirds of the finer run less a third of the coarser one."""
    found = run(SGLD(PROBLEM.model, at_pass_time(0.8)), samples=10, order=2)
    for moment in ("mean", "variance"):
        coarse, fine = getattr(found, moment)
        np.testing.assert_allclose(getattr(found, f"extrapolated_{moment}"), (4 * fine - coarse) / 3, rtol=1e-12)


# ---- the order, from exact laws of a regression


ROWS = 6
_rng = np.random.default_rng(2)
X = _rng.normal(size=(ROWS, 1))
Y = X[:, 0] + _rng.normal(size=ROWS)
REGRESSION = linear_regression(X, Y, 0.5, 10.0)


def regression(x, y):
    w = numpyro.sample("w", dist.Normal(0, 10))
    with numpyro.plate("rows", ROWS, subsample_size=2):
        numpyro.sample("y", dist.Normal(numpyro.subsample(x, 0) * w, 0.5), obs=numpyro.subsample(y, 0))


@pytest.mark.parametrize("integrator", [EulerMaruyama(), LeimkuhlerMatthews(), BAOAB(2.0), UBU(2.0)], ids=name_of)
@pytest.mark.parametrize(
    "scheme",
    [WithReplacement(), None, SymmetricReshuffle(), BatchReshuffle(), ShuffleOnce(), FullBatch()],
    ids=lambda scheme: name_of(scheme) if scheme else "random_reshuffle",
)
def test_the_order_is_that_of_the_exact_bias(scheme, integrator):
    kernel = SGWORLD(regression, 1e-3, subsampling=scheme, integrator=integrator)
    order = _order_of(kernel.settings((jnp.asarray(X[:, 0]), jnp.asarray(Y))))
    friction = getattr(integrator, "friction", None)
    rate = float(REGRESSION.hessian[0, 0])
    largest = 0.02 / (math.sqrt(rate) if friction else rate)
    law = replace(integrator, friction=friction * math.sqrt(rate)) if friction else integrator

    def bias(h):
        moments = stationary_moments(REGRESSION, kernel._subsampling, law, h, 2)
        mean, covariance = moments.period_end
        return np.array([mean[0] - REGRESSION.mean[0], covariance[0, 0] * rate - 1])

    coarse, fine = bias(largest), bias(largest / 2)
    seen = abs(coarse) > 1e-9
    found = np.log2(abs(coarse[seen] / fine[seen]))
    # to within the next order, and no lower than what is said
    assert (found > order - 0.1).all()
    if seen.any() and kernel._subsampling != ShuffleOnce():
        assert found.min() < order + 0.1


def test_the_test_of_all_coordinates_is_students():
    assert _bonferroni(np.array([2.5, -3.0, 0.1]), 15) == pytest.approx(3 * 2 * stats.t.sf(3.0, 15))
    assert _bonferroni(np.zeros(4), 15) == 1


# ---- stored, printed, refused


def made(dim):
    values, pairs = np.arange(1.0, dim + 1), np.ones((2, dim))
    return Extrapolation(
        np.array([0.2, 0.1]), tuple(f"w[{i}]" for i in range(dim)), pairs, pairs, pairs, pairs, values, values, values,
        values, -values, values / 2, 0.3, 1, 16, 1000,
    )  # fmt: skip


def test_it_is_stored_as_json_that_an_attribute_can_hold(sgld):
    stored = json.loads(sgld.to_json())
    assert stored["names"] == list(sgld.names)
    np.testing.assert_allclose(stored["variance"], sgld.variance, rtol=1e-5)
    many = made(2000).to_json()
    assert len(many) < 2**16
    stored = json.loads(many)
    assert stored["coordinates"] == 2000
    assert stored["names"][-1] == "w[1999]"
    assert np.shape(stored["mean"]) == (2, len(stored["names"]))


def test_what_moved_most_is_printed_first():
    lines = str(made(20)).splitlines()
    assert lines[1].startswith("w[19]")
    assert lines[-2] == "and 8 coordinates more, which moved less"


@pytest.mark.parametrize(
    ("kernel", "options", "message"),
    [
        (SGLD(PROBLEM.model, 1e-4), {"num_chains": 7}, "num_chains=7 is too few"),
        (SGLD(PROBLEM.model, 1e-4), {"samples": 1}, "num_samples=1"),
        (SGLD(PROBLEM.model, 1e-4), {"order": 0}, "order=0 must be positive"),
        (SGLD(PROBLEM.model, WellingTeh(a=1e-4)), {}, "one step size, which it halves"),
        (SGWORLD(PROBLEM.model, 1e-4, steps_per_sample=2), {}, "no multiple of the scheme's period of 4 steps"),
        (SGWORLD(PROBLEM.model, 1e-4, temperature=0), {}, "At temperature 0"),
    ],
)
def test_what_cannot_be_extrapolated_is_refused(kernel, options, message):
    with pytest.raises(ValueError, match=message):
        run(kernel, **options)


def test_another_sampler_is_refused():
    with pytest.raises(TypeError, match="wants a kernel such as SGWORLD"):
        run(NUTS(PROBLEM.model))


def test_an_integrator_of_unknown_order_wants_one():
    class Mine(EulerMaruyama):
        pass

    with pytest.raises(ValueError, match="give order=1 or order=2"):
        run(SGLD(PROBLEM.model, 1e-4, integrator=Mine()))


@pytest.mark.filterwarnings("ignore::sgworld_numpyro.DivergenceWarning")  # may come after the error
def test_a_diverged_run_is_refused():
    with pytest.raises(ValueError, match=r"16 of 16 chains diverged at step size .* Lower the step size"):
        run(SGLD(PROBLEM.model, 10 / FASTEST), samples=100)
    jax.effects_barrier()
