"""What a run's own draws say against it."""

from types import SimpleNamespace

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_numpyro import SGWORLD, ConvergenceWarning, to_inference_data
from sgworld_numpyro.chain.convergence import complaints
from tests.runs import run

CHAINS, DRAWS = 4, 1000


def state(virials=1.0, scatter=1.4, readings=DRAWS, modes=0):
    """The last state of chains whose readings of two coordinates have these means."""
    mean = np.broadcast_to(np.float32(virials), (CHAINS, 2))
    return SimpleNamespace(
        tuning=SimpleNamespace(report=SimpleNamespace(modes=np.float32(modes))),
        divergences=np.zeros(CHAINS, int),
        thermometer=SimpleNamespace(
            readings=np.full(CHAINS, readings), virials=mean, squares=np.full((CHAINS, 2), readings * scatter**2)
        ),
    )


def autoregression(coefficient, draws=DRAWS, chains=CHAINS):
    rng = np.random.default_rng(0)
    x = np.zeros((chains, draws, 2))
    x[:, 0] = rng.normal(size=(chains, 2))
    for n in range(1, draws):
        x[:, n] = coefficient * x[:, n - 1] + np.sqrt(1 - coefficient**2) * rng.normal(size=(chains, 2))
    return x


def said(draws, **numbers):
    return " ".join(complaints({"w": draws}, state(**numbers), 1.0, ["w[0]", "w[1]"]))


def test_nothing_is_said_of_chains_that_mix():
    for seconds in (0.0, 0.4, 0.8):
        assert said(autoregression(seconds)) == ""


def test_chains_that_are_apart():
    apart = autoregression(0.4)
    apart[0] += 1.0
    assert "The chains are apart: R-hat is 1." in said(apart)
    assert "The halves of the chain are apart" in said(np.cumsum(autoregression(0.4, chains=1), axis=1))


def test_chains_that_mix_slowly():
    """An autoregression of 0.99 forgets in 200 draws, a twentieth of which a thousand is not."""
    words = said(autoregression(0.99))
    assert "mix slowly" in words
    assert 2000 < int(words.split("num_samples=")[1].split()[0]) < 10_000


@pytest.mark.parametrize("which", [0, 1])
def test_a_coordinate_that_is_too_hot_or_too_cold(which):
    off = [1.0, 1.0]
    off[which] = 1.3
    assert f"The temperature of w[{which}] is 1.30" in said(autoregression(0.2), virials=off)
    off[which] = 0.7
    assert "narrower" in said(autoregression(0.2), virials=off)
    assert said(autoregression(0.2), virials=off, scatter=30.0) == ""  # it could be chance


def test_few_draws_say_nothing():
    apart = autoregression(0.4, draws=50)
    apart[0] += 3.0
    assert said(apart) == ""


def test_other_modes_are_told_and_stored():
    """The sign of mu is not known; the chains start around one of both."""

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 5))
        with numpyro.plate("rows", y.shape[0], subsample_size=8):
            numpyro.sample("obs", dist.Normal(mu**2, 1), obs=numpyro.subsample(y, event_dim=0))

    y = (4 + np.random.default_rng(0).standard_normal(400)).astype(np.float32)
    with pytest.warns(ConvergenceWarning, match="other modes"):
        mcmc = run(SGWORLD(model), y, num_warmup=5, num_samples=20, num_chains=2)
    assert "other modes" in to_inference_data(mcmc)["posterior"].attrs["complaints"]
    assert "bad" in str(mcmc.last_state.tuning.report)
