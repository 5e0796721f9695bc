"""Linear dynamics, circulation, entropy production and the fluctuation theorems, on chains with exact answers."""

import numpy as np
import pytest
from scipy.stats import binom

from sgworld_numpyro.nonequilibrium import (
    circulation,
    entropy_production,
    fit_linear_dynamics,
    fluctuation_theorems,
    held_out_sigma,
    lagged_moments,
    linear_dynamics,
    probability_current,
    uncertainty_relation,
)
from sgworld_numpyro.nonequilibrium.theorems import MIN_WEIGHT_ESS
from tests import problems

CHAINS = {
    "driven OU": problems.driven_ou,
    "two beads": lambda step: problems.beads(2, step),
    "five beads": lambda step: problems.beads(5, step),
}
METHODS = ["ar1", "ito", "stratonovich"]


def given(chain):
    return linear_dynamics(np.zeros(len(chain.A)), chain.A, chain.Q)


def rate_of(chain, method="ar1"):
    return entropy_production(np.zeros((1, 2, len(chain.A))), method, dynamics=given(chain)).rate


def relative_entropy_of_reversal(chain):
    """KL of (x, x') to (x', x) by the textbook formula for two Gaussians."""
    covariance = chain.covariance
    lagged = chain.A @ covariance
    forwards = np.block([[covariance, lagged.T], [lagged, covariance]])
    backwards = np.block([[covariance, lagged], [lagged.T, covariance]])
    return (np.trace(np.linalg.solve(backwards, forwards)) - len(forwards)) / 2


@pytest.mark.parametrize("name", CHAINS)
def test_stationary_covariance_of_given_dynamics(name):
    chain = CHAINS[name](0.05)
    np.testing.assert_allclose(given(chain).covariance, chain.covariance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CHAINS)
def test_rate_per_time_approaches_the_exact_one_at_first_order(name, method):
    steps = np.array([0.04, 0.02, 0.01, 0.005])
    exact = CHAINS[name](1.0).rate
    error = [abs(rate_of(CHAINS[name](step), method) / step - exact) for step in steps]
    digits = 1e-4 * exact  # to which the five beads' rate is published
    if error[0] > 100 * digits:
        assert np.polyfit(np.log(steps), np.log(error), 1)[0] == pytest.approx(1, abs=0.05)
    extrapolated = 2 * rate_of(CHAINS[name](0.005), method) / 0.005 - rate_of(CHAINS[name](0.01), method) / 0.01
    assert extrapolated == pytest.approx(exact, rel=2e-4)


@pytest.mark.parametrize("size", [0.3, 0.6, 0.85])
def test_ar1_rate_is_the_relative_entropy_of_the_reversal(size):
    chain = problems.large_steps(size)
    assert rate_of(chain) == pytest.approx(relative_entropy_of_reversal(chain), rel=1e-10)


@pytest.mark.parametrize("name", CHAINS)
def test_measured_rate_and_circulation(name):
    step = 0.02
    chain = CHAINS[name](step)
    x = chain.sample(64, 4000, seed=1)
    covariance = chain.covariance
    areas = (covariance @ chain.A.T - chain.A @ covariance) / 2

    found = circulation(x)
    planes = np.triu_indices(len(areas), 1)
    z = (found.matrix - areas)[planes] / found.error[planes]
    assert np.abs(z).max() < 5
    assert found.p_value == pytest.approx(1 / 1000)
    for method in METHODS:
        measured = entropy_production(x, method)
        assert abs(measured.rate - rate_of(chain, method)) < 5 * measured.rate_error
        assert measured.p_value == pytest.approx(1 / 200)
        assert measured.sigma.shape == (64, 3999)
        bias = len(areas) * (len(areas) - 1) / measured.sigma.size
        assert measured.sigma.mean() == pytest.approx(measured.rate + bias, abs=0.02 * measured.rate)


def test_driven_ou_turns_by_alpha():
    step = 0.01
    areas = circulation(problems.driven_ou(step, alpha=0.7).sample(64, 4000, seed=2))
    assert abs(areas.matrix[1, 0] / step - 0.7) < 5 * areas.error[1, 0] / step
    np.testing.assert_array_equal(areas.matrix, -areas.matrix.T)


