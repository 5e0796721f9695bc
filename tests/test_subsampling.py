"""Subsampling schemes: what each promises of its rows, exactly; then that their randomness is right to under 1 %.

A statistic is a function from epochs, an array (epochs, rows) of permutations, to a p-value. The tests of power
spoil one epoch in a hundred and demand that the same statistic rejects it.
"""

from functools import lru_cache
from itertools import combinations, pairwise, permutations
from math import factorial, gcd

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import random
from scipy import stats

from sgworld_numpyro.subsampling import (
    BatchReshuffle,
    ContiguousScheme,
    Cyclic,
    FullBatch,
    IndependentBatches,
    Plate,
    RandomReshuffle,
    ShuffleOnce,
    SubsamplingScheme,
    SymmetricReshuffle,
    WithReplacement,
    named,
)
from sgworld_numpyro.subsampling.permutation import ROUNDS
from sgworld_numpyro.subsampling.stream import stream_offset

P_VALUE = 1e-6  # rejects a right scheme once in a million tests; the keys are fixed
STEPS_BELOW = 2**31  # steps are counted in 32 bits

SCHEMES = {
    scheme.__name__: scheme()
    for scheme in (
        BatchReshuffle,
        Cyclic,
        FullBatch,
        IndependentBatches,
        RandomReshuffle,
        ShuffleOnce,
        SymmetricReshuffle,
        WithReplacement,
    )
}
every_scheme = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)


@every_scheme
def test_a_scheme_says_what_it_is(scheme):
    """By its name it is found again, and batches are independent of each other where its period is a step."""
    assert named(scheme.name) is named(type(scheme).__name__) is type(scheme)
    assert (scheme.redraws == "step") is (scheme.period(Plate("rows", 10, 2)) == 1)
    assert named("my_own_scheme") is None


@st.composite
def plates(draw, largest=40):
    size = draw(st.integers(1, largest))
    return Plate("rows", size, draw(st.integers(1, size)))


