"""Models that are no regressions of one level: means, correlations, mixtures, sparse weights, functions."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import transforms
from sklearn.datasets import load_diabetes, load_iris

from benchmarks.zoo.posterior import arrays, posterior, rows, standardised, taken

# --- A mean, with the exact posterior ---

MEAN_SCALES = np.geomspace(0.1, 10, 10).astype(np.float32)  # sds of the rows' coordinates
MEAN_PRIOR = 10.0


def _anisotropic(num_rows=1000):
    rng = np.random.default_rng(30)
    return arrays(1 + MEAN_SCALES * rng.normal(size=(num_rows, len(MEAN_SCALES))))


def _exact_mean(x):
    precision = len(x) / MEAN_SCALES.astype(float) ** 2 + MEAN_PRIOR**-2
    return {"mean": (x.sum(0, dtype=float) / MEAN_SCALES.astype(float) ** 2 / precision, precision**-0.5)}


@posterior(_anisotropic, exact=_exact_mean, quick=True)
def gaussian_mean(x):
    """Ten coordinates whose posterior sds span a factor of 100."""
    mean = numpyro.sample("mean", dist.Normal(0, MEAN_PRIOR).expand([x.shape[1]]).to_event(1))
    with rows(x, 20):
        (xb,) = taken(x)
        numpyro.sample("obs", dist.Normal(mean, MEAN_SCALES).to_event(1), obs=xb)


# --- A covariance ---


def _flowers():
    x, _ = load_iris(return_X_y=True)
    return arrays(standardised(np.random.default_rng(31).permutation(x)))


def _correlations(draws, data):
    """Correlations in place of their Cholesky factor, whose entries are bound to each other."""
    factor = draws["factor"]
    matrix = np.einsum("...ij,...kj->...ik", factor, factor)
    below = np.tril_indices(factor.shape[-1], -1)
    return {"mean": draws["mean"], "scale": draws["scale"], "correlation": matrix[(..., *below)]}


@posterior(_flowers, quantities=_correlations)
def correlation_iris(x):
    """Means, scales and correlations of four measures, two of which correlate by 0.96."""
    dim = x.shape[1]
    mean = numpyro.sample("mean", dist.Normal(0, 1).expand([dim]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(2).expand([dim]).to_event(1))
    factor = numpyro.sample("factor", dist.LKJCholesky(dim, 1))
    with rows(x, 15):
        (xb,) = taken(x)
        numpyro.sample("obs", dist.MultivariateNormal(mean, scale_tril=scale[:, None] * factor), obs=xb)


# --- A mixture ---


def _two_bumps(num_rows=1000):
    rng = np.random.default_rng(32)
    left = rng.random(num_rows) < 0.35
    return arrays(np.where(left, -1 + 0.6 * rng.normal(size=num_rows), 1.2 + 0.9 * rng.normal(size=num_rows)))


@posterior(_two_bumps, quick=True)
def mixture(y):
    """Two overlapping components, told apart by the order of their means."""
    share = numpyro.sample("share", dist.Beta(2, 2))
    free = dist.Normal(0, 2).expand([2]).to_event(1)
    means = numpyro.sample("means", dist.TransformedDistribution(free, transforms.OrderedTransform()))
    scales = numpyro.sample("scales", dist.HalfNormal(2).expand([2]).to_event(1))
    weights = dist.Categorical(probs=jnp.stack([share, 1 - share]))
    with rows(y, 50):
        (yb,) = taken(y)
        numpyro.sample("obs", dist.MixtureSameFamily(weights, dist.Normal(means, scales)), obs=yb)


# --- Sparse weights ---


def _sparse(num_rows=500, dim=20):
    rng = np.random.default_rng(33)
    x = standardised(rng.normal(size=(num_rows, dim)))
    weights = np.zeros(dim)
    weights[:3] = 1.0, -0.8, 0.5
    return arrays(x, x @ weights + rng.normal(size=num_rows))


def _log_scales(draws, data):
    """The scales have no variance, their logarithms do."""
    logarithms = {f"log_{name}": np.log(draws[name]) for name in ("local", "overall")}
    return {"weights": draws["weights"], "sigma": draws["sigma"]} | logarithms


@posterior(_sparse, quantities=_log_scales, nuts={"target_accept_prob": 0.95})
def horseshoe(x, y):
    """Twenty weights of which three are not zero, each with a scale of its own."""
    dim = x.shape[1]
    overall = numpyro.sample("overall", dist.HalfCauchy(0.2))
    local = numpyro.sample("local", dist.HalfCauchy(1).expand([dim]).to_event(1))
    standard = numpyro.sample("standard", dist.Normal(0, 1).expand([dim]).to_event(1))
    weights = numpyro.deterministic("weights", overall * local * standard)
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    with rows(y, 25):
        xb, yb = taken(x, y)
        numpyro.sample("obs", dist.Normal(xb @ weights, sigma), obs=yb)


# --- Functions ---

BASIS, HALF_WIDTH = 20, 1.5


def _curve(num_rows=500):
    rng = np.random.default_rng(34)
    x = rng.uniform(-1, 1, size=num_rows)
    numbers = np.arange(1, BASIS + 1) * np.pi / (2 * HALF_WIDTH)
    basis = np.sin(numbers * (x[:, None] + HALF_WIDTH)) / np.sqrt(HALF_WIDTH)
    return arrays(basis, np.sin(5 * x) * np.exp(-x) + 0.5 * rng.normal(size=num_rows))


@posterior(_curve)
def gaussian_process(basis, y):
    """A Gaussian process in a basis of a Hilbert space (Solin & Särkkä 2020), amplitude and length to be learnt."""
    amplitude = numpyro.sample("amplitude", dist.HalfNormal(2))
    length = numpyro.sample("length", dist.InverseGamma(5, 1.5))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    standard = numpyro.sample("standard", dist.Normal(0, 1).expand([BASIS]).to_event(1))
    frequencies = jnp.arange(1, BASIS + 1) * jnp.pi / (2 * HALF_WIDTH)
    root = amplitude * (2 * jnp.pi) ** 0.25 * jnp.sqrt(length) * jnp.exp(-((length * frequencies) ** 2) / 4)
    with rows(y, 25):
        basisb, yb = taken(basis, y)
        numpyro.sample("obs", dist.Normal(basisb @ (root * standard), sigma), obs=yb)


def _diabetes():
    x, y = load_diabetes(return_X_y=True)
    return arrays(standardised(x), (y - y.mean()) / y.std())


def _network(x, hidden, bias, out):
    return np.tanh(x @ hidden + bias[..., None, :]) @ out[..., None]


def _predictions(draws, data):
    """Of the first 20 rows: the weights have symmetries."""
    predicted = _network(data[0][:20], draws["hidden"], draws["bias"], draws["out"])[..., 0]
    return {"predicted": predicted + draws["offset"][..., None], "sigma": draws["sigma"]}


@posterior(_diabetes, quantities=_predictions)
def network_diabetes(x, y):
    """Ten inputs, eight tanh, one output: 97 weights, whose posterior has many modes."""
    hidden = numpyro.sample("hidden", dist.Normal(0, 0.5).expand([x.shape[1], 8]).to_event(2))
    bias = numpyro.sample("bias", dist.Normal(0, 1).expand([8]).to_event(1))
    out = numpyro.sample("out", dist.Normal(0, 0.5).expand([8]).to_event(1))
    offset = numpyro.sample("offset", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with rows(y, 34):
        xb, yb = taken(x, y)
        numpyro.sample("obs", dist.Normal(jnp.tanh(xb @ hidden + bias) @ out + offset, sigma), obs=yb)
