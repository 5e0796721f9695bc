"""The kernels inside NumPyro's MCMC and Gibbs: resumption, chain methods, compilation, reuse."""

import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import NUTS, DiscreteGibbs, Gibbs

from benchmarks import workloads
from sgworld_numpyro import SGD, SGLD, SGWORLD, BatchReshuffle, FullBatch, LeimkuhlerMatthews
from sgworld_numpyro.chain import data as chain_data
from tests import runs
from tests.models import GROUPS, ROWS, X, Y, gaussian_mean, groups, linear, rows
from tests.runs import samples_of, subprocess_output

SIGMAS = 5
BATCH = 5  # does not divide the number of rows
make = partial(runs.make, progress_bar=True)  # one compilation serves all runs of an MCMC
KERNELS = {
    "sgld": lambda model: SGLD(model, 1e-2),
    "sgworld": lambda model: SGWORLD(model, 1e-2, steps_per_sample=7),
    "leimkuhler_matthews": lambda model: SGWORLD(model, 1e-2, integrator=LeimkuhlerMatthews()),
    "three_point": lambda model: SGLD(model, 1e-2, integrator=LeimkuhlerMatthews(noise="three_point")),
}


# --- The same chain again ---


@pytest.mark.parametrize(
    ("name", "num_chains"),
    [
        *(pytest.param(name, 1, marks=pytest.mark.slow) for name in KERNELS if name != "three_point"),
        ("three_point", 1),
        ("sgworld", 2),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(name, num_chains):
    kernel = KERNELS[name](linear)
    straight = samples_of(make(kernel, 60, num_chains=num_chains), X, Y, BATCH)["w"]
    half = make(kernel, 30, num_chains=num_chains)
    first = samples_of(half, X, Y, BATCH)["w"]
    half.post_warmup_state = pickle.loads(pickle.dumps(half.last_state))
    second = samples_of(half, X, Y, BATCH, key=half.last_state.rng_key)["w"]
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), straight)


def test_a_run_is_resumed_in_another_process(tmp_path):
    make_kernel = "SGWORLD(linear, 1e-2, integrator=LeimkuhlerMatthews(noise='three_point'))"
    kernel = SGWORLD(linear, 1e-2, integrator=LeimkuhlerMatthews(noise="three_point"))
    straight = samples_of(make(kernel, 60), X, Y, BATCH)["w"][0, 30:]
    half = make(kernel, 30)
    samples_of(half, X, Y, BATCH)
    path = tmp_path / "state"
    path.write_bytes(pickle.dumps(half.last_state))
    subprocess_output(f"""
import pickle
import numpy as np
from numpyro.infer import MCMC
from tests.models import X, Y, linear
from sgworld_numpyro import SGWORLD, LeimkuhlerMatthews
mcmc = MCMC({make_kernel}, num_warmup=0, num_samples=30)
with open({str(path)!r}, "rb") as file:
    mcmc.post_warmup_state = pickle.load(file)
mcmc.run(mcmc.post_warmup_state.rng_key, X, Y, {BATCH})
np.save({str(path)!r}, mcmc.get_samples()["w"])
""")
    np.testing.assert_array_equal(np.load(f"{path}.npy"), straight)


def test_the_same_key_gives_the_same_chain_and_another_key_another():
    mcmc = make(SGWORLD(linear, 1e-2), 5)
    first = samples_of(mcmc, X, Y)["w"]
    other = samples_of(mcmc, X, Y, key=1)["w"]
    np.testing.assert_array_equal(samples_of(mcmc, X, Y)["w"], first)
    assert not np.any(first == other)
    np.testing.assert_array_equal(samples_of(make(SGWORLD(linear, 1e-2), 5, progress_bar=False), X, Y)["w"], first)


def test_kernels_pickle_before_and_after_a_run():
    kernel = SGWORLD(linear, 1e-2, subsampling=BatchReshuffle())
    before = pickle.dumps(kernel)
    expected = samples_of(make(kernel, 3), X, Y)["w"]
    mcmc = make(pickle.loads(before), 3)
    np.testing.assert_array_equal(samples_of(mcmc, X, Y)["w"], expected)
    mcmc = pickle.loads(pickle.dumps(mcmc))  # with the kernel that has run
    np.testing.assert_array_equal(samples_of(mcmc, X, Y)["w"], expected)


