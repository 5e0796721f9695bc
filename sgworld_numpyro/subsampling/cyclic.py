"""The rows in the order of the data."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from sgworld_numpyro.subsampling.protocol import Plate, Redraws
from sgworld_numpyro.subsampling.stream import batch_positions, stream_offset, stream_period


@dataclass(frozen=True)
class Cyclic:
    """Rows 0 .. B-1, then B .. 2B-1, and so on, pass after pass; no randomness.

    For data known to be in random order. On ordered data (by time, by class) the bias is arbitrary.
    """

    name: ClassVar[str] = "cyclic"
    redraws: ClassVar[Redraws] = "never"

    def indices(self, key: Array, start: Int[Array, ""], steps: int, plate: Plate) -> Int[Array, "steps batch"]:
        _, offset = stream_offset(start + jnp.arange(steps, dtype=jnp.int32), plate)
        return batch_positions(offset, plate) % plate.size

    def period(self, plate: Plate) -> int:
        return stream_period(plate)
