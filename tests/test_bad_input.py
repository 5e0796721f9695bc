"""What a user gets wrong, and the message that says which argument or site it was and how to mend it."""

import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import cond, scan
from numpyro.infer import Gibbs

from sgworld_numpyro import (
    BAOAB,
    SGD,
    SGLD,
    SGWORLD,
    UBU,
    DivergenceWarning,
    EulerMaruyama,
    LeimkuhlerMatthews,
    ModelError,
    RandomReshuffle,
)
from tests.models import HELD_OUT, ROWS, WITH_NAN, X, Y, gaussian_mean, linear, masked_nan, rows
from tests.runs import make, run


def subsample(y):
    return numpyro.subsample(y, event_dim=0)


# --- Models ---


def no_subsampled_plate(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("obs", dist.Normal(mu, 1), obs=y)


def batch_larger_than_data(y):
    gaussian_mean(y, batch=100)


def discrete_latent(y):
    level = numpyro.sample("level", dist.Categorical(jnp.ones(2) / 2))
    with rows():
        numpyro.sample("obs", dist.Normal(level, 1), obs=subsample(y))


def local_latent(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows():
        each = numpyro.sample("each", dist.Normal(mu, 1))
        numpyro.sample("obs", dist.Normal(each, 1), obs=subsample(y))


def summed_factor(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows():
        numpyro.factor("likelihood", -0.5 * ((subsample(y) - mu) ** 2).sum())


def plate_in_scan(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))

    def body(carry, _):
        with rows():
            numpyro.sample("obs", dist.Normal(mu, 1), obs=subsample(y))
        return carry, None

    scan(body, 0.0, jnp.arange(2))


def plate_in_cond(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))

    def body(_):
        with rows():
            numpyro.sample("obs", dist.Normal(mu, 1), obs=subsample(y))

    cond(mu > 0, body, body, None)


def already_a_minibatch(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows():
        numpyro.sample("obs", dist.Normal(mu, 1), obs=y[:4])


def no_latent(y):
    with rows():
        numpyro.sample("obs", dist.Normal(0, 1), obs=subsample(y))


def delta_latent(y):
    mu = numpyro.sample("mu", dist.Delta(0.0))
    with rows():
        numpyro.sample("obs", dist.Normal(mu, 1), obs=subsample(y))


@pytest.mark.parametrize(
    ("model", "culprit", "remedy"),
    [
        (no_subsampled_plate, "no subsampled plate", "subsample_size=100"),
        (
            batch_larger_than_data,
            f"Plate 'rows' has subsample_size=100 and size={ROWS}",
            rf"min\(100, (size|{ROWS})\)",
        ),
        (discrete_latent, "'level' is discrete", "Marginalise it"),
        (local_latent, "'each' is inside the subsampled plate 'rows'", "take the subsample_size off"),
        (summed_factor, r"Factor 'likelihood' has shape \(\) inside plate 'rows'", r"drop the \.sum\(\)"),
        (plate_in_scan, "Plate 'rows' .* is inside `scan` or `cond`", "Move the plate out"),
        (plate_in_cond, "Plate 'rows' .* is inside `scan` or `cond`", "Move the plate out"),
        (already_a_minibatch, "does not depend on the rows that plate 'rows' takes", r"numpyro\.subsample\("),
        (no_latent, "no latent sample site", ""),
        (delta_latent, "'mu' has a delta distribution", r"numpyro\.deterministic\('mu'"),
    ],
)
def test_models_that_minibatches_cannot_treat(model, culprit, remedy):
    with pytest.raises(ModelError, match=f"(?s){culprit}.*{remedy}"):
        run(SGWORLD(model, 1e-3), Y)


@pytest.mark.parametrize("short", [(X, Y[:-4]), (X[:-4], Y)])
def test_arguments_of_different_lengths(short):
    """NumPyro's own message: it names the plate, its size and the shape."""
    with pytest.raises(ValueError, match=r"plate\(rows, (20|24).*subsample.*\((20|24),\)"):
        run(SGWORLD(linear, 1e-3), *short)


# --- Data ---


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, ROWS - 1])
def test_data_that_are_not_finite(value, row):
    y = Y.copy()
    y[row] = value
    with pytest.raises(ValueError, match=rf"y\[{row}\] is {value}: 1 of the {ROWS} values.*Remove these rows.*mask"):
        run(SGWORLD(linear, 1e-3), X, y)


def test_data_that_are_not_finite_in_a_matrix_by_keyword():
    x = X.copy()
    x[7, 1] = -np.inf
    with pytest.raises(ValueError, match=r"x\[7, 1\] is -inf: 1 of the 48 values of x"):
        run(SGWORLD(linear, 1e-3), y=Y, x=jnp.asarray(x), num_chains=2)


