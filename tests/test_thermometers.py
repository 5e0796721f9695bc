"""Temperatures of a run against the exact ones of its stationary law."""

import numpy as np
import pytest

from sgworld_numpyro import (
    BAOAB,
    SGLD,
    SGWORLD,
    ControlVariate,
    EulerMaruyama,
    FullBatch,
    LeimkuhlerMatthews,
    RandomReshuffle,
    StochasticGradientKernel,
    SymmetricReshuffle,
    WithReplacement,
)
from sgworld_numpyro.linear_gaussian import stationary_moments
from sgworld_numpyro.preconditioners import Dense
from tests.problems import anisotropic_mean, in_coordinates
from tests.runs import field, run

pytestmark = pytest.mark.laws
STANDARD_ERRORS = 5
FIELDS = ("configurational_temperature", "fluctuation_dissipation", "kinetic_temperature")
BATCH_SIZE, STEP_SIZE = 10, 5e-4


def thermometers(kernel, problem, samples=2000, chains=16):
    """Mean and standard error, from the spread of the chains, by field."""
    sizes = {"num_warmup": 200, "num_samples": samples, "num_chains": chains}
    mcmc = run(kernel, *problem.data, extra_fields=FIELDS, **sizes)
    means = {name: np.asarray(x, float).mean(1) for name, x in mcmc.get_extra_fields(group_by_chain=True).items()}
    return {name: (x.mean(), x.std(ddof=1) / np.sqrt(chains)) for name, x in means.items()}, mcmc.last_state


def exact_temperature(problem, scheme, integrator, temperature=1.0):
    """E[(θ - Eθ)·∇U] / d = tr(H Σ) / d of the draws."""
    moments = stationary_moments(problem.exact, scheme, integrator, STEP_SIZE, BATCH_SIZE, temperature=temperature)
    return np.trace(problem.exact.hessian @ moments.period_end[1]) / 2


KERNELS = {
    "sgld": (SGLD, {}, WithReplacement(), EulerMaruyama(), 1.0),
    "sgworld": (SGWORLD, {"integrator": LeimkuhlerMatthews()}, RandomReshuffle(), LeimkuhlerMatthews(), 1.0),
    "symmetric": (
        StochasticGradientKernel,
        {"subsampling": SymmetricReshuffle()},
        SymmetricReshuffle(),
        EulerMaruyama(),
        1.0,
    ),
    "hot": (SGWORLD, {"temperature": 2.0}, RandomReshuffle(), EulerMaruyama(), 2.0),
}


@pytest.mark.parametrize("name", KERNELS)
def test_configurational_temperature_is_that_of_the_stationary_law(name):
    """Its bias included: the batch is independent of the chain, whose own batches would show another temperature."""
    kernel, options, scheme, integrator, temperature = KERNELS[name]
    problem = anisotropic_mean(BATCH_SIZE)
    found, _ = thermometers(kernel(problem.model, STEP_SIZE, **options), problem)
    value, error = found["configurational_temperature"]
    exact = exact_temperature(problem, scheme, integrator, temperature)
    assert abs(value - exact) < STANDARD_ERRORS * error
    if name == "sgld":
        assert exact - 1 > STANDARD_ERRORS * error  # it could tell the chain from the posterior
    assert np.isnan(found["kinetic_temperature"][0])


def test_fluctuation_and_dissipation_of_sgld():
    """E[(θ - Eθ)·∇U] / d - T = h E|g|² / 2d exactly, of Euler-Maruyama with independent batches."""
    problem = anisotropic_mean(BATCH_SIZE)
    found, _ = thermometers(SGLD(problem.model, STEP_SIZE), problem)
    value, error = found["fluctuation_dissipation"]
    exact = exact_temperature(problem, WithReplacement(), EulerMaruyama()) - 1
    assert abs(value - exact) < STANDARD_ERRORS * error
    assert STANDARD_ERRORS * error < 0.2 * exact


def test_an_anchor_makes_it_sharper():
    problem = anisotropic_mean(BATCH_SIZE)
    plain, _ = thermometers(SGWORLD(problem.model, STEP_SIZE), problem, samples=500)
    anchored, state = thermometers(SGWORLD(problem.model, STEP_SIZE, gradient=ControlVariate()), problem, samples=500)
    assert anchored["configurational_temperature"][1] < plain["configurational_temperature"][1] / 2
    assert state.tuning.anchor is not None
    value, error = anchored["configurational_temperature"]
    # control variates leave no minibatch noise here: the law is that of full batches
    assert abs(value - exact_temperature(problem, FullBatch(), EulerMaruyama())) < STANDARD_ERRORS * error


def test_in_the_coordinates_of_a_preconditioner():
    """The configurational temperature does not depend on them, and the fluctuations are those of Lᵀg."""
    problem = anisotropic_mean(BATCH_SIZE)
    scale = 200.0
    matrix = scale * problem.exact.covariance
    kernel = SGLD(problem.model, STEP_SIZE, preconditioner=Dense(matrix))
    found, _ = thermometers(kernel, problem)
    root = np.linalg.cholesky(matrix)
    exact = in_coordinates(problem.exact, root)
    law = stationary_moments(exact, WithReplacement(), EulerMaruyama(), STEP_SIZE, BATCH_SIZE).period_end[1]
    value, error = found["configurational_temperature"]
    assert abs(value - np.trace(exact.hessian @ law) / 2) < STANDARD_ERRORS * error


def test_short_samples_take_it_after_every_ten_steps_or_more():
    """Its gradients cost a tenth of the steps' at most: of samples of nine steps every other one has a new reading."""
    problem = anisotropic_mean(BATCH_SIZE)
    sizes = {"num_warmup": 1, "num_samples": 2000, "num_chains": 16}
    mcmc = run(SGLD(problem.model, STEP_SIZE, steps_per_sample=9), *problem.data, extra_fields=FIELDS[:1], **sizes)
    found = np.asarray(mcmc.get_extra_fields(group_by_chain=True)[FIELDS[0]], float)
    first, second = found[:, ::2], found[:, 1::2]
    assert np.array_equal(first, second)  # the first draw is the second sample, which has the first reading
    assert (np.diff(first) != 0).all()
    assert (mcmc.last_state.thermometer.readings == 1000).all()
    chains = first[:, 100:].mean(1)
    error = chains.std(ddof=1) / np.sqrt(len(chains))
    exact = exact_temperature(problem, WithReplacement(), EulerMaruyama())
    assert abs(chains.mean() - exact) < STANDARD_ERRORS * error


def test_it_measures_from_the_mean_of_its_positions():
    problem = anisotropic_mean(BATCH_SIZE)
    sizes = {"num_warmup": 0, "num_samples": 30, "num_chains": 2}
    mcmc = run(SGLD(problem.model, STEP_SIZE), *problem.data, extra_fields=("position", *FIELDS[:1]), **sizes)
    thermometer, positions = mcmc.last_state.thermometer, field(mcmc)
    assert (thermometer.readings == 30).all()
    np.testing.assert_allclose(thermometer.centre, positions.mean(1), atol=1e-5 * positions.std())


def test_kinetic_runs_have_both_temperatures():
    problem = anisotropic_mean(BATCH_SIZE)
    found, state = thermometers(SGWORLD(problem.model, 0.01, integrator=BAOAB(20.0)), problem, samples=1000)
    assert np.isfinite(found["configurational_temperature"][0])
    assert 0.5 < found["kinetic_temperature"][0] < 2
    assert np.isnan(found["fluctuation_dissipation"][0])
    assert state.kinetic_temperature.shape == (16,)
