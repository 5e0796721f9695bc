"""Entropy production without the linear description, on driven systems of which the rate is known."""

import numpy as np
import pytest
from scipy.stats import binom

from sgworld_numpyro.nonequilibrium import (
    LinearDescriptionWarning,
    basis,
    check_assumptions,
    circulation,
    entropy_production,
    fluctuation_theorems,
    held_out_sigma,
    lagged_moments,
    largest_order,
    linear_dynamics,
    radial_functions,
    systems,
    variational,
)
from tests import problems
from tests.test_entropy_production import oscillator, rate_of

STEP = 0.02
NONLINEAR = {
    "vortices": (systems.vortices(1.0), 2),
    "slow vortices": (systems.vortices(0.5), 2),
    "rings": (systems.rings(0.3), 3),
    "quartic trap": (systems.quartic_trap(1.0), 3),
    "two wells": (systems.two_wells(1.0), 3),
}


@pytest.fixture(scope="module")
def draws():
    """Chains of each system over 100 units of time, from short steps; rings want rare draws."""
    return {
        name: system.sample(64 if name == "rings" else 16, 5000, STEP, substeps=4)
        for name, (system, _) in NONLINEAR.items()
    }


@pytest.mark.parametrize("name", NONLINEAR)
def test_the_rate_is_that_of_the_system(name, draws):
    system, order = NONLINEAR[name]
    found = entropy_production(draws[name], "currents")
    assert abs(found.rate - STEP * system.rate) < 5 * found.rate_error
    assert found.rate_error < 0.2 * found.rate
    assert found.order >= order
    assert found.p_value <= 0.015
    assert abs(found.null_rate) < found.rate_error
    assert found.sigma.shape == (len(draws[name]), 4999)
    assert found.sigma.mean() == pytest.approx(found.rate, abs=5 * found.rate_error)


@pytest.mark.parametrize("name", ["slow vortices", "rings"])
def test_what_the_linear_description_misses(name, draws):
    """No area is swept out, and the moments are those of a chain in detailed balance: the package says so."""
    x = draws[name]
    with pytest.warns(LinearDescriptionWarning, match=r"drift is not linear.*method='currents'"):
        linear = entropy_production(x)
    assert abs(linear.rate) < 5 * linear.rate_error
    assert linear.p_value > 0.01
    assert circulation(x).p_value > 0.01
    assert check_assumptions(x).nonlinearity.counts


def test_nonlinearity_counts_in_relaxation_times():
    """The same diffusion, recorded half and twice as often: as much of its drift is not linear."""
    found = [
        check_assumptions(systems.vortices(0.5).sample(32, int(100 / step), step, substeps=int(step / 0.01)))
        for step in (0.02, 0.08)
    ]
    often, seldom = (f.nonlinearity for f in found)
    assert abs(often.value - seldom.value) < 5 * np.hypot(often.error, seldom.error)
    # of drift a(1 − x²) along y, E a(1 − x²)(x² − 1)/√2 = −√2 a in a relaxation time of 1, in sds
    assert abs(abs(often.value) - np.sqrt(2) * 0.5) < 5 * often.error


def test_products_of_coordinates_are_looked_at():
    x = np.random.default_rng(1).standard_normal((16, 4000, 3))
    x[:, 1:, 2] += 0.4 * x[:, :-1, 0] * x[:, :-1, 1]
    assert any("drift is not linear" in problem for problem in check_assumptions(x).problems)


@pytest.mark.parametrize("name", ["driven OU", "two beads", "large steps"])
def test_order_one_is_the_linear_rate(name):
    chain = {
        "driven OU": problems.driven_ou(0.05),
        "two beads": problems.beads(2, 0.05),
        "large steps": problems.large_steps(0.3),
    }[name]
    x = chain.sample(64, 2000, seed=1)
    found, linear = entropy_production(x, "currents", order=1), entropy_production(x)
    assert abs(found.rate - rate_of(chain)) < 5 * found.rate_error
    assert found.rate == pytest.approx(linear.rate, abs=0.3 * found.rate_error)
    assert found.rate_error == pytest.approx(linear.rate_error, rel=0.3)
    assert found.order == 1


