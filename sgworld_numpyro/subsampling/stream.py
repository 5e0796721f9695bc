"""The straddling stream: passes over the rows laid end to end and cut into batches.

If the batch size does not divide the number of rows, some batches take the last rows of one pass and the first of
the next. Nothing is dropped, so every pass still sees every row exactly once, and the cancellation of the
minibatch noise over a pass survives (dropping the remainder destroys it).
"""

from math import gcd

import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from sgworld_numpyro.subsampling.permutation import permuted
from sgworld_numpyro.subsampling.protocol import Plate


def stream_period(plate: Plate) -> int:
    """Steps after which a batch begins where a pass begins: N / gcd(N, B)."""
    return plate.size // gcd(plate.size, plate.batch_size)


def dividing_batch_sizes(plate: Plate) -> tuple[int, ...]:
    """The batch sizes nearest to B, one on either side and B / 2 to 2 B, that divide N: their periods are one pass."""
    size, batch = plate.size, plate.batch_size
    below = next((n for n in range(batch, (batch + 1) // 2 - 1, -1) if size % n == 0), None)
    above = next((n for n in range(batch, min(2 * batch, size) + 1) if size % n == 0), None)
    return tuple(sorted({n for n in (below, above) if n is not None}))


def stream_offset(steps: Int[Array, "*shape"], plate: Plate) -> tuple[Int[Array, "*shape"], Int[Array, "*shape"]]:
    """Pass in which each step's batch begins, and where in it: divmod(step * B, N).

    Doubling and adding avoids the product, which overflows 32 bits within minutes of sampling.
    """
    if plate.size % plate.batch_size == 0:
        return steps // plate.batches, (steps % plate.batches) * plate.batch_size
    quotient, remainder = steps // plate.size, steps % plate.size
    epoch, offset = jnp.zeros_like(steps), jnp.zeros_like(steps)
    for bit in f"{plate.batch_size:b}":
        epoch, offset = 2 * epoch, 2 * offset
        if bit == "1":
            epoch, offset = epoch + quotient, offset + remainder
        epoch, offset = epoch + offset // plate.size, offset % plate.size
    return epoch, offset


def batch_positions(offset: Int[Array, "steps"], plate: Plate) -> Int[Array, "steps batch"]:
    """Positions of the batches' rows, counted from the start of the pass in which the batch begins."""
    return offset[:, None] + jnp.arange(plate.batch_size, dtype=offset.dtype)


def shuffled_stream(
    key: Array, batches: Int[Array, "steps"], first: Int[Array, ""], passes: int, plate: Plate
) -> Int[Array, "steps batch"]:
    """Rows of the batches number ``batches`` of a stream of independent permutations.

    Args:
        key: identifies the stream.
        batches: numbers of the batches, from 0.
        first: the earliest pass that these batches touch.
        passes: a bound on how many passes they touch from there.
        plate: the plate.
    """
    epoch, offset = stream_offset(batches, plate)
    wraps = plate.size % plate.batch_size != 0
    return permuted(key, plate.size, batch_positions(offset, plate), first, passes, epoch - first, wraps)


def passes_touched(steps: int, plate: Plate) -> int:
    """The most passes that ``steps`` consecutive batches can touch."""
    return (steps * plate.batch_size - 1) // plate.size + 2
