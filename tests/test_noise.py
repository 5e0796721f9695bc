"""Noise: the whole grid of values that it can take, exactly; then its statistics as drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import random
from scipy import special, stats

from sgworld_numpyro.randomness import noise
from sgworld_numpyro.randomness.counter_rng import seed_words

P_VALUE = 1e-6  # rejects right noise once in a million tests; the keys are fixed
EXAMPLES = settings(max_examples=12, deadline=None, derandomize=True)
FLOAT32 = jnp.dtype("float32")

NAMES = sorted(noise.NOISES)
noise_block = jax.jit(noise.noise_block, static_argnums=(0, 3, 4, 5))


def words_are(monkeypatch, word0, word1):
    """Make the generator yield given words at a single step."""
    pair = tuple(jnp.asarray(word, jnp.uint32)[None, :] for word in (word0, word1))
    monkeypatch.setattr(noise, "threefry", lambda seed, high, low: pair)


def draw(name, seed, steps, size, dtype=FLOAT32):
    return np.asarray(noise.NOISES[name](seed, jnp.asarray(steps, jnp.int32), size, dtype))


def normal_deviate(estimates, error):
    """The two-sided p-value of the largest of independent estimates of 0 with a standard error."""
    largest = np.max(np.abs(estimates)) / error
    return -np.expm1(np.size(estimates) * np.log1p(-2 * stats.norm.sf(largest)))


# --- Every value there is ---


@pytest.fixture(scope="module")
def float32_grid():
    """The Gaussian at all 2²³ points of its float32 grid, in order."""
    with pytest.MonkeyPatch.context() as patch:
        points = np.arange(2**23, dtype=np.uint32) << 9
        words_are(patch, points[: 2**22], points[2**22 :])
        return draw("gaussian", None, [0], 2**23)[0]


def test_gaussian_grid_is_the_normals_quantiles(float32_grid):
    """Each value at the midpoint of its 2⁻²³ of probability, and no further off than the next one's."""
    midpoints = (np.arange(2**23) + 0.5) / 2**23
    assert np.abs(special.ndtr(float32_grid.astype(float)) - midpoints).max() < 2.0**-23
    assert np.all(np.diff(float32_grid) >= 0)


def test_gaussian_grid_is_exactly_symmetric(float32_grid):
    np.testing.assert_array_equal(float32_grid, -float32_grid[::-1])


def test_gaussian_grids_moments_are_a_normals(float32_grid):
    """The tails beyond the last point, 5.3, are what the moments lack: a grid's own error, below 2⁻²³ z^k."""
    last = float32_grid[-1].astype(float)
    values = float32_grid.astype(float)
    for power, moment in ((2, 1), (4, 3), (6, 15)):
        assert abs(np.mean(values**power) - moment) < 2.0**-23 * last**power


def test_complementary_words_are_opposite_in_float64(monkeypatch):
    with jax.enable_x64(True):
        words = np.array(random.bits(random.key(0), (2, 10_000), jnp.uint32))
        words[:, :2] = [[0, 2**32 - 1], [0, 2**32 - 1]]
        words_are(monkeypatch, *words)
        values = draw("gaussian", None, [0], 10_000, jnp.dtype("float64"))
        words_are(monkeypatch, *~words)
        np.testing.assert_array_equal(draw("gaussian", None, [0], 10_000, jnp.dtype("float64")), -values)
    assert np.all(np.isfinite(values))
    assert values[0, 0] == values.min()
    assert values[0, 1] == values.max()


def test_float64_grid_has_52_bits(monkeypatch):
    """The last bits of both words count: neighbours on the grid of 2⁵² give different noise."""
    with jax.enable_x64(True):
        low = np.arange(4, dtype=np.uint32) << 6
        words_are(monkeypatch, np.full(4, 0x30000000, np.uint32), low)
        values = draw("gaussian", None, [0], 4, jnp.dtype("float64"))[0]
        words_are(monkeypatch, np.array([5, 6], np.uint32) << 26, np.array([2**32 - 1, 0], np.uint32))
        seam = draw("gaussian", None, [0], 2, jnp.dtype("float64"))[0]
        words_are(monkeypatch, *np.array(random.bits(random.key(1), (2, 1_000), jnp.uint32)))
        words = noise.threefry(None, None, None)
        many = draw("gaussian", None, [0], 1_000, jnp.dtype("float64"))[0]
    assert np.all(np.diff(values) > 0)
    assert seam[0] < seam[1]
    exact = [((int(a) >> 6) << 26) + (int(b) >> 6) + 0.5 for a, b in zip(*(w[0] for w in words), strict=True)]
    # ndtri's own rounding, and that of the probability near 1
    np.testing.assert_allclose(many, special.ndtri(np.array(exact) / 2.0**52), rtol=0, atol=1e3 * 2.0**-52)


