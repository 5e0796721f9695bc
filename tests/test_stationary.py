"""Chains against their exact stationary laws: every scheme, integrator and way of running chains.

The step size is so large (Rε about 1) that most schemes are off from the posterior by far more than the Monte
Carlo error: what is tested is the law of the chain, bias included.
"""

import jax
import numpy as np
import pytest
from numpyro.infer import MCMC

from sgworld_numpyro import (
    SGD,
    SGLD,
    SGWORLD,
    BatchReshuffle,
    Cyclic,
    EulerMaruyama,
    LeimkuhlerMatthews,
    RandomReshuffle,
    ShuffleOnce,
    StochasticGradientKernel,
    SymmetricReshuffle,
    WithReplacement,
    subsampling,
)
from sgworld_numpyro.linear_gaussian import stationary_moments
from sgworld_numpyro.preconditioners import Dense, Diagonal
from sgworld_numpyro.subsampling import Plate
from tests.problems import anisotropic_mean, measure

SCHEMES = [scheme() for scheme in subsampling.SCHEMES]
INTEGRATORS = EulerMaruyama(), LeimkuhlerMatthews()
pytestmark = pytest.mark.laws


def by_name(value):
    """The id of a scheme or an integrator; pytest's own for a number."""
    return getattr(value, "name", None)


STANDARD_ERRORS = 5
STEP_SIZE = 5e-4  # largest eigenvalue of the Hessian about 260: hλ = 0.13, Rε = 2.6 at B = 10, 0.9 at B = 30


def run(problem, kernel, samples, chains=1, warmup=100, seed=0):
    """Draws (chain, draw, dim) and the kernel's last state."""
    mcmc = MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=samples,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(seed), *problem.data, extra_fields=("position",))
    return np.asarray(mcmc.get_extra_fields(group_by_chain=True)["position"]), mcmc.last_state


def realised_order(scheme, kernel, state, chain, plate):
    """What a quenched scheme has drawn for one chain, for the exact moments given it."""
    if isinstance(scheme, BatchReshuffle):
        return np.asarray(scheme.layout(plate)).reshape(-1, plate.batch_size)
    if isinstance(scheme, ShuffleOnce):
        rows = np.asarray(kernel.minibatch_rows(state)["rows"])
        rows = rows if rows.ndim == 2 else rows[chain]
        return rows[: plate.size // np.gcd(plate.size, plate.batch_size)]
    return None


def assert_within(measured, error, exact, what):
    deviation = np.abs(measured - exact) / error
    assert np.all(deviation < STANDARD_ERRORS), f"{what}: off by {deviation.max():.1f} standard errors"


# vectorized chains whose batches divide the rows, and single ones whose batches straddle epochs
@pytest.mark.parametrize(
    ("integrator", "batch_size", "chains"),
    [*((own, 10, 8) for own in INTEGRATORS), pytest.param(EulerMaruyama(), 30, 1, marks=pytest.mark.slow)],
    ids=by_name,
)
@pytest.mark.parametrize("scheme", SCHEMES, ids=by_name)
def test_moments_at_period_ends(scheme, integrator, batch_size, chains):
    problem = anisotropic_mean(batch_size)
    kernel = StochasticGradientKernel(problem.model, STEP_SIZE, subsampling=scheme, integrator=integrator)
    draws, state = run(problem, kernel, samples=16_000 // chains, chains=chains)
    plate = Plate("rows", 200, batch_size)
    for chain in range(chains) if isinstance(scheme, ShuffleOnce) else [slice(None)]:
        order = realised_order(scheme, kernel, state, chain, plate)
        exact = stationary_moments(problem.exact, scheme, integrator, STEP_SIZE, batch_size, order=order)
        mean, covariance = exact.period_end
        measured = measure(draws[chain], mean)
        assert_within(measured.mean, measured.mean_error, 0, "mean")
        assert_within(measured.second, measured.second_error, covariance, "covariance")


@pytest.mark.parametrize("scheme", [RandomReshuffle(), SymmetricReshuffle(), Cyclic()], ids=by_name)
def test_moments_at_every_position_in_the_period(scheme):
    problem = anisotropic_mean(20)
    kernel = StochasticGradientKernel(
        problem.model,
        STEP_SIZE,
        subsampling=scheme,
        integrator=LeimkuhlerMatthews(),
        steps_per_sample=1,
    )
    exact = stationary_moments(problem.exact, scheme, LeimkuhlerMatthews(), STEP_SIZE, 20)
    period = len(exact.mean)
    draws, _ = run(problem, kernel, samples=4000 * period, chains=4, warmup=20 * period)
    for phase in range(period):
        # The first draw after warm-up is one step into the period.
        measured = measure(draws[:, phase::period], exact.mean[(phase + 1) % period])
        assert_within(measured.mean, measured.mean_error, 0, f"mean at phase {phase}")
        assert_within(
            measured.second,
            measured.second_error,
            exact.covariance[(phase + 1) % period],
            f"covariance at phase {phase}",
        )


@pytest.mark.parametrize("name", ["sgld", "sgworld", "sgd"])
def test_the_named_kernels_are_what_they_are_called(name):
    problem = anisotropic_mean(20)
    kernels = {
        "sgld": (SGLD(problem.model, STEP_SIZE), WithReplacement(), 1.0),
        "sgworld": (SGWORLD(problem.model, STEP_SIZE), RandomReshuffle(), 1.0),
        "sgd": (SGD(problem.model, STEP_SIZE), WithReplacement(), 0.0),
    }
    kernel, scheme, temperature = kernels[name]
    exact = stationary_moments(
        problem.exact, scheme, EulerMaruyama(), STEP_SIZE, 20, temperature=temperature
    ).period_end
    draws, _ = run(problem, kernel, samples=2000, chains=8)
    measured = measure(draws, exact[0])
    assert_within(measured.mean, measured.mean_error, 0, "mean")
    assert_within(measured.second, measured.second_error, exact[1], "covariance")


def test_temperature_scales_the_noise():
    problem = anisotropic_mean(20)
    exact = stationary_moments(
        problem.exact, RandomReshuffle(), LeimkuhlerMatthews(), STEP_SIZE, 20, temperature=2.5
    ).period_end
    kernel = SGWORLD(problem.model, STEP_SIZE, integrator=LeimkuhlerMatthews(), temperature=2.5)
    draws, _ = run(problem, kernel, samples=2000, chains=8)
    measured = measure(draws, exact[0])
    assert_within(measured.second, measured.second_error, exact[1], "covariance")


def test_three_point_noise_gives_the_same_moments():
    problem = anisotropic_mean(20)
    exact = stationary_moments(problem.exact, RandomReshuffle(), LeimkuhlerMatthews(), STEP_SIZE, 20).period_end
    kernel = SGWORLD(problem.model, STEP_SIZE, integrator=LeimkuhlerMatthews(noise="three_point"))
    draws, _ = run(problem, kernel, samples=2000, chains=8)
    measured = measure(draws, exact[0])
    assert_within(measured.second, measured.second_error, exact[1], "covariance")


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=by_name)
@pytest.mark.parametrize("kind", ["diagonal", "dense"])
def test_preconditioning_is_a_change_of_coordinates(kind, integrator):
    """With M = L Lᵀ the chain of L⁻¹θ is the plain chain of the transformed problem."""
    problem = anisotropic_mean(20)
    matrix = {
        "diagonal": np.diag([0.5, 2.0]),
        "dense": 200 * problem.exact.covariance,
    }[kind]
    preconditioner = Diagonal(np.diag(matrix)) if kind == "diagonal" else Dense(matrix)
    root = np.linalg.cholesky(matrix)
    exact = problem.exact
    transformed = exact._replace(
        prior_precision=root.T @ exact.prior_precision @ root,
        prior_shift=root.T @ exact.prior_shift,
        row_hessians=root.T @ exact.row_hessians @ root,
        row_shifts=exact.row_shifts @ root,
    )
    moments = stationary_moments(transformed, RandomReshuffle(), integrator, STEP_SIZE, 20).period_end
    kernel = SGWORLD(problem.model, STEP_SIZE, integrator=integrator, preconditioner=preconditioner)
    draws, _ = run(problem, kernel, samples=2000, chains=8)
    measured = measure(draws, root @ moments[0])
    assert_within(measured.mean, measured.mean_error, 0, "mean")
    assert_within(measured.second, measured.second_error, root @ moments[1] @ root.T, "covariance")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "order"), [("sgld", 1), ("sgworld, all steps", 2)])
