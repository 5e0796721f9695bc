"""What minibatches do to a posterior whose curvature differs from place to place, against an exact posterior."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size

from sgworld_numpyro import BAOAB, SGWORLD, EulerMaruyama, RandomReshuffle
from sgworld_numpyro.tuning.certificate import complaints_of_tilt
from sgworld_numpyro.tuning.dense_looks import DenseLooks
from sgworld_numpyro.tuning.report import Report
from sgworld_numpyro.tuning.step_size import Discretisation
from sgworld_numpyro.tuning.tilt import log_tilt, places_at
from tests.runs import run

GROUPS, EACH, SIGMA, B = 8, 16, 2.83, 4
N = GROUPS * EACH


def data():
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(GROUPS), EACH))
    effects = 1.5 * rng.normal(size=GROUPS)
    return group, (effects[group] + SIGMA * rng.normal(size=N)).astype(np.float32)


def ridge(group, y):
    """Rows determine products of a scale and effects: a ridge that curves, and is narrow where the scale is large."""
    scale = numpyro.sample("scale", dist.HalfNormal(2))
    standard = numpyro.sample("standard", dist.Normal(0, 1).expand([GROUPS]).to_event(1))
    with numpyro.plate("rows", N, subsample_size=B):
        here, some = numpyro.subsample(group, event_dim=0), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(scale * standard[here], SIGMA), obs=some)


class Exact:
    """The posterior of `ridge`: the effects are Gaussian given the scale, and integrated over."""

    def __init__(self, group, y):
        self.means = np.array([y[group == number].mean() for number in range(GROUPS)], float)
        self.scales = np.linspace(1e-4, 12, 20_001)
        variance = self.scales[:, None] ** 2 + SIGMA**2 / EACH
        log_density = -(self.scales**2) / 8 - 0.5 * np.sum(np.log(variance) + self.means**2 / variance, axis=1)
        density = np.exp(log_density - log_density.max())
        self.density = density / density.sum()

    def scale_at(self, quantiles):
        return np.interp(quantiles, np.cumsum(self.density), self.scales)

    def draws(self, count):
        """Scales at even quantiles and effects, by site."""
        scale = self.scale_at((np.arange(count) + 0.5) / count)
        precision = 1 + EACH * scale**2 / SIGMA**2
        mean = (EACH * scale / SIGMA**2 / precision)[:, None] * self.means
        chance = np.random.default_rng(1).normal(size=(count, GROUPS))
        return {"scale": scale, "standard": mean + chance / np.sqrt(precision)[:, None]}

    def moments(self, function):
        values = function(self.scales)
        mean = self.density @ values
        return mean, np.sqrt(self.density @ (values - mean) ** 2)


@pytest.mark.laws
@pytest.mark.parametrize(
    ("integrator", "step_size"), [(BAOAB(friction=6.0), 0.008), (EulerMaruyama(), 0.0008)], ids=["baoab", "euler"]
)
def test_draws_are_tilted_as_predicted(integrator, step_size):
    """Lowest order, of passes of 1.4 and 0.15 relaxation times of the fastest direction: it may be off by a quarter."""
    group, y = data()
    exact, chains = Exact(group, y), 8
    starts = {"scale": jnp.full(chains, 0.3), "standard": jnp.tile(exact.means / 1.35, (chains, 1))}
    kernel = SGWORLD(ridge, step_size=step_size, integrator=integrator)
    mcmc = run(kernel, group, y, num_warmup=300, num_samples=6000, num_chains=chains, init_params=starts, key=0)
    scale = np.asarray(mcmc.get_samples(group_by_chain=True)["scale"], float)

    draws = exact.draws(512)
    positions = np.column_stack([np.log(draws["scale"]), draws["standard"]])
    looks = DenseLooks(kernel._bindings.current, seed=0)
    places = places_at(looks, positions, positions.mean(0), np.eye(1 + GROUPS))
    law = Discretisation(RandomReshuffle(), integrator, N, B, True, 1.0, True, 0.02)
    tilted = log_tilt(law, step_size, getattr(integrator, "friction", np.nan), places)
    weights = np.exp(tilted - tilted.max())
    for function in (np.asarray, np.log, np.square):
        values = function(draws["scale"])
        mean, sd = exact.moments(function)
        predicted = (weights @ values / weights.sum() - values.mean()) / sd
        error = 1 / np.sqrt(effective_sample_size(function(scale)))
        found = (function(scale).mean() - mean) / sd
        assert abs(predicted) > 4 * error  # else any law would do
        assert abs(found - predicted) < 4 * error + 0.25 * abs(predicted)


def test_a_step_that_is_too_long_where_the_chains_have_been_is_told():
    group, y = data()
    draws = {name: values[None] for name, values in Exact(group, y).draws(256).items()}
    kernel = SGWORLD(ridge)
    mcmc = run(kernel, group, y, num_warmup=0, num_samples=1)
    binding, tuning = kernel._bindings.current, mcmc.last_state.tuning
    plan = kernel._plan_of(binding.engine)

    def said(longer):
        numbers = np.array(tuning.numbers)
        numbers[Report._fields.index("step_size")] *= longer
        return complaints_of_tilt(plan, binding, replace(tuning, numbers=numbers), draws)

    assert tuning.report.predicted_shift <= 0.04
    assert said(1.0) == []
    (words,) = said(5.0)
    assert "bias_tolerance than 0.02" in words
