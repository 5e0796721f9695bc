"""Models as users write them: the minibatches of each estimate its own full potential, and chains follow it."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.infer import NUTS, init_to_median, init_to_sample, init_to_uniform, init_to_value
from numpyro.infer.util import potential_energy

from sgworld_numpyro import SGD, SGLD, SGWORLD, Cyclic, LeimkuhlerMatthews
from sgworld_numpyro.chain import data as chain_data
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.target import inspect_model
from tests.models import (
    BATCH,
    CASES,
    LABELS,
    PAIRS,
    TABLE,
    X,
    Y,
    as_jax,
    correlation,
    gaussian_mean,
    linear,
    looks_at_data,
    partition,
    users_and_items,
)
from tests.runs import run

SIGMAS = 5
ROOT = Path(__file__).parents[1]
# A sum of some hundred terms of order 100, rounded to 2**-24 each and added in any order
FLOAT32 = 1e-5


def a_point(prototype):
    """Unconstrained values that are all different, near 0."""
    flat, unravel = ravel_pytree({name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in prototype.items()})
    return unravel(jnp.linspace(-0.4, 0.5, flat.size))


# one of each kind; a model much like another is slow to compile and says little more
QUICK = {
    "gaussian_mean",
    "simplex",
    "deterministics",
    "two_plates",
    "groups",
    "plate_inside",
    "from_tree",
    "masked_nan",
}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_minibatches_average_to_the_full_potential_and_chains_descend_it(name):
    """Both exact: the mean over a partition into minibatches, and SGD in a fixed order against a plain loop."""
    model, args, sites, kwargs = CASES[name]
    kernel = SGD(model, 1e-3, subsampling=Cyclic(), steps_per_sample=2)
    target = inspect_model(model, Arguments.of(args, kwargs))
    arguments = Arguments.of(*as_jax((args, kwargs)))
    start = a_point(target.prototype)

    def potential(z, rows):
        return target.potential(z, arguments, rows)

    every = partition(target.plates)

    @jax.jit
    def evaluate(z):
        minibatches = jax.vmap(jax.value_and_grad(potential), in_axes=(None, 0))(z, every)
        return minibatches, jax.value_and_grad(lambda z: potential_energy(kernel.model, args, kwargs, z))(z)

    (energies, gradients), (full, gradient) = evaluate(start)
    np.testing.assert_allclose(energies.mean(), full, rtol=FLOAT32)
    scale = max(abs(leaf).max() for leaf in jax.tree.leaves(gradients))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a.mean(0), b, atol=FLOAT32 * scale), gradients, gradient)
    # the minibatches differ, or their mean would say nothing
    assert len(energies) == 1 or energies.std() > 1e-3 * abs(full)

    mcmc = run(kernel, *args, init_params=start, extra_fields=("potential_energy",), **kwargs)
    samples = mcmc.get_samples()
    assert {site: value.shape for site, value in samples.items()} == {k: (2, *v) for k, v in sites.items()}
    assert all(value.dtype == jnp.float32 and np.isfinite(value).all() for value in samples.values())

    z, expected = start, []
    for step in range(4):
        numbers = [
            every[plate.name][:, 0] == step % (plate.size // plate.batch_size) * plate.batch_size
            for plate in target.plates
        ]
        here = int(np.argmax(np.all(numbers, axis=0)))
        (energies, gradients), _ = evaluate(z)
        expected.append(energies[here])
        z = jax.tree.map(lambda value, slope, n=here: value - 1e-3 * slope[n], z, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=FLOAT32, atol=FLOAT32), mcmc.last_state.z, z)
    expected = np.reshape(expected, (2, 2)).mean(axis=1)
    np.testing.assert_allclose(mcmc.get_extra_fields()["potential_energy"], expected, rtol=FLOAT32)


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("dependent_bounds", lambda s: (s["low"] <= s["high"]) & (s["high"] <= s["low"] + 3)),
        ("array_bounds", lambda s: abs(s["w"] + np.array([0, 1.5])) <= np.array([2, 1.5])),
    ],
)
def test_samples_stay_in_their_support(name, inside):
    """With noise that throws them far out: its standard deviation is √2 a step."""
    model, args, _, kwargs = CASES[name]
    kernel = SGLD(numpyro.handlers.scale(model, 1e-6), 1.0, steps_per_sample=2)
    samples = run(kernel, *args, num_samples=20, **kwargs).get_samples()
    assert np.all(inside(samples))


# --- Against the exact posterior and against NUTS ---


def monte_carlo_error(samples):
    """Standard error of the mean, from the spread of the means of the chains; chain × draw × ..."""
    means = np.asarray(samples).mean(axis=1)
    return means.std(axis=0, ddof=1) / len(means) ** 0.5


def assert_same_mean(ours, theirs):
    """Of posterior samples, chain × draw × ..., within both standard errors."""
    error = np.hypot(monte_carlo_error(ours), monte_carlo_error(theirs))
    difference = abs(np.asarray(ours).mean(axis=(0, 1)) - np.asarray(theirs).mean(axis=(0, 1)))
    np.testing.assert_array_less(difference, SIGMAS * error)


def test_two_plates_give_the_exact_posterior():
    """Means are exact with equal Hessians, and the variance is biased by (Rε)³/24 = 0.5 % at Rε = 0.5."""
    model, (y, z), _, _ = CASES["two_plates"]
    precision = 1 + len(y) + 4 * len(z)
    mean = (y.sum() + 2 * z.sum()) / precision
    kernel = SGWORLD(model, 0.5 / 6 / precision, integrator=LeimkuhlerMatthews())
    mcmc = run(kernel, y, z, num_warmup=20, num_samples=1000, num_chains=16)
    mu = np.asarray(mcmc.get_samples(group_by_chain=True)["mu"], float)
    for sample, exact in ((mu, mean), ((mu - mean) ** 2, 1 / precision)):
        error = monte_carlo_error(sample)
        np.testing.assert_allclose(sample.mean(), exact, atol=SIGMAS * error + 0.005 / precision)


@pytest.mark.slow
def test_agrees_with_nuts_on_the_full_data():
    """Bias is of the order of ε ≈ hλ ≈ 0.05 standard deviations, below the statistical error."""
    kernel = SGWORLD(correlation, 5e-4, integrator=LeimkuhlerMatthews())
    ours = run(kernel, PAIRS, num_warmup=500, num_samples=2000, num_chains=8)
    theirs = run(NUTS(kernel.model), PAIRS, num_warmup=200, num_samples=200, num_chains=8)
    ours, theirs = (mcmc.get_samples(group_by_chain=True) for mcmc in (ours, theirs))
    assert_same_mean(ours["factor"][..., 1, 0], theirs["factor"][..., 1, 0])
    assert_same_mean(ours["scale"], theirs["scale"])


# --- Data in other forms ---


@pytest.fixture(scope="module")
def reference():
    return run(SGWORLD(linear, 1e-3), X, Y, num_samples=3).get_samples()["w"]


@pytest.mark.parametrize(
    "arguments",
    [
        ((jnp.asarray(X), jnp.asarray(Y)), {}),
        ((), {"y": Y.astype(np.float64), "x": X.astype(np.float64)}),
        ((np.asfortranarray(X), Y[::-1].copy()[::-1], BATCH), {}),
    ],
    ids=["jax", "float64 by keyword", "strided"],
)
def test_the_form_of_the_data_changes_nothing(arguments, reference):
    args, kwargs = arguments
    samples = run(SGWORLD(linear, 1e-3), *args, num_samples=3, **kwargs).get_samples()["w"]
    np.testing.assert_array_equal(samples, reference)


def test_jit_model_args():
    """One compilation for all data of a shape; negated data make a descent from 0 its own negative."""
    kernel, start = SGD(linear, 1e-3), {"w": jnp.zeros(2)}
    expected = run(kernel, X, Y, init_params=start).get_samples()["w"]
    mcmc = run(kernel, X, Y, init_params=start, jit_model_args=True)
    np.testing.assert_allclose(mcmc.get_samples()["w"], expected, rtol=FLOAT32)
    mcmc.run(jax.random.key(0), X, -Y, init_params=start)
    np.testing.assert_allclose(mcmc.get_samples()["w"], -expected, rtol=FLOAT32)


def test_raw_and_typed_keys_give_the_same_chain(reference):
    raw = jax.random.key_data(jax.random.key(0))
    samples = run(SGWORLD(linear, 1e-3), X, Y, num_samples=3, key=raw).get_samples()["w"]
    np.testing.assert_array_equal(samples, reference)


@pytest.mark.parametrize("num_chains", [1, 2])
def test_held_data_are_the_same_data(num_chains, monkeypatch, reference):
    """Above a size, arrays are held apart from the compiled function."""
    monkeypatch.setattr(chain_data, "HOLD_BYTES", 1)
    key = jax.random.key(0) if num_chains == 1 else jax.random.wrap_key_data(np.zeros((2, 2), np.uint32))
    samples = run(SGWORLD(linear, 1e-3), X, Y, num_samples=3, num_chains=num_chains, key=key).get_samples(True)
    np.testing.assert_allclose(samples["w"][0], reference, rtol=FLOAT32)


def test_double_precision():
    code = """
