"""The measures on ArviZ data: what a run recorded, which of its draws make a chain, and the names of coordinates."""

import arviz as az
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.infer import NUTS

from sgworld_numpyro import SGD, SGLD, SGWORLD, RandomReshuffle, WithReplacement, to_inference_data
from sgworld_numpyro.nonequilibrium import (
    LinearDescriptionWarning,
    check_assumptions,
    circulation,
    entropy_production,
    held_out_sigma,
    labelled,
    linear_dynamics,
    principal_components,
    random_projection,
    uncertainty_relation,
)
from sgworld_numpyro.nonequilibrium import recorded as recorded_runs
from tests import problems
from tests.runs import run


def model(x):
    """Correlated data, which the model takes for independent: gradient noise and curvature do not commute."""
    mean = numpyro.sample("mean", dist.Normal(0, 10).expand([2]).to_event(1))
    with numpyro.plate("rows", len(x), subsample_size=10):
        batch = numpyro.subsample(x, event_dim=1)
        numpyro.sample("obs", dist.Normal(mean, jnp.array([1.0, 0.5])).to_event(1), obs=batch)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(12)
    return jnp.asarray(rng.multivariate_normal([0, 0], [[1.0, 0.8], [0.8, 1.0]], size=200), jnp.float32)


def run_on(kernel, data, draws=1500, chains=64, warmup=100):
    return run(kernel, data, num_warmup=warmup, num_samples=draws, num_chains=chains, key=1)


@pytest.mark.slow
def test_sgworld_is_in_equilibrium_where_sgld_is_not(data):
    step_size = 1.0 / (20 * 800)  # R h λ = 1
    rates = {}
    for kernel in (SGLD, SGWORLD):
        x = np.asarray(run_on(kernel(model, step_size), data).get_samples(group_by_chain=True)["mean"])
        rates[kernel] = entropy_production(x), circulation(x)
        assert check_assumptions(x).problems == ()
    driven, turning = rates[SGLD]
    assert driven.rate > 10 * driven.rate_error
    assert driven.p_value == 1 / 200
    assert turning.p_value == 1 / 1000
    idle, still = rates[SGWORLD]
    assert abs(idle.rate) < 5 * idle.rate_error + 2 / (64 * 1500)
    assert idle.p_value > 0.01
    assert still.p_value > 0.01
    assert idle.rate < 0.05 * driven.rate


def test_labelled_measures_of_a_run(data, tmp_path):
    idata = az.from_numpyro(run_on(SGLD(model, 1e-5), data, draws=400, chains=8), log_likelihood=False)
    idata.to_netcdf(tmp_path / "run.nc")
    for source in (idata, az.from_netcdf(tmp_path / "run.nc")):
        x = labelled.positions(source)
        assert x.dims == ("chain", "draw", "coordinate")
        assert x["coordinate"].values.tolist() == ["mean[0]", "mean[1]"]
        areas = labelled.circulation(source)
        np.testing.assert_array_equal(areas["matrix"], circulation(x.values).matrix)
        assert areas["matrix"].sel(coordinate="mean[0]", coordinate_bis="mean[1]").ndim == 0
        produced = labelled.entropy_production(source, var_names=["mean"])
        assert produced["sigma"].dims == ("chain", "transition")
        assert float(produced["rate"]) == entropy_production(x.values).rate
        fitted = labelled.fit_linear_dynamics(source)
        assert set(fitted["A"].dims) == {"coordinate", "coordinate_bis"}
        assert fitted["mean"].dims == ("coordinate",)
        theorems = labelled.fluctuation_theorems(source, lengths=(1, 2))
        assert theorems["slope"].dims == ("length",)
        assert theorems["log_ratio"].dims == ("length", "pair")
        current = labelled.probability_current(source, bins=6)
        assert current["current"].shape == (2, 6, 6)
        assert current["component"].values.tolist() == ["mean[0]", "mean[1]"]
        np.testing.assert_array_equal(
            current["density"], labelled.probability_current(source, dims=("mean[0]", "mean[1]"), bins=6)["density"]
        )
        field = labelled.velocity_field(source, bins=6)
        assert field["velocity"].dims == ("component", "x", "y")
        assert field["component"].values.tolist() == ["mean[0]", "mean[1]"]
        assert 0 < float(field["p_value"]) <= 1
        assert labelled.check_assumptions(source).relaxation_time > 0
        with pytest.raises(ValueError, match="no site 'w' in the posterior; it has mean"):
            labelled.positions(source, var_names=["w"])
        with pytest.raises(ValueError, match="no coordinate 'w'"):
            labelled.probability_current(source, dims=("w", "mean[0]"))
    projected = labelled.positions(idata, projection=random_projection(2, 1))
    assert projected["coordinate"].values.tolist() == ["projection 1"]


