"""The densities of ``workloads.py`` as users of JAX packages write them: log priors, and log-likelihoods of a row."""

import jax
import jax.numpy as jnp
import numpy as np


def gaussian_prior(mean):
    return -0.005 * jnp.sum(mean**2)


def gaussian_likelihood(mean, row):
    (x,) = row
    return -0.5 * jnp.sum((x - mean) ** 2)


def logistic_prior(weights):
    return -0.5 * jnp.sum(weights**2)


def logistic_likelihood(weights, row):
    x, y = row
    logit = x @ weights
    return y * logit - jax.nn.softplus(logit)


def network_prior(weights):
    return -0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree_util.tree_leaves(weights))


def network_likelihood(weights, row):
    x, y = row
    logits = jnp.tanh(x @ weights["w1"] + weights["b1"]) @ weights["w2"] + weights["b2"]
    return jax.nn.log_softmax(logits)[y]


DENSITIES = {
    "W1": (gaussian_prior, gaussian_likelihood),
    "W2": (logistic_prior, logistic_likelihood),
    "W3": (network_prior, network_likelihood),
}
SHAPES = {"b1": (100,), "b2": (10,), "w1": (784, 100), "w2": (100, 10)}


def rows_of(data):
    """The arrays that a minibatch takes rows of."""
    return tuple(jnp.asarray(data[name]) for name in ("x", "y") if name in data)


def start_of(workload, data, chains):
    """Positions to start from, a leading axis of chains: draws near the posterior, or small weights of the network."""
    if workload != "W3":
        return jnp.asarray(data["start"][np.arange(chains) % len(data["start"])], jnp.float32)
    rng = np.random.default_rng(0)
    return {name: jnp.asarray(0.05 * rng.normal(size=(chains, *shape)), jnp.float32) for name, shape in SHAPES.items()}


def leaves(draws):
    """A tree of draws as NumPy arrays, after they are computed."""
    return [np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(draws)]
