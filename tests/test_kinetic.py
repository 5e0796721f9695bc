"""Kinetic integrators: their free flow, their chains against exact laws, and a published table."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC

from sgworld_numpyro import (
    BAOAB,
    UBU,
    FullBatch,
    IndependentBatches,
    RandomReshuffle,
    StochasticGradientKernel,
    SymmetricReshuffle,
    WithReplacement,
)
from sgworld_numpyro.integrators.ubu import _free_flow
from sgworld_numpyro.linear_gaussian import stationary_moments
from sgworld_numpyro.preconditioners import Dense
from sgworld_numpyro.results.run_attributes import name_of
from tests.problems import anisotropic_mean, measure

SCHEMES = WithReplacement(), IndependentBatches(), RandomReshuffle(), SymmetricReshuffle(), FullBatch()
pytestmark = pytest.mark.laws
STANDARD_ERRORS = 5
STEP_SIZE, FRICTION, BATCH_SIZE = 0.012, 20.0, 10  # R h √λ = 3.9 with λ = 260: biases of 10 % and more


def run(problem, kernel, samples, chains=8, **options):
    mcmc = MCMC(
        kernel,
        num_warmup=100,
        num_samples=samples,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), *problem.data, extra_fields=("position", "kinetic_temperature"), **options)
    fields = mcmc.get_extra_fields(group_by_chain=True)
    return np.asarray(fields["position"]), np.asarray(fields["kinetic_temperature"]), mcmc.last_state


@pytest.mark.parametrize("scheme", SCHEMES, ids=name_of)
@pytest.mark.parametrize("integrator", [BAOAB(FRICTION), UBU(FRICTION)], ids=name_of)
def test_moments_at_period_ends(scheme, integrator):
    problem = anisotropic_mean(BATCH_SIZE)
    kernel = StochasticGradientKernel(problem.model, STEP_SIZE, subsampling=scheme, integrator=integrator)
    draws, _, _ = run(problem, kernel, samples=4000 if scheme == FullBatch() else 2000)
    exact = stationary_moments(problem.exact, scheme, integrator, STEP_SIZE, BATCH_SIZE)
    mean, covariance = exact.period_end
    measured = measure(draws, mean)
    assert np.all(np.abs(measured.mean) < STANDARD_ERRORS * measured.mean_error)
    assert np.all(np.abs(measured.second - covariance) < STANDARD_ERRORS * measured.second_error)


@pytest.mark.parametrize("integrator", [BAOAB(15.0), UBU(15.0)], ids=name_of)
def test_preconditioning_is_a_change_of_coordinates(integrator):
    """With M = L Lᵀ the chain of L⁻¹θ is the plain chain, with unit mass, of the transformed problem."""
    problem = anisotropic_mean(20)
    exact, matrix = problem.exact, 200 * problem.exact.covariance @ np.diag([1.0, 0.3]) @ problem.exact.covariance * 200
    matrix = (matrix + matrix.T) / 2 + 0.3 * np.eye(2)
    root = np.linalg.cholesky(matrix)
    transformed = exact._replace(
        prior_precision=root.T @ exact.prior_precision @ root,
        prior_shift=root.T @ exact.prior_shift,
        row_hessians=root.T @ exact.row_hessians @ root,
        row_shifts=exact.row_shifts @ root,
    )
    law = stationary_moments(transformed, RandomReshuffle(), integrator, 0.02, 20).period_end
    kernel = StochasticGradientKernel(
        problem.model,
        0.02,
        subsampling=RandomReshuffle(),
        integrator=integrator,
        preconditioner=Dense(matrix),
    )
    draws, _, _ = run(problem, kernel, samples=2000)
    measured = measure(draws, root @ law[0])
    assert np.all(np.abs(measured.second - root @ law[1] @ root.T) < STANDARD_ERRORS * measured.second_error)


def test_kinetic_temperature_is_that_of_the_velocities():
    """With full gradients BAOAB's is T (1 - h²λ/4) in a direction of curvature λ: its velocity is the one that errs."""
    problem = anisotropic_mean(BATCH_SIZE)
    kernel = StochasticGradientKernel(
        problem.model, STEP_SIZE, subsampling=FullBatch(), integrator=BAOAB(FRICTION), temperature=1.5
    )
    _, temperature, _ = run(problem, kernel, samples=4000)
    rates = np.linalg.eigvalsh(problem.exact.hessian)
    means = temperature.reshape(80, -1).mean(1)
    error = means.std(ddof=1) / np.sqrt(len(means))
    assert abs(means.mean() - 1.5 * (1 - STEP_SIZE**2 * rates / 4).mean()) < STANDARD_ERRORS * error
    assert STANDARD_ERRORS * error < 0.1


