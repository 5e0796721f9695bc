"""The diagnostics answer rightly where the answer is known, and say what is wrong with a file."""

import importlib
import json
import re

import arviz as az
import numpy as np
import pytest
import xarray as xr
from scipy.stats import t as student

from sgworld_numpyro import (
    BAOAB,
    SGLD,
    EulerMaruyama,
    IndependentBatches,
    RandomReshuffle,
    WithReplacement,
    diagnostics,
    to_inference_data,
)
from sgworld_numpyro.diagnostics import monte_carlo, saved_run, theory
from sgworld_numpyro.diagnostics.__main__ import main
from sgworld_numpyro.linear_gaussian import gaussian_mean, relative_covariance_error, stationary_moments
from sgworld_numpyro.nonequilibrium import systems
from tests.problems import anisotropic_mean
from tests.runs import run

CHAINS, DRAWS = 4, 2500
OSCILLATION = np.array([[0.7, -0.4], [0.4, 0.7]])


def module(name):
    return importlib.import_module(f"sgworld_numpyro.diagnostics.{name}")


def examine(name, data, **options):
    return module(name).examine(data, quick=True, **options)


def chain(A, Q, chains=CHAINS, draws=DRAWS, seed=0):
    """Stationary draws of x' = A x + noise of covariance Q."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(np.asarray(Q, float))
    x = np.zeros((chains, draws + 200, len(A)))
    noise = rng.standard_normal(x.shape) @ root.T
    for now in range(1, x.shape[1]):
        x[:, now] = x[:, now - 1] @ np.asarray(A).T + noise[:, now]
    return x[:, 200:]


def run_of(x, **attrs):
    """A data set with one site "w", as the posterior of a run."""
    attrs = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in attrs.items()}
    return xr.Dataset({"w": (("chain", "draw", "w_dim_0"), x)}, attrs=attrs)


def independent(covariance=((1.0, 0.3), (0.3, 2.0)), mean=(1.0, -1.0), draws=DRAWS, seed=0):
    rng = np.random.default_rng(seed)
    return rng.multivariate_normal(mean, covariance, size=(CHAINS, draws))


REFERENCE = {"source": "exact", "mean": [1.0, -1.0], "covariance": [[1.0, 0.3], [0.3, 2.0]]}


@pytest.fixture(scope="module")
def driven():
    return run_of(chain(OSCILLATION, 0.4 * np.eye(2)))


@pytest.fixture(scope="module")
def balanced():
    return run_of(chain(0.6 * np.eye(2), np.eye(2)))


@pytest.fixture
def saved(tmp_path):
    """Writes a data set as the posterior of an ArviZ file."""

    def write(dataset, name="run", **groups):
        path = tmp_path / f"{name}.nc"
        dataset.to_netcdf(path, group="posterior", engine="h5netcdf")
        for group, content in groups.items():
            content.to_netcdf(path, group=group, engine="h5netcdf", mode="a")
        return path

    return write


# ---- is_it_stationary


def test_a_stationary_run_is_stationary(balanced):
    assert examine("is_it_stationary", balanced).holds is True


@pytest.mark.parametrize("phi", [-0.5, 0.5, 0.9])
def test_the_autocorrelation_time_is_that_of_the_chain(phi):
    chains, draws = 16, 4000
    x = chain([[phi]], [[1.0]], chains, draws)
    exact = (1 + phi) / (1 - phi)
    # Sokal (1997): the relative variance of an estimate cut off after W draws is 2 (2 W + 1) / n
    error = max(exact, 1) * np.sqrt(2 * (2 * 5 * max(exact, 1) + 1) / (chains * draws))
    assert abs(monte_carlo.autocorrelation_time(x)[0] - exact) <= 5 * error
    if phi > 0:
        assert monte_carlo.relaxation_time(exact) == pytest.approx(-1 / np.log(phi))


def test_a_short_run_of_a_slow_chain_is_no_proof_against_it():
    verdict = examine("is_it_stationary", run_of(chain(0.95 * np.eye(2), np.eye(2), draws=150)))
    assert verdict.holds is None
    assert "short" in verdict.sentence


def test_a_drift_is_seen(balanced):
    drift = np.linspace(0, 2, DRAWS)[:, None]
    verdict = examine("is_it_stationary", run_of(balanced["w"].values + drift))
    assert verdict.holds is False
    assert "drifts" in verdict.sentence


def test_chains_in_different_modes_are_seen(balanced):
    offset = np.arange(CHAINS)[:, None, None]
    verdict = examine("is_it_stationary", run_of(balanced["w"].values + offset))
    assert verdict.holds is False
    assert "chains disagree" in verdict.sentence


def test_one_chain_is_compared_with_itself():
    verdict = examine("is_it_stationary", run_of(independent()[:1]))
    assert verdict.holds is True
    assert np.isfinite(verdict.numbers["r_hat"]).all()


# ---- has_it_the_right_spread

WIDE, NARROW = 1.3 * np.array(REFERENCE["covariance"]), 0.7 * np.array(REFERENCE["covariance"])


@pytest.mark.parametrize(
    ("options", "holds", "words"),
    [
        ({}, True, "right"),
        ({"covariance": WIDE}, False, "too wide"),
        ({"covariance": NARROW}, False, "too narrow"),
        ({"covariance": [[1.5, 0.3], [0.3, 1.0]]}, False, "wrong shape"),
        ({"mean": [1.0, -0.5]}, False, "shifted: the mean of w[1]"),
        ({"draws": 40}, None, "cannot tell"),
    ],
)
def test_the_spread_is_judged(options, holds, words):
    verdict = examine("has_it_the_right_spread", run_of(independent(**options), reference=REFERENCE))
    assert verdict.holds is holds
    assert words in verdict.sentence


def test_the_spread_is_measured_without_bias_from_noise():
    exact = 0.3  # relative covariance error of 1.3 Σ
    found = monte_carlo.spread(independent(WIDE), {k: np.array(v) for k, v in REFERENCE.items()})
    for estimate, value in ((found.width, exact), (found.squared_covariance_error, exact**2)):
        assert abs(estimate.value - value) <= 5 * estimate.error
    kl = exact - np.log(1.3)
    assert abs(found.kl.value - kl) <= 5 * found.kl.error
    # with nothing to find, the noise alone is d (d + 1) / n = 6e-4 / 2 before its removal
    nothing = [
        monte_carlo.spread(independent(seed=s, draws=400), {k: np.array(v) for k, v in REFERENCE.items()})
        for s in range(20)
    ]
    squares = np.array([f.squared_covariance_error.value for f in nothing])
    assert abs(squares.mean()) <= 5 * squares.std(ddof=1) / np.sqrt(len(squares))


def test_a_sampled_reference_brings_its_noise():
    """Two independent samples of 400 draws differ by their noise, which is not held against the run."""
    rng = np.random.default_rng(5)
    squares = []
    for seed in range(20):
        sample = rng.multivariate_normal(REFERENCE["mean"], REFERENCE["covariance"], size=400)
        sampled = {"mean": sample.mean(0).tolist(), "covariance": np.cov(sample.T).tolist(), "ess": 400}
        verdict = examine("has_it_the_right_spread", run_of(independent(seed=seed), reference=sampled))
        assert verdict.holds is not False
        squares.append(verdict.numbers["squared_covariance_error"]["value"])
    assert abs(np.mean(squares)) <= 5 * np.std(squares, ddof=1) / np.sqrt(len(squares))


def test_few_short_chains_have_no_errors():
    x = chain(0.99 * np.eye(2), 0.02 * np.eye(2), draws=300)
    run = run_of(x, reference=REFERENCE)
    for name in ("has_it_the_right_spread", "which_landscape"):
        verdict = examine(name, run)
        assert verdict.holds is None
        assert monte_carlo.ROUGH in verdict.numbers["notes"]


TEMPERATURES = ("configurational_temperature", "fluctuation_dissipation", "kinetic_temperature")


def noisy(mean, draws=DRAWS, phi=0.8, seed=1, spread=0.5):
    """A stationary series of that mean, with a memory of (1 + φ)/(1 - φ) draws."""
    kicks = [[spread**2 * (1 - phi**2)]]
    return mean + chain([[phi]], kicks, draws=draws, seed=seed)[..., 0]


def with_stats(posterior, **series):
    stats = {name: (("chain", "draw"), values) for name, values in series.items()}
    return {"posterior": posterior, "sample_stats": xr.Dataset(stats)}


@pytest.mark.parametrize(
    ("mean", "draws", "temperature", "holds", "words"),
    [
        (1.0, DRAWS, 1.0, True, "right on average"),
        (1.3, DRAWS, 1.0, False, "too wide"),
        (0.7, DRAWS, 1.0, False, "too narrow"),
        (2.0, DRAWS, 2.0, True, "right on average"),
        (1.0, 400, 1.0, None, "cannot tell"),
        (1.0, 100, 1.0, None, "too short for errors"),
    ],
)
def test_the_temperature_tells_without_a_reference(mean, draws, temperature, holds, words):
    posterior = run_of(independent(draws=draws), temperature=temperature)
    data = with_stats(posterior, configurational_temperature=noisy(mean, draws, spread=0.7))
    verdict = examine("has_it_the_right_spread", data)
    assert verdict.holds is holds
    assert words in verdict.sentence
    assert "configurational temperature" in module("has_it_the_right_spread").table(verdict)


def test_errors_of_a_temperature_know_its_memory():
    found = [monte_carlo.mean_of(noisy(1.0, 1000, seed=s))[0] for s in range(40)]
    pulls = np.array([(estimate.value - 1) / estimate.error for estimate in found])
    # t variates of 63 degrees of freedom: their mean square is 1.03, known to √(2/40)
    assert abs(np.mean(pulls**2) - 1.03) <= 5 * np.sqrt(2 / 40)


def test_what_was_not_measured_is_said():
    nothing = np.full((CHAINS, DRAWS), np.nan)
    series = {"configurational_temperature": noisy(1.0), "kinetic_temperature": nothing}
    verdict = examine("has_it_the_right_spread", with_stats(run_of(independent()), **series))
    assert verdict.holds is True
    assert "Not measured, as its values are NaN: kinetic_temperature." in verdict.numbers["notes"]
    unmeasured = with_stats(run_of(independent()), configurational_temperature=nothing)
    with pytest.raises(diagnostics.CannotTell, match=r"configurational_temperature.*ten steps"):
        examine("has_it_the_right_spread", unmeasured)


@pytest.mark.parametrize(
    ("scheme", "integrator", "holds"),
    [
        ("with_replacement", "euler_maruyama", False),
        ("with_replacement", "leimkuhler_matthews", None),
        ("random_reshuffle", "euler_maruyama", None),
    ],
)
def test_minibatch_gradients_tell_of_independent_batches(scheme, integrator, holds):
    """Where the relation is exact, they decide: the configurational temperature is far noisier."""
    posterior = run_of(independent(), scheme=scheme, integrator=integrator)
    series = {"configurational_temperature": noisy(1.2, spread=4.0), "fluctuation_dissipation": noisy(0.2, spread=0.1)}
    verdict = examine("has_it_the_right_spread", with_stats(posterior, **series))
    assert verdict.holds is holds
    assert any("Fluctuation-dissipation" in note for note in verdict.numbers["notes"])


def test_reference_and_temperature_are_both_told():
    posterior = run_of(independent(), reference=REFERENCE)
    verdict = examine("has_it_the_right_spread", with_stats(posterior, configurational_temperature=noisy(1.0)))
    assert verdict.holds is True
    assert "right: means" in verdict.sentence
    assert re.search(r"configurational temperature \S+ ± \S+, want 1$", verdict.sentence)


def test_what_a_run_records_is_read(tmp_path):
    """From the sampler to the verdict, through ArviZ and netCDF: SGLD whose excess is known."""
    problem = anisotropic_mean(20)
    h = 0.6 / 10 / np.linalg.eigvalsh(problem.exact.hessian).max()
    kernel = SGLD(problem.model, h, subsampling=IndependentBatches())
    mcmc = run(kernel, *problem.data, num_warmup=60, num_samples=500, num_chains=8, extra_fields=TEMPERATURES)
    path = tmp_path / "run.nc"
    to_inference_data(mcmc).to_netcdf(path)
    verdict = examine("has_it_the_right_spread", saved_run.load(path))
    moments = stationary_moments(problem.exact, IndependentBatches(), EulerMaruyama(), h, 20)
    excess = np.trace(problem.exact.hessian @ moments.period_end[1]) / 2 - 1
    found = verdict.numbers["temperatures"]
    for name, wanted in zip(TEMPERATURES[:2], (1 + excess, excess), strict=True):
        assert abs(found[name]["value"] - wanted) <= 5 * found[name]["error"]
    assert "kinetic_temperature" not in found
    assert verdict.holds is False


def test_sites_are_compared_in_alphabetical_order():
    x = independent()
    draws = xr.Dataset({"z": (("chain", "draw"), x[..., 1]), "a": (("chain", "draw"), x[..., 0])})
    verdict = examine("has_it_the_right_spread", draws.assign_attrs(reference=json.dumps(REFERENCE)))
    assert verdict.numbers["coordinates"] == ["a", "z"]
    assert verdict.holds is True


def test_a_reference_of_another_dimension_is_refused():
    run = run_of(independent(), reference={"mean": [0.0], "covariance": [[1.0]]})
    with pytest.raises(diagnostics.CannotTell, match=r"has 1 coordinates and the draws 2 .*--var-names"):
        examine("has_it_the_right_spread", run)


# ---- the nonequilibrium ones


def test_a_driven_chain_circulates(driven):
    verdict = examine("does_probability_circulate", driven)
    assert verdict.holds is True
    (plane,) = verdict.numbers["planes"]
    # ½(ΣAᵀ − AΣ) with Σ a multiple of 1
    assert abs(plane["area_in_sds"] - 0.4) <= 5 * plane["area_in_sds_error"]


def test_a_balanced_chain_does_not(balanced):
    verdict = examine("does_probability_circulate", balanced)
    assert verdict.holds is False
    assert verdict.numbers["p_value"] > 0.01


@pytest.fixture(scope="module")
def vortices():
    """Driven, with a Gaussian law and no area swept out: what the linear description takes for equilibrium."""
    return run_of(systems.vortices(1.0).sample(16, 4000, 0.02, substeps=2))


def test_what_turns_two_ways_is_seen(vortices):
    verdict = examine("does_probability_circulate", vortices)
    assert verdict.holds is True
    assert "on average in no plane" in verdict.sentence
    assert verdict.numbers["entropy_production_method"] == "currents"
    assert abs(verdict.numbers["entropy_production"] - 0.06) < 5 * verdict.numbers["entropy_production_error"]
    theorems = examine("do_fluctuation_theorems_hold", vortices)
    assert theorems.holds is True
    few = examine("does_probability_circulate", run_of(vortices["w"].values[:2, :300]))
    assert few.holds is not False


def test_fluctuation_theorems_hold_for_a_driven_linear_chain():
    turn = np.array([[0.9, -0.05], [0.05, 0.9]])
    run = run_of(chain(turn, 0.2 * np.eye(2), chains=16))
    verdict = examine("do_fluctuation_theorems_hold", run)
    assert verdict.holds is True
    assert verdict.sentence.startswith("hold")


def test_fluctuation_theorems_have_nothing_to_test_in_equilibrium(balanced):
    verdict = examine("do_fluctuation_theorems_hold", balanced)
    assert verdict.holds is None
    assert "nothing to test" in verdict.sentence


def test_fluctuation_theorems_want_reversals():
    x = chain([[0.1, -0.95], [0.95, 0.1]], 0.1 * np.eye(2), draws=200)
    verdict = examine("do_fluctuation_theorems_hold", run_of(x))
    assert verdict.holds is None
    assert "too few" in verdict.sentence


MIXED = {"scheme": "random_reshuffle", "num_rows": 100, "batch_size": 10, "steps_per_sample": 1}


@pytest.mark.parametrize("name", ["does_probability_circulate", "do_fluctuation_theorems_hold"])
def test_mixed_phases_are_no_chain(name, balanced):
    with pytest.raises(diagnostics.CannotTell, match="mix 10 phases"):
        examine(name, balanced.assign_attrs(MIXED))


def test_many_dimensions_are_projected():
    x = chain(np.kron(np.eye(13), OSCILLATION), 0.4 * np.diag(np.linspace(1, 3, 26).repeat(1)))
    verdict = examine("does_probability_circulate", run_of(x))
    assert verdict.holds is True
    assert len(verdict.numbers["coordinates"]) == 20
    assert any("20 principal components" in note for note in verdict.numbers["notes"])


# ---- which_landscape

MINIMA = {"loss_minimum": [0.0, 0.0], "landscape_minimum": [1.0, -1.0], "covariance": REFERENCE["covariance"]}


@pytest.mark.parametrize(
    ("mean", "holds", "words"),
    [
        ([1.0, -1.0], True, "the effective one"),
        ([0.0, 0.0], False, "that of U"),
        ([0.5, -0.5], None, "neither"),
    ],
)
def test_the_mean_tells_the_landscape(mean, holds, words):
    verdict = examine("which_landscape", run_of(independent(mean=mean), landscape=MINIMA))
    assert verdict.holds is holds
    assert verdict.sentence.startswith(words)


def test_near_minima_are_not_told_apart():
    near = MINIMA | {"landscape_minimum": [0.01, 0.0]}
    verdict = examine("which_landscape", run_of(independent(mean=(0.0, 0.0)), landscape=near))
    assert verdict.holds is None


@pytest.mark.parametrize(("options", "holds"), [({}, True), ({"covariance": WIDE}, False)])
def test_without_a_landscape_the_reference_serves(options, holds):
    assert examine("which_landscape", run_of(independent(**options), reference=REFERENCE)).holds is holds


def test_without_either_it_says_what_to_store():
    with pytest.raises(diagnostics.CannotTell, match=r"landscape.*loss_minimum.*reference"):
        examine("which_landscape", run_of(independent()))


# ---- how_biased_by_step_size

SETTINGS = {
    "scheme": "with_replacement",
    "integrator": "euler_maruyama",
    "batch_size": 10,
    "num_rows": 1000,
    "steps_per_sample": 100,
}


@pytest.mark.parametrize(("scheme", "holds"), [(WithReplacement(), False), (RandomReshuffle(), True)])
def test_bias_and_theory_agree(scheme, holds):
    """Draws from the exact stationary law of the chain, of a target with two relaxation times."""
    pass_time = 0.6
    rows = np.random.default_rng(1).standard_normal((1000, 2))
    rows = (rows - rows.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T, bias=True))).T
    scales = np.sqrt([1.0, 0.25])
    problem = gaussian_mean(rows * scales, np.diag(scales**2))
    h = pass_time / (100 * np.linalg.eigvalsh(problem.hessian).max())
    moments = stationary_moments(problem, scheme, EulerMaruyama(), h, 10)
    x = independent(moments.period_end[1], moments.period_end[0], draws=20_000)
    reference = {"source": "exact", "mean": problem.mean.tolist(), "covariance": problem.covariance.tolist()}
    run = run_of(x, reference=reference, **SETTINGS | {"scheme": scheme.name, "step_size": h})
    verdict = examine("how_biased_by_step_size", run)
    assert verdict.holds is holds
    numbers = verdict.numbers
    assert numbers["pass_time"] == pytest.approx(pass_time)
    found = monte_carlo.spread(x, {k: np.asarray(v) for k, v in reference.items()}).squared_covariance_error
    assert abs(found.value - numbers["theory"] ** 2) <= 5 * found.error
    again = stationary_moments(problem, scheme, EulerMaruyama(), numbers["step_size_at_tolerance"], 10)
    excess = again.period_end[1].diagonal() / problem.covariance.diagonal() - 1
    assert np.sqrt(np.mean(excess**2)) == pytest.approx(0.02, rel=0.05)


KINETIC = SETTINGS | {"scheme": "random_reshuffle", "integrator": "baoab", "steps_per_sample": 100}


def kinetic_run(pass_time, friction, draws=20_000, **attrs):
    """Draws from the exact law of BAOAB on two directions, and that law's relative error."""
    rows = np.random.default_rng(1).standard_normal((1000, 2))
    rows = (rows - rows.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T, bias=True))).T
    scales = np.sqrt([1.0, 0.25])
    problem = gaussian_mean(rows * scales, np.diag(scales**2))
    h = pass_time / (100 * np.sqrt(np.linalg.eigvalsh(problem.hessian).max()))
    moments = stationary_moments(problem, RandomReshuffle(), BAOAB(friction), h, 10)
    mean, covariance = moments.period_end
    reference = {"source": "exact", "mean": problem.mean.tolist(), "covariance": problem.covariance.tolist()}
    x = independent(covariance, mean, draws=draws)
    run = run_of(x, reference=reference, **KINETIC | {"step_size": h, "friction": friction} | attrs)
    return run, relative_covariance_error(covariance, problem.covariance)


