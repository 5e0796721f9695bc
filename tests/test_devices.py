"""Chains, rows and processes over several devices, which here are parts of one CPU."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sgworld_numpyro import SGLD, EulerMaruyama, RandomReshuffle, chains_over_devices
from sgworld_numpyro.linear_gaussian import stationary_moments
from tests.models import Y, gaussian_mean
from tests.problems import anisotropic_mean
from tests.runs import make, samples_of, subprocess_output

DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONWARNINGS": "error,ignore:Some donated"}
EPS = float(np.finfo(np.float32).eps)

# --- Chains over devices ---

CHAINS = """
import json, tempfile
import jax
import numpy as np
from sgworld_numpyro import SGLD, SGWORLD, BatchReshuffle, chains_over_devices, long_run, to_inference_data
from sgworld_numpyro.chain import data
from tests.models import Y, gaussian_mean
from tests.runs import make, samples_of

data.HOLD_BYTES = 1  # the data are passed to each device, as large ones are
over, key, found = chains_over_devices(), jax.random.key(0), {}
kernel = SGWORLD(gaussian_mean, subsampling=BatchReshuffle())  # tuned, once
new = lambda method, samples=30: make(kernel, samples, num_warmup=4, num_chains=8, chain_method=method)

vectorized, whole = new("vectorized"), new(over)
expected = np.asarray(samples_of(vectorized, Y)["mu"])
draws = samples_of(whole, Y)["mu"]
found["apart"] = float(abs(np.asarray(draws) - expected).max() / abs(expected).max())
found["steps"] = 34 * whole.last_state.tuning.steps
found["devices"] = len(draws.sharding.device_set)
found["shares"] = sorted({shard.data.shape[0] for shard in draws.addressable_shards})
found["layout"] = str(jax.tree.map(np.shape, whole.last_state)) == str(jax.tree.map(np.shape, vectorized.last_state))

path = tempfile.mkdtemp()
long_run(new(over, 12), key, Y, path=path, every=5)
late = new(over)
long_run(late, key, Y, path=path, every=5)
found["long"] = bool((np.asarray(late.get_samples(group_by_chain=True)["mu"]) == np.asarray(draws)).all())
idata = to_inference_data(path)
found["posterior"] = list(idata["posterior"]["mu"].shape)
found["scheme"] = idata["posterior"].attrs["scheme"]
try:
    long_run(new(chains_over_devices(2)), key, Y, path=path)
except UserWarning as error:
    found["fewer"] = str(error)
for chains, bar in ((6, False), (2, False), (8, True)):
    try:
        mcmc = make(SGLD(gaussian_mean, 1e-3), num_chains=chains, chain_method=over)
        mcmc.progress_bar = bar
        mcmc.run(key, Y)
    except ValueError as error:
        found[f"{chains} chains"] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def chains():
    return json.loads(subprocess_output(CHAINS, **DEVICES))


def test_chains_over_devices_are_the_vectorized_ones(chains):
    """But for the order of sums, which XLA chooses for a number of chains: some roundings a step."""
    assert chains["apart"] <= chains["steps"] * EPS
    assert chains["devices"] == 4
    assert chains["shares"] == [2]
    assert chains["layout"]


def test_chains_over_devices_go_on_to_the_bit(chains):
    assert chains["long"]
    assert chains["posterior"] == [8, 30]
    assert chains["scheme"] == "batch_reshuffle"
    assert "begun with devices 4 and now 2" in chains["fewer"]


def test_chains_that_devices_cannot_share(chains):
    said = chains["6 chains"]
    assert "num_chains=6 are not divided equally by 4 devices" in said
    assert "num_chains=8" in said
    assert "chains_over_devices(3)" in said
    assert "chains_over_devices(2)" in chains["2 chains"]
    assert "progress_bar = False" in chains["8 chains"]


