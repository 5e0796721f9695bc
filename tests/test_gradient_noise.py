"""Gradient noise and diffusion against brute force over all batches and all orders."""

import sys
from dataclasses import dataclass
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
    ShuffleOnce,
    SymmetricReshuffle,
    WithReplacement,
)
from sgworld_numpyro.nonequilibrium.diffusion import diffusion_matrix, diffusion_product
from sgworld_numpyro.nonequilibrium.gradient_noise import (
    gradient_covariance,
    gradient_covariance_product,
    total_gradient_variance,
)
from sgworld_numpyro.nonequilibrium.row_potential import RowPotential, row_potential, sum_over_blocks

DIM = 3
X = np.array([0.3, -0.2, 0.5])
SCHEMES = [
    BatchReshuffle(),
    Cyclic(),
    FullBatch(),
    IndependentBatches(),
    RandomReshuffle(),
    ShuffleOnce(),
    SymmetricReshuffle(),
    WithReplacement(),
]
RESHUFFLED = [RandomReshuffle(), BatchReshuffle(seed=3), SymmetricReshuffle()]


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def by_name(scheme):
    return type(scheme).__name__


def wavy(a, b, x, rows):
    u = a[rows] @ x
    return jnp.mean(u**2 / 2 + jnp.sin(u + b[rows])) + x @ x / 20


def nonlinear(rows=6, batch=2):
    """Rows with gradients, Hessians and third derivatives that are all different."""
    rng = np.random.default_rng(5)
    a, b = jnp.asarray(rng.standard_normal((rows, DIM))), jnp.asarray(rng.standard_normal(rows))
    return RowPotential(Partial(wavy, a, b), rows, batch, DIM)


@jax.jit
def _gradients(potential, x, batches):
    return potential.batch_gradients(x, batches)


@jax.jit
def _hessians(potential, x, batches):
    return jax.vmap(lambda rows: jax.hessian(potential.estimate)(x, rows))(batches)


def gradients_of(potential, batches):
    return np.array(_gradients(potential, X, batches))


def hessians_of(potential, batches):
    return np.array(_hessians(potential, X, batches))


def covariance(values):
    off = values - values.mean(0)
    return off.T @ off / len(off)


def orders(potential, scheme):
    """The batches of every order of a period, each equally likely."""
    rows, batch = potential.num_rows, potential.batch_size
    if isinstance(scheme, BatchReshuffle):
        batches = np.array(scheme.layout(potential.plate)).reshape(-1, batch)
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


@pytest.mark.parametrize("scheme", [RandomReshuffle(), BatchReshuffle()], ids=by_name)
def test_a_models_potential_is_the_one_written_by_hand(scheme):
    data = regression_data()
    model, own = row_potential(regression, *data), by_hand(*data)
    assert (model.num_rows, model.batch_size, model.dim) == (10, 4, DIM)
    np.testing.assert_allclose(model.full(X), own.full(X), rtol=1e-12)
    np.testing.assert_allclose(
        gradient_covariance(model, X, scheme), gradient_covariance(own, X, scheme), rtol=1e-10, atol=1e-8
    )


def test_full_potential_is_the_mean_of_the_rows_and_its_gradient_is_right():
    for potential in (nonlinear(7), row_potential(regression, *regression_data())):
        rows = jnp.arange(potential.num_rows)
        values = jax.jit(RowPotential.row_values)(potential, X, rows)
        assert values.shape == (potential.num_rows,)
        np.testing.assert_allclose(potential.full(X), values.mean(), rtol=1e-13)
        np.testing.assert_allclose(potential.full(X), potential.estimate(jnp.asarray(X), rows), rtol=1e-13)
        np.testing.assert_allclose(potential.gradient(X), jax.grad(potential.full)(jnp.asarray(X)), rtol=1e-12)
        np.testing.assert_allclose(potential.gradient(X), gradients_of(potential, rows[:, None]).mean(0), rtol=1e-12)


@pytest.mark.parametrize(("count", "block"), [(7, 3), (6, 3), (2, 5), (1, 1), (5, 0)])
def test_sums_in_blocks_miss_nothing(count, block):
    total = sum_over_blocks(lambda numbers: ((numbers + 1.0) ** 2).sum(), count, block)
    assert total == sum((k + 1) ** 2 for k in range(count))


@pytest.mark.parametrize("scheme", [RandomReshuffle(), BatchReshuffle()], ids=by_name)
def test_the_length_of_a_block_changes_nothing(scheme, monkeypatch):
    def measures():
        data = nonlinear(10, 2).estimate.args
        # a function of its own: nothing compiled for blocks of another length serves it
        potential = RowPotential(Partial(lambda *args: wavy(*args), *data), 10, 2, DIM)
        product = gradient_covariance_product(potential, X, scheme)(X)
        trace = jax.grad(lambda x: total_gradient_variance(potential, x, scheme))(jnp.asarray(X))
        return potential.full(X), potential.gradient(X), gradient_covariance(potential, X, scheme), product, trace

    whole = measures()
    # not by its dotted name, under which the package has the function of that name
    monkeypatch.setattr(sys.modules[RowPotential.__module__], "BLOCK_ROWS", 3)
    for cut, uncut in zip(measures(), whole, strict=True):
        np.testing.assert_allclose(cut, uncut, rtol=1e-11, atol=1e-13)


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
    if isinstance(scheme, BatchReshuffle | Cyclic):
        return np.array(
            scheme.indices(jax.random.key(9), jnp.int32(0), scheme.period(potential.plate), potential.plate)
        )
    if isinstance(scheme, RandomReshuffle | SymmetricReshuffle) and rows % batch:
        assert (rows, batch) == (5, 2)
        # one batch in five is across the seam, two rows drawn independently: 25 cases among 10 × 10 + 25
        return np.array(list(combinations(range(rows), 2)) * 10 + list(np.ndindex(rows, rows)))
    return np.array(list(combinations(range(rows), batch)))


