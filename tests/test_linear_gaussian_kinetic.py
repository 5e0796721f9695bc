"""Exact stationary moments of kinetic chains: literal algorithms, expansions in the step size, published figures."""

import numpy as np
import pytest

from sgworld_numpyro.integrators import BAOAB, UBU
from sgworld_numpyro.linear_gaussian import (
    LinearGaussian,
    control_variate,
    linear_regression,
    relative_covariance_error,
    stationary_moments,
    steps,
)
from sgworld_numpyro.subsampling import (
    BatchReshuffle,
    FullBatch,
    IndependentBatches,
    RandomReshuffle,
    ShuffleOnce,
    SymmetricReshuffle,
    WithReplacement,
)
from tests.tables import KINETIC, OVERDAMPED, SCHEMES, by_name, every_scheme
from tests.test_linear_gaussian import (
    all_row_hessians,
    batch_fluctuations,
    brute_orders,
    small_problem,
    stable_step,
    well_specified,
)

# --- The free flow and the integrators' own bias ---


def lyapunov_variance(kind, step_size, friction, eigenvalue):
    """Variance of θ with full gradients, from the linear system of the 2 × 2 covariance."""
    step = steps.LAWS[kind].step(step_size, 1.0, friction)
    kicked = step.after @ (np.eye(2) + eigenvalue * np.outer(step.kick, [1, 0]))
    noise = kicked @ step.before_noise @ kicked.T + step.after_noise
    whole = kicked @ step.before
    return np.linalg.solve(np.eye(4) - np.kron(whole, whole), noise.ravel())[0]


@pytest.mark.parametrize("x", [1e-9, 1e-4, 0.09, 0.11, 1.0, 30.0])
def test_free_flow_composes_with_itself(x):
    """Two flows over t make one over 2t; at x = 0.05 and 0.1 they straddle the switch to the series."""
    friction, temperature = 2.0, 0.7
    flow, noise = steps.free_flow(x / friction, temperature, friction)
    twice, noise_twice = steps.free_flow(2 * x / friction, temperature, friction)
    np.testing.assert_allclose(flow @ flow, twice, rtol=1e-13)
    np.testing.assert_allclose(flow @ noise @ flow.T + noise, noise_twice, rtol=3e-12)
    if x < 1e-8:  # noise integrated twice: 2γT t³/3
        assert noise[0, 0] == pytest.approx(2 * friction * temperature * (x / friction) ** 3 / 3, rel=1e-8)


@pytest.mark.parametrize(("step_size", "friction"), [(0.05, 0.3), (0.6, 1.0), (0.5, 8.0), (1.2, 30.0)])
@pytest.mark.parametrize("kind", KINETIC, ids=by_name)
def test_own_variance_solves_the_lyapunov_equation(kind, step_size, friction):
    for eigenvalue in (0.4, 2.5):
        variance = steps.LAWS[kind].variance(step_size, friction, np.array([eigenvalue]))
        assert variance.item() == pytest.approx(lyapunov_variance(kind, step_size, friction, eigenvalue), rel=1e-12)


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
@pytest.mark.parametrize("friction_ratio", [0.5, 2.0, 5.0])
def test_with_full_gradients_baoab_is_exact_and_ubu_of_second_order(friction_ratio, equal):
    problem = small_problem(5, equal)
    rate = np.sqrt(np.linalg.eigvalsh(problem.hessian).max())
    step_size, friction = 0.01 / rate, friction_ratio * rate

    def excess(kind):
        covariance = stationary_moments(problem, FullBatch(), kind(friction), step_size, 5).covariance[0]
        return covariance - problem.covariance

    np.testing.assert_allclose(excess(BAOAB), 0, atol=1e-11 * problem.covariance.max())
    np.testing.assert_allclose(excess(UBU), -(step_size**2) / 6 * np.eye(2), rtol=1e-3, atol=1e-4 * step_size**2)


# --- The algorithms to the letter ---


