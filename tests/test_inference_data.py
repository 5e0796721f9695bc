"""ArviZ data say how the run was made, and still do after a netCDF file."""

import json
import pickle
from dataclasses import dataclass
from functools import cache

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.handlers import scope
from numpyro.infer import MCMC, NUTS

from sgworld_numpyro import (
    SGD,
    SGLD,
    SGWORLD,
    EulerMaruyama,
    FullBatch,
    LeimkuhlerMatthews,
    WellingTeh,
    __version__,
    to_inference_data,
)
from sgworld_numpyro.diagnostics import what_did_it_cost
from sgworld_numpyro.nonequilibrium import labelled
from sgworld_numpyro.preconditioners import Diagonal
from sgworld_numpyro.results.run_attributes import name_of
from tests.runs import run

ROWS = jnp.asarray(np.random.default_rng(0).normal(size=(60, 2)), jnp.float32)
VERSIONS = {"sgworld_numpyro_version", "jax_version", "numpyro_version"}


def model(x):
    mean = numpyro.sample("mean", dist.Normal(0, 10).expand([2]).to_event(1))
    with numpyro.plate("rows", len(x), subsample_size=10):
        numpyro.sample("obs", dist.Normal(mean, 1).to_event(1), obs=numpyro.subsample(x, event_dim=1))


def two_plates(x, y):
    mean = numpyro.sample("mean", dist.Normal(0, 10).expand([2]).to_event(1))
    for name, values, size in (("xs", x, 10), ("ys", y, 5)):
        with numpyro.plate(name, len(values), subsample_size=size):
            obs = numpyro.subsample(values, event_dim=1)
            numpyro.sample(f"obs_{name}", dist.Normal(mean, 1).to_event(1), obs=obs)


def run_on(kernel, *data, draws=12, warmup=3, **options):
    return run(kernel, *(data or (ROWS,)), num_warmup=warmup, num_samples=draws, extra_fields=("i",), **options)


@cache
def a_run():
    """The simplest, of 12 draws."""
    return run_on(SGWORLD(model, 1e-3))


def attrs_of(data, tmp_path):
    """Of the posterior, the same before and after a netCDF file."""
    before = dict(data["posterior"].attrs)
    data.to_netcdf(tmp_path / "run.nc")
    after = az.from_netcdf(tmp_path / "run.nc")["posterior"].attrs
    for key, value in before.items():
        assert np.ravel(after[key]).tolist() == np.ravel(value).tolist(), key  # ArviZ 1.x stores a list itself
    return before


@dataclass(frozen=True)
class MyOwnEuler(EulerMaruyama):
    """Somebody's own integrator."""


def test_a_run_says_how_it_was_made(tmp_path):
    attrs = attrs_of(to_inference_data(a_run()), tmp_path)
    expected = {
        "scheme": "random_reshuffle",
        "integrator": "euler_maruyama",
        "preconditioner": "identity",
        "step_size": 1e-3,
        "temperature": 1.0,
        "steps_per_sample": 6,
        "num_rows": 60,
        "batch_size": 10,
        "samples_before": 3,
        "num_warmup": 3,
        "thinning": 1,
        "sgworld_numpyro_version": __version__,
        "jax_version": jax.__version__,
        "numpyro_version": numpyro.__version__,
    }
    assert {key: attrs[key] for key in expected} == expected
    assert {"step_size_schedule", "plates"}.isdisjoint(attrs)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (
            SGD(model, 1e-3, integrator=LeimkuhlerMatthews(), preconditioner=Diagonal(jnp.ones(2))),
            {
                "scheme": "with_replacement",
                "integrator": "leimkuhler_matthews",
                "preconditioner": "diagonal",
                "temperature": 0.0,
            },
        ),
        (
            SGLD(model, 1e-3, integrator=MyOwnEuler(), temperature=2, steps_per_sample=4),
            {"integrator": "my_own_euler", "temperature": 2.0, "steps_per_sample": 4},
        ),
        (
            SGWORLD(model, 1e-3, subsampling=FullBatch()),
            {"scheme": "full_batch", "batch_size": 60, "steps_per_sample": 1},
        ),
    ],
)
def test_components_go_by_name(kernel, expected):
    attrs = to_inference_data(run_on(kernel))["posterior"].attrs
    assert {key: attrs[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("RandomReshuffle", "random_reshuffle"), ("BAOAB", "baoab"), ("UBUScheme", "ubu_scheme"), ("lower", "lower")],
)
def test_names_of_classes(name, expected):
    assert name_of(type(name, (), {})()) == expected


def test_a_schedule_says_where_it_ended(tmp_path):
    schedule = WellingTeh(a=1e-3, b=10.0)
    attrs = attrs_of(to_inference_data(run_on(SGLD(model, schedule))), tmp_path)
    last_step = 15 * 6 - 1
    assert attrs["step_size"] == pytest.approx(schedule(last_step), rel=1e-5)  # single precision
    assert attrs["step_size_schedule"] == repr(schedule)


