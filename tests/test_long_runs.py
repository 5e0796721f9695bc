"""Runs in stretches: the draws of the uninterrupted run, whatever stops them, and what a directory says of itself."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro.infer import NUTS

from sgworld_numpyro import (
    SGLD,
    SGWORLD,
    ConvergenceWarning,
    DamagedRunError,
    StoredRun,
    averages,
    kernel,
    long_run,
    run_outlook,
    to_inference_data,
)
from sgworld_numpyro.chain import caller
from sgworld_numpyro.preconditioners import Dense
from sgworld_numpyro.runs import __main__ as command
from sgworld_numpyro.runs import sampling
from sgworld_numpyro.runs.block_sampler import BlockSampler
from sgworld_numpyro.runs.length import Length
from sgworld_numpyro.store import files, stored_run
from sgworld_numpyro.store.stretches import is_new, newest_intact, read_about
from sgworld_numpyro.store.trees import pack, unpack
from tests.models import GROUPS, X, Y, gaussian_mean, groups, linear
from tests.runs import make

KEY = jax.random.key(0)


def same(one, other):
    """Whether two trees are equal to the bit, NaN and keys included."""

    def of(a, b):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        assert a.dtype == b.dtype

    jax.tree.map(of, one, other)


def both(values):
    return {"both": jnp.append(values["level"], values["scale"])}


# --- The draws are those of MCMC.run ---

CASES = {
    "vectorized": (lambda: SGLD(groups, 1e-3, average=both), (Y, GROUPS), {"num_chains": 3, "thinning": 3}),
    "sequential": (lambda: SGWORLD(linear, 1e-2), (X, Y), {"num_chains": 2, "chain_method": "sequential"}),
    "a function": (lambda: SGLD(groups, 1e-3), (Y, GROUPS), {"num_chains": 2, "chain_method": jax.vmap, "thinning": 2}),
    "kept": (lambda: SGWORLD(groups, 1e-3, keep=both), (Y, GROUPS), {"jit_model_args": True}),
    "nuts": (lambda: NUTS(linear), (X, Y, len(X)), {"num_chains": 2}),
}
SLOW = ("sequential", "a function", "kept", "nuts")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])
@pytest.mark.filterwarnings("ignore:Some donated buffers:UserWarning")  # NumPyro under vmap, with any kernel
def test_draws_are_those_of_the_uninterrupted_run(name, tmp_path):
    """With a stop in the warm-up, and one among the draws; what goes on knows nothing but the directory."""
    new_kernel, data, options = CASES[name]
    fields = ("potential_energy",)
    new = lambda samples=26: make(new_kernel(), samples, num_warmup=7, **options)  # noqa: E731
    straight = new()
    straight.run(KEY, *data, extra_fields=fields)
    run = partial(long_run, path=tmp_path, every=5, extra_fields=fields)
    for samples in (8, 26):  # that leave the same rest to the thinning
        mcmc = new(samples)
        stored = run(mcmc, KEY, *data)
        assert stored.complete
    assert len(stored.stretches) > 5
    same(mcmc._states, straight._states)
    same(mcmc.get_samples(), straight.get_samples())
    if name != "a function":  # which makes another program of the same function, where its last sum is another
        same(mcmc.last_state, straight.last_state)
    if name == "vectorized":
        same(averages(mcmc)["both"].mean, averages(straight)["both"].mean)
        assert to_inference_data(tmp_path)["posterior"]["level"].dims == ("chain", "draw", "groups")
    for site, variable in stored.sites().items():
        whole = np.asarray(straight.get_samples(group_by_chain=True)[site])
        np.testing.assert_array_equal(stored.read(variable, slice(1, None, 4)), whole[:, 1::4])


def test_what_was_tuned_is_restored(tmp_path, monkeypatch, capsys):
    """And with a progress bar, whose text says where the run goes on."""
    tuned = SGWORLD(linear)  # once, for the data at hand
    straight = make(tuned, 12, num_warmup=2, num_chains=2)
    straight.run(KEY, X, Y)
    long_run(make(tuned, 4, num_warmup=2, num_chains=2), KEY, X, Y, path=tmp_path)

    def tune_again(*_):
        raise AssertionError("it was tuned a second time")

    monkeypatch.setattr(kernel, "learn", tune_again)
    mcmc = make(SGWORLD(linear), 12, num_warmup=2, num_chains=2, progress_bar=True)
    long_run(mcmc, KEY, X, Y, path=tmp_path)
    same(mcmc._states, straight._states)
    same(mcmc.last_state, straight.last_state)
    assert "14/14" in capsys.readouterr().err
    assert to_inference_data(tmp_path)["posterior"].attrs["predicted_bias"] > 0


def test_blocks_of_every_length_are_one_program(tmp_path, caplog, monkeypatch):
    """Here of two samples; and the clock ends a stretch after each."""
    monkeypatch.setattr(sampling, "BLOCK_SECONDS", 1e-9)
    mcmc = make(SGLD(gaussian_mean, 1e-3), 7, num_warmup=5, thinning=2)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        stored = long_run(mcmc, KEY, Y, path=tmp_path, every="0.000001 s")
    assert [stretch.samples for stretch in stored.stretches] == [0, 2, 4, 6, 8, 10, 12]
    assert sum("Finished XLA compilation of jit(_samples)" in record.message for record in caplog.records) == 1


# --- A run of one kind, that several tests look at ---

SHORT = {"num_warmup": 3, "num_chains": 2, "thinning": 2}


def short(samples=20, step_size=1e-3, model=gaussian_mean, **options):
    return make(SGLD(model, step_size), samples, **{**SHORT, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a run of ten draws in five stretches, after one of the warm-up."""
    path = tmp_path_factory.mktemp("run") / "finished"
    mcmc = short()
    long_run(mcmc, KEY, Y, path=path, every=4, extra_fields=("potential_energy", "position"))
    return path, mcmc


