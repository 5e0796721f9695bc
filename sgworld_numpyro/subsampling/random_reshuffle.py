"""A fresh permutation of the rows for every pass: SGWORLD's scheme."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from sgworld_numpyro.subsampling.protocol import Plate, Redraws
from sgworld_numpyro.subsampling.stream import passes_touched, shuffled_stream, stream_offset, stream_period


@dataclass(frozen=True)
class RandomReshuffle:
    """Without replacement, reshuffled every epoch (arXiv 2306.03521).

    The minibatch noise of a pass sums to zero, which leaves a bias of third order in the step size at the ends
    of epochs (with ``LeimkuhlerMatthews``). If B does not divide N, batches straddle the seam between passes.
    """

    name: ClassVar[str] = "random_reshuffle"
    redraws: ClassVar[Redraws] = "epoch"

    def indices(self, key: Array, start: Int[Array, ""], steps: int, plate: Plate) -> Int[Array, "steps batch"]:
        start = jnp.asarray(start, jnp.int32)
        first, _ = stream_offset(start, plate)
        batches = start + jnp.arange(steps, dtype=jnp.int32)
        return shuffled_stream(key, batches, first, passes_touched(steps, plate), plate)

    def period(self, plate: Plate) -> int:
        return stream_period(plate)