@pytest.mark.parametrize(("pass_time", "holds"), [(1.6, False), (0.3, True)])
def test_theory_knows_kinetic_integrators(pass_time, holds):
    run, exact = kinetic_run(pass_time, friction=40.0)
    verdict = examine("how_biased_by_step_size", run)
    assert verdict.holds is holds
    assert verdict.numbers["pass_time"] == pytest.approx(pass_time)
    assert verdict.numbers["theory"] == pytest.approx(exact, rel=1e-3)
    assert "R h √λ" in verdict.sentence
    assert "friction" in module("how_biased_by_step_size").table(verdict)


def test_kinetic_theory_wants_the_friction():
    run, _ = kinetic_run(0.3, friction=40.0, draws=100)
    del run.attrs["friction"]
    with pytest.raises(diagnostics.CannotTell, match="lacks friction"):
        examine("how_biased_by_step_size", run)


TUNED = {"predicted_bias": 0.019, "bias_tolerance": 0.02, "fastest_rate": 1.3, "preconditioner": "dense"}


@pytest.mark.parametrize(("bias", "holds"), [(0.019, True), (0.08, False)])
def test_a_tuned_run_needs_no_reference(bias, holds):
    run = run_of(independent(), step_size=1e-3, **SETTINGS | TUNED | {"predicted_bias": bias})
    verdict = examine("how_biased_by_step_size", run)
    assert verdict.holds is holds
    assert f"tuning predicts {100 * bias:.2g} %" in verdict.sentence
    assert verdict.numbers["fastest_rate"] == 1.3
    assert verdict.numbers["pass_time"] == pytest.approx(100 * 1e-3 * 1.3)


