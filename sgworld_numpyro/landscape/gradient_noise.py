"""The noise of a minibatch gradient at a point: its covariance, that times a vector, and its trace.

A scheme's minibatch gradient g_b is the mean of a simple random sample of B row gradients g_i, or is one of R
fixed batches. In both cases

    V = Cov(g_b) = φ (1/n) Σ_k (g_k - g)(g_k - g)ᵀ,

over n units k: the N rows, with φ = 1/B if they are drawn with replacement and (N - B) / (B (N - 1)) if not, or
the R batches, with φ = 1.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial
from jaxtyping import Float, Int

from sgworld_numpyro.landscape.row_potentials import RowPotential, as_vector
from sgworld_numpyro.model.blocks import block_length, sum_over_blocks
from sgworld_numpyro.subsampling import (
    SCHEMES,
    BatchReshuffle,
    Cyclic,
    FullBatch,
    IndependentBatches,
    NamedScheme,
    Plate,
    RunReshuffle,
    ShuffleOnce,
    SubsamplingScheme,
    WithReplacement,
)
from sgworld_numpyro.subsampling.stream import stream_period


class NoiseUnits(NamedTuple):
    """What a minibatch is drawn from, and how much of its spread a minibatch has.

    Attributes:
        rows: the rows of each unit: one, or those of a fixed batch or run.
        factor: φ, the variance of a minibatch gradient over the population variance of the units' gradients.
    """

    rows: Int[Array, "units rows"]
    factor: float


def with_known_law(scheme: SubsamplingScheme) -> NamedScheme:
    """The scheme.

    Raises:
        ValueError: if it is not one of this package's.
    """
    if not isinstance(scheme, SCHEMES):
        raise ValueError(
            f"scheme={scheme!r} is not one of the package's own, so that the law of its minibatches is not known; "
            "pass the one whose batches have the same law, IndependentBatches() for distinct rows for instance"
        )
    return scheme


def noise_units(scheme: SubsamplingScheme, plate: Plate) -> NoiseUnits:
    """The units of a scheme's minibatch noise.

    Where B does not divide N, a reshuffled stream has batches across the seam of two passes, whose parts are
    independent; φ is then the mean over the batches of a period.

    Raises:
        ValueError: if the scheme is not one of this package's.
    """
    if isinstance(scheme, BatchReshuffle | Cyclic):
        return NoiseUnits(_fixed_batches(scheme, plate), 1.0)
    if isinstance(scheme, RunReshuffle):  # what RandomReshuffle does with rows
        runs = _fixed_runs(scheme, plate)
        return NoiseUnits(runs, _factor(scheme, Plate(plate.name, len(runs), plate.batch_size // runs.shape[1])))
    return NoiseUnits(jnp.arange(plate.size, dtype=jnp.int32)[:, None], _factor(with_known_law(scheme), plate))


@partial(jax.jit, static_argnames=("scheme", "plate"))
def _fixed_runs(scheme, plate):
    return scheme.layout(plate).reshape(-1, scheme.rows_a_run(plate))


@partial(jax.jit, static_argnames=("scheme", "plate"))
def _fixed_batches(scheme, plate):
    if isinstance(scheme, BatchReshuffle):
        return scheme.layout(plate).reshape(-1, plate.batch_size)  # in any order, so no need to draw one
    return scheme.indices(jax.random.key(0), jnp.int32(0), stream_period(plate), plate)


def _factor(scheme, plate):
    rows, batch = plate.size, plate.batch_size
    if isinstance(scheme, WithReplacement):
        return 1 / batch
    if isinstance(scheme, FullBatch):
        return 0.0
    if isinstance(scheme, IndependentBatches | ShuffleOnce):
        parts = np.array([batch])
    else:  # a stream of permutations
        place = np.arange(stream_period(plate), dtype=np.int64) * batch % rows
        before_seam = np.minimum(batch, rows - place)
        parts = np.stack([before_seam, batch - before_seam])
    # A part of m rows out of N without replacement: its sum has variance m (N - m) / (N - 1).
    variances = (parts * (rows - parts)).reshape(-1, parts.shape[-1]).sum(0) / max(rows - 1, 1)
    return float(variances.mean()) / batch**2


def gradient_covariance(
    potential: RowPotential, x: Float[Array, "dim"], scheme: SubsamplingScheme
) -> Float[Array, "dim dim"]:
    """V = Cov(g_b), the covariance of the gradient of one minibatch at x.

    For ``BatchReshuffle`` and ``Cyclic`` over their actual batches, for ``RunReshuffle`` over those of its actual runs;
    for ``ShuffleOnce`` over its permutations, as for ``RandomReshuffle``.

    Args:
        potential: the model.
        x: position.
        scheme: one of the package's subsampling schemes.

    Raises:
        ValueError: if the scheme is not one of this package's, or x not a vector of length d.
    """
    x = potential.position(x)
    units, factor = noise_units(scheme, potential.plate)
    if factor == 0:
        return jnp.zeros((potential.dim, potential.dim), x.dtype)
    return factor * _covariance(potential, x, units)


def gradient_covariance_product(
    potential: RowPotential, x: Float[Array, "dim"], scheme: SubsamplingScheme
) -> Callable[[Float[Array, "dim"]], Float[Array, "dim"]]:
    """Multiply by V without having it: v ↦ (φ/n) Gᵀ(G v - g·v), where the rows of G are the gradients of the n units.

    One product is one pass over the rows, at the cost of about one and a half full gradients. What is returned
    is a pytree with the data and the position among its leaves: ``jax.jit(lambda product, v: product(v))`` takes
    them as arguments.

    Args:
        potential: the model.
        x: position.
        scheme: one of the package's subsampling schemes.

    Raises:
        ValueError: if the scheme is not one of this package's, or x not a vector of length d.
    """
    x = potential.position(x)
    units, factor = noise_units(scheme, potential.plate)
    if factor == 0:
        return Partial(_no_noise, x)
    return Partial(_product, potential, x, units, factor, potential.gradient(x))


def total_gradient_variance(
    potential: RowPotential, x: Float[Array, "dim"], scheme: SubsamplingScheme
) -> Float[Array, ""]:
    """The trace of V, E|g_b - g|², differentiable in x.

    Args:
        potential: the model.
        x: position.
        scheme: one of the package's subsampling schemes.

    Raises:
        ValueError: if the scheme is not one of this package's, or x not a vector of length d.
    """
    x = potential.position(x)
    units, factor = noise_units(scheme, potential.plate)
    if factor == 0:
        return jnp.zeros((), x.dtype)
    return factor * units_variance(potential, x, units)


@jax.jit
def _covariance(potential, x, units):
    mean = potential.gradient(x)

    def block(numbers):
        off = potential.batch_gradients(x, units[numbers]) - mean
        return off.T @ off

    return sum_over_blocks(block, len(units), block_length(units.shape[1], x.size, x.dtype)) / len(units)


@jax.jit
def units_variance(
    potential: RowPotential, x: Float[Array, "dim"], units: Int[Array, "units rows"]
) -> Float[Array, ""]:
    """The trace of the population covariance of the units' gradients, of which a minibatch has the part φ."""
    mean = potential.gradient(x)

    def block(numbers):
        return jnp.sum((potential.batch_gradients(x, units[numbers]) - mean) ** 2)

    return sum_over_blocks(block, len(units), block_length(units.shape[1], x.size, x.dtype)) / len(units)


@jax.jit
def _product(potential, x, units, factor, gradient, v):
    v = as_vector("v", v, x.size, x.dtype)
    mean = gradient @ v

    def block(numbers):
        _, push = jax.linearize(lambda x: potential.batch_values(x, units[numbers]), x)
        (pulled,) = jax.linear_transpose(push, x)(push(v) - mean)
        return pulled

    return factor / len(units) * sum_over_blocks(block, len(units), block_length(units.shape[1], 1, x.dtype))


def _no_noise(x, v):
    return jnp.zeros_like(as_vector("v", v, x.size, x.dtype))
