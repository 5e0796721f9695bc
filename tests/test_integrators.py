"""Integrators: the free flow of the kinetic ones, and that without noise they go to the mode."""

import jax.numpy as jnp
import numpy as np
import pytest

from sgworld_numpyro import BAOAB, UBU, FullBatch, StochasticGradientKernel
from sgworld_numpyro.integrators.ubu import _free_flow
from tests.problems import anisotropic_mean
from tests.runs import field, run
from tests.tables import by_name


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


@pytest.mark.parametrize("integrator", [BAOAB(20.0), UBU(20.0)], ids=by_name)
def test_no_noise_at_temperature_zero(integrator):
    problem = anisotropic_mean(10)
    kernel = StochasticGradientKernel(
        problem.model, 0.012, subsampling=FullBatch(), integrator=integrator, temperature=0.0
    )
    sizes = {"num_warmup": 100, "num_samples": 300, "num_chains": 2}
    draws = field(run(kernel, *problem.data, extra_fields=("position",), **sizes))
    np.testing.assert_allclose(draws[:, -1], np.tile(problem.exact.mean, (2, 1)), atol=1e-5)