def literal_steps(problem, orders, integrator, step_size, temperature):
    """Each step in the coordinates (1, θ, v, g_last), written as the algorithm is, and the noise it adds."""
    dim, scale, friction = 2, problem.num_rows / orders.shape[-1], integrator.friction
    hessians = problem.prior_precision + scale * all_row_hessians(problem)[orders].sum(-3)
    shifts = problem.prior_shift + scale * problem.row_shifts[orders].sum(-2)
    size = 1 + 3 * dim
    at = {name: slice(1 + dim * k, 1 + dim * (k + 1)) for k, name in enumerate(("theta", "v", "g"))}
    one = np.eye(dim)

    def move(state, target, constant=0.0, added=0.0, **weights):
        """Set `target` to a combination of the coordinates, a constant and noise."""
        maps, noise = state
        step = np.broadcast_to(np.eye(size), maps.shape).copy()
        step[..., at[target], :] = 0
        step[..., at[target], 0] = constant
        for source, weight in weights.items():
            step[..., at[target], at[source]] = weight
        return step @ maps, step @ noise @ step.mT + added

    def normal(matrix):
        """Noise whose square root is `matrix` on (θ, v)."""
        added = np.zeros((size, size))
        added[1 : 1 + 2 * dim, 1 : 1 + 2 * dim] = np.kron(matrix @ np.transpose(matrix), one)
        return added

    def free_flow(state):
        a = friction * step_size / 2
        s = np.sqrt(4 * np.expm1(-a) - np.expm1(-2 * a) + 2 * a)
        first = np.exp(-2 * a) * np.expm1(a) ** 2 / s
        second = np.sqrt((8 * np.expm1(-a) - 4 * np.expm1(-2 * a) - 2 * a * np.expm1(-2 * a)) / s**2)
        state = move(state, "theta", theta=one, v=-np.expm1(-a) / friction * one)
        square_root = np.sqrt(temperature) * np.array([[s / friction, 0], [first, second]])
        return move(state, "v", v=np.exp(-a) * one, added=normal(square_root))

    maps = np.broadcast_to(np.eye(size), (*orders.shape[:-1], size, size))
    state = maps, np.zeros_like(maps)
    half = step_size / 2
    if isinstance(integrator, BAOAB):
        state = move(state, "v", v=one, g=-half * one)
        state = move(state, "theta", theta=one, v=half * one)
        decay = np.exp(-friction * step_size)
        refreshed = np.diag([0, np.sqrt(temperature * (1 - decay**2))])
        state = move(state, "v", v=decay * one, added=normal(refreshed))
        state = move(state, "theta", theta=one, v=half * one)
        state = move(state, "g", theta=hessians, constant=-shifts)
        return move(state, "v", v=one, g=-half * one)
    state = free_flow(state)
    state = move(state, "g", theta=hessians, constant=-shifts)
    return free_flow(move(state, "v", v=one, g=-step_size * one))


def literal_moments(problem, orders, *arguments):
    """Iterate the second moment along every order until it repeats; average as the chains would."""
    maps, noise = literal_steps(problem, orders, *arguments)
    second = np.zeros((len(orders), 1, *maps.shape[-2:]))
    second[..., 0, 0] = 1
    for _ in range(2000):
        before, seconds = second, []
        for k in range(orders.shape[2]):
            seconds.append(second.mean((0, 1)))
            second = maps[:, :, k] @ second @ maps[:, :, k].mT + noise[:, :, k]
        second = second.mean(1, keepdims=True)
        if np.abs(second - before).max() < 1e-14 * np.abs(second).max():
            break
    seconds = np.stack(seconds)
    mean = seconds[:, 1:3, 0]
    return mean, seconds[:, 1:3, 1:3] - mean[:, :, None] * mean[:, None, :]


SIZES = [(4, 1), (4, 2), (3, 2)]
CASES = [(scheme, *size) for scheme in SCHEMES for size in SIZES if scheme != BatchReshuffle() or size != (3, 2)]


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
@pytest.mark.parametrize("kind", KINETIC, ids=by_name)
@pytest.mark.parametrize(("scheme", "num_rows", "batch_size"), CASES, ids=by_name)
def test_moments_equal_the_literal_algorithm(scheme, num_rows, batch_size, kind, equal):
    problem = small_problem(num_rows, equal)
    rate = np.sqrt(np.linalg.eigvalsh(problem.hessian).max())
    step_size, integrator, temperature = 0.4 / rate, kind(1.5 * rate), 0.7
    orders = brute_orders(scheme, num_rows, batch_size)
    mean, covariance = literal_moments(problem, orders, integrator, step_size, temperature)
    moments = stationary_moments(problem, scheme, integrator, step_size, batch_size, temperature=temperature)
    np.testing.assert_allclose(moments.mean, mean, rtol=0, atol=1e-11)
    np.testing.assert_allclose(moments.covariance, covariance, rtol=0, atol=1e-11)


