"""Gradient noise and diffusion against brute force over all batches and all orders."""

import re
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations, permutations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.tree_util import Partial
from scipy.sparse.linalg import LinearOperator, eigsh

from sgworld_numpyro import (
    BatchReshuffle,
    Cyclic,
    FullBatch,
    IndependentBatches,
    RandomReshuffle,
    RunReshuffle,
    ShuffleOnce,
    SymmetricReshuffle,
    WithReplacement,
)
from sgworld_numpyro.landscape import (
    RowPotential,
    diffusion_matrix,
    diffusion_product,
    gradient_covariance,
    gradient_covariance_product,
    hessian,
    row_potential,
    total_gradient_variance,
)
from sgworld_numpyro.model import blocks
from sgworld_numpyro.model.blocks import sum_over_blocks
from tests.tables import RESHUFFLED, SCHEMES, by_name

DIM = 3
X = np.array([0.3, -0.2, 0.5])


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def wavy(a, b, x, rows):
    u = a[rows] @ x
    return jnp.mean(u**2 / 2 + jnp.sin(u + b[rows])) + x @ x / 20


def nonlinear_data(rows):
    rng = np.random.default_rng(5)
    return rng.standard_normal((rows, DIM)), rng.standard_normal(rows)


def nonlinear(rows=6, batch=2):
    """Rows with gradients, Hessians and third derivatives that are all different."""
    return RowPotential(Partial(wavy, *map(jnp.asarray, nonlinear_data(rows))), rows, batch, DIM)


def row_derivatives(rows):
    """Gradients and Hessians of the rows of ``nonlinear``, by hand."""
    a, b = nonlinear_data(rows)
    u = a @ X
    gradients = a * (u + np.cos(u + b))[:, None] + X / 10
    return gradients, np.einsum("n,ni,nj->nij", 1 - np.sin(u + b), a, a) + np.eye(DIM) / 10


def gradients_of(potential, batches):
    """Of batches of ``nonlinear``."""
    return row_derivatives(potential.num_rows)[0][np.asarray(batches)].mean(1)


def hessians_of(potential, batches):
    return row_derivatives(potential.num_rows)[1][np.asarray(batches)].mean(1)


@jax.jit
def dense(product):
    return jax.lax.map(product, jnp.eye(DIM))


def covariance(values):
    off = values - values.mean(0)
    return off.T @ off / len(off)


@partial(jax.jit, static_argnames=("scheme", "plate"))
def _a_period(scheme, plate):
    return scheme.indices(jax.random.key(9), jnp.int32(0), scheme.period(plate), plate)