def test_the_rate_that_tuning_found_is_used_with_a_reference():
    run = run_of(independent(), reference=REFERENCE, step_size=1e-4, **SETTINGS | TUNED)
    assert examine("how_biased_by_step_size", run).numbers["fastest_rate"] == 1.3


def test_long_passes_differ_by_the_integrators_error_alone():
    """Ten thousand batches a pass stand for themselves, by five hundred of them."""
    law = theory.law_of(
        saved_run.as_run(run_of(independent(draws=50), **SETTINGS | {"num_rows": 100_000, "step_size": 1e-5})),
        {"covariance": np.eye(2)},
        [],
    )
    assert law.rows == 500
    # SGLD's Rε/2 and Euler-Maruyama's ε/2, to second order
    assert law.error(0.1) == pytest.approx(0.05, rel=0.01)


def stored_extrapolation(variance, error=0.01, mean=(0.0, 0.0), order=1, dim=2):
    """What extrapolate(...).to_json() holds, of the last coordinate's moments at h and h/2; the others stay."""
    means, variances, factor = np.zeros((2, dim)), np.ones((2, dim)), 2**order - 1
    means[:, -1], variances[:, -1] = mean, variance
    limit = [values[1] + (values[1] - values[0]) / factor for values in (means, variances)]
    moved = [(values[1] - values[0]) / (error * np.sqrt(2)) for values in (means, variances)]
    largest = np.abs(moved).max()
    return {
        "coordinates": dim,
        "names": [f"w[{i}]" for i in range(dim)],
        "step_sizes": [0.02, 0.01],
        "mean": means.tolist(),
        "mean_error": np.full((2, dim), error).tolist(),
        "variance": variances.tolist(),
        "variance_error": np.full((2, dim), error).tolist(),
        "extrapolated_mean": limit[0].tolist(),
        "extrapolated_mean_error": [3 * error] * dim,
        "extrapolated_variance": limit[1].tolist(),
        "extrapolated_variance_error": [3 * error] * dim,
        "mean_moved": moved[0].tolist(),
        "variance_moved": moved[1].tolist(),
        "p_value": min(1.0, float(2 * dim * 2 * student.sf(largest, 15))),
        "order": order,
        "num_chains": 16,
        "gradients": 1000,
    }