@pytest.mark.parametrize(("rows", "batch"), [(6, 2), (5, 5), (5, 2)])
@pytest.mark.parametrize("scheme", SCHEMES, ids=by_name)
def test_covariance_over_all_batches(scheme, rows, batch):
    potential = nonlinear(rows, batch)
    expected = covariance(gradients_of(potential, all_batches(potential, scheme)))
    tolerance = {"rtol": 1e-10, "atol": 1e-13}
    np.testing.assert_allclose(gradient_covariance(potential, X, scheme), expected, **tolerance)
    np.testing.assert_allclose(total_gradient_variance(potential, X, scheme), np.trace(expected), **tolerance)
    product = gradient_covariance_product(potential, X, scheme)
    np.testing.assert_allclose(product(np.ones(DIM)), expected.sum(1), **tolerance)


@pytest.mark.parametrize("scheme", SCHEMES, ids=by_name)
def test_covariance_of_sampled_batches(scheme):
    """Of the batches that the scheme itself hands out, at every phase of its period, over many chains."""
    potential, chains = nonlinear(11, 4), 4000
    plate = potential.plate
    keys = jax.random.split(jax.random.key(0), chains)
    drawn = jax.jit(jax.vmap(lambda key: scheme.indices(key, jnp.int32(0), scheme.period(plate), plate)))(keys)
    gradients = gradients_of(potential, drawn.reshape(-1, drawn.shape[-1])).reshape(chains, -1, DIM)
    off = gradients - np.array(potential.gradient(X))
    each = np.einsum("cti,ctj->cij", off, off) / off.shape[1]
    error = each.std(0, ddof=1) / chains**0.5
    difference = each.mean(0) - np.array(gradient_covariance(potential, X, scheme))
    assert (np.abs(difference) <= 5 * error + 1e-12).all()


def test_the_trace_has_the_gradient_of_the_trace():
    potential, scheme, step = nonlinear(7, 3), IndependentBatches(), 1e-5
    slope = jax.grad(lambda x: total_gradient_variance(potential, x, scheme))(jnp.asarray(X))
    for k, unit in enumerate(np.eye(DIM)):
        ends = [np.trace(gradient_covariance(potential, X + sign * step * unit, scheme)) for sign in (1, -1)]
        np.testing.assert_allclose(slope[k], (ends[0] - ends[1]) / (2 * step), rtol=1e-6)


def test_the_product_serves_compiled_loops_and_scipy():
    potential, scheme = nonlinear(40, 4), RandomReshuffle()
    product, matrix = gradient_covariance_product(potential, X, scheme), gradient_covariance(potential, X, scheme)
    np.testing.assert_allclose(jax.jit(lambda f, v: f(v))(product, X), matrix @ X, rtol=1e-10)
    np.testing.assert_allclose(jax.lax.map(product, jnp.eye(DIM)), matrix, rtol=1e-10)
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


@pytest.mark.parametrize(("rows", "batch"), [(2, 1), (3, 1), (4, 2), (5, 1), (6, 2), (6, 3), (6, 6)])
@pytest.mark.parametrize("scheme", RESHUFFLED, ids=by_name)
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
    every = jnp.asarray(orders(potential, scheme))

    def error(h):
        def walk(batches):
            def step(x, rows):
                return x - h * jax.grad(potential.estimate)(x, rows), None

            return jax.lax.scan(step, jnp.asarray(X), batches)[0]

        spread = covariance(np.array(jax.vmap(walk)(every)))
        predicted = 2 * np.array(diffusion_matrix(potential, X, scheme, h, temperature=0.0))
        return np.linalg.norm(spread - predicted) / np.linalg.norm(spread)

    coarse, fine = error(2e-3), error(1e-3)
    assert fine < 0.02
    assert 1.8 < coarse / fine < 2.2


@pytest.mark.parametrize(
    ("scheme", "rows", "batch"),
    [(BatchReshuffle(), 12, 3), (RandomReshuffle(), 7, 1), (SymmetricReshuffle(), 7, 1)],
    ids=str,
)
def test_diffusion_product_where_it_is_exact(scheme, rows, batch):
    potential = nonlinear(rows, batch)
    product = diffusion_product(potential, X, scheme, 0.4, temperature=0.2)
    matrix = diffusion_matrix(potential, X, scheme, 0.4, temperature=0.2)
    np.testing.assert_allclose(jax.lax.map(product, jnp.eye(DIM)), matrix, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(jax.jit(lambda f, v: f(v))(product, X), matrix @ X, rtol=1e-9)


@pytest.mark.parametrize("scheme", [RandomReshuffle(), SymmetricReshuffle()], ids=by_name)
def test_diffusion_product_averages_over_partitions(scheme):
    potential, seeds = nonlinear(12, 3), 200

    @jax.jit
    def dense(product):
        return jax.lax.map(product, jnp.eye(DIM))

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


def test_too_few_partitions_are_refused():
    with pytest.raises(ValueError, match="partitions=1 gives no covariance"):
        diffusion_product(nonlinear(), X, RandomReshuffle(), 0.1, partitions=1)
