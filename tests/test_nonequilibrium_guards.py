"""What speaks against the linear description is found; projections; the relative Fisher decomposition; ArviZ data."""

import numpy as np
import pytest

from sgworld_numpyro.nonequilibrium import (
    check_assumptions,
    circulation,
    entropy_production,
    lagged_moments,
    principal_components,
    random_projection,
    relative_fisher_decomposition,
)
from tests import problems

# Assumptions


def iterate(step, chains, draws, dim, seed):
    rng = np.random.default_rng(seed)
    x = np.zeros((chains, dim))
    found = np.empty((draws + 200, chains, dim))
    for t in range(draws + 200):
        x = step(x, rng.standard_normal(x.shape))
        found[t] = x
    return found[200:].transpose(1, 0, 2)


VIOLATIONS = {
    "excess_kurtosis": (lambda x, z: x + 0.1 * (x - x**3) + 0.3 * z, "not Gaussian"),
    "skewness": (lambda x, z: 0.8 * x + 0.5 * (z + 0.5 * (z**2 - 1)), "not Gaussian"),
    "state_dependence": (lambda x, z: 0.8 * x + 0.5 * np.sqrt(0.5 + 0.5 * x**2) * z, "diffusion depends"),
    "nonlinearity": (lambda x, z: 0.7 * x + 0.25 * np.tanh(x**2 - 1) + 0.5 * z, "not linear"),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violations_are_found(name):
    step, message = VIOLATIONS[name]
    found = check_assumptions(iterate(step, 32, 2000, 2, seed=1))
    assert getattr(found, name).counts
    assert any(message in problem for problem in found.problems)


def test_hidden_variables_and_mixed_phases_are_found():
    from scipy.linalg import expm

    A = expm(-0.3 * np.array([[0.0, -1.0], [1.0, 0.5]]))
    oscillator = problems.LinearChain(A, np.eye(2) - A @ A.T, 0.3, 0.0).sample(32, 2000, seed=2)
    found = check_assumptions(oscillator[..., :1])
    assert found.memory.counts
    assert any("remembers more" in problem for problem in found.problems)
    # every other step of this one is of a different size: phases of a period of two
    phases = iterate(alternating(), 32, 2000, 1, seed=3)
    assert any("remembers more" in problem for problem in check_assumptions(phases).problems)
    assert check_assumptions(phases[:, 1::2]).problems == ()


def alternating():
    """A kick in one step is taken back in the next, as by reshuffled batches."""
    last = [0, 0.0]

    def step(x, z):
        last[0] += 1
        if last[0] % 2:
            last[1] = z
            return 0.9 * x + 0.3 * z
        return 0.9 * x - 0.25 * last[1] + 0.1 * np.roll(z, 1, axis=0)

    return step


@pytest.mark.parametrize("chain", [problems.driven_ou(0.1), problems.large_steps(0.85), problems.beads(5, 0.05)])
def test_linear_chains_pass(chain):
    found = check_assumptions(chain.sample(32, 2000, seed=4))
    assert found.problems == ()
    assert found.relaxations > 50


def test_chains_pass_nearly_always():
    chain = problems.detailed_balance_ou(0.3)
    failed = [bool(check_assumptions(chain.sample(8, 500, seed)).problems) for seed in range(100)]
    assert sum(failed) <= 2


def test_short_runs_are_found():
    slow = problems.driven_ou(0.001)
    found = check_assumptions(slow.sample(2, 3000, seed=5))
    assert any("too short" in problem for problem in found.problems)
    assert found.relaxations < 50


def test_interchanged_axes_are_suspected():
    x = problems.driven_ou(0.1).sample(16, 2000, seed=17)
    for measure in (entropy_production, check_assumptions, circulation, lagged_moments):
        with pytest.warns(UserWarning, match=r"shape \(2000, 16, 2\) .* first axis were time.*x.swapaxes\(0, 1\)"):
            measure(x.swapaxes(0, 1))
    with pytest.warns(UserWarning, match="first axis were time"):
        lagged_moments(x[:, :12].swapaxes(0, 1))  # fewer draws than chains, and time first all the same
    many = problems.driven_ou(0.1).sample(400, 50, seed=18)
    lagged_moments(many)  # many chains, in which time is plain to see
    lagged_moments(np.random.default_rng(19).standard_normal((20, 100, 3)))
    with pytest.warns(UserWarning, match="first axis were time"):
        lagged_moments(np.random.default_rng(19).standard_normal((100, 20, 3)))
    modes = np.random.default_rng(20).choice([-3.0, 3.0], (12, 1, 1)) + x[:12, :500]
    lagged_moments(modes)  # chains that are stuck


def test_singular_noise_is_found():
    chain = problems.LinearChain(np.diag([0.9, 0.5]), np.diag([1.0, 1e-11]), 1.0, 0.0)
    x = chain.sample(16, 1000, seed=6)
    follower = np.empty_like(x)
    follower[..., 0] = x[..., 0]
    follower[:, 0, 1] = 0
    for t in range(1, x.shape[1]):
        follower[:, t, 1] = 0.5 * follower[:, t - 1, 1] + x[:, t - 1, 0] + x[:, t, 1]
    assert any("nearly singular" in problem for problem in check_assumptions(follower[:, 100:]).problems)


def test_a_relevant_departure_is_not_hidden_by_a_sharper_one():
    rng = np.random.default_rng(13)
    x = rng.standard_normal((64, 4000, 2))
    x[..., 0] = x[..., 0] + 0.015 * (x[..., 0] ** 2 - 1)  # sharp but slight
    slow = iterate(lambda x, z: 0.95 * x + 0.31 * (z + 0.35 * (z**2 - 1)), 64, 4000, 1, seed=14)
    x[..., 1] = slow[..., 0]  # plain but less certain
    found = check_assumptions(x).skewness
    assert found.counts
    assert abs(found.value) > 0.1


def test_diffusion_that_grows_one_way_is_found():
    odd = iterate(lambda x, z: 0.8 * x + 0.5 * np.sqrt(1 + 0.6 * np.tanh(x)) * z, 32, 2000, 1, seed=1)
    assert check_assumptions(odd).state_dependence.counts


def test_rounded_draws_are_found():
    x = problems.driven_ou(0.01).sample(8, 2000, seed=15)
    assert check_assumptions(x).problems == ()
    rounded = (1e5 + 1e-2 * x).astype(np.float32)
    assert any("rounded" in problem for problem in check_assumptions(rounded).problems)


def test_a_kinetic_chain_with_one_noise_a_step():
    # one noise vector drives position and momentum alike: the noise of a step is singular, that of five is not
    step, noise = np.array([[0.95, 0.3], [-0.3, 0.85]]), np.array([0.15, 1.0])
    x = iterate(lambda x, z: x @ step.T + z[:, :1] * noise, 16, 3000, 2, seed=16)
    with pytest.raises(ValueError, match=r"record every k-th, x\[:, ::k\]"):
        entropy_production(x, kinetic=(1,))
    found = check_assumptions(x)
    assert any("record every few steps" in problem for problem in found.problems)
    assert abs(found.memory.value) < 1
    assert np.isfinite(entropy_production(x[:, ::5], kinetic=(1,)).rate)


# Projections


def test_principal_components_are_those_of_the_covariance():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, 400, 6)) @ np.diag([5, 3, 2, 1, 0.5, 0.1]) @ rng.standard_normal((6, 6)) + 10
    found = principal_components(x, 3)
    values, vectors = np.linalg.eigh(np.cov(x.reshape(-1, 6).T))
    np.testing.assert_allclose(np.abs(found.directions @ vectors[:, ::-1][:, :3]), np.eye(3), atol=1e-6)
    np.testing.assert_allclose(found.explained, values[::-1][:3] / values.sum())
    projected = found.apply(x)
    assert projected.shape == (3, 400, 3)
    np.testing.assert_allclose(projected.mean((0, 1)), 0, atol=1e-9)
    np.testing.assert_allclose(
        projected.reshape(-1, 3).var(0), found.explained * np.trace(np.cov(x.reshape(-1, 6).T, ddof=0))
    )


