"""``FullBatch``: a Langevin sampler on all the data, of any model that NUTS takes."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_numpyro import SGWORLD, FullBatch, LeimkuhlerMatthews, ModelError, to_inference_data, tuning_report
from tests.models import BATCH, ROWS, X, Y, gaussian_mean, linear, rows
from tests.runs import run
from tests.test_model_shapes import a_column_of_means, dedented

SIGMAS = 5


def run_on_all(model, *data, step_size=1e-2, num_samples=3, num_chains=1, **options):
    kernel = SGWORLD(model, step_size, subsampling=FullBatch(), **options)
    return run(kernel, *data, num_warmup=20, num_samples=num_samples, num_chains=num_chains)


def without_a_plate(x, y):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("obs", dist.Normal(x @ w, 1), obs=y)


def whole_plate(x, y):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.deterministic("mean", x @ w)
        numpyro.sample("obs", dist.Normal(x @ w, 1), obs=y)


@pytest.mark.parametrize("model", [without_a_plate, whole_plate, dedented])
def test_any_model_is_sampled_on_all_its_data(model):
    """One chain, whatever plates there are; with a subsampled one it is that of its plate at all rows."""
    found = run_on_all(model, X, Y).get_samples()
    np.testing.assert_allclose(found["w"], run_on_all(linear, X, Y).get_samples()["w"], rtol=1e-5, atol=1e-6)
    if model is whole_plate:
        np.testing.assert_allclose(found["mean"], found["w"] @ X.T, rtol=1e-4, atol=1e-5)


def local_latents(y):
    """Each row has a latent of its own, inside the plate: z_i of N((y_i + 2 m) / 3, 1/3) given the mean m."""
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows():
        z = numpyro.sample("z", dist.Normal(mu, np.sqrt(0.5)))
        numpyro.sample("obs", dist.Normal(z, 1), obs=numpyro.subsample(y, event_dim=0))


def test_local_latents_have_their_exact_posterior():
    """mu given y is Gaussian: y_i is N(mu, 3/2) given mu. With Leimkuhler-Matthews the draws have no bias."""
    precision = 1 + ROWS / 1.5
    mean = Y.astype(float).sum() / 1.5 / precision
    mcmc = run_on_all(local_latents, Y, step_size=0.02, num_samples=4000, num_chains=8, integrator=LeimkuhlerMatthews())
    draws = mcmc.get_samples(group_by_chain=True)
    assert draws["z"].shape == (8, 4000, ROWS)
    mu, z = np.asarray(draws["mu"], float), np.asarray(draws["z"], float)
    exact = {
        "mean of mu": (mu, mean),
        "variance of mu": ((mu - mean) ** 2, 1 / precision),
        "means of z": (z, (Y + 2 * mean) / 3),
        "variances of z": ((z - (Y + 2 * mean) / 3) ** 2, 1 / 3 + 4 / 9 / precision),
    }
    for name, (values, wanted) in exact.items():
        chains = values.mean(1)
        error = chains.std(0, ddof=1) / np.sqrt(len(chains))
        assert np.all(abs(chains.mean(0) - wanted) < SIGMAS * np.maximum(error, np.mean(error))), name


@pytest.mark.slow
def test_it_is_tuned_stored_and_compared_like_any_run():
    mcmc = run_on_all(without_a_plate, X, Y, step_size=None, num_samples=100, num_chains=2)
    assert "step size" in str(tuning_report(mcmc))
    data = to_inference_data(mcmc, log_likelihood=True)
    w = np.asarray(data["posterior"]["w"])
    expected = -0.5 * (Y - w @ X.T) ** 2 - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(data["log_likelihood"]["obs"], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="no subsampled plate to take rows of; want True"):
        to_inference_data(mcmc, log_likelihood=range(3))


def discrete(y):
    level = numpyro.sample("level", dist.Categorical(jnp.ones(2) / 2))
    numpyro.sample("obs", dist.Normal(level, 1), obs=y)


def summed(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows():
        numpyro.factor("likelihood", -0.5 * ((numpyro.subsample(y, event_dim=0) - mu) ** 2).sum())


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [(discrete, (Y,), "discrete"), (summed, (Y,), r"drop the \.sum"), (a_column_of_means, (X, Y), "one value a row")],
)
def test_what_is_wrong_on_all_data_is_refused(model, data, message):
    with pytest.raises(ModelError, match=message):
        run_on_all(model, *data)


def test_where_there_are_minibatches_the_message_offers_it():
    with pytest.raises(ModelError, match=r"(?s)no subsampled plate.*subsampling=FullBatch\(\)"):
        SGWORLD(without_a_plate, 1e-2).init(jax.random.key(0), 0, None, (X, Y), {})
    assert run_on_all(gaussian_mean, Y, BATCH).get_samples()["mu"].shape == (3,)
