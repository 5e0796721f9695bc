"""Exact stationary moments against published numbers, enumeration, expansion in the step size, simulation."""

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import pytest

from sgworld_numpyro.integrators import BAOAB, EulerMaruyama, is_kinetic, named
from sgworld_numpyro.linear_gaussian import (
    LinearGaussian,
    StationaryMoments,
    gaussian_kl,
    gaussian_mean,
    knows_integrator,
    knows_scheme,
    linear_regression,
    orders,
    relative_covariance_error,
    stationary_moments,
    steps,
)
from sgworld_numpyro.subsampling import (
    BatchReshuffle,
    Cyclic,
    FullBatch,
    IndependentBatches,
    Plate,
    RandomReshuffle,
    RunReshuffle,
    ShuffleOnce,
    SymmetricReshuffle,
    WithReplacement,
)
from tests.tables import INTEGRATORS, OVERDAMPED, SCHEMES, by_name, every_scheme

EM, LM = OVERDAMPED
SIGMAS = 5


def well_specified(num_rows: int) -> LinearGaussian:
    """Rows whose variance is that of the noise, so that V = Rλ."""
    rows = np.linspace(-1, 1, num_rows)[:, None]
    return gaussian_mean(rows / rows.std(), np.eye(1))


def bias_and_kl(num_rows, batch_size, scheme, integrator, epsilon, where):
    """Relative error of the variance and KL at h = epsilon/λ."""
    problem = well_specified(num_rows)
    moments = stationary_moments(problem, scheme, integrator, epsilon / num_rows, batch_size)
    mean, covariance = getattr(moments, where)
    kl = gaussian_kl(mean, covariance, problem.mean, problem.covariance)
    return (covariance / problem.covariance - 1).item(), kl