@pytest.mark.parametrize("devices", [0, 100])
def test_devices_that_are_not_there(devices):
    with pytest.raises(ValueError, match=f"{devices} devices are asked for, and JAX sees"):
        chains_over_devices(devices)


@pytest.mark.parametrize("devices", ["all", [], [0], True])
def test_what_is_no_device(devices):
    with pytest.raises(TypeError, match=r"must be a number, or a list of some of jax\.devices"):
        chains_over_devices(devices)


# --- Rows over devices ---

ROWS = """
import json, re, warnings
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.sharding import NamedSharding, PartitionSpec
from sgworld_numpyro import SGWORLD, chains_over_devices, rows_over_devices, to_inference_data
from tests.problems import anisotropic_mean
from tests.runs import make

BATCH, STEP_SIZE = 8, 1.4e-4
problem, found = anisotropic_mean(BATCH), {}
(x,) = problem.data
centre = np.asarray(x).mean(0)

def run(x, chains=256, **options):
    mcmc = make(SGWORLD(problem.model, STEP_SIZE), 3, num_warmup=8, num_chains=chains, **options)
    mcmc.run(jax.random.key(0), x, init_params={"mean": np.tile(centre, (chains, 1))})
    return mcmc

mesh = jax.make_mesh((2,), ("data",))  # with explicit axes
put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
one, over = run(x), run(put(x, "data"))
expected, draws = (np.asarray(mcmc.get_samples(group_by_chain=True)["mean"]) for mcmc in (one, over))
found["apart"] = float(abs(draws - expected).max() / abs(expected).max())
found["draws"] = draws.tolist()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # ArviZ takes so many chains for draws
    found["log_likelihood"] = list(to_inference_data(over, log_likelihood=range(3)).log_likelihood["obs"].shape)

# what a sample of minibatches that are not gathered ahead sends
data = rows_over_devices(np.ones((2**12, 32), np.float32))

def wide(x):
    mean = numpyro.sample("mean", dist.Normal(0, 1).expand([32]).to_event(1))
    with numpyro.plate("rows", x.shape[0], subsample_size=64):
        numpyro.sample("obs", dist.Normal(mean, 1).to_event(1), obs=numpyro.subsample(x, event_dim=1))

kernel = SGWORLD(wide, 1e-5)
state = kernel.init(jax.random.key(0), 0, None, (data,), {})
program = jax.jit(lambda state: kernel.sample(state, (data,), {})).lower(state).compile()
collective = re.compile(r"= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\\(")
found["sent"] = sorted(
    [op, [int(n) for n in shape.split(",") if n]]
    for shapes, op in collective.findall(program.as_text())
    for shape in re.findall(r"\\[([\\d,]*)\\]", shapes))
found["arguments"] = program.memory_analysis().argument_size_in_bytes / data.nbytes

def looks(x):
    float(np.asarray(x).sum())
    problem.model(x)

for name, call in {
    "columns": lambda: run(put(np.ones((8, 2), np.float32), None, "data")),
    "mapped": lambda: run(put(x, "data"), 2, chain_method=jax.vmap),
    "both": lambda: run(put(x, "data"), 2, chain_method=chains_over_devices()),
    "looks": lambda: make(SGWORLD(looks, STEP_SIZE)).run(jax.random.key(0), put(x, "data")),
    "rest": lambda: rows_over_devices(x[:199]),
}.items():
    try:
        call()
    except ValueError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def rows():
    return json.loads(subprocess_output(ROWS, **DEVICES | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}))


def test_rows_over_devices_give_the_chain_of_one_device(rows):
    """Up to the roundings of its sums, which the posterior's pull forgets."""
    assert rows["apart"] <= 11 * 25 * EPS
    assert rows["log_likelihood"] == [256, 3, 3]


