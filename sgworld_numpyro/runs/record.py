"""What a run writes down of itself, and whether the disk holds it."""

import shutil
from pathlib import Path
from typing import Any

import jax
from numpyro.infer import MCMC

from sgworld_numpyro.chain import caller
from sgworld_numpyro.kernel import StochasticGradientKernel
from sgworld_numpyro.model.handlers import dotted
from sgworld_numpyro.results.log_likelihood import dims_of_draws
from sgworld_numpyro.results.run_attributes import attributes_of, settings_of, taken_of
from sgworld_numpyro.runs.block_sampler import BlockSampler
from sgworld_numpyro.runs.fingerprint import environment
from sgworld_numpyro.store.stretches import FORMAT


def about(run: MCMC, blocks: BlockSampler, identity: dict[str, str], program: str) -> dict[str, Any]:
    """What ``run.json`` says.

    Args:
        run: with a state.
        blocks: that take its samples.
        identity: see ``fingerprint``.
        program: likewise, its checksum.
    """
    variables = jax.tree_util.tree_leaves_with_path(blocks.shapes)
    return {
        "format": FORMAT,
        "identity": identity,
        "environment": environment(run),
        "program": program,
        "num_warmup": run.num_warmup,
        "num_chains": run.num_chains,
        "thinning": int(run.thinning),
        "variables": {name_of(place): [list(leaf.shape), leaf.dtype.name] for place, leaf in variables},
        "sites": {
            dotted(place[1].key): name_of(place)
            for place, _ in variables
            if place[0].key == run._sample_field and len(place) == 2
        },
        "dims": {dotted(site): [dotted(axis) for axis in axes] for site, axes in _dims(run).items()},
    }


def name_of(place: tuple[Any, ...]) -> str:
    """Of a variable by its place among the fields of a draw: ``diverging``, or ``z['w']``."""
    return place[0].key + jax.tree_util.keystr(place[1:])


def attributes(run: MCMC, state: Any) -> dict[str, Any]:
    """What a run says of itself after some state, as it stands in ``posterior.attrs``."""
    taken = taken_of(run)
    if not isinstance(run.sampler, StochasticGradientKernel):
        return taken
    run._last_state = state
    before = run.num_warmup + run.num_samples % int(run.thinning)
    return {**attributes_of(settings_of(run), state), "samples_before": before, **taken}


def check_disk(blocks: BlockSampler, draws: int, directory: Path) -> None:
    """Raise ``ValueError`` if the draws to come are larger than what is free."""
    wanted, free = draws * blocks.bytes_a_draw, shutil.disk_usage(directory).free
    if wanted > free:
        raise ValueError(
            f"the draws want {caller.readable(wanted)} of disk, and {directory} has {caller.readable(free)}. Take "
            "fewer first, num_samples can grow later; or keep less of them, with thinning=... of MCMC, or keep=... or "
            "average=... of the kernel."
        )


def _dims(run):
    """Names of the axes of sites, where plates have them."""
    if not isinstance(run.sampler, StochasticGradientKernel):
        return {}
    return dims_of_draws(run, settings_of(run).target)