def test_several_plates_are_listed(tmp_path):
    data = to_inference_data(run_on(SGWORLD(two_plates, 1e-3, steps_per_sample=1), ROWS, ROWS[:20], draws=40))
    attrs = attrs_of(data, tmp_path)
    assert json.loads(attrs["plates"]) == {
        "xs": {"num_rows": 60, "batch_size": 10},
        "ys": {"num_rows": 20, "batch_size": 5},
    }
    assert {"num_rows", "batch_size"}.isdisjoint(attrs)
    assert labelled.positions(data).sizes["draw"] == 40  # their phases are not checked


@pytest.mark.parametrize(
    ("options", "index_origin"),
    [
        ({"draws": 14, "thinning": 3}, 0),  # two samples are dropped before the first draw
        ({"num_chains": 2, "chain_method": "vectorized"}, 1),
    ],
)
def test_draws_know_how_many_samples_were_taken(options, index_origin):
    data = to_inference_data(run_on(SGWORLD(model, 1e-3), **options), index_origin=index_origin)
    attrs = data["posterior"].attrs
    taken = attrs["samples_before"] + (data["posterior"]["draw"].values + 1) * attrs["thinning"]
    counted = data["sample_stats"]["i"].values
    np.testing.assert_array_equal(counted, np.broadcast_to(taken, counted.shape))
    kept = attrs["num_warmup"] + counted.shape[1] * attrs["thinning"]
    assert what_did_it_cost.examine(data).numbers["gradients"] == len(counted) * kept * 6


def test_a_resumed_run_knows_its_phase():
    mcmc = run_on(SGWORLD(model, 1e-3, steps_per_sample=4), draws=10)
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key, ROWS, extra_fields=("i",))
    data = to_inference_data(mcmc)
    assert data["posterior"].attrs["samples_before"] == 13
    ends = labelled.period_ends(data)
    np.testing.assert_array_equal(ends["sample_stats"]["i"], [[15, 18, 21]])  # times 4 is a multiple of 6


def test_a_pickled_run_still_says_it():
    mcmc = a_run()
    again = pickle.loads(pickle.dumps(mcmc))
    assert to_inference_data(again)["posterior"].attrs["steps_per_sample"] == 6


def test_another_sampler_has_no_settings(tmp_path):
    def whole(x):
        mean = numpyro.sample("mean", dist.Normal(0, 10).expand([2]).to_event(1))
        numpyro.sample("obs", dist.Normal(mean, 1).to_event(1), obs=x)

    data = to_inference_data(run_nuts(whole))
    attrs = attrs_of(data, tmp_path)
    assert attrs.keys() >= VERSIONS | {"num_warmup", "thinning"}
    assert {"scheme", "step_size", "steps_per_sample", "samples_before"}.isdisjoint(attrs)
    assert labelled.positions(data).shape == (1, 12, 2)
    with pytest.raises(ValueError, match="of a run of NUTS want log_likelihood=True"):
        to_inference_data(run_nuts(whole), log_likelihood=[0, 1])


def run_nuts(whole):
    return run(NUTS(whole), ROWS, num_warmup=3, num_samples=12)


def test_options_are_those_of_arviz():
    mcmc = a_run()
    assert "log_likelihood" not in list(to_inference_data(mcmc))
    data = to_inference_data(mcmc, log_likelihood=True, coords={"axis": ["x", "y"]}, dims={"mean": ["axis"]})
    assert data["log_likelihood"]["obs"].shape[:3] == (1, 12, 60)  # of all rows
    assert labelled.positions(data)["coordinate"].values.tolist() == ["mean[x]", "mean[y]"]


def test_what_has_not_run_has_no_data():
    with pytest.raises(ValueError, match=r"call mcmc\.run"):
        to_inference_data(MCMC(SGLD(model, 1e-3), num_warmup=1, num_samples=1))


