"""Batches without duplicates, independent of each other."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from sgworld_numpyro.subsampling.permutation import permuted
from sgworld_numpyro.subsampling.protocol import Plate, Redraws


@dataclass(frozen=True)
class IndependentBatches:
    """Each batch is a fresh sample of distinct rows: what ``plate`` itself draws in NumPyro.

    Its bias is that of ``WithReplacement`` times (N - B) / (N - 1).
    """

    name: ClassVar[str] = "independent_batches"
    redraws: ClassVar[Redraws] = "step"

    def indices(self, key: Array, start: Int[Array, ""], steps: int, plate: Plate) -> Int[Array, "steps batch"]:
        # A permutation a step, of which the batch takes the first positions.
        place = jnp.arange(plate.batch_size, dtype=jnp.int32)
        positions = jnp.broadcast_to(place, (steps, plate.batch_size))
        which = jnp.arange(steps, dtype=jnp.int32)
        return permuted(key, plate.size, positions, start, steps, which, wraps=False)

    def period(self, plate: Plate) -> int:
        return 1
