"""Chains against their exact stationary laws: every scheme, integrator and way of running chains.

The step sizes are so large that most schemes are off from the posterior by far more than the Monte Carlo error: what is
tested is the law of the chain, bias included.
"""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_numpyro import (
    BAOAB,
    SGD,
    SGLD,
    SGWORLD,
    UBU,
    BatchReshuffle,
    ControlVariate,
    Cyclic,
    EulerMaruyama,
    FullBatch,
    IndependentBatches,
    LeimkuhlerMatthews,
    RandomReshuffle,
    RunReshuffle,
    ShuffleOnce,
    StochasticGradientKernel,
    SymmetricReshuffle,
    WithReplacement,
)
from sgworld_numpyro.linear_gaussian import control_variate, stationary_moments
from sgworld_numpyro.preconditioners import Dense, Diagonal
from sgworld_numpyro.subsampling import Plate
from tests.problems import anisotropic_mean, in_coordinates, measure, misspecified_regression
from tests.runs import field, run
from tests.tables import OVERDAMPED, SCHEMES, by_name

pytestmark = pytest.mark.laws
STANDARD_ERRORS = 5
STEP_SIZE = 5e-4  # largest eigenvalue of the Hessian about 260: hλ = 0.13, Rε = 2.6 at B = 10, 0.9 at B = 30
KINETIC_STEP_SIZE, FRICTION = 0.012, 20.0  # R h √λ = 3.9 at B = 10: biases of 10 % and more
KINETIC = BAOAB(FRICTION), UBU(FRICTION)


def draws_of(problem, kernel, samples, chains=8, warmup=100, key=0):
    """Draws (chain, draw, dim) and the kernel's last state."""
    sizes = {"num_warmup": warmup, "num_samples": samples, "num_chains": chains}
    mcmc = run(kernel, *problem.data, extra_fields=("position",), key=key, **sizes)
    return field(mcmc), mcmc.last_state


def assert_within(measured, error, exact, what):
    deviation = np.abs(measured - exact) / error
    assert np.all(deviation < STANDARD_ERRORS), f"{what}: off by {deviation.max():.1f} standard errors"


def assert_moments(draws, law, errors=(0.0, 0.0), where=""):
    """Those of the draws are the law's mean and covariance, which may have Monte Carlo errors of their own."""
    mean, covariance = law
    measured = measure(draws, mean)
    assert_within(measured.mean, np.hypot(measured.mean_error, errors[0]), 0, f"mean{where}")
    assert_within(measured.second, np.hypot(measured.second_error, errors[1]), covariance, f"covariance{where}")


# --- Every scheme with every integrator ---