@pytest.mark.parametrize("damping", [1e-4, 1e-2, 0.499, 0.501, 1.0, 10.0])
def test_ubus_free_flow_is_the_exact_one(damping):
    """Its covariance is that of dq = v dt, dv = -γ v dt + √(2γT) dW after h/2, for tiny a as well."""
    friction, temperature = 3.0, 1.7
    time = damping / friction
    step_size = jnp.float32(2 * time)
    units = [_free_flow(0.0, friction, step_size, temperature, jnp.array(unit)) for unit in ([1.0, 0.0], [0.0, 1.0])]
    covariance = np.array(units, float).T @ np.array(units, float)
    decay, a = np.exp(-damping), damping
    position = 2 * temperature / friction**2 * _gap(a)
    exact = np.array(
        [
            [position, temperature / friction * (1 - decay) ** 2],
            [temperature / friction * (1 - decay) ** 2, -temperature * np.expm1(-2 * a)],
        ]
    )
    np.testing.assert_allclose(covariance, exact, rtol=2e-5)
    moved, velocity = _free_flow(1.0, friction, step_size, temperature, None)
    np.testing.assert_allclose([moved, velocity], [-np.expm1(-a) / friction, decay], rtol=1e-5)


def _gap(a):
    """a - 2(1 - e^{-a}) + (1 - e^{-2a})/2, by its series where that is exact."""
    if a > 0.5:
        return a + 2 * np.expm1(-a) - np.expm1(-2 * a) / 2
    powers = np.arange(3, 30)
    factorials = np.cumprod(np.arange(1.0, 30))[powers - 1]
    return np.sum((-a) ** powers / factorials * (2 - 2.0 ** (powers - 1)))


@pytest.mark.parametrize("integrator", [BAOAB(FRICTION), UBU(FRICTION)], ids=name_of)
def test_no_noise_at_temperature_zero(integrator):
    problem = anisotropic_mean(BATCH_SIZE)
    kernel = StochasticGradientKernel(
        problem.model, STEP_SIZE, subsampling=FullBatch(), integrator=integrator, temperature=0.0
    )
    draws, _, _ = run(problem, kernel, samples=300, chains=2)
    np.testing.assert_allclose(draws[:, -1], np.tile(problem.exact.mean, (2, 1)), atol=1e-5)


# Paulin et al., arXiv 2410.19780: two rows, U_i = (θ - μ_i)²/(2σ_i²), h a minibatch step; all steps recorded.
MU, SIGMA = np.array([-1.0, 1.0], np.float32), np.array([0.5, 2.0], np.float32)
PUBLISHED = {
    SymmetricReshuffle(): {0.25: 0.0412, 0.125: 0.0071},
    RandomReshuffle(): {0.25: 0.0273, 0.125: 0.0060},
    IndependentBatches(): {0.25: 0.1147, 0.125: 0.0483},
}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", PUBLISHED, ids=name_of)
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
        mcmc = MCMC(
            kernel, num_warmup=50, num_samples=4000, num_chains=200, chain_method="vectorized", progress_bar=False
        )
        mcmc.run(jax.random.key(1), MU, SIGMA)
        draws = np.asarray(mcmc.get_samples(group_by_chain=True)["theta"], float)
        groups = [distance(group.ravel()) for group in np.split(draws, 10)]
        error = np.std(groups, ddof=1) / np.sqrt(10)
        found = distance(draws.ravel())
        assert abs(found - published) < max(0.1 * published, STANDARD_ERRORS * error), (step_size, found, error)
