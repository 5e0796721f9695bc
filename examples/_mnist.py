"""The networks of the MNIST example as NumPyro models."""

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


class MLP(linen.Module):
    """One hidden layer of 100 units."""

    activation: Callable = linen.relu

    @linen.compact
    def __call__(self, x):
        x = x.reshape(*x.shape[:-2], -1)
        x = self.activation(linen.Dense(100)(x))
        return linen.Dense(CLASSES)(x)


class Conv(linen.Module):
    """``linen.Conv`` of 3 × 3 pixels and stride 2, as one matrix product of the patches with the kernel.

    Each chain has kernels of its own, and over chains XLA's convolution becomes a grouped one, which it runs badly on
    CPUs, inside loops even one chain's: a step takes a tenth of the time as a product.
    """

    features: int

    @linen.compact
    def __call__(self, x):
        size, stride, out = 3, 2, [-(-side // 2) for side in x.shape[-3:-1]]
        missing = [(n - 1) * stride + size - side for n, side in zip(out, x.shape[-3:-1], strict=True)]
        around = [(m // 2, m - m // 2) for m in missing]  # as padding "SAME" has it
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*around, (0, 0)])
        down, right = ([slice(i, i + (n - 1) * stride + 1, stride) for i in range(size)] for n in out)
        patches = jnp.concatenate([x[..., i, j, :] for i in down for j in right], -1)
        kernel = self.param("kernel", linen.initializers.lecun_normal(), (size, size, x.shape[-1], self.features))
        bias = self.param("bias", linen.initializers.zeros, (self.features,))
        rows = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, self.features)
        return rows.reshape(*patches.shape[:-1], self.features) + bias


class CNN(linen.Module):
    """Two small convolutions, each halving the image, and a linear layer."""

    convolution: Callable = Conv

    @linen.compact
    def __call__(self, x):
        x = x[..., None]
        for channels in (8, 16):
            x = linen.relu(self.convolution(channels)(x))
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


def fixed_scales(scales):
    """Normal priors of these sds, by parameter."""
    return {site.removeprefix(f"{SITE}/"): dist.Normal(0, scale) for site, scale in scales.items()}


def learnt_scales(scales):
    """Normal priors; one sd for each layer's weights, half-Cauchy about the given one, is learnt (Neal 1996).

    Only for sampling: at the maximum of this density the sds and the weights are zero.
    """
    return fixed_scales(scales) | {
        site.removeprefix(f"{SITE}/"): dist.Normal(0, numpyro.sample(scale_site(site), dist.HalfCauchy(scale)))
        for site, scale in scales.items()
        if not site.endswith("bias")
    }


def scale_site(site):
    """The site of the sd of a layer's weights."""
    return site.removesuffix(".kernel") + ".scale"


PRIORS = {"normal": fixed_scales, "hierarchical": learnt_scales}


def initial_scales(scales):
    """Unconstrained values of the sites that ``learnt_scales`` adds: the logarithms of these sds."""
    return {scale_site(site): jnp.log(scale) for site, scale in scales.items() if not site.endswith("bias")}


def make_model(network, scales, batch_size, image_shape, prior=fixed_scales):
    """The network as a NumPyro model of images (row, side, side) of brightness 0..255 and labels (row,)."""

    def model(images, labels=None):
        apply = random_flax_module(SITE, network, prior=prior(scales), input_shape=(1, *image_shape))
        with numpyro.plate("image", len(images), subsample_size=batch_size):
            pixels = numpyro.subsample(images, event_dim=2)
            logits = apply(pixels / jnp.float32(255))
            numpyro.deterministic("probability", jax.nn.softmax(logits))
            given = None if labels is None else numpyro.subsample(labels, event_dim=0)
            numpyro.sample("label", dist.Categorical(logits=logits), obs=given)

    return model
