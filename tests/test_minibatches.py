"""What a sampler sees of its minibatches: their means, and draws that are independent."""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import stats

from sgworld_numpyro import SGD, SGLD
from sgworld_numpyro.subsampling import IndependentBatches, Plate, RandomReshuffle, WithReplacement
from tests.epochs import P_VALUE, binned, chi_squared, compiled, many_epochs, rows_of, table_statistic
from tests.problems import anisotropic_mean

# --- The batches' means ---


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


# --- Rows and noise have keys of their own ---


@pytest.mark.parametrize("kernel", [SGD, SGLD])
def test_the_key_of_the_noise_changes_no_rows(kernel):
    """Another key of the noise alone: plain SGD, which has none, goes the same way, and SGLD another."""
    problem = anisotropic_mean(10)
    sampler = kernel(problem.model, 1e-4, steps_per_sample=7)
    state = sampler.init(random.key(0), 0, None, problem.data, {})
    found, other, shuffled = (
        np.asarray(sampler.sample(start, problem.data, {}).position)
        for start in (state, state._replace(rng_key=random.key(1)), state._replace(shuffle_key=random.key(1)))
    )
    assert np.array_equal(found, other) == (kernel is SGD)
    assert not np.array_equal(found, shuffled)