def test_the_recorded_position_is_preferred(data):
    mcmc = run(SGLD(model, 1e-5), data, num_samples=20, extra_fields=("position",))
    x = labelled.positions(az.from_numpyro(mcmc, log_likelihood=False))
    assert x["coordinate"].values.tolist() == ["position[0]", "position[1]"]


def test_any_sampler_will_do(data):
    def whole(x):
        mean = numpyro.sample("mean", dist.Normal(0, 10).expand([2]).to_event(1))
        numpyro.sample("obs", dist.Normal(mean, 1).to_event(1), obs=x)

    mcmc = run(NUTS(whole), data, num_warmup=200, num_samples=500, num_chains=4, key=2)
    draws = az.from_numpyro(mcmc, log_likelihood=False)
    found = labelled.entropy_production(draws, method="currents")
    assert float(found["p_value"]) > 0.01
    with pytest.warns(LinearDescriptionWarning, match="diffusion depends on the position"):
        found = labelled.entropy_production(draws)
    assert float(found["p_value"]) > 0.01


def recorded(draws, first=0, apart=1, **attrs):
    draw = first + apart * np.arange(draws)
    return xr.Dataset(
        {"w": (("chain", "draw", "k"), np.random.default_rng(0).normal(size=(2, draws, 2)))},
        {"chain": [0, 1], "draw": draw},
        {"scheme": "random_reshuffle", "num_rows": 200, "batch_size": 10, "steps_per_sample": 1} | attrs,
    )


def test_mixed_phases_are_refused():
    mixed = recorded(400)
    with pytest.raises(ValueError, match="mix 20 phases of a period of random_reshuffle"):
        labelled.circulation(mixed)
    ends = labelled.period_ends(mixed)
    assert ends["draw"].values.tolist() == list(range(19, 400, 20))
    assert labelled.positions(ends).shape == (2, 20, 2)
    with pytest.raises(ValueError, match="mix 4 phases"):
        labelled.positions(recorded(100, apart=5))
    with pytest.raises(ValueError, match="mix 2 phases"):
        labelled.positions(recorded(100, scheme="symmetric_reshuffle", steps_per_sample=20))
    assert labelled.positions(recorded(100, steps_per_sample=20)).shape == (2, 100, 2)
    assert labelled.positions(recorded(100, scheme="with_replacement")).shape == (2, 100, 2)
    assert labelled.positions(recorded(100, scheme="somebody's own")).shape == (2, 100, 2)


def test_within_an_epoch_the_chain_is_not_markov(data):
    problems_of = {}
    for scheme in (RandomReshuffle(), WithReplacement()):
        kernel = SGD(model, 1.0 / (20 * 800), subsampling=scheme, steps_per_sample=1)
        draws = run_on(kernel, data, draws=4000, warmup=2000).get_samples(group_by_chain=True)
        problems_of[scheme] = check_assumptions(np.asarray(draws["mean"])).problems
    assert any("remembers more" in problem for problem in problems_of[RandomReshuffle()])
    assert problems_of[WithReplacement()] == ()


def test_data_without_a_posterior():
    for data in ({}, np.ones((2, 10, 2)), xr.Dataset({"w": ("x", [1.0])})):
        with pytest.raises(ValueError, match="no group 'posterior'"):
            labelled.positions(data)


# Which draws


def groups(**datasets):
    """ArviZ data as the ArviZ that there is makes them."""
    if int(az.__version__.split(".")[0]):
        return xr.DataTree.from_dict(datasets)
    return az.InferenceData(**datasets)


def with_position(draws, **attrs):
    """A run that recorded the unconstrained position, here 10 w, too."""
    posterior = recorded(draws, **attrs)
    position = (10 * posterior["w"]).rename(k="position_dim_0")
    data = {"chain": [0, 1], "draw": posterior["draw"].values}
    return {"posterior": posterior, "sample_stats": xr.Dataset({"position": position}, data)}


