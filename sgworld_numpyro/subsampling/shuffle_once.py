"""One permutation of the rows, repeated for ever."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from sgworld_numpyro.subsampling.permutation import permuted
from sgworld_numpyro.subsampling.protocol import Plate, Redraws
from sgworld_numpyro.subsampling.stream import batch_positions, stream_offset, stream_period


@dataclass(frozen=True)
class ShuffleOnce:
    """The rows are shuffled once a chain, and then taken in that order at every pass.

    The order is quenched: its effect on a chain's mean does not average out within that chain.
    """

    name: ClassVar[str] = "shuffle_once"
    redraws: ClassVar[Redraws] = "never"

    def indices(self, key: Array, start: Int[Array, ""], steps: int, plate: Plate) -> Int[Array, "steps batch"]:
        _, offset = stream_offset(start + jnp.arange(steps, dtype=jnp.int32), plate)
        positions = batch_positions(offset, plate) % plate.size
        only = jnp.zeros((), jnp.int32)
        return permuted(key, plate.size, positions, only, 1, jnp.zeros(steps, jnp.int32), wraps=False)

    def period(self, plate: Plate) -> int:
        return stream_period(plate)
