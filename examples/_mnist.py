"""What the MNIST example measures: networks as NumPyro models, and scores of predicted class probabilities."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from flax import linen
from numpyro.contrib.module import random_flax_module

CLASSES = 10
BINS = 15  # of the expected calibration error


class MLP(linen.Module):
    """One hidden layer of 100 units."""

    @linen.compact
    def __call__(self, x):
        x = x.reshape(*x.shape[:-2], -1)
        x = linen.relu(linen.Dense(100)(x))
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


def weights_of(network, images):
    """Initial weights as flax draws them, and the prior's sd of each, by site.

    Normal priors without mean, whose sd √(v / fan-in) with v = 4 / (mean square of what comes in) gives the first
    layer's sums an sd of 2, and those of later layers, where about half of the units are active, √2 to 2.
    """
    weights = network.init(jax.random.key(0), images[:1])["params"]
    square = float(np.mean(np.square(images[:1000]))) * images[0].size
    scales, first = {}, True
    for layer in sorted(weights, key=lambda name: (name.startswith("Dense"), name)):
        fan_in = int(np.prod(weights[layer]["kernel"].shape[:-1]))
        share = square * fan_in / images[0].size if first else fan_in / 4
        scales[f"{layer}.kernel"] = 2 / np.sqrt(share) if first else 1 / np.sqrt(share / 25)
        scales[f"{layer}.bias"] = 1.0
        first = False
    return weights, scales


def make_model(network, scales, batch_size, image_shape):
    """The network as a NumPyro model of images (row, side, side) and labels (row,)."""
    prior = {name: dist.Normal(0, scale) for name, scale in scales.items()}

    def model(images, labels=None):
        apply = random_flax_module("net", network, prior=prior, input_shape=(1, *image_shape))
        with numpyro.plate("image", len(images), subsample_size=batch_size):
            pixels = numpyro.subsample(images, event_dim=2)
            logits = apply(pixels)
            numpyro.deterministic("probability", jax.nn.softmax(logits))
            given = None if labels is None else numpyro.subsample(labels, event_dim=0)
            numpyro.sample("label", dist.Categorical(logits=logits), obs=given)

    return model