def partly_masked(y, keep):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows():
        yb, keep = subsample(y), subsample(keep)
        with numpyro.handlers.mask(mask=keep):
            numpyro.sample("obs", dist.Normal(mu, 1), obs=jnp.where(keep, yb, 0.0))


def test_masked_rows_may_be_nan_and_others_not():
    run(SGWORLD(masked_nan, 1e-3), WITH_NAN)  # warnings are errors
    last = int(np.flatnonzero(HELD_OUT)[-1])
    keep = ~HELD_OUT
    keep[last] = True
    with pytest.raises(ValueError, match=rf"y\[{last}\] is nan"):
        run(SGWORLD(partly_masked, 1e-3), WITH_NAN, keep)


# --- Options ---


@pytest.mark.parametrize("step_size", [0, -1e-3, np.nan, np.inf, "small", np.ones(2)])
def test_step_sizes_that_are_none(step_size):
    with pytest.raises(ValueError, match=r"step_size=.*positive"):
        SGWORLD(linear, step_size)


class Unheard:
    """An integrator of a user's own, of whose bias nothing is known."""

    noise, noise_vectors = "gaussian", 1

    def init(self, position):
        return ()

    def step(self, gradient, position, state, noise, step_size, temperature, preconditioner):
        energy, force = gradient(position)
        return position - step_size * force, state, energy


def test_a_missing_step_size_that_cannot_be_tuned():
    with pytest.raises(ValueError, match=r"step_size is missing. At temperature 0 there is no posterior"):
        SGD(linear)
    with pytest.raises(
        ValueError, match=r"step_size is missing.*integrator=.*Unheard.*known bias are EulerMaruyama\(\)"
    ):
        SGWORLD(linear, integrator=Unheard())


@pytest.mark.parametrize("tolerance", [0, -0.1, 1, np.nan, "small", True])
def test_tolerances_that_are_none(tolerance):
    with pytest.raises(ValueError, match=r"bias_tolerance=.*between 0 and 1"):
        SGWORLD(linear, bias_tolerance=tolerance)


@pytest.mark.parametrize("friction", [0, -1.0, np.inf, np.nan, "high", True])
@pytest.mark.parametrize("integrator", [BAOAB, UBU])
def test_frictions_that_are_none(integrator, friction):
    with pytest.raises(ValueError, match=rf"{integrator.__name__} got friction=.*positive number, or None"):
        integrator(friction)


def test_schedules_that_are_bad_at_once():
    with pytest.raises(ValueError, match=r"schedule .* gives -0\.00\d+ at step 60; it must"):
        run(SGWORLD(linear, lambda step: 1e-3 - 1e-4 * step), X, Y, num_warmup=10)
    with pytest.raises(ValueError, match=r"schedule .* gives \[.*\] at step 0; it must"):
        run(SGWORLD(linear, lambda step: jnp.ones(2)), X, Y)


@pytest.mark.parametrize(("kernel", "later"), [(SGWORLD, jnp.nan), (SGD, -1e-3)])
def test_schedules_that_turn_bad_later(kernel, later):
    """Advice in terms of a step size that is no step size would be no advice."""
    with pytest.warns(UserWarning, match="step_size=") as caught:
        run(kernel(linear, lambda step: jnp.where(step < 8, 1e-3, later)), X, Y, num_samples=5)
    assert not any("instance step_size=nan" in str(w.message) for w in caught)
    assert not any("instance step_size=-" in str(w.message) for w in caught)


