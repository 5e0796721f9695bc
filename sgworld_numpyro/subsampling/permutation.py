"""Keyed permutations, evaluated one position at a time.

``random.permutation`` of N rows costs a sort: 38 ms at N = 1e5, 8.6 s at N = 1e7, and N words of memory a chain.
The swap-or-not shuffle (Hoang, Morris & Rogaway 2012, "An enciphering scheme based on a card shuffle") gives the
image of any single position under a random permutation of ``0 .. size - 1`` in ``ROUNDS`` rounds, for any size: in
each round the positions p and (K - p) mod size swap places or not, on the toss of a coin that both compute.
"""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Int, UInt32

from sgworld_numpyro.randomness.counter_rng import padded, seed_words, threefry, uniform_integer

# Two neighbouring positions keep their distance through all rounds with probability about 2^-ROUNDS. With 16 rounds
# the batches of ordered data vary visibly too much at B above a thousand, and 20 still fail at ten million rows.
ROUNDS = 24


def round_keys(
    key: Array, numbers: Int[Array, "permutations"], size: int
) -> tuple[Int[Array, "rounds permutations"], UInt32[Array, "rounds permutations"]]:
    """The reflections K and the coins' seeds of permutations number ``numbers`` of ``0 .. size - 1``."""
    counters = lax.iota(jnp.uint32, ROUNDS + ROUNDS // 2)[:, None]
    word0, word1 = threefry(seed_words(key), numbers.astype(jnp.uint32)[None, :], counters)
    seeds = jnp.concatenate([word0[ROUNDS:], word1[ROUNDS:]])
    return uniform_integer(word0[:ROUNDS], word1[:ROUNDS], size), seeds


def _coin(position: Int[Array, "*shape"], seed: UInt32[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """A hash of (position, seed) to one bit: three multiplications with xor-shifts between, top bit."""
    h = (position.astype(jnp.uint32) ^ seed) * jnp.uint32(0x9E3779B1)
    h = (h ^ (h >> 15)) * jnp.uint32(0x85EBCA77)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE3D)
    return h.astype(jnp.int32) < 0


def permuted(
    key: Array,
    size: int,
    positions: Int[Array, "steps batch"],
    first: Int[Array, "*steps"],
    distinct: int,
    which: Int[Array, "steps"],
    wraps: bool,
) -> Int[Array, "steps batch"]:
    """Images of positions under a sequence of permutations of ``0 .. size - 1``.

    Args:
        key: identifies the sequence of permutations.
        size: how many items are permuted.
        positions: the positions, below ``2 * size``. One at or beyond ``size`` belongs to the next permutation.
        first: number of the first permutation in use.
        distinct: how many successive permutations are in use.
        which: for every step, the permutation in use at its start, counted from ``first``.
        wraps: whether any position can lie at or beyond ``size``.
    """
    # Steps along the last axis, a whole number of vectors of them: the rounds' keys are then vectors too. They
    # are spread over the steps ahead of the loop; a gather at every round would cost more than the round.
    steps = positions.shape[0]
    padding = padded(steps) - steps
    position = jnp.pad(positions, ((0, padding), (0, 0))).T
    which = jnp.pad(which, (0, padding), mode="edge")
    keys = round_keys(key, first + jnp.arange(distinct, dtype=jnp.int32), size)
    now = tuple(k[:, which] for k in keys)
    following: tuple[Array, ...] = ()
    if wraps:
        beyond = position >= size
        position = jnp.where(beyond, position - size, position)
        following = tuple(k[:, jnp.minimum(which + 1, distinct - 1)] for k in keys)

    def one_round(position, keys):
        (reflection, seed), following = keys
        if following:
            reflection, seed = jnp.where(beyond, following[0], reflection), jnp.where(beyond, following[1], seed)
        partner = reflection - position
        partner = jnp.where(partner < 0, partner + size, partner)
        return jnp.where(_coin(jnp.maximum(position, partner), seed), partner, position), None

    return lax.scan(one_round, position, (now, following))[0].T[:steps]