# --- Equal Hessians: order and coefficient of the bias ---

# scheme, where recorded: order p in Rh√λ and coefficient, a function of the friction γ/√λ
BOTH = ("period_end", "averaged")
LEADING = [
    *[(IndependentBatches(), where, 1, lambda friction: 990 / 999 / (2 * friction)) for where in BOTH],
    *[(RandomReshuffle(), where, 3, lambda friction: 1 / (24 * friction)) for where in BOTH],
    *[(ShuffleOnce(), where, 4, lambda friction: 1 / 720) for where in BOTH],
    (SymmetricReshuffle(), "averaged", 4, lambda friction: 1 / 30),
    (SymmetricReshuffle(), "period_end", 5, lambda friction: (1 + friction**2) / (45 * friction)),
]


@pytest.mark.parametrize("friction", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("kind", KINETIC, ids=by_name)
@pytest.mark.parametrize(("scheme", "where", "power", "coefficient"), LEADING, ids=by_name)
def test_order_and_coefficient_of_the_bias(scheme, where, power, coefficient, kind, friction):
    problem = well_specified(1000)
    rate = np.sqrt(1000)
    pass_times = np.geomspace(0.015, 0.05, 4)  # Rh√λ: small enough for one term, large enough for 16 digits
    biases = []
    for step_size in pass_times / 100 / rate:
        moments = stationary_moments(problem, scheme, kind(friction * rate), step_size, 10)
        own = steps.LAWS[kind].variance(step_size, friction * rate, np.array([1000.0]))
        biases.append((getattr(moments, where)[1] - own).item() * 1000)
    slope, _ = np.polyfit(np.log(pass_times), np.log(biases), 1)
    assert slope == pytest.approx(power, abs=0.1)
    assert biases[0] / pass_times[0] ** power == pytest.approx(coefficient(friction), rel=0.05)


def test_at_the_usual_friction_the_rounded_coefficients_hold():
    """γ = 2√λ and y = Rh√λ = 0.05: y/4, y³/48, y⁴/31 and y⁵/18."""
    problem = well_specified(1000)
    rate, y = np.sqrt(1000), 0.05
    for scheme, where, expected in [
        (WithReplacement(), "averaged", y / 4),
        (RandomReshuffle(), "period_end", y**3 / 48),
        (SymmetricReshuffle(), "averaged", y**4 / 31),
        (SymmetricReshuffle(), "period_end", y**5 / 18),
    ]:
        moments = stationary_moments(problem, scheme, BAOAB(2 * rate), y / 100 / rate, 10)
        assert getattr(moments, where)[1].item() * 1000 - 1 == pytest.approx(expected, rel=0.05)


# --- Unequal Hessians ---


@pytest.mark.parametrize("where", BOTH)
@pytest.mark.parametrize("kind", KINETIC, ids=by_name)
@pytest.mark.parametrize("scheme", [RandomReshuffle(), SymmetricReshuffle()], ids=by_name)
@pytest.mark.parametrize(("num_rows", "batch_size", "friction"), [(4, 1, 1.0), (6, 2, 4.0)])
def test_reshuffled_to_second_order(num_rows, batch_size, friction, scheme, kind, where):
    problem = small_problem(num_rows, equal=False)
    rate = np.sqrt(np.linalg.eigvalsh(problem.hessian).max())
    delta_h, delta_g = batch_fluctuations(problem, batch_size)
    inverse, batches = problem.covariance, num_rows // batch_size
    landscape = (batches + 1) / 6
    shift = -landscape * inverse @ (delta_h @ delta_g[..., None])[..., 0].mean(0)
    narrowing = -landscape * inverse @ (delta_h @ delta_h).mean(0) @ inverse
    if kind is UBU:
        narrowing = narrowing - np.eye(2) / 6

    found = []
    for step_size in 0.04 / batches / rate / np.array([1, 2, 4]):
        moments = stationary_moments(problem, scheme, kind(friction * rate), step_size, batch_size)
        mean, covariance = getattr(moments, where)
        found.append(np.stack([mean - problem.mean, *(covariance - problem.covariance)]) / step_size**2)
    coarse, middle, fine = found
    limit = (8 * fine - 6 * middle + coarse) / 3
    np.testing.assert_allclose(limit[0], shift, rtol=2e-3)
    np.testing.assert_allclose(limit[1:], narrowing, rtol=2e-3)


@pytest.mark.parametrize("where", BOTH)
@pytest.mark.parametrize("kind", KINETIC, ids=by_name)
def test_reshuffled_regression_is_of_second_order(kind, where):
    """Sampled orders of R = 20 batches; overdamped chains are of first order here."""
    rng = np.random.default_rng(5)
    x = np.stack([np.ones(40), rng.standard_normal(40)], axis=1)
    problem = linear_regression(x, x[:, 1] ** 2 + rng.standard_normal(40), 1.0, 1.0)
    rate = np.sqrt(np.linalg.eigvalsh(problem.hessian).max())
    # so small because misspecified rows have a large gradient noise, whose third-order heating soon takes over
    step_sizes = np.geomspace(0.004, 0.016, 3) / 20 / rate
    shifts, errors = [], []
    for step_size in step_sizes:
        moments = stationary_moments(problem, RandomReshuffle(), kind(2 * rate), step_size, 2, num_orders=200)
        mean, covariance = getattr(moments, where)
        shifts.append(np.sqrt((mean - problem.mean) @ problem.hessian @ (mean - problem.mean)))
        errors.append(relative_covariance_error(covariance, problem.covariance))
    for biases in (shifts, errors):
        assert np.polyfit(np.log(step_sizes), np.log(biases), 1)[0] == pytest.approx(2, abs=0.1)


# --- The published test in one dimension ---

# Wasserstein-1 distance at h = 0.125, 0.0625, 0.03125, per minibatch step and over all steps; arXiv 2410.19780
PUBLISHED = {SymmetricReshuffle(): [0.0071, 0.0021, 0.0005], RandomReshuffle(): [0.0060, 0.0017, 0.0005]}


@pytest.mark.parametrize("scheme", PUBLISHED, ids=by_name)
def test_published_distances(scheme):
    """Of the chain's two moments: its law is normal but for what is smaller than the last digit."""
    centres, scales = np.array([-1.0, 1.0]), np.array([0.5, 2.0])
    precisions = scales**-2.0
    problem = LinearGaussian(np.zeros((1, 1)), np.zeros(1), precisions[:, None, None], (centres * precisions)[:, None])
    normal = np.sort(np.random.default_rng(0).standard_normal(100_000))
    for step_size, published in zip((0.125, 0.0625, 0.03125), PUBLISHED[scheme], strict=True):
        mean, covariance = stationary_moments(problem, scheme, UBU(1.0), step_size, 1).averaged
        stretch = np.sqrt(covariance.item()) - np.sqrt(problem.covariance.item())
        distance = np.abs(mean - problem.mean + stretch * normal).mean()
        assert distance == pytest.approx(published, abs=1e-4)


# --- Control variates ---


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
def test_control_variate_is_its_definition(equal):
    problem = small_problem(5, equal)
    rng = np.random.default_rng(1)
    anchor, theta = rng.standard_normal((2, 2))

    def gradient(problem, batch, point):
        hessians = all_row_hessians(problem)[batch]
        prior = problem.prior_precision @ point - problem.prior_shift
        return prior + 5 / len(batch) * (hessians @ point - problem.row_shifts[batch]).sum(0)

    everything = np.arange(5)
    anchored = control_variate(problem, anchor)
    for batch in ([0], [3], [1, 4]):
        expected = gradient(problem, batch, theta) - gradient(problem, batch, anchor)
        expected = expected + gradient(problem, everything, anchor)
        np.testing.assert_allclose(gradient(anchored, batch, theta), expected, rtol=1e-12)
    np.testing.assert_allclose(anchored.mean, problem.mean)
    np.testing.assert_array_equal(anchored.hessian, problem.hessian)


@pytest.mark.parametrize("integrator", [*OVERDAMPED, BAOAB(3.0), UBU(3.0)], ids=by_name)
def test_control_variate_removes_the_noise_of_equal_hessians(integrator):
    problem = small_problem(5, equal=True)
    arguments = {"step_size": stable_step(problem, 0.3), "batch_size": 2}
    full = stationary_moments(problem, FullBatch(), integrator, **arguments)
    anchored = control_variate(problem, np.array([3.0, -1.0]))
    moments = stationary_moments(anchored, WithReplacement(), integrator, **arguments)
    np.testing.assert_allclose(moments.covariance, full.covariance, rtol=1e-13)
    noisy = stationary_moments(problem, WithReplacement(), integrator, **arguments)
    assert relative_covariance_error(noisy.covariance[0], full.covariance[0]) > 1e-3


def test_anchored_at_the_mode_the_mean_does_not_move():
    problem = control_variate(small_problem(6, equal=False))
    moments = stationary_moments(problem, RandomReshuffle(), BAOAB(3.0), 0.02, 2)
    np.testing.assert_allclose(moments.mean, np.broadcast_to(problem.mean, moments.mean.shape), rtol=1e-12)
    assert np.abs(moments.covariance - problem.covariance).max() > 1e-6


def test_an_anchor_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"anchor has shape \(3,\).*\(2,\)"):
        control_variate(small_problem(4, equal=True), np.zeros(3))


