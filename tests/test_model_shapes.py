"""Shapes of models, right ones and wrong ones: the exact potential for the former, a message that names the culprit
for the latter.

Right ones take their batch size as an argument: with all rows NumPyro by itself, without a handler of ours, says what
the potential must be. The models of ``models.py`` are held to the same in ``test_models.py``.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro.handlers import scale, scope
from numpyro.infer.util import potential_energy

from sgworld_numpyro import SGLD, SGWORLD, FullBatch, ModelError, RandomReshuffle
from sgworld_numpyro.chain.binding import Binding
from sgworld_numpyro.chain.consistency import check_minibatches
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.arrays import HostArray
from sgworld_numpyro.model.target import inspect_model
from tests.models import BATCH, GROUPS, HELD_OUT, ROWS, TABLE, X, Y, partition

# A sum of some hundred terms of order 100, rounded to 2**-24 each and added in any order
FLOAT32 = 1e-5
SERIES = np.random.default_rng(5).standard_normal((ROWS, 7)).astype(np.float32)
WEIGHTS = np.linspace(0.5, 2, ROWS).astype(np.float32)
SQUARE = (
    np.random.default_rng(6).standard_normal((ROWS, BATCH)).astype(np.float32)
)  # as many columns as a batch has rows


def subsample(*arrays):
    taken = [numpyro.subsample(array, event_dim=np.ndim(array) - 1) for array in arrays]
    return taken[0] if len(taken) == 1 else taken


def rows(batch, size=ROWS, name="rows", dim=None):
    return numpyro.plate(name, size, subsample_size=batch, dim=dim)


def weights(size=2):
    return numpyro.sample("w", dist.Normal(0, 1).expand([size]).to_event(1))


def level():
    return numpyro.sample("mu", dist.Normal(0, 1))


# --- Right ones ---


def rows_and_subsample(x, y, batch):
    w = weights()
    with rows(batch) as chosen:
        numpyro.sample("obs", dist.Normal(jnp.asarray(x)[chosen] @ w, 1), obs=subsample(y))


def scope_around(x, y, batch):
    with scope(prefix="m"):
        rows_and_subsample(x, y, batch)


def entered_in_a_scope(x, y, batch):
    w, plate = weights(), rows(batch)
    with scope(prefix="m", divider="."), scope(prefix="inner"), plate:
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


def scope_inside(x, y, batch):
    w = weights()
    with rows(batch), scope(prefix="m"):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


def weighted(y, weight, batch):
    mu = level()
    with rows(batch):
        yb, weight = subsample(y, weight)
        with scale(scale=weight):
            numpyro.sample("obs", dist.Normal(mu, 1), obs=yb)


def masked(y, keep, batch):
    mu = level()
    with rows(batch):
        yb, keep = subsample(y, keep)
        numpyro.sample("obs", dist.Normal(mu, 1).mask(keep), obs=yb)


def imputed(x, y, batch):
    """Missing responses are latents outside of the plate."""
    w = weights()
    absent = np.flatnonzero(HELD_OUT)
    missing = numpyro.sample("missing", dist.Normal(0, 1).expand([len(absent)]).to_event(1))
    whole = jnp.asarray(y).at[absent].set(missing)
    with rows(batch):
        xb, yb = subsample(x, whole)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


def scan_in_each_row(series, batch):
    """An autoregression in every row, as a factor with a loop inside."""
    phi = numpyro.sample("phi", dist.Normal(0, 0.5))

    def step(carry, now):
        before, total = carry
        return (now, total - 0.5 * (now - phi * before) ** 2), None

    with rows(batch):
        some = subsample(series)
        start = (jnp.zeros(some.shape[0]), jnp.zeros(some.shape[0]))
        (_, total), _ = lax.scan(step, start, some.T)
        numpyro.factor("likelihood", total)


def through_one_call(x, y, batch):
    """A compiled function that hands out what does and what does not depend on the rows."""
    w = weights()

    @jax.jit
    def both(w, xb):
        return w * 2, xb @ w

    with rows(batch):
        xb, yb = subsample(x, y)
        twice, mean = both(w, xb)
        numpyro.sample("obs", dist.Normal(mean, 1), obs=yb)
    numpyro.factor("prior", -jnp.sum(twice**2))


def a_square_with_columns(square, batch):
    mu = weights(BATCH)
    with numpyro.plate("columns", BATCH, dim=-1), rows(batch, dim=-2):
        numpyro.sample("obs", dist.Normal(mu, 1), obs=numpyro.subsample(square, event_dim=0))


def a_square_without_columns(square, batch):
    mu = weights(BATCH)
    with rows(batch, dim=-2):
        numpyro.sample("obs", dist.Normal(mu, 1), obs=numpyro.subsample(square, event_dim=0))


def a_square_of_events(square, batch):
    mu = weights(BATCH)
    with rows(batch):
        numpyro.sample("obs", dist.Normal(mu, 1).to_event(1), obs=subsample(square))


def classes_as_many_as_rows(square, group, batch):
    """Logits of shape (B, B): classes are an event."""
    w = numpyro.sample("w", dist.Normal(0, 1).expand([BATCH, BATCH]).to_event(2))
    with rows(batch):
        some, labels = subsample(square, group)
        numpyro.sample("obs", dist.Categorical(logits=some @ w), obs=labels)


def mixture(y, batch):
    centres = numpyro.sample("centres", dist.Normal(0, 1).expand([2]).to_event(1))
    share = numpyro.sample("share", dist.Dirichlet(jnp.ones(2)))
    with rows(batch):
        parts = dist.MixtureSameFamily(dist.Categorical(share), dist.Normal(centres, 1))
        numpyro.sample("obs", parts, obs=subsample(y))


def hierarchy(y, group, batch):
    tau = numpyro.sample("tau", dist.HalfNormal(1))
    with numpyro.plate("groups", 3):
        each = numpyro.sample("each", dist.Normal(0, tau))
    with rows(batch):
        yb, group = subsample(y, group)
        numpyro.sample("obs", dist.Normal(each[group], 1), obs=yb)


def one_name_for_latents_and_data(y, batch):
    """The plate of the latents has all its rows, the one of the data some of them."""
    with numpyro.plate("rows", ROWS):
        each = numpyro.sample("each", dist.Normal(0, 1))
    with rows(batch) as chosen:
        numpyro.sample("obs", dist.Normal(each[chosen], 1), obs=jnp.asarray(y)[chosen])


def one_name_with_two_batch_sizes(x, y, batch):
    w = weights()

    def likelihood(name, x, y, batch):
        with rows(batch):
            xb, yb = subsample(x, y)
            numpyro.sample(name, dist.Normal(xb @ w, 1), obs=yb)

    likelihood("one", x, y, batch if batch is None else 2 * batch)
    likelihood("two", 2 * x, y, batch)


def crossed(table, batch):
    users, items = table.shape
    u = numpyro.sample("u", dist.Normal(0, 1).expand([users]).to_event(1))
    v = numpyro.sample("v", dist.Normal(0, 1).expand([items]).to_event(1))
    half = None if batch is None else batch // 2
    with rows(half, users, "users", -2) as some, rows(half, items, "items", -1) as others:
        mean = u[some][:, None] * v[others]
        numpyro.sample("obs", dist.Normal(mean, 1), obs=jnp.asarray(table)[some[:, None], others])


def far_from_the_right(y, batch):
    mu = level()
    with rows(batch, dim=-3):
        numpyro.sample("obs", dist.Normal(mu, 1), obs=numpyro.subsample(y[:, None, None], event_dim=0))


def a_loss_of_the_batch(x, y, batch):
    """The mean loss of a minibatch, once a row: its sum is that of the rows."""
    w = weights()
    with rows(batch):
        xb, yb = subsample(x, y)
        numpyro.factor("loss", jnp.full(xb.shape[0], -0.5 * jnp.mean((yb - xb @ w) ** 2)))


def ones_trick(x, y, batch):
    """The likelihood as the probability of an observation that is the same for all rows."""
    w = weights()
    with rows(batch):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Bernoulli(probs=jnp.exp(-0.1 * (yb - xb @ w) ** 2)), obs=1)


def looks_for_missing(x, y, batch):
    w = weights()
    there = ~np.isnan(y)
    assert len(np.unique(there)) == 2
    x, y = x[there], y[there]
    with rows(min(batch or len(y), len(y)), len(y)) as chosen:
        numpyro.sample("obs", dist.Normal(x[chosen] @ w, 1), obs=y[chosen])


def tempered(x, y, batch):
    with scale(scale=0.25):
        rows_and_subsample(x, y, batch)


def next_row(y, batch):
    """An autoregression by looking up the next row, which the last one has not."""
    phi = numpyro.sample("phi", dist.Normal(0, 1))
    with rows(batch) as chosen:
        after = jnp.where(chosen + 1 < ROWS, jnp.asarray(y)[chosen + 1], 0.0)
        numpyro.sample("obs", dist.Normal(phi * subsample(y), 1), obs=after)


def heads(x, y, batch):
    """As many regressions of the same values as a minibatch has rows."""
    w = numpyro.sample("w", dist.Normal(0, 1).expand([BATCH, 2]).to_event(2))
    with numpyro.plate("heads", BATCH, dim=-2), rows(batch, dim=-1):
        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(w @ xb.T, 1), obs=yb)


def the_same_data_whole_and_in_part(x, y, batch):
    """Predictors that latents of all rows take whole, and the likelihood a minibatch of; and their scale."""
    w = numpyro.sample("w", dist.Normal(0, 1 / numpyro.subsample(x, event_dim=1).std(0)).to_event(1))
    with numpyro.plate("all", ROWS):
        each = numpyro.sample("each", dist.Normal(numpyro.subsample(x, event_dim=1) @ w, 1))
    with rows(batch) as chosen:
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(each[chosen] + xb @ w, 1), obs=yb)


def changes_its_argument(x, y, batch):
    assert float(x.mean()) < 1
    y -= y.mean()
    rows_and_subsample(x, y, batch)


def equinox_network(x, y, batch):
    import equinox
    from numpyro.contrib.module import random_eqx_module

    module = equinox.nn.MLP(2, "scalar", 3, 1, key=jax.random.key(0))
    network = random_eqx_module("network", module, prior=dist.Normal(0, 1))
    with rows(batch):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(jax.vmap(network)(xb), 1), obs=yb)


RIGHT = {
    equinox_network: (X, Y),
    next_row: (Y,),
    heads: (X, Y),
    the_same_data_whole_and_in_part: (X, Y),
    changes_its_argument: (X, Y),
    rows_and_subsample: (X, Y),
    scope_around: (X, Y),
    entered_in_a_scope: (X, Y),
    scope_inside: (X, Y),
    weighted: (Y, WEIGHTS),
    masked: (Y, ~HELD_OUT),
    imputed: (X, Y),
    scan_in_each_row: (SERIES,),
    through_one_call: (X, Y),
    a_square_with_columns: (SQUARE,),
    a_square_without_columns: (SQUARE,),
    a_square_of_events: (SQUARE,),
    classes_as_many_as_rows: (SQUARE, GROUPS),
    mixture: (Y,),
    hierarchy: (Y, GROUPS),
    one_name_for_latents_and_data: (Y,),
    one_name_with_two_batch_sizes: (X, Y),
    crossed: (TABLE,),
    far_from_the_right: (Y,),
    a_loss_of_the_batch: (X, Y),
    ones_trick: (X, Y),
    looks_for_missing: (X, np.where(np.arange(ROWS) % 6 == 1, np.nan, Y).astype(np.float32)),
    tempered: (X, Y),
}


@pytest.mark.filterwarnings("ignore:Missing a plate statement")  # NumPyro's, of a_square_without_columns
@pytest.mark.parametrize("model", RIGHT, ids=lambda model: model.__name__)
def test_right_models_have_the_exact_potential(model):
    data, kwargs = RIGHT[model], {"batch": BATCH}
    given = Arguments.of(data, kwargs)
    engine = SGWORLD(model, 1e-3)._engine(given)
    target, binding = engine.target, Binding(engine, given, hold=False)
    z = target.unravel(jnp.linspace(-0.4, 0.5, target.dim))

    @jax.jit
    def minibatches(z):
        arguments, _ = binding.read(given)
        return jax.vmap(lambda some: target.potential(z, arguments, some))(partition(target.plates))

    # NumPyro alone cannot take rows of NumPy data; a model that looks at their values must have these.
    args = tuple(map(jnp.asarray if target.abstract else HostArray.of, data))
    plain = jax.jit(lambda z: potential_energy(model, args, {"batch": None}, z))
    energies = minibatches(z)
    np.testing.assert_allclose(energies.mean(), plain(z), rtol=FLOAT32)
    assert energies.std() > 1e-3 * abs(energies.mean())  # or their mean would say nothing
    check_minibatches(binding, None)


def test_numpyro_says_what_it_says_of_shapes():
    with pytest.warns(UserWarning, match="Missing a plate statement for batch dimension -1 at site 'obs'"):
        inspect_model(a_square_without_columns, Arguments.of((SQUARE, BATCH), {}))


# --- Wrong ones ---


def dedented(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
    numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


def dedented_factor(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
    numpyro.factor("likelihood", -0.5 * ((yb - xb @ w) ** 2).sum())


def dedented_by_index(x, y):
    w = weights()
    with rows(BATCH) as chosen:
        pass
    numpyro.sample("obs", dist.Normal(x[chosen] @ w, 1), obs=y[chosen])


def weight_by_hand(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
    numpyro.factor("likelihood", -0.5 * ROWS / BATCH * ((yb - xb @ w) ** 2).sum())


def scale_by_hand(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
    with scale(scale=ROWS / BATCH):
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


def weighted_twice(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
        with scale(scale=ROWS / len(yb)):
            numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


def a_factor_beside(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)
    numpyro.factor("penalty", -0.5 * ((xb @ w) ** 2).mean())


def a_factor_behind_a_loop(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)
    (_, total), _ = lax.scan(lambda c, one: ((c[1], c[0] + one.sum()), None), (0.0, 0.0), xb)
    numpyro.factor("penalty", -(total**2))


def prior_of_the_minibatch(x, y):
    plate = rows(BATCH)
    with plate:
        xb, yb = subsample(x, y)
    w = numpyro.sample("w", dist.Normal(0, 1 / xb.std(0)).to_event(1))
    with plate:
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


def bounds_of_the_minibatch(y):
    plate = rows(BATCH)
    with plate:
        yb = subsample(y)
    top = numpyro.sample("top", dist.Uniform(yb.max(), yb.max() + 1))
    with plate:
        numpyro.sample("obs", dist.Normal(top, 1), obs=yb)


def pairs_from_two_plates(x, y):
    w = weights()
    with rows(BATCH, name="x"):
        xb = subsample(x)
    with rows(BATCH, name="y"):
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=subsample(y))


def local_in_a_scope(y):
    mu, plate = level(), rows(BATCH)
    with scope(prefix="m"), plate:
        each = numpyro.sample("each", dist.Normal(mu, 1))
        numpyro.sample("obs", dist.Normal(each, 1), obs=subsample(y))


def summed_factor_in_a_scope(y):
    mu, plate = level(), rows(BATCH)
    with scope(prefix="m"), plate:
        numpyro.factor("likelihood", -0.5 * ((subsample(y) - mu) ** 2).sum())


def a_column_of_means(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal((xb @ w)[:, None], 1), obs=yb)


def a_column_of_scales(x, y):
    w = weights()
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with rows(BATCH):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(xb @ w, sigma * jnp.ones((len(yb), 1))), obs=yb)


def a_column_of_values(x, y):
    w = weights()
    with rows(BATCH):
        numpyro.sample("obs", dist.Normal(subsample(x) @ w, 1), obs=subsample(y[:, None]))


def a_column_of_means_one_row_at_a_time(x, y):
    w = weights()
    with rows(1):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal((xb @ w)[:, None], 1), obs=yb)


def one_name_for_two_sizes(x, y):
    w = weights()

    def likelihood(name, x, y):
        with rows(BATCH, len(y)):
            xb, yb = subsample(x, y)
            numpyro.sample(name, dist.Normal(xb @ w, 1), obs=yb)

    likelihood("one", x, y)
    likelihood("two", x[:12], y[:12])


def a_name_that_is_larger_when_whole(y):
    with numpyro.plate("rows", 2 * ROWS):
        each = numpyro.sample("each", dist.Normal(0, 1))
    with rows(BATCH) as chosen:
        numpyro.sample("obs", dist.Normal(each[chosen], 1), obs=jnp.asarray(y)[chosen])


def longer_than_its_data(x, y):
    w = weights()
    with rows(BATCH, 30) as chosen:
        numpyro.sample("obs", dist.Normal(x[chosen] @ w, 1), obs=y[chosen])


def longer_than_what_it_takes(x, y):
    w = weights()
    with rows(BATCH, 30) as chosen:
        xb, yb = jnp.take(x, chosen, axis=0, mode="fill"), jnp.take(y, chosen + 0, mode="fill")
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


def batch_normalised(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal((xb - xb.mean(0)) / xb.std(0) @ w, 1), obs=yb)


def centred_by_the_minibatch(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb - yb.mean())


def summed_in_a_row(x, y):
    """A factor of the right shape whose every entry is the sum over the minibatch."""
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
        numpyro.factor("likelihood", jnp.full(len(yb), -0.5 * ((yb - xb @ w) ** 2).sum()))


def correlated_rows(x, y):
    """One Gaussian for all rows together: a sum over pairs of rows, which minibatches do not estimate."""
    mu = level()
    with rows(BATCH):
        yb = subsample(y)
        covariance = jnp.eye(len(yb)) + 0.5
        whole = dist.MultivariateNormal(jnp.full(len(yb), mu), covariance).log_prob(yb)
        numpyro.factor("likelihood", jnp.full(len(yb), whole / len(yb)))


def a_second_likelihood_of_one_minibatch(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)
        numpyro.sample("more", dist.Normal(w[0], 1), obs=y[:BATCH])


def sorted_rows(x, y):
    """Rows of y in another order than those of x, but for minibatches that are sorted."""
    w = weights()
    with rows(BATCH) as chosen:
        numpyro.sample("obs", dist.Normal(x[chosen] @ w, 1), obs=y[jnp.sort(chosen)])


def a_slice_from_the_first_row(x, y):
    """Right only for consecutive rows."""
    w = weights()
    with rows(BATCH) as chosen:
        xb = lax.dynamic_slice_in_dim(x, chosen[0], BATCH)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=subsample(y))


def a_small_error_beside_large_terms(x, y):
    """At the mode it shows; near 0 the terms are so large that it is their rounding."""
    mu = numpyro.sample("mu", dist.Normal(2000, 10))
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(mu + (xb - xb.mean(0)) @ w, 1), obs=2000 + yb)


def rows_of_rows(x, y):
    w = weights()
    with rows(BATCH) as chosen:
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(xb[chosen] @ w, 1), obs=yb)


def longer_than_its_data_row_by_row(x, y):
    w = weights()
    with rows(BATCH, 30) as chosen:
        xb, yb = jax.vmap(lambda i: x[i])(chosen), lax.map(lambda i: y[i], chosen)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


def logarithms_of_negative_numbers(y):
    mu = level()
    with rows(BATCH):
        numpyro.sample("obs", dist.Normal(mu, 1), obs=jnp.log(subsample(jnp.linspace(5, -1, len(y)))))


def one_event_of_all_rows(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(xb @ w, 1).to_event(1), obs=yb)


def decides_by_the_minibatch(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
        if yb.max() > 0:
            numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


WRONG = {
    sorted_rows: "'obs' their mean over a pass is",
    a_slice_from_the_first_row: "'obs' their mean over a pass is",
    rows_of_rows: r"Rows of plate 'rows' are taken of x of shape \(4, 2\).*already. Take them once",
    longer_than_its_data_row_by_row: r"'rows' has 30 rows, but x of shape \(24, 2\)",
    logarithms_of_negative_numbers: "'obs' is NaN for .* of its values",
    one_event_of_all_rows: "'obs'.*to_event",
    decides_by_the_minibatch: "decides by values .*in test_model_shapes.py.*jnp.where",
    dedented: "'obs' uses the rows that plate 'rows' takes, but does not stand in.*N/B = 6.*with numpyro.plate",
    dedented_factor: "'likelihood' uses the rows that plate 'rows' takes.*numpyro.factor",
    dedented_by_index: "'obs' uses the rows that plate 'rows' takes",
    weight_by_hand: "'likelihood' uses the rows that plate 'rows' takes.*drop a factor N/B",
    scale_by_hand: "'obs' uses the rows that plate 'rows' takes.*drop a factor N/B",
    weighted_twice: "'obs'.*a factor of N/B.*the plate does that",
    a_factor_beside: "'penalty' uses the rows that plate 'rows' takes",
    a_factor_behind_a_loop: "'penalty' uses the rows that plate 'rows' takes",
    prior_of_the_minibatch: "prior of latent site 'w' uses the rows that plate 'rows' takes.*outside the plate",
    bounds_of_the_minibatch: "prior of latent site 'top' uses the rows",
    pairs_from_two_plates: "'obs' stands in plate 'y' and uses the rows that plate 'x' takes.*inside one plate",
    local_in_a_scope: "'m/each' is inside the subsampled plate 'rows'",
    summed_factor_in_a_scope: r"Factor 'm/likelihood' has shape \(\) inside plate 'rows'",
    a_column_of_means: r"'obs' has a distribution of batch shape \(4, 1\).*mean\[:, 0\]",
    a_column_of_scales: r"'obs' their mean over a pass is.*all against each other \(shapes \(B, 1\)",
    a_column_of_values: r"'obs' has values of shape \(4, 1\).*Reshape the data",
    a_column_of_means_one_row_at_a_time: "'obs' their mean over a pass is.*broadcast rows against each other",
    one_name_for_two_sizes: "'rows' is declared with 24 rows and with 12.*Give each its name",
    a_name_that_is_larger_when_whole: "'rows' is declared with 48 rows and with 24",
    longer_than_its_data: r"'rows' has 30 rows, but x of shape \(24, 2\).*has 24",
    longer_than_what_it_takes: r"'rows' has 30 rows, but x of shape \(24, 2\)",
    batch_normalised: "'obs' their mean over a pass is.*variance.*standardise the data before",
    centred_by_the_minibatch: "'obs' their mean over a pass is",
    summed_in_a_row: "'likelihood' their mean over a pass is.*not their sum",
    correlated_rows: "'likelihood' their mean over a pass is",
    a_second_likelihood_of_one_minibatch: "'more' takes the same values whatever rows.*numpyro.subsample",
}


def start(kernel, *data, init_params=None):
    return kernel.init(jax.random.key(0), 0, init_params, data, {})


@pytest.mark.filterwarnings("ignore:Missing a plate statement", "ignore:Site 'obs' is scaled by")
@pytest.mark.parametrize("model", WRONG, ids=lambda model: model.__name__)
def test_wrong_models_are_refused_with_their_culprit(model):
    data = (X, Y) if model.__code__.co_argcount == 2 else (Y,)
    with pytest.raises(ModelError, match=f"(?s){WRONG[model]}"):
        start(SGWORLD(model, 1e-3), *data)


def test_an_error_that_shows_at_the_mode():
    kernel = SGWORLD(a_small_error_beside_large_terms)
    with pytest.raises(ModelError, match="'obs' their mean over a pass is"):
        start(kernel, X, Y, init_params={"mu": jnp.float32(2000 + Y.mean()), "w": jnp.float32([1, -1])})


def scaled_inside(x, y):
    w = weights()
    with rows(BATCH), scale(scale=ROWS / BATCH):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(xb @ w, 1), obs=yb)


@pytest.mark.parametrize("scheme", [RandomReshuffle(), FullBatch()], ids=repr)
def test_a_scale_that_is_a_weight_by_hand(scheme):
    with pytest.warns(UserWarning, match="'obs' is scaled by 6, which is N/B of plate 'rows'.*drop it"):
        start(SGWORLD(scaled_inside, 1e-3, subsampling=scheme), X, Y)


def test_where_keys_are_traced_the_data_are_looked_at_all_the_same():
    with pytest.raises(ModelError, match="their mean over a pass"):
        jax.vmap(lambda key: SGLD(batch_normalised, 1e-3).init(key, 0, None, (X, Y), {}))(
            jax.random.split(jax.random.key(0), 2)
        )


def for_its_batch_size_only(x, y):
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(xb @ w + jnp.zeros(BATCH), 1), obs=yb)


def test_a_model_that_runs_for_its_batch_size_only():
    """Its chain is right and its view on all the data is none; tuning would fail."""
    with pytest.warns(UserWarning, match="not on all its rows.*instead of the batch size 4"):
        start(SGWORLD(for_its_batch_size_only, 1e-3), X, Y)
    with pytest.raises(ModelError, match="not on all its rows"):
        start(SGWORLD(for_its_batch_size_only), X, Y)


def ill_conditioned(x, y):
    """Differences of large numbers in single precision, right all the same."""
    w = weights()
    with rows(BATCH):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal(1e5 + xb @ w, 1e-2), obs=1e5 + yb)


def test_rounding_is_no_difference():
    start(SGWORLD(ill_conditioned, 1e-9), X, Y)


@pytest.mark.parametrize("batch", [5, 7, 23])
def test_batches_that_do_not_divide_the_rows(batch):
    start(SGWORLD(partial(rows_and_subsample, batch=batch), 1e-3), X, Y)
    with pytest.raises(ModelError, match="'obs'"):
        start(SGWORLD(partial(_normalised, batch=batch), 1e-3), X, Y)


def _normalised(x, y, batch):
    w = weights()
    with rows(batch):
        xb, yb = subsample(x, y)
        numpyro.sample("obs", dist.Normal((xb - xb.mean(0)) @ w, 1), obs=yb * len(yb))


# --- Values that NumPyro takes in silence ---


def by_group(y, group):
    each = numpyro.sample("each", dist.Normal(0, 1).expand([3]).to_event(1))
    with rows(BATCH):
        yb, some = subsample(y, group)
        numpyro.sample("obs", dist.Normal(each[some], 1), obs=yb)


def by_group_of_rows(y, group):
    each = numpyro.sample("each", dist.Normal(0, 1).expand([3]).to_event(1))
    with rows(BATCH) as chosen:
        numpyro.sample("obs", dist.Normal(each[group[chosen] + 0], 1), obs=y[chosen])


def by_group_from_one(y, group):
    by_group(y, group - 1)


def by_cell(y, group):
    """Labels that are made of two arguments, the largest of which never meet."""
    each = numpyro.sample("each", dist.Normal(0, 1).expand([7]).to_event(1))
    with rows(BATCH):
        yb, some = subsample(y, group)
        other = subsample(2 - group)
        numpyro.sample("obs", dist.Normal(each[3 * some + other], 1), obs=yb)


@pytest.mark.parametrize("model", [by_group, by_group_of_rows])
def test_labels_past_the_end_of_an_array(model):
    start(SGWORLD(model, 1e-3), Y, GROUPS)
    with pytest.warns(UserWarning, match=r"group goes up to 3, and indexes an array of shape \(3,\).*count from 0"):
        start(SGWORLD(model, 1e-3), Y, GROUPS + 1)


@pytest.mark.parametrize(("model", "group"), [(by_group_from_one, GROUPS + 1), (by_cell, GROUPS)])
def test_labels_that_fit(model, group):
    start(SGWORLD(model, 1e-3), Y, group)


def near_zero(y, keep):
    """A truncated distribution: what is beyond its bounds has no density at all."""
    mu = level()
    with rows(BATCH):
        yb, keep = subsample(y, keep)
        with numpyro.handlers.mask(mask=keep):
            numpyro.sample("obs", dist.TruncatedNormal(mu, 1, low=-3, high=3), obs=yb)


def test_values_outside_of_the_support():
    y = Y.clip(-2, 2)
    y[[7, 9]] = 4  # behind the first minibatch, where the start is looked for
    with pytest.warns(UserWarning, match="2 values of site 'obs' are outside of the support.*mask"):
        start(SGWORLD(near_zero, 1e-3), y, np.full(ROWS, True))
    start(SGWORLD(near_zero, 1e-3), y, y < 3)