@pytest.fixture(scope="module")
def three_point_values():
    """Three-point noise at all 2¹⁶ half words, in either half of either word: 4 × 2¹⁶ values."""
    halves = np.arange(2**16, dtype=np.uint32)
    reverse = halves[::-1]
    with pytest.MonkeyPatch.context() as patch:
        words_are(patch, halves | reverse << 16, reverse | halves << 16)
        return draw("three_point", None, [0], 4 * 2**16)[0].astype(float)


def test_three_point_values_and_probabilities(three_point_values):
    values, counts = np.unique(three_point_values, return_counts=True)
    assert values[1] == 0
    assert values[0] == -values[2]
    jump = (2.0**16 // 6 + 1) / 2**16  # 1/6 to the nearest multiple of 2⁻¹⁶
    assert abs(jump - 1 / 6) <= 2.0**-17
    np.testing.assert_array_equal(counts / counts.sum(), [jump, 1 - 2 * jump, jump])


def test_three_point_moments_to_the_fifth(three_point_values):
    """Odd ones vanish; the variance is 1 to the float's rounding, the fourth 3 to that of the probability."""
    jump = three_point_values.max()
    assert abs(np.mean(three_point_values**2) - 1) < 2 * np.finfo(np.float32).eps
    fourth = np.mean(three_point_values**4)
    assert abs(fourth - 2.99991) < 5e-6  # the module's claim, in its digits
    assert abs(fourth - jump**2) < 1e-6
    for power in (1, 3, 5):
        assert np.mean(three_point_values**power) == 0


def test_three_point_variance_is_exactly_one_in_float64(monkeypatch):
    with jax.enable_x64(True):
        halves = np.arange(2**16, dtype=np.uint32)
        words_are(monkeypatch, halves, halves)
        values = draw("three_point", None, [0], 2 * 2**16, jnp.dtype("float64"))[0]
    assert abs(np.mean(values**2) - 1) < 4 * np.finfo(float).eps


# --- As drawn ---


def moments_p_value(values, fourth, sixth, eighth):
    """Smallest p-value of mean, variance, third and fourth moments, from their exact standard errors."""
    n = values.size
    v = values.astype(float).reshape(-1)
    errors = {1: 1.0, 2: fourth - 1, 3: sixth, 4: eighth - fourth**2}
    expected = {1: 0, 2: 1, 3: 0, 4: fourth}
    return min(normal_deviate(np.mean(v**k) - expected[k], np.sqrt(errors[k] / n)) for k in errors if errors[k])


EVEN_MOMENTS = {"gaussian": (3, 15, 105), "three_point": (3, 9, 27)}


@pytest.fixture(scope="module", params=NAMES)
def drawn(request):
    """2000 steps of 1000 coordinates."""
    return request.param, draw(request.param, seed_words(random.key(0)), np.arange(2_000), 1_000)


def test_moments(drawn):
    name, values = drawn
    if name == "gaussian":
        assert moments_p_value(values, *EVEN_MOMENTS[name]) > P_VALUE
        # power: 1 % more variance
        assert moments_p_value(values * np.sqrt(1.01), *EVEN_MOMENTS[name]) < P_VALUE
    else:
        jumps = [np.mean(values > 0), np.mean(values < 0)]
        error = np.sqrt(1 / 6 * 5 / 6 / values.size)
        assert normal_deviate(np.array(jumps) - 1 / 6, error) > P_VALUE
        assert normal_deviate(np.mean(values), np.sqrt(1 / values.size)) > P_VALUE


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gaussian_passes_kolmogorov_and_smirnov(dtype):
    with jax.enable_x64(dtype == "float64"):
        values = draw("gaussian", seed_words(random.key(1)), np.arange(1_000), 400, jnp.dtype(dtype))
    assert values.dtype == dtype
    assert stats.kstest(values.reshape(-1), "norm").pvalue > P_VALUE
    # power: 1 % of the noise is missing
    spoilt = np.where(np.random.default_rng(0).random(values.shape) < 0.01, 0, values)
    assert stats.kstest(spoilt.reshape(-1), "norm").pvalue < P_VALUE


def test_gaussian_tails():
    """Counts beyond 2, 3 and 4 standard deviations, either side, against the binomial law."""
    values = draw("gaussian", seed_words(random.key(2)), np.arange(4_000), 1_000).reshape(-1)
    for beyond in (2, 3, 4):
        for sign in (-1, 1):
            count, p = int(np.sum(sign * values > beyond)), stats.norm.sf(beyond)
            assert stats.binomtest(count, values.size, p).pvalue > P_VALUE


def test_float64_noise_has_more_digits_than_float32_holds():
    with jax.enable_x64(True):
        values = draw("gaussian", seed_words(random.key(0)), np.arange(100), 100, jnp.dtype("float64"))
    assert values.dtype == np.float64
    assert np.mean(values == values.astype(np.float32)) < 0.01
    assert len(np.unique(values)) == values.size


def levels(name, values):
    """Eight equally likely levels, or the three points."""
    if name == "three_point":
        return np.sign(values).astype(int) + 1, np.array([1 / 6, 2 / 3, 1 / 6])
    return np.floor(8 * special.ndtr(values)).astype(int), np.full(8, 1 / 8)


def independence(name, first, second):
    """P-value of the joint table of levels against the product of the exact laws."""
    (row, law), (column, _) = levels(name, first), levels(name, second)
    table = np.bincount((row * len(law) + column).reshape(-1), minlength=len(law) ** 2)
    return stats.chisquare(table, np.outer(law, law).reshape(-1) * table.sum()).pvalue


def neighbours(name):
    """Pairs of noise arrays that must be independent, by what separates them."""
    key = random.key(3)
    steps, size = np.arange(1_000), 1_000

    def block(key, steps=steps):
        array = noise_block(name, seed_words(key), jnp.asarray(steps), 2, size, FLOAT32)
        return np.asarray(array)

    base = block(key)
    flat = base.reshape(len(steps), -1)
    yield "coordinates", flat[:, :-1], flat[:, 1:]
    yield "first and last coordinate's halves", flat[:, :size], flat[:, size:]
    yield "quarters", flat[:, : size // 2], flat[:, size // 2 : size]
    yield "steps", flat[:-1], flat[1:]
    yield "two steps", flat[:-2], flat[2:]
    yield "vectors", base[:, 0], base[:, 1]
    yield "second vector, next step's first", base[:-1, 1], base[1:, 0]
    yield "sequential keys", flat, block(random.key(4)).reshape(flat.shape)
    yield "split keys", *(block(k) for k in random.split(key))
    yield "folded keys", *(block(random.fold_in(key, n)) for n in range(2))


@pytest.mark.parametrize("name", NAMES)
def test_independence(name):
    found = {what: independence(name, first, second) for what, first, second in neighbours(name)}
    assert min(found.values()) > P_VALUE, found


@pytest.mark.parametrize("name", NAMES)
def test_independence_would_be_missed_in_one_percent(name):
    """The same statistic rejects two streams that are the same in 1 % of their coordinates."""
    first, second = (draw(name, seed_words(random.key(n)), np.arange(1_000), 1_000) for n in range(2))
    same = np.random.default_rng(0).random(first.shape) < 0.01
    assert independence(name, first, np.where(same, first, second)) < P_VALUE


@pytest.mark.parametrize("name", NAMES)
def test_correlations_of_all_coordinates(name):
    """Between any two of 20 coordinates at a step, and with those of the next: of values, and of squares."""
    values = draw(name, seed_words(random.key(5)), np.arange(100_000), 20).astype(float)
    for v in (values, (values**2 - 1) / np.std(values**2)):
        same = (v.T @ v / len(v))[np.triu_indices(20, 1)]
        following = v[:-1].T @ v[1:] / (len(v) - 1)
        assert normal_deviate(same, len(v) ** -0.5) > P_VALUE
        assert normal_deviate(following, (len(v) - 1) ** -0.5) > P_VALUE


@pytest.mark.parametrize("size", [1, 3, 65, 1_000])
@pytest.mark.parametrize("name", NAMES)
def test_every_coordinate_has_bits_of_its_own(name, size):
    """100 steps tell any two coordinates apart, whatever the size is padded to."""
    values = np.asarray(noise_block(name, seed_words(random.key(0)), jnp.arange(100), 1, size, FLOAT32))[:, 0]
    assert len(np.unique(values, axis=1).T) == size


# --- A function of (seed, step) ---


@pytest.mark.parametrize("name", NAMES)
@EXAMPLES
@given(
    start=st.integers(0, 2**31 - 20),
    shape=st.sampled_from([(2, 1, 1), (5, 2, 1), (5, 1, 7), (3, 2, 8)]),
)
def test_block_wise_is_step_wise(name, start, shape):
    steps, vectors, size = shape
    seed, block = seed_words(random.key(start)), start + np.arange(steps)
    together = noise_block(name, seed, jnp.asarray(block, jnp.int32), vectors, size, FLOAT32)
    assert together.shape == shape
    for n in range(steps):
        alone = noise_block(name, seed, jnp.asarray(block[n : n + 1], jnp.int32), vectors, size, FLOAT32)
        np.testing.assert_array_equal(alone[0], together[n])


@pytest.mark.parametrize("name", NAMES)
def test_seeds_vectorize(name):
    seeds = jax.vmap(lambda n: seed_words(random.key(n)))(jnp.arange(4))
    steps = jnp.arange(7, 12)

    def block(seed):
        return noise_block(name, seed, steps, 1, 3, FLOAT32)

    together = jax.vmap(block)(seeds)
    np.testing.assert_array_equal(together, np.stack([block(seed) for seed in seeds]))
    assert len(np.unique(np.asarray(together).reshape(4, -1), axis=0)) == 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_dtype_is_the_one_asked_for(name, dtype):
    with jax.enable_x64(True):
        values = noise_block(name, seed_words(random.key(0)), jnp.arange(3), 2, 5, jnp.dtype(dtype))
    assert values.shape == (3, 2, 5)
    assert values.dtype == dtype
    assert np.all(np.isfinite(np.asarray(values, float)))
