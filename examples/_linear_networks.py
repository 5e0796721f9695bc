"""Deep linear networks with a minimum that is known: data, model, and their tied law by another sampler."""

from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

NOISE_SCALE = 0.1


class LinearNetwork(NamedTuple):
    """y = x W₁ … W_L + noise, and the most degenerate weights that make the true map.

    The columns of x are orthogonal and of unit variance, and the noise is orthogonal to them: then nL is n/2σ² times
    the squared distance of W₁ … W_L from the truth, and a constant, whatever n.
    """

    widths: tuple[int, ...]
    rank: int
    weights: list[np.ndarray]
    x: np.ndarray
    y: np.ndarray
    batch_size: int

    @property
    def at(self):
        """The weights by site."""
        return {f"w{layer}": weight for layer, weight in enumerate(self.weights)}

    def model(self, x, y):
        """For a kernel."""
        weights = [
            numpyro.sample(site, dist.Normal(0, 1).expand(weight.shape).to_event(2)) for site, weight in self.at.items()
        ]
        with numpyro.plate("rows", len(x), subsample_size=self.batch_size):
            output = reduce(jnp.matmul, weights, numpyro.subsample(x, event_dim=1))
            seen = numpyro.subsample(y, event_dim=1)
            numpyro.sample("obs", dist.Normal(output, NOISE_SCALE).to_event(1), obs=seen)


def linear_network(widths, rank, num_rows, batch_size, seed=0) -> LinearNetwork:
    """A network of these widths, input first, whose true map passes on the first ``rank`` inputs."""
    rng = np.random.default_rng(seed)
    x = np.linalg.qr(rng.normal(size=(num_rows, widths[0])))[0] * np.sqrt(num_rows)
    noise = rng.normal(size=(num_rows, widths[-1]))
    noise -= x @ (x.T @ noise) / num_rows
    weights = [np.eye(a, b) * (np.arange(a) < rank)[:, None] for a, b in pairwise(widths)]
    y = x @ reduce(np.matmul, weights) + NOISE_SCALE * noise / noise.std(0)
    return LinearNetwork(tuple(widths), rank, weights, x.astype(np.float32), y.astype(np.float32), batch_size)


def by_gibbs(network: LinearNetwork, localisation, temperature, sweeps, chains=400, seed=0):
    """The learning coefficient of the tied law at this n, and its standard error, by Gibbs sampling.

    Given all other layers a layer is Gaussian: there is no step size and no minibatch. Half of the sweeps are left out.
    """
    rng = np.random.default_rng(seed)
    stiffness = len(network.x) / (temperature * NOISE_SCALE**2)
    truth = reduce(np.matmul, network.weights)
    layers = [np.repeat(weight[None], chains, 0) for weight in network.weights]
    total = np.zeros(chains)
    for sweep in range(sweeps):
        for number, centre in enumerate(network.weights):
            before = reduce(np.matmul, layers[:number], np.eye(network.widths[0])[None])
            after = reduce(np.matmul, layers[number + 1 :], np.eye(network.widths[number + 1])[None])
            stiff_in, axes_in = np.linalg.eigh(before.transpose(0, 2, 1) @ before)
            stiff_out, axes_out = np.linalg.eigh(after @ after.transpose(0, 2, 1))
            precision = stiffness * stiff_in[:, :, None] * stiff_out[:, None, :] + localisation
            pull = stiffness * before.transpose(0, 2, 1) @ truth @ after.transpose(0, 2, 1) + localisation * centre
            turned = axes_in.transpose(0, 2, 1) @ pull @ axes_out
            turned = turned / precision + rng.standard_normal((chains, *centre.shape)) / np.sqrt(precision)
            layers[number] = axes_in @ turned @ axes_out.transpose(0, 2, 1)
        if sweep >= sweeps // 2:
            total += stiffness / 2 * ((reduce(np.matmul, layers) - truth) ** 2).sum((1, 2))
    found = total / (sweeps - sweeps // 2)
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(chains))
