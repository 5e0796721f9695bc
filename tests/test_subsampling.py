"""Subsampling schemes: what each promises of its rows, exactly."""

from functools import lru_cache
from math import gcd

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import random

from sgworld_numpyro.subsampling import (
    BatchReshuffle,
    ContiguousScheme,
    Cyclic,
    FullBatch,
    IndependentBatches,
    Plate,
    RandomReshuffle,
    RunReshuffle,
    ShuffleOnce,
    SubsamplingScheme,
    SymmetricReshuffle,
    WithReplacement,
    named,
)
from sgworld_numpyro.subsampling.stream import dividing_batch_sizes, stream_offset, stream_period
from tests.epochs import assert_fresh, assert_permutations, rows_of
from tests.tables import SCHEMES, by_name, every_scheme

STEPS_BELOW = 2**31  # steps are counted in 32 bits


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


def law_of_run_reshuffle(rows, start, plate):
    """That of ``RandomReshuffle``, of runs that are always the same."""
    length = RunReshuffle().rows_a_run(plate)
    pool = np.asarray(jax.jit(lambda: RunReshuffle().layout(plate))())
    assert_permutations(pool.reshape(1, -1), plate.size)
    number = np.empty(plate.size, int)
    number[pool.reshape(-1)] = np.arange(plate.size)
    places = number[rows].reshape(len(rows), -1, length)
    np.testing.assert_array_equal(places, places[..., :1] + np.arange(length))
    assert not np.any(places[..., 0] % length)
    runs = Plate("rows", plate.size // length, plate.batch_size // length)
    law_of_random_reshuffle((places[..., 0] // length).astype(np.int32), start, runs)


@lru_cache
def stored_pool(scheme, plate):
    return np.asarray(jax.jit(lambda: scheme.layout(plate))()).reshape(-1, plate.batch_size)


@pytest.mark.parametrize(
    ("size", "batch_size", "run_length", "expected"),
    [(100_000, 100, 10, 10), (100_000, 100, 8, 5), (60_000, 128, 10, 8), (99_999, 100, 10, 1), (12, 12, 10, 6)],
)
def test_runs_are_as_long_as_fits_rows_and_batches(size, batch_size, run_length, expected):
    assert RunReshuffle(run_length).rows_a_run(Plate("rows", size, batch_size)) == expected


@pytest.mark.parametrize("run_length", [0, 2.5, None])
def test_a_run_has_a_row_at_least(run_length):
    with pytest.raises(ValueError, match=r"run_length=.* must be an integer of at least 1; 10"):
        RunReshuffle(run_length)


def test_runs_of_one_row_are_rows_reshuffled():
    plate = Plate("rows", 30, 12)
    rows = rows_of(RandomReshuffle(), random.key(3), 7, 40, 30, 12)
    runs = rows_of(RunReshuffle(1), random.key(3), 7, 40, 30, 12)
    np.testing.assert_array_equal(np.asarray(RunReshuffle(1).layout(plate))[rows], runs)


def law_of_cyclic(rows, start, plate):
    flat = [(start * plate.batch_size + place) % plate.size for place in range(rows.size)]
    np.testing.assert_array_equal(rows.reshape(-1), flat)


def law_of_full_batch(rows, start, plate):
    np.testing.assert_array_equal(rows, np.broadcast_to(np.arange(plate.size), rows.shape))


def law_of_independent_batches(rows, start, plate):
    assert np.all(np.diff(np.sort(rows, axis=1), axis=1) > 0)


LAWS = {
    BatchReshuffle: law_of_batch_reshuffle,
    Cyclic: law_of_cyclic,
    FullBatch: law_of_full_batch,
    IndependentBatches: law_of_independent_batches,
    RandomReshuffle: law_of_random_reshuffle,
    RunReshuffle: law_of_run_reshuffle,
    ShuffleOnce: law_of_shuffle_once,
    SymmetricReshuffle: law_of_symmetric_reshuffle,
    WithReplacement: lambda rows, start, plate: None,
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
    LAWS[type(scheme)](rows, start, plate)
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


@pytest.mark.parametrize("scheme", [RandomReshuffle(), WithReplacement(), IndependentBatches()], ids=by_name)
def test_far_steps_of_many_rows(scheme):
    """At step 2³⁰ of ten million rows: a block is its single steps, and without replacement within a pass."""
    plate, start, steps = Plate("rows", 9_999_991, 250), 2**30 - 4, 70

    @jax.jit
    def draw(key, start):
        one = jax.vmap(lambda n: scheme.indices(key, start + n, 1, plate)[0])
        return scheme.indices(key, start, steps, plate), one(jnp.arange(steps, dtype=jnp.int32))

    block, singles = map(np.asarray, draw(random.key(3), jnp.int32(start)))
    np.testing.assert_array_equal(block, singles)
    assert 0 <= block.min() <= block.max() < plate.size
    if not isinstance(scheme, WithReplacement):
        batches = block if isinstance(scheme, IndependentBatches) else block.reshape(1, -1)
        assert all(len(np.unique(rows)) == rows.size for rows in batches)


# --- Period ---


@settled(100)
@given(plates(5_000))
def test_period(plate):
    """Independent steps: 1. Streams: steps until a batch begins where a pass does; a sweep is there and back."""
    stream = next(n for n in range(1, plate.size + 1) if n * plate.batch_size % plate.size == 0)
    expected = dict.fromkeys(SCHEMES, stream) | {
        FullBatch(): 1,
        IndependentBatches(): 1,
        WithReplacement(): 1,
        SymmetricReshuffle(): 2 * stream,
    }
    assert {scheme: scheme.period(plate) for scheme in SCHEMES} == expected


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
    assert isinstance(scheme, ContiguousScheme) == isinstance(scheme, BatchReshuffle | RunReshuffle)
    assert scheme == type(scheme)()
    assert hash(scheme) == hash(type(scheme)())


@settled(50)
@given(plates(10_000))
def test_batches_of_a_plate(plate):
    assert (plate.batches - 1) * plate.batch_size < plate.size <= plate.batches * plate.batch_size


@given(st.integers(2, 500), st.integers(1, 500))
@example(570, 32)
@example(569, 32)  # a prime
def test_batch_sizes_that_divide_make_the_period_one_pass(size, batch):
    batch = min(batch, size)
    found = dividing_batch_sizes(Plate("rows", size, batch))
    assert all(stream_period(Plate("rows", size, other)) * other == size for other in found)
    near = [n for n in range((batch + 1) // 2, min(2 * batch, size) + 1) if size % n == 0]
    assert bool(found) is bool(near)
    if near:
        assert min(abs(n - batch) for n in near) == min(abs(n - batch) for n in found)