@pytest.mark.parametrize("size", [0.3, 0.85])
def test_theorems_far_from_continuous_time(size):
    chain = problems.large_steps(size)
    x = chain.sample(256, 2000, seed=3)
    for method in ("ar1", "ito"):
        found = fluctuation_theorems(entropy_production(x, method).sigma, (1, 2, 3))
        tested = np.isfinite(found.integral)
        assert tested[0] or method == "ito"
        assert np.all((np.abs(found.integral - 1) < 5 * found.integral_error)[tested])
        # the log-ratio of a longer stretch is the sum; Itô's form is only near it
        exact = found.lengths <= (3 if method == "ar1" else 1)
        assert np.all(np.abs(found.slope - 1)[exact] < 5 * found.slope_error[exact])
        assert found.slope_error[0] < 0.02


def test_ito_overstates_the_rate_at_large_steps():
    chain = problems.large_steps(0.85)
    # E vᵀD⁻¹v with v from the continuous Lyapunov equation, worked out by hand
    identity, drift = np.eye(2), np.eye(2) - chain.A
    kron = np.kron(drift, identity) + np.kron(identity, drift)
    covariance = np.linalg.solve(kron, chain.Q.ravel()).reshape(2, 2)
    areas = (drift @ covariance - covariance @ drift.T) / 2
    velocity = -areas @ np.linalg.inv(covariance)
    expected = np.trace(velocity.T @ np.linalg.solve(chain.Q / 2, velocity) @ chain.covariance)
    assert rate_of(chain, "ito") == pytest.approx(expected, rel=1e-9)
    assert 1.05 < rate_of(chain, "ito") / rate_of(chain) < 1.61
    assert rate_of(chain, "stratonovich") == pytest.approx(rate_of(chain), rel=1e-9)


@pytest.fixture(scope="module")
def equilibrium():
    """Entropy production, its plain mean, and circulation of 200 chains in detailed balance."""
    chain = problems.detailed_balance_ou(0.2)
    results = []
    for seed in range(200):
        moments = lagged_moments(chain.sample(16, 300, seed))
        results.append((entropy_production(moments, surrogates=99), circulation(moments, surrogates=99)))
    return results, 16 * 299


def test_false_alarms_come_at_the_stated_rate(equilibrium):
    results, _ = equilibrium
    for p_values in ([e.p_value for e, _ in results], [c.p_value for _, c in results]):
        for level in (0.05, 0.2):
            alarms = sum(p <= level for p in p_values)
            low, high = binom.interval(1 - 1e-4, 200, level)
            assert low <= alarms <= high


def test_bias_of_the_fit_is_removed(equilibrium):
    results, transitions = equilibrium
    rates = np.array([e.rate for e, _ in results])
    error = rates.std() / np.sqrt(len(rates))
    assert abs(rates.mean()) < 4 * error
    assert 2 / transitions > 10 * error  # without the removal it would have been seen


def test_errors_are_those_of_repeated_runs():
    chain = problems.driven_ou(0.1)
    found = [fit_linear_dynamics(chain.sample(4, 1500, seed)) for seed in range(120)]
    areas = [circulation(chain.sample(4, 1500, seed), surrogates=1) for seed in range(120)]
    for field in ("mean", "A", "Q", "covariance"):
        spread = np.std([getattr(f, field) for f in found], axis=0)
        stated = np.mean([getattr(f, field + "_error") for f in found], axis=0)
        np.testing.assert_allclose(stated, spread, rtol=0.3)
    assert np.mean([a.error[0, 1] for a in areas]) == pytest.approx(np.std([a.matrix[0, 1] for a in areas]), rel=0.3)
    exact = given(chain)
    for field in ("A", "Q", "covariance"):
        values = np.array([getattr(f, field) for f in found])
        z = (values.mean(0) - getattr(exact, field)) / (values.std(0) / np.sqrt(len(values)))
        assert np.abs(z).max() < 5


def test_errors_of_rates_are_those_of_repeated_runs():
    chain = problems.beads(2, 0.1)
    found = [entropy_production(chain.sample(8, 1500, seed), surrogates=1) for seed in range(100)]
    rates, errors = np.array([f.rate for f in found]), np.array([f.rate_error for f in found])
    assert errors.mean() == pytest.approx(rates.std(), rel=0.25)
    assert abs(rates.mean() - rate_of(chain)) < 5 * rates.std() / 10
    still = problems.detailed_balance_ou(0.2)
    areas = [circulation(still.sample(8, 500, seed), surrogates=199) for seed in range(100)]
    spread = np.std([a.matrix[0, 1] for a in areas])
    assert np.mean([a.null_error[0, 1] for a in areas]) == pytest.approx(spread, rel=0.25)


