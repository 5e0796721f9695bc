"""Sums over many rows or minibatches, block by block."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

# Rows that a sum over the data takes at once: enough to fill a matrix product, few enough that what automatic
# differentiation keeps of them is small beside the data.
BLOCK_ROWS = 2048
# What the vectors or matrices of the rows of one block may take, where each row has one.
BLOCK_BYTES = 2**26


def sum_over_blocks(function: Callable[[Array], Any], count: int, block: int) -> Any:
    """Sum of a function over the numbers 0 .. count - 1, block by block.

    Args:
        function: numbers (n,) to a pytree, its sum over those numbers. Derivatives compute it again rather than
            keep its intermediate values.
        count: how many numbers; the last block may be shorter.
        block: how many at once; fewer, down to half as many, if that makes all blocks equal. A shorter last one is a
            second copy of the function to compile.
    """
    block = max(1, min(block, count))
    block = next((equal for equal in range(block, block // 2, -1) if count % equal == 0), block)
    if block == count:
        return function(jnp.arange(count, dtype=jnp.int32))
    blocks, rest = divmod(count, block)
    function = jax.checkpoint(function, prevent_cse=False)
    first = jnp.arange(block, dtype=jnp.int32)

    def add(total, start):
        return jax.tree.map(jnp.add, total, function(start + first)), None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, first))
    total, _ = lax.scan(add, zeros, block * jnp.arange(blocks, dtype=jnp.int32))
    if rest:
        total = jax.tree.map(jnp.add, total, function(blocks * block + first[:rest]))
    return total


def block_length(rows_each: int, numbers_each: int, dtype: Any) -> int:
    """How many items to take at once, each of so many rows and with so many numbers to keep."""
    size = max(numbers_each, 1) * jnp.dtype(dtype).itemsize
    return max(1, min(BLOCK_ROWS // rows_each, BLOCK_BYTES // size))