def test_heavy_tails():
    """Cut off where no draw decides alone, monomials show a bound; Gaussians around the draws show it all."""
    system = systems.heavy_tails(1.0, nu=2.5)
    x = system.sample(32, 5000, STEP)
    monomials = entropy_production(x, "currents")
    radial = entropy_production(x, "currents", basis=radial_functions(x))
    assert 0.7 * system.rate < monomials.rate / STEP < system.rate
    assert abs(radial.rate - STEP * system.rate) < 5 * radial.rate_error
    # noise of infinite variance: what a chain forgets slowly and is kicked by suddenly is not reversible
    rng = np.random.default_rng(2)
    sudden = np.zeros((16, 3000, 1))
    for t in range(1, 3000):
        sudden[:, t] = 0.9 * sudden[:, t - 1] + rng.standard_t(1.5, (16, 1))
    found = entropy_production(sudden, "currents")
    assert found.rate > 5 * found.rate_error
    assert found.p_value <= 0.015


def test_errors_and_false_alarms_are_those_of_repeated_runs():
    still = systems.heavy_tails(0.0)
    found = [entropy_production(still.sample(4, 1000, 0.2, seed=s), "currents", surrogates=99) for s in range(40)]
    for level in (0.05, 0.2):
        assert sum(f.p_value <= level for f in found) <= binom.isf(1e-4, 40, level)
    assert np.mean([f.p_value for f in found]) < 0.65
    rates, errors = np.array([f.rate for f in found]), np.array([f.rate_error for f in found])
    assert abs(rates.mean()) < 0.6 * errors.mean()
    assert 0.5 < rates.std() / errors.mean() < 1.2
    driven = systems.heavy_tails(1.0)
    found = [entropy_production(driven.sample(16, 1000, 0.1, seed=s), "currents", surrogates=1) for s in range(30)]
    rates, errors = np.array([f.rate for f in found]), np.array([f.rate_error for f in found])
    assert rates.std() == pytest.approx(errors.mean(), rel=0.4)


def test_held_out_sigma_obeys_the_theorems(draws):
    for name in ("vortices", "quartic trap"):
        sigma = held_out_sigma(draws[name], "currents")
        found = fluctuation_theorems(sigma, (1, 2, 3))
        assert np.all(np.abs(found.slope - 1) < 5 * found.slope_error + 0.05)
        assert np.all(np.abs(found.integral - 1) < 5 * found.integral_error)
        np.testing.assert_allclose(sigma, entropy_production(draws[name], "currents").sigma, atol=1e-12)
    assert held_out_sigma(draws["vortices"][:1], "currents").shape == (1, 4999)


@pytest.mark.parametrize("kinetic", [(), (1,), (0, 2)])
@pytest.mark.parametrize("functions", [None, lambda x: np.stack([x[:, 0], np.sin(x[:, 1])], -1)])
def test_currents_change_sign_with_time(kinetic, functions):
    x = np.random.default_rng(3).standard_normal((1, 50, 3)) @ np.triu(np.ones((3, 3)))
    parity = np.where(np.isin(np.arange(3), kinetic), -1.0, 1.0)
    currents = basis.current_basis(x, 3, functions, parity)
    backwards = currents.centre + parity * (x[0, ::-1] - currents.centre)
    forwards = currents.of(x[0], slice(0, 49))
    assert forwards.shape == (currents.size, 49)
    np.testing.assert_allclose(currents.of(backwards, slice(0, 49))[:, ::-1], -forwards, atol=1e-9)


def test_momenta_are_odd_for_currents_too():
    x = oscillator().sample(32, 2000, seed=7)
    odd = entropy_production(x, "currents", kinetic=(1,))
    assert abs(odd.rate) < 5 * odd.rate_error
    assert odd.p_value > 0.01
    # taken for even, hardly a transition's reversal is ever seen: 73 nats each, which no number of draws can show
    with pytest.warns(UserWarning, match=r"reversals are too rare: \d+ % .* Record more often"):
        even = entropy_production(x, "currents")
    assert np.isnan(even.rate)
    assert even.p_value <= 0.015


