"""The generated data sets are what their docstrings say."""

import numpy as np
import pytest
from scipy.stats import kstest

from sgworld_numpyro.datasets import gaussian_bump


def test_gaussian_bump_lies_on_the_papers_grid():
    x, y = gaussian_bump()
    assert x.shape == y.shape == (200,)
    assert x.dtype == y.dtype == np.float64
    np.testing.assert_allclose(x, np.linspace(-3, 2.97, 200), atol=1e-12)
    assert x[100] == 0


def test_gaussian_bump_has_the_noise_that_is_asked_for():
    x, clean = gaussian_bump(noise_scale=0)
    np.testing.assert_array_equal(clean, np.exp(-(x**2)))
    noise = np.concatenate([gaussian_bump(seed=seed)[1] - clean for seed in range(20)]) / 0.1
    assert kstest(noise, "norm").pvalue > 1e-4
    twice = gaussian_bump(noise_scale=0.2)[1] - clean
    np.testing.assert_allclose(twice, 2 * (gaussian_bump()[1] - clean), atol=1e-12)


def test_gaussian_bump_is_a_function_of_its_seed():
    np.testing.assert_array_equal(gaussian_bump(seed=3), gaussian_bump(seed=3))
    assert not np.array_equal(gaussian_bump(seed=3), gaussian_bump(seed=4))


@pytest.mark.parametrize("noise_scale", [-0.1, float("nan"), float("inf")])
def test_gaussian_bump_refuses_what_is_no_standard_deviation(noise_scale):
    with pytest.raises(ValueError, match=f"noise_scale is {noise_scale}"):
        gaussian_bump(noise_scale=noise_scale)