import jax
jax.config.update("jax_enable_x64", True)
import numpy as np
from numpyro.infer import MCMC
from tests.models import X, Y, linear, gaussian_mean
from sgworld_numpyro import SGD, SGWORLD, FullBatch
x, y = X.astype(float), Y.astype(float)
mcmc = MCMC(SGWORLD(linear, 1e-3), num_warmup=1, num_samples=4, num_chains=2, chain_method="vectorized",
            progress_bar=False)
mcmc.run(jax.random.key(0), x, y, extra_fields=("position", "potential_energy", "step_size"))
for value in jax.tree.leaves((mcmc.get_samples(), mcmc.get_extra_fields())):
    assert value.dtype in (np.float64, bool), value.dtype
mcmc = MCMC(SGD(gaussian_mean, 1e-2, subsampling=FullBatch()), num_warmup=0, num_samples=5, progress_bar=False)
mcmc.run(jax.random.key(0), y, init_params={"mu": 0.5})
expected = y.sum() / 25 + (0.5 - y.sum() / 25) * 0.75 ** np.arange(1, 6)
np.testing.assert_allclose(mcmc.get_samples()["mu"], expected, rtol=1e-13)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


# --- Where chains start ---


def first_position(kernel, *args, num_chains=1, init_params=None):
    key = jax.random.key(1)
    if num_chains > 1:
        key = jax.random.split(key, num_chains)
    return kernel.init(key, 0, init_params, args, {}).z


