"""Control variates: unbiased, without noise where rows share their Hessian, and with the law that they should have."""

import jax
import jax.numpy as jnp
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
from sgworld_numpyro.gradients import Anchor
from sgworld_numpyro.linear_gaussian import control_variate, stationary_moments
from sgworld_numpyro.preconditioners import Dense
from tests.problems import anisotropic_mean, measure, misspecified_regression
from tests.runs import field, run

pytestmark = pytest.mark.laws
STANDARD_ERRORS = 5


def test_the_estimate_is_the_change_since_the_anchor():
    anchor = Anchor(jnp.array([1.0, 2.0]), jnp.array([10.0, 20.0]))
    energy, gradient = ControlVariate()(lambda x: jnp.sum(x**3), anchor)(jnp.array([2.0, 2.0]))
    assert energy == 16.0
    np.testing.assert_allclose(gradient, [12 - 3 + 10, 12 - 12 + 20])


def start(problem, **options):
    kernel = StochasticGradientKernel(problem.model, 1e-3, gradient=ControlVariate(), **options)
    return kernel.init(jax.random.key(0), 10, None, problem.data, {})


def test_the_anchor_is_near_the_mode_with_the_gradient_of_all_rows():
    problem = misspecified_regression(7)  # does not divide 60
    anchor = start(problem, subsampling=RandomReshuffle()).tuning.anchor
    exact = problem.exact.hessian @ (np.asarray(anchor.position, float) - problem.exact.mean)
    scale = np.sqrt(np.diag(problem.exact.hessian))
    assert np.all(np.abs(np.asarray(anchor.gradient) - exact) < 1e-3 * scale)
    assert np.all(np.abs(exact) < scale)


def draws_of(problem, kernel, samples, chains=8):
    mcmc = run(
        kernel, *problem.data, num_warmup=100, num_samples=samples, num_chains=chains, extra_fields=("position",)
    )
    return field(mcmc), mcmc.last_state


@pytest.mark.parametrize("kernel", [SGLD, SGWORLD], ids=["with_replacement", "random_reshuffle"])
def test_no_minibatch_noise_where_rows_share_their_hessian(kernel):
    """The chain's law is that with full gradients: Euler-Maruyama's ε/2 and nothing of Rε."""
    problem = anisotropic_mean(10)
    draws, _ = draws_of(problem, kernel(problem.model, 5e-4, gradient=ControlVariate()), 2000)
    _, covariance = stationary_moments(problem.exact, FullBatch(), EulerMaruyama(), 5e-4, 10).period_end
    measured = measure(draws, problem.exact.mean)
    assert np.all(np.abs(measured.second - covariance) < STANDARD_ERRORS * measured.second_error)


CASES = {
    "sgld": (SGLD, EulerMaruyama(), WithReplacement(), 3e-3),
    "symmetric": (StochasticGradientKernel, LeimkuhlerMatthews(), SymmetricReshuffle(), 3e-3),
    "kinetic": (SGWORLD, BAOAB(8.0), RandomReshuffle(), 0.04),
}


@pytest.mark.parametrize("case", CASES)
def test_law_with_unequal_hessians(case):
    """That of the rows whose gradients at the anchor are all equal, bias included."""
    kernel, integrator, scheme, step_size = CASES[case]
    problem = misspecified_regression(6)
    options = {"subsampling": SymmetricReshuffle()} if case == "symmetric" else {}
    draws, state = draws_of(
        problem, kernel(problem.model, step_size, integrator=integrator, gradient=ControlVariate(), **options), 4000
    )
    anchored = control_variate(problem.exact, np.asarray(state.tuning.anchor.position, float))
    law = stationary_moments(anchored, scheme, integrator, step_size, 6)
    mean, covariance = law.period_end
    measured = measure(draws, mean)
    error = np.hypot(measured.mean_error, law.mean_error[0])
    assert np.all(np.abs(measured.mean) < STANDARD_ERRORS * error)
    error = np.hypot(measured.second_error, law.covariance_error[0])
    assert np.all(np.abs(measured.second - covariance) < STANDARD_ERRORS * error)
    plain = stationary_moments(problem.exact, scheme, integrator, step_size, 6).period_end[1]
    if case == "sgld":  # the test could tell the two apart
        assert np.any(np.abs(plain - covariance) > 3 * STANDARD_ERRORS * error)


def test_with_a_learnt_preconditioner_and_full_batches():
    problem = anisotropic_mean(10)
    kernel = StochasticGradientKernel(
        problem.model,
        0.3,
        subsampling=FullBatch(),
        gradient=ControlVariate(),
        preconditioner=Dense(),
        integrator=LeimkuhlerMatthews(),
    )
    draws, _ = draws_of(problem, kernel, 4000)
    measured = measure(draws, problem.exact.mean)
    assert np.all(np.abs(measured.second - problem.exact.covariance) < STANDARD_ERRORS * measured.second_error)
