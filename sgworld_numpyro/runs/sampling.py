"""The samples that a run has left to take, in blocks, and every stretch of them written."""

import math
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpyro.infer import MCMC
from tqdm.auto import tqdm

from sgworld_numpyro.kernel import StochasticGradientKernel
from sgworld_numpyro.runs.block_sampler import BlockSampler
from sgworld_numpyro.runs.interruption import wish_to_stop
from sgworld_numpyro.runs.length import Length
from sgworld_numpyro.runs.record import attributes, name_of
from sgworld_numpyro.store.stretches import Stretch, write_stretch

BLOCK_SECONDS = 0.5  # that the device is left alone for, and Ctrl-C has to wait
STRETCH_BYTES = 2**28  # of draws that are held in memory until they are written


def sample(
    run: MCMC, blocks: BlockSampler, state: Any, last: Stretch, length: Length, directory: Path, show: bool
) -> Any:
    """Take samples and write them, until none is left or Ctrl-C is pressed.

    Args:
        run: how many it takes, and which of them are kept.
        blocks: that take them.
        state: after the last stretch.
        last: the last stretch.
        length: of a stretch.
        directory: where they are written.
        show: whether to show a bar.

    Returns:
        The last state.

    Raises:
        OSError: if a stretch cannot be written.
    """
    thinning, total = int(run.thinning), run.num_warmup + run.num_samples
    unkept = run.num_warmup + run.num_samples % thinning  # so that the last sample is a draw, as MCMC.run has it
    at_once, bar = thinning, tqdm(total=total, initial=last.samples, disable=not show, unit=" samples")
    with wish_to_stop() as stop, bar:
        while last.samples < total and not stop():
            taken, rate, parts, size = last.samples, last.rate, [], 0
            before, begun = state, time.monotonic()
            end = min(unkept if taken < unkept else total, taken + length.samples)
            while True:
                samples = int(min(at_once, blocks.capacity * thinning, end - taken))
                bar.set_description("warmup" if taken < run.num_warmup else "sample", refresh=False)
                began = time.monotonic()
                state, drawn = blocks(state, samples)
                seconds = time.monotonic() - began
                if taken >= unkept:
                    parts.append(drawn)
                    size += sum(leaf.nbytes for leaf in jax.tree.leaves(drawn))
                taken, rate = taken + samples, samples / seconds
                at_once = thinning * max(1, min(2 * at_once, math.ceil(rate * BLOCK_SECONDS)) // thinning)
                bar.update(samples)
                late = time.monotonic() - begun >= length.seconds
                if taken == end or late or size >= STRETCH_BYTES or stop():
                    break
            draws = _joined(parts)
            said = attributes(run, state)
            last = write_stretch(directory, last, taken, run.num_samples, state, draws, said, rate)
            if isinstance(run.sampler, StochasticGradientKernel):
                run.sampler.tell_of_divergence(run, before)
    return state


def _joined(parts):
    """Draws of blocks, one after the other, by the names of variables."""
    if not parts:
        return {}
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *parts)
    return {name_of(place): leaf for place, leaf in jax.tree_util.tree_leaves_with_path(whole)}
