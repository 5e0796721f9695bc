"""Local learning coefficients against what is known of regular models and of deep linear networks."""

import warnings
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import potential_energy

from sgworld_numpyro import BAOAB, SGLD, SGWORLD, ControlVariate
from sgworld_numpyro.learning_coefficient import (
    LearningCoefficientWarning,
    deep_linear_coefficient,
    local_learning_coefficient,
)
from sgworld_numpyro.learning_coefficient.reliability import complaints, over_chains, tie_slope
from sgworld_numpyro.learning_coefficient.tied_chains import Draws
from sgworld_numpyro.model.tie import tied
from sgworld_numpyro.preconditioners import Diagonal

ROWS, DIM, SCALE = 400, 4, 0.5


@pytest.mark.parametrize("widths", [(3, 4), (1, 1), (5, 2)])
def test_one_layer_is_regular(widths):
    for rank in range(min(widths) + 1):
        assert deep_linear_coefficient(widths, rank) == (widths[0] * widths[1] / 2, 1)


def test_two_layers_are_reduced_rank_regression():
    """The four cases of Aoyagi and Watanabe (2005)."""
    for inputs, hidden, outputs in product(range(1, 6), repeat=3):
        for r in range(min(inputs, hidden, outputs) + 1):
            m, h, n = inputs, hidden, outputs
            if n + r <= m + h and m + r <= n + h and h + r <= m + n:
                odd = (m + h + n + r) % 2
                value = (-((h + r) ** 2) - m**2 - n**2 + 2 * (h + r) * (m + n) + 2 * m * n + odd) / 8
                expected = value, 2 if odd else 1
            elif m + h < n + r:
                expected = (h * m - h * r + n * r) / 2, 1
            elif n + h < m + r:
                expected = (h * n - h * r + m * r) / 2, 1
            else:
                expected = m * n / 2, 1
            assert deep_linear_coefficient((m, h, n), r) == expected


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 7])
def test_a_product_of_numbers(layers):
    """(w₁ … w_L)² has λ = ½ and a pole of order L; away from 0 it is a regular model of one direction."""
    widths = (1,) * (layers + 1)
    assert deep_linear_coefficient(widths, 0) == pytest.approx((0.5, layers))
    assert deep_linear_coefficient(widths, 1) == (0.5, 1)


@pytest.mark.parametrize(("widths", "rank", "match"), [((3,), 0, "widths"), ((3, 0), 0, "widths"), ((3, 2), 3, "rank")])
def test_networks_that_are_none(widths, rank, match):
    with pytest.raises(ValueError, match=match):
        deep_linear_coefficient(widths, rank)


def regression(batch_size=100):
    """A model with d Gaussian coordinates, a scale that is known, and curvatures from 1 to 4 by the row."""
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.normal(size=(ROWS, DIM)))[0] * np.sqrt(ROWS) * np.linspace(1, 2, DIM)
    y = x @ np.arange(DIM) + SCALE * rng.normal(size=ROWS)

    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1e-3).expand([DIM]).to_event(1))  # of no effect
        with numpyro.plate("rows", ROWS, subsample_size=batch_size):
            xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
            numpyro.sample("obs", dist.Normal(xb @ w, SCALE), obs=yb)

    at = np.linalg.lstsq(x, y, rcond=None)[0]
    return model, np.float32(x), np.float32(y), {"w": np.float32(at)}


def exact(x, localisation):
    """½ Σ nβh / (nβh + γ), its derivative by ln γ, and E|w − w₀|² = Σ 1 / (nβh + γ)."""
    stiffness = (np.asarray(x, float) ** 2).sum(0) / SCALE**2 / np.log(ROWS)
    share = stiffness / (stiffness + localisation)
    return share.sum() / 2, -(share * (1 - share)).sum() / 2, (1 / (stiffness + localisation)).sum()


@pytest.fixture(scope="module")
def found():
    """At a tie that is as stiff as the likelihood, so that each of its parts counts."""
    model, x, y, at = regression()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimate = local_learning_coefficient(
            SGWORLD(model), jax.random.key(0), x, y, at=at, localisation=300.0, num_warmup=500, num_samples=500
        )
    return estimate, x, [warning for warning in caught if warning.category is LearningCoefficientWarning]


def test_regular_model(found):
    estimate, x, _ = found
    value, slope, squares = exact(x, 300.0)
    assert value < 0.9 * DIM / 2
    assert abs(estimate.value - value) <= 5 * estimate.error + 0.02 * value
    assert estimate.error < 0.05 * value
    assert abs(estimate.tie_slope.value - slope) <= 5 * estimate.tie_slope.error + 0.02 * abs(slope)
    assert abs(estimate.temperature.value - 1) <= 5 * estimate.temperature.error + 0.02
    assert estimate.distance**2 == pytest.approx(squares, rel=0.1)
    assert estimate.value == pytest.approx(estimate.excess.mean())
    assert estimate.by_chain.shape == (8,)
    assert estimate.gradients == 8 * 4 * 1000  # one trial was enough
    assert estimate.friction > 0


def test_the_tie_that_decides_is_told(found):
    estimate, _, caught = found
    assert len(estimate.complaints) == len(caught) == 1
    assert "The tie decides" in str(caught[0].message)
    assert "λ = " in str(estimate)


