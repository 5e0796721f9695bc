"""``MCMC.run`` in stretches, each of which is saved before the next begins."""

import copy
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jax
from numpyro.infer import MCMC

from sgworld_numpyro.chain import caller
from sgworld_numpyro.chain.convergence import warn_of_convergence
from sgworld_numpyro.kernel import StochasticGradientKernel
from sgworld_numpyro.runs.block_sampler import BlockSampler
from sgworld_numpyro.runs.fingerprint import check_program, check_same, identity_of
from sgworld_numpyro.runs.length import Length
from sgworld_numpyro.runs.program import checksum_of
from sgworld_numpyro.runs.record import about, attributes, check_disk, name_of
from sgworld_numpyro.runs.sampling import sample
from sgworld_numpyro.store.files import locked, write_json
from sgworld_numpyro.store.stored_run import StoredRun
from sgworld_numpyro.store.stretches import ABOUT, is_new, newest_intact, read_about, state_after, write_stretch


def long_run(
    mcmc: MCMC,
    rng_key: Any,
    *args: Any,
    path: str | PathLike,
    every: str | int = "10 min",
    extra_fields: Sequence[str] = (),
    init_params: Any = None,
    **kwargs: Any,
) -> StoredRun:
    """``mcmc.run(rng_key, *args, ...)``, saved in stretches to a directory, and resumed where it was left.

    The same call begins a run, goes on with one that was stopped or killed, in any process, and returns at once if it
    is complete. The draws are those of ``mcmc.run`` to the bit, wherever it was cut; what was tuned is restored. With
    a larger ``num_samples`` a run that was complete goes on.

    Ctrl-C ends a run after the samples under way, half a second or one draw, and what was drawn is saved and
    returned; pressed again, it stops at once. Kernels of other packages run as well, if their state can be saved.

    Args:
        mcmc: what to run, with its own warm-up. Afterwards it has the draws and the last state, as after ``mcmc.run``;
            draws that memory does not hold are left in the directory.
        rng_key: as of ``mcmc.run``.
        args: of the model.
        path: a directory of this run alone; it is made.
        every: how long a stretch is, which is what a killed run loses at most: a time, ``"30 s"``, ``"10 min"``, or a
            number of samples. It is shorter where its draws would take more than 256 MiB.
        extra_fields: as of ``mcmc.run``.
        init_params: as of ``mcmc.run``.
        kwargs: of the model.

    Returns:
        What is in the directory.

    Raises:
        ValueError: if the directory is of another run, of other data, settings, key or model; if disk or counters do
            not suffice for the samples; if ``mcmc`` is warmed up already; or if chains or data are spread over several
            processes.
        DamagedRunError: if no intact state is left there, or it holds something else.
        OSError: if it cannot be written to. What was written before is as it was.
        RuntimeError: if another process writes to it.
    """
    directory, run = Path(path), _run_of(mcmc)
    _check_processes(mcmc, (args, kwargs))
    length = Length.of(every, int(mcmc.thinning))
    identity = identity_of(mcmc, rng_key, args, kwargs, extra_fields, init_params)
    with locked(directory):
        if is_new(directory):
            state = _first_state(run, rng_key, args, kwargs, extra_fields, init_params)
            blocks = BlockSampler(run, args, kwargs, extra_fields, state)
            check_disk(blocks, mcmc.num_samples // int(mcmc.thinning), directory)
            begun = about(run, blocks, identity, checksum_of(blocks.program(state)))
            last = write_stretch(directory, None, 0, mcmc.num_samples, state, {}, attributes(run, state))
            write_json(directory / ABOUT, begun)  # with which there is a run
        else:
            begun = read_about(directory)
            check_same(begun["identity"], identity, directory)
            last = newest_intact(directory)
            if last.samples > mcmc.num_warmup + mcmc.num_samples:
                raise ValueError(
                    f"the run in {directory} has {last.samples - mcmc.num_warmup} samples, more than num_samples="
                    f"{mcmc.num_samples}: read them with to_inference_data({str(path)!r}), or ask for as many or more."
                )
            state = state_after(directory, last)
            blocks = BlockSampler(run, args, kwargs, extra_fields, state)
            check_program(run, begun, checksum_of(blocks.program(state)), directory)
            check_disk(blocks, mcmc.num_samples // int(mcmc.thinning) - last.draws, directory)
        state = sample(run, blocks, state, last, length, directory, show=mcmc.progress_bar)
    stored = StoredRun(directory)
    _give(mcmc, run, blocks, state, stored)
    if not stored.complete:
        warnings.warn(
            f"Stopped after {stored.draws} of {stored.wanted} draws, which are saved in {directory}. The same call "
            "goes on from there.",
            stacklevel=2,
        )
    return stored


def _run_of(mcmc):
    """A copy of an ``MCMC``, to be driven."""
    if mcmc.post_warmup_state is not None:
        raise ValueError("long_run warms up by itself, and saves that too: set mcmc.post_warmup_state = None.")
    total = mcmc.num_warmup + mcmc.num_samples
    caller.check_count(total, f"num_warmup={mcmc.num_warmup} and num_samples={mcmc.num_samples}")
    run = copy.copy(mcmc)
    vars(run).pop("_set_collection_params", None)  # of a run that failed
    run._collection_params, run.progress_bar = {}, False
    return run


def _check_processes(mcmc, data):
    """One process writes a directory, and it alone decides where a stretch ends."""
    devices = list(getattr(mcmc.chain_method, "devices", ()))
    devices += [
        one for leaf in jax.tree.leaves(data) if isinstance(leaf, jax.Array) for one in leaf.sharding.device_set
    ]
    if any(device.process_index != jax.process_index() for device in devices):
        raise ValueError(
            "long_run is of one process, and chains or data are spread over the devices of several. Give each process "
            "chains of its own, on chains_over_devices(jax.local_devices()), with a key and a path of its own: "
            'path=f"run-{jax.process_index()}".'
        )


def _first_state(run, rng_key, args, kwargs, extra_fields, init_params):
    """Before the first sample: what ``MCMC`` has where it is to take none."""
    run._set_collection_params(0, 0, int(run.thinning), "warmup")
    run.run(rng_key, *args, extra_fields=extra_fields, init_params=init_params, **kwargs)
    return run.last_state


def _give(mcmc, run, blocks, state, stored):
    """To an ``MCMC`` what its own ``run`` would have left in it, if memory holds it; and what that says of itself."""
    mcmc._args, mcmc._kwargs, mcmc._last_state = run._args, run._kwargs, state
    mcmc._states = mcmc._states_flat = None
    memory, size = caller.memory(), stored.draws * blocks.bytes_a_draw
    if memory is not None and caller.COPIES * size > memory:
        warnings.warn(
            f"The draws take {caller.readable(size)}, more than memory holds twice, and are left in {stored.path}: "
            f"read some of them, to_inference_data({str(stored.path)!r}) or StoredRun({str(stored.path)!r}).read(...).",
            stacklevel=3,
        )
        return
    mcmc._states = jax.tree_util.tree_map_with_path(lambda place, _: stored.read(name_of(place)), blocks.shapes)
    if isinstance(mcmc.sampler, StochasticGradientKernel):
        warn_of_convergence(mcmc.sampler.complaints(mcmc))
