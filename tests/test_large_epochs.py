"""Epochs of many rows: pairs of places over many chains, then whole epochs, right to under 1 %."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import stats

from sgworld_numpyro.subsampling import Plate, RandomReshuffle
from tests.epochs import (
    BINS,
    EPOCHS,
    P_VALUE,
    assert_permutations,
    binned,
    chi_squared,
    inverse,
    many_epochs,
    one_percent,
    ordered_pair,
    rows_of,
    table_statistic,
)

# --- Pairs of places, over many chains ---


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


# --- Whole epochs ---


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