def test_wide_and_tall_chains_have_the_same_components():
    wide = np.random.default_rng(8).standard_normal((2, 30, 9000)).astype(np.float32)
    wide[..., 0] *= 100
    found = principal_components(wide, 5)
    flat = wide.reshape(60, -1).astype(float)
    singular = np.linalg.svd(flat - flat.mean(0), compute_uv=False)
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(5), atol=1e-9)
    np.testing.assert_allclose(
        np.sort(found.apply(wide).reshape(60, 5).std(0))[::-1], singular[:5] / np.sqrt(60), rtol=1e-6
    )


def test_random_projection():
    found = random_projection(50, 4, seed=3)
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(4), atol=1e-12)
    assert found.apply(np.ones((2, 5, 50))).shape == (2, 5, 4)
    with pytest.raises(ValueError, match="k=0; want 1 to 50"):
        random_projection(50, 0)
    with pytest.raises(ValueError, match="this projection is of 50"):
        found.apply(np.ones((2, 5, 3)))
    with pytest.raises(ValueError, match="10 draws of 20 dimensions have 1 to 9"):
        principal_components(np.zeros((1, 10, 20)), 10)


def test_projections_only_lose_entropy_production():
    x = problems.beads(5, 0.05).sample(64, 4000, seed=9)
    whole = entropy_production(x)
    for projection in (principal_components(x, 2), random_projection(5, 3, seed=1)):
        part = entropy_production(projection.apply(x))
        assert part.rate < whole.rate + 5 * np.hypot(whole.rate_error, part.rate_error)


