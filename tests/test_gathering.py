"""How the rows of a step are read from the data: the ways differ in speed alone."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_numpyro import SGWORLD, BatchReshuffle, RandomReshuffle, RunReshuffle
from sgworld_numpyro.chain import engine
from sgworld_numpyro.chain.lines import as_rows, in_lines
from tests.runs import field, make, run
from tests.tables import by_name

ROWS, BATCH = 60, 12
RNG = np.random.default_rng(0)
X, WIDE, Y = (RNG.normal(size=shape).astype(np.float32) for shape in [(ROWS, 3), (2, ROWS, 3), ROWS])


def two_layouts(x, wide, y):
    """Rows along the first axis of two arrays and along the middle one of a third."""
    w = numpyro.sample("w", dist.Normal(0, 1).expand([3]).to_event(1))
    with numpyro.plate("rows", ROWS, subsample_size=BATCH):
        x, wide = numpyro.subsample(x, event_dim=1), numpyro.subsample(wide, event_dim=1)
        y = numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(x @ w + jnp.sin(wide @ w).sum(0), 1), obs=y)


def draws_of(scheme, chains, steps=7):
    kernel = SGWORLD(two_layouts, 1e-3, subsampling=scheme, steps_per_sample=steps)
    return field(run(kernel, X, WIDE, Y, num_samples=5, num_chains=chains, extra_fields=("position",)))


WAYS = {  # bytes up to which rows are gathered ahead, and from which on they are gathered without scratch
    "ahead": (2**20, 0),
    "scratch": (0, 2**20),
    "neither": (0, 0),
}


@pytest.mark.parametrize("chains", [1, 3])
@pytest.mark.parametrize("scheme", [RandomReshuffle(), RunReshuffle(4), BatchReshuffle()], ids=by_name)
def test_the_way_changes_nothing(scheme, chains, monkeypatch):
    found = {}
    for way, (ahead, split) in WAYS.items():
        monkeypatch.setattr(engine, "GATHER_AHEAD_BYTES", ahead)
        monkeypatch.setattr(engine, "SPLIT_BYTES", split)
        found[way] = draws_of(scheme, chains)
    for way, draws in found.items():  # fused otherwise, sums may be rounded otherwise
        np.testing.assert_allclose(draws, found["neither"], rtol=1e-5, atol=1e-6, err_msg=way)


@pytest.mark.parametrize("scheme", [RunReshuffle(), BatchReshuffle()], ids=by_name)
def test_stored_runs_and_batches_are_the_rows_of_the_scheme(scheme):
    """The same rows gathered from the data as they lie, by a scheme that does not say how it stores them."""

    class Hidden:
        indices = staticmethod(scheme.indices)
        period = staticmethod(scheme.period)

    np.testing.assert_allclose(draws_of(scheme, 1), draws_of(Hidden(), 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scheme", [RandomReshuffle(), RunReshuffle()], ids=by_name)
def test_going_on_is_bitwise_as_running_through(scheme, monkeypatch):
    """With an odd number of steps a draw, so that the second part begins at the other half of the scratch."""
    monkeypatch.setattr(engine, "GATHER_AHEAD_BYTES", 0)
    kernel = SGWORLD(two_layouts, 1e-3, subsampling=scheme, steps_per_sample=7)
    whole = make(kernel, 6, progress_bar=True)
    whole.run(jax.random.key(1), X, WIDE, Y)
    parts = make(kernel, 3, progress_bar=True)
    parts.run(jax.random.key(1), X, WIDE, Y)
    first = parts.get_samples()["w"]
    parts.post_warmup_state = parts.last_state
    parts.run(parts.last_state.rng_key, X, WIDE, Y)
    np.testing.assert_array_equal(np.concatenate([first, parts.get_samples()["w"]]), whole.get_samples()["w"])


@pytest.mark.parametrize(("shape", "axis"), [((6, 2, 3), 0), ((2, 6, 3), -2), ((2, 3, 6), 2), ((6,), -1)])
def test_lines_hold_rows(shape, axis):
    array = RNG.normal(size=shape)
    order = np.array([3, 1, 4, 0, 5, 2])
    lines = in_lines(array, order, axis, 2)
    assert lines.shape == (3, array.size // 3)
    np.testing.assert_array_equal(as_rows(jnp.asarray(lines), shape, axis), jnp.take(array, order, axis))
    np.testing.assert_array_equal(as_rows(jnp.asarray(lines[1:]), shape, axis), jnp.take(array, order[2:], axis))
