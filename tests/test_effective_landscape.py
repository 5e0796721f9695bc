"""The effective landscape against exact stationary laws: quadratics of unequal Hessians, and one dimension."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from sgworld_numpyro import (
    BatchReshuffle,
    Cyclic,
    EulerMaruyama,
    FullBatch,
    IndependentBatches,
    LeimkuhlerMatthews,
    RandomReshuffle,
    ShuffleOnce,
    SymmetricReshuffle,
    WithReplacement,
)
from sgworld_numpyro.landscape import (
    RowPotential,
    effective_gradient,
    effective_potential,
    hessian,
    hessian_product,
    landscape_minimum,
    laplacian,
    potential_minimum,
)
from sgworld_numpyro.linear_gaussian import linear_regression, stationary_moments
from sgworld_numpyro.results.run_attributes import name_of

EM, LM = EulerMaruyama(), LeimkuhlerMatthews()
RESHUFFLED = RandomReshuffle(), SymmetricReshuffle(), BatchReshuffle(seed=1)
ROWS, BATCH, DIM = 8, 2, 2
PRIOR_SCALE, NOISE_SCALE = 3.0, 0.7


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@cache
def data(rows):
    """Responses that no straight line fits: the noise of a minibatch depends on where it is taken."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((rows, DIM))
    return x, np.sin(2 * x[:, 0]) + 0.5 * rng.standard_normal(rows)


def least_squares(x, y, w, rows):
    misfit = (y[rows] - x[rows] @ w) ** 2 / (2 * NOISE_SCALE**2)
    return w @ w / (2 * PRIOR_SCALE**2) + len(x) * misfit.mean()


def regression(rows=ROWS, batch=BATCH):
    x, y = data(rows)
    potential = RowPotential(Partial(least_squares, jnp.asarray(x), jnp.asarray(y)), rows, batch, DIM)
    return potential, linear_regression(x, y, NOISE_SCALE, PRIOR_SCALE)


def tilted(a, x, rows):
    """A potential that is nothing but smooth and confining."""
    return jnp.mean(jnp.cosh(x @ jnp.ones(DIM) + a[rows])) + (x**4).sum() / 4 + x[0] * x[1] * a[rows].mean()


def nonlinear(rows=6, batch=2):
    a = jnp.asarray(np.random.default_rng(2).standard_normal(rows))
    return RowPotential(Partial(tilted, a), rows, batch, DIM)


@cache
def fixed_batches(scheme, plate):
    return np.array(jax.jit(scheme.layout, static_argnums=0)(plate)).reshape(-1, plate.batch_size)


def exact_law(scheme, integrator, h, temperature, rows=ROWS, batch=BATCH):
    """Mean and covariance at the ends of periods, over all orders."""
    potential, problem = regression(rows, batch)
    order = fixed_batches(scheme, potential.plate) if isinstance(scheme, BatchReshuffle) else None
    moments = stationary_moments(problem, scheme, integrator, h, batch, temperature=temperature, order=order)
    assert not moments.mean_error.any()
    return moments.period_end


# --- Derivatives ---


def test_hessian_and_laplacian():
    potential, x = nonlinear(), jnp.array([0.4, -0.3])
    expected = jax.jit(jax.hessian(potential.full))(x)
    np.testing.assert_allclose(hessian(potential, x), expected, rtol=1e-12)
    np.testing.assert_allclose(hessian_product(potential, x)(x), expected @ x, rtol=1e-12)
    np.testing.assert_allclose(laplacian(potential, x), jnp.trace(expected), rtol=1e-12)


def test_laplacian_from_probes():
    potential, x = nonlinear(), jnp.array([0.4, -0.3])
    probes, exact = 4000, hessian(potential, x)
    error = np.sqrt(2 * (np.sum(exact**2) - np.sum(np.diag(exact) ** 2)) / probes)
    estimate = laplacian(potential, x, probes=probes)
    assert 0 < abs(estimate - np.trace(exact)) < 5 * error
    slope = jax.grad(lambda x: laplacian(potential, x, probes=3, seed=4))(x)
    ends = [laplacian(potential, x.at[0].add(sign * 1e-5), probes=3, seed=4) for sign in (1, -1)]
    np.testing.assert_allclose(slope[0], (ends[0] - ends[1]) / 2e-5, rtol=1e-6)
    with pytest.raises(ValueError, match="probes=0 must be positive"):
        laplacian(potential, x, probes=0)


@pytest.mark.parametrize(("integrator", "temperature"), [(EM, 0.6), (LM, 0.6), (EM, 0.0)], ids=str)
def test_the_gradient_is_that_of_the_potential(integrator, temperature):
    potential, x, step = nonlinear(), jnp.array([0.4, -0.3]), 1e-5

    def landscape(x):
        return effective_potential(potential, x, RandomReshuffle(), integrator, 0.05, temperature=temperature)

    gradient = effective_gradient(potential, x, RandomReshuffle(), integrator, 0.05, temperature=temperature)
    for k, unit in enumerate(jnp.eye(DIM)):
        numerical = (landscape(x + step * unit) - landscape(x - step * unit)) / (2 * step)
        np.testing.assert_allclose(gradient[k], numerical, rtol=1e-6)


