"""Inputs that are unusual and right, and must give the right answer; and those that are wrong, and must be told."""

import os
import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, DiscreteGibbs, Gibbs

from sgworld_numpyro import SGD, SGLD, SGWORLD, BatchReshuffle, FullBatch, ModelError
from sgworld_numpyro.chain import caller
from sgworld_numpyro.chain import data as chain_data
from sgworld_numpyro.chain.engine import LAST_STEP
from tests import runs
from tests.models import ROWS, X, Y, gaussian_mean, linear, rows
from tests.runs import samples_of

KEY = jax.random.key(0)
make = partial(runs.make, progress_bar=True)  # one compilation serves all runs of an MCMC


# --- Keys, numbers of chains, samples and steps ---


@pytest.mark.parametrize("key", [0, None, 1.5, "seed", np.int32(3), np.zeros(3, np.uint32)], ids=repr)
@pytest.mark.parametrize("num_chains", [1, 2])
def test_what_is_no_key_is_told(key, num_chains):
    with pytest.raises(TypeError, match=r"is no key: mcmc.run\(jax.random.key\(0\), "):
        make(SGWORLD(linear, 1e-3), 2, num_chains=num_chains).run(key, X, Y)


def test_an_integer_is_told_its_key():
    with pytest.raises(TypeError, match=r"rng_key=7 is no key: mcmc.run\(jax.random.key\(7\), "):
        SGWORLD(linear, 1e-3).init(7, 0, None, (X, Y), {})


@pytest.mark.parametrize(("keys", "num_chains"), [(2, 1), (3, 2)])
def test_keys_that_are_not_one_a_chain_are_told(keys, num_chains):
    with pytest.raises(ValueError, match=f"rng_key is {keys} keys, and num_chains={num_chains}: give one key"):
        make(SGWORLD(linear, 1e-3), 2, num_chains=num_chains).run(jax.random.split(KEY, keys), X, Y)


def test_what_is_no_key_is_told_to_a_resumed_run():
    mcmc = make(SGWORLD(linear, 1e-3), 2)
    samples_of(mcmc, X, Y)
    mcmc.post_warmup_state = mcmc.last_state
    for key in (0, None):
        with pytest.raises(TypeError, match="is no key"):
            mcmc.run(key, X, Y)


@pytest.mark.parametrize("num_chains", [0, -1, 2.0, None])
def test_no_chain_is_told(num_chains):
    with pytest.raises(ValueError, match=rf"num_chains={num_chains} must be a positive integer.*num_chains=4"):
        MCMC(SGWORLD(linear, 1e-3), num_warmup=0, num_samples=2, num_chains=num_chains, chain_method="vectorized")


@pytest.mark.parametrize(
    "sizes", [{"num_samples": 0}, {"num_samples": -1}, {"num_samples": 2, "thinning": 3}, {"num_warmup": -1}], ids=str
)
def test_what_numpyro_refuses_stays_refused(sizes):
    with pytest.raises(ValueError, match="must be a"):
        MCMC(SGWORLD(linear, 1e-3), **{"num_warmup": 0, "num_samples": 2, **sizes})


@pytest.mark.parametrize("sizes", [{"num_samples": 2**31}, {"num_samples": 2, "num_warmup": 10**12}], ids=str)
def test_samples_that_cannot_be_counted_are_told(sizes):
    with pytest.raises(ValueError, match=r"32 bits, at most 2147483647.*steps_per_sample="):
        make(SGWORLD(linear), **sizes).run(KEY, X, Y)
    with pytest.raises(ValueError, match="num_warmup=1000000000000 are more samples"):
        SGWORLD(linear).init(KEY, 10**12, None, (X, Y), {})


