"""ArviZ, Predictive and log_likelihood see the model on all its data, never the last minibatch."""

import pickle

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer import Predictive, log_likelihood

from benchmarks import workloads
from sgworld_numpyro import SGWORLD
from sgworld_numpyro.chain import data as chain_data
from tests.models import BATCH, CASES, ROWS, X, Y, linear, linear_by_index, users_and_items
from tests.runs import run, subprocess_output

CHAINS, DRAWS = 2, 50
FIELDS = ("position", "potential_energy", "step_size")


def run_of(model, *args, num_chains=CHAINS, **options):
    return run(SGWORLD(model, 1e-3), *args, num_warmup=2, num_samples=DRAWS, num_chains=num_chains, **options)


@pytest.fixture(scope="module")
def mcmc():
    return run_of(linear, X, Y, extra_fields=FIELDS)


def log_densities(samples):
    """Of each row at each draw, by hand."""
    mean = np.asarray(samples["w"], float) @ X.T.astype(float)
    return -0.5 * (Y - mean) ** 2 - 0.5 * np.log(2 * np.pi)


def test_arviz_sees_all_rows(mcmc):
    idata = az.from_numpyro(mcmc, log_likelihood=True, dims={"w": ["feature"]}, coords={"feature": ["a", "b"]})
    np.testing.assert_array_equal(idata["observed_data"]["obs"], Y)
    assert idata["posterior"]["w"].dims == ("chain", "draw", "feature")
    pointwise = idata["log_likelihood"]["obs"]
    assert pointwise.shape == (CHAINS, DRAWS, ROWS)
    assert pointwise.dims[:2] == ("chain", "draw")
    np.testing.assert_allclose(pointwise, log_densities(mcmc.get_samples(group_by_chain=True)), rtol=1e-5)
    stats = idata["sample_stats"]
    assert not stats["diverging"].any()
    np.testing.assert_array_equal(stats["lp"], -mcmc.get_extra_fields(group_by_chain=True)["potential_energy"])


def test_loo(mcmc):
    loo = az.loo(az.from_numpyro(mcmc, log_likelihood=True), pointwise=True)
    assert np.isfinite(loo.elpd if hasattr(loo, "elpd") else loo.elpd_loo)
    assert np.size(loo.elpd_i if hasattr(loo, "elpd_i") else loo.loo_i) == ROWS


def test_numpyro_log_likelihood(mcmc):
    samples = mcmc.get_samples()
    rows = log_likelihood(mcmc.sampler.model, samples, X, Y)["obs"]
    np.testing.assert_allclose(rows, log_densities(samples), rtol=1e-5)


def test_predictive_covers_all_rows_and_new_data(mcmc):
    predictive = Predictive(mcmc.sampler.model, mcmc.get_samples())
    assert predictive(jax.random.key(1), X)["obs"].shape == (CHAINS * DRAWS, ROWS)
    for size in (3, ROWS + 1):  # less than a minibatch, and more than the data
        drawn = predictive(jax.random.key(1), np.resize(X, (size, 2)))["obs"]
        assert drawn.shape == (CHAINS * DRAWS, size)
        assert np.unique(drawn).size == drawn.size
    prior = Predictive(mcmc.sampler.model, num_samples=7)(jax.random.key(2), X)
    assert prior["obs"].shape == (7, ROWS)


def test_rows_by_index_and_nested_plates():
    """Log densities by draw and row, without a run."""
    table = CASES["users_and_items"].args[0]
    rng = np.random.default_rng(1)
    u, v = rng.standard_normal((2, 6)), rng.standard_normal((2, 8))
    model = SGWORLD(users_and_items, 1e-3).model
    density = log_likelihood(model, {"u": u, "v": v}, table)["obs"]
    expected = -0.5 * (table - u[:, :, None] * v[:, None]) ** 2 - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(density, expected, rtol=1e-5)
    w = rng.standard_normal((3, 2))
    density = log_likelihood(SGWORLD(linear_by_index, 1e-3).model, {"w": w}, X, Y)["obs"]
    np.testing.assert_allclose(density, log_densities({"w": w}), rtol=1e-4)