def groups_and_modules(x, y):
    """A site of a module, with a slash, and a plate of groups that is not subsampled."""
    weight = numpyro.sample("net/layer.kernel", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("group", 3):
        effect = numpyro.sample("effect", dist.Normal(0, 1))
    with numpyro.plate("row", len(x), subsample_size=10) as rows:
        mean = numpyro.subsample(x, event_dim=1) @ weight + effect[jnp.asarray(rows) % 3]
        numpyro.sample("obs", dist.Normal(mean, 1), obs=numpyro.subsample(y, event_dim=0))


def test_dimensions_are_the_plates_and_slashes_are_dots(tmp_path):
    y = ROWS[:, 0]
    mcmc = run_on(SGWORLD(groups_and_modules, 1e-3), ROWS, y, draws=10, num_chains=2, chain_method="vectorized")
    chosen = [0, 7, 59]
    data = to_inference_data(mcmc, log_likelihood=chosen, coords={"group": ["a", "b", "c"]})
    data.to_netcdf(tmp_path / "run.nc")
    data = az.from_netcdf(tmp_path / "run.nc")
    posterior = data["posterior"]
    assert posterior["net.layer.kernel"].shape == (2, 10, 2)
    assert posterior["effect"].dims == ("chain", "draw", "group")
    assert list(posterior["group"].values) == ["a", "b", "c"]
    assert data["observed_data"]["obs"].dims == ("row",)
    found = data["log_likelihood"]["obs"]
    assert found.dims == ("chain", "draw", "row")
    assert list(found["row"].values) == chosen
    draws = mcmc.get_samples(group_by_chain=True)
    mean = np.einsum("cdk,nk->cdn", draws["net/layer.kernel"], ROWS[jnp.array(chosen)])
    mean += draws["effect"][..., np.array(chosen) % 3]
    np.testing.assert_allclose(found, dist.Normal(mean, 1).log_prob(y[jnp.array(chosen)]), rtol=1e-4)
    assert len(az.summary(data)) == 5
    assert len(json.loads(posterior.attrs["noise_key"])) == len(json.loads(posterior.attrs["shuffle_key"])) == 2


def test_slashes_of_a_scope_become_dots_and_rows_keep_their_labels(tmp_path):
    def inside(x):
        """Takes the rows of NumPy data by the plate's indices."""
        mean = numpyro.sample("mean", dist.Normal(0, 10).expand([2]).to_event(1))
        with numpyro.plate("rows", len(x), subsample_size=10) as rows:
            numpyro.sample("obs", dist.Normal(mean, 1).to_event(1), obs=x[rows])

    mcmc = run_on(SGWORLD(scope(inside, prefix="net"), 1e-3), np.asarray(ROWS), draws=4)
    labels = [f"r{n}" for n in range(60)]
    data = to_inference_data(
        mcmc, log_likelihood=list(range(59, -1, -1)), coords={"net/rows": labels}, dims={"net/mean": ["net/axis"]}
    )
    data.to_netcdf(tmp_path / "run.nc")
    data = az.from_netcdf(tmp_path / "run.nc")
    assert data["posterior"]["net.mean"].dims == ("chain", "draw", "net.axis")
    assert data["observed_data"]["net.obs"].dims[0] == "net.rows"
    found = data["log_likelihood"]["net.obs"]
    assert list(found["net.rows"].values) == list(data["observed_data"]["net.rows"].values) == labels
    expected = dist.Normal(mcmc.get_samples()["net/mean"][:, None], 1).to_event(1).log_prob(ROWS)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)


def test_log_likelihood_in_blocks_is_the_one_in_whole(monkeypatch):
    mcmc = a_run()
    whole = to_inference_data(mcmc, log_likelihood=True)["log_likelihood"]["obs"]
    monkeypatch.setattr("sgworld_numpyro.results.row_blocks.BLOCK_ROWS", 16)  # does not divide 60
    np.testing.assert_allclose(to_inference_data(mcmc, log_likelihood=True)["log_likelihood"]["obs"], whole, rtol=1e-5)
    expected = dist.Normal(mcmc.get_samples()["mean"][:, None], 1).to_event(1).log_prob(ROWS)
    np.testing.assert_allclose(whole[0], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([60], "rows 0 to 59"),
        ([-1], "from -1"),
        ([0.5], "whole numbers"),
        ([], "whole numbers"),
        ([3] * 60, "repeat"),
        ({"row": [1]}, "has rows"),
    ],
)
def test_rows_that_are_not_there_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        to_inference_data(a_run(), log_likelihood=rows)


def test_log_likelihood_of_several_plates(monkeypatch):
    mcmc = run_on(SGWORLD(two_plates, 1e-3), ROWS, ROWS[:20], draws=4)
    found = to_inference_data(mcmc, log_likelihood={"ys": [1, 2]})["log_likelihood"]
    assert found["obs_xs"].shape == (1, 4, 60)
    assert list(found["ys"].values) == [1, 2]
    with pytest.raises(ValueError, match="dictionary by plate"):
        to_inference_data(mcmc, log_likelihood=[1])
    monkeypatch.setattr("sgworld_numpyro.results.log_likelihood.MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="name some rows"):
        to_inference_data(mcmc, log_likelihood=True)


def test_log_likelihood_wants_the_draws():
    mcmc = run_on(
        SGWORLD(groups_and_modules, 1e-3, keep=lambda values: {"effect": values["effect"][:2]}), ROWS, ROWS[:, 0]
    )
    data = to_inference_data(mcmc, coords={"group": ["a", "b", "c"]})
    assert data["posterior"]["effect"].shape == (1, 12, 2)  # no longer the plate's three
    with pytest.raises(ValueError, match="kept other values"):
        to_inference_data(mcmc, log_likelihood=True)


def test_a_dimension_is_not_called_as_a_site():
    with pytest.raises(ValueError, match="call the dimension otherwise"):
        to_inference_data(a_run(), dims={"mean": ["mean"]})
    with pytest.raises(ValueError, match=r"want a list of names, \['axis'\]"):
        to_inference_data(a_run(), dims={"mean": "axis"})