def test_bias_is_removed_in_many_dimensions_and_of_short_runs():
    wide = problems.LinearChain(0.5 * np.eye(10), np.eye(10), 1.0, 0.0)
    rates = np.array([entropy_production(wide.sample(8, 250, seed), surrogates=1).rate for seed in range(40)])
    assert abs(rates.mean()) < 0.1 * 90 / (8 * 249)  # a tenth of what the fit alone would show


def test_kinetic_bias_is_removed():
    chain = oscillator()
    found = [entropy_production(chain.sample(4, 500, s), kinetic=(1,), surrogates=1) for s in range(60)]
    rates = np.array([f.rate for f in found])
    assert abs(rates.mean()) < 4 * rates.std() / np.sqrt(len(rates))
    raw = [entropy_production(lagged_moments(chain.sample(4, 500, s), blocks=1), kinetic=(1,)) for s in range(60)]
    plug_in = np.array([f.rate for f in raw]) + 2 / 1996
    assert plug_in.mean() > 5 * rates.std() / np.sqrt(len(rates))


def oscillator():
    """q and p of a damped oscillator in equilibrium, sampled exactly at times 0.3 apart."""
    from scipy.linalg import expm

    A = expm(-0.3 * np.array([[0.0, -1.0], [1.0, 0.5]]))
    return problems.LinearChain(A, np.eye(2) - A @ A.T, 0.3, 0.0)


def test_the_origin_of_moments_does_not_matter():
    x = oscillator().sample(16, 500, seed=3)
    plain, far = (entropy_production(lagged_moments(x, origin=o), kinetic=(1,)) for o in (np.zeros(2), np.full(2, 3.0)))
    np.testing.assert_allclose(plain[1:], far[1:], rtol=1e-6)


def test_short_runs_get_an_answer():
    # one in three of such runs has a surrogate or a part that does not contract
    slow = problems.driven_ou(0.01, alpha=0.0)
    p_values = [entropy_production(slow.sample(1, 1000, seed)).p_value for seed in range(40)]
    assert all(0 < p <= 1 for p in p_values)


def test_chunks_make_the_whole():
    x = problems.driven_ou(0.1).sample(8, 1000, seed=5)
    first = lagged_moments(x[:, :400], blocks=16)
    both = first + lagged_moments(x[:, 399:], blocks=16, origin=first.origin)
    whole = lagged_moments(x, blocks=32)
    assert both.transitions == whole.transitions == 8 * 999
    together, apart = fit_linear_dynamics(whole), fit_linear_dynamics(both)
    for field in ("mean", "A", "Q", "covariance"):
        np.testing.assert_allclose(getattr(apart, field), getattr(together, field), rtol=1e-9)
    produced = entropy_production(x[:, :400], dynamics=together)
    np.testing.assert_allclose(produced.sigma, entropy_production(x).sigma[:, :399], rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="different origins"):
        first + whole


def test_units_of_the_coordinates_do_not_matter():
    x = problems.beads(2, 0.1).sample(16, 500, seed=6)
    scaled = 1e3 + x * np.array([1e-7, 1e5])
    a, b = entropy_production(x), entropy_production(scaled)
    np.testing.assert_allclose(b.rate, a.rate, rtol=1e-5)
    np.testing.assert_allclose(b.rate_error, a.rate_error, rtol=1e-4)
    assert b.p_value == a.p_value


def test_momenta_are_odd():
    # in equilibrium, and far from it if p were even
    chain = oscillator()
    x = chain.sample(32, 2000, seed=7)
    even, odd = entropy_production(x), entropy_production(x, kinetic=(1,))
    assert even.rate > 50 * even.rate_error
    assert abs(odd.rate) < 5 * odd.rate_error
    assert odd.rate_error < 1e-3 * even.rate
    assert odd.p_value > 0.01 > even.p_value
    assert rate_of(chain) == pytest.approx(relative_entropy_of_reversal(chain), rel=1e-9)