def test_nothing_hangs_on_units_parts_or_direction(draws, monkeypatch):
    x = draws["vortices"][:, :1000]
    found = entropy_production(x, "currents")
    scaled = entropy_production(5 + x * [1e-6, 1e4], "currents")
    np.testing.assert_allclose(scaled.rate, found.rate, rtol=1e-3)
    assert scaled.p_value == found.p_value
    backwards = entropy_production(x[:, ::-1], "currents")
    np.testing.assert_allclose(backwards.rate, found.rate, rtol=1e-3)
    np.testing.assert_allclose(backwards.sigma[:, ::-1], found.sigma, rtol=1e-3, atol=1e-2)
    monkeypatch.setattr(basis, "_CHUNK", 5000)
    monkeypatch.setattr(variational, "_KEPT", 0)
    np.testing.assert_allclose(entropy_production(x, "currents")[1:], found[1:], rtol=1e-6)


def test_moves_that_only_one_half_has_seen():
    """Rare ones, of which a fit to the other half says anything: independent draws, of which nothing comes."""
    for seed in range(4):
        rare = (np.random.default_rng(seed).random((4, 2000, 2)) < 0.05).astype(float)
        found = entropy_production(rare, "currents")
        assert abs(found.rate) < 5 * found.rate_error
        assert found.rate_error < 0.01
        assert found.p_value > 0.01


def test_sigma_of_thousands_has_a_bound():
    """As many currents make of few draws that they were not fitted to: e^{−σ} is beyond double precision."""
    assert np.isfinite(variational._bound(np.random.default_rng(0).normal(0, 3000, (2, 50))))


def test_single_precision_and_few_chains(draws):
    system, _ = NONLINEAR["vortices"]
    for chains in (1, 3):
        x = system.sample(chains, 20_000 // chains, 0.1, substeps=10)
        found = entropy_production(x, "currents")
        assert abs(found.rate - 0.1 * system.rate) < 5 * found.rate_error
    single = entropy_production(x.astype(np.float32), "currents")
    assert single.rate == pytest.approx(found.rate, rel=1e-3)


def test_what_cannot_be_fitted_is_refused_with_what_can():
    x = np.random.default_rng(4).standard_normal((4, 500, 20))
    with pytest.raises(ValueError, match=r"35420 currents, more than the 2000 .* order=1, which makes 420, or at most"):
        entropy_production(x, "currents")
    assert largest_order(20) == 1
    assert largest_order(60) == 0
    with pytest.raises(ValueError, match=r"at most 5 dimensions: principal_components\(x, 5\).apply\(x\)"):
        entropy_production(np.zeros((4, 500, 60)), "currents", order=5)
    with pytest.raises(
        ValueError, match=r"998 transitions in half of the draws are too few for 420 currents: want 4200"
    ):
        entropy_production(x, "currents", order=1)
    pair = x[..., :2]
    for order in (0, 1.5, 40):
        with pytest.raises(ValueError, match=f"order={order}; want a whole number from 1 to"):
            entropy_production(pair, "currents", order=order)
    with pytest.raises(ValueError, match=r"basis makes of positions of shape \(5, 2\) an array of shape \(5,\)"):
        entropy_production(pair, "currents", basis=lambda x: x[:, 0])
    with pytest.raises(ValueError, match="1200 functions in 2 dimensions make 2400 currents"):
        entropy_production(pair, "currents", basis=lambda x: np.ones((len(x), 1200)))
    with pytest.raises(ValueError, match="not by moments of draws"):
        entropy_production(lagged_moments(pair), "currents")
    with pytest.raises(ValueError, match="not by dynamics"):
        entropy_production(pair, "currents", dynamics=linear_dynamics(np.zeros(2), np.eye(2) / 2, np.eye(2)))
    with pytest.raises(ValueError, match="surrogates=0"):
        entropy_production(pair, "currents", surrogates=0)
    with pytest.raises(ValueError, match="coordinate 1 does not move"):
        entropy_production(pair * [1, 0], "currents")
    with pytest.raises(ValueError, match="count=9000"):
        radial_functions(pair, 9000)