def as_written(attrs):
    """As some netCDF backends return them: arrays of one element, or of no dimension."""
    return {key: np.array([value]) if n % 2 else np.asarray(value) for n, (key, value) in enumerate(attrs.items())}


def test_a_scheme_may_go_by_the_name_of_its_class():
    for scheme in ("RandomReshuffle", "random_reshuffle"):
        assert recorded_runs.period_of(recorded(100, scheme=scheme)) == 20
    assert recorded_runs.period_of(recorded(100, scheme="SymmetricReshuffle")) == 40


def test_attrs_of_one_element_are_numbers():
    mixed = recorded(100, steps_per_sample=5, thinning=2)
    assert recorded_runs.period_of(mixed) == recorded_runs.period_of(mixed.assign_attrs(as_written(mixed.attrs))) == 2
    with pytest.raises(ValueError, match=r"a period of random_reshuffle: .* the period, 20 steps"):
        labelled.positions(mixed.assign_attrs(as_written(mixed.attrs)))


def test_thinning_makes_steps_longer():
    assert recorded_runs.period_of(recorded(100, steps_per_sample=5)) == 4
    assert recorded_runs.period_of(recorded(100, steps_per_sample=5, thinning=4)) == 1
    assert recorded_runs.period_of(recorded(100, steps_per_sample=5, thinning=2, apart=2)) == 1


@pytest.mark.parametrize(
    "attrs",
    [
        {"num_rows": np.array([200, 100]), "batch_size": np.array([10, 10])},  # two plates
        {"scheme": np.array(["a", "b"])},
        {"scheme": "drawn_by_hand"},
        {"steps_per_sample": ()},
    ],
)
def test_what_the_run_does_not_tell_is_not_checked(attrs):
    data = recorded(40, **attrs)
    assert labelled.positions(data).shape == (2, 40, 2)
    assert labelled.period_ends(data).sizes["draw"] == 40


@pytest.mark.parametrize(
    ("attrs", "first"),
    [
        ({}, 19),
        ({"num_warmup": 7}, 12),
        ({"num_warmup": 7, "samples_before": -1}, 0),
        ({"steps_per_sample": 4}, 4),
        ({"steps_per_sample": 8}, 4),  # the period ends only where the steps are a multiple of 20
        ({"steps_per_sample": 5, "thinning": 2, "num_warmup": 4}, 1),
        ({"steps_per_sample": 5, "thinning": 2, "num_warmup": 2}, 0),
        ({"steps_per_sample": 60, "num_warmup": 1}, 0),
    ],
)
def test_period_ends_know_the_phase(attrs, first):
    data = recorded(100, **attrs)
    ends = labelled.period_ends(data)
    assert ends["draw"].values[0] == first
    recorded_runs.check_phases(ends)
    # later draws of the same run, and what was thinned afterwards, end where the whole run does
    for part in (data.isel(draw=slice(3, None)), data.isel(draw=slice(first % 3, None, 3))):
        found = labelled.period_ends(part)["draw"].values
        assert set(found) == set(ends["draw"].values) & set(part["draw"].values)


def test_draws_between_ends_have_none():
    with pytest.raises(ValueError, match=r"none of 10 draws is at the end of a period of 20 steps; the first one is 1"):
        labelled.period_ends(recorded(10, apart=20))
    with pytest.raises(ValueError, match="none of 50 draws"):
        labelled.period_ends(recorded(50, steps_per_sample=10, thinning=2, num_warmup=1))


def test_period_ends_of_all_groups():
    ends = list(range(19, 100, 20))
    run = with_position(100)
    other = xr.Dataset({"w": (("chain", "draw"), np.zeros((1, 7)))}, {"chain": [0], "draw": np.arange(7)})
    observed = xr.Dataset({"obs": ("rows", np.zeros(3))})
    everything = run | {"log_likelihood": run["posterior"], "prior": other, "observed_data": observed}
    for data in (groups(**everything), xr.DataTree.from_dict(everything), everything):
        found = labelled.period_ends(data)
        assert type(found) is type(data)
        for name in ("posterior", "sample_stats", "log_likelihood"):
            assert found[name]["draw"].values.tolist() == ends
        assert found["prior"]["draw"].size == 7
        assert found["observed_data"]["obs"].size == 3
        assert found["posterior"].attrs == run["posterior"].attrs
        assert data["posterior"]["draw"].size == 100  # left as it was
        x = labelled.positions(found)
        assert x["coordinate"].values.tolist() == ["position[0]", "position[1]"]
        np.testing.assert_array_equal(x, 10 * run["posterior"]["w"].sel(draw=ends))
    assert isinstance(labelled.period_ends(run["posterior"]), xr.Dataset)


