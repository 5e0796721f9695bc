"""Counter-based random words: the randomness of step n, as a function of n.

Everything random in a chain is a pure function of a key and a counter (Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3"), so that a run can be cut anywhere, drawn in blocks of any size, or vectorized
over chains, and stay the same run to the last bit.

This is JAX's own generator, Threefry-2x32 with 20 rounds, addressed by counter. ``jax.random.bits`` uses one of
the two words each evaluation makes, and on CPU runs the rounds as a loop; both words and straight-line code cost
a quarter as much a word.
"""

import jax
import jax.numpy as jnp
from jax import Array, random
from jaxtyping import Int, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA

# XLA's CPU compiler leaves a loop scalar, and five times slower, if its length is no multiple of the vector's.
LANES = 16


def padded(length: int) -> int:
    """``length`` rounded up to whole vectors, if that does not lengthen it by much."""
    return -(-length // LANES) * LANES if length > LANES else length


def seed_words(key: Array) -> UInt32[Array, "2"]:
    """Two 32-bit words that identify ``key``, typed or raw, of any PRNG implementation."""
    words = random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    if words.shape[-1] == 2:
        return words
    return jnp.stack(threefry(words[:2], *words[2:4]))  # the four words of an rbg key


def threefry(
    seed: UInt32[Array, "2"], high: UInt32[Array, "*shape"], low: UInt32[Array, "*shape"]
) -> tuple[UInt32[Array, "*shape"], UInt32[Array, "*shape"]]:
    """Threefry-2x32-20: two independent uniform words for every counter ``(high, low)``.

    Args:
        seed: the stream.
        high: the counter's high half.
        low: the counter's low half; they broadcast against each other.

    Returns:
        Two arrays of uniform 32-bit words, of the counters' common shape.
    """
    k0, k1 = seed[0], seed[1]
    schedule = (k0, k1, k0 ^ k1 ^ jnp.uint32(_PARITY))
    x0, x1 = high + k0, low + k1
    for group in range(5):
        for bits in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = x0 ^ ((x1 << bits) | (x1 >> (32 - bits)))
        x0 = x0 + schedule[(group + 1) % 3]
        x1 = x1 + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x0, x1


def uniform_integer(word0: UInt32[Array, "*shape"], word1: UInt32[Array, "*shape"], bound: int) -> Int[Array, "*shape"]:
    """Integers uniform on ``0 .. bound - 1``, as ``floor(word * bound / 2**64)`` of the 64-bit word.

    The bias is below ``bound / 2**64``; reducing one 32-bit word would make some of 10 million rows
    0.2 % likelier than others.
    """
    high, low = _multiply(word0, bound)
    carry = low + _multiply(word1, bound)[0] < low
    return (high + carry.astype(jnp.uint32)).astype(jnp.int32)


def _multiply(word: UInt32[Array, "*shape"], bound: int) -> tuple[UInt32[Array, "*shape"], UInt32[Array, "*shape"]]:
    """High and low words of the 64-bit product, without 64-bit integers (off by default in JAX)."""
    mask = jnp.uint32(0xFFFF)
    b_high, b_low = jnp.uint32(bound >> 16), jnp.uint32(bound & 0xFFFF)
    w_high, w_low = word >> 16, word & mask
    middle = w_high * b_low + ((w_low * b_low) >> 16)
    cross = w_low * b_high + (middle & mask)
    return w_high * b_high + (middle >> 16) + (cross >> 16), word * jnp.uint32(bound)