@pytest.mark.parametrize(
    ("stored", "holds", "words"),
    [
        (stored_extrapolation((1.4, 1.2)), False, "the variance of w[1] moves"),
        (stored_extrapolation((1.0, 1.0), mean=(0.4, 0.2)), False, "the mean of w[1] moves"),
        (stored_extrapolation((1.004, 1.002), error=1e-4), True, "the variance of w[1] moves"),
        (stored_extrapolation((1.0, 1.0), error=1e-3), True, "nothing moves"),
        (stored_extrapolation((1.01, 1.0)), None, "errors leave room for"),
    ],
)
def test_a_stored_extrapolation_is_judged(stored, holds, words):
    verdict = examine("how_biased_by_step_size", run_of(independent(draws=50), extrapolation=stored))
    assert verdict.holds is holds
    assert words in verdict.sentence
    assert "w[1]: variance, by its limit" in module("how_biased_by_step_size").table(verdict)


def test_an_extrapolation_outweighs_a_prediction_and_theory_stands_beside_it():
    stored = stored_extrapolation((1.4, 1.2))
    run = run_of(independent(draws=50), extrapolation=stored, step_size=0.02, **SETTINGS | TUNED | {"num_rows": 20})
    verdict = examine("how_biased_by_step_size", run)
    assert verdict.holds is False
    assert "tuning predicts" in verdict.sentence
    assert "theory" in verdict.numbers