@pytest.mark.parametrize("num_chains", [1, 3])
def test_init_params_are_where_chains_start(num_chains):
    shape = (num_chains, 6) if num_chains > 1 else (6,)
    given = {"u": jnp.linspace(0, 1, np.prod(shape)).reshape(shape)}
    z = first_position(SGWORLD(users_and_items, 1e-3), TABLE, num_chains=num_chains, init_params=given)
    np.testing.assert_array_equal(z["u"], given["u"])
    assert z["v"].shape == (*shape[:-1], 8)
    assert np.unique(z["v"]).size == z["v"].size  # the others are drawn, for each chain


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (init_to_value(values={"w": jnp.array([0.25, -1.0])}), lambda w: w == np.array([0.25, -1.0])),
        (init_to_uniform(radius=0.01), lambda w: (abs(w) <= 0.01) & (w != 0)),
        (init_to_median(num_samples=500), lambda w: abs(w) < SIGMAS * np.sqrt(np.pi / 2 / 500)),
        (init_to_sample(), lambda w: (abs(w) < SIGMAS) & (w != 0)),
    ],
    ids=["value", "uniform", "median", "sample"],
)
def test_init_strategies(strategy, expected):
    kernel = SGWORLD(linear, 1e-3, init_strategy=strategy)
    for num_chains in (1, 2):
        assert np.all(expected(first_position(kernel, X, Y, num_chains=num_chains)["w"]))


def test_a_model_that_looks_at_its_data():
    """A number of classes, counted in NumPy: the same as a model that knows it."""
    case = CASES["simplex"]
    expected = run(SGWORLD(case.model, 1e-3), LABELS).get_samples()["p"]
    samples = run(SGWORLD(looks_at_data, 1e-3), LABELS).get_samples()["p"]
    np.testing.assert_allclose(samples, expected, rtol=FLOAT32)


def test_an_argument_that_is_a_key():
    """Typed keys are arrays that hold no numbers."""

    def noisy(key, y):
        with numpyro.handlers.scale(scale=1.0):
            gaussian_mean(y + jax.random.normal(key, y.shape))

    mcmc = run(SGWORLD(noisy, 1e-3), jax.random.key(3), Y)
    assert np.isfinite(mcmc.get_samples()["mu"]).all()
