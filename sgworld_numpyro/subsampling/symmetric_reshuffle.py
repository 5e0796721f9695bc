"""A pass and the same batches in reverse."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from sgworld_numpyro.subsampling.protocol import Plate, Redraws
from sgworld_numpyro.subsampling.stream import passes_touched, shuffled_stream, stream_offset, stream_period


@dataclass(frozen=True)
class SymmetricReshuffle:
    """A fresh permutation's batches, then the same batches in reverse order (Paulin et al., arXiv 2410.19780).

    At the ends of these sweeps, with ``LeimkuhlerMatthews``, the bias is of fifth order in the step size if all
    rows have the same Hessian. A sweep is two passes (two periods of the straddling stream if B does not
    divide N).
    """

    name: ClassVar[str] = "symmetric_reshuffle"
    redraws: ClassVar[Redraws] = "epoch"

    def indices(self, key: Array, start: Int[Array, ""], steps: int, plate: Plate) -> Int[Array, "steps batch"]:
        forward = stream_period(plate)
        step = start + jnp.arange(steps, dtype=jnp.int32)
        sweep, within = step // (2 * forward), step % (2 * forward)
        batches = sweep * forward + jnp.minimum(within, 2 * forward - 1 - within)
        # Folding shortens a stretch of steps, never lengthens it, except where it reaches into a new sweep.
        first, _ = stream_offset(batches.min(), plate)
        return shuffled_stream(key, batches, first, passes_touched(steps + forward, plate), plate)

    def period(self, plate: Plate) -> int:
        return 2 * stream_period(plate)