# Relative Fisher information


def test_decomposition_is_exact_on_gaussians():
    # dx = −Mx dt + √(2D) dW, against a Gaussian target of another covariance: all three parts in closed form
    drift = np.array([[1.0, -0.7], [0.7, 2.0]])
    diffusion = np.array([[1.0, 0.2], [0.2, 0.6]])
    target = np.linalg.inv(np.array([[1.2, 0.1], [0.1, 0.5]]))
    chain = problems.LinearChain(np.eye(2) - 1e-3 * drift, 2e-3 * diffusion, 1e-3, np.nan)
    law = chain.covariance
    x = np.random.default_rng(10).multivariate_normal(np.zeros(2), law, size=(64, 4000))
    gap = target - np.linalg.inv(law)  # ∇ ln p − s = gap x
    fisher = np.trace(gap @ diffusion @ gap @ law)
    velocity = -drift + diffusion @ np.linalg.inv(law)
    production = np.trace(velocity.T @ np.linalg.solve(diffusion, velocity) @ law)
    found = relative_fisher_decomposition(
        -x @ drift.T, -x @ target, diffusion, production, log_sobolev=float(np.linalg.eigvalsh(target)[0])
    )
    assert abs(found.drift_error - fisher - production) < 5 * found.drift_error_error + 1e-2 * fisher
    assert abs(found.relative_fisher - fisher) < 5 * found.relative_fisher_error + 1e-2 * fisher
    divergence = (np.trace(target @ law) - 2 - np.log(np.linalg.det(target @ law))) / 2  # KL(p ‖ π)
    assert divergence < found.kl_bound
    stiffness, thinnest = np.linalg.eigvalsh(target)[0], np.linalg.eigvalsh(diffusion)[0]
    reach = found.relative_fisher + 2 * found.relative_fisher_error
    assert found.kl_bound == pytest.approx(reach / (2 * stiffness * thinnest))
    uncertain = relative_fisher_decomposition(-x @ drift.T, -x @ target, diffusion, production, 3.0)
    assert uncertain.relative_fisher_error == pytest.approx(np.hypot(found.drift_error_error, 3.0))
    errors, values = [], []
    for part in np.split(x, 16, axis=1):
        of_part = relative_fisher_decomposition(-part @ drift.T, -part @ target, diffusion, production)
        errors.append(of_part.drift_error_error)
        values.append(of_part.drift_error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.6)
    assert production > 10 * found.relative_fisher_error
    # at the draws, D is the same matrix everywhere
    many = np.broadcast_to(diffusion, (64, 4000, 2, 2))
    again = relative_fisher_decomposition(-x @ drift.T, -x @ target, many, production, divergence=np.zeros_like(x))
    assert again.drift_error == pytest.approx(found.drift_error)
    assert np.isnan(again.kl_bound)


def test_divergence_of_the_diffusion_counts():
    # dx = (D' − D x) dt + √(2D) dW with D = 1 + x² is in equilibrium at the standard normal law: no drift error
    x = np.random.default_rng(11).standard_normal((8, 500, 1))
    D = 1 + x**2
    found = relative_fisher_decomposition(2 * x - D * x, -x, D[..., None], 0.0, divergence=2 * x)
    assert found.drift_error == pytest.approx(0, abs=1e-20)


def test_decomposition_refuses():
    x = np.ones((2, 3, 2))
    with pytest.raises(ValueError, match="score has shape"):
        relative_fisher_decomposition(x, x[:1], np.eye(2), 0.0)
    with pytest.raises(ValueError, match="want \\(2, 2\\)"):
        relative_fisher_decomposition(x, x, np.eye(3), 0.0)
    with pytest.raises(ValueError, match="give its divergence"):
        relative_fisher_decomposition(x, x, np.broadcast_to(np.eye(2), (2, 3, 2, 2)), 0.0)
    with pytest.raises(ValueError, match="positive definite"):
        relative_fisher_decomposition(x, x, np.diag([1.0, 0.0]), 0.0)