@pytest.mark.parametrize(("num_chains", "thinning"), [(1, 10), (4, 1)])
def test_draws_beyond_the_memory_are_told_before_the_tuning(num_chains, thinning, monkeypatch):
    """Of w, two floats, and of `diverging`, one byte, a draw: nine bytes, and as many for NumPyro's copy."""
    monkeypatch.setattr("sgworld_numpyro.kernel.learn", None)  # the run must not come to it
    mcmc = make(SGWORLD(linear), 10**6, num_chains=num_chains, thinning=thinning)
    wanted = 2 * 9 * 10**6 // thinning * num_chains
    monkeypatch.setattr(caller, "memory", lambda: wanted - 1)
    with pytest.raises(ValueError, match=r"num_samples=1000000 wants .* MiB of memory") as told:
        mcmc.run(KEY, X, Y)
    assert all(remedy in str(told.value) for remedy in ("thinning=", "keep=", "average=", "num_samples="))
    monkeypatch.setattr(caller, "memory", lambda: wanted)
    with pytest.raises(TypeError):  # as its tuning is None
        mcmc.run(KEY, X, Y)


def test_draws_beyond_the_memory_are_told_of_what_is_kept_and_of_extra_fields(monkeypatch):
    monkeypatch.setattr(caller, "memory", lambda: 10**6)
    large = SGWORLD(linear, 1e-3, keep=lambda sites: {"copies": jnp.resize(sites["w"], 1000)})
    with pytest.raises(ValueError, match=r"wants 76\.3 MiB"):
        make(large, 10**4).run(KEY, X, Y)
    mcmc = make(SGWORLD(linear, 1e-3), 10**5)
    with pytest.raises(ValueError, match=r"wants 3\.24 MiB"):  # 17 bytes a draw
        mcmc.run(KEY, X, Y, extra_fields=("position",))


@pytest.mark.parametrize("chain_method", ["vectorized", "sequential"])
def test_a_run_that_goes_on_is_told_of_memory_and_counters(chain_method, monkeypatch):
    """NumPyro does not initialise its kernel then."""
    mcmc = make(SGLD(gaussian_mean, 1e-3), num_chains=2, chain_method=chain_method)
    mcmc.run(KEY, Y)
    state = mcmc.last_state
    mcmc.num_samples, mcmc.post_warmup_state = 10**6, state
    monkeypatch.setattr(caller, "memory", lambda: 10**6)
    with pytest.raises(ValueError, match=r"num_samples=1000000 wants 19\.1 MiB of memory"):
        mcmc.run(state.rng_key, Y)
    mcmc.num_samples, mcmc.post_warmup_state = 11, state._replace(i=jnp.full_like(state.i, 2**31 - 11))
    with pytest.raises(ValueError, match="11 samples after 2147483637 are more samples than are counted in 32 bits"):
        mcmc.run(state.rng_key, Y)
    mcmc.num_samples = 10
    mcmc.run(state.rng_key, Y)
    assert np.all(mcmc.last_state.i == 2**31 - 1)