# --- Quadratics: exact stationary laws ---


@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("integrator", [EM, LM], ids=name_of)
@pytest.mark.parametrize("scheme", RESHUFFLED, ids=name_of)
def test_the_mean_sits_at_the_minimum(scheme, integrator, temperature):
    """The shift to 5 %, and what is left of it falls with the square of the step size."""
    potential, problem = regression()

    def miss(h):
        mean, _ = exact_law(scheme, integrator, h, temperature)
        found = landscape_minimum(
            potential, problem.mean, scheme, integrator, h, temperature=temperature, tolerance=1e-11
        )
        return np.linalg.norm(np.array(found) - mean), np.linalg.norm(mean - problem.mean)

    h = 0.02 / np.linalg.eigvalsh(problem.hessian).max()
    (coarse, _), (fine, shift) = miss(h), miss(h / 2)
    assert fine < 0.05 * shift
    assert 3.2 < coarse / fine < 5


def test_the_mean_where_batches_straddle_the_seam():
    """B does not divide N: the variance of a minibatch is the mean over the phases of a period."""
    potential, problem = regression(3, 2)
    h = 0.01 / np.linalg.eigvalsh(problem.hessian).max()
    mean, _ = exact_law(RandomReshuffle(), LM, h, 1.0, 3, 2)
    found = landscape_minimum(potential, problem.mean, RandomReshuffle(), LM, h, tolerance=1e-11)
    shift = mean - problem.mean
    assert np.linalg.norm(np.array(found) - mean) < 0.05 * np.linalg.norm(shift)


@pytest.mark.parametrize("integrator", [EM, LM], ids=name_of)
@pytest.mark.parametrize("scheme", RESHUFFLED, ids=name_of)
def test_the_covariance_is_that_of_the_landscape(scheme, integrator):
    """T (∇²U_eff)⁻¹: what is left falls with the square of the step size."""
    (potential, problem), temperature = regression(), 0.5

    @jax.jit
    def landscape_hessian(x, h):
        def slope(x):
            return effective_gradient(potential, x, scheme, integrator, h, temperature=temperature)

        return jax.jacobian(slope)(x)

    def miss(h):
        _, covariance = exact_law(scheme, integrator, h, temperature)
        precision = landscape_hessian(jnp.asarray(problem.mean), h)
        first_order = np.linalg.norm(covariance - temperature * problem.covariance)
        return np.linalg.norm(temperature * np.linalg.inv(precision) - covariance), first_order

    h = 0.02 / np.linalg.eigvalsh(problem.hessian).max()
    (coarse, _), (fine, shift) = miss(h), miss(h / 2)
    assert fine < 0.1 * shift
    assert 3.2 < coarse / fine < 5


def test_full_batches_have_the_integrators_part_only():
    potential, problem = regression()
    x, h, temperature = jnp.array([0.3, 0.8]), 0.01, 0.7
    energy, gradient = potential.full(x), potential.gradient(x)
    trace = np.trace(problem.hessian)
    for integrator, T, expected in [
        (LM, temperature, energy),
        (EM, temperature, energy + h / 4 * (2 * temperature * trace - gradient @ gradient)),
        (EM, 0.0, energy + h / 4 * gradient @ gradient),
        (LM, 0.0, energy + h / 4 * gradient @ gradient),
    ]:
        found = effective_potential(potential, x, FullBatch(), integrator, h, temperature=T)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("scheme", [WithReplacement(), IndependentBatches()], ids=lambda s: type(s).__name__)
def test_descent_on_independent_batches_is_that_on_all_rows(scheme):
    potential, _ = regression()
    x = jnp.array([0.3, 0.8])
    found = effective_potential(potential, x, scheme, LM, 0.01, temperature=0.0)
    np.testing.assert_allclose(found, effective_potential(potential, x, FullBatch(), LM, 0.01, temperature=0.0))


# --- Beyond quadratics ---


SHIFT = np.array([-0.5, 0.5])


def bent(shift, x, rows):
    return (x[0] ** 4 / 4 + x[0] ** 2 / 2 + 0.5 * x[0]) + (shift[rows] * x[0] ** 2).mean()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("scheme", [FullBatch(), RandomReshuffle()], ids=lambda s: type(s).__name__)