def test_sigma_is_the_log_ratio():
    from scipy.stats import multivariate_normal as normal

    chain = problems.large_steps(0.6)
    x = chain.sample(2, 5, seed=8)
    sigma = entropy_production(x, dynamics=given(chain)).sigma
    law = normal(np.zeros(2), chain.covariance)
    for c in range(2):
        for t in range(4):
            here, there = x[c, t], x[c, t + 1]
            forwards = law.logpdf(here) + normal(chain.A @ here, chain.Q).logpdf(there)
            backwards = law.logpdf(there) + normal(chain.A @ there, chain.Q).logpdf(here)
            assert sigma[c, t] == pytest.approx(forwards - backwards, abs=1e-9)


@pytest.mark.parametrize(("variance", "slope"), [(2.0, 1.0), (1.0, 2.0), (4.0, 0.5)])
def test_detailed_slope_of_gaussian_sigma(variance, slope):
    # mean m, variance v: ln P(σ)/P(−σ) = 2mσ/v and ⟨e^−σ⟩ = e^{v/2 − m}
    mean = 0.3
    sigma = mean + np.sqrt(variance * mean) * np.random.default_rng(9).standard_normal((8, 50_000))
    found = fluctuation_theorems(sigma, (1, 2, 3))
    assert np.all(np.abs(found.slope - slope) < 5 * found.slope_error)
    assert np.all(found.slope_error < 0.02 * slope)
    expected = np.exp((variance / 2 - 1) * mean * found.lengths)
    tested = np.isfinite(found.integral)
    assert tested[0]
    assert np.all((np.abs(found.integral - expected) < 5 * found.integral_error)[tested])
    for histogram in found.histograms:
        z = (histogram.log_ratio - slope * histogram.centres) / histogram.log_ratio_error
        assert np.nanmax(np.abs(z)) < 5
        assert np.isfinite(z).sum() > 10


def test_errors_of_the_slope_are_those_of_repeated_runs():
    rng = np.random.default_rng(17)
    found = [fluctuation_theorems(0.2 + np.sqrt(0.4) * rng.standard_normal((8, 2000)), (1,)) for _ in range(100)]
    spread = np.std([f.slope[0] for f in found])
    assert np.mean([f.slope_error[0] for f in found]) == pytest.approx(spread, rel=0.25)


def test_held_out_sigma_can_fail_the_theorems():
    # in equilibrium a fit to the same draws shows slope 1 of an entropy production that is not there
    still = problems.detailed_balance_ou(0.2).sample(16, 2000, seed=18)
    assert fluctuation_theorems(entropy_production(still).sigma, (1,)).slope[0] == pytest.approx(1, abs=0.05)
    held_out = held_out_sigma(still)
    assert held_out.shape == (16, 1999)
    assert held_out.mean() < 0.2 * entropy_production(still).sigma.mean()
    for x in (problems.driven_ou(0.1).sample(64, 2000, seed=19), problems.driven_ou(0.1).sample(1, 100_000, seed=20)):
        found = fluctuation_theorems(held_out_sigma(x), (1, 2, 3))
        assert np.all(np.abs(found.slope - 1) < 5 * found.slope_error)
        assert np.all(np.abs(found.integral - 1) < 5 * found.integral_error)
    half = fit_linear_dynamics(x[:, 50_000:])
    first = entropy_production(x[:, :50_001], dynamics=half).sigma
    np.testing.assert_allclose(held_out_sigma(x)[:, :50_000], first, rtol=1e-6, atol=1e-9)


def test_integral_is_withheld_where_few_stretches_decide_it():
    sigma = 20 + np.sqrt(40) * np.random.default_rng(10).standard_normal((4, 5000))
    found = fluctuation_theorems(sigma, (1, 5000, 10_000))
    assert found.weight_ess[0] < 100
    assert np.isnan(found.integral[0])
    assert np.isnan(found.integral_error[0])
    assert np.isnan(found.slope[1:]).all()
    assert np.isnan(found.integral[2])


def test_integral_is_withheld_of_few_stretches():
    sigma = 0.01 * np.random.default_rng(21).standard_normal((4, 50))
    few, enough = fluctuation_theorems(sigma[:, :20], (1,)), fluctuation_theorems(sigma, (1,))
    assert few.weight_ess[0] < MIN_WEIGHT_ESS < enough.weight_ess[0]
    assert MIN_WEIGHT_ESS == 100
    assert np.isnan(few.integral[0])
    assert abs(enough.integral[0] - 1) < 5 * enough.integral_error[0]