def test_order_of_the_bias_in_simulation(name, order):
    """Slope of log bias against log step size, simulated, within 5 standard errors of the exact one.

    The third and fifth orders at period ends drown in Monte Carlo noise long before they become straight lines;
    they are measured on the exact formulas, in test_linear_gaussian.
    """
    problem, batch_size = anisotropic_mean(20), 20
    period_time = np.array([0.6, 0.9, 1.35, 2.0])
    step_sizes = period_time / (10 * np.linalg.eigvalsh(problem.exact.hessian).max())
    scheme = WithReplacement() if order == 1 else RandomReshuffle()
    exact_bias, bias, error = [], [], []
    for number, step_size in enumerate(step_sizes):
        kernel = StochasticGradientKernel(
            problem.model,
            float(step_size),
            subsampling=scheme,
            integrator=LeimkuhlerMatthews(),
            steps_per_sample=3,  # prime to the period: the draws visit all its phases
        )
        draws, _ = run(problem, kernel, samples=8_000, chains=32, seed=number)
        moments = stationary_moments(problem.exact, scheme, LeimkuhlerMatthews(), step_size, batch_size)
        mean, covariance = moments.averaged
        target = problem.exact.covariance
        whitened = np.linalg.solve(np.linalg.cholesky(target), (draws - mean).reshape(-1, 2).T.astype(float))
        excess = np.mean(whitened**2, axis=0).reshape(32, -1).mean(1) - 1
        exact_bias.append(np.trace(np.linalg.solve(target, covariance)) / 2 - 1)
        bias.append(excess.mean())
        error.append(excess.std(ddof=1) / np.sqrt(32))
    x = np.log(step_sizes) - np.log(step_sizes).mean()
    slope, exact_slope = x @ np.log(bias) / (x @ x), x @ np.log(exact_bias) / (x @ x)
    slope_error = np.sqrt((x**2) @ (np.array(error) / bias) ** 2) / (x @ x)
    assert abs(slope - exact_slope) < STANDARD_ERRORS * slope_error
    assert STANDARD_ERRORS * slope_error < 1, "too noisy to tell one order from the next"
    assert abs(exact_slope - order) < 0.4  # the higher powers of Rε bend the lines at steps this large
