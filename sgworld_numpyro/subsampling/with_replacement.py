"""Rows drawn independently: SGLD's scheme."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from sgworld_numpyro.randomness.counter_rng import seed_words, threefry, uniform_integer
from sgworld_numpyro.subsampling.protocol import Plate, Redraws


@dataclass(frozen=True)
class WithReplacement:
    """Every row of every batch is drawn uniformly and independently (Welling & Teh 2011).

    The minibatch noise never cancels: the posterior's variance is biased at first order in the step size.
    """

    name: ClassVar[str] = "with_replacement"
    redraws: ClassVar[Redraws] = "step"

    def indices(self, key: Array, start: Int[Array, ""], steps: int, plate: Plate) -> Int[Array, "steps batch"]:
        step = (start + jnp.arange(steps)).astype(jnp.uint32)[:, None]
        place = jnp.arange(plate.batch_size, dtype=jnp.uint32)
        return uniform_integer(*threefry(seed_words(key), step, place), plate.size)

    def period(self, plate: Plate) -> int:
        return 1