def test_an_extrapolation_from_too_large_a_step_is_told():
    stored = stored_extrapolation((4.0, 1.5))
    notes = examine("how_biased_by_step_size", run_of(independent(draws=50), extrapolation=stored)).numbers["notes"]
    assert any("w[1] is extrapolated to nothing or less" in note for note in notes)


def test_another_object_is_no_extrapolation():
    with pytest.raises(diagnostics.CannotTell, match=r"extrapolation.*has no 'names'"):
        examine("how_biased_by_step_size", run_of(independent(draws=50), extrapolation={"mean": [1.0]}))


def test_bias_wants_settings(balanced):
    with pytest.raises(diagnostics.CannotTell, match="lacks scheme, integrator, step_size"):
        examine("how_biased_by_step_size", balanced)


def test_plain_descent_has_no_posterior_to_miss(balanced):
    run = balanced.assign_attrs(SETTINGS | {"step_size": 0.1, "temperature": 0.0})
    with pytest.raises(diagnostics.CannotTell, match="temperature 0"):
        examine("how_biased_by_step_size", run)


# ---- what_did_it_cost


def test_gradients_are_counted(balanced):
    verdict = examine("what_did_it_cost", balanced.assign_attrs(SETTINGS | {"num_warmup": 10, "sampling_seconds": 2.0}))
    n = verdict.numbers
    assert n["gradients"] == CHAINS * (DRAWS + 10) * 100
    assert n["passes"] == n["gradients"] / 100
    assert n["least_ess_per_second"] == n["least_ess"] / 2
    anchored = balanced.assign_attrs(SETTINGS | {"num_warmup": 10, "gradient": "control_variate"})
    assert examine("what_did_it_cost", anchored).numbers["gradients"] == 2 * n["gradients"]