@pytest.mark.parametrize("given", ["1e-3", pytest.param("steps_per_sample=6", marks=pytest.mark.slow)])
def test_chain_methods_give_the_same_chains(given):
    """Bitwise but for the order of sums, which XLA chooses for a batch of chains: some roundings a step."""
    output = subprocess_output(
        f"""
import jax
import numpy as np
from numpyro.infer import MCMC
from tests.models import X, Y, linear
from sgworld_numpyro import SGWORLD
samples = {{}}
for method in ("sequential", "vectorized", "parallel", jax.vmap):
    mcmc = MCMC(SGWORLD(linear, {given}), num_warmup=3, num_samples=4, num_chains=2, chain_method=method,
                progress_bar=False)
    mcmc.run(jax.random.key(0), X, Y)
    samples[method] = mcmc.get_samples(group_by_chain=True)["w"]
for method in ("vectorized", "parallel", jax.vmap):
    difference = abs(samples[method] - samples["sequential"]).max() / abs(samples["sequential"]).max()
    print(getattr(method, "__name__", method), difference)
""",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
        PYTHONWARNINGS="error,ignore:Some donated buffers",
    )
    print(output)
    differences = [float(line.split()[-1]) for line in output.splitlines()]
    steps = 7 * ROWS / 4
    assert len(differences) == 3
    assert max(differences) <= steps * np.finfo(np.float32).eps


def test_parallel_chains_say_that_one_diverged():
    """At a step size of a schedule, which is traced there."""
    output = subprocess_output(
        """
import warnings
import jax
import jax.numpy as jnp
from numpyro.infer import MCMC
from tests.models import Y, gaussian_mean
from sgworld_numpyro import SGWORLD
kernel = SGWORLD(gaussian_mean, lambda step: jnp.where(step < 20, 1e-3, 1.0))
mcmc = MCMC(kernel, num_warmup=0, num_samples=40, num_chains=2, chain_method="parallel", progress_bar=False)
with warnings.catch_warnings(record=True) as caught:
    mcmc.run(jax.random.key(0), Y)
print(*(f"{warning.category.__name__} {warning.message}" for warning in caught), sep=chr(10))
""",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
    )
    (line,) = output.splitlines()
    assert line.startswith("DivergenceWarning")
    assert "at step_size=1;" in line


# --- Compilation ---


@pytest.fixture
def compiled(caplog):
    """How often NumPyro's loop was compiled since this was last asked."""

    def times():
        count = sum("Finished XLA compilation of jit(_body_fn)" in record.message for record in caplog.records)
        caplog.clear()
        return count

    with jax.log_compiles(), caplog.at_level("WARNING"):
        yield times


def test_sampling_is_compiled_once_on_40_mib(compiled):
    """NumPyro's loop gets its counters back tied to a device."""
    y = np.zeros(10 * 2**20, np.float32)
    mcmc = make(SGWORLD(gaussian_mean, 1e-8, steps_per_sample=1), 3, thinning=2)
    for key in range(2):
        mcmc.run(jax.random.key(key), y, 2**20)
        assert compiled() == 1 - key
        assert mcmc.thinning == 2
        assert isinstance(mcmc.thinning, int)
    assert mcmc.get_samples()["mu"].shape == (1,)


@pytest.mark.parametrize(
    ("options", "of_mcmc"),
    [
        ({"keep": lambda values: {"twice": 2 * values["mu"]}}, {}),
        ({"average": lambda values: values}, {"num_chains": 2}),
        ({}, {"num_chains": 2, "chain_method": "sequential"}),
    ],
    ids=["keep", "vectorized", "sequential"],
)
def test_sampling_on_held_data_is_compiled_once(options, of_mcmc, monkeypatch, compiled):
    monkeypatch.setattr(chain_data, "HOLD_BYTES", 1)
    mcmc = make(SGWORLD(gaussian_mean, 1e-2, **options), 3, num_warmup=2, **of_mcmc)
    mcmc.warmup(jax.random.key(0), Y)
    assert compiled() == 1
    mcmc.run(mcmc.post_warmup_state.rng_key, Y)
    assert compiled() == 0