def test_the_memory_of_a_container_is_what_it_may_use(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(caller, "LIMITS", (str(limit), str(tmp_path / "nowhere")))
    limit.write_text("max\n")
    assert caller.memory() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit.write_text("12345\n")
    assert caller.memory() == 12345


@pytest.mark.parametrize("steps", [LAST_STEP + 1, 2**31, 10**12])
def test_steps_that_cannot_be_counted_are_told(steps):
    with pytest.raises(ValueError, match=f"steps_per_sample={steps} is more.*the largest is {LAST_STEP}"):
        SGWORLD(linear, 1e-3, steps_per_sample=steps)


def test_the_most_steps_a_sample_are_taken():
    kernel = SGWORLD(linear, 1e-3, steps_per_sample=LAST_STEP)
    state = kernel.init(KEY, 0, None, (X, Y), {})
    jax.eval_shape(lambda state: kernel.sample(state, (X, Y), {}), state)


# --- Numbers of any kind ---


@pytest.mark.parametrize("one", [1, np.float32(1), np.int64(1), np.array(1.0), jnp.float32(1), jnp.array(1)], ids=repr)
def test_numbers_of_numpy_and_jax_are_numbers(one):
    kernel = SGWORLD(linear, one, temperature=one)
    assert (type(kernel._step_size), kernel._step_size) == (float, 1.0)
    assert (type(kernel._temperature), kernel._temperature) == (float, 1.0)


@pytest.mark.parametrize(
    "value", [True, np.True_, jnp.array(True), np.nan, np.float32("nan"), "1", jnp.ones(2), 1j], ids=repr
)
def test_what_is_no_number_is_told(value):
    with pytest.raises(ValueError, match="temperature="):
        SGWORLD(linear, 1e-3, temperature=value)
    with pytest.raises(ValueError, match="step_size="):
        SGWORLD(linear, value)


def test_a_traced_temperature_is_told():
    with pytest.raises(ValueError, match=r"no value under jit or vmap.*Python number"):
        jax.jit(lambda t: SGWORLD(linear, 1e-3, temperature=t)._temperature)(1.0)


def with_batch(batch):
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        with rows(len(y), batch):
            numpyro.sample("obs", dist.Normal(mu, 1), obs=numpyro.subsample(y, event_dim=0))

    return model


def batch_made_inside(y):
    with_batch(jnp.int32(4))(y)


@pytest.mark.parametrize(
    ("model", "remedy"),
    [
        (with_batch(jnp.int32(4)), r"subsample_size=Array\(4.*a value of JAX.*int\(...\)"),
        (batch_made_inside, r"subsample_size=.*a value of JAX.*int\(...\)"),
        (with_batch(np.array(4)), r"subsample_size=array\(4\).*take int\(4\)"),
        (with_batch(4.0), "subsample_size=4.0.*use // for /"),
        (with_batch(True), "subsample_size=True, which must be an integer"),
        (with_batch(np.True_), "subsample_size=np.True_, which must be an integer"),
    ],
)
def test_batch_sizes_that_are_no_integers_are_told(model, remedy):
    with pytest.raises(ModelError, match=f"Plate 'rows' has {remedy}"):
        SGWORLD(model, 1e-3).init(KEY, 0, None, (Y,), {})


def test_a_batch_size_of_numpy_is_an_integer():
    assert SGWORLD(with_batch(np.int64(4)), 1e-3).init(KEY, 0, None, (Y,), {}).i == 0


def test_a_model_without_rows_or_values_is_told():
    with pytest.raises(ModelError, match=r"Plate 'rows' has size=0.*x of shape \(0, 2\), y of shape \(0,\)"):
        SGWORLD(linear, 1e-3).init(KEY, 0, None, (X[:0], Y[:0]), {})
    with pytest.raises(ModelError, match=r"no value to sample: 'w' of shape \(0,\)"):
        SGWORLD(linear).init(KEY, 0, None, (X[:, :0], Y), {})


# --- Under jit and vmap ---


def test_a_step_size_under_jit_and_vmap():
    """Under vmap to rounding, as XLA takes the sums of a batch in another order; nothing is left of the traces."""

    def run(step_size):
        return samples_of(make(SGWORLD(gaussian_mean, step_size), 2, progress_bar=False), Y)["mu"]

    compiled, several = jax.jit(run)(1e-2), jax.vmap(run)(jnp.array([1e-2, 5e-3]))
    expected = run(1e-2)
    np.testing.assert_array_equal(compiled, expected)
    np.testing.assert_allclose(several[0], expected, rtol=1e-5)
    assert not np.any(several[1] == several[0])


# --- Other circumstances at the next run ---


def descent(y, samples):
    """One step of gradient descent a sample from mu = 0.5, in double precision."""
    mu = [0.5]
    for _ in range(samples):
        mu.append(mu[-1] - 1e-2 * ((len(y) + 1) * mu[-1] - y.sum(dtype=np.float64)))
    return np.array(mu[1:])


START = {"mu": jnp.float32(0.5)}


def descending(scheme=None):
    return SGD(gaussian_mean, 1e-2, subsampling=scheme or FullBatch(), steps_per_sample=1)


def test_double_precision_can_be_turned_on_and_off():
    kept, found = descending(), []
    try:
        for double in (False, True, False):
            jax.config.update("jax_enable_x64", double)
            start = {"mu": jnp.asarray(0.5)}
            found.append(np.asarray(samples_of(make(kept, 2), Y, ROWS, init_params=start)["mu"][0]))
    finally:
        jax.config.update("jax_enable_x64", False)
    single, double, again = found
    assert [draws.dtype for draws in found] == [np.float32, np.float64, np.float32]
    np.testing.assert_allclose(double, descent(Y, 2), rtol=1e-12)
    np.testing.assert_array_equal(again, single)


@pytest.mark.parametrize(
    ("scheme", "hold_bytes", "num_chains"),
    [(FullBatch(), 2**30, 1), (FullBatch(), 2**30, 2), (FullBatch(), 1, 1), (BatchReshuffle(), 2**30, 1)],
    ids=["constant", "constant, two chains", "held", "reordered"],
)
def test_data_changed_in_place_are_seen_with_the_progress_bar(scheme, hold_bytes, num_chains, monkeypatch):
    """NumPyro keeps what it compiled by the ``id`` of the data, and JAX the data themselves as constants."""
    monkeypatch.setattr(chain_data, "HOLD_BYTES", hold_bytes)
    y, mcmc = Y.copy(), make(descending(scheme), 2, num_chains=num_chains)
    start = START if num_chains == 1 else {"mu": jnp.full(2, 0.5)}
    for _ in range(3):
        samples = samples_of(mcmc, y=y, batch=ROWS, init_params=start)["mu"]
        np.testing.assert_allclose(samples, [descent(y, 2)] * num_chains, rtol=1e-5)
        y[:] = y[::-1] + 1


def test_data_changed_in_place_are_seen_where_init_is_not_called():
    """After the warm-up, and by a run that goes on from another's last state."""
    y, mcmc = Y.copy(), make(descending(), 2, num_warmup=1)
    for _ in range(2):
        mcmc.warmup(KEY, y, ROWS, init_params=START)
        mcmc.post_warmup_state = mcmc.post_warmup_state._replace(z=START)
        y += 1
        np.testing.assert_allclose(samples_of(mcmc, y, ROWS)["mu"][0], descent(y, 2), rtol=1e-5)
        mcmc.post_warmup_state = mcmc.last_state._replace(z=START)
        y -= 3
        np.testing.assert_allclose(samples_of(mcmc, y, ROWS)["mu"][0], descent(y, 2), rtol=1e-5)


def test_data_changed_in_place_are_seen_by_each_mcmc_of_a_kernel():
    y, kernel = Y.copy(), descending()
    both = make(kernel, 2), make(kernel, 2)
    for _ in range(2):
        for mcmc in both:
            samples = samples_of(mcmc, y, ROWS, init_params=START)["mu"]
            np.testing.assert_allclose(samples[0], descent(y, 2), rtol=1e-5)
        y += 1


# --- Threads ---


def test_threads_run_as_if_alone():
    """Sharing a kernel or not, on the same or on other data; NumPyro's stack of handlers is one for all of them."""

    def run(kernel, y):
        samples = samples_of(make(kernel, 2), y, ROWS, init_params=START)["mu"]
        draws[threading.get_ident()] = np.asarray(samples)[0]

    draws, shared = {}, descending(BatchReshuffle())
    tasks = [(shared, Y), (shared, 2 * Y), (descending(BatchReshuffle()), 2 * Y)]
    threads = [threading.Thread(target=run, args=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for thread, (_, y) in zip(threads, tasks, strict=True):
        np.testing.assert_allclose(draws[thread.ident], descent(y, 2), rtol=1e-5)
    assert shared._bindings.current is not None  # for what is asked after the runs, in any thread


# --- Gibbs ---


def two_levels(y):
    high = numpyro.sample("high", dist.Bernoulli(0.5))
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with rows():
        numpyro.sample("obs", dist.Normal(mu + high, 1), obs=numpyro.subsample(y, event_dim=0))


def test_gibbs_is_told_which_model_its_blocks_share():
    kernel = SGLD(two_levels, 1e-3)
    ours, wrong = (kernel, ["mu"]), (DiscreteGibbs(two_levels), ["high"])
    for blocks in ([ours, wrong], [wrong, ours]):
        with pytest.raises(ValueError, match=r"must share the same model.*DiscreteGibbs\(kernel.model\)"):
            Gibbs(blocks)
    Gibbs([ours, (DiscreteGibbs(kernel.model), ["high"])])
    assert kernel.model != two_levels
    assert two_levels != kernel.model
    assert kernel.model == SGLD(two_levels).model
