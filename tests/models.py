"""NumPyro models that users might write, each with small data: what the kernels must be able to sample.

``CASES`` maps a name to a `Case`. Batch sizes divide the numbers of rows, so that a plate's rows split into whole
minibatches and the minibatch potentials of such a split must average to the full one exactly.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.reparam import LocScaleReparam

ROWS, BATCH = 24, 4
_RNG = np.random.default_rng(0)


def _normal(*shape):
    return _RNG.standard_normal(shape).astype(np.float32)


X = _normal(ROWS, 2)
Y = (X @ np.float32([1, -1]) + _normal(ROWS)).astype(np.float32)
LABELS = _RNG.integers(0, 3, ROWS)
COINS = _RNG.integers(0, 2, ROWS)
COUNTS = _RNG.poisson(2, ROWS)
PAIRS = _normal(ROWS, 2)
TABLE = _normal(6, 8)  # users × items
GROUPS = _RNG.integers(0, 3, ROWS)
HELD_OUT = _RNG.random(ROWS) < 0.3


class Case(NamedTuple):
    """A model, its arguments, and the constrained shape of each site that its samples must hold."""

    model: Callable
    args: tuple
    sites: Mapping[str, tuple[int, ...]]
    kwargs: Mapping[str, Any] = {}


def rows(size=ROWS, batch=BATCH, name="rows", dim=None):
    return numpyro.plate(name, size, subsample_size=batch, dim=dim)


def gaussian_mean(y, batch=BATCH):
    """Conjugate: the posterior is Normal(Σy / (N + 1), 1 / (N + 1))."""
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows(y.shape[0], batch):
        numpyro.sample("obs", dist.Normal(mu, 1), obs=numpyro.subsample(y, event_dim=0))


def linear(x, y=None, batch=BATCH):
    """Regression that can also predict: ``y=None``."""
    w = numpyro.sample("w", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    with rows(x.shape[0], batch):
        xb = numpyro.subsample(x, event_dim=1)
        yb = None if y is None else numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


def linear_by_index(x, y):
    """The same through the row numbers that the plate hands out."""
    w = numpyro.sample("w", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    with rows(x.shape[0]) as chosen:
        numpyro.sample("obs", dist.Normal(x[chosen] @ w, 1), obs=y[chosen])


# --- Constrained supports ---


def half_normal(y):
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    with rows():
        numpyro.sample("obs", dist.Normal(0, sigma), obs=numpyro.subsample(y, event_dim=0))


def beta(coins):
    p = numpyro.sample("p", dist.Beta(2, 2))
    with rows():
        numpyro.sample("obs", dist.Bernoulli(p), obs=numpyro.subsample(coins, event_dim=0))


def simplex(labels):
    p = numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
    with rows():
        numpyro.sample("obs", dist.Categorical(p), obs=numpyro.subsample(labels, event_dim=0))


def correlation(pairs):
    factor = numpyro.sample("factor", dist.LKJCholesky(2, 2))
    scale = numpyro.sample("scale", dist.HalfNormal(1).expand([2]).to_event(1))
    with rows():
        pairs = numpyro.subsample(pairs, event_dim=1)
        numpyro.sample("obs", dist.MultivariateNormal(scale_tril=scale[:, None] * factor), obs=pairs)


def dependent_bounds(y):
    low = numpyro.sample("low", dist.Normal(-1, 0.5))
    high = numpyro.sample("high", dist.Uniform(low, low + 3))
    with rows():
        numpyro.sample("obs", dist.Normal(low + high, 1), obs=numpyro.subsample(y, event_dim=0))


def array_bounds(x, y):
    w = numpyro.sample("w", dist.Uniform(np.array([-2.0, -3.0]), np.array([2.0, 0.0])).to_event(1))
    with rows():
        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


def ordered(y):
    improper = dist.ImproperUniform(dist.constraints.ordered_vector, (), (2,))
    cuts = numpyro.sample("cuts", improper)
    numpyro.factor("prior", dist.Normal(0, 2).log_prob(cuts).sum())
    with rows():
        numpyro.sample("obs", dist.OrderedLogistic(0.0, cuts), obs=numpyro.subsample(y, event_dim=0))


# --- Deterministic sites and factors ---


def deterministics(x, y):
    """`squared` is collected; the others depend on the minibatch, and are not."""
    w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.deterministic("squared", w**2)
    with rows():
        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        mean = numpyro.deterministic("mean", xb @ w)
        numpyro.deterministic("inside_though_global", w + 1)
        numpyro.sample("obs", dist.Normal(mean, 1), obs=yb)
    numpyro.deterministic("residual", ((mean - yb) ** 2).mean())


def factor_of_each_row(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows():
        numpyro.factor("likelihood", -0.5 * (numpyro.subsample(y, event_dim=0) - mu) ** 2)


# --- Plates ---


def several_sites(y, counts):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows():
        yb, counts = numpyro.subsample(y, event_dim=0), numpyro.subsample(counts, event_dim=0)
        numpyro.sample("y", dist.Normal(mu, 1), obs=yb)
        numpyro.sample("counts", dist.Poisson(jnp.exp(mu)), obs=counts)


def one_plate_twice(y, counts):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    plate = rows()
    with plate:
        numpyro.sample("y", dist.Normal(mu, 1), obs=numpyro.subsample(y, event_dim=0))
    with plate as chosen:
        numpyro.sample("counts", dist.Poisson(jnp.exp(mu)), obs=counts[chosen])


def two_plates(y, z):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows(y.shape[0]):
        numpyro.sample("y", dist.Normal(mu, 1), obs=numpyro.subsample(y, event_dim=0))
    with rows(z.shape[0], 3, name="others"):
        numpyro.sample("z", dist.Normal(2 * mu, 1), obs=numpyro.subsample(z, event_dim=0))


def users_and_items(table):
    """Matrix factorisation of rank 1: both plates are subsampled, and all latents are outside of both."""
    users, items = table.shape
    u = numpyro.sample("u", dist.Normal(0, 1).expand([users]).to_event(1))
    v = numpyro.sample("v", dist.Normal(1, 0.3).expand([items]).to_event(1))
    with (
        rows(users, 2, name="users", dim=-2) as some_users,
        rows(items, 4, name="items", dim=-1) as some_items,
    ):
        mean = u[some_users][:, None] * v[some_items]
        numpyro.sample("obs", dist.Normal(mean, 1), obs=table[some_users[:, None], some_items])


def groups(y, group):
    """Latents in a plate of their own, with all its rows, beside the subsampled one."""
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    with numpyro.plate("groups", 3):
        level = numpyro.sample("level", dist.Normal(0, scale))
    with rows():
        yb, group = numpyro.subsample(y, event_dim=0), numpyro.subsample(group, event_dim=0)
        numpyro.sample("obs", dist.Normal(level[group], 1), obs=yb)


def plate_around(pairs):
    with numpyro.plate("columns", 2, dim=-2):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        with rows(dim=-1):
            numpyro.sample("obs", dist.Normal(mu, 1), obs=numpyro.subsample(pairs.T, event_dim=0))


def plate_inside(pairs):
    mu = numpyro.sample("mu", dist.Normal(0, 1).expand([2]).to_event(1))
    with rows(dim=-2), numpyro.plate("columns", 2, dim=-1):
        numpyro.sample("obs", dist.Normal(mu, 1), obs=numpyro.subsample(pairs, event_dim=0))


def derived(x, y):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([4]).to_event(1))
    features = jnp.concatenate([x, x**2], axis=1)
    with rows():
        xb, yb = numpyro.subsample(features, event_dim=1), numpyro.subsample(jnp.asarray(y) - 1, event_dim=0)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


# --- Arguments ---


def from_tree(data):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
    (x, scale), y = data["inputs"], data["y"]
    with rows(y.shape[0]):
        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(xb @ w, scale), obs=yb)


def with_options(y, degree, link, offset=None, *, batch):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([degree]).to_event(1))
    mean = {"identity": w.sum(), "exp": jnp.exp(w.sum())}[link]
    with rows(y.shape[0], batch):
        assert offset is None
        numpyro.sample("obs", dist.Normal(mean, 1), obs=numpyro.subsample(y, event_dim=0))


def looks_at_data(labels):
    classes = int(labels.max()) + 1
    p = numpyro.sample("p", dist.Dirichlet(jnp.ones(classes)))
    with rows():
        numpyro.sample("obs", dist.Categorical(p), obs=numpyro.subsample(labels, event_dim=0))


# --- Handlers ---


def scaled(y):
    with numpyro.handlers.scale(scale=0.5):
        gaussian_mean(y)


def masked(y, keep):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows():
        yb, keep = numpyro.subsample(y, event_dim=0), numpyro.subsample(keep, event_dim=0)
        with numpyro.handlers.mask(mask=keep):
            numpyro.sample("obs", dist.Normal(mu, 1), obs=yb)


def masked_nan(y):
    """Missing values, marked by NaN: hidden, and filled so that they have a gradient."""
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows():
        yb = numpyro.subsample(y, event_dim=0)
        there = jnp.isfinite(yb)
        with numpyro.handlers.mask(mask=there):
            numpyro.sample("obs", dist.Normal(mu, 1), obs=jnp.where(there, yb, 0.0))


decentred = numpyro.handlers.reparam(groups, config={"level": LocScaleReparam(0)})


# --- Neural networks ---


def linen_network(x, y):
    from flax import linen
    from numpyro.contrib.module import random_flax_module

    class Network(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(1, name="out")(jnp.tanh(linen.Dense(3, name="hidden")(x)))[:, 0]

    net = random_flax_module("net", Network(), prior=dist.Normal(0, 1), input_shape=(1, 2))
    with rows():
        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(net(xb), 1), obs=yb)


def nnx_network(x, y):
    from flax import nnx
    from numpyro.contrib.module import random_nnx_module

    class Network(nnx.Module):
        def __init__(self, *, rngs):
            self.hidden, self.out = nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs)

        def __call__(self, x):
            return self.out(jnp.tanh(self.hidden(x)))[:, 0]

    net = random_nnx_module("net", Network(rngs=nnx.Rngs(0)), prior=dist.Normal(0, 1))
    with rows():
        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(net(xb), 1), obs=yb)


def _network_sites(separator):
    shapes = {"hidden.kernel": (2, 3), "hidden.bias": (3,), "out.kernel": (3, 1), "out.bias": (1,)}
    return {"net/" + name.replace(".", separator): shape for name, shape in shapes.items()}


WITH_NAN = np.where(HELD_OUT, np.nan, Y).astype(np.float32)

CASES = {
    "gaussian_mean": Case(gaussian_mean, (Y,), {"mu": ()}),
    "linear": Case(linear, (X, Y), {"w": (2,)}),
    "linear_by_index": Case(linear_by_index, (X, Y), {"w": (2,)}),
    "half_normal": Case(half_normal, (Y,), {"sigma": ()}),
    "beta": Case(beta, (COINS,), {"p": ()}),
    "simplex": Case(simplex, (LABELS,), {"p": (3,)}),
    "correlation": Case(correlation, (PAIRS,), {"factor": (2, 2), "scale": (2,)}),
    "dependent_bounds": Case(dependent_bounds, (Y,), {"low": (), "high": ()}),
    "array_bounds": Case(array_bounds, (X, Y), {"w": (2,)}),
    "ordered": Case(ordered, (LABELS,), {"cuts": (2,)}),
    "deterministics": Case(deterministics, (X, Y), {"w": (2,), "squared": (2,)}),
    "factor_of_each_row": Case(factor_of_each_row, (Y,), {"mu": ()}),
    "several_sites": Case(several_sites, (Y, COUNTS), {"mu": ()}),
    "one_plate_twice": Case(one_plate_twice, (Y, jnp.asarray(COUNTS)), {"mu": ()}),
    "two_plates": Case(two_plates, (Y, 2 * Y[:9]), {"mu": ()}),
    "users_and_items": Case(users_and_items, (TABLE,), {"u": (6,), "v": (8,)}),
    "groups": Case(groups, (Y, GROUPS), {"scale": (), "level": (3,)}),
    "plate_around": Case(plate_around, (PAIRS,), {"mu": (2, 1)}),
    "plate_inside": Case(plate_inside, (PAIRS,), {"mu": (2,)}),
    "derived": Case(derived, (X, Y), {"w": (4,)}),
    "whole": Case(gaussian_mean, (Y, ROWS), {"mu": ()}),
    "from_tree": Case(from_tree, ({"inputs": (X, jnp.float32(0.5)), "y": Y},), {"w": (2,)}),
    "with_options": Case(with_options, (Y, 3, "exp", None), {"w": (3,)}, {"batch": 6}),
    "scaled": Case(scaled, (Y,), {"mu": ()}),
    "masked": Case(masked, (Y, ~HELD_OUT), {"mu": ()}),
    "masked_nan": Case(masked_nan, (WITH_NAN,), {"mu": ()}),
    "decentred": Case(decentred, (Y, GROUPS), {"scale": (), "level_decentered": (3,), "level": (3,)}),
    "linen_network": Case(linen_network, (X, Y), _network_sites(".")),
    "nnx_network": Case(nnx_network, (X, Y), _network_sites(".")),
}


def partition(plates):
    """Rows of every combination of whole minibatches, by plate, stacked along the first axis."""
    blocks = [np.arange(plate.size).reshape(-1, plate.batch_size) for plate in plates]
    numbers = np.indices([len(block) for block in blocks]).reshape(len(blocks), -1)
    return {plate.name: jnp.asarray(block[n]) for plate, block, n in zip(plates, blocks, numbers, strict=True)}


def as_jax(tree):
    """Arrays as JAX arrays, which traced rows can index; anything else as it is."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, tree)
