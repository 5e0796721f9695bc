"""All rows at every step."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from sgworld_numpyro.subsampling.protocol import Plate, Redraws


@dataclass(frozen=True)
class FullBatch:
    """The full gradient: no minibatch noise, whatever the plate's ``subsample_size``. A reference."""

    name: ClassVar[str] = "full_batch"
    redraws: ClassVar[Redraws] = "step"  # all rows are independent of what came before

    def indices(self, key: Array, start: Int[Array, ""], steps: int, plate: Plate) -> Int[Array, "steps rows"]:
        return jnp.broadcast_to(jnp.arange(plate.size, dtype=jnp.int32), (steps, plate.size))

    def period(self, plate: Plate) -> int:
        return 1
