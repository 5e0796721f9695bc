"""Descents of the pilot's chains, and which of them ended where the others did."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from sgworld_numpyro.tuning import warm_start
from sgworld_numpyro.tuning.looks import CHAINS, Looks


class Descents(NamedTuple):
    """Where chains descended.

    Attributes:
        path: where they were after each part of the way.
        heights: energies at their ends, less that at the first; infinite where there is none.
        lowest: number of the chain that ended lowest.
        stray: which chains ended far above it.
        passes: over the data, all chains together.
    """

    path: Float[np.ndarray, "parts chains dim"]
    heights: Float[np.ndarray, "chains"]
    lowest: int
    stray: Bool[np.ndarray, "chains"]
    passes: float


def descend_all(looks: Looks, starts: Float[np.ndarray, "chains dim"], parts: Sequence[float]) -> Descents:
    """Descend from all starts, and look where they are after these parts of the way, the last of which is 1."""
    plate = looks.plate
    steps = warm_start.adam_steps(plate)
    descents, path, first = warm_start.Descent.at(jnp.asarray(starts)), [], 0
    for part in parts:
        last = max(first + 1, round(part * steps))
        descents = looks.descend(descents, first, last)
        path.append(np.asarray(descents.sound))
        first = last
    ends = path[-1]
    heights = looks.heights(np.concatenate([ends[:1], ends]))[1:]
    if not np.isfinite(heights).any():  # it may be the first alone that is not
        heights = np.array([looks.heights(np.stack([end, end]))[1] for end in ends])
    lowest = int(np.argmin(heights))
    stray = ~(heights - heights[lowest] <= 2 * looks.dim + 20)
    return Descents(np.stack(path), heights, lowest, stray, CHAINS * steps * plate.batch_size / plate.size)
