"""All rows at every step."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from sgworld_numpyro.subsampling.protocol import Plate


@dataclass(frozen=True)
class FullBatch:
    """The full gradient: no minibatch noise, whatever the plate's ``subsample_size``. A reference."""

    def indices(self, key: Array, start: Int[Array, ""], steps: int, plate: Plate) -> Int[Array, "steps rows"]:
        return jnp.broadcast_to(jnp.arange(plate.size, dtype=jnp.int32), (steps, plate.size))

    def period(self, plate: Plate) -> int:
        return 1