# --- Errors ---


@pytest.mark.parametrize("kind", KINETIC, ids=by_name)
def test_kinetic_integrators_need_friction(kind):
    problem = small_problem(4, equal=True)
    critical = 2 * np.sqrt(np.linalg.eigvalsh(problem.hessian).min())
    name, mend = kind.__name__, rf"pass {kind.__name__}\(friction={critical:.6g}\)"
    with pytest.raises(ValueError, match=rf"integrator={name}\(friction=None, .*no friction yet.*{mend}"):
        stationary_moments(problem, FullBatch(), kind(), 0.01, 1)


@pytest.mark.parametrize("kind", KINETIC, ids=by_name)
@pytest.mark.parametrize("friction", [0.0, -1.0, np.nan, np.inf])
def test_kinetic_integrators_refuse_a_friction_that_damps_nothing(kind, friction):
    with pytest.raises(ValueError, match=rf"{kind.__name__} got friction={friction}, wants a positive number"):
        stationary_moments(small_problem(4, equal=True), FullBatch(), kind(friction), 0.01, 1)


@pytest.mark.parametrize("integrator", OVERDAMPED, ids=by_name)
def test_overdamped_integrators_refuse_friction(integrator):
    with pytest.raises(TypeError, match="friction"):
        stationary_moments(small_problem(4, equal=True), FullBatch(), type(integrator)(friction=1.0), 0.01, 1)


