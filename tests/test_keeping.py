"""What a chain keeps of its draws is what all draws would have given."""

import pickle
from functools import cache

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro.infer import NUTS, Gibbs

from sgworld_numpyro import SGWORLD, averages, predictor, to_inference_data
from sgworld_numpyro.chain.kept import Keeping
from tests.runs import make, run

X = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
Y = (X @ np.float32([1, -1])).astype(np.float32)
NEW = X[:5] + 1


def model(x, y=None):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1))
    with numpyro.plate("rows", len(x), subsample_size=10):
        mean = numpyro.deterministic("mean", numpyro.subsample(jnp.asarray(x), event_dim=1) @ w)
        numpyro.sample("obs", dist.Normal(mean, scale), obs=None if y is None else numpyro.subsample(y, event_dim=0))


@cache
def run_of(chains=1, method="vectorized", warmup=5, draws=12, thinning=1, **options):
    sizes = {"num_warmup": warmup, "num_samples": draws, "num_chains": chains, "thinning": thinning}
    return run(SGWORLD(model, 1e-3, **options), X, Y, chain_method=method, key=1, **sizes)


predict = predictor(model, NEW, sites="mean")


def both(values):
    return {"both": jnp.append(values["w"], values["scale"])}


@pytest.mark.parametrize(("chains", "method"), [(1, "sequential"), (3, "vectorized"), (2, "sequential")])
def test_what_is_kept_and_averaged_is_of_the_draws(chains, method):
    draws = run_of(chains, method).get_samples(group_by_chain=True)
    mcmc = run_of(chains, method, keep=predict, average=both)
    kept, found = mcmc.get_samples(group_by_chain=True), averages(mcmc)["both"]
    assert kept.keys() == {"mean"}
    np.testing.assert_allclose(kept["mean"], np.einsum("cds,ns->cdn", draws["w"], NEW), rtol=1e-4, atol=1e-5)

    x = np.concatenate([draws["w"], draws["scale"][..., None]], -1).astype(float)
    np.testing.assert_allclose(found.by_chain, x.mean(1), rtol=1e-5)
    np.testing.assert_allclose(found.mean, x.mean((0, 1)), rtol=1e-5)
    within, count = x.var(1, ddof=1).mean(0), x.shape[1]
    if chains == 1:
        assert np.isnan(found.error).all()
        assert np.isnan(found.r_hat).all()
        np.testing.assert_allclose(found.sd**2, within * (count - 1) / count, rtol=1e-3)
        return
    between = x.mean(1).var(0, ddof=1)
    np.testing.assert_allclose(found.error, np.sqrt(between / chains), rtol=1e-4)
    np.testing.assert_allclose(found.r_hat**2, between / within + 1 - 1 / count, rtol=1e-3)


@pytest.mark.parametrize("chains", [1, 3])
def test_nothing_is_kept_where_only_averages_are_wanted(chains):
    mcmc = run_of(chains, keep=lambda sites: {}, average=predict)
    assert mcmc.get_samples() == {}
    np.testing.assert_array_equal(averages(mcmc)["mean"].mean, averages(run_of(chains, average=predict))["mean"].mean)
    mcmc.print_summary()
    with pytest.raises(ValueError, match=r"kept nothing .* averages\(mcmc\)"):
        to_inference_data(mcmc)


def test_averages_count_what_thinning_leaves_out_and_not_the_warm_up():
    draws = run_of().get_samples()["w"]
    mcmc = run_of(thinning=4, average=lambda v: {"w": v["w"]})
    assert mcmc.get_samples()["w"].shape == (3, 2)
    assert mcmc.last_state.kept.draws == 12
    np.testing.assert_allclose(averages(mcmc)["w"].mean, np.mean(draws, 0, dtype=float), rtol=1e-5)


def test_averages_go_on_when_a_run_is_resumed():
    whole = run_of(draws=26, average=predict)
    mcmc = run_of(draws=13, average=predict)
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key, X, Y)
    np.testing.assert_array_equal(averages(mcmc)["mean"].mean, averages(whole)["mean"].mean)
    pickle.loads(pickle.dumps(mcmc.last_state))


def test_a_run_goes_on_only_with_the_same_kernel():
    for before, after, message in (
        ({}, {"keep": predict}, "whose keep made nothing, and this kernel's makes mean"),
        ({}, {"average": predict}, "average made nothing"),
        ({"average": both}, {"average": predict}, "made both, and this kernel's makes mean"),
        ({"average": both}, {}, "makes nothing"),
    ):
        mcmc = make(SGWORLD(model, 1e-3, **after), num_warmup=5, num_samples=12)
        mcmc.post_warmup_state = run_of(**before).last_state
        with pytest.raises(ValueError, match=message):
            mcmc.run(jax.random.key(0), X, Y)