starts = st.integers(0, STEPS_BELOW // 2)


@lru_cache
def compiled(scheme, steps, plate):
    return jax.jit(lambda key, start: scheme.indices(key, start, steps, plate))


def rows_of(scheme, key, start, steps, size, batch_size):
    return np.asarray(compiled(scheme, steps, Plate("rows", size, batch_size))(key, jnp.int32(start)))


def settled(examples):
    return settings(max_examples=examples, deadline=None, derandomize=True)


# --- What each scheme promises ---


def whole_passes(rows, start, plate):
    """The whole passes over the data in the batches from ``start`` on, one a line."""
    stream = rows.reshape(-1)[-start * plate.batch_size % plate.size :]
    return stream[: len(stream) // plate.size * plate.size].reshape(-1, plate.size)


def whole_periods(rows, start, period):
    """The whole periods in the batches from ``start`` on: (periods, steps, batch)."""
    rows = rows[-start % period :]
    return rows[: len(rows) // period * period].reshape(-1, period, rows.shape[1])


def assert_permutations(passes, size):
    assert len(passes) > 0
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.broadcast_to(np.arange(size), passes.shape))


def assert_fresh(sequences):
    """No two are equal, where chance would not make them so once in a million."""
    flat = sequences.reshape(len(sequences), -1)
    if len(set(flat[0])) >= 13:  # 13! = 6e9, and at most a hundred pairs
        assert len(np.unique(flat, axis=0)) == len(flat)


def law_of_random_reshuffle(rows, start, plate):
    passes = whole_passes(rows, start, plate)
    assert_permutations(passes, plate.size)
    assert_fresh(passes)


def law_of_shuffle_once(rows, start, plate):
    passes = whole_passes(rows, start, plate)
    assert_permutations(passes, plate.size)
    assert np.all(passes == passes[0])


def law_of_symmetric_reshuffle(rows, start, plate):
    half = plate.size // gcd(plate.size, plate.batch_size)
    sweeps = whole_periods(rows, start, 2 * half)
    assert_fresh(sweeps)
    np.testing.assert_array_equal(sweeps, sweeps[:, ::-1])
    for sweep in sweeps[:, :half]:
        passes = sweep.reshape(-1, plate.size)
        assert_permutations(passes, plate.size)
        assert_fresh(passes)


def law_of_batch_reshuffle(rows, start, plate):
    pool = stored_pool(BatchReshuffle(), plate)
    common = gcd(plate.size, plate.batch_size)
    assert len(pool) == plate.size // common
    assert_permutations(pool.reshape(-1, plate.size), plate.size)
    assert np.all(np.bincount(pool.reshape(-1), minlength=plate.size) == plate.batch_size // common)
    epochs = whole_periods(rows, start, len(pool))
    in_order = sorted(map(tuple, pool))
    for epoch in epochs:
        assert sorted(map(tuple, epoch)) == in_order
    if plate.batch_size == 1:
        assert_fresh(epochs)


@lru_cache
def stored_pool(scheme, plate):
    return np.asarray(jax.jit(lambda: scheme.layout(plate))()).reshape(-1, plate.batch_size)


def law_of_cyclic(rows, start, plate):
    flat = [(start * plate.batch_size + place) % plate.size for place in range(rows.size)]
    np.testing.assert_array_equal(rows.reshape(-1), flat)


def law_of_full_batch(rows, start, plate):
    np.testing.assert_array_equal(rows, np.broadcast_to(np.arange(plate.size), rows.shape))


def law_of_independent_batches(rows, start, plate):
    assert np.all(np.diff(np.sort(rows, axis=1), axis=1) > 0)


LAWS = {
    "BatchReshuffle": law_of_batch_reshuffle,
    "Cyclic": law_of_cyclic,
    "FullBatch": law_of_full_batch,
    "IndependentBatches": law_of_independent_batches,
    "RandomReshuffle": law_of_random_reshuffle,
    "ShuffleOnce": law_of_shuffle_once,
    "SymmetricReshuffle": law_of_symmetric_reshuffle,
    "WithReplacement": lambda rows, start, plate: None,
}


def check_any_plate(scheme, plate, start, seed):
    """Three periods: their law and bounds, and that the same block drawn from later on continues them."""
    steps = 3 * max(scheme.period(plate), 2)
    key = random.key(seed)
    rows = rows_of(scheme, key, start, steps, plate.size, plate.batch_size)
    batch = plate.size if isinstance(scheme, FullBatch) else plate.batch_size
    assert rows.shape == (steps, batch)
    assert rows.dtype == np.int32
    assert rows.min() >= 0
    assert rows.max() < plate.size
    LAWS[type(scheme).__name__](rows, start, plate)
    for later in (1, steps // 2, steps - 1):
        again = rows_of(scheme, key, start + later, steps, plate.size, plate.batch_size)
        np.testing.assert_array_equal(again[: steps - later], rows[later:])


@every_scheme
@settled(2)
@example(plate=Plate("rows", 30, 12), start=2**30 - 7, seed=0)
@given(plate=plates(), start=starts, seed=st.integers(0, 100))
def test_any_plate(scheme, plate, start, seed):
    check_any_plate(scheme, plate, start, seed)


@pytest.mark.slow
@every_scheme
@settled(6)
@given(plate=plates(70), start=starts, seed=st.integers(0, 100))
def test_many_plates(scheme, plate, start, seed):
    check_any_plate(scheme, plate, start, seed)


def check_blocks_and_chains(scheme, plate, start, steps):
    """A chain's block, drawn together with another chain's, is its steps drawn one by one."""

    @jax.jit
    def draw(keys, start):
        blocks = jax.vmap(lambda key: scheme.indices(key, start, steps, plate))(keys)
        one = jax.vmap(lambda n: scheme.indices(keys[1], start + n, 1, plate)[0])
        return blocks, one(jnp.arange(steps, dtype=jnp.int32))

    blocks, every = draw(random.split(random.key(0)), jnp.int32(start))
    np.testing.assert_array_equal(blocks[1], every)


@every_scheme
def test_block_wise_is_step_wise_and_vectorized_is_looped(scheme):
    """An odd number of steps, over several passes and sweeps, with batches across the seams."""
    check_blocks_and_chains(scheme, Plate("rows", 15, 4), 1_000_003, 67)


@pytest.mark.slow
@every_scheme
@settled(3)
@given(plate=plates(70), start=starts, steps=st.integers(1, 150))
def test_many_blocks(scheme, plate, start, steps):
    check_blocks_and_chains(scheme, plate, start, steps)


@settled(2)
@example(size=101, batch_size=1, epoch=3)
@example(size=101, batch_size=101, epoch=3)
@example(size=100, batch_size=20, epoch=10**6)
@example(size=101, batch_size=100, epoch=10**6)
@given(size=st.integers(2, 3000), batch_size=st.integers(1, 64), epoch=st.integers(0, 10**5))
def test_every_epoch_of_random_reshuffle_is_a_permutation(size, batch_size, epoch):
    batch_size = min(size, batch_size)
    start = epoch * size // batch_size
    steps = -(-3 * size // batch_size)
    rows = rows_of(RandomReshuffle(), random.key(1), start, steps, size, batch_size)
    law_of_random_reshuffle(rows, start, Plate("rows", size, batch_size))


@pytest.mark.parametrize(
    ("scheme", "size", "batch_size"),
    [
        (RandomReshuffle(), 10_000_000, 100),
        (RandomReshuffle(), 9_999_991, 100),
        (ShuffleOnce(), 9_999_991, 4096),
    ],
)
def test_an_epoch_of_ten_million_rows_takes_each_once(scheme, size, batch_size):
    steps, epoch = 2_000_000 // batch_size, 29
    start = epoch * size // batch_size
    skip, seen = epoch * size - start * batch_size, np.zeros(size, bool)
    remaining = size
    while remaining:
        rows = rows_of(scheme, random.key(2), start, steps, size, batch_size).reshape(-1)[skip:][:remaining]
        seen[rows] = True
        remaining -= len(rows)
        start, skip = start + steps, 0
    assert seen.all()


# --- Steps are far, rows many ---


@settled(100)
@given(st.integers(1, 700_000_000), st.data())
def test_stream_offset_is_exact(size, data):
    """divmod(step * B, N) by integers without limit, wherever the pass itself is counted in 32 bits."""
    batch_size = data.draw(st.integers(1, size))
    step = data.draw(st.integers(0, STEPS_BELOW - 1))
    epoch, offset = stream_offset(jnp.int32(step), Plate("rows", size, batch_size))
    assert (int(epoch), int(offset)) == divmod(step * batch_size, size)


@pytest.mark.parametrize(
    ("size", "batch_size"), [(10_000_000, 9_999_999), (9_999_991, 4096), (2**29 - 3, 2**29 - 5), (700_000_001, 3)]
)
def test_stream_offset_is_exact_where_the_product_overflows(size, batch_size):
    steps = np.unique(np.concatenate([2**30 + np.arange(-50, 50), np.geomspace(1, 2**31 - 1, 100).astype(int)]))
    epoch, offset = stream_offset(jnp.asarray(steps, jnp.int32), Plate("rows", size, batch_size))
    expected = [divmod(int(step) * batch_size, size) for step in steps]
    np.testing.assert_array_equal(np.stack([epoch, offset], axis=1), expected)


@pytest.mark.parametrize("name", ["RandomReshuffle", "WithReplacement", "IndependentBatches"])
def test_far_steps_of_many_rows(name):
    """At step 2³⁰ of ten million rows: a block is its single steps, and without replacement within a pass."""
    scheme, plate, start, steps = SCHEMES[name], Plate("rows", 9_999_991, 250), 2**30 - 4, 70

    @jax.jit
    def draw(key, start):
        one = jax.vmap(lambda n: scheme.indices(key, start + n, 1, plate)[0])
        return scheme.indices(key, start, steps, plate), one(jnp.arange(steps, dtype=jnp.int32))

    block, singles = map(np.asarray, draw(random.key(3), jnp.int32(start)))
    np.testing.assert_array_equal(block, singles)
    assert 0 <= block.min() <= block.max() < plate.size
    if name != "WithReplacement":
        batches = block if name == "IndependentBatches" else block.reshape(1, -1)
        assert all(len(np.unique(rows)) == rows.size for rows in batches)


# --- Period ---


@settled(100)
@given(plates(5_000))
def test_period(plate):
    """Independent steps: 1. Streams: steps until a batch begins where a pass does; a sweep is there and back."""
    stream = next(n for n in range(1, plate.size + 1) if n * plate.batch_size % plate.size == 0)
    expected = dict.fromkeys(SCHEMES, stream) | {
        "FullBatch": 1,
        "IndependentBatches": 1,
        "WithReplacement": 1,
        "SymmetricReshuffle": 2 * stream,
    }
    assert {name: scheme.period(plate) for name, scheme in SCHEMES.items()} == expected


@settled(8)
@given(plates())
def test_cyclic_repeats_after_its_period_and_not_before(plate):
    period = Cyclic().period(plate)
    rows = rows_of(Cyclic(), random.key(0), 0, 2 * period, plate.size, plate.batch_size)
    repeats = [n for n in range(1, period + 1) if np.array_equal(rows[n : n + period], rows[:period])]
    assert repeats[0] == period


# --- Keys ---


@every_scheme
def test_typed_and_raw_keys_agree_and_so_do_32_and_64_bits(scheme):
    plate = Plate("rows", 23, 5)

    def draw(make):
        """A fresh function: one compiled without 64 bits would be used again."""
        return jax.jit(lambda n: scheme.indices(make(n), 17, 9, plate))(4)

    typed = draw(random.key)
    with jax.enable_x64(True):
        raw = draw(random.PRNGKey)
    assert raw.dtype == typed.dtype == jnp.int32
    np.testing.assert_array_equal(raw, typed)


@pytest.mark.parametrize(("size", "batch_size"), [(24, 4), (25, 10), (200, 1)])
def test_batch_reshuffle_stores_its_pool(size, batch_size):
    """Chains share the pool, not the order; ``indices`` are the rows of ``batch_numbers`` in ``layout``."""
    scheme, plate = BatchReshuffle(), Plate("rows", size, batch_size)
    pool = stored_pool(scheme, plate)
    steps, start = 3 * len(pool), jnp.int32(1000 * len(pool))

    @jax.jit
    @jax.vmap
    def draw(key):
        return scheme.batch_numbers(key, start, steps, plate), scheme.indices(key, start, steps, plate)

    numbers, rows = map(np.asarray, draw(random.split(random.key(0), 3)))
    assert numbers.dtype == np.int32
    np.testing.assert_array_equal(rows, pool[numbers])
    epochs = numbers.reshape(-1, len(pool))
    assert_permutations(epochs, len(pool))
    assert_fresh(epochs)
    other = stored_pool(BatchReshuffle(seed=1), plate)
    assert_fresh(np.stack([pool.reshape(-1, size)[0], other.reshape(-1, size)[0]]))


# --- Protocols ---


def test_a_users_own_scheme_is_a_scheme():
    class Backwards:
        def indices(self, key, start, steps, plate):
            return plate.size - 1 - Cyclic().indices(key, start, steps, plate)

        def period(self, plate):
            return Cyclic().period(plate)

    class WithoutPeriod:
        def indices(self, key, start, steps, plate):
            return Cyclic().indices(key, start, steps, plate)

    assert isinstance(Backwards(), SubsamplingScheme)
    assert not isinstance(Backwards(), ContiguousScheme)
    assert not isinstance(WithoutPeriod(), SubsamplingScheme)


@every_scheme
def test_schemes_satisfy_the_protocols_and_are_values(scheme):
    assert isinstance(scheme, SubsamplingScheme)
    assert isinstance(scheme, ContiguousScheme) == isinstance(scheme, BatchReshuffle)
    assert scheme == type(scheme)()
    assert hash(scheme) == hash(type(scheme)())


@settled(50)
@given(plates(10_000))
def test_batches_of_a_plate(plate):
    assert (plate.batches - 1) * plate.batch_size < plate.size <= plate.batches * plate.batch_size


# --- The rounds, exactly ---


def after_rounds(size):
    """Law of the permutation after ``ROUNDS`` rounds of fair independent coins, over all size! permutations."""
    elements = np.array(list(permutations(range(size))))
    base = size ** np.arange(size)
    lookup = np.argsort(elements @ base)
    codes = np.sort(elements @ base)
    law = np.zeros(len(elements))
    law[0] = 1
    rounds = []  # (permutation, probability) of one round
    for reflection in range(size):
        pairs = [(p, q) for p, q in combinations(range(size), 2) if (p + q) % size == reflection]
        for heads in range(2 ** len(pairs)):
            swap = np.arange(size)
            for n, (p, q) in enumerate(pairs):
                if heads >> n & 1:
                    swap[p], swap[q] = q, p
            rounds.append((lookup[np.searchsorted(codes, swap[elements] @ base)], 0.5 ** len(pairs) / size))
    for _ in range(ROUNDS):
        law = sum(np.bincount(image, law * weight, len(law)) for image, weight in rounds)
    return elements, law


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_rounds_leave_a_pair_uniform_to_the_claimed_distance(size):
    elements, law = after_rounds(size)
    for positions in ([0], [0, 1], [0, size - 1]):
        _, which = np.unique(elements[:, positions], axis=0, return_inverse=True)
        marginal = np.bincount(which.reshape(-1), law)
        # a pair forgets how far apart it was when just one of it moves: with probability (N - 1) / 2N a round
        kept = 0.5 if len(positions) == 1 else (1 + 1 / size) / 2
        assert abs(marginal - 1 / len(marginal)).sum() / 2 <= kept**ROUNDS
    if size == 6:
        assert abs(law - 1 / len(law)).sum() / 2 <= 3e-4


# --- Statistics of epochs ---


def chi_squared(cells, number):
    """P-value of ``number`` equally likely cells."""
    counts = np.bincount(np.asarray(cells).reshape(-1), minlength=number)
    assert len(counts) == number
    return stats.chisquare(counts).pvalue


def position_statistic(epochs):
    """Which row is at the first, second, middle, last position."""
    size = epochs.shape[1]
    return min(chi_squared(epochs[:, place], size) for place in {0, 1, size // 2, size - 1})


def ordered_pair(first, second, size):
    """Number among the size (size - 1) ordered pairs of distinct rows."""
    return first.astype(np.int64) * (size - 1) + second - (second > first)


def pair_statistic(epochs):
    """Which two rows are at adjacent positions, across the middle, and at either end."""
    size = epochs.shape[1]
    places = {(0, 1), (size // 2 - 1, size // 2), (size - 2, size - 1), (0, size - 1)}
    pairs = [ordered_pair(epochs[:, p], epochs[:, q], size) for p, q in places]
    return min(chi_squared(pair, size * (size - 1)) for pair in pairs)


def inverse(epochs):
    """Position of every row."""
    positions = np.empty_like(epochs)
    np.put_along_axis(positions, epochs, np.arange(epochs.shape[1], dtype=epochs.dtype)[None, :], axis=1)
    return positions


def rank(orders):
    """Number of each permutation among all of its length, by Lehmer's code."""
    size = orders.shape[1]
    number = np.zeros(len(orders), np.int64)
    for place in range(size):
        number = number * (size - place) + (orders[:, place + 1 :] < orders[:, place : place + 1]).sum(axis=1)
    return number


def order_statistic(epochs):
    """Which of all size! orders an epoch is."""
    return chi_squared(rank(epochs), factorial(epochs.shape[1]))


def relative_statistic(epochs, others):
    """Which of all size! permutations leads from an epoch to another; uniform if they are independent."""
    return chi_squared(rank(np.take_along_axis(others, inverse(epochs), axis=1)), factorial(epochs.shape[1]))


def succession_statistic(epochs):
    """The permutation that leads from an epoch to the next, and where a row was and is."""
    size, positions = epochs.shape[1], inverse(epochs)
    moves = min(chi_squared(positions[:-1, row] * size + positions[1:, row], size**2) for row in (0, size - 1))
    return min(moves, relative_statistic(epochs[:-1], epochs[1:])) if size < 6 else moves


def one_percent(count):
    return np.random.default_rng(0).random(count) < 0.01


def sort_some(epochs):
    return np.where(one_percent(len(epochs))[:, None], np.sort(epochs, axis=1), epochs)


def sort_ends_of_some(epochs):
    """The first two rows and the last two, put in ascending order."""
    spoilt, which = epochs.copy(), one_percent(len(epochs))
    spoilt[which, :2] = np.sort(spoilt[which, :2], axis=1)
    spoilt[which, -2:] = np.sort(spoilt[which, -2:], axis=1)
    return spoilt


def repeat_some(epochs):
    spoilt, which = epochs.copy(), 1 + np.flatnonzero(one_percent(len(epochs) - 1))
    spoilt[which] = spoilt[which - 1]
    return spoilt


STATISTICS = {
    "position": (position_statistic, sort_some),
    "pair": (pair_statistic, sort_ends_of_some),
    "succession": (succession_statistic, repeat_some),
    "order": (order_statistic, sort_some),
}

CHUNK = 252_000  # epochs drawn at once: the rounds' keys take 128 bytes each. A multiple of all small numbers
EPOCHS = 4 * CHUNK


def many_epochs(scheme, size, batch_size, key=None, count=EPOCHS):
    """Permutations that the scheme makes one after another: passes, or for sweeps their forward halves."""
    key = random.key(7) if key is None else key
    chunk = min(CHUNK, count)
    if isinstance(scheme, ShuffleOnce):  # one a chain
        draw = jax.jit(jax.vmap(lambda key: scheme.indices(key, 0, 1, Plate("rows", size, size))[0]))
        return np.asarray(draw(jax.vmap(lambda n: random.fold_in(key, n))(jnp.arange(count))))
    if isinstance(scheme, BatchReshuffle):  # the order of the pool
        plate = Plate("rows", size * batch_size, batch_size)
        draw = jax.jit(lambda start: scheme.batch_numbers(key, start, chunk * size, plate))
        return np.concatenate([draw(n * chunk * size) for n in range(count // chunk)]).reshape(-1, size)
    steps = chunk * scheme.period(Plate("rows", size, batch_size)) * gcd(size, batch_size) // batch_size
    rows = [rows_of(scheme, key, n * steps, steps, size, batch_size) for n in range(count // chunk)]
    if isinstance(scheme, SymmetricReshuffle):
        return np.concatenate(rows).reshape(-1, 2, size)[:, 0]
    return np.concatenate(rows).reshape(-1, size)


MAKERS = {
    "RandomReshuffle of 4": (RandomReshuffle(), 4, 2),
    "RandomReshuffle of 5, straddling": (RandomReshuffle(), 5, 3),
    "RandomReshuffle of 6": (RandomReshuffle(), 6, 6),
    "RandomReshuffle of 10": (RandomReshuffle(), 10, 5),
    "SymmetricReshuffle of 4": (SymmetricReshuffle(), 4, 2),
    "IndependentBatches of 5": (IndependentBatches(), 5, 5),
    "ShuffleOnce of 5, over chains": (ShuffleOnce(), 5, 5),
    "BatchReshuffle of 5 batches": (BatchReshuffle(), 5, 3),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_epochs_are_uniform_and_independent(maker):
    epochs = many_epochs(*MAKERS[maker])
    size = epochs.shape[1]
    assert_permutations(epochs, size)
    found = {name: statistic(epochs) for name, (statistic, _) in STATISTICS.items() if size <= 6 or name != "order"}
    assert min(found.values()) > P_VALUE, found


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_see_one_epoch_in_a_hundred(name):
    """On permutations from another generator, right and spoilt."""
    statistic, spoil = STATISTICS[name]
    rng = np.random.default_rng(1)
    for size in (4, 5):
        epochs = rng.permuted(np.tile(np.arange(size), (EPOCHS, 1)), axis=1)
        assert statistic(epochs) > P_VALUE > statistic(spoil(epochs))


# --- Independence of streams ---


def test_streams_of_different_keys_are_independent():
    """Chains (split), plates (folded in) and users' sequential keys, typed and raw: same epochs, other orders."""
    key = random.key(0)
    streams = {
        "key 0": key,
        "key 1": random.key(1),
        "chain 0": random.split(key)[0],
        "chain 1": random.split(key)[1],
        "plate 0": random.fold_in(random.split(key)[0], 0),
        "plate 1": random.fold_in(random.split(key)[0], 1),
    }
    epochs = {name: many_epochs(RandomReshuffle(), 4, 2, stream, CHUNK) for name, stream in streams.items()}
    epochs["next epoch of key 1"] = np.roll(epochs["key 1"], -1, axis=0)
    found = {pair: relative_statistic(epochs[pair[0]], epochs[pair[1]]) for pair in combinations(epochs, 2)}
    assert min(found.values()) > P_VALUE, found


def test_the_statistic_of_streams_sees_one_percent():
    rng = np.random.default_rng(2)
    first, second = (rng.permuted(np.tile(np.arange(4), (CHUNK, 1)), axis=1) for _ in range(2))
    spoilt = np.where(one_percent(CHUNK)[:, None], first, second)
    assert relative_statistic(first, second) > P_VALUE > relative_statistic(first, spoilt)


@pytest.mark.parametrize("make", [random.key, lambda n: random.fold_in(random.key(3), n)])
def test_first_epochs_of_sequential_keys_are_uniform_and_independent(make):
    """What many short runs or many chains see."""
    draw = jax.jit(jax.vmap(lambda n: RandomReshuffle().indices(make(n), 0, 1, Plate("rows", 5, 5))[0]))
    epochs = np.asarray(draw(jnp.arange(EPOCHS)))
    assert order_statistic(epochs) > P_VALUE
    assert succession_statistic(epochs) > P_VALUE


# --- Large plates ---

BINS = 20


def binned(rows, size, bins):
    return rows.astype(np.int64) * bins // size


def distance_statistic(first, second, size):
    """How far, cyclically, one row is beyond the other: coarse, and within a thousandth (or 100) of each other."""
    distance = (second.astype(np.int64) - first).reshape(-1) % size
    distance = distance[distance > 0]  # none is 0 within an epoch
    near = max(100, size // 1000)
    close = np.minimum(distance, size - distance) <= near
    share = 2 * near / (size - 1)
    return min(
        chi_squared(binned(distance - 1, size - 1, 100), 100),
        stats.binomtest(int(close.sum()), close.size, share).pvalue,
        chi_squared(binned(np.where(distance <= near, distance - 1, 0)[distance <= near], near, 10), 10),
    )


def table_statistic(first, second, size):
    """Both binned: the joint table against equally likely cells."""
    return chi_squared(binned(first, size, BINS) * BINS + binned(second, size, BINS), BINS**2)


def places_over_chains(size, batch_size, chains, scheme=None):
    """For each chain, two batches from the start, the middle and the end of an epoch (and into the next)."""
    scheme, plate = scheme or RandomReshuffle(), Plate("rows", size, batch_size)
    passes = size // batch_size
    places = jnp.asarray([0, passes // 2, passes - 1], jnp.int32) + 3 * passes  # the fourth epoch

    def one(n):
        key = random.fold_in(random.key(11), n)
        return jax.vmap(lambda start: scheme.indices(key, start, 2, plate).reshape(-1))(places)

    draw = jax.jit(jax.vmap(one))
    rows = np.asarray(draw(jnp.arange(chains)))
    within = np.stack([rows[:, 0, 0], rows[:, 0, 1], rows[:, 0, batch_size - 1], rows[:, 0, batch_size]])
    ends = np.stack([rows[:, 1, 0], rows[:, 2, batch_size - 2], rows[:, 2, batch_size - 1]])
    return np.concatenate([within, ends, rows[None, :, 2, batch_size]])  # the last is the next epoch's first


PAIRS = {
    "adjacent": (0, 1),
    "across batches": (2, 3),
    "first and middle": (0, 4),
    "first and last": (0, 6),
    "last two": (5, 6),
    "last and next epoch's first": (6, 7),
    "first and next epoch's first": (0, 7),
}


@pytest.mark.parametrize("size", [100_000, 10_000_000])
def test_places_in_large_epochs(size):
    rows = places_over_chains(size, 4, 200_000)
    for place in rows:
        # uniform, and so are its remainders, which a careless reduction to a row would spoil
        assert chi_squared(binned(place, size, 1_000), 1_000) > P_VALUE
        assert chi_squared(place % 16, 16) > P_VALUE
    found = {
        (name, statistic.__name__): statistic(rows[p], rows[q], size)
        for name, (p, q) in PAIRS.items()
        for statistic in (distance_statistic, table_statistic)
    }
    assert min(found.values()) > P_VALUE, found


def test_all_pairs_of_two_hundred_rows():
    size = 200
    rows = places_over_chains(size, 4, EPOCHS)
    for name, (p, q) in PAIRS.items():
        if "next" in name:
            found = chi_squared(rows[p].astype(np.int64) * size + rows[q], size**2)
        else:
            found = chi_squared(ordered_pair(rows[p], rows[q], size), size * (size - 1))
        assert found > P_VALUE, name


@pytest.mark.parametrize("size", [200, 100_000, 10_000_000])
def test_statistics_of_pairs_see_one_in_a_hundred(size):
    """One row in a hundred is followed by its neighbour, or by one in its own bin."""
    rng = np.random.default_rng(3)
    count = EPOCHS if size == 200 else 200_000
    first = rng.integers(0, size, count)
    second = (first + rng.integers(1, size, count)) % size
    which = one_percent(count)
    next_row = np.where(which, (first + 1) % size, second)
    if size == 200:
        for pairs, right in ((second, True), (next_row, False)):
            assert (chi_squared(ordered_pair(first, pairs, size), size * (size - 1)) > P_VALUE) == right
        return
    same_bin = np.where(which, first // (size // BINS) * (size // BINS) + rng.integers(0, size // BINS, count), second)
    assert distance_statistic(first, second, size) > P_VALUE > distance_statistic(first, next_row, size)
    assert table_statistic(first, second, size) > P_VALUE > table_statistic(first, same_bin, size)


def margin_table_statistic(first, second, size, bins):
    """Two bijections of 0 .. size - 1, binned: a table with fixed margins, (bins - 1)² degrees of freedom."""
    table = np.bincount(binned(first, size, bins) * bins + binned(second, size, bins), minlength=bins**2)
    cell = size / bins**2
    return np.sum((table - cell) ** 2 / cell) * (size - 1) / size


def whole_epoch_p_values(epochs):
    """Statistics over all rows of a few large epochs."""
    count, size = epochs.shape
    bins = int(np.sqrt(size / 40))  # 40 rows a cell
    positions, everywhere = inverse(epochs), np.arange(size)
    place = sum(margin_table_statistic(everywhere, epoch, size, bins) for epoch in epochs)
    succession = sum(margin_table_statistic(a, b, size, bins) for a, b in pairwise(positions))
    centred = (epochs - (size - 1) / 2) / np.sqrt((size**2 - 1) / 12)
    deviates = []
    for lag in (1, 2, 3, 7, 64):
        # the sum of products over an epoch: mean -(size - lag) / (size - 1), variance about size
        sums = np.sum(centred[:, lag:] * centred[:, :-lag], axis=1) + (size - lag) / (size - 1)
        deviates.append(abs(sums.sum()) / np.sqrt(count * size))
        bits = (epochs[:, lag:] ^ epochs[:, :-lag]) & 1
        deviates.append(abs(np.sum(2.0 * bits - 1)) / np.sqrt(bits.size))
    return {
        "row and position": stats.chi2.sf(place, count * (bins - 1) ** 2),
        "position now and next": stats.chi2.sf(succession, (count - 1) * (bins - 1) ** 2),
        "distance of neighbouring positions' rows": distance_statistic(epochs[:, :-1], epochs[:, 1:], size),
        "distance of neighbouring rows' positions": distance_statistic(positions[:, :-1], positions[:, 1:], size),
        "serial correlations": 2 * stats.norm.sf(max(deviates)) * len(deviates),
    }


@pytest.mark.parametrize("batch_size", [100, 96])
def test_whole_epochs_of_a_hundred_thousand(batch_size):
    size, count = 100_000, 10
    steps = -(-size * count // batch_size)
    rows = rows_of(RandomReshuffle(), random.key(12), 0, steps, size, batch_size).reshape(-1)
    epochs = rows[: size * count].reshape(count, size)
    assert_permutations(epochs, size)
    found = whole_epoch_p_values(epochs)
    assert min(found.values()) > P_VALUE, found


def neighbours_statistic(epochs):
    """Rows i, i + 1 at adjacent positions, either way round: 2 an epoch by chance, and nearly Poisson.

    A shuffle of too few rounds now and then moves both alike, and batches of ordered data then vary too much.
    """
    count, size = epochs.shape
    found = int(np.sum(np.abs(np.diff(epochs, axis=1)) == 1))
    expected = 2 * count * (size - 1) / size
    return min(1.0, 2 * min(stats.poisson.sf(found - 1, expected), stats.poisson.cdf(found, expected)))


def test_rows_side_by_side_are_separated():
    epochs = many_epochs(RandomReshuffle(), 100_000, 1_000, random.key(17), 200)
    assert neighbours_statistic(epochs) > P_VALUE


def test_the_statistic_of_neighbours_sees_one_pair_in_a_hundred_thousand():
    rng = np.random.default_rng(9)
    epochs = np.stack([rng.permutation(100_000) for _ in range(200)])
    assert neighbours_statistic(epochs) > P_VALUE
    for epoch in epochs:  # one pair an epoch
        row, place = rng.integers(0, 99_999, 2)
        for position, wanted in ((place, row), (place + 1, row + 1)):
            where = int(np.flatnonzero(epoch == wanted)[0])
            epoch[where], epoch[position] = epoch[position], wanted
    assert neighbours_statistic(epochs) < P_VALUE


@pytest.mark.slow
@pytest.mark.parametrize(("size", "batch_size"), [(10_000_000, 1_000), (9_999_990, 90)])
def test_whole_epochs_of_ten_million(size, batch_size):
    epochs = many_epochs(RandomReshuffle(), size, batch_size, random.key(13), 2)
    found = whole_epoch_p_values(epochs) | {"neighbours": neighbours_statistic(epochs)}
    assert min(found.values()) > P_VALUE, found


def hold_some(epochs):
    """Swap rows until one row in a hundred is at its own position."""
    spoilt = epochs.copy()
    for epoch in spoilt:
        for row in np.random.default_rng(4).choice(len(epoch), len(epoch) // 100, replace=False):
            where = int(np.flatnonzero(epoch == row)[0])
            epoch[where], epoch[row] = epoch[row], row
    return spoilt


def keep_some(epochs):
    """One row in a hundred at the position of the epoch before."""
    spoilt = epochs.copy()
    for before, epoch in pairwise(spoilt):
        for place in np.random.default_rng(5).choice(len(epoch), len(epoch) // 100, replace=False):
            where = int(np.flatnonzero(epoch == before[place])[0])
            epoch[where], epoch[place] = epoch[place], before[place]
    return spoilt


def neighbours_of_some(epochs):
    """One position in a hundred is followed by the row after its own."""
    spoilt = epochs.copy()
    for epoch in spoilt:
        for place in np.random.default_rng(6).choice(len(epoch) - 1, len(epoch) // 100, replace=False):
            wanted = (epoch[place] + 1) % len(epoch)
            where = int(np.flatnonzero(epoch == wanted)[0])
            epoch[where], epoch[place + 1] = epoch[place + 1], wanted
    return spoilt


@pytest.mark.parametrize(
    ("spoil", "sees"),
    [
        (hold_some, ["row and position"]),
        (keep_some, ["position now and next"]),
        (
            neighbours_of_some,
            [
                "distance of neighbouring positions' rows",
                "distance of neighbouring rows' positions",
                "serial correlations",
            ],
        ),
    ],
)
def test_statistics_of_whole_epochs_see_one_row_in_a_hundred(spoil, sees):
    rng = np.random.default_rng(7)
    epochs = np.stack([rng.permutation(100_000) for _ in range(10)])
    assert min(whole_epoch_p_values(epochs).values()) > P_VALUE
    found = whole_epoch_p_values(spoil(epochs))
    assert all(found[name] < P_VALUE for name in sees), found


# --- What a sampler sees: the batches' means ---


def batch_mean_deviates(batches, values):
    """Variance of a batch's mean, and covariance with the next batch of the pass, in standard errors.

    ``batches`` is (epochs, batches an epoch, batch); their exact values for sampling without replacement are
    σ² (N - B) / (B (N - 1)) and -σ² / (N - 1).
    """
    values = (values - values.mean()) / values.std()
    means = values[batches].mean(axis=2)
    _, passes, batch = batches.shape
    size = passes * batch
    deviates = []
    for estimate, exact in (
        (np.mean(means**2, axis=1), (size - batch) / (batch * (size - 1))),
        (np.mean(means[:, 1:] * means[:, :-1], axis=1), -1 / (size - 1)),
        (means[:, 0] * means[:, -1], -1 / (size - 1)),
        (means[1:, 0] * means[:-1, -1], 0),
    ):
        deviates.append((estimate.mean() - exact) / (estimate.std() / np.sqrt(estimate.size)))
    assert np.max(np.abs(means.sum(axis=1))) < passes * size * np.finfo(float).eps  # a pass cancels
    return np.array(deviates)


VALUES = {
    "sorted": lambda size: np.arange(size),
    "parity": lambda size: np.arange(size) % 2,
    "blocks": lambda size: np.arange(size) // 4 % 2,
    "a tenth": lambda size: np.arange(size) < size // 10,
}


@pytest.mark.parametrize(("size", "batch_size", "epochs"), [(20, 5, 100_000), (1_000, 10, 10_000)])
def test_batch_means_have_the_variance_of_sampling_without_replacement(size, batch_size, epochs):
    rows = many_epochs(RandomReshuffle(), size, batch_size, count=epochs)
    batches = rows.reshape(epochs, -1, batch_size)
    deviates = {name: batch_mean_deviates(batches, values(size)) for name, values in VALUES.items()}
    threshold = stats.norm.isf(P_VALUE / 2)
    assert all(np.all(np.abs(found) < threshold) for found in deviates.values()), deviates


def test_batch_means_would_betray_one_percent():
    """A batch in a hundred is the one before it again: in the place of its own rows, which go there."""
    rng = np.random.default_rng(8)
    batches = rng.permuted(np.tile(np.arange(1_000), (10_000, 1)), axis=1).reshape(10_000, -1, 10)
    values = VALUES["sorted"](1_000)
    threshold = stats.norm.isf(P_VALUE / 2)
    assert np.all(np.abs(batch_mean_deviates(batches, values)) < threshold)
    ordered = batches.copy()  # one pair of neighbouring batches in a hundred, sorted into a low and a high one
    which = rng.random((len(batches), 50)) < 0.01
    pairs = ordered.reshape(len(batches), 50, 20)
    pairs[which] = np.sort(pairs[which], axis=1)
    assert np.max(np.abs(batch_mean_deviates(ordered, values))) > threshold


# --- Independent draws ---


def test_with_replacement_is_uniform_and_independent():
    rows = rows_of(WithReplacement(), random.key(14), 0, 200_000, 5, 5)
    cells = {
        "row": (rows, 5),
        "in a batch": (rows[:, :-1] * 5 + rows[:, 1:], 25),
        "ends of a batch": (rows[:, 0] * 5 + rows[:, -1], 25),
        "next step": (rows[:-1] * 5 + rows[1:], 25),
        "across steps": (rows[:-1, -1] * 5 + rows[1:, 0], 25),
        "whole batch": (rows @ 5 ** np.arange(5), 5**5),
    }
    found = {name: chi_squared(*cell) for name, cell in cells.items()}
    assert min(found.values()) > P_VALUE, found


@pytest.mark.parametrize("size", [100_000, 10_000_000, 2**31 - 1])
def test_with_replacement_from_many_rows(size):
    rows = rows_of(WithReplacement(), random.key(15), 2**30, 20_000, size, 100)
    assert chi_squared(binned(rows, size, 1_000), 1_000) > P_VALUE
    assert chi_squared(rows % 64, 64) > P_VALUE
    assert chi_squared(rows.astype(np.int64) % 1_000, 1_000) > P_VALUE or size == 2**31 - 1
    for first, second in ((rows[:, :-1], rows[:, 1:]), (rows[:-1], rows[1:])):
        assert table_statistic(first, second, size) > P_VALUE


def test_independent_batches_are_uniform_and_independent():
    rows = rows_of(IndependentBatches(), random.key(16), 0, 500_000, 5, 3)
    triple = rows[:, 0].astype(np.int64) * 25 + rows[:, 1] * 5 + rows[:, 2]
    _, cells = np.unique(triple, return_inverse=True)
    assert chi_squared(cells, 60) > P_VALUE
    for p, q in ((0, 0), (2, 0), (1, 2)):
        assert chi_squared(rows[:-1, p] * 5 + rows[1:, q], 25) > P_VALUE


def test_chains_with_replacement_are_independent():
    plate = Plate("rows", 5, 5)
    chains = random.split(random.key(0))
    keys = [random.key(0), random.key(1), *chains, *(random.fold_in(chains[0], n) for n in range(2))]
    rows = [np.asarray(compiled(WithReplacement(), 200_000, plate)(key, jnp.int32(0))) for key in keys]
    for first, second in combinations(rows, 2):
        assert chi_squared(first * 5 + second, 25) > P_VALUE