def test_gradients_of_nuts_are_its_leapfrog_steps(balanced, saved):
    steps = xr.Dataset({"n_steps": (("chain", "draw"), np.full((CHAINS, DRAWS), 3))})
    groups = saved_run.load(saved(balanced, sample_stats=steps))
    assert examine("what_did_it_cost", groups).numbers["passes"] == 3 * CHAINS * DRAWS


# ---- reading


def test_the_recorded_position_comes_before_the_sites(saved):
    x = independent()
    position = xr.Dataset({"position": (("chain", "draw", "k"), x)})
    path = saved(xr.Dataset({"s": (("chain", "draw"), np.exp(x[..., 0]))}), sample_stats=position)
    run = saved_run.as_run(saved_run.load(path))
    np.testing.assert_array_equal(run.x.values, x)


def test_what_arviz_writes_is_read(tmp_path):
    x = independent(draws=50)
    data = az.from_dict({"posterior": {"w": x}}) if int(az.__version__.split(".")[0]) else az.from_dict({"w": x})
    data.to_netcdf(str(tmp_path / "plain.nc"))
    np.testing.assert_array_equal(saved_run.as_run(data).x, x)
    np.testing.assert_array_equal(saved_run.as_run(saved_run.load(tmp_path / "plain.nc")).x, x)


