"""Epochs of a few rows: the law of a permutation exactly, and that as drawn it is right to under 1 %."""

from itertools import combinations, permutations
from math import factorial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from sgworld_numpyro.subsampling import (
    BatchReshuffle,
    IndependentBatches,
    Plate,
    RandomReshuffle,
    ShuffleOnce,
    SymmetricReshuffle,
)
from sgworld_numpyro.subsampling.permutation import ROUNDS
from tests.epochs import (
    CHUNK,
    EPOCHS,
    P_VALUE,
    assert_permutations,
    chi_squared,
    inverse,
    many_epochs,
    one_percent,
    ordered_pair,
    rank,
    relative_statistic,
)

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


def position_statistic(epochs):
    """Which row is at the first, second, middle, last position."""
    size = epochs.shape[1]
    return min(chi_squared(epochs[:, place], size) for place in {0, 1, size // 2, size - 1})


def pair_statistic(epochs):
    """Which two rows are at adjacent positions, across the middle, and at either end."""
    size = epochs.shape[1]
    places = {(0, 1), (size // 2 - 1, size // 2), (size - 2, size - 1), (0, size - 1)}
    pairs = [ordered_pair(epochs[:, p], epochs[:, q], size) for p, q in places]
    return min(chi_squared(pair, size * (size - 1)) for pair in pairs)


def order_statistic(epochs):
    """Which of all size! orders an epoch is."""
    return chi_squared(rank(epochs), factorial(epochs.shape[1]))


def succession_statistic(epochs):
    """The permutation that leads from an epoch to the next, and where a row was and is."""
    size, positions = epochs.shape[1], inverse(epochs)
    moves = min(chi_squared(positions[:-1, row] * size + positions[1:, row], size**2) for row in (0, size - 1))
    return min(moves, relative_statistic(epochs[:-1], epochs[1:])) if size < 6 else moves


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
