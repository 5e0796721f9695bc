"""The four workloads: a NumPyro model each, its data, and its potential written by hand for the bare loops."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree


class Workload(NamedTuple):
    """A model with its data, and the same potential without NumPyro.

    ``potential(position, batch, scale)`` is the minibatch potential of a flat position, where ``batch`` holds the
    minibatch's rows of ``data`` and ``scale`` is N/B.
    """

    name: str
    model: Callable
    data: tuple
    potential: Callable
    dim: int
    batch_size: int
    step_size: float
    passes_per_sample: int


def gaussian_mean(rows=1_000, dim=2, batch_size=10) -> Workload:
    """W1: the mean of a Gaussian, N = 1 000, d = 2, B = 10."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(rows, dim)), jnp.float32)

    def model(x):
        mean = numpyro.sample("mean", dist.Normal(0, 10).expand([x.shape[1]]).to_event(1))
        with numpyro.plate("rows", x.shape[0], subsample_size=batch_size):
            numpyro.sample("obs", dist.Normal(mean, 1).to_event(1), obs=numpyro.subsample(x, event_dim=1))

    def potential(mean, batch, scale):
        return 0.005 * jnp.sum(mean**2) + 0.5 * scale * jnp.sum((batch[0] - mean) ** 2)

    return Workload("W1 Gaussian mean", model, (x,), potential, dim, batch_size, 1e-5, 20)


def logistic_regression(rows=100_000, dim=54, batch_size=100) -> Workload:
    """W2: logistic regression, N = 100 000, d = 54, B = 100 (a sixth of the covertype data)."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, dim))
    y = rng.random(rows) < 1 / (1 + np.exp(-x @ rng.normal(size=dim) / np.sqrt(dim)))

    def model(x, y):
        weights = numpyro.sample("weights", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
        with numpyro.plate("rows", x.shape[0], subsample_size=batch_size):
            x, y = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
            numpyro.sample("obs", dist.Bernoulli(logits=x @ weights), obs=y)

    def potential(weights, batch, scale):
        x, y = batch
        logits = x @ weights
        return 0.5 * jnp.sum(weights**2) + scale * jnp.sum(jax.nn.softplus(logits) - y * logits)

    data = (jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    return Workload("W2 logistic regression", model, data, potential, dim, batch_size, 1e-6, 1)


def mlp_classifier(rows=60_000, pixels=784, hidden=100, classes=10, batch_size=100) -> Workload:
    """W3: a multilayer perceptron 784-100-10 on synthetic images, N = 60 000, B = 100, 79 510 weights."""
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.normal(size=(rows, pixels)), jnp.float32)
    y = jnp.asarray(rng.integers(0, classes, rows))
    shapes = {"b1": (hidden,), "b2": (classes,), "w1": (pixels, hidden), "w2": (hidden, classes)}

    def logits(weights, x):
        return jnp.tanh(x @ weights["w1"] + weights["b1"]) @ weights["w2"] + weights["b2"]

    def model(x, y):
        weights = {
            name: numpyro.sample(name, dist.Normal(0, 1).expand(shape).to_event(len(shape)))
            for name, shape in shapes.items()
        }
        with numpyro.plate("rows", x.shape[0], subsample_size=batch_size):
            x, y = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
            numpyro.sample("obs", dist.Categorical(logits=logits(weights, x)), obs=y)

    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    flat, unravel = ravel_pytree(zeros)

    def potential(position, batch, scale):
        x, y = batch
        log_probability = jax.nn.log_softmax(logits(unravel(position), x))
        likelihood = jnp.sum(jnp.take_along_axis(log_probability, y[:, None], axis=1))
        return 0.5 * jnp.sum(position**2) - scale * likelihood

    return Workload("W3 MLP 784-100-10", model, (x, y), potential, flat.size, batch_size, 1e-8, 1)


def cnn_classifier(rows=2_000, side=28, batch_size=100, convolution=None) -> Workload:
    """W4: the example's convolutional network on synthetic images, N = 2 000, B = 100, 9 098 weights.

    Args:
        rows: N.
        side: of an image, in pixels.
        batch_size: B.
        convolution: of flax; None for the example's, a matrix product.
    """
    from examples._mnist import CNN, initial_weights, make_model

    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (rows, side, side)).astype(np.uint8)
    y = jnp.asarray(rng.integers(0, 10, rows))
    network = CNN() if convolution is None else CNN(convolution)
    start = initial_weights(network, np.float32(x[:1]), jax.random.key(0))
    model = make_model(network, dict.fromkeys(start, 1.0), batch_size, x.shape[1:])
    layers = network.init(jax.random.key(0), np.float32(x[:1]))["params"]
    flat, unravel = ravel_pytree(layers)

    def potential(position, batch, scale):
        x, y = batch
        log_probability = jax.nn.log_softmax(network.apply({"params": unravel(position)}, x / jnp.float32(255)))
        likelihood = jnp.sum(jnp.take_along_axis(log_probability, y[:, None], axis=1))
        return 0.5 * jnp.sum(position**2) - scale * likelihood

    data = (jnp.asarray(x), y)
    return Workload("W4 CNN 8-16-10", model, data, potential, flat.size, batch_size, 1e-8, 1)