@pytest.mark.parametrize(
    ("options", "culprit", "remedy"),
    [
        ({"subsampling": "reshuffle"}, "subsampling='reshuffle'", "sgworld_numpyro.subsampling"),
        ({"subsampling": RandomReshuffle}, "subsampling=<class", r"an instance, RandomReshuffle\(\)"),
        ({"integrator": LeimkuhlerMatthews}, "integrator=<class", r"an instance, LeimkuhlerMatthews\(\)"),
        ({"integrator": RandomReshuffle()}, r"integrator=RandomReshuffle\(\)", "sgworld_numpyro.integrators"),
        ({"gradient": "svrg"}, "gradient='svrg'", "sgworld_numpyro.gradients"),
        ({"preconditioner": np.eye(2)}, "preconditioner=", "sgworld_numpyro.preconditioners"),
    ],
)
def test_components_that_are_none(options, culprit, remedy):
    with pytest.raises(TypeError, match=f"(?s){culprit}.*{remedy}"):
        SGWORLD(linear, 1e-3, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature=-1 must be finite and not negative"),
        ({"temperature": np.nan}, "temperature=nan must be"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"steps_per_sample": 0}, "steps_per_sample=0 must be a positive integer"),
        ({"steps_per_sample": 2.5}, "steps_per_sample=2.5 must be a positive integer"),
        ({"steps_per_sample": True}, "steps_per_sample=True must be a positive integer"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        SGLD(linear, 1e-3, **options)


def test_numpy_integers_are_integers():
    SGLD(linear, 1e-3, steps_per_sample=np.int64(5))


def test_sgd_has_no_temperature():
    with pytest.raises(TypeError, match=r"SGD has temperature 0.*SGLD\(model"):
        SGD(linear, 1e-3, temperature=1.0)


def test_a_kernel_without_a_model():
    with pytest.raises(TypeError, match="model"):
        SGWORLD(X, 1e-3)


class Scheme:
    """What `indices` gives, whatever it is asked for."""

    def __init__(self, rows, period=1):
        self.rows, self._period = rows, period

    def indices(self, key, start, steps, plate):
        return self.rows(steps, plate)

    def period(self, plate):
        return self._period


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda steps, plate: jnp.zeros(steps, jnp.int32), r"int32\[2\] for 2 steps of plate 'rows'"),
        (lambda steps, plate: jnp.zeros((steps, 4)), r"float32\[2, 4\] for 2 steps .* integers of shape"),
        (lambda steps, plate: jnp.zeros((4, steps), jnp.int32), r"int32\[4, 2\]"),
    ],
)
def test_schemes_with_rows_of_the_wrong_shape(rows, message):
    with pytest.raises(TypeError, match=message):
        run(SGWORLD(linear, 1e-3, subsampling=Scheme(rows)), X, Y)


# --- Where chains start ---


@pytest.mark.parametrize(
    ("given", "num_chains", "message"),
    [
        ({"v": jnp.zeros(2)}, 1, r"init_params has 'v', which is no latent site; they are \['w'\]"),
        ({"w": jnp.zeros(3)}, 1, r"init_params\['w'\] has shape \(3,\), wanted \(2,\)"),
        ({"w": jnp.zeros((2,))}, 2, r"init_params\['w'\] has shape \(2,\), wanted \(2, 2\) .*chains first"),
        ({"w": jnp.zeros((3, 2))}, 2, "same leading dimension"),  # NumPyro's
    ],
)
def test_init_params_that_do_not_fit(given, num_chains, message):
    with pytest.raises(ValueError, match=message):
        run(SGWORLD(linear, 1e-3), X, Y, num_chains=num_chains, init_params=given)


def far_away(y):
    """Impossible below 50, where no initial strategy would look."""
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows():
        numpyro.factor("likelihood", jnp.where(mu > 50, -((mu - 60 - subsample(y)) ** 2), -jnp.inf))


def test_no_valid_start():
    with pytest.raises(ValueError, match=r"No initial values.*give init_params or another init_strategy"):
        run(SGWORLD(far_away, 1e-6), Y)


def test_no_valid_start_but_one_is_given():
    """The remedy that the message proposes must be one."""
    mcmc = run(SGWORLD(far_away, 1e-6), Y, init_params={"mu": jnp.float32(60.0)})
    assert np.isfinite(mcmc.get_samples()["mu"]).all()


# --- NumPyro's own errors ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_warmup": -1}, "num_warmup must be a nonnegative integer"),
        ({"num_samples": 0}, "num_samples must be a positive integer"),
        ({"num_chains": 2, "chain_method": "threads"}, "Only supporting the following methods"),
    ],
)
def test_errors_of_numpyro_surface(options, message):
    with pytest.raises(ValueError, match=message):
        run(SGWORLD(linear, 1e-3), X, Y, **options)