def small_problem(num_rows: int, equal: bool, seed: int = 0) -> LinearGaussian:
    """Two dimensions; prior and rows, or rows among themselves, do not commute."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((num_rows, 2, 2))
    hessians = factors @ factors.mT / 2 + 0.1 * np.eye(2)
    prior = np.array([[2.0, 0.7], [0.7, 1.0]])
    shifts = rng.standard_normal((num_rows, 2))
    return LinearGaussian(prior, np.array([0.3, -1.0]), hessians[0] if equal else hessians, shifts)


def all_row_hessians(problem):
    return np.broadcast_to(problem.row_hessians, (problem.num_rows, *problem.hessian.shape))


def stable_step(problem, fraction):
    """A fraction of 1/λ of the steepest row standing for all."""
    steepest = problem.prior_precision + problem.num_rows * all_row_hessians(problem)
    return fraction / np.linalg.eigvalsh(steepest).max()


# --- Published numbers ---

# N = 1000, B = 10: (relative variance bias, KL) at ε = 1e-4, 1e-3, 1e-2; None where none was published.
TABLE = {
    (WithReplacement(), EM, "averaged"): [("5.0e-3", "6.3e-6"), ("5.0e-2", "6.2e-4"), ("5.1e-1", "4.8e-2")],
    (RandomReshuffle(), EM, "averaged"): [("6.7e-5", "1.1e-9"), ("2.1e-3", "1.1e-6"), ("1.38e-1", "4.4e-3")],
    (RandomReshuffle(), LM, "period_end"): [("4.2e-8", None), ("4.2e-5", "4.3e-10"), ("3.8e-2", "3.6e-4")],
    (SymmetricReshuffle(), LM, "period_end"): [("2.2e-12", None), ("2.2e-7", None), ("1.4e-2", "5e-5")],
}


def assert_agrees(value, published):
    """Within one unit of the last published digit."""
    if published is not None:
        digits, _, power = published.partition("e")
        unit = 10.0 ** (int(power) - len(digits.partition(".")[2]))
        assert abs(value - float(published)) < unit


@pytest.mark.parametrize("chain", TABLE, ids=lambda chain: "-".join(getattr(part, "name", part) for part in chain))
@pytest.mark.parametrize("column", range(3))
def test_reference_table(chain, column):
    scheme, integrator, where = chain
    bias, kl = bias_and_kl(1000, 10, scheme, integrator, (1e-4, 1e-3, 1e-2)[column], where)
    published_bias, published_kl = TABLE[chain][column]
    assert_agrees(bias, published_bias)
    assert_agrees(kl, published_kl)


@pytest.mark.parametrize(("epsilon", "published"), [(1e-5, "4.2e-11"), (1e-3, "4.2e-5")])
def test_straddling_stream_keeps_the_cancellation(epsilon, published):
    bias, _ = bias_and_kl(1005, 10, RandomReshuffle(), LM, epsilon, "period_end")
    assert_agrees(bias, published)


def test_smallest_bias_is_not_lost_to_rounding():
    # The closed sum in 60 decimal digits; a variance near 1 holds 2e-16.
    bias, _ = bias_and_kl(1000, 10, SymmetricReshuffle(), LM, 1e-4, "period_end")
    assert bias == pytest.approx(2.2246082120302688e-12, abs=2e-15)


# --- Orders of the bias in the step size ---

# scheme, integrator, where recorded: order p and coefficient c of the bias c (Rε)^p, R = 100
LEADING = [
    (WithReplacement(), LM, "averaged", 1, 1 / 2),
    (IndependentBatches(), LM, "averaged", 1, 1 / 2 * 990 / 999),
    (RandomReshuffle(), LM, "averaged", 2, 1 / 6),
    (RandomReshuffle(), LM, "period_end", 3, 1 / 24),
    (BatchReshuffle(), LM, "period_end", 3, 1 / 24),
    (SymmetricReshuffle(), LM, "averaged", 2, 1 / 6),
    (SymmetricReshuffle(), LM, "period_end", 5, 1 / 45),
    (ShuffleOnce(), LM, "averaged", 2, 1 / 12),
    (FullBatch(), EM, "averaged", 1, 1 / 2 / 100),
]


@pytest.mark.parametrize(("scheme", "integrator", "where", "power", "coefficient"), LEADING, ids=by_name)
def test_order_and_coefficient_of_the_bias(scheme, integrator, where, power, coefficient):
    pass_times = np.geomspace(0.02, 0.06, 5)  # Rε: small enough for one term, large enough for 16 digits
    biases = [bias_and_kl(1000, 10, scheme, integrator, time / 100, where)[0] for time in pass_times]
    slope, _ = np.polyfit(np.log(pass_times), np.log(biases), 1)
    assert slope == pytest.approx(power, abs=0.02)
    assert biases[0] / pass_times[0] ** power == pytest.approx(coefficient, rel=0.02)


def test_euler_maruyama_is_first_order_under_reshuffling():
    epsilons = np.geomspace(1e-6, 1e-5, 4)
    biases = [bias_and_kl(1000, 10, RandomReshuffle(), EM, e, "period_end")[0] for e in epsilons]
    np.testing.assert_allclose(biases, epsilons / 2, rtol=1e-3)


def test_leimkuhler_matthews_is_exact_with_full_gradients():
    for equal in (True, False):
        problem = small_problem(5, equal)
        _, covariance = stationary_moments(problem, FullBatch(), LM, stable_step(problem, 0.5), 5).period_end
        np.testing.assert_allclose(covariance, problem.covariance, rtol=1e-12)


# --- Enumeration by hand ---


def brute_orders(scheme, num_rows, batch_size):
    """Every order (chains, visits, steps, batch), with repeats, from the definition of the scheme."""
    epochs = batch_size // np.gcd(num_rows, batch_size)
    rows = np.arange(num_rows)
    shuffles = np.array(list(permutations(rows)))
    if scheme == WithReplacement():
        return np.array(list(product(rows, repeat=batch_size)))[None, :, None]
    if scheme == IndependentBatches():
        return np.array(list(permutations(rows, batch_size)))[None, :, None]
    if scheme == FullBatch():
        return rows[None, None, None]
    if scheme == Cyclic():
        return np.tile(rows, epochs).reshape(1, 1, -1, batch_size)
    if scheme == ShuffleOnce():
        return np.tile(shuffles, (1, epochs)).reshape(len(shuffles), 1, -1, batch_size)
    if scheme == BatchReshuffle():
        partitions = shuffles.reshape(len(shuffles), -1, batch_size)
        return partitions[:, list(permutations(range(num_rows // batch_size)))]
    if isinstance(scheme, RunReshuffle):
        length = scheme.rows_a_run(Plate("rows", num_rows, batch_size))
        runs = (shuffles if length > 1 else shuffles[:1]).reshape(-1, num_rows // length, length)
        of_runs = brute_orders(RandomReshuffle(), num_rows // length, batch_size // length)[0]
        return runs[:, of_runs].reshape(len(runs), *of_runs.shape[:2], batch_size)
    streams = np.array([np.concatenate(stream) for stream in product(shuffles, repeat=epochs)])
    orders = streams.reshape(1, len(streams), -1, batch_size)
    if scheme == SymmetricReshuffle():
        orders = np.concatenate([orders, orders[:, :, ::-1]], axis=2)
    return orders


def brute_moments(problem, orders, integrator, step_size, temperature):
    """Iterate mean and second moment along every order until they repeat; average as the chains would."""
    scale = problem.num_rows / orders.shape[-1]
    hessians = problem.prior_precision + scale * all_row_hessians(problem)[orders].sum(-3)
    shifts = step_size * (problem.prior_shift + scale * problem.row_shifts[orders].sum(-2))
    steps = np.eye(2) - step_size * hessians
    noise = np.broadcast_to(2 * step_size * temperature * np.eye(2), steps.shape)
    if integrator == LM:
        noise = step_size * temperature * (np.eye(2) + (steps + steps.mT) / 2)
    mean, second = np.zeros((len(orders), 1, 2)), np.zeros((len(orders), 1, 2, 2))
    for _ in range(200):
        before, means, seconds = second, [], []
        for k in range(orders.shape[2]):
            means.append(mean.mean(1))
            seconds.append(second.mean(1))
            matrix, shift = steps[:, :, k], shifts[:, :, k]
            moved = (matrix @ mean[..., None])[..., 0]
            cross = moved[..., :, None] * shift[..., None, :]
            second = matrix @ second @ matrix.mT + cross + cross.mT
            second = second + shift[..., :, None] * shift[..., None, :] + noise[:, :, k]
            mean = moved + shift
        mean, second = mean.mean(1, keepdims=True), second.mean(1, keepdims=True)
        if np.abs(second - before).max() < 1e-13:
            break
    means, seconds = np.stack(means).mean(1), np.stack(seconds).mean(1)
    return means, seconds - means[:, :, None] * means[:, None, :]


SIZES = [(4, 1), (4, 2), (4, 4), (5, 2), (6, 2)]
CASES = [
    (scheme, *size) for scheme in SCHEMES for size in SIZES if scheme != BatchReshuffle() or size[0] % size[1] == 0
]
CASES += [(RunReshuffle(2), 4, 4), (RunReshuffle(2), 6, 4)]  # of several runs a batch, and across the seam


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
@pytest.mark.parametrize("integrator", OVERDAMPED, ids=by_name)
@pytest.mark.parametrize(("scheme", "num_rows", "batch_size"), CASES, ids=by_name)
def test_moments_equal_enumeration(scheme, num_rows, batch_size, integrator, equal):
    problem = small_problem(num_rows, equal)
    step_size, temperature = stable_step(problem, 0.8), 0.7
    orders = brute_orders(scheme, num_rows, batch_size)
    mean, covariance = brute_moments(problem, orders, integrator, step_size, temperature)
    moments = stationary_moments(problem, scheme, integrator, step_size, batch_size, temperature=temperature)
    np.testing.assert_allclose(moments.mean, mean, rtol=0, atol=1e-11)
    np.testing.assert_allclose(moments.covariance, covariance, rtol=0, atol=1e-11)
    assert not moments.mean_error.any()
    assert not moments.covariance_error.any()


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
@pytest.mark.parametrize("scheme", [ShuffleOnce(), Cyclic(), BatchReshuffle(), RunReshuffle(2)], ids=by_name)
def test_given_order(scheme, equal):
    num_rows, batch_size = {BatchReshuffle(): (6, 2), RunReshuffle(2): (6, 4)}.get(scheme, (5, 2))
    problem = small_problem(num_rows, equal)
    order = np.random.default_rng(3).permutation(num_rows)
    if scheme == BatchReshuffle():
        order = order.reshape(3, 2)
        orders = order[list(permutations(range(3)))][None]
    elif scheme == RunReshuffle(2):
        order = order.reshape(3, 2)
        orders = order[brute_orders(RandomReshuffle(), 3, 2)].reshape(1, -1, 3, 4)
    else:
        order = np.tile(order, 2).reshape(5, 2)
        orders = order[None, None]
    step_size = stable_step(problem, 0.8)
    mean, covariance = brute_moments(problem, orders, EM, step_size, 1.0)
    moments = stationary_moments(problem, scheme, EM, step_size, batch_size, order=order)
    np.testing.assert_allclose(moments.mean, mean, rtol=0, atol=1e-11)
    np.testing.assert_allclose(moments.covariance, covariance, rtol=0, atol=1e-11)


def test_mean_moves_within_the_period_of_a_given_order():
    problem = small_problem(4, equal=True)
    moments = stationary_moments(problem, Cyclic(), LM, stable_step(problem, 0.5), 1)
    spread = np.cov(moments.mean.T, bias=True)
    assert np.trace(spread) > 0
    mean, covariance = moments.averaged
    np.testing.assert_allclose(mean, problem.mean, rtol=1e-12)  # additive kicks: no drift over a period
    np.testing.assert_allclose(covariance, problem.covariance + spread, rtol=1e-12)


# --- Unequal Hessians: expansion in the step size ---


def batch_fluctuations(problem, batch_size):
    """δH_b and δg_b at the mode over all batches without duplicates."""
    batches = np.array(list(permutations(range(problem.num_rows), batch_size)))
    gradients = all_row_hessians(problem) @ problem.mean - problem.row_shifts
    hessians = problem.num_rows * all_row_hessians(problem)[batches].mean(1)
    gradients = problem.num_rows * gradients[batches].mean(1)
    return hessians - hessians.mean(0), gradients - gradients.mean(0)


def first_order(problem, scheme, integrator, batch_size):
    """d/dh of mean and covariance of the period end at h = 0, by Richardson extrapolation."""
    slopes = []
    for step_size in stable_step(problem, 2e-3) / np.array([1, 2, 4]):
        moments = stationary_moments(problem, scheme, integrator, step_size, batch_size)
        mean, covariance = moments.period_end
        slopes.append(np.stack([mean - problem.mean, *(covariance - problem.covariance)]) / step_size)
    coarse, middle, fine = slopes
    slope = (8 * fine - 6 * middle + coarse) / 3
    return slope[0], slope[1:]


def lyapunov(hessian, source):
    """X of HX + XH = source."""
    values, vectors = np.linalg.eigh(hessian)
    return vectors @ (vectors.T @ source @ vectors / (values[:, None] + values)) @ vectors.T


@pytest.mark.parametrize("integrator", OVERDAMPED, ids=by_name)
def test_with_replacement_to_first_order(integrator):
    problem = small_problem(6, equal=False)
    rows_dh, rows_dg = batch_fluctuations(problem, 1)
    diffusion = (rows_dg[:, :, None] * rows_dg[:, None] + rows_dh @ problem.covariance @ rows_dh).mean(0) / 2
    mean, covariance = first_order(problem, WithReplacement(), integrator, 2)
    expected = lyapunov(problem.hessian, diffusion) + (np.eye(2) / 2 if integrator == EM else 0)
    np.testing.assert_allclose(mean, 0, atol=1e-8)
    np.testing.assert_allclose(covariance, expected, rtol=1e-5)


@pytest.mark.parametrize("integrator", OVERDAMPED, ids=by_name)
@pytest.mark.parametrize("scheme", [RandomReshuffle(), SymmetricReshuffle()], ids=by_name)
def test_reshuffled_to_first_order(scheme, integrator):
    problem = small_problem(6, equal=False)
    delta_h, delta_g = batch_fluctuations(problem, 2)
    mean, covariance = first_order(problem, scheme, integrator, 2)
    inverse = problem.covariance
    shift = -inverse @ (delta_h @ delta_g[..., None])[..., 0].mean(0) / 2
    expected = -inverse @ (delta_h @ delta_h).mean(0) @ inverse / 2 + (np.eye(2) / 2 if integrator == EM else 0)
    np.testing.assert_allclose(mean, shift, rtol=1e-5)
    np.testing.assert_allclose(covariance, expected, rtol=1e-5)


# --- Unequal Hessians: sampled orders ---


def assert_within(difference, error):
    """Within five standard errors; the offset is for what antithetic orders make exact but for rounding."""
    assert (np.abs(difference) <= SIGMAS * error + 1e-12).all()


SAMPLED = [
    (RandomReshuffle(), 6, None),
    (RandomReshuffle(), 5, None),
    (SymmetricReshuffle(), 6, None),
    (ShuffleOnce(), 5, None),
    (BatchReshuffle(), 6, None),
    (BatchReshuffle(), 6, [[3, 1], [0, 5], [2, 4]]),
    (RunReshuffle(), 6, None),
    (RunReshuffle(), 5, None),
    (RunReshuffle(), 6, [[3, 1], [0, 5], [2, 4]]),
]


@pytest.mark.parametrize(("scheme", "num_rows", "order"), SAMPLED, ids=by_name)
def test_sampled_orders_agree_with_enumeration(scheme, num_rows, order, monkeypatch):
    problem = small_problem(num_rows, equal=False)
    step_size = stable_step(problem, 0.5)
    order = None if order is None else np.array(order)
    exact = stationary_moments(problem, scheme, LM, step_size, 2, order=order)
    monkeypatch.setattr(orders, "MAX_ENUMERATED", 0)
    sampled = stationary_moments(problem, scheme, LM, step_size, 2, order=order)
    assert sampled.covariance_error.max() > 0
    assert_within(sampled.mean - exact.mean, sampled.mean_error)
    assert_within(sampled.covariance - exact.covariance, sampled.covariance_error)


@pytest.mark.parametrize(
    "scheme", [RandomReshuffle(), SymmetricReshuffle(), ShuffleOnce(), BatchReshuffle()], ids=by_name
)
def test_standard_errors_are_calibrated(scheme, monkeypatch):
    problem = small_problem(6, equal=False)
    step_size = stable_step(problem, 0.5)
    exact = stationary_moments(problem, scheme, LM, step_size, 2)
    monkeypatch.setattr(orders, "MAX_ENUMERATED", 0)
    scores = []
    for seed in range(40):
        sampled = stationary_moments(problem, scheme, LM, step_size, 2, num_orders=400, seed=seed)
        scores.append((sampled.covariance[0] - exact.covariance[0]).diagonal() / sampled.covariance_error[0].diagonal())
    # Student's t with 19 degrees of freedom has mean square 19/17; that of 40 such is known to about 26 %.
    mean_square = np.mean(np.square(scores), axis=0)
    assert (np.abs(mean_square - 19 / 17) < SIGMAS * 0.26 * 19 / 17).all()
    assert mean_square.min() > 0.2


@pytest.mark.parametrize(
    ("scheme", "num_rows", "shape", "quenched"),
    [
        (RandomReshuffle(), 12, (20, 1, 100, 3, 4), False),
        (RandomReshuffle(), 10, (20, 1, 100, 5, 4), False),
        (SymmetricReshuffle(), 10, (20, 1, 100, 10, 4), False),
        (ShuffleOnce(), 10, (20, 100, 1, 5, 4), True),
        (BatchReshuffle(), 12, (20, 10, 10, 3, 4), True),
        (RunReshuffle(2), 12, (20, 10, 10, 3, 4), True),
        (RunReshuffle(), 10, (20, 10, 10, 5, 4), True),
    ],
)
def test_sampled_orders_obey_their_scheme(scheme, num_rows, shape, quenched, monkeypatch):
    monkeypatch.setattr(orders, "MAX_ENUMERATED", 0)
    sample = orders.possible_orders(scheme, num_rows, 4, None, num_orders=2000, seed=0)
    assert sample.rows.shape == shape
    assert sample.quenched == quenched
    first = sample.rows[:, 0, 0]
    if scheme == SymmetricReshuffle():
        first = first[:, :5]
    assert (np.sort(first.reshape(-1, num_rows)) == np.arange(num_rows)).all()  # every epoch is a permutation
    periods = np.sort(sample.rows.reshape(-1, shape[3] * shape[4]))
    assert (periods == periods[0]).all()  # and each row as frequent as any other, the reversed orders included
    if scheme == SymmetricReshuffle():
        assert (sample.rows == sample.rows[..., ::-1, :]).all()
    if isinstance(scheme, RunReshuffle):  # or the same runs
        met = [{frozenset(run) for run in chain.tolist()} for chain in sample.rows.reshape(200, -1, 2)]
        assert all(len(runs) == num_rows // 2 for runs in met)
        assert len({frozenset(runs) for runs in met}) > 1
    if scheme == BatchReshuffle():  # a chain always meets the same batches
        met = [
            {frozenset(batch) for batch in chain.reshape(-1, 4).tolist()} for chain in sample.rows.reshape(-1, 30, 4)
        ]
        assert all(len(batches) == 3 for batches in met)
        assert len({frozenset(batches) for batches in met}) > 1


def test_sample_depends_on_the_seed_alone():
    problem = small_problem(20, equal=False)
    first, again, other = (
        stationary_moments(problem, RandomReshuffle(), LM, 1e-3, 3, num_orders=40, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.covariance, again.covariance)
    assert (first.covariance != other.covariance).any()


# --- Simulation ---


@pytest.mark.parametrize(
    ("scheme", "integrator", "num_rows"),
    [(RandomReshuffle(), EM, 5), (SymmetricReshuffle(), LM, 6), (IndependentBatches(), LM, 6)],
)
def test_moments_agree_with_simulation(scheme, integrator, num_rows):
    rng = np.random.default_rng(11)
    num_chains, batch_size, temperature = 40_000, 2, 1.5
    x = rng.standard_normal((num_rows, 2))
    y = x @ [1.0, -0.5] + 2 * rng.standard_normal(num_rows)
    problem = linear_regression(x, y, 1.0, 1.0)
    step_size = stable_step(problem, 1.0)
    exact = stationary_moments(problem, scheme, integrator, step_size, batch_size, temperature=temperature)

    orders = brute_orders(scheme, num_rows, batch_size)[0]
    theta = rng.multivariate_normal(problem.mean, problem.covariance, num_chains)
    old_noise = rng.standard_normal(theta.shape)
    steps = orders.shape[1]
    burn_in = int(np.ceil(12 / (step_size * np.linalg.eigvalsh(problem.hessian).min() * steps)))
    stop = steps // 2  # inside a period, where the phase matters
    for period in range(burn_in + 1):
        order = orders[rng.integers(len(orders), size=num_chains)]
        for k in range(steps if period < burn_in else stop):
            rows = order[:, k]
            residual = np.einsum("cbd,cd->cb", x[rows], theta) - y[rows]
            gradient = theta + num_rows / batch_size * np.einsum("cb,cbd->cd", residual, x[rows])
            noise = rng.standard_normal(theta.shape)
            kick = 2 * noise if integrator == EM else old_noise + noise
            theta = theta - step_size * gradient + np.sqrt(step_size * temperature / 2) * kick
            old_noise = noise

    variances = exact.covariance[stop].diagonal()
    assert_within(theta.mean(0) - exact.mean[stop], np.sqrt(variances / num_chains))
    # Variance of a sample covariance of nearly normal draws.
    spread = np.sqrt((np.multiply.outer(variances, variances) + exact.covariance[stop] ** 2) / num_chains)
    assert_within(np.cov(theta.T) - exact.covariance[stop], spread)
    if scheme != IndependentBatches():
        assert (np.abs(exact.covariance[0] - exact.covariance[stop]) > spread).any()


# --- Problems and distances ---


def test_gaussian_mean_is_the_conjugate_posterior():
    rng = np.random.default_rng(2)
    data, noise, prior = rng.standard_normal((7, 2)), np.diag([1.0, 4.0]), np.array([[2.0, 0.5], [0.5, 1.0]])
    problem = gaussian_mean(data, noise, np.array([1.0, -1.0]), prior)
    precision = np.linalg.inv(prior) + 7 * np.linalg.inv(noise)
    weighted = np.linalg.inv(prior) @ [1.0, -1.0] + 7 * np.linalg.inv(noise) @ data.mean(0)
    np.testing.assert_allclose(problem.hessian, precision)
    np.testing.assert_allclose(problem.mean, np.linalg.solve(precision, weighted))
    np.testing.assert_allclose(problem.covariance, np.linalg.inv(precision))
    assert problem.num_rows == 7
    assert problem.equal_hessians


def test_linear_regression_is_ridge_regression():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((9, 3)), rng.standard_normal(9)
    problem = linear_regression(x, y, 0.5, 2.0)
    np.testing.assert_allclose(problem.mean, np.linalg.solve(x.T @ x + np.eye(3) / 16, x.T @ y))
    np.testing.assert_allclose(problem.covariance, np.linalg.inv(x.T @ x / 0.25 + np.eye(3) / 4))
    assert not problem.equal_hessians
    assert linear_regression(np.ones((4, 1)), np.arange(4), 1.0, 1.0).equal_hessians


def test_averaged_includes_the_spread_of_the_means():
    means, covariances = np.array([[0.0], [2.0]]), np.array([[[1.0]], [[3.0]]])
    moments = StationaryMoments(means, covariances, 0 * means, 0 * covariances)
    mean, covariance = moments.averaged
    assert mean.item() == 1.0
    assert covariance.item() == 3.0
    assert moments.period_end == (0.0, 1.0)


def test_distances():
    rng = np.random.default_rng(4)
    factor = rng.standard_normal((2, 3, 3))
    covariance, target = factor @ factor.mT + np.eye(3)
    mean, target_mean = rng.standard_normal((2, 3))
    ratio = np.linalg.solve(target, covariance)
    offset = mean - target_mean
    kl = np.trace(ratio) - 3 - np.log(np.linalg.det(ratio)) + offset @ np.linalg.solve(target, offset)
    assert gaussian_kl(mean, covariance, target_mean, target) == pytest.approx(kl / 2)
    assert gaussian_kl(mean, target, mean, target) == 0
    assert relative_covariance_error(1.01 * target, target) == pytest.approx(0.01)
    both = relative_covariance_error(np.stack([target, covariance]), target)
    assert both == pytest.approx([0, relative_covariance_error(covariance, target)])
    pair = gaussian_kl(np.stack([mean, mean]), np.stack([target, covariance]), target_mean, target)
    assert pair[1] == pytest.approx(kl / 2)


# --- Errors ---


@dataclass(frozen=True)
class Own:
    """A scheme of the user's own, which says of itself what the package's say."""

    name = "random_reshuffle"
    redraws = "epoch"

    def indices(self, key, start, steps, plate):
        raise NotImplementedError

    def period(self, plate):
        return plate.batches


class Inherited(EulerMaruyama):
    """Whose steps may be others."""


WRONG = [
    (
        {"scheme": Own()},
        r"scheme=Own\(\) has no known law.*WithReplacement\(\).*Cyclic\(\)",
    ),
    (
        {"integrator": Inherited()},
        r"integrator=.*Inherited.* has no known law.*EulerMaruyama\(\), .*\(\), BAOAB\(friction=...\), UBU\(friction",
    ),
    ({"batch_size": 0}, r"batch_size=0 must be an integer in 1\.\.5"),
    ({"batch_size": 6}, r"batch_size=6 must be an integer in 1\.\.5"),
    ({"batch_size": 1.5}, r"batch_size=1\.5 must be an integer in 1\.\.5"),
    ({"step_size": 0.0}, r"step_size=0\.0 must be positive; try"),
    ({"step_size": np.nan}, r"step_size=nan must be positive; try"),
    ({"temperature": -1.0}, r"temperature=-1\.0 must not be negative; pass 1\.0"),
    ({"num_orders": 0}, r"num_orders=0 must be positive"),
    ({"scheme": BatchReshuffle()}, r"batch_size=2 does not divide the 5 rows.*scheme=RandomReshuffle\(\)"),
    ({"order": np.zeros((5, 2), int)}, r"scheme=RandomReshuffle\(\) draws a new one.*ShuffleOnce\(\)"),
    (
        {"scheme": RunReshuffle(), "order": np.zeros((2, 2), int)},
        r"order has shape \(2, 2\).*shape \(5, 1\), the rows of each run",
    ),
    (
        {"scheme": Cyclic(), "order": np.zeros((2, 2), int)},
        r"order has shape \(2, 2\) and dtype int.*\(5, 2\)",
    ),
    ({"scheme": Cyclic(), "order": np.zeros((5, 2))}, r"order has shape \(5, 2\) and dtype float64.*integer"),
    (
        {"scheme": Cyclic(), "order": np.zeros((5, 2), int)},
        r"order=.* must name each of the rows 0\.\.4 2 times",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_arguments_say_what_is_wrong(arguments, message):
    right = {"scheme": RandomReshuffle(), "integrator": LM, "step_size": 1e-3, "batch_size": 2}
    with pytest.raises(ValueError, match=message):
        stationary_moments(small_problem(5, equal=False), **right | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "random_reshuffle"}, r"scheme='random_reshuffle' is no .*pass an instance: .*RandomReshuffle\(\)"),
        ({"scheme": RandomReshuffle}, r"scheme=<class .*RandomReshuffle'> is no .*pass an instance"),
        ({"integrator": "baoab"}, r"integrator='baoab' is no integrator; pass an instance: .*BAOAB\(friction=...\)"),
        ({"integrator": BAOAB}, r"integrator=<class .*BAOAB'> is no integrator; pass an instance"),
        ({"integrator": RandomReshuffle()}, r"integrator=RandomReshuffle\(\) is no integrator"),
    ],
)
def test_names_and_classes_are_no_schemes_and_integrators(arguments, message):
    right = {"scheme": RandomReshuffle(), "integrator": LM, "step_size": 1e-3, "batch_size": 2}
    with pytest.raises(TypeError, match=message):
        stationary_moments(small_problem(5, equal=False), **right | arguments)


def test_the_law_of_whatever_the_package_has_is_known():
    assert set(steps.LAWS) == set(INTEGRATORS)
    assert all(knows_integrator(integrator()) for integrator in INTEGRATORS)
    assert all(map(knows_scheme, SCHEMES))
    assert not knows_integrator(Inherited())
    assert not knows_scheme(Own())


@pytest.mark.parametrize("kind", INTEGRATORS, ids=by_name)
def test_what_an_integrator_says_of_its_own_error_is_in_its_law(kind):
    """To leading order in h√λ for UBU, exactly for the others."""
    curvature, step = 4.0, 0.05
    step_size = step / (np.sqrt(curvature) if kind.kinetic else curvature)
    variance = steps.LAWS[kind].variance(step_size, 3.0, np.array([curvature])).item()
    assert abs(curvature * variance - 1) == pytest.approx(kind().variance_error(step), rel=1e-2, abs=1e-15)
    assert named(kind.name) is named(kind.__name__) is kind
    assert is_kinetic(kind()) is kind.kinetic is hasattr(kind(), "friction")


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "unequal"])
@every_scheme
def test_unstable_step_size_names_the_largest_stable_one(scheme, equal):
    problem = small_problem(4, equal)
    limit = 2 / np.linalg.eigvalsh(problem.hessian).max()
    with pytest.raises(ValueError, match=rf"step_size=.*2/λ_max\(hessian\) = {limit:.6g}"):
        # Two batches of unequal Hessians can together contract a little beyond the limit of their mean.
        stationary_moments(problem, scheme, LM, (1.01 if equal else 10) * limit, 2)
    moments = stationary_moments(problem, scheme, LM, stable_step(problem, 1.9), 2)
    assert (np.linalg.eigvalsh(moments.covariance) > 0).all()


def test_batches_of_unequal_hessians_can_be_unstable_where_their_mean_is_not():
    problem = linear_regression(np.array([[3.0], [0.1], [0.1], [0.1]]), np.ones(4), 1.0, 1.0)
    step_size = 1.9 / problem.hessian.item()
    stationary_moments(problem, FullBatch(), EM, step_size, 1)
    with pytest.raises(ValueError, match=r"2/max_i λ_max\(P \+ N A_i\) = 0\.0540541"):
        stationary_moments(problem, WithReplacement(), EM, step_size, 1)


def test_improper_problems_are_refused():
    with pytest.raises(ValueError, match=r"prior_mean=.*pass prior_covariance"):
        gaussian_mean(np.zeros((3, 1)), np.eye(1), prior_mean=np.zeros(1))
    flat = LinearGaussian(np.zeros((2, 2)), np.zeros(2), np.diag([1.0, 0.0]), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="not positive definite"):
        stationary_moments(flat, FullBatch(), LM, 0.1, 1)
