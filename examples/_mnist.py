"""What the MNIST example measures: networks as NumPyro models, and scores of predicted class probabilities."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from flax import linen
from numpyro.contrib.module import random_flax_module

CLASSES = 10
SITE = "net"
BINS = 15  # of the expected calibration error


class MLP(linen.Module):
    """One hidden layer of 100 units."""

    activation: Callable = linen.relu

    @linen.compact
    def __call__(self, x):
        x = x.reshape(*x.shape[:-2], -1)
        x = self.activation(linen.Dense(100)(x))
        return linen.Dense(CLASSES)(x)


class CNN(linen.Module):
    """Two small convolutions, each halving the image, and a linear layer."""

    @linen.compact
    def __call__(self, x):
        x = x[..., None]
        for channels in (8, 16):
            x = linen.relu(linen.Conv(channels, (3, 3), strides=(2, 2))(x))
        return linen.Dense(CLASSES)(x.reshape(*x.shape[:-3], -1))


NETWORKS = {"mlp": MLP(), "cnn": CNN()}


def initial_weights(network, images, key):
    """Weights as flax draws them, by site."""
    layers = network.init(key, images[:1])["params"]
    return {f"{SITE}/{layer}.{name}": value for layer, names in layers.items() for name, value in names.items()}


def prior_scales(weights, images):
    """The priors' sd by parameter: 5 / √fan-in, but in the first layer what gives its sums an sd of 2; biases 1.

    Chosen on MNIST for what the posterior predicts: with 1 / √fan-in it is too cautious.
    """
    scales, first = {}, True
    for site, value in weights.items():
        if site.endswith("bias"):
            scales[site] = 1.0
            continue
        fan_in = int(np.prod(value.shape[:-1]))
        incoming = fan_in * float(np.mean(np.square(images)))  # of a receptive field, the mean sum of squares
        scales[site] = 2 / np.sqrt(incoming) if first else 5 / np.sqrt(fan_in)
        first = False
    return scales


def make_model(network, scales, batch_size, image_shape):
    """The network as a NumPyro model of images (row, side, side) of brightness 0..255 and labels (row,)."""
    prior = {site.removeprefix(f"{SITE}/"): dist.Normal(0, scale) for site, scale in scales.items()}

    def model(images, labels=None):
        apply = random_flax_module(SITE, network, prior=prior, input_shape=(1, *image_shape))
        with numpyro.plate("image", len(images), subsample_size=batch_size):
            pixels = numpyro.subsample(images, event_dim=2)
            logits = apply(pixels / jnp.float32(255))
            numpyro.deterministic("probability", jax.nn.softmax(logits))
            given = None if labels is None else numpyro.subsample(labels, event_dim=0)
            numpyro.sample("label", dist.Categorical(logits=logits), obs=given)

    return model


def scores(probability, labels):
    """Scores of predicted class probabilities (row, class), by name.

    accuracy; nll: mean −log p(true class), in nats; ece: expected calibration error, the mean distance between
    confidence and accuracy in 15 bins of confidence (Guo et al. 2017); brier: mean squared distance from the truth.
    """
    confidence, right = probability.max(-1), probability.argmax(-1) == labels
    truth = np.take_along_axis(probability, labels[:, None].astype(int), -1)[:, 0]
    return {
        "accuracy": float(right.mean()),
        "nll": float(-np.log(np.maximum(truth, np.finfo(np.float32).tiny)).mean()),
        "ece": float(sum(share * abs(gap) for _, gap, share in calibration(confidence, right))),
        "brier": float((np.square(probability).sum(-1) - 2 * truth + 1).mean()),
    }


def calibration(confidence, right):
    """Mean confidence, accuracy minus it, and share of the rows, of each bin that has any."""
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    for bin_ in np.unique(number):
        inside = number == bin_
        mean = float(confidence[inside].mean())
        yield mean, float(right[inside].mean()) - mean, float(inside.mean())


def entropy(probability):
    """Mean entropy of the predicted classes, in nats; ln 10 = 2.30 is no idea at all."""
    p = np.maximum(probability, np.finfo(np.float32).tiny)
    return float(-(p * np.log(p)).sum(-1).mean())