def realised_order(scheme, kernel, state, chain, plate):
    """What a quenched scheme has drawn for one chain, for the exact moments given it."""
    if isinstance(scheme, BatchReshuffle):
        return np.asarray(scheme.layout(plate)).reshape(-1, plate.batch_size)
    if isinstance(scheme, RunReshuffle):
        return np.asarray(scheme.layout(plate)).reshape(-1, scheme.rows_a_run(plate))
    if isinstance(scheme, ShuffleOnce):
        rows = np.asarray(kernel.minibatch_rows(state)["rows"])
        rows = rows if rows.ndim == 2 else rows[chain]
        return rows[: plate.size // np.gcd(plate.size, plate.batch_size)]
    return None


# vectorized chains whose batches divide the rows, and single ones whose batches straddle epochs
@pytest.mark.parametrize(
    ("integrator", "batch_size", "chains"),
    [*((own, 10, 8) for own in OVERDAMPED), pytest.param(EulerMaruyama(), 30, 1, marks=pytest.mark.slow)],
    ids=by_name,
)
@pytest.mark.parametrize("scheme", [*SCHEMES, RunReshuffle(5)], ids=by_name)
def test_moments_at_period_ends(scheme, integrator, batch_size, chains):
    problem = anisotropic_mean(batch_size)
    kernel = StochasticGradientKernel(problem.model, STEP_SIZE, subsampling=scheme, integrator=integrator)
    draws, state = draws_of(problem, kernel, samples=16_000 // chains, chains=chains)
    plate = Plate("rows", 200, batch_size)
    for chain in range(chains) if isinstance(scheme, ShuffleOnce) else [slice(None)]:
        order = realised_order(scheme, kernel, state, chain, plate)
        exact = stationary_moments(problem.exact, scheme, integrator, STEP_SIZE, batch_size, order=order)
        assert_moments(draws[chain], exact.period_end)


@pytest.mark.parametrize("integrator", KINETIC, ids=by_name)
@pytest.mark.parametrize(
    "scheme",
    [WithReplacement(), IndependentBatches(), RandomReshuffle(), SymmetricReshuffle(), FullBatch()],
    ids=by_name,
)
def test_kinetic_moments_at_period_ends(scheme, integrator):
    problem = anisotropic_mean(10)
    kernel = StochasticGradientKernel(problem.model, KINETIC_STEP_SIZE, subsampling=scheme, integrator=integrator)
    # a sample of full batches is a step, whose draws are less independent than those of a pass
    draws, _ = draws_of(problem, kernel, samples=4000 if scheme == FullBatch() else 2000)
    exact = stationary_moments(problem.exact, scheme, integrator, KINETIC_STEP_SIZE, 10)
    assert_moments(draws, exact.period_end)


@pytest.mark.parametrize("scheme", [RandomReshuffle(), SymmetricReshuffle(), Cyclic()], ids=by_name)
def test_moments_at_every_position_in_the_period(scheme):
    problem = anisotropic_mean(20)
    kernel = StochasticGradientKernel(
        problem.model, STEP_SIZE, subsampling=scheme, integrator=LeimkuhlerMatthews(), steps_per_sample=1
    )
    exact = stationary_moments(problem.exact, scheme, LeimkuhlerMatthews(), STEP_SIZE, 20)
    period = len(exact.mean)
    draws, _ = draws_of(problem, kernel, samples=4000 * period, chains=4, warmup=20 * period)
    for phase in range(period):
        after = (phase + 1) % period  # the first draw after warm-up is one step into the period
        assert_moments(
            draws[:, phase::period], (exact.mean[after], exact.covariance[after]), where=f" at phase {phase}"
        )


# --- What a kernel is given ---


@pytest.mark.parametrize(
    ("make", "scheme", "temperature"),
    [(SGLD, WithReplacement(), 1.0), (SGWORLD, RandomReshuffle(), 1.0), (SGD, WithReplacement(), 0.0)],
    ids=["sgld", "sgworld", "sgd"],
)
def test_the_named_kernels_are_what_they_are_called(make, scheme, temperature):
    problem = anisotropic_mean(20)
    exact = stationary_moments(problem.exact, scheme, EulerMaruyama(), STEP_SIZE, 20, temperature=temperature)
    draws, _ = draws_of(problem, make(problem.model, STEP_SIZE), samples=2000)
    assert_moments(draws, exact.period_end)


def test_temperature_scales_the_noise():
    problem, integrator = anisotropic_mean(20), LeimkuhlerMatthews()
    exact = stationary_moments(problem.exact, RandomReshuffle(), integrator, STEP_SIZE, 20, temperature=2.5)
    draws, _ = draws_of(problem, SGWORLD(problem.model, STEP_SIZE, integrator=integrator, temperature=2.5), 2000)
    assert_moments(draws, exact.period_end)


def test_three_point_noise_gives_the_same_moments():
    problem = anisotropic_mean(20)
    exact = stationary_moments(problem.exact, RandomReshuffle(), LeimkuhlerMatthews(), STEP_SIZE, 20)
    kernel = SGWORLD(problem.model, STEP_SIZE, integrator=LeimkuhlerMatthews(noise="three_point"))
    draws, _ = draws_of(problem, kernel, samples=2000)
    assert_moments(draws, exact.period_end)


def tilted(exact):
    """A matrix that neither commutes with the Hessian nor makes it isotropic."""
    scale = 200 * exact.covariance
    matrix = scale @ np.diag([1.0, 0.3]) @ scale
    return (matrix + matrix.T) / 2 + 0.3 * np.eye(2)


@pytest.mark.parametrize(
    ("matrix", "integrator", "step_size"),
    [
        *((lambda exact: np.diag([0.5, 2.0]), own, STEP_SIZE) for own in OVERDAMPED),
        *((lambda exact: 200 * exact.covariance, own, STEP_SIZE) for own in OVERDAMPED),
        *((tilted, own, 0.02) for own in (BAOAB(15.0), UBU(15.0))),
    ],
    ids=[
        "diagonal-euler_maruyama",
        "diagonal-leimkuhler_matthews",
        "dense-euler_maruyama",
        "dense-leimkuhler_matthews",
        "dense-baoab",
        "dense-ubu",
    ],
)
def test_preconditioning_is_a_change_of_coordinates(matrix, integrator, step_size):
    """With M = L Lᵀ the chain of L⁻¹θ is the plain chain, of unit mass if kinetic, of the transformed problem."""
    problem = anisotropic_mean(20)
    matrix = matrix(problem.exact)
    root = np.linalg.cholesky(matrix)
    diagonal = np.all(matrix == np.diag(np.diag(matrix)))
    preconditioner = Diagonal(np.diag(matrix)) if diagonal else Dense(matrix)
    law = stationary_moments(in_coordinates(problem.exact, root), RandomReshuffle(), integrator, step_size, 20)
    mean, covariance = law.period_end
    kernel = SGWORLD(problem.model, step_size, integrator=integrator, preconditioner=preconditioner)
    draws, _ = draws_of(problem, kernel, samples=2000)
    assert_moments(draws, (root @ mean, root @ covariance @ root.T))


def test_kinetic_temperature_is_that_of_the_velocities():
    """With full gradients BAOAB's is T (1 - h²λ/4) in a direction of curvature λ: its velocity is the one that errs."""
    problem = anisotropic_mean(10)
    kernel = StochasticGradientKernel(
        problem.model, KINETIC_STEP_SIZE, subsampling=FullBatch(), integrator=BAOAB(FRICTION), temperature=1.5
    )
    sizes = {"num_warmup": 100, "num_samples": 4000, "num_chains": 8}
    temperature = field(
        run(kernel, *problem.data, extra_fields=("kinetic_temperature",), **sizes), "kinetic_temperature"
    )
    rates = np.linalg.eigvalsh(problem.exact.hessian)
    means = temperature.reshape(80, -1).mean(1)
    error = means.std(ddof=1) / np.sqrt(len(means))
    assert abs(means.mean() - 1.5 * (1 - KINETIC_STEP_SIZE**2 * rates / 4).mean()) < STANDARD_ERRORS * error
    assert STANDARD_ERRORS * error < 0.1


# --- Control variates ---


@pytest.mark.parametrize("kernel", [SGLD, SGWORLD], ids=["with_replacement", "random_reshuffle"])
def test_no_minibatch_noise_where_rows_share_their_hessian(kernel):
    """The chain's law is that with full gradients: Euler-Maruyama's ε/2 and nothing of Rε."""
    problem = anisotropic_mean(10)
    draws, _ = draws_of(problem, kernel(problem.model, STEP_SIZE, gradient=ControlVariate()), 2000)
    assert_moments(draws, stationary_moments(problem.exact, FullBatch(), EulerMaruyama(), STEP_SIZE, 10).period_end)


CASES = {
    "sgld": (WithReplacement(), EulerMaruyama(), 3e-3),
    "symmetric": (SymmetricReshuffle(), LeimkuhlerMatthews(), 3e-3),
    "kinetic": (RandomReshuffle(), BAOAB(8.0), 0.04),
}


@pytest.mark.parametrize("case", CASES)
def test_law_with_unequal_hessians(case):
    """That of the rows whose gradients at the anchor are all equal, bias included."""
    scheme, integrator, step_size = CASES[case]
    problem = misspecified_regression(6)
    kernel = StochasticGradientKernel(
        problem.model, step_size, subsampling=scheme, integrator=integrator, gradient=ControlVariate()
    )
    draws, state = draws_of(problem, kernel, samples=4000)
    anchored = control_variate(problem.exact, np.asarray(state.tuning.anchor.position, float))
    law = stationary_moments(anchored, scheme, integrator, step_size, 6)
    assert_moments(draws, law.period_end, (law.mean_error[0], law.covariance_error[0]))
    if case == "sgld":  # the test could tell the two apart
        mean, covariance = law.period_end
        plain = stationary_moments(problem.exact, scheme, integrator, step_size, 6).period_end[1]
        error = np.hypot(measure(draws, mean).second_error, law.covariance_error[0])
        assert np.any(np.abs(plain - covariance) > 3 * STANDARD_ERRORS * error)


def test_control_variates_with_a_learnt_preconditioner_and_full_batches():
    problem = anisotropic_mean(10)
    kernel = StochasticGradientKernel(
        problem.model,
        0.3,
        subsampling=FullBatch(),
        gradient=ControlVariate(),
        preconditioner=Dense(),
        integrator=LeimkuhlerMatthews(),
    )
    draws, _ = draws_of(problem, kernel, samples=4000)
    assert_moments(draws, (problem.exact.mean, problem.exact.covariance))


# --- Studies ---


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
        draws, _ = draws_of(problem, kernel, samples=8_000, chains=32, key=number)
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


# Paulin et al., arXiv 2410.19780: two rows, U_i = (θ - μ_i)²/(2σ_i²), h a minibatch step; all steps recorded.
MU, SIGMA = np.array([-1.0, 1.0], np.float32), np.array([0.5, 2.0], np.float32)
PUBLISHED = {
    SymmetricReshuffle(): {0.25: 0.0412, 0.125: 0.0071},
    RandomReshuffle(): {0.25: 0.0273, 0.125: 0.0060},
    IndependentBatches(): {0.25: 0.1147, 0.125: 0.0483},
}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", PUBLISHED, ids=by_name)
def test_published_wasserstein_distances(scheme):
    """Wasserstein-1 to the exact posterior, within a tenth or five errors; smaller steps are tested by exact laws."""
    precision = np.sum(1 / SIGMA**2)
    mean = np.sum(MU / SIGMA**2) / precision

    def model(mu, sigma):
        theta = numpyro.sample("theta", dist.ImproperUniform(dist.constraints.real, (), ()))
        with numpyro.plate("rows", 2, subsample_size=1):
            mu, sigma = numpyro.subsample(mu, event_dim=0), numpyro.subsample(sigma, event_dim=0)
            numpyro.factor("likelihood", -((theta - mu) ** 2) / (2 * sigma**2))

    quantiles = (np.arange(4000) + 0.5) / 4000
    target = mean + np.sqrt(1 / precision) * np.sqrt(2) * np.asarray(jax.scipy.special.erfinv(2 * quantiles - 1))

    def distance(draws):
        return np.mean(np.abs(np.quantile(draws, quantiles) - target))

    for step_size, published in PUBLISHED[scheme].items():
        kernel = StochasticGradientKernel(model, step_size, subsampling=scheme, integrator=UBU(1.0), steps_per_sample=5)
        mcmc = run(kernel, MU, SIGMA, num_warmup=50, num_samples=4000, num_chains=200, key=1)
        draws = np.asarray(mcmc.get_samples(group_by_chain=True)["theta"], float)
        groups = [distance(group.ravel()) for group in np.split(draws, 10)]
        error = np.std(groups, ddof=1) / np.sqrt(10)
        found = distance(draws.ravel())
        assert abs(found - published) < max(0.1 * published, STANDARD_ERRORS * error), (step_size, found, error)