@every_scheme
@pytest.mark.parametrize("kind", KINETIC, ids=by_name)
def test_unstable_step_size_names_the_largest_stable_one(kind, scheme):
    problem = small_problem(4, equal=True)
    limit = 2 / np.sqrt(np.linalg.eigvalsh(problem.hessian).max())
    with pytest.raises(ValueError, match=rf"step_size=.*2/√λ_max\(hessian\) = {limit:.6g}"):
        stationary_moments(problem, scheme, kind(1.0), 1.2 * limit, 2)
    moments = stationary_moments(problem, scheme, kind(1.0), 0.95 * limit, 2)
    assert (np.linalg.eigvalsh(moments.covariance) > 0).all()


def test_unequal_hessians_heat_a_chain_of_little_friction():
    problem = linear_regression(np.array([[3.0], [0.1], [0.1], [0.1]]), np.ones(4), 1.0, 1.0)
    rows = 1 + 4 * np.array([9.0, 0.01, 0.01, 0.01])
    friction = 0.5
    limit = 2 * friction * rows.mean() / rows.var()
    with pytest.raises(ValueError, match=rf"2γ/λ_max\(H⁻¹ E\[δH_b²\]\) = {limit:.6g}"):
        stationary_moments(problem, WithReplacement(), BAOAB(friction), 1.1 * limit, 1)
    stationary_moments(problem, WithReplacement(), BAOAB(friction), 0.9 * limit, 1)
