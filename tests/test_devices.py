"""Chains, rows and processes over several devices, which here are parts of one CPU."""

import json

import numpy as np
import pytest

from sgworld_numpyro import chains_over_devices
from tests.runs import subprocess_output

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
for chains in (6, 2):
    try:
        make(SGLD(gaussian_mean, 1e-3), num_chains=chains, chain_method=over).run(key, Y)
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


@pytest.mark.parametrize("devices", [0, 100])
def test_devices_that_are_not_there(devices):
    with pytest.raises(ValueError, match=f"{devices} devices are asked for, and JAX sees"):
        chains_over_devices(devices)


@pytest.mark.parametrize("devices", ["all", [], [0], True])
def test_what_is_no_device(devices):
    with pytest.raises(TypeError, match=r"must be a number, or a list of some of jax\.devices"):
        chains_over_devices(devices)