def test_the_warm_up_is_kept_too_if_it_is_collected():
    mcmc = make(SGWORLD(model, 1e-3, keep=both, average=both), num_warmup=5, num_samples=12)
    mcmc.warmup(jax.random.key(1), X, Y, collect_warmup=True)
    kept = mcmc.get_samples()["both"]
    assert len(np.unique(kept, axis=0)) == 5
    with pytest.raises(ValueError, match="no draw was taken"):
        averages(mcmc)


def test_means_of_long_runs_lose_nothing_to_rounding():
    """In single precision an update of less than half a unit in the last place would be dropped."""
    n = 100_000
    x = (1000 + np.random.default_rng(0).normal(size=n)).astype(np.float32)
    keeping = Keeping(None, lambda values: values)
    kept = keeping.start({"x": jnp.float32(0)}, 0)
    add = jax.jit(lambda kept: lax.scan(lambda k, v: (keeping.after(lambda: {"x": v}, True, k), None), kept, x)[0])
    kept = add(kept)
    assert abs(kept.mean["x"] - np.mean(x, dtype=float)) < 1e-4  # a unit in the last place is 6e-5, sd/√n 3e-3
    np.testing.assert_allclose(kept.squares["x"], np.var(x, dtype=float) * n, rtol=1e-3)


def test_predictions_are_all_of_the_new_data():
    """A deterministic site outside the plate, whose value at the training data comes with the draws, is one of them."""

    def centred(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
        total = numpyro.deterministic("total", x.sum(0) @ w)
        numpyro.deterministic("twice", 2 * total)
        with numpyro.plate("rows", len(x), subsample_size=10):
            mean = numpyro.subsample(jnp.asarray(x), event_dim=1) @ w
            noisy = numpyro.sample(
                "obs", dist.Normal(mean, 1), obs=y if y is None else numpyro.subsample(y, event_dim=0)
            )
            numpyro.deterministic("doubled", 2 * noisy)

    keep = predictor(centred, NEW, sites=["total", "twice"])
    mcmc = run(SGWORLD(centred, 1e-3, keep=keep, average=lambda v: {"w": v["w"]}), X, Y, num_samples=1)
    total = NEW.sum(0) @ averages(mcmc)["w"].mean
    np.testing.assert_allclose(mcmc.get_samples()["total"], [total], rtol=1e-5)
    np.testing.assert_allclose(mcmc.get_samples()["twice"], [2 * total], rtol=1e-5)
    with pytest.raises(ValueError, match=r"'doubled' would be drawn at random.* no values of obs"):
        predictor(centred, NEW, sites="doubled")({"w": jnp.ones(2)})


def test_gibbs_wants_latent_sites():
    kernel = SGWORLD(model, 1e-3, keep=both)
    with pytest.raises(ValueError, match="which Gibbs wants"):
        Gibbs([(kernel, ["w"]), (NUTS(kernel.model), ["scale"])])


def test_arviz_has_what_was_kept():
    mcmc = run_of(2, draws=40, keep=predict)
    data = az.from_numpyro(mcmc, log_likelihood=False)
    summary = az.summary(data)
    assert len(summary) == 5
    assert {"r_hat", "ess_bulk"} <= set(summary.columns)


@pytest.mark.parametrize("argument", ["keep", "average"])
@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda v: v["w"], TypeError, "want a dictionary of arrays"),
        (lambda v: {"nested": {"w": v["w"]}}, TypeError, "want a dictionary of arrays"),
        (predictor(model, NEW, sites="means"), ValueError, "no site 'means'; it has w, scale"),
        (predictor(model, NEW, sites=["obs"]), ValueError, "drawn at random"),
        ("w", TypeError, "constrained values by site"),
    ],
)
def test_what_cannot_be_kept_is_refused(argument, function, error, message):
    with pytest.raises(error, match=message):
        run_of(**{argument: function})


def test_an_empty_average_is_refused():
    with pytest.raises(ValueError, match="leave it out"):
        run_of(average=lambda v: {})


def test_without_averages_there_are_none():
    with pytest.raises(ValueError, match="averaged nothing"):
        averages(run_of(draws=2))
    mcmc = make(SGWORLD(model, 1e-3, average=predict), num_warmup=4, num_samples=4)
    mcmc.warmup(jax.random.key(0), X, Y)
    with pytest.raises(ValueError, match="no draw was taken"):
        averages(mcmc)