def outside_and_inside(x, y):
    w = numpyro.sample("w", numpyro.distributions.Normal(0, 1).expand([2]).to_event(1))
    numpyro.deterministic("norm", jnp.sqrt((w**2).sum()))
    with numpyro.plate("rows", ROWS, subsample_size=BATCH):
        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        mean = numpyro.deterministic("mean", xb @ w)
        numpyro.sample("obs", numpyro.distributions.Normal(mean, 1), obs=yb)


def test_deterministic_sites_of_rows_come_back_in_predictions():
    """They are not collected, since a draw would hold those of a minibatch."""
    mcmc = run_of(outside_and_inside, X, Y)
    samples = mcmc.get_samples()
    np.testing.assert_allclose(samples["norm"], np.linalg.norm(samples["w"], axis=-1), rtol=1e-6)
    assert set(az.from_numpyro(mcmc)["posterior"].data_vars) == {"w", "norm"}
    del samples["norm"]
    means = Predictive(mcmc.sampler.model, samples)(jax.random.key(0), X, Y)["mean"]
    np.testing.assert_allclose(means, samples["w"] @ X.T, rtol=1e-5, atol=1e-6)


def test_the_view_equals_itself_and_pickles():
    view = SGWORLD(linear, 1e-3).model
    again = pickle.loads(pickle.dumps(view))
    assert view == again == SGWORLD(linear, 1.0).model
    assert hash(view) == hash(again)
    assert view != SGWORLD(linear_by_index, 1e-3).model
    assert view != linear
    assert "linear" in repr(view)


def test_print_summary(mcmc, capsys):
    mcmc.print_summary()
    out = capsys.readouterr().out
    assert "w[0]" in out
    assert "w[1]" in out
    assert "Number of divergences: 0" in out


@pytest.mark.parametrize(
    ("num_chains", "chain_method"), [(1, "parallel"), (CHAINS, "vectorized"), (CHAINS, "sequential")]
)
def test_extra_fields(num_chains, chain_method):
    mcmc = run_of(linear, X, Y, num_chains=num_chains, chain_method=chain_method, extra_fields=FIELDS)
    extra = mcmc.get_extra_fields(group_by_chain=True)
    shape = (num_chains, DRAWS)
    assert {name: value.shape for name, value in extra.items()} == {
        "diverging": shape,
        "position": (*shape, 2),
        "potential_energy": shape,
        "step_size": shape,
    }
    np.testing.assert_array_equal(extra["position"], mcmc.get_samples(group_by_chain=True)["w"])
    np.testing.assert_array_equal(extra["step_size"], np.float32(1e-3))
    assert mcmc.last_state.position.shape == ((num_chains, 2) if num_chains > 1 else (2,))


def test_large_data_are_no_part_of_the_executable():
    """What is lowered for a sample on 40 MiB of data fits in a few hundred kilobytes."""
    workload = workloads.logistic_regression(rows=200_000, dim=52)
    data = jax.tree.map(jnp.array, workload.data)
    assert data[0].nbytes > chain_data.HOLD_BYTES
    kernel = SGWORLD(workload.model, 1e-7, steps_per_sample=10)
    state = kernel.init(jax.random.key(0), 0, None, data, {})
    lowered = jax.jit(lambda state: kernel.sample(state, data, {})).lower(state)
    labels = 2 * data[1].nbytes  # small enough to stay a constant, in hexadecimal
    assert len(lowered.as_text()) < labels + 2**19
    for _ in range(2):
        state = jax.jit(lambda state: kernel.sample(state, data, {}))(state)
    assert not data[0].is_deleted()  # what a program holds in a Ref is donated to it


def test_data_are_held_once_where_constants_are_arguments():
    """The user's own array is read, and the draws are those on a copy."""
    code = """
import jax
import jax.numpy as jnp
from sgworld_numpyro import SGWORLD
from sgworld_numpyro.chain import data
from tests.models import Y, gaussian_mean
from tests.runs import run
data.HOLD_BYTES, y = 1, jnp.asarray(Y)
mcmc = run(SGWORLD(gaussian_mean, 1e-2), y)
held = mcmc.sampler._bindings.current._data.read(id(y))
print(held.unsafe_buffer_pointer() == y.unsafe_buffer_pointer(), *mcmc.get_samples()["mu"].tolist())
"""
    once = subprocess_output(code, JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS="true").split()
    copied = subprocess_output(code).split()
    assert (once[0], copied[0]) == ("True", "False")
    assert once[1:] == copied[1:]