def test_the_bar_of_vectorized_chains_shows_all_of_them_on_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    mcmc = make(SGWORLD(gaussian_mean, 1e-2), 20, num_chains=2, progress_bar=True)
    mcmc.run(jax.random.key(0), Y)
    shown = [line for line in capsys.readouterr().err.split("\r") if "h 1.0e-02, T " in line]
    assert shown
    assert all(len(line.rstrip()) <= 80 for line in shown)
    assert mcmc.sampler.is_ensemble_kernel is False  # to everybody else


def test_a_run_that_was_interrupted_is_run_again(monkeypatch, compiled):
    """What it has left behind in MCMC is of no consequence."""
    monkeypatch.setattr(chain_data, "HOLD_BYTES", 1)
    mcmc = make(SGWORLD(gaussian_mean, 1e-2), 4, thinning=2)
    with monkeypatch.context() as patch:
        patch.setattr(SGWORLD, "get_diagnostics_str", interrupt)
        with pytest.raises(KeyboardInterrupt):
            mcmc.run(jax.random.key(0), Y)
    assert compiled() == 1
    assert pickle.loads(pickle.dumps(mcmc)).thinning == 2
    mcmc.run(jax.random.key(0), Y)
    assert compiled() == 0
    assert mcmc.get_samples()["mu"].shape == (2,)


def interrupt(*_):
    raise KeyboardInterrupt


def test_another_process_finds_everything_in_the_cache(tmp_path):
    """With the progress bar and without, on data that are constants and on data that are held."""
    code = """
from collections import Counter
import jax
from sgworld_numpyro import SGWORLD
from sgworld_numpyro.chain import data
from tests.models import Y, gaussian_mean
from tests.runs import run
counts = Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.split("/")[-1]]))
for progress_bar, data.HOLD_BYTES, num_chains in ((True, 2**25, 1), (False, 2**25, 2), (True, 1, 2)):
    run(SGWORLD(gaussian_mean, 1e-2), Y, num_chains=num_chains, progress_bar=progress_bar)
print(counts["cache_hits"], counts["cache_misses"], counts["compile_requests_use_cache"])
"""
    environment = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    _, misses, _ = map(int, subprocess_output(code, **environment).split())
    assert misses > 0
    for _ in range(3):  # what a progress bar reads depends on the time: a process may want what the one before did not
        hits, misses, requests = map(int, subprocess_output(code, **environment).split())
        if misses == 0:
            break
    assert misses == 0
    assert hits == requests > 0


# --- The phases of MCMC ---


def test_warmup_and_thinning():
    mcmc = make(SGWORLD(linear, 1e-2), 6, num_warmup=4)
    straight = samples_of(mcmc, X, Y)["w"]
    mcmc.warmup(jax.random.key(0), X, Y, collect_warmup=True)
    warmup = mcmc.get_samples(group_by_chain=True)["w"]
    after = samples_of(mcmc, X, Y, key=mcmc.post_warmup_state.rng_key)["w"]
    np.testing.assert_array_equal(after, straight)
    everything = samples_of(make(SGWORLD(linear, 1e-2), 10), X, Y)["w"]
    np.testing.assert_array_equal(np.concatenate([warmup, after], axis=1), everything)
    thinned = samples_of(make(SGWORLD(linear, 1e-2), 6, num_warmup=4, thinning=2), X, Y)["w"]
    np.testing.assert_array_equal(thinned, straight[:, 1::2])


def test_refresh_constrain_and_wrap():
    kernel = SGWORLD(groups, 1e-3)
    state = kernel.init(jax.random.key(0), 0, None, (Y, GROUPS), {})
    assert kernel.refresh(state, (Y, GROUPS), {}) is state
    constrained = kernel.get_constrain_fn((Y, GROUPS), {})(state.z)
    np.testing.assert_allclose(constrained["scale"], np.exp(state.z["scale"]), rtol=1e-6)
    np.testing.assert_array_equal(constrained["level"], state.z["level"])

    def doubled(model):
        def wrapped(y, group):
            return model(2 * y, group)

        return wrapped

    wrapped = kernel.wrap_model(doubled)
    assert type(wrapped) is SGWORLD
    assert kernel.model != wrapped.model
    expected = samples_of(make(kernel, 2), 2 * Y, GROUPS)
    for name, value in samples_of(make(wrapped, 2), Y, GROUPS).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5)


