"""The counter-based generator: against JAX's own, the published vectors, and integers of any length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import random
from jax.extend.random import threefry_2x32
from scipy import stats

from sgworld_numpyro.randomness.counter_rng import seed_words, threefry, uniform_integer

P_VALUE = 1e-6  # rejects a right generator once in a million tests; the keys are fixed
EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True)

words = st.integers(0, 2**32 - 1)
bounds = st.integers(1, 2**31 - 1)


def uint32(values):
    return jnp.asarray(np.asarray(values, np.uint32))


def exact_integers(word0, word1, bound):
    """floor(word * bound / 2**64) by integers without limit."""
    return [((int(a) << 32 | int(b)) * bound) >> 64 for a, b in zip(word0, word1, strict=True)]


# --- Threefry ---


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # known answers of threefry2x32 with 20 rounds, distributed with Random123
        ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_published_vectors(counter, key, expected):
    high, low = (uint32([half]) for half in counter)
    assert tuple(int(word[0]) for word in threefry(uint32(key), high, low)) == expected


@EXAMPLES
@given(st.tuples(words, words), st.lists(st.tuples(words, words), min_size=8, max_size=8))
def test_is_jaxs_generator(seed, counters):
    high, low = uint32(counters).T
    expected = threefry_2x32(uint32(seed), jnp.concatenate([high, low]))
    np.testing.assert_array_equal(jnp.concatenate(threefry(uint32(seed), high, low)), expected)


def test_is_jaxs_generator_on_many_counters():
    seed, counters = uint32([5, 2**31]), random.bits(random.key(1), (2, 100_000), jnp.uint32)
    expected = threefry_2x32(seed, counters.reshape(-1)).reshape(2, -1)
    np.testing.assert_array_equal(jnp.stack(jax.jit(threefry)(seed, *counters)), expected)


def test_counters_broadcast():
    seed, high, low = seed_words(random.key(0)), jnp.arange(3, dtype=jnp.uint32), jnp.arange(4, dtype=jnp.uint32)
    grid = threefry(seed, high[:, None], low)
    full = threefry(seed, jnp.repeat(high, 4), jnp.tile(low, 3))
    for word, expected in zip(grid, full, strict=True):
        assert word.dtype == jnp.uint32
        np.testing.assert_array_equal(word, expected.reshape(3, 4))


def chi_squared_of_pairs(first, second, bits=5):
    """P-value of uniform and independent ``bits`` of two streams of words, taken from either end."""
    worst = 1.0
    for shift in (0, 32 - bits):
        cells = ((first >> shift) % 2**bits).astype(np.int64) << bits | (second >> shift) % 2**bits
        worst = min(worst, stats.chisquare(np.bincount(cells.reshape(-1), minlength=4**bits)).pvalue)
    return worst


@pytest.mark.parametrize("neighbour", ["other word", "next low", "next high", "next seed", "chain", "plate"])
def test_words_of_neighbouring_streams_are_independent(neighbour):
    low, high = jnp.arange(2_000, dtype=jnp.uint32), jnp.arange(1_000, dtype=jnp.uint32)[:, None]
    key = random.key(0)
    seed = seed_words(key)
    draw = jax.jit(threefry)
    first, other = draw(seed, high, low)
    second = {
        "other word": lambda: other,
        "next low": lambda: draw(seed, high, low + 1)[0],
        "next high": lambda: draw(seed, high + 1, low)[0],
        "next seed": lambda: draw(seed_words(random.key(1)), high, low)[0],
        "chain": lambda: draw(seed_words(random.split(key)[0]), high, low)[0],
        "plate": lambda: draw(seed_words(random.fold_in(key, 1)), high, low)[0],
    }[neighbour]()
    assert chi_squared_of_pairs(np.asarray(first), np.asarray(second)) > P_VALUE


def test_statistic_of_pairs_sees_one_percent():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 2**32, (2, 2_000_000), dtype=np.uint32)
    spoilt = np.where(rng.random(first.size) < 0.01, first, second)
    assert chi_squared_of_pairs(first, second) > P_VALUE > chi_squared_of_pairs(first, spoilt)


# --- Seeds ---


@pytest.mark.parametrize("n", [0, 1, 42, 2**31 - 1])
def test_typed_and_raw_keys_are_the_same_seed(n):
    typed, raw = random.key(n), random.PRNGKey(n)
    assert seed_words(typed).dtype == jnp.uint32
    np.testing.assert_array_equal(seed_words(typed), seed_words(raw))


def test_seeds_of_many_keys_differ_and_do_not_depend_on_vectorization():
    keys = jax.vmap(random.key)(jnp.arange(10_000))
    seeds = np.asarray(jax.vmap(seed_words)(keys))
    assert len(np.unique(seeds, axis=0)) == len(seeds)
    for n in (0, 1, 9_999):
        np.testing.assert_array_equal(seeds[n], seed_words(random.key(n)))


def test_streams_of_sequential_seeds_are_independent():
    """Keys 0, 1, 2, ... as users number them, and the keys folded from one key by 0, 1, 2, ..."""
    zero = jnp.zeros((), jnp.uint32)
    for make in (random.key, random.PRNGKey, lambda n: random.fold_in(random.key(0), n)):
        first = np.asarray(
            jax.vmap(lambda n, make=make: threefry(seed_words(make(n)), zero, zero)[0])(jnp.arange(100_000))
        )
        assert chi_squared_of_pairs(first[:-1], first[1:], bits=4) > P_VALUE


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_every_kind_of_key_has_a_seed(impl):
    first, second = (seed_words(random.key(n, impl=impl)) for n in range(2))
    assert first.shape == (2,)
    assert np.any(np.asarray(first) != np.asarray(second))


# --- Integers ---

AWKWARD = [1, 2, 3, 10, 2**16 - 1, 2**16, 2**16 + 1, 9_999_991, 10_000_000, 2**30, 2**31 - 2, 2**31 - 1]


@EXAMPLES
@given(bounds, st.lists(st.tuples(words, words), min_size=16, max_size=16))
def test_integers_are_exact(bound, pairs):
    word0, word1 = uint32(pairs).T
    found = uniform_integer(word0, word1, bound)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, exact_integers(word0, word1, bound))


@pytest.mark.parametrize("bound", AWKWARD)
def test_integers_are_exact_on_either_side_of_every_edge(bound):
    """The 64-bit words just below and at the edge between two integers, where a lost carry shows."""
    rng = np.random.default_rng(bound)
    values = [0, bound // 2, bound - 1, *map(int, rng.integers(0, bound, 1_000))]
    edges = [-(-(value << 64) // bound) for value in values if value > 0]
    edges = [0, 2**64 - 1, 2**32 - 1, 2**32, *edges, *(edge - 1 for edge in edges)]
    word0, word1 = (np.array(half, np.uint32) for half in zip(*(divmod(e, 2**32) for e in edges), strict=True))
    found = jax.jit(uniform_integer, static_argnums=2)(word0, word1, bound)
    np.testing.assert_array_equal(found, exact_integers(word0, word1, bound))
    assert int(found.min()) == 0
    assert int(found.max()) == bound - 1


@pytest.mark.parametrize("bound", AWKWARD)
def test_integers_are_exact_on_random_words(bound):
    word0, word1 = random.bits(random.key(bound), (2, 5_000), jnp.uint32)
    expected = exact_integers(np.asarray(word0), np.asarray(word1), bound)
    np.testing.assert_array_equal(uniform_integer(word0, word1, bound), expected)