def test_integral_is_withheld_before_it_is_wrong():
    # here ⟨e^−σ⟩ over three transitions comes out at 0.74 ± 0.05, although the weights' sample size is above 100
    sigma = entropy_production(problems.large_steps(0.85).sample(256, 2000, seed=3)).sigma
    found = fluctuation_theorems(sigma, (1, 2, 3))
    stretches = sigma[:, :1998].reshape(256, 666, 3).sum(2)
    assert np.exp(-stretches).mean() < 0.85
    assert found.weight_ess[2] > 100
    assert np.isfinite(found.integral).tolist() == [True, False, False]


def test_uncertainty_relation_bounds_the_entropy_production():
    for chain in (problems.driven_ou(0.05), problems.beads(2, 0.05), problems.large_steps(0.5)):
        x = chain.sample(256, 2000, seed=11)
        found = uncertainty_relation(x)
        assert found.current > 5 * found.current_error
        assert 0 < found.rate_bound < rate_of(chain) + 5 * found.rate_bound_error
        other = uncertainty_relation(x, np.array([[0.0, 1.0], [-1.0, 0.0]]))
        assert other.rate_bound < rate_of(chain) + 5 * other.rate_bound_error
        assert found.rate_bound == pytest.approx(np.log1p(2 / found.dispersion))


def test_the_error_of_the_uncertainty_relation_is_that_of_repeated_runs():
    found = [uncertainty_relation(problems.large_steps(0.5).sample(64, 500, seed)) for seed in range(80)]
    bounds, errors = np.array([f.rate_bound for f in found]), np.array([f.rate_bound_error for f in found])
    # with weights that other blocks give it is somewhat too large
    assert 0.85 < np.median(errors) / bounds.std() < 1.75


def test_uncertainty_relation_is_tight_near_equilibrium():
    # of the area current of the driven trap Var J_T / ⟨J_T⟩² = 2/(Π T) (1 + α²), as time becomes continuous
    step, alpha = 0.02, 0.2
    found = [uncertainty_relation(problems.driven_ou(step, alpha).sample(256, 4000, seed)) for seed in range(24)]
    bounds, errors = np.array([f.rate_bound for f in found]), np.array([f.rate_bound_error for f in found])
    expected = 2 * alpha**2 * step / (1 + alpha**2)
    assert abs(bounds.mean() - expected) < 5 * bounds.std() / np.sqrt(24) + 0.03 * expected
    assert errors.mean() == pytest.approx(bounds.std(), rel=0.5)


@pytest.mark.parametrize("dim", [2, 10])
def test_uncertainty_relation_bounds_nothing_in_equilibrium(dim):
    still = problems.LinearChain(0.8 * np.eye(dim), 0.36 * np.eye(dim), 1.0, 0.0)
    found = [uncertainty_relation(still.sample(64, 500, seed)) for seed in range(12)]
    significant = [f.rate_bound > 3 * f.rate_bound_error for f in found]
    assert sum(significant) <= 1
    assert np.mean([f.rate_bound for f in found]) < 0.6 * dim * (dim - 1) / (64 * 499)


def test_probability_current_of_the_driven_trap():
    # J = ρ v with v = α (−y, x) for the density ρ of variance 1, turned by the convention of driven_ou
    step, alpha = 0.01, 0.7
    found = probability_current(problems.driven_ou(step, alpha).sample(128, 4000, seed=12), bins=12)
    x, y = np.meshgrid(found.x, found.y, indexing="ij")
    inside = x**2 + y**2 < 4
    density = np.exp(-(x**2 + y**2) / 2) / (2 * np.pi)
    np.testing.assert_allclose(found.density[inside], density[inside], rtol=0.2)
    for k, expected in enumerate((alpha * y, -alpha * x)):
        z = (found.current[k] - step * density * expected)[inside] / found.error[k][inside]
        assert abs(z.mean()) < 0.5
        assert 0.75 < z.std() < 1.3
    idle = probability_current(problems.detailed_balance_ou(0.2).sample(64, 2000, seed=12), bins=8)
    assert np.nanmean((idle.current / idle.error) ** 2) < 1.5


