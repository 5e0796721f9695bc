"""Control variates: unbiased, without noise where rows share their Hessian, and with the law that they should have."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC

from sgworld_numpyro import (
    BAOAB,
    SGLD,
    SGWORLD,
    ControlVariate,
    Dense,
    EulerMaruyama,
    FullBatch,
    LeimkuhlerMatthews,
    RandomReshuffle,
    StochasticGradientKernel,
    SymmetricReshuffle,
    WithReplacement,
)
from sgworld_numpyro.gradients import Anchor
from sgworld_numpyro.linear_gaussian import control_variate, linear_regression, stationary_moments
from tests.problems import Problem, anisotropic_mean, measure

pytestmark = pytest.mark.laws
STANDARD_ERRORS = 5


def misspecified_regression(batch_size, rows=60, bend=0.0):
    """Rows of unequal Hessians, whose noise grows with the predictor, and of which the model misses a bend."""
    rng = np.random.default_rng(4)
    x = np.stack([np.ones(rows), rng.exponential(size=rows)], 1).astype(np.float32)
    y = (x @ [0.5, 1.0] + bend * x[:, 1] ** 2 + (0.3 + x[:, 1]) * rng.normal(size=rows)).astype(np.float32)

    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0, 3).expand([2]).to_event(1))
        with numpyro.plate("rows", rows, subsample_size=batch_size):
            xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
            numpyro.sample("obs", dist.Normal(xb @ w, 1.0), obs=yb)

    return Problem(model, (x, y), linear_regression(x, y, 1.0, 3.0))


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
    mcmc = MCMC(
        kernel,
        num_warmup=100,
        num_samples=samples,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), *problem.data, extra_fields=("position",))
    return np.asarray(mcmc.get_extra_fields(group_by_chain=True)["position"]), mcmc.last_state


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