def test_damaged_pickles_raise():
    good = pickle.dumps(SGWORLD(linear, 1e-3, integrator=EulerMaruyama()))
    pickle.loads(good)
    for bad in (good[:-10], good[: len(good) // 2], good.replace(b"sgworld_numpyro", b"sgworld_nunpyro")):
        with pytest.raises((pickle.UnpicklingError, EOFError, ModuleNotFoundError, AttributeError)):
            pickle.loads(bad)


# --- Divergence ---

LARGEST = 2 / (1 + ROWS)  # of gaussian_mean, whose curvature is that of the prior and N rows


@pytest.mark.filterwarnings("ignore:Some donated buffers")
@pytest.mark.parametrize(
    ("chains", "progress_bar"),
    [
        ({}, False),
        ({}, True),
        ({"num_chains": 2}, True),
        ({"num_chains": 2, "chain_method": "sequential"}, False),
        ({"num_chains": 2, "chain_method": jax.vmap}, False),
    ],
    ids=["single", "single, bar", "vectorized, bar", "sequential", "vmap"],
)
def test_divergence_is_said_once(chains, progress_bar):
    """With the largest stable step size, and a step size that is stable."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DivergenceWarning)
        mcmc = run(SGWORLD(gaussian_mean, 3 * LARGEST), Y, num_samples=40, progress_bar=progress_bar, **chains)
    (first,) = [str(w.message) for w in caught if w.category is DivergenceWarning]
    assert f"step_size={3 * LARGEST:.3g}" in first
    assert f"largest stable step size there is about {LARGEST:.2g}." in first
    assert f"instance step_size={LARGEST / 4:.1g}" in first
    diverging = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["diverging"])
    sample = int(first.split("in sample ")[1].split()[0])
    assert sample == min(int(np.argmax(chain)) for chain in diverging)


@pytest.mark.parametrize(("gibbs", "progress_bar"), [(False, True), (True, True), (True, False)])
def test_every_run_says_it_but_not_one_that_goes_on(gibbs, progress_bar):
    """The second run is compiled already: all its samples take less time than the bar between two looks."""
    kernel = SGWORLD(gaussian_mean, 3 * LARGEST)
    mcmc = make(Gibbs([(kernel, None)]) if gibbs else kernel, num_samples=40, progress_bar=progress_bar)
    for key in range(2):
        with pytest.warns(DivergenceWarning):
            mcmc.run(jax.random.key(key), Y)
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key, Y)


@pytest.mark.parametrize("progress_bar", [False, True])
def test_a_run_that_goes_on_from_a_stable_state_says_it(progress_bar):
    """NumPyro does not initialise the kernel again."""

    def later_unstable(step):
        return jnp.where(step < 20 * ROWS // 4, LARGEST / 4, 3 * LARGEST)

    mcmc = make(SGWORLD(gaussian_mean, later_unstable), num_warmup=10, num_samples=40, progress_bar=progress_bar)
    mcmc.warmup(jax.random.key(0), Y)
    with pytest.warns(DivergenceWarning, match=f"in sample 2[0-9] at step_size={3 * LARGEST:.3g}"):
        mcmc.run(jax.random.key(0), Y)


def walled(y):
    """Beyond 0.4 there is no density, and a force as if there were."""
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows(len(y)):
        yb = subsample(y)
        numpyro.sample("obs", dist.Normal(mu, 1), obs=yb)
        numpyro.factor("wall", jnp.where(mu > 0.4, -jnp.inf, 0.0) * jnp.ones(len(yb)))


@pytest.mark.parametrize("progress_bar", [False, True])
def test_a_chain_that_comes_back_is_not_said_to_be_lost(progress_bar):
    start = {"mu": jnp.zeros(2)}
    with pytest.warns(DivergenceWarning, match="of a chain was not finite in") as caught:
        mcmc = run(
            SGLD(walled, 1e-2), Y, num_samples=50, num_chains=2, key=1, progress_bar=progress_bar, init_params=start
        )
    diverging = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["diverging"])
    assert 0 < diverging[0].sum() < 50
    assert not diverging[:, -1].any()
    assert f"in {diverging[0].sum()} of its samples" in str(caught[0].message)
    assert "of no use" not in str(caught[0].message)
    assert len(caught) == 1


def test_a_run_that_failed_leaves_nothing_behind():
    mcmc = make(SGWORLD(gaussian_mean, 3 * LARGEST), num_samples=40, progress_bar=False)
    with pytest.raises(ValueError, match="not finite"):
        mcmc.run(jax.random.key(0), jnp.full(ROWS, jnp.nan))
    mcmc = pickle.loads(pickle.dumps(mcmc))
    with pytest.warns(DivergenceWarning) as caught:
        mcmc.run(jax.random.key(0), Y)
    assert len(caught) == 1


def test_a_run_that_is_traced_and_a_sample_by_hand_say_it():
    def draws(key):
        mcmc = make(SGWORLD(gaussian_mean, 3 * LARGEST), num_samples=40)
        mcmc.run(key, Y)
        return mcmc.get_samples()

    def to_the_end(function, argument):
        jax.block_until_ready(jax.jit(function)(argument))
        jax.effects_barrier()

    with pytest.warns(DivergenceWarning, match="in sample 4"):
        to_the_end(draws, jax.random.key(0))
    kernel = SGWORLD(gaussian_mean, 3 * LARGEST, steps_per_sample=40 * ROWS // 4)
    state = kernel.init(jax.random.key(0), 0, None, (Y,), {})
    with pytest.warns(DivergenceWarning, match="in sample 0"):
        to_the_end(lambda state: kernel.sample(state, (Y,), {}), state)


def test_what_is_stable_does_not_warn(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mcmc = run(SGWORLD(gaussian_mean, LARGEST / 4), Y, num_samples=40)
    mcmc.print_summary()
    assert "Number of divergences: 0" in capsys.readouterr().out
