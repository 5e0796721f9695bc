"""Short runs of rows of a copy that was shuffled once, in a new order every epoch."""

from dataclasses import dataclass
from math import gcd
from typing import ClassVar

import jax.numpy as jnp
from jax import Array, random
from jaxtyping import Int

from sgworld_numpyro.subsampling.permutation import permuted
from sgworld_numpyro.subsampling.protocol import Plate, Redraws
from sgworld_numpyro.subsampling.stream import passes_touched, shuffled_stream, stream_offset, stream_period


@dataclass(frozen=True)
class RunReshuffle:
    """``RandomReshuffle`` of runs: L rows that stay together, in a fresh order of the runs every pass.

    The rows are put in a random order once, and cut into runs of L consecutive ones; a batch is B/L runs. Rows of a
    run are stored side by side, which is faster to read than scattered rows, and batches still change from pass to
    pass, unlike those of ``BatchReshuffle``. The order of the rows is drawn from ``seed`` and shared by all chains, so
    that the data are stored once; the order of the runs is each chain's own.

    L is the largest divisor of both B and N up to ``run_length``: 10 of 1e5 rows in batches of 100 by default, 8 of
    60,000 in batches of 128, and 1 where B and N have no common divisor, which is as slow as ``RandomReshuffle``.

    Args:
        run_length: the most rows a run, at least 1.
        seed: of the order of the rows.

    Raises:
        ValueError: if ``run_length`` is no positive integer.
    """

    run_length: int = 10
    seed: int = 0
    name: ClassVar[str] = "run_reshuffle"
    redraws: ClassVar[Redraws] = "epoch"  # the order of the runs; the rows of each stay

    def __post_init__(self):
        if not isinstance(self.run_length, int) or self.run_length < 1:
            raise ValueError(f"run_length={self.run_length!r} must be an integer of at least 1; 10 is the default")

    def rows_a_run(self, plate: Plate) -> int:
        """L, the rows a run."""
        common = gcd(plate.size, plate.batch_size)
        return next(length for length in range(min(self.run_length, common), 0, -1) if common % length == 0)

    def indices(self, key: Array, start: Int[Array, ""], steps: int, plate: Plate) -> Int[Array, "steps batch"]:
        length = self.rows_a_run(plate)
        first = self.batch_numbers(key, start, steps, plate)[..., None] * length
        places = (first + jnp.arange(length, dtype=jnp.int32)).reshape(steps, plate.batch_size)
        return self._rows(places, plate)

    def period(self, plate: Plate) -> int:
        return stream_period(plate)

    def layout(self, plate: Plate) -> Int[Array, "pool"]:
        return self._rows(jnp.arange(plate.size, dtype=jnp.int32)[None], plate)[0]

    def batch_numbers(self, key: Array, start: Int[Array, ""], steps: int, plate: Plate) -> Int[Array, "steps runs"]:
        length = self.rows_a_run(plate)
        runs = Plate(plate.name, plate.size // length, plate.batch_size // length)
        start = jnp.asarray(start, jnp.int32)
        first, _ = stream_offset(start, runs)
        return shuffled_stream(
            key, start + jnp.arange(steps, dtype=jnp.int32), first, passes_touched(steps, runs), runs
        )

    def _rows(self, places: Int[Array, "steps batch"], plate: Plate) -> Int[Array, "steps batch"]:
        only = jnp.zeros((), jnp.int32)
        which = jnp.zeros(len(places), jnp.int32)
        return permuted(random.key(self.seed), plate.size, places, only, 1, which, wraps=False)