def test_tied_priors_are_normal_in_unconstrained_coordinates():
    """Of a positive site, a simplex, and one in a plate, whose own priors leave nothing behind."""

    def model():
        numpyro.sample("scale", dist.Gamma(2.0, 3.0))
        numpyro.sample("share", dist.Dirichlet(jnp.ones(3)))
        with numpyro.plate("groups", 2):
            numpyro.sample("effects", dist.Uniform(-1, 1).expand([5]).to_event(1))

    rng = np.random.default_rng(0)
    shapes = {"scale": (), "share": (2,), "effects": (2, 5)}
    centre = {site: np.float32(rng.normal(size=shape)) for site, shape in shapes.items()}
    place = {site: np.float32(rng.normal(size=shape)) for site, shape in shapes.items()}
    energy = jax.jit(jax.vmap(lambda z: potential_energy(tied(model, centre, 0.7), (), {}, z)))
    at_centre, there = energy(jax.tree.map(lambda *leaves: jnp.stack(leaves), centre, place))
    expected = sum(((place[site] - centre[site]) ** 2).sum() for site in shapes) / (2 * 0.7**2)
    assert float(there - at_centre) == pytest.approx(expected, rel=1e-5)


def draws_of(excess, virials=1.0):
    excess = np.broadcast_to(excess, (4, 200)) + np.random.default_rng(0).normal(scale=0.1, size=(4, 200))
    return Draws(excess, np.random.default_rng(1).normal(5, 0.1, excess.shape), np.full(excess.shape, virials))


@pytest.mark.parametrize(
    ("excess", "virials", "told"),
    [
        (2.0, 1.0, None),
        (-1.0, 1.0, "is negative"),
        (np.where(np.arange(200) < 190, 3.0, -1.0), 1.0, "falls below that of w₀"),
        (np.array([[1.0], [2.0], [3.0], [4.0]]), 1.0, "chains are apart"),
        (np.linspace(1, 3, 200), 1.0, "not come to rest"),
        (2.0, 1.2, "the step is too long"),
        (2.0, 0.8, "not yet filled the tie"),
    ],
)
def test_what_speaks_against_an_estimate(excess, virials, told):
    draws = draws_of(excess, virials)
    estimate, temperature = over_chains(draws.excess.mean(1)), over_chains(draws.virials.mean(1))
    said = complaints(draws, estimate, tie_slope(draws, 1.0), temperature)
    assert any(told in text for text in said) if told else said == ()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"kernel": "SGWORLD"}, TypeError, "wants a kernel"),
        ({"localisation": 0.0}, ValueError, "localisation=0.0"),
        ({"temperature": -1.0}, ValueError, "temperature=-1.0"),
        ({"num_chains": 3}, ValueError, "num_chains=3"),
        ({"num_samples": 1}, ValueError, "num_samples=1"),
        ({"at": {"w": np.zeros(3)}}, ValueError, r"\(3,\).*\(4,\)"),
        ({"at": np.zeros(4)}, ValueError, "unconstrained values of every latent site"),
        ({"at": {"w": np.full(4, np.nan)}}, ValueError, "not finite"),
        ({"kernel": SGWORLD(regression()[0], gradient=ControlVariate())}, ValueError, "learn from the posterior"),
        ({"kernel": SGWORLD(regression()[0], preconditioner=Diagonal(np.ones(DIM)))}, ValueError, "wants a step_size"),
    ],
)
def test_what_is_refused(options, error, match):
    model, x, y, at = regression()
    given = {"kernel": SGWORLD(model), "at": at, "localisation": 1.0, "num_warmup": 10, "num_samples": 10} | options
    kernel = given.pop("kernel")
    with pytest.raises(error, match=match):
        local_learning_coefficient(kernel, jax.random.key(0), x, y, **given)


@pytest.mark.slow
def test_chains_that_are_lost_are_told():
    model, x, y, at = regression()
    step = 2.2 * SCALE / np.sqrt((np.asarray(x, float) ** 2).sum(0).max())
    options = {"at": at, "localisation": 1.0, "num_warmup": 300, "num_samples": 300}
    with pytest.raises(ValueError, match="8 of 8 chains diverged at step size"):
        local_learning_coefficient(SGWORLD(model, step, integrator=BAOAB()), jax.random.key(0), x, y, **options)


@pytest.mark.slow
def test_sgld_is_as_hot_as_its_law_says():
    """Its relative excess is Rhλ/2T at n β large, which λ̂ shows."""
    model, x, y, at = regression(batch_size=20)
    curvatures = (np.asarray(x, float) ** 2).sum(0) / SCALE**2
    step = 0.2 * np.log(ROWS) / (20 * curvatures.max())
    options = {"at": at, "localisation": 0.01, "num_warmup": 300, "num_samples": 1000}
    with pytest.warns(LearningCoefficientWarning, match="the step is too long"):
        estimate = local_learning_coefficient(SGLD(model, step), jax.random.key(0), x, y, **options)
    expected = (DIM + (20 * step * curvatures / 2 / np.log(ROWS)).sum()) / 2
    assert abs(estimate.value - expected) <= 5 * estimate.error + 0.01 * expected
    assert expected > 1.05 * DIM / 2