def test_rows_over_devices_leave_the_stationary_law_as_it_is(rows):
    """Against that of the scheme on all rows, whose covariance is not the posterior's."""
    problem = anisotropic_mean(8)
    mean, covariance = stationary_moments(
        problem.exact, RandomReshuffle(), EulerMaruyama(), step_size=1.4e-4, batch_size=8
    ).period_end
    draws = np.array(rows["draws"]) - mean  # (chain, draw, 2)
    found = np.concatenate([draws, draws**2, draws[..., :1] * draws[..., 1:]], axis=-1).mean(1)
    exact = np.array([0, 0, covariance[0, 0], covariance[1, 1], covariance[0, 1]])
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    assert np.all(np.abs(found.mean(0) - exact) <= 5 * error)
    assert np.all(error[2:4] < 0.08 * exact[2:4])  # which would see Euler's bias of a tenth and more


def test_rows_stay_where_they_lie(rows):
    """Each step sends the rows of its minibatch and a gradient; a device reads its own half of the data."""
    assert ["all-reduce", [64, 32]] in rows["sent"]
    assert ["all-reduce", [32]] in rows["sent"]
    assert {shape[-1] for _, shape in rows["sent"] if shape} == {32}
    assert max(np.prod(shape) for _, shape in rows["sent"]) == 8 * 64 * 32  # of those that the thermometer looks at
    assert rows["arguments"] == pytest.approx(1 / 2, rel=0.05)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("columns", "x of shape (8, 2) is divided over devices as P(None, 'data')"),
        ("columns", "lie along its axis 0: x = rows_over_devices(x)."),
        ("mapped", "run one chain, or chain_method='vectorized'"),
        ("both", "give them on one device, or run chain_method='vectorized'"),
        ("looks", "looks at its data's values, which lie on several devices"),
        ("rest", "199 rows are not divided equally by 2 devices of this process: leave 1 out, x[:198]"),
    ],
)
def test_rows_that_devices_cannot_share(case, said, rows):
    assert said in rows[case]


# --- Several processes ---

PROCESSES = """
import json, sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
number = int(sys.argv[2])
jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", num_processes=2, process_id=number)
import numpy as np
from sgworld_numpyro import SGLD, chains_over_devices, long_run, rows_over_devices
from tests.models import Y, gaussian_mean
from tests.runs import make, samples_of

new = lambda chains, method="vectorized": make(SGLD(gaussian_mean, 1e-3), 5, num_chains=chains, chain_method=method)
chains = samples_of(new(4, chains_over_devices()), Y)["mu"]
rows = samples_of(new(1), rows_over_devices(Y[:12] if number == 0 else Y[12:]))["mu"]
try:
    long_run(new(4, chains_over_devices()), jax.random.key(0), Y, path="nowhere")
except ValueError as error:
    said = str(error)
found = {
    "processes": jax.process_count(),
    "chains": np.asarray(chains).tolist(),
    "rows": np.asarray(rows).tolist(),
    "said": said,
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def processes():
    """What each of two processes of one program found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = {"cwd": Path(__file__).parents[1], "env": os.environ | {"PYTHONPATH": "."}, "text": True}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESSES, port, number],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )
        for number in "01"
    ]
    found = []
    try:
        for process in both:
            printed, error = process.communicate(timeout=300)
            assert process.returncode == 0, error
            found.append(json.loads(printed.splitlines()[-1]))
    finally:
        for process in both:  # one that failed leaves the other waiting
            process.kill()
            process.communicate()
    return found


def test_processes_share_chains_and_rows(processes):
    """Each has all the draws, and they are those of one process."""
    first, second = processes
    assert first == second
    assert first["processes"] == 2
    steps = 5 * len(Y) // 4
    for name, chains in (("chains", 4), ("rows", 1)):
        alone = samples_of(make(SGLD(gaussian_mean, 1e-3), 5, num_chains=chains), Y)["mu"]
        np.testing.assert_allclose(first[name], alone, rtol=0, atol=steps * EPS)


def test_a_long_run_is_of_one_process(processes):
    assert "long_run is of one process" in processes[1]["said"]
    assert "jax.local_devices()" in processes[1]["said"]
