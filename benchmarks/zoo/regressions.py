"""Regressions: linear, robust, of counts, classes, rates and positive numbers, of one level."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import transforms
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine

from benchmarks.zoo.posterior import arrays, posterior, rows, standardised, taken, with_ones


def _weights(columns, scale=1.0, name="weights"):
    return numpyro.sample(name, dist.Normal(0, scale).expand([columns]).to_event(1))


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _coefficients(rng, columns, scale=0.5):
    return scale * rng.normal(size=columns)


# --- Logistic ---


def _logistic(x, y, batch_size):
    weights = _weights(x.shape[1])
    with rows(y, batch_size):
        xb, yb = taken(x, y)
        numpyro.sample("obs", dist.Bernoulli(logits=xb @ weights), obs=yb)


def _breast_cancer():
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return arrays(with_ones(standardised(x[order])), y[order])


@posterior(_breast_cancer, quick=True)
def logistic_breast_cancer(x, y):
    """Nearly separable: 569 rows, 31 weights, posterior as wide as its prior in some directions."""
    _logistic(x, y, 32)


def _threes_and_eights():
    x, y = load_digits(return_X_y=True)
    chosen = (y == 3) | (y == 8)
    return arrays(with_ones(standardised(x[chosen])), y[chosen] == 8)


@posterior(_threes_and_eights)
def logistic_digits(x, y):
    """Separable: 357 digits, threes against eights."""
    _logistic(x, y, 32)


def _large_logistic(num_rows=100_000, dim=20):
    rng = np.random.default_rng(1)
    x = with_ones(rng.normal(size=(num_rows, dim - 1)))
    return arrays(x, rng.random(num_rows) < _sigmoid(x @ rng.normal(size=dim) / np.sqrt(dim)))


@posterior(_large_logistic)
def logistic_large(x, y):
    """1e5 rows: the posterior is normal, and a pass is a thousand steps."""
    _logistic(x, y, 100)


# --- Normal and Student's t ---


def _linear(x, y, batch_size, prior_scale=1.0):
    weights = _weights(x.shape[1], prior_scale)
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with rows(y, batch_size):
        xb, yb = taken(x, y)
        numpyro.sample("obs", dist.Normal(xb @ weights, sigma), obs=yb)


def _diabetes():
    x, y = load_diabetes(return_X_y=True)
    return arrays(with_ones(standardised(x)), (y - y.mean()) / y.std())


@posterior(_diabetes, quick=True)
def linear_diabetes(x, y):
    """442 rows, 10 predictors of which some are correlated, and the noise."""
    _linear(x, y, 34)


def _collinear(num_rows=1000):
    rng = np.random.default_rng(2)
    common = rng.normal(size=(num_rows, 2))
    x = np.concatenate([common, common + 0.014 * rng.normal(size=common.shape), rng.normal(size=common.shape)], axis=1)
    x = with_ones(x)
    return arrays(x, x @ [0.5, 1, -1, 1, -1, 0.5, 0] + rng.normal(size=num_rows))


@posterior(_collinear, quick=True)
def linear_collinear(x, y):
    """Two pairs of columns of correlation 0.9999."""
    _linear(x, y, 50, prior_scale=10)


def _with_outliers(num_rows=1000):
    rng = np.random.default_rng(3)
    x = with_ones(rng.normal(size=(num_rows, 5)))
    return arrays(x, x @ _coefficients(rng, 6, 1.0) + 0.5 * rng.standard_t(3, size=num_rows))


@posterior(_with_outliers, quick=True)
def student_t(x, y):
    """Robust regression, the degrees of freedom to be learnt."""
    weights = _weights(x.shape[1], 5)
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    freedom = numpyro.sample("freedom", dist.Gamma(2, 0.1))
    with rows(y, 50):
        xb, yb = taken(x, y)
        numpyro.sample("obs", dist.StudentT(freedom, xb @ weights, sigma), obs=yb)


def _series(length=2003, lags=3):
    rng = np.random.default_rng(4)
    y = np.zeros(length + 100)
    for t in range(lags, len(y)):
        y[t] = 0.2 + 0.9 * y[t - 1] - 0.3 * y[t - 2] + 0.2 * y[t - 3] + 0.5 * rng.normal()
    y = y[100:]
    x = np.column_stack([y[lags - lag : length - lag] for lag in range(1, lags + 1)])
    return arrays(with_ones(x), y[lags:])


@posterior(_series, quick=True)
def autoregression(x, y):
    """Three lags as columns: they are correlated, and their levels are those of the series."""
    _linear(x, y, 50)


def _growing_noise(num_rows=1500):
    rng = np.random.default_rng(5)
    x = with_ones(rng.normal(size=(num_rows, 4)))
    noise = np.exp(x @ [-0.5, 0.6, -0.4, 0, 0.2])
    return arrays(x, x @ _coefficients(rng, 5, 1.0) + noise * rng.normal(size=num_rows))


@posterior(_growing_noise, quick=True)
def heteroscedastic(x, y):
    """Mean and log sd are linear in the same columns."""
    weights = _weights(x.shape[1], 3)
    log_scale = _weights(x.shape[1], name="log_scale")
    with rows(y, 50):
        xb, yb = taken(x, y)
        numpyro.sample("obs", dist.Normal(xb @ weights, jnp.exp(xb @ log_scale)), obs=yb)


# --- Counts ---


def _counts(num_rows=2000, concentration=None, zeros=0.0):
    rng = np.random.default_rng(6)
    x = with_ones(rng.normal(size=(num_rows, 4)))
    mean = np.exp(x @ [0.7, 0.4, -0.3, 0.2, 0])
    if concentration:
        mean = mean * rng.gamma(concentration, 1 / concentration, size=num_rows)
    return arrays(x, rng.poisson(mean) * (rng.random(num_rows) >= zeros))


@posterior(_counts, quick=True)
def poisson(x, y):
    weights = _weights(x.shape[1], 2)
    with rows(y, 50):
        xb, yb = taken(x, y)
        numpyro.sample("obs", dist.Poisson(jnp.exp(xb @ weights)), obs=yb)


@posterior(lambda: _counts(concentration=1.5))
def negative_binomial(x, y):
    weights = _weights(x.shape[1], 2)
    concentration = numpyro.sample("concentration", dist.Gamma(2, 0.5))
    with rows(y, 50):
        xb, yb = taken(x, y)
        numpyro.sample("obs", dist.NegativeBinomial2(jnp.exp(xb @ weights), concentration), obs=yb)


@posterior(lambda: _counts(zeros=0.3))
def zero_inflated_poisson(x, y):
    weights = _weights(x.shape[1], 2)
    gate = numpyro.sample("gate", dist.Beta(1, 1))
    with rows(y, 50):
        xb, yb = taken(x, y)
        numpyro.sample("obs", dist.ZeroInflatedPoisson(gate, jnp.exp(xb @ weights)), obs=yb)


# --- Classes ---


def _quartiles():
    x, y = load_diabetes(return_X_y=True)
    return arrays(standardised(x), np.searchsorted(np.quantile(y, [0.25, 0.5, 0.75]), y))


@posterior(_quartiles)
def ordinal(x, y):
    """Quartiles of the progression of diabetes, between ordered cutpoints."""
    weights = _weights(x.shape[1])
    free = dist.Normal(0, 2).expand([3]).to_event(1)
    cutpoints = numpyro.sample("cutpoints", dist.TransformedDistribution(free, transforms.OrderedTransform()))
    with rows(y, 34):
        xb, yb = taken(x, y)
        numpyro.sample("obs", dist.OrderedLogistic(xb @ weights, cutpoints), obs=yb)


def _wine():
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(7).permutation(len(y))
    return arrays(with_ones(standardised(x[order])), y[order])


@posterior(_wine, quick=True)
def softmax_wine(x, y):
    """Three classes, separable: 178 rows, 28 weights, those of the first class zero."""
    weights = numpyro.sample("weights", dist.Normal(0, 1).expand([x.shape[1], 2]).to_event(2))
    with rows(y, 16):
        xb, yb = taken(x, y)
        logits = xb @ weights
        numpyro.sample("obs", dist.Categorical(logits=jnp.pad(logits, ((0, 0), (1, 0)))), obs=yb)


# --- Rates and positive numbers ---


def _rates(num_rows=1500):
    rng = np.random.default_rng(8)
    x = with_ones(rng.normal(size=(num_rows, 4)))
    mean = _sigmoid(x @ [0.3, 0.5, -0.5, 0.2, 0])
    return arrays(x, rng.beta(8 * mean, 8 * (1 - mean)))


@posterior(_rates)
def beta_regression(x, y):
    weights = _weights(x.shape[1], 2)
    precision = numpyro.sample("precision", dist.Gamma(2, 0.1))
    with rows(y, 50):
        xb, yb = taken(x, y)
        mean = jax.nn.sigmoid(xb @ weights)
        numpyro.sample("obs", dist.Beta(precision * mean, precision * (1 - mean)), obs=yb)


def _positive(num_rows=1500):
    rng = np.random.default_rng(9)
    x = with_ones(rng.normal(size=(num_rows, 4)))
    return arrays(x, rng.gamma(2.0, np.exp(x @ [1, 0.5, -0.4, 0.2, 0]) / 2))


@posterior(_positive, quick=True)
def gamma_regression(x, y):
    weights = _weights(x.shape[1], 2)
    shape = numpyro.sample("shape", dist.Gamma(2, 0.5))
    with rows(y, 50):
        xb, yb = taken(x, y)
        numpyro.sample("obs", dist.Gamma(shape, shape * jnp.exp(-(xb @ weights))), obs=yb)


def _lifetimes(num_rows=1000):
    """Observed until an independent end of study; a fifth survive it."""
    rng = np.random.default_rng(10)
    x = with_ones(rng.normal(size=(num_rows, 3)))
    died = np.exp(x @ [1.0, 0.5, -0.3, 0.1]) * rng.weibull(1.5, size=num_rows)
    end = rng.uniform(1, 12, size=num_rows)
    return arrays(x, np.minimum(died, end), died <= end)


@posterior(_lifetimes)
def weibull_censored(x, time, died):
    """Survival: a density for those who died, the chance of it being later for those who did not."""
    weights = _weights(x.shape[1], 2)
    shape = numpyro.sample("shape", dist.Gamma(2, 1))
    with rows(time, 50):
        xb, timeb, diedb = taken(x, time, died)
        log_hazard_time = shape * (jnp.log(timeb) - xb @ weights)
        log_hazard = jnp.log(shape) - jnp.log(timeb) + log_hazard_time
        numpyro.factor("survival", diedb * log_hazard - jnp.exp(log_hazard_time))