BAD_DRAWS = {
    "one axis": (np.zeros(10), r"shape \(10,\)"),
    "one draw": (np.zeros((4, 1, 2)), "makes no transition"),
    "NaN": (np.full((2, 10, 2), np.nan), "chain 0, draw 0, dimension 0"),
    "few": (np.random.default_rng(0).normal(size=(1, 5, 3)), "too few for 3 dimensions"),
    "constant": (np.random.default_rng(0).normal(size=(1, 99, 2)) * [1, 0], "coordinate 1 does not move"),
    "dependent": (np.random.default_rng(0).normal(size=(1, 99, 1)) * [1, 2], "combination of coordinates"),
    "noiseless": (np.stack([0.9 ** np.arange(300), 0.8 ** np.arange(300)], -1)[None], "without noise|singular"),
    "turning": (np.stack([np.cos(0.3 * np.arange(999)), np.sin(0.3 * np.arange(999))], -1)[None], "without noise"),
    "drifting": (np.cumsum(1 + np.random.default_rng(0).normal(size=(1, 99, 1)), axis=1), "do not contract"),
}


@pytest.mark.parametrize("case", BAD_DRAWS)
def test_bad_draws(case):
    draws, message = BAD_DRAWS[case]
    with pytest.raises(ValueError, match=message):
        entropy_production(draws)


def test_bad_arguments():
    x = problems.driven_ou(0.1).sample(2, 50, seed=0)
    with pytest.raises(ValueError, match="'AR1' is unknown; choose one of 'ar1'"):
        entropy_production(x, "AR1")
    with pytest.raises(ValueError, match="knows no momenta"):
        entropy_production(x, "ito", kinetic=(1,))
    with pytest.raises(ValueError, match="names coordinate 2"):
        entropy_production(x, kinetic=(2,))
    for measure in (entropy_production, circulation):
        with pytest.raises(ValueError, match="surrogates=0"):
            measure(x, surrogates=0)
    with pytest.raises(ValueError, match="blocks=0"):
        circulation(x, blocks=0)
    with pytest.raises(ValueError, match="dynamics of 3 dimensions, draws of 2"):
        entropy_production(x, dynamics=linear_dynamics(np.zeros(3), np.eye(3) / 2, np.eye(3)))
    for mean, A, Q, message in (
        (np.zeros(2), np.eye(2) / 2, np.eye(3), "have shapes"),
        (np.zeros(1), [[0.5]], [[np.nan]], "finite"),
        (np.zeros(1), [[0.5]], [[-1.0]], "no covariance"),
        (np.zeros(1), [[1.5]], [[1.0]], "do not contract"),
    ):
        with pytest.raises(ValueError, match=message):
            linear_dynamics(mean, A, Q)
    for dims in ((0, -2), (1, 2)):
        with pytest.raises(ValueError, match="two different coordinates"):
            probability_current(x, dims)
    for lengths in ((), (1.5,)):
        with pytest.raises(ValueError, match="positive whole numbers"):
            fluctuation_theorems(np.ones((2, 5)), lengths)
    with pytest.raises(ValueError, match="two different coordinates"):
        probability_current(x, (0, 0))
    with pytest.raises(ValueError, match=r"bins=0 and reach=2\.5 make no grid"):
        probability_current(x, bins=0)
    with pytest.raises(ValueError, match="does not move"):
        probability_current(x * [1, 0])
    with pytest.raises(ValueError, match="origin has shape"):
        lagged_moments(x, origin=np.zeros(3))
    with pytest.raises(ValueError, match="lengths="):
        fluctuation_theorems(np.zeros((2, 5)), (0,))
    with pytest.raises(ValueError, match="not all finite"):
        fluctuation_theorems(np.full((2, 5), np.inf))
    with pytest.raises(ValueError, match="want \\(chain, transition\\)"):
        fluctuation_theorems(np.zeros((2, 5, 1)))
    with pytest.raises(ValueError, match="eight or more"):
        uncertainty_relation(x, blocks=2)
    with pytest.raises(ValueError, match="antisymmetric"):
        uncertainty_relation(x, np.eye(2), blocks=8)
    singular = linear_dynamics(np.zeros(2), np.diag([0.5, 0.6]), np.ones((2, 2)))
    with pytest.raises(ValueError, match="noise is singular"):
        entropy_production(x, dynamics=singular)