@pytest.fixture
def directory(finished, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


again = partial(long_run, every=4, extra_fields=("potential_energy", "position"))


# --- Stopped ---


def press_ctrl_c(monkeypatch, calls):
    """At some calls of a block."""
    number, take = [0], BlockSampler.__call__

    def block(self, state, samples):
        number[0] += 1
        for _ in range(calls.count(number[0])):
            signal.raise_signal(signal.SIGINT)
        return take(self, state, samples)

    monkeypatch.setattr(BlockSampler, "__call__", block)


def test_ctrl_c_gives_what_was_drawn_and_the_same_call_goes_on(finished, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, [4])
        mcmc = short()
        with pytest.warns(UserWarning, match=r"Stopped after \d+ of 10 draws, which are saved in"):
            stored = again(mcmc, KEY, Y, path=tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert 0 < stored.draws < 10
    whole = finished[1].get_samples(group_by_chain=True)["mu"]
    np.testing.assert_array_equal(mcmc.get_samples(group_by_chain=True)["mu"], whole[:, : stored.draws])
    with monkeypatch.context() as patch:
        press_ctrl_c(patch, [1, 1])
        with pytest.raises(KeyboardInterrupt):
            again(short(), KEY, Y, path=tmp_path)
    assert StoredRun(tmp_path).draws == stored.draws
    mcmc = short()
    assert again(mcmc, KEY, Y, path=tmp_path).complete
    same(mcmc._states, finished[1]._states)


WORKER = """
import sys
import jax
import numpy as np
from sgworld_numpyro import SGLD, long_run
from sgworld_numpyro.runs import sampling
from sgworld_numpyro.runs.block_sampler import BlockSampler
from tests.models import Y, gaussian_mean
from tests.runs import make

path, samples, method = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sampling.BLOCK_SECONDS = 0.01
take = BlockSampler.__call__

def block(self, state, samples):
    found = take(self, state, samples)
    with open(path + ".taken", "a") as taken:
        print(int(np.max(found[0].i)), file=taken)
    return found

BlockSampler.__call__ = block
mcmc = make(SGLD(gaussian_mean, 1e-3, steps_per_sample=100), samples, num_warmup=10, num_chains=2, chain_method=method)
if path == "straight":
    mcmc.run(jax.random.key(0), Y)
else:
    print("begins", flush=True)
    long_run(mcmc, jax.random.key(0), Y, path=path, every=50)
np.save(path + ".npy", mcmc.get_samples(group_by_chain=True)["mu"])
"""


@pytest.mark.parametrize(
    ("kills", "samples", "method"),
    [(3, 1500, "vectorized"), pytest.param(50, 20000, "parallel", marks=pytest.mark.slow)],
)
def test_a_run_that_is_killed_again_and_again(kills, samples, method, tmp_path):
    """At most the stretch under way is lost, and not a bit is another."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONWARNINGS": "error,ignore:Some donated buffers",
    }
    start = partial(subprocess.Popen, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    arguments = [sys.executable, "-c", WORKER]
    rng, lost, stretches = np.random.default_rng(0), [], 0
    for _ in range(kills):
        worker = start([*arguments, "run", str(samples), method])
        assert worker.stdout.readline() == b"begins\n", worker.stderr.read()
        run = tmp_path / "run"
        deadline = time.monotonic() + 120
        while not list(run.glob(f"stretch-{stretches + 1:05}.json")) and worker.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.2))
        worker.kill()
        _, said = worker.communicate()
        assert worker.returncode in (0, -signal.SIGKILL), said
        found = StoredRun(run)
        stretches = found.stretches[-1].number
        if (tmp_path / "run.taken").exists():
            taken = list(map(int, (tmp_path / "run.taken").read_text().split("\n")[:-1]))
            lost.append(taken[-1] - found.stretches[-1].samples if taken else 0)
    print(lost)
    assert max(lost) <= 50
    assert len(lost) == kills
    for path in ("run", "straight"):
        worker = start([*arguments, path, str(samples), method])
        _, said = worker.communicate()
        assert worker.returncode == 0, said
    np.testing.assert_array_equal(np.load(tmp_path / "run.npy"), np.load(tmp_path / "straight.npy"))


# --- Files that are not as they were written ---


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["draws", "state", "stretch"])
@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink], ids=["truncated", "flipped", "missing"])
def test_of_a_damaged_stretch_the_one_before_is_taken(kind, damage, directory):
    newest = StoredRun(directory).stretches[-1]
    (path,) = directory.glob(f"{kind}-{newest.number:05}.*")
    damage(path)
    if (kind, damage) == ("stretch", Path.unlink):  # as if it had not been written yet
        assert newest_intact(directory).number == newest.number - 1
        return
    with pytest.warns(UserWarning, match=rf"{path.name} is (damaged|missing).* goes on from the stretch before it"):
        assert newest_intact(directory).number == newest.number - 1
    assert StoredRun(directory).draws == newest.draws - 2


def test_what_was_damaged_is_drawn_again(directory, finished):
    truncate(directory / "draws-00006.npz")
    (directory / "draws-00007.npz.partial").write_bytes(b"of a process that was killed")
    mcmc = short()
    with pytest.warns(UserWarning, match="goes on from the stretch before it, with 8 draws"):
        again(mcmc, KEY, Y, path=directory)
    same(mcmc._states, finished[1]._states)
    assert not list(directory.glob("*.partial"))


def test_damage_that_cannot_be_mended_is_an_error(directory):
    truncate(directory / "draws-00003.npz")
    with pytest.raises(DamagedRunError, match=r"no intact state is left.*draws-00003.npz is damaged"):
        again(short(), KEY, Y, path=directory)
    with pytest.raises(DamagedRunError, match=r"draws-00003.npz is damaged"):
        StoredRun(directory).read("z['mu']")


def test_foreign_files_are_no_run(tmp_path, directory):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(DamagedRunError, match=r"holds other files, .*thesis.tex.*: give a directory of its own"):
        again(short(), KEY, Y, path=tmp_path)
    (directory / "run.json").write_text('{"runs": "on diesel"}')
    with pytest.raises(DamagedRunError, match=r"run.json is damaged, or no file of a run"):
        again(short(), KEY, Y, path=directory)
    files.write_json(directory / "run.json", {"format": 99})
    with pytest.raises(DamagedRunError, match="is of format 99, and this version reads 1"):
        run_outlook(directory)
    with pytest.raises(DamagedRunError, match="holds no run"):
        to_inference_data(tmp_path / "nowhere")


def test_a_directory_is_new_until_its_run_is_all_there(directory):
    (directory / "run.json").unlink()
    with pytest.raises(DamagedRunError, match=r"run.json is missing, and without it nobody knows whose draws"):
        is_new(directory)
    for path in directory.glob("*-0000[1-9].*"):
        path.unlink()
    assert is_new(directory)


# --- Another run ---


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_warmup": 4}, "num_warmup was 3 and is 4"),
        ({"thinning": 5}, "thinning was 2 and is 5"),
        ({"samples": 21}, "num_samples % thinning was 0 and is 1"),
        ({"samples": 10}, "has 20 samples, more than num_samples=10: read them with to_inference_data"),
        ({"chain_method": "sequential"}, "chain_method was vectorized and is sequential"),
        ({"step_size": 2e-3}, "the kernel's step_size was 0.001 and is 0.002"),
        ({"data": Y + 1}, r"data y was float32\[24\] \w+ and is float32\[24\] \w+"),
        ({"key": jax.random.key(1)}, "rng_key was"),
        ({"extra_fields": ()}, "extra_fields was potential_energy, position and is "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_run_is_told_from_this_one(change, told, directory):
    options = dict(change)
    data, key = options.pop("data", Y), options.pop("key", KEY)
    fields = {name: options.pop(name) for name in ("extra_fields",) if name in options}
    with pytest.raises(ValueError, match=told):
        again(short(**options), key, data, path=directory, **fields)


def test_another_model_of_the_same_name_is_told(directory):
    def other(y):
        return gaussian_mean(2 * y)

    other.__name__ = "gaussian_mean"
    with pytest.raises(ValueError, match="the model, or a function that the kernel was given, computes something else"):
        again(short(model=other), KEY, Y, path=directory)


def test_another_version_is_told_and_goes_on(directory, finished):
    about = read_about(directory)
    about["environment"]["jax_version"] = "0.0.1"
    files.write_json(directory / "run.json", about)
    mcmc = short()
    with pytest.warns(UserWarning, match=r"was begun with jax_version 0.0.1 and now \d.* It goes on"):
        again(mcmc, KEY, Y, path=directory)
    same(mcmc._states, finished[1]._states)


def test_only_one_process_writes(directory):
    with files.locked(directory), pytest.raises(RuntimeError, match="is being written to by another process"):
        again(short(), KEY, Y, path=directory)


# --- Where nothing can be written ---


@contextmanager
def no_files_beyond(size):
    """A disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_what_was_written(directory, finished):
    (directory / "stretch-00006.json").unlink()
    there = {path.name: path.read_bytes() for path in directory.iterdir()}
    with no_files_beyond(900), pytest.raises(OSError, match=r"stretch 6 could not be.*The 8 draws.*make room") as told:
        again(short(), KEY, Y, path=directory)
    assert told.value.errno == errno.EFBIG
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == there
    mcmc = short()
    again(mcmc, KEY, Y, path=directory)
    same(mcmc._states, finished[1]._states)


@contextmanager
def closed(path):
    """A directory that cannot be written to, by root neither."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    else:
        path.chmod(0o500)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        path.chmod(0o700)


def test_a_directory_that_cannot_be_written_to_is_told_before_the_work(tmp_path):
    with closed(tmp_path), pytest.raises(PermissionError, match=str(tmp_path)):
        again(short(), KEY, Y, path=tmp_path / "run")


def test_draws_beyond_the_disk_are_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 100))
    with pytest.raises(ValueError, match=r"the draws want \d+ bytes of disk, and .* has 100 bytes.*can grow later"):
        again(short(), KEY, Y, path=tmp_path)


def test_draws_beyond_the_memory_stay_in_the_directory(directory, monkeypatch):
    monkeypatch.setattr(caller, "memory", lambda: 100)
    mcmc = short()
    with pytest.warns(UserWarning, match="more than memory holds twice, and are left in"):
        assert again(mcmc, KEY, Y, path=directory).complete
    assert mcmc._states is None
    assert mcmc.last_state is not None


# --- What is asked of a call ---


@pytest.mark.parametrize("every", ["soon", "0 s", "1.2.3 s", 0, True, None])
def test_a_length_that_is_none_is_refused(every, tmp_path):
    with pytest.raises(ValueError, match=r"want a time, as .10 min. or .30 s., or a number of samples"):
        long_run(short(), KEY, Y, path=tmp_path, every=every)


def test_lengths():
    assert Length.of("10 min", 1).seconds == 600
    assert Length.of("0.5h", 1).seconds == 1800
    assert Length.of(5, 3).samples == 6


def test_a_warm_run_and_samples_beyond_the_counters_are_refused(tmp_path):
    mcmc = short()
    mcmc.post_warmup_state = "a state"
    with pytest.raises(ValueError, match=r"set mcmc.post_warmup_state = None"):
        long_run(mcmc, KEY, Y, path=tmp_path)
    with pytest.raises(ValueError, match="num_samples=2147483646 are more samples than are counted in 32 bits"):
        long_run(short(2**31 - 2), KEY, Y, path=tmp_path)


def test_a_stretch_ends_where_its_draws_are_many(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "STRETCH_BYTES", 3 * 2 * 5)  # of draws of 5 bytes of 2 chains
    monkeypatch.setattr(sampling, "BLOCK_SECONDS", 1e-9)
    stored = long_run(short(12), KEY, Y, path=tmp_path, every="1 h")
    assert [stretch.draws for stretch in stored.stretches] == [0, 0, 3, 6]


# --- What a directory says ---


def test_data_of_a_directory_are_those_of_the_run(directory, finished):
    data, expected = to_inference_data(directory), to_inference_data(finished[1])
    for group in ("posterior", "sample_stats"):
        found, wanted = data[group], expected[group]
        xr.testing.assert_equal(_dataset(found), _dataset(wanted))
        assert {name: found[name].dtype for name in found} == {name: wanted[name].dtype for name in wanted}
    added = {"created_at", "creation_library", "creation_library_version", "creation_library_language"}
    added |= {"arviz_version", "inference_library", "inference_library_version", "sample_dims"}
    attributes = {name: value for name, value in expected["posterior"].attrs.items() if name not in added}
    assert data["posterior"].attrs == attributes
    np.testing.assert_array_equal(data["posterior"]["mu"][1, ::-3], expected["posterior"]["mu"][1, ::-3])
    with pytest.raises(ValueError, match="has draws and no model, for log_likelihood"):
        to_inference_data(directory, log_likelihood=True)


def _dataset(group):
    return group if isinstance(group, xr.Dataset) else group.to_dataset()


def test_of_a_directory_no_more_is_read_than_is_asked(directory, monkeypatch):
    asked = []

    def read(path, names=None):
        asked.append((path.name, names))
        return files.read_arrays(path, names)

    monkeypatch.setattr(stored_run, "read_arrays", read)
    data = to_inference_data(directory)
    assert asked == []
    assert data["posterior"]["mu"][:, -3:].values.shape == (2, 3)
    assert asked == [("draws-00005.npz", ["z['mu']"]), ("draws-00006.npz", ["z['mu']"])]


def test_the_outlook_of_a_run(directory, capsys):
    for path in directory.glob("stretch-0000[56].json"):
        path.unlink()
    found = run_outlook(directory)
    assert (found.draws, found.wanted, found.chains, found.samples, found.samples_wanted) == (6, 10, 2, 15, 23)
    rate = json.loads((directory / "stretch-00004.json").read_text())["content"]["rate"]
    assert found.seconds_left == pytest.approx(8 / rate)
    assert command.main([str(directory)]) == 0
    printed = capsys.readouterr().out
    assert "6 of 10 draws of each of 2 chains: 65% of the samples" in printed
    assert f"R-hat      {found.mixing.r_hat:.3f} of mu" in printed
    assert "time left  0:00:01" in printed
    assert command.main([str(directory / "nowhere")]) == 2
    assert "holds no run" in capsys.readouterr().err


# --- States ---


def test_what_a_state_is_made_of_is_written_and_read():
    tree = {
        "key": jax.random.key(3, impl="rbg"),
        "keys": jax.random.split(jax.random.key(1), 3),
        "old": jax.random.PRNGKey(1),
        "nodes": (Dense.from_root(np.eye(2, dtype=np.float32)), [1, 2.5, None, "text", True, float("inf")]),
        "numbers": np.array([np.nan, -0.0], np.float32),
        "empty": {("a", "b"): np.zeros((0, 3), np.int32)},
    }
    packed, arrays = pack(tree)
    found = unpack(json.loads(json.dumps(packed)), arrays)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    assert jax.random.key_impl(found["key"]) == jax.random.key_impl(tree["key"])
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    same([leaf for leaf in jax.tree.leaves(found) if hasattr(leaf, "dtype")], leaves)
    assert np.signbit(found["numbers"][1])
    assert found["nodes"][1] == tree["nodes"][1]


@pytest.mark.parametrize("name", ["os:system", "no_module:Class", "builtins:list", "subprocess:Popen"])
def test_nothing_but_a_class_of_a_state_is_made_from_a_file(name):
    with pytest.raises(DamagedRunError, match="which is not there"):
        unpack({"class": [name, {"command": {"value": "true"}}]}, {})


def test_what_cannot_be_written_is_said():
    with pytest.raises(TypeError, match=r"state\['f'\] is a function, which cannot be saved"):
        pack({"f": test_lengths})


def test_a_tuned_run_says_what_speaks_against_it(tmp_path):
    """As ``MCMC.run`` does at its end, and not at every stretch."""
    with pytest.warns(ConvergenceWarning, match="The chains mix slowly") as caught:
        long_run(make(SGWORLD(linear, steps_per_sample=1), 100, num_chains=2), KEY, X, Y, path=tmp_path, every=50)
    assert sum(warning.category is ConvergenceWarning for warning in caught) == 1