def test_what_does_not_move_is_left_out_and_said():
    x = np.concatenate([independent(), np.full((CHAINS, DRAWS, 1), 3.0)], axis=2)
    full = {
        "source": "exact",
        "mean": [*REFERENCE["mean"], 3.0],
        "covariance": np.diag([0, 0, 1.0]) + np.pad(REFERENCE["covariance"], (0, 1)),
    }
    full["covariance"] = full["covariance"].tolist()
    verdict = examine("has_it_the_right_spread", run_of(x, reference=full))
    assert verdict.holds is True
    assert verdict.numbers["notes"] == ["Left out, as it does not move: w[2]."]


def with_value(x, value, at=(1, 7, 0)):
    x = np.array(x)
    x[at] = value
    return x


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (run_of(with_value(independent(draws=50), np.nan)), r"not all finite: nan at w\[0\], chain 1, draw 7"),
        (run_of(independent(draws=3)), r"3 draws a chain; want 4 at least"),
        (run_of(np.ones((2, 50, 2))), r"no coordinate moves"),
        (run_of(np.repeat(independent(draws=50)[..., :1], 2, 2)), r"singular: w\[.\] follows .*--var-names"),
        (xr.Dataset({"w": (("draw", "k"), np.ones((5, 2)))}), r"want chain and draw"),
        (xr.Dataset(), "have no draws"),
    ],
)
def test_bad_draws_end_in_one_line(dataset, message, saved, tmp_path, capsys):
    path = saved(dataset)
    assert main(["does_probability_circulate", str(path), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_bad_files_end_in_one_line(tmp_path, capsys):
    text, empty = tmp_path / "text.nc", tmp_path / "empty.nc"
    text.write_text("no netCDF")
    xr.Dataset({"x": ("k", [1.0])}).to_netcdf(empty, group="prior", engine="h5netcdf")
    for path, message in (
        (tmp_path / "none.nc", "no file"),
        (text, "not readable as netCDF"),
        (empty, "no group 'posterior' (its groups: prior)"),
        (tmp_path, "no file"),
    ):
        assert main(["is_it_stationary", str(path)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_an_unknown_question_lists_the_known(capsys):
    assert main(["is_it_right", "x.nc"]) == 2
    error = capsys.readouterr().err
    assert all(name in error for name in diagnostics.QUESTIONS)
    assert main(["--help"]) == 0
    usage = capsys.readouterr().out
    assert all(name in usage for name in diagnostics.QUESTIONS)


def test_an_unknown_site_is_named(balanced, saved, capsys):
    assert main(["is_it_stationary", str(saved(balanced)), "--var-names", "w,v"]) == 2
    assert "no site 'v'" in capsys.readouterr().err


# ---- figures and the page


def test_one_question_prints_writes_and_draws(saved, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = saved(run_of(independent(draws=200), reference=REFERENCE))
    out, numbers = tmp_path / "out", tmp_path / "numbers" / "n.json"
    assert module("has_it_the_right_spread").main([str(path), "--out", str(out), "--json", str(numbers)]) == 0
    assert "Verdict: " in capsys.readouterr().out
    assert (out / "run_has_it_the_right_spread.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(numbers.read_text())["has_it_the_right_spread"]
    assert found.keys() == {"holds", "sentence", "numbers"}


def page_of(path, directory, *options):
    assert main(["all", str(path), "--quick", "--out", str(directory), *options]) == 0
    return (directory / f"{path.stem}_diagnostics.html").read_text()


def test_the_page_has_every_verdict_and_figure(saved, tmp_path):
    pytest.importorskip("matplotlib")
    h = 0.5 / (100 * np.linalg.eigvalsh(np.linalg.inv(REFERENCE["covariance"])).max())
    run = run_of(independent(draws=300), reference=REFERENCE, step_size=h, **SETTINGS)
    numbers = tmp_path / "all.json"
    page = page_of(saved(run), tmp_path, "--json", str(numbers))
    found = json.loads(numbers.read_text())
    assert found.keys() == {"run", *diagnostics.QUESTIONS}
    assert page.count("data:image/png;base64,") == len(diagnostics.QUESTIONS)
    assert page.count("http") == 0  # nothing is fetched
    assert page.count('class="good"') + page.count('class="bad"') == sum(
        found[name]["holds"] is not None and getattr(module(name), "WANTED", True) is not None
        for name in found.keys() - {"run"}
    )
    assert page.count("<img alt=") == page.count("The verdict: ") == len(diagnostics.QUESTIONS)
    assert "e^{−σ}" not in page
    assert all(f'href="#{name}"' in page and f'id="{name}"' in page for name in diagnostics.QUESTIONS)


@pytest.mark.parametrize(
    ("attrs", "series"),
    [
        ({"extrapolation": stored_extrapolation((1.4, 1.2))}, {}),
        (TUNED, {"configurational_temperature": noisy(1.0)}),
        (SETTINGS | TUNED | {"step_size": 1e-3}, {"fluctuation_dissipation": noisy(0.1)}),
        (
            KINETIC | TUNED | {"step_size": 1e-3, "friction": 2.0, "extrapolation": stored_extrapolation((1.01, 1.0))},
            dict(zip(TEMPERATURES, map(noisy, (1.0, 0.1, 1.0)), strict=True)),
        ),
    ],
)
def test_figures_are_drawn_without_a_reference(attrs, series, tmp_path):
    pytest.importorskip("matplotlib")
    data = with_stats(run_of(independent(), **attrs), **series)
    for name, drawn in (
        ("how_biased_by_step_size", True),
        ("has_it_the_right_spread", "configurational_temperature" in series),
    ):
        if drawn:
            module(name).draw(saved_run.as_run(data), examine(name, data), tmp_path / f"{name}.png")
            assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("dim", [1, 3])
def test_the_page_goes_on_where_a_question_cannot(dim, saved, tmp_path, capsys):
    """Without settings and reference, of one coordinate and of three where one repeats another."""
    pytest.importorskip("matplotlib")
    x = independent(draws=100)[..., [0, 1, 0][:dim]]
    page = page_of(saved(run_of(x)), tmp_path)
    assert page.count("cannot tell") >= 3
    printed = capsys.readouterr().out
    assert printed.count("Verdict: ") == len(diagnostics.QUESTIONS)
    assert ("singular" in printed) is (dim == 3)
