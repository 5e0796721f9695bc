"""The local velocity, against those that systems have."""

import numpy as np
import pytest

from sgworld_numpyro.nonequilibrium import local_velocity, radial_functions, systems, velocity_field
from tests import problems

STEP = 0.02
PLACES = np.random.default_rng(0).standard_normal((40, 2))


@pytest.fixture(scope="module")
def vortices():
    return systems.vortices(1.0).sample(32, 5000, STEP, substeps=4)


def test_the_velocity_of_the_vortices(vortices):
    found = local_velocity(vortices, PLACES, diffusion=STEP * np.eye(2))
    x, y = PLACES.T
    exact = STEP * np.stack([x * y, 1 - x**2], -1)
    z = (found.velocity - exact) / found.error
    assert np.abs(z).max() < 5
    assert found.error.mean() < 0.2 * np.abs(exact).mean()
    assert found.order >= 2
    assert found.p_value <= 0.015
    assert abs(found.rate - STEP * 3) < 5 * found.rate_error
    assert found.rate_error < 0.2 * found.rate


def test_functions_of_your_own(vortices):
    found = local_velocity(vortices, PLACES, basis=radial_functions(vortices))
    x, y = PLACES.T
    exact = STEP * np.stack([x * y, 1 - x**2], -1)
    near = np.hypot(x, y) < 1.5  # Gaussians around draws describe it where draws are
    assert np.sqrt(np.mean(((found.velocity - exact)[near] / found.error[near]) ** 2)) < 4
    assert np.corrcoef(found.velocity[near].ravel(), exact[near].ravel())[0, 1] > 0.95
    assert np.isnan(found.rate)


def test_errors_are_those_of_repeated_runs():
    found = [local_velocity(problems.beads(2, 0.1).sample(8, 500, s), 10 * PLACES, order=1) for s in range(30)]
    spread = np.std([f.velocity for f in found], axis=0)
    np.testing.assert_allclose(np.mean([f.error for f in found], 0), spread, rtol=0.5)
    assert np.mean(np.mean([f.error for f in found], 0) / spread) == pytest.approx(1, abs=0.15)


def test_nothing_flows_in_equilibrium():
    still = problems.detailed_balance_ou(0.2).sample(16, 1000, seed=3)
    found = local_velocity(still, PLACES, diffusion=np.eye(2))
    assert np.sqrt(np.mean((found.velocity / found.error) ** 2)) < 2
    assert found.p_value > 0.01
    assert abs(found.rate) < 5 * found.rate_error


def test_a_field_in_a_plane(vortices):
    x = np.concatenate([vortices, np.random.default_rng(4).standard_normal((*vortices.shape[:2], 1))], -1)
    found = velocity_field(x, (1, 0), bins=8, reach=2.0)
    across, up = np.meshgrid(found.x, found.y, indexing="ij")  # y and x of the vortices
    exact = STEP * np.stack([1 - up**2, across * up])
    assert np.abs((found.velocity - exact) / found.error).max() < 5
    np.testing.assert_allclose(found.density, np.exp(-(across**2 + up**2) / 2) / (2 * np.pi), rtol=0.3)
    np.testing.assert_array_equal(found.current, found.density * found.velocity)
    assert found.p_value <= 0.015


def test_bad_arguments(vortices):
    with pytest.raises(ValueError, match=r"places have shape \(3,\); want \(places, 2\)"):
        local_velocity(vortices, np.zeros(3))
    with pytest.raises(ValueError, match=r"diffusion has shape \(3, 3\)"):
        local_velocity(vortices, PLACES, diffusion=np.eye(3))
    with pytest.raises(ValueError, match="two different coordinates"):
        velocity_field(vortices, (0, 0))