def test_a_node_of_a_tree_will_do():
    node = xr.DataTree.from_dict(with_position(100))["posterior"]
    ends = labelled.period_ends(node)
    assert isinstance(ends, xr.DataTree)
    assert labelled.positions(ends).shape == (2, 5, 2)
    np.testing.assert_array_equal(
        labelled.circulation(ends)["matrix"], labelled.circulation(ends.to_dataset())["matrix"]
    )


def test_the_position_has_the_draws_of_the_posterior():
    run = with_position(100)
    ends = run | {"posterior": labelled.period_ends(run["posterior"])}
    x = labelled.positions(groups(**ends))
    assert x["draw"].values.tolist() == list(range(19, 100, 20))
    np.testing.assert_array_equal(x, 10 * ends["posterior"]["w"])
    # it is the phases of what is measured that count
    fewer = run | {"sample_stats": run["sample_stats"].isel(draw=slice(4, None, 20))}
    assert labelled.positions(fewer).sizes["draw"] == 5
    with pytest.raises(ValueError, match="mix 20 phases"):
        labelled.positions(fewer, var_names="w")
    with pytest.raises(ValueError, match="shares no draw with sample_stats"):
        labelled.positions({"posterior": run["posterior"][{"draw": [1]}], "sample_stats": fewer["sample_stats"]})


def test_mixed_phases_of_a_run_are_refused(data, tmp_path):
    kernel, sizes = SGWORLD(model, 1e-5, steps_per_sample=10), {"num_warmup": 5, "num_samples": 101, "num_chains": 2}
    mcmc = run(kernel, data, thinning=3, extra_fields=("position", "i"), **sizes)
    idata = to_inference_data(mcmc)
    idata.to_netcdf(tmp_path / "run.nc")
    for source in (idata, az.from_netcdf(tmp_path / "run.nc")):
        for measure in (labelled.positions, labelled.entropy_production, labelled.check_assumptions):
            with pytest.raises(ValueError, match="mix 2 phases of a period of random_reshuffle"):
                measure(source)
        ends = labelled.period_ends(source)
        assert labelled.positions(ends).shape == (2, 17, 2)
        # i counts samples, of 10 steps each, of which a period has 20
        assert (ends["sample_stats"]["i"].values % 2 == 0).all()
        assert (source["sample_stats"]["i"].values % 2 == 0).sum() == 34


# Coordinates


def linear_run(chain, name="w", **options):
    x = chain.sample(8, 400, seed=20)
    coords = {"chain": np.arange(8), "draw": np.arange(400)}
    return xr.Dataset({name: (("chain", "draw", "k"), x)}, coords | options)


def test_dimensions_lend_their_coordinates():
    run = linear_run(problems.driven_ou(0.1), k=["north", "east"])
    assert labelled.circulation(run)["coordinate"].values.tolist() == ["w[north]", "w[east]"]
    plane = labelled.probability_current(run, dims=("w[east]", "w[north]"), bins=4)
    assert plane["component"].values.tolist() == ["w[east]", "w[north]"]
    repeated = linear_run(problems.driven_ou(0.1), k=["north", "north"])
    assert labelled.positions(repeated)["coordinate"].values.tolist() == ["w[0]", "w[1]"]
    table = xr.Dataset({"v": (("chain", "draw", "a", "b"), np.zeros((1, 2, 2, 2)))}, {"b": ["x", "y"]})
    assert labelled.positions(table)["coordinate"].values.tolist() == ["v[0, x]", "v[0, y]", "v[1, x]", "v[1, y]"]


def test_one_site_needs_no_list():
    run = linear_run(problems.driven_ou(0.1)).assign(mu=(("chain", "draw"), np.ones((8, 400))))
    assert labelled.positions(run, var_names="w")["coordinate"].values.tolist() == ["w[0]", "w[1]"]
    assert labelled.positions(run, var_names="mu")["coordinate"].values.tolist() == ["mu"]
    with pytest.raises(ValueError, match="no site 'nu' in the posterior; it has w, mu"):
        labelled.positions(run, var_names="nu")


