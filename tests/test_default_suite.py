"""The suite of posteriors for default arguments: references that fit their models, and verdicts that are earned."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from numpyro.handlers import seed, trace

pytest.importorskip("sklearn")

from benchmarks import references
from benchmarks.defaults import TOLERANCE, Difference, row, run_one, told, totals
from benchmarks.zoo import POSTERIORS
from sgworld_numpyro import DivergenceWarning


@pytest.mark.parametrize("posterior", POSTERIORS.values(), ids=POSTERIORS)
def test_every_posterior_has_a_good_reference_of_its_data_and_sites(posterior):
    reference = references.load(posterior)
    moments, data = reference.moments, posterior.data()
    sites = trace(seed(posterior.model, 0)).get_trace(*data)
    draws = {
        name: np.broadcast_to(site["value"], (2, 3, *np.shape(site["value"])))
        for name, site in sites.items()
        if site["type"] in ("sample", "deterministic") and not site.get("is_observed")
    }
    found = references.compared(posterior, draws, data)
    assert {name: list(value.shape[2:]) for name, value in found.items()} == reference.sites
    assert len(references.labels(reference.sites)) == len(moments.mean) == references.flat(found).shape[-1]
    assert moments.r_hat < 1.01
    # small beside what is tolerated, or verdicts would be about the reference
    assert max(moments.mean_error / moments.sd) < TOLERANCE / 2
    assert max(moments.sd_error / moments.sd) < TOLERANCE / 2


def test_the_subset_of_quick_posteriors():
    assert 10 <= sum(posterior.quick for posterior in POSTERIORS.values()) <= 15


def test_a_difference_is_tolerable_within_tolerance_and_four_errors():
    worst = Difference.worst(np.array([0.2, -0.3]), np.array([0.01, 0.06]), ["a", "b"])
    assert worst == Difference(0.2, 0.01, "a")
    assert not worst.tolerable
    assert Difference(-0.3, 0.06, "b").tolerable


def test_moments_of_independent_draws():
    draws = np.random.default_rng(0).normal(2, 3, size=(4, 2000, 5))
    moments = references.Moments.of(draws)
    np.testing.assert_allclose(moments.mean_error, 3 / 8000**0.5, rtol=0.1)
    np.testing.assert_allclose(moments.sd_error, 3 / 16000**0.5, rtol=0.1)
    assert np.all(abs(moments.mean - 2) < 5 * moments.mean_error)
    assert np.all(abs(moments.sd - 3) < 5 * moments.sd_error)


def test_warnings_of_the_kernel_are_heard():
    mcmc = SimpleNamespace(last_state=SimpleNamespace(divergences=np.zeros(4)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("gone", DivergenceWarning, stacklevel=1)
    assert told(mcmc, caught) == "DivergenceWarning: gone"


def test_a_run_on_the_exact_posterior_is_right():
    outcome = run_one(POSTERIORS["gaussian_mean"])
    assert outcome.verdict == "right"
    assert outcome.said == ""
    assert 0 < outcome.passes < 3.6  # of reshuffled minibatches; control variates take fewer
    assert totals([outcome]) == {"right": 1, "told": 0, "silent": 0, "false alarms": 0}
    assert row([outcome]).endswith("right")


QUICK = [name for name, posterior in POSTERIORS.items() if posterior.quick]
OF_A_KIND = "eight_schools", "logistic_breast_cancer", "mixture"  # the others are regressions too


@pytest.mark.parametrize("name", [n if n in OF_A_KIND else pytest.param(n, marks=pytest.mark.slow) for n in QUICK])
def test_default_arguments_are_right_on_the_quick_posteriors(name):
    outcome = run_one(POSTERIORS[name], seed=1)
    assert outcome.verdict == "right", outcome
