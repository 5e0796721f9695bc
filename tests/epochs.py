"""Epochs as schemes draw them, and statistics of them.

A statistic is a function from epochs, an array (epochs, rows) of permutations, to a p-value. A test of its power spoils
one epoch, or one row, in a hundred and demands that it rejects them.
"""

from functools import lru_cache
from math import factorial, gcd

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from scipy import stats

from sgworld_numpyro.subsampling import BatchReshuffle, Plate, ShuffleOnce, SymmetricReshuffle

P_VALUE = 1e-6  # rejects a right scheme once in a million tests; the keys are fixed
BINS = 20
CHUNK = 252_000  # epochs drawn at once: the rounds' keys take 128 bytes each. A multiple of all small numbers
EPOCHS = 4 * CHUNK


@lru_cache
def compiled(scheme, steps, plate):
    return jax.jit(lambda key, start: scheme.indices(key, start, steps, plate))


def rows_of(scheme, key, start, steps, size, batch_size):
    return np.asarray(compiled(scheme, steps, Plate("rows", size, batch_size))(key, jnp.int32(start)))


def assert_permutations(passes, size):
    assert len(passes) > 0
    np.testing.assert_array_equal(np.sort(passes, axis=1), np.broadcast_to(np.arange(size), passes.shape))


def assert_fresh(sequences):
    """No two are equal, where chance would not make them so once in a million."""
    flat = sequences.reshape(len(sequences), -1)
    if len(set(flat[0])) >= 13:  # 13! = 6e9, and at most a hundred pairs
        assert len(np.unique(flat, axis=0)) == len(flat)


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


# --- Statistics ---


def chi_squared(cells, number):
    """P-value of ``number`` equally likely cells."""
    counts = np.bincount(np.asarray(cells).reshape(-1), minlength=number)
    assert len(counts) == number
    return stats.chisquare(counts).pvalue


def ordered_pair(first, second, size):
    """Number among the size (size - 1) ordered pairs of distinct rows."""
    return first.astype(np.int64) * (size - 1) + second - (second > first)


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


def relative_statistic(epochs, others):
    """Which of all size! permutations leads from an epoch to another; uniform if they are independent."""
    return chi_squared(rank(np.take_along_axis(others, inverse(epochs), axis=1)), factorial(epochs.shape[1]))


def one_percent(count):
    return np.random.default_rng(0).random(count) < 0.01


def binned(rows, size, bins):
    return rows.astype(np.int64) * bins // size


def table_statistic(first, second, size):
    """Both binned: the joint table against equally likely cells."""
    return chi_squared(binned(first, size, BINS) * BINS + binned(second, size, BINS), BINS**2)