# --- Compilation ---


def test_a_second_run_traces_and_compiles_nothing():
    calls, compilations = [], []

    def counted(x, y):
        calls.append(None)
        linear(x, y)

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    mcmc = make(SGWORLD(counted, 1e-2), 5, num_warmup=2)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        samples_of(mcmc, X, Y)
        # inspection of model and dependences, initial values, gradient; not once a step or a sample
        assert 0 < len(calls) < 20
        assert compilations
        calls.clear(), compilations.clear()
        mcmc.run(jax.random.key(1), X, Y)
        jax.block_until_ready(mcmc.last_state)
        assert not calls
        assert not compilations
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


# --- What the chain does ---


def visits(num_rows, batch):
    """Its gradient is N/B where a row is in the minibatch, and 0 elsewhere."""
    w = numpyro.sample("w", dist.ImproperUniform(dist.constraints.real_vector, (), (num_rows,)))
    with rows(num_rows, batch) as chosen:
        numpyro.factor("visit", -w[chosen])


@pytest.mark.parametrize(("batch", "passes"), [(4, 1), (6, 1), (5, 5), (ROWS, 1)])
def test_every_row_is_visited_once_an_epoch(batch, passes):
    """SGD with h = B/N makes w = -(number of visits); an epoch of a straddling stream is several passes."""
    sgworld = {"subsampling": SGWORLD(visits, 1.0)._subsampling}
    period = ROWS * passes // batch
    start = {"w": jnp.zeros(ROWS)}
    kernel = SGD(visits, batch / ROWS, steps_per_sample=1, **sgworld)
    counts = -samples_of(make(kernel, 3 * period), ROWS, batch, init_params=start)["w"][0]
    every_step = np.diff(counts, axis=0, prepend=0)
    np.testing.assert_allclose(every_step.sum(axis=1), batch, rtol=1e-5)
    np.testing.assert_allclose(
        counts[period - 1 :: period], passes * np.arange(1, 4)[:, None] * np.ones(ROWS), rtol=1e-5
    )
    orders = every_step.round().reshape(3, period, ROWS)
    assert batch == ROWS or not np.array_equal(orders[0], orders[1])
    # by default, a sample is an epoch
    counts = -samples_of(make(SGD(visits, batch / ROWS, **sgworld), 2), ROWS, batch, init_params=start)["w"][0]
    np.testing.assert_allclose(counts, passes * np.array([[1.0], [2.0]]) * np.ones(ROWS), rtol=1e-5)


def descent(y, start, step_size, steps):
    """Gradient descent on the potential of `gaussian_mean`, in double precision."""
    mu = [start]
    for _ in range(steps):
        mu.append(mu[-1] - step_size * ((len(y) + 1) * mu[-1] - y.sum(dtype=np.float64)))
    return np.array(mu[1:])


def test_one_kernel_on_other_data():
    """Of the same shape, of another one, and on the first again."""
    kernel = SGD(gaussian_mean, 1e-2, subsampling=FullBatch(), steps_per_sample=1)
    mcmc = make(kernel, 5)
    for y in (Y, -Y, 2 * Y[:16], Y):
        samples = samples_of(mcmc, y, init_params={"mu": jnp.float32(0.5)})["mu"]
        np.testing.assert_allclose(samples[0], descent(y, 0.5, 1e-2, 5), rtol=1e-5)
    chains = make(kernel, 5, num_chains=2)
    samples = samples_of(chains, Y[:8], init_params={"mu": jnp.array([0.5, -1.0])})["mu"]
    np.testing.assert_allclose(samples, [descent(Y[:8], start, 1e-2, 5) for start in (0.5, -1.0)], rtol=1e-5)