def orders(potential, scheme):
    """The batches of every order of a period, each equally likely."""
    rows, batch = potential.num_rows, potential.batch_size
    if isinstance(scheme, RunReshuffle):
        length = scheme.rows_a_run(potential.plate)
        found = np.array(list(permutations(np.array(scheme.layout(potential.plate)).reshape(-1, length).tolist())))
        return found.reshape(-1, rows // batch, batch)
    if isinstance(scheme, BatchReshuffle):
        batches = np.array(_a_period(scheme, potential.plate))
        return np.array([batches[list(order)] for order in permutations(range(len(batches)))])
    found = np.array(list(permutations(range(rows)))).reshape(-1, rows // batch, batch)
    return np.concatenate([found, found[:, ::-1]], axis=1) if isinstance(scheme, SymmetricReshuffle) else found


# --- Row potentials ---


def regression(x, y, batch=4):
    w = numpyro.sample("w", dist.Normal(0, 2).expand([DIM]).to_event(1))
    with numpyro.plate("rows", x.shape[0], subsample_size=batch):
        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(xb @ w, 0.5), obs=yb)


def regression_data(rows=10):
    rng = np.random.default_rng(8)
    return rng.standard_normal((rows, DIM)), rng.standard_normal(rows)


def by_hand(x, y, batch=4):
    features, responses = jnp.asarray(x), jnp.asarray(y)

    def estimate(w, rows):
        prior = dist.Normal(0, 2).log_prob(w).sum()
        return -prior - len(x) * dist.Normal(features[rows] @ w, 0.5).log_prob(responses[rows]).mean()

    return RowPotential(estimate, len(x), batch, DIM)


@cache
def regression_potential():
    """One object, so that what is compiled for one test serves the next."""
    return row_potential(regression, *regression_data())


def test_a_models_potential_is_the_one_written_by_hand():
    model, own, scheme = regression_potential(), by_hand(*regression_data()), BatchReshuffle()
    assert (model.num_rows, model.batch_size, model.dim) == (10, 4, DIM)
    np.testing.assert_allclose(model.full(X), own.full(X), rtol=1e-12)
    np.testing.assert_allclose(
        gradient_covariance(model, X, scheme), gradient_covariance(own, X, scheme), rtol=1e-10, atol=1e-8
    )


def test_full_potential_is_the_mean_of_the_rows_and_its_gradient_is_right():
    @jax.jit
    def derivatives(potential, x, rows):
        slopes = potential.batch_gradients(x, rows[:, None])
        return potential.row_values(x, rows), slopes, jax.grad(RowPotential.full, argnums=1)(potential, x)

    for potential in (nonlinear(), regression_potential()):
        rows = jnp.arange(potential.num_rows)
        values, slopes, slope = derivatives(potential, jnp.asarray(X), rows)
        assert values.shape == (potential.num_rows,)
        np.testing.assert_allclose(potential.full(X), values.mean(), rtol=1e-13)
        np.testing.assert_allclose(potential.full(X), potential.estimate(jnp.asarray(X), rows), rtol=1e-13)
        np.testing.assert_allclose(potential.gradient(X), slope, rtol=1e-12)
        np.testing.assert_allclose(potential.gradient(X), slopes.mean(0), rtol=1e-12)
    gradients, hessians = row_derivatives(6)
    np.testing.assert_allclose(nonlinear().gradient(X), gradients.mean(0), rtol=1e-12)
    np.testing.assert_allclose(hessian(nonlinear(), X), hessians.mean(0), rtol=1e-12)


@pytest.mark.parametrize(("count", "block"), [(7, 3), (6, 3), (2, 5), (1, 1), (5, 0)])
def test_sums_in_blocks_miss_nothing(count, block):
    total = sum_over_blocks(lambda numbers: ((numbers + 1.0) ** 2).sum(), count, block)
    assert total == sum((k + 1) ** 2 for k in range(count))


def test_the_length_of_a_block_changes_nothing(monkeypatch):
    def measures():
        data = nonlinear(10, 2).estimate.args
        # a function of its own: nothing compiled for blocks of another length serves it
        potential = RowPotential(Partial(lambda *args: wavy(*args), *data), 10, 2, DIM)

        @jax.jit
        def together(x):
            rows, batches = RandomReshuffle(), BatchReshuffle()
            trace = jax.grad(lambda x: total_gradient_variance(potential, x, rows))(x)
            product = gradient_covariance_product(potential, x, batches)(x)
            matrices = [gradient_covariance(potential, x, scheme) for scheme in (rows, batches)]
            return potential.full(x), potential.gradient(x), trace, product, matrices[1] @ x, *matrices

        return together(jnp.asarray(X))

    whole = measures()
    # not by its dotted name, under which the package has the function of that name
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 3)
    cut = measures()
    for one, other in zip(cut, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(cut[3], cut[4], rtol=1e-11)


def test_a_models_data_are_arguments_of_compiled_functions():
    data = regression_data(2000)
    potential = row_potential(regression, *data)
    product = gradient_covariance_product(potential, X, RandomReshuffle())
    for function, args in [(lambda p, x: p.full(x), (potential, X)), (lambda p, v: p(v), (product, X))]:
        constants = jax.make_jaxpr(function)(*args).consts
        assert sum(np.size(constant) for constant in constants) < 2000


def test_what_a_row_potential_refuses():
    with pytest.raises(ValueError, match=r"batch_size=7 must be in 1\.\.6"):
        nonlinear(6, 7)
    with pytest.raises(ValueError, match="dim=0 must be positive"):
        RowPotential(lambda x, rows: 0.0, 5, 1, 0)

    def two_plates(y):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        for name in ("left", "right"):
            with numpyro.plate(name, 10, subsample_size=2):
                numpyro.sample(f"obs_{name}", dist.Normal(mu, 1), obs=numpyro.subsample(y, event_dim=0))

    with pytest.raises(ValueError, match=r"plates 'left' and 'right'.*leave subsample_size out"):
        row_potential(two_plates, np.zeros(10))


# --- Gradient covariance ---


def all_batches(potential, scheme):
    rows, batch = potential.num_rows, potential.batch_size
    if isinstance(scheme, WithReplacement):
        return np.stack(np.meshgrid(*[np.arange(rows)] * batch), axis=-1).reshape(-1, batch)
    if isinstance(scheme, FullBatch):
        return np.arange(rows)[None]
    length = scheme.rows_a_run(potential.plate) if isinstance(scheme, RunReshuffle) else 1
    if length > 1:  # any distinct runs of those there are
        runs = np.array(scheme.layout(potential.plate)).reshape(-1, length)
        return runs[list(combinations(range(len(runs)), batch // length))].reshape(-1, batch)
    if isinstance(scheme, BatchReshuffle | Cyclic):
        return np.array(_a_period(scheme, potential.plate))
    if isinstance(scheme, RandomReshuffle | SymmetricReshuffle | RunReshuffle) and rows % batch:
        assert (rows, batch) == (5, 2)
        # one batch in five is across the seam, two rows drawn independently: 25 cases among 10 × 10 + 25
        return np.array(list(combinations(range(rows), 2)) * 10 + list(np.ndindex(rows, rows)))
    return np.array(list(combinations(range(rows), batch)))


@pytest.mark.parametrize(("rows", "batch"), [(6, 2), (5, 5), (5, 2), (8, 4)])
@pytest.mark.parametrize("scheme", [*SCHEMES, RunReshuffle(2)], ids=by_name)
def test_covariance_over_all_batches(scheme, rows, batch):
    potential = nonlinear(rows, batch)
    expected = covariance(gradients_of(potential, all_batches(potential, scheme)))
    tolerance = {"rtol": 1e-10, "atol": 1e-13}
    np.testing.assert_allclose(gradient_covariance(potential, X, scheme), expected, **tolerance)
    np.testing.assert_allclose(total_gradient_variance(potential, X, scheme), np.trace(expected), **tolerance)
    product = gradient_covariance_product(potential, X, scheme)
    np.testing.assert_allclose(product(np.ones(DIM)), expected.sum(1), **tolerance)


@pytest.mark.parametrize(
    "scheme",
    [scheme for scheme in SCHEMES if not isinstance(scheme, BatchReshuffle | Cyclic | FullBatch | RunReshuffle)],
    ids=by_name,
)
def test_covariance_of_sampled_batches(scheme):
    """Of the batches that the scheme itself hands out, at every phase of its period, over many chains.

    The three whose batches are fixed hand them all out in the test above.
    """
    potential, chains = nonlinear(11, 4), 4000
    plate = potential.plate
    keys = jax.random.split(jax.random.key(0), chains)
    drawn = jax.jit(jax.vmap(lambda key: scheme.indices(key, jnp.int32(0), scheme.period(plate), plate)))(keys)
    gradients = gradients_of(potential, drawn.reshape(-1, drawn.shape[-1])).reshape(chains, -1, DIM)
    off = gradients - row_derivatives(11)[0].mean(0)
    each = np.einsum("cti,ctj->cij", off, off) / off.shape[1]
    error = each.std(0, ddof=1) / chains**0.5
    difference = each.mean(0) - np.array(gradient_covariance(potential, X, scheme))
    assert (np.abs(difference) <= 5 * error + 1e-12).all()


def test_the_trace_has_the_gradient_of_the_trace():
    potential, scheme, step = nonlinear(), IndependentBatches(), 1e-5
    slope = jax.grad(lambda x: total_gradient_variance(potential, x, scheme))(jnp.asarray(X))
    for k, unit in enumerate(np.eye(DIM)):
        ends = [np.trace(gradient_covariance(potential, X + sign * step * unit, scheme)) for sign in (1, -1)]
        np.testing.assert_allclose(slope[k], (ends[0] - ends[1]) / (2 * step), rtol=1e-6)


def test_the_product_serves_compiled_loops_and_scipy():
    potential, scheme = nonlinear(), RandomReshuffle()
    product, matrix = gradient_covariance_product(potential, X, scheme), gradient_covariance(potential, X, scheme)
    np.testing.assert_allclose(dense(product), matrix, rtol=1e-10)
    operator = LinearOperator((DIM, DIM), matvec=product, dtype=np.float64)
    largest = eigsh(operator, k=1, which="LM", return_eigenvectors=False, v0=np.ones(DIM))
    np.testing.assert_allclose(largest[0], np.linalg.eigvalsh(matrix).max(), rtol=1e-8)


@dataclass(frozen=True)
class Own:
    """A scheme of the user's own."""

    def indices(self, key, start, steps, plate):
        return jnp.zeros((steps, plate.batch_size), jnp.int32)

    def period(self, plate):
        return 1


MEASURES = {
    "covariance": gradient_covariance,
    "product": gradient_covariance_product,
    "trace": total_gradient_variance,
    "diffusion": lambda *args: diffusion_matrix(*args, 0.1),
    "diffusion product": lambda *args: diffusion_product(*args, 0.1),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_a_scheme_of_unknown_law_is_refused(measure):
    with pytest.raises(ValueError, match=r"scheme=Own\(\) is not one of the package's own.*IndependentBatches\(\)"):
        measure(nonlinear(), X, Own())


# --- Diffusion ---


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("scheme", [WithReplacement(), IndependentBatches(), FullBatch()], ids=by_name)
def test_diffusion_of_a_step(scheme, temperature):
    potential, h = nonlinear(), 0.1
    noise = h**2 * covariance(gradients_of(potential, all_batches(potential, scheme)))
    expected = (noise + 2 * h * temperature * np.eye(DIM)) / 2
    matrix = diffusion_matrix(potential, X, scheme, h, temperature=temperature)
    np.testing.assert_allclose(matrix, expected, rtol=1e-10, atol=1e-15)
    product = diffusion_product(potential, X, scheme, h, temperature=temperature)
    np.testing.assert_allclose(product(X), expected @ X, rtol=1e-10, atol=1e-15)


# (8, 4) has all the terms of the moments, (2, 1) and (3, 1) have too few units for some
SIZES = [(2, 1), (3, 1), (5, 1), (6, 2), (6, 6), (8, 4)]
PERIODS = [(scheme, *size) for scheme in (RandomReshuffle(), SymmetricReshuffle()) for size in SIZES]


@pytest.mark.parametrize(
    ("scheme", "rows", "batch"),
    [*PERIODS, (BatchReshuffle(), 3, 1), (BatchReshuffle(), 6, 2), (RunReshuffle(2), 8, 4)],
    ids=str,
)
def test_diffusion_of_a_period_over_all_orders(scheme, rows, batch):
    """Cov(Σ_{r>s} H_r g_s), enumerated."""
    potential, h = nonlinear(rows, batch), 0.5
    every = orders(potential, scheme)
    steps = every.shape[1]
    flat = every.reshape(-1, batch)
    gradients = gradients_of(potential, flat).reshape(-1, steps, DIM)
    hessians = hessians_of(potential, flat).reshape(-1, steps, DIM, DIM)
    earlier = np.cumsum(gradients, axis=1) - gradients
    expected = h**4 / 2 * covariance(np.einsum("orij,orj->oi", hessians, earlier)) + h * steps * 0.3 * np.eye(DIM)
    matrix = diffusion_matrix(potential, X, scheme, h, temperature=0.3)
    np.testing.assert_allclose(matrix, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("scheme", RESHUFFLED, ids=by_name)
def test_diffusion_of_a_period_is_that_of_the_chain(scheme):
    """Stochastic gradient descent for a period along every order: the error falls with the step size."""
    potential = nonlinear(6, 2)
    every = orders(potential, scheme)
    a, b = nonlinear_data(6)

    def error(h):
        x = np.tile(X, (len(every), 1))
        for rows in every.swapaxes(0, 1):
            u = np.einsum("omi,oi->om", a[rows], x)
            x = x - h * (np.einsum("om,omi->oi", u + np.cos(u + b[rows]), a[rows]) / 2 + x / 10)
        spread = covariance(x)
        predicted = 2 * np.array(diffusion_matrix(potential, X, scheme, h, temperature=0.0))
        return np.linalg.norm(spread - predicted) / np.linalg.norm(spread)

    coarse, fine = error(2e-3), error(1e-3)
    assert fine < 0.02
    assert 1.8 < coarse / fine < 2.2


@pytest.mark.parametrize(
    ("scheme", "rows", "batch"),
    [(BatchReshuffle(), 6, 2), (RunReshuffle(2), 6, 2), (RandomReshuffle(), 5, 1), (SymmetricReshuffle(), 5, 1)],
    ids=str,
)
def test_diffusion_product_where_it_is_exact(scheme, rows, batch):
    potential = nonlinear(rows, batch)
    product = diffusion_product(potential, X, scheme, 0.4, temperature=0.2)
    matrix = diffusion_matrix(potential, X, scheme, 0.4, temperature=0.2)
    np.testing.assert_allclose(dense(product), matrix, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("scheme", [RandomReshuffle(), SymmetricReshuffle()], ids=by_name)
def test_diffusion_product_averages_over_partitions(scheme):
    potential, seeds = nonlinear(), 200

    def matrix(seed):
        return dense(diffusion_product(potential, X, scheme, 1.0, temperature=0.0, partitions=2, seed=seed))

    found = np.array([matrix(seed) for seed in range(seeds)])
    error = found.std(0, ddof=1) / seeds**0.5
    exact = np.array(diffusion_matrix(potential, X, scheme, 1.0, temperature=0.0))
    assert (np.abs(found.mean(0) - exact) <= 5 * error).all()


@pytest.mark.parametrize("measure", [diffusion_matrix, diffusion_product])
def test_what_has_no_diffusion_is_refused(measure):
    for scheme in (Cyclic(), ShuffleOnce()):
        with pytest.raises(ValueError, match=r"repeats one order for ever.*use RandomReshuffle"):
            measure(nonlinear(), X, scheme, 0.1)
    for scheme in RESHUFFLED:
        with pytest.raises(ValueError, match="batch_size=4 does not divide the 6 rows"):
            measure(nonlinear(6, 4), X, scheme, 0.1)


@pytest.mark.parametrize("scheme", [RandomReshuffle(), SymmetricReshuffle()], ids=by_name)
def test_diffusion_of_large_batches_in_32_bits(scheme):
    """B⁴ and R²(R + 1) N are beyond 32-bit integers."""
    rows, batch = 1200, 300
    exact = diffusion_matrix(nonlinear(rows, batch), X, scheme, 0.5, temperature=0.0)
    with jax.enable_x64(False):
        found = diffusion_matrix(nonlinear(rows, batch), np.float32(X), scheme, 0.5, temperature=0.0)
    assert found.dtype == jnp.float32
    # a sum over N rows may be off by N times the rounding of a number; nothing cancels where all rows weigh alike
    rounding = rows * float(jnp.finfo(jnp.float32).eps)
    assert np.linalg.norm(found - np.array(exact)) <= rounding * np.linalg.norm(exact)


# --- Bad input ---

AT = {
    "full": lambda potential, x: potential.full(x),
    "gradient": lambda potential, x: potential.gradient(x),
    "covariance": lambda potential, x: gradient_covariance(potential, x, RandomReshuffle()),
    "covariance product": lambda potential, x: gradient_covariance_product(potential, x, RandomReshuffle())(X),
    "multiplied": lambda potential, x: gradient_covariance_product(potential, X, RandomReshuffle())(x),
    "multiplied by nothing": lambda potential, x: gradient_covariance_product(potential, X, FullBatch())(x),
    "trace": lambda potential, x: total_gradient_variance(potential, x, RandomReshuffle()),
    "diffusion": lambda potential, x: diffusion_matrix(potential, x, RandomReshuffle(), 0.1),
    "diffusion product": lambda potential, x: diffusion_product(potential, x, IndependentBatches(), 0.1)(X),
}


@pytest.mark.parametrize("function", AT.values(), ids=AT)
def test_a_position_of_wrong_shape_is_refused(function):
    # traced alone, since shapes are all that is looked at; nothing is compiled
    for shape in ((), (2,), (1, DIM)):
        with pytest.raises(ValueError, match=rf"has shape {re.escape(str(shape))}, but .* dim=3; pass a flat vector"):
            jax.eval_shape(lambda x: function(nonlinear(), x), jax.ShapeDtypeStruct(shape, float))


@pytest.mark.parametrize("function", AT.values(), ids=AT)
def test_integers_and_lists_serve_as_positions(function):
    expected = function(nonlinear(), np.array([1.0, 0.0, 2.0]))
    for x in ([1, 0, 2], np.array([1, 0, 2])):
        found = function(nonlinear(), x)
        assert found.dtype == float
        np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("x", ["abc", None, [1.0, [2.0, 3.0]], [1j, 0, 0], [True, False, True]], ids=repr)
def test_what_is_no_vector_of_numbers_is_refused(x):
    with pytest.raises(ValueError, match=r"^x.* pass 3 floats"):
        nonlinear().full(x)


@pytest.mark.parametrize("measure", [diffusion_matrix, diffusion_product])
@pytest.mark.parametrize(
    ("step_size", "temperature", "message"),
    [
        (0.0, 1.0, "step_size=0.0 must be positive and finite; pass 1e-3"),
        (-0.1, 1.0, "step_size=-0.1 must be positive"),
        (np.nan, 1.0, "step_size=nan must be positive"),
        ([0.1, 0.2], 1.0, r"step_size has shape \(2,\), but must be one number"),
        (0.1, -1.0, "temperature=-1.0 must be at least 0 and finite; pass 1.0"),
        (0.1, np.inf, "temperature=inf must be at least 0"),
    ],
)
def test_what_is_no_step_size_or_temperature_is_refused(measure, step_size, temperature, message):
    with pytest.raises(ValueError, match=message):
        measure(nonlinear(), X, IndependentBatches(), step_size, temperature=temperature)


def test_step_size_and_temperature_may_be_traced():
    def matrix(h, temperature):
        return diffusion_matrix(nonlinear(), X, IndependentBatches(), h, temperature=temperature)

    np.testing.assert_allclose(jax.jit(matrix)(0.1, 0.5), matrix(0.1, 0.5), rtol=1e-12)


def test_too_few_partitions_are_refused():
    with pytest.raises(ValueError, match="partitions=1 gives no covariance"):
        diffusion_product(nonlinear(), X, RandomReshuffle(), 0.1, partitions=1)