def test_the_density_of_euler_maruyama_in_one_dimension(scheme, temperature):
    """∝ exp(-U_eff/T), from the transition density on a grid; the error in E x and E x² is of second order."""
    potential = RowPotential(Partial(bent, jnp.asarray(SHIFT)), 2, 1, 1)
    grid = np.linspace(-4, 4, 401)
    orders = [[[0, 1]]] if isinstance(scheme, FullBatch) else [[[0], [1]], [[1], [0]]]

    def moments(density):
        density = density / density.sum()
        return np.array([density @ grid, density @ grid**2])

    gradients = grid**3 + grid + 0.5 + 2 * SHIFT[:, None] * grid  # of each row

    @jax.jit
    def landscape(x, h):
        return effective_potential(potential, x, scheme, EM, h, temperature=temperature)

    energies_on_grid = jax.jit(jax.vmap(landscape, in_axes=(0, None)))

    def miss(h):
        def kernel(rows):
            centre = grid - h * gradients[rows].mean(0)
            weights = np.exp(-((grid - centre[:, None]) ** 2) / (4 * h * temperature))
            return weights / weights.sum(1, keepdims=True)

        density = np.exp(-(grid**4 / 4 + grid**2 / 2 + grid / 2 + SHIFT.mean() * grid**2) / temperature)
        start = moments(density)
        period = np.mean([np.linalg.multi_dot([np.eye(len(grid)), *map(kernel, order)]) for order in orders], axis=0)
        stationary = np.linalg.solve(period.T - np.eye(len(grid)) + 1 / len(grid), np.full(len(grid), 1 / len(grid)))

        energies = np.array(energies_on_grid(grid[:, None], h))
        predicted = moments(np.where(np.abs(grid) < 3, np.exp(-(energies - energies.min()) / temperature), 0))
        return np.abs(predicted - moments(stationary)).max(), np.abs(start - moments(stationary)).max()

    (coarse, _), (fine, bias) = miss(0.04), miss(0.02)
    assert fine < 0.15 * bias
    assert 3.2 < coarse / fine < 5


# --- Minima ---


def test_minima_of_the_potential():
    potential, problem = regression()
    np.testing.assert_allclose(potential_minimum(potential, np.array([5.0, -4.0]), tolerance=1e-9), problem.mean)
    found = potential_minimum(nonlinear(), np.array([2.0, -3.0]), tolerance=1e-9)
    assert np.linalg.norm(nonlinear().gradient(found)) < 1e-8


def test_minima_in_float32():
    with jax.enable_x64(False):
        potential, problem = regression()
        found = landscape_minimum(potential, np.float32([1, 1]), RandomReshuffle(), EM, 1e-3)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, problem.mean, atol=0.05)


def test_no_minimum_is_an_error():
    slope = RowPotential(lambda x, rows: x.sum() + jnp.cos(x).sum() / 4, 4, 2, DIM)
    with pytest.raises(ValueError, match=r"no minimum within tolerance=0.0001.*start x nearer"):
        potential_minimum(slope, jnp.ones(DIM))


# --- What has no landscape ---


class Own:
    """An integrator or a scheme of the user's own."""

    def __repr__(self):
        return "Own()"


@pytest.mark.parametrize("function", [effective_potential, effective_gradient, landscape_minimum])
@pytest.mark.parametrize(
    ("scheme", "integrator", "temperature", "message"),
    [
        (
            WithReplacement(),
            LM,
            1.0,
            r"WithReplacement\(\) has no effective potential at temperature=1.0: .*reshuffled",
        ),
        (IndependentBatches(), EM, 0.5, r"IndependentBatches\(\) has no effective potential at temperature=0.5"),
        (Cyclic(), LM, 1.0, r"Cyclic\(\) has a landscape that depends on the one order.*RandomReshuffle"),
        (ShuffleOnce(), LM, 0.0, r"ShuffleOnce\(\) has a landscape that depends on the one order"),
        (Own(), LM, 1.0, r"scheme=Own\(\) is not one of the package's own"),
        (RandomReshuffle(), Own(), 1.0, r"integrator=Own\(\) has no known.*pass EulerMaruyama\(\)"),
        (RandomReshuffle(), LM, -1.0, "temperature=-1.0 must not be negative"),
    ],
)
def test_what_has_no_landscape_is_refused(function, scheme, integrator, temperature, message):
    with pytest.raises(ValueError, match=message):
        function(nonlinear(), np.ones(DIM), scheme, integrator, 0.1, temperature=temperature)


@pytest.mark.parametrize(
    "function",
    [
        hessian,
        hessian_product,
        laplacian,
        potential_minimum,
        lambda *args: hessian_product(args[0], jnp.ones(DIM))(args[1]),
        lambda *args: effective_potential(*args, RandomReshuffle(), LM, 0.1),
        lambda *args: effective_gradient(*args, RandomReshuffle(), LM, 0.1),
        lambda *args: landscape_minimum(*args, RandomReshuffle(), LM, 0.1),
    ],
)
def test_a_position_of_wrong_shape_is_refused(function):
    for x in (np.ones(3), np.ones((1, DIM)), 1.0):
        with pytest.raises(ValueError, match=r"^[xv] has shape \(.*dim=2; pass a flat vector of shape \(2,\)"):
            function(nonlinear(), x)


def test_integers_and_lists_serve_as_positions():
    potential, arguments = nonlinear(), (RandomReshuffle(), LM, 0.01)
    for function, args in (
        (hessian, ()),
        (laplacian, ()),
        (effective_gradient, arguments),
        (effective_potential, arguments),
    ):
        np.testing.assert_allclose(function(potential, [1, 0], *args), function(potential, np.array([1.0, 0.0]), *args))
    start = np.array([5, -4])
    np.testing.assert_allclose(potential_minimum(potential, start), potential_minimum(potential, start * 1.0))