def test_a_current_wants_two_coordinates():
    run = linear_run(problems.driven_ou(0.1))
    with pytest.raises(ValueError, match=r"these draws have one coordinate, projection 1"):
        labelled.probability_current(run, projection=random_projection(2, 1))
    for dims in ("w[0]", ("w[0]",), ("w[0]", "w[0]"), ("w[0]", "w[1]", "w[0]")):
        with pytest.raises(ValueError, match=r"want two different coordinates of w\[0\], w\[1\]"):
            labelled.probability_current(run, dims=dims)


def test_momenta_go_by_name():
    A = np.array([[0.9, 0.3], [-0.3, 0.8]])
    x = problems.LinearChain(A, np.diag([0.05, 0.2]), 1.0, np.nan).sample(8, 400, seed=21)
    where = {"chain": np.arange(8), "draw": np.arange(400)}
    run = xr.Dataset({"q": (("chain", "draw"), x[..., 0]), "p": (("chain", "draw", "k"), x[..., 1:])}, where)
    for kinetic in ("p", ["p[0]"], (1,)):
        found = labelled.entropy_production(run, kinetic=kinetic)
        assert float(found["rate"]) == entropy_production(x, kinetic=(1,)).rate
        theorems = labelled.fluctuation_theorems(run, kinetic=kinetic, lengths=(2,))
        np.testing.assert_array_equal(
            theorems["slope"], labelled.fluctuation_theorems(run, kinetic=[1], lengths=(2,))["slope"]
        )
    assert float(found["rate"]) != float(labelled.entropy_production(run)["rate"])
    with pytest.raises(ValueError, match=r"kinetic names 'v', which is no coordinate or site of q, p\[0\]"):
        labelled.entropy_production(run, kinetic=["v"])


# Measures


def test_deterministic_sites_are_told_apart():
    run = linear_run(problems.driven_ou(0.1))
    run["twice"] = (2 * run["w"][..., 0]).astype(np.float32)
    measures = ("fit_linear_dynamics", "entropy_production", "fluctuation_theorems", "uncertainty_relation")
    for name in (*measures, "check_assumptions"):
        with pytest.raises(ValueError, match=r"singular.*var_names=\[\.\.\.\].*extra_fields=\(\"position\",\)"):
            getattr(labelled, name)(run)
        getattr(labelled, name)(run, var_names="w")


def test_theorems_are_those_of_other_draws():
    chain = problems.driven_ou(0.1)
    run = linear_run(chain)
    x = run["w"].values
    found = labelled.fluctuation_theorems(run, lengths=(1, 5))
    exact = labelled.fluctuation_theorems(run, lengths=(1, 5), dynamics=linear_dynamics(np.zeros(2), chain.A, chain.Q))
    for length, slope in ((1, found["slope"][0]), (5, found["slope"][1])):
        sigma = held_out_sigma(x)
        sigma = sigma[:, : sigma.shape[1] // length * length].reshape(8, -1, length).sum(-1)
        assert slope == labelled.measures.fluctuation_theorems(sigma, (1,)).slope[0]
    assert (abs(exact["slope"] - 1) < 5 * exact["slope_error"]).all()
    assert (exact["slope"] != found["slope"]).all()


def test_the_uncertainty_relation_is_labelled():
    run = linear_run(problems.driven_ou(0.1))
    found = labelled.uncertainty_relation(run, blocks=64)
    assert dict(found.sizes) == {}
    assert float(found["rate_bound"]) == uncertainty_relation(run["w"].values, blocks=64).rate_bound


def test_principal_components_are_a_projection():
    run = linear_run(problems.beads(5, 0.05))
    axes = labelled.principal_components(run, 2)
    np.testing.assert_array_equal(axes.directions, principal_components(run["w"].values, 2).directions)
    found = labelled.entropy_production(run, projection=axes)
    assert float(found["rate"]) == entropy_production(axes.apply(run["w"].values)).rate
    assert len(labelled.principal_components(run.assign(v=run["w"]), 1, var_names="w").origin) == 5


def test_options_are_named():
    run = linear_run(problems.driven_ou(0.1))
    for measure in (labelled.circulation, labelled.positions, labelled.entropy_production, labelled.check_assumptions):
        with pytest.raises(TypeError, match="positional"):
            measure(run, ["w"])