@pytest.mark.parametrize(
    ("scheme", "hold_bytes"),
    [(FullBatch(), 2**30), (FullBatch(), 1), (BatchReshuffle(), 2**30)],
    ids=["constant", "held", "reordered"],
)
def test_data_changed_in_place_are_seen_by_the_next_run(scheme, hold_bytes, monkeypatch):
    """As NUTS sees them without the progress bar, which compiles anew at every run."""
    monkeypatch.setattr(chain_data, "HOLD_BYTES", hold_bytes)
    y = Y.copy()
    mcmc = make(SGD(gaussian_mean, 1e-2, subsampling=scheme, steps_per_sample=1), 2, progress_bar=False)
    for _ in range(2):
        samples = samples_of(mcmc, y, len(y), init_params={"mu": jnp.float32(0.5)})["mu"]
        np.testing.assert_allclose(samples[0], descent(y, 0.5, 1e-2, 2), rtol=1e-5)
        y += 1


# --- Gibbs ---


def noisy_linear(x, y):
    sigma = numpyro.sample("sigma", dist.LogNormal(0, 0.3))  # stays away from 0, where steps must be tiny
    w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
    with rows():
        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(xb @ w, sigma), obs=yb)


def two_levels(x, y):
    high = numpyro.sample("high", dist.Bernoulli(0.5))
    w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
    with rows():
        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(xb @ w + 0.4 * high, 1), obs=yb)


def means_and_errors(samples):
    """Of posterior samples and their squares, from independent chains."""
    values = np.stack([samples, np.square(samples)], axis=-1)
    of_chains = values.mean(axis=1)
    return of_chains.mean(axis=0), of_chains.std(axis=0, ddof=1) / len(of_chains) ** 0.5


def run_gibbs(kernel, num_samples=400):
    return samples_of(make(kernel, num_samples, num_warmup=200, num_chains=8, chain_method=jax.vmap), X, Y)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Some donated buffers:UserWarning")  # NumPyro under vmap, with any kernel
def test_gibbs_with_nuts_agrees_with_nuts():
    kernel = SGWORLD(noisy_linear, 2e-3, integrator=LeimkuhlerMatthews())
    ours = run_gibbs(Gibbs([(kernel, ["w"]), (NUTS(kernel.model), ["sigma"])]))
    theirs = run_gibbs(NUTS(kernel.model))
    for name in ("w", "sigma"):
        (mean, error), (exact, other) = means_and_errors(ours[name]), means_and_errors(theirs[name])
        np.testing.assert_array_less(abs(mean - exact), SIGMAS * np.hypot(error, other))


@pytest.mark.filterwarnings("ignore:Some donated buffers:UserWarning")
def test_gibbs_with_a_discrete_block_agrees_with_the_exact_posterior():
    """A sum over the two levels, each with a Gaussian integral."""
    kernel = SGWORLD(two_levels, 5e-3, integrator=LeimkuhlerMatthews())
    ours = run_gibbs(Gibbs([(kernel, ["w"]), (DiscreteGibbs(kernel.model), ["high"])]))
    x, y = X.astype(float), Y.astype(float)
    covariance = np.eye(ROWS) + x @ x.T
    evidence = np.array([-0.5 * (y - 0.4 * level) @ np.linalg.solve(covariance, y - 0.4 * level) for level in (0, 1)])
    probability = 1 / (1 + np.exp(evidence[0] - evidence[1]))
    mean, error = means_and_errors(ours["high"].astype(float))
    np.testing.assert_array_less(abs(mean - probability), SIGMAS * error)


@pytest.mark.parametrize(
    "workload",
    [
        pytest.param(workloads.gaussian_mean(), id="mean"),
        pytest.param(workloads.logistic_regression(2000, 10), id="logistic", marks=pytest.mark.slow),
    ],
)
def test_vectorized_chains_are_the_sequential_ones_to_the_bit(workload):
    """Where no sum is taken in another order; elsewhere see the bound of the test above."""
    draws = {}
    for method in ("sequential", "vectorized"):
        kernel, options = SGWORLD(workload.model, 1e-4), {"num_chains": 2, "chain_method": method}
        mcmc = runs.run(kernel, *workload.data, num_warmup=2, num_samples=5, extra_fields=("position",), **options)
        draws[method] = runs.field(mcmc)
    np.testing.assert_array_equal(draws["vectorized"], draws["sequential"])
