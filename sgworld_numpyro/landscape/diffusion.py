"""Diffusion matrices of stochastic-gradient chains from a model's gradients and Hessians.

D = Q/2, where Q is the covariance of the noise of one recorded transition from x: a step for schemes whose batches
are independent of each other, a period for reshuffled ones. To leading order in the step size h, at temperature T,

    a step             D = hT I + (h²/2) V,                V = Cov(g_b);
    an epoch of R      D = RhT I + (h⁴/2) Cov(X),          X = Σ_{r>s} H_r g_s;
    there and back     D = 2RhT I + (h⁴/2) Cov(Σ_r H_r g_r).

Here g_r and H_r are gradient and Hessian of batch r, the first is exact for Euler–Maruyama, and Leimkuhler–Matthews has
the same diffusion over many transitions. In a pass the gradients themselves sum to a constant; what is left is the
order in which they come. With κ_r = δH_r g - H δg_r and K_rs = δH_r δg_s - δH_s δg_r, where δ takes off the mean,

    Cov(X) = (R (R + 1)/12) E Σ_r κ_r κ_rᵀ + (1/24) E Σ_{r,s} K_rs K_rsᵀ + ¼ Cov(Σ_r δH_r δg_r),

the mean over orders of given batches done exactly, E and Cov being over the partitions into batches. Those are done
exactly here too, as moments of a simple random sample of rows.

The terms of different order are not to be compared: the injected part has corrections of relative order Rhλ, which
at T > 0 are larger than the last term.

Source: arXiv 2306.03521, where the epoch's noise is of order h⁴; its form here is this package's.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.tree_util import Partial
from jaxtyping import Float

from sgworld_numpyro.landscape.gradient_noise import (
    gradient_covariance,
    gradient_covariance_product,
    noise_units,
    with_known_law,
)
from sgworld_numpyro.landscape.row_potentials import RowPotential, as_vector
from sgworld_numpyro.model.arrays import is_traced
from sgworld_numpyro.model.blocks import block_length, sum_over_blocks
from sgworld_numpyro.subsampling import BatchReshuffle, NamedScheme, SubsamplingScheme, SymmetricReshuffle


def diffusion_matrix(
    potential: RowPotential,
    x: Float[Array, "dim"],
    scheme: SubsamplingScheme,
    step_size: float | Float[Array, ""],
    *,
    temperature: float = 1.0,
) -> Float[Array, "dim dim"]:
    """D of a recorded transition from x; see the formulas at the top of this module.

    Reshuffled schemes take the Hessian of every row (of every batch for ``BatchReshuffle``, of every run for
    ``RunReshuffle``) and memory d³.

    In float32 ``SymmetricReshuffle`` loses digits where a few rows outweigh the others: its D is then a small
    difference of large sums over pairs of rows. Errors of 4 % have been seen at N = 860, B = 215, and nothing is
    left where one row has 300 times the scale of the rest; ``RandomReshuffle``, where the same sums come second,
    loses about a tenth of that. Use ``jax.enable_x64``.

    Args:
        potential: the model.
        x: position.
        scheme: one of the package's subsampling schemes; without preconditioner.
        step_size: h > 0, in units of 1 / ∇²U.
        temperature: T >= 0 of the injected noise; 0 for stochastic gradient descent.

    Raises:
        ValueError: for a scheme that has no noise of its own (``Cyclic``, ``ShuffleOnce``) or is not the package's,
            and for a reshuffled one whose batch size does not divide the number of rows; for an x that is not a vector
            of length d, and for a step size or temperature out of range.
    """
    x = potential.position(x)
    _check_numbers(step_size, temperature)
    known = with_known_law(scheme)
    steps = _transition(potential, known)
    injected = steps * step_size * temperature * jnp.eye(x.size, dtype=x.dtype)
    if known.redraws == "step":
        return injected + step_size**2 / 2 * gradient_covariance(potential, x, scheme)
    units = noise_units(scheme, potential.plate).rows
    batch = potential.batch_size // units.shape[1]  # units in a batch
    antisymmetric, partitions, kappa = _order_covariance(potential, x, units, batch)
    if isinstance(scheme, SymmetricReshuffle):
        return injected + step_size**4 / 2 * partitions
    return injected + step_size**4 / 2 * (kappa + antisymmetric + partitions / 4)


def diffusion_product(
    potential: RowPotential,
    x: Float[Array, "dim"],
    scheme: SubsamplingScheme,
    step_size: float | Float[Array, ""],
    *,
    temperature: float = 1.0,
    partitions: int = 16,
    seed: int = 0,
) -> Callable[[Float[Array, "dim"]], Float[Array, "dim"]]:
    """Multiply by D without having it, by gradients and Hessian-vector products alone.

    What is returned is a pytree, as ``gradient_covariance_product``'s.

    For ``RandomReshuffle`` the κ term, the largest by a factor of about N |H|²/|δH|², is exact. What is left, and
    all that there is for ``SymmetricReshuffle``, is a mean or covariance over partitions, estimated from some random
    ones with a relative standard error of about √(2/partitions). ``BatchReshuffle`` has one partition, and all is
    exact; so it is if B = 1. A product costs about three passes of Hessian-vector products for each partition, and
    memory 3 R d.

    Args:
        potential: the model.
        x: position.
        scheme: one of the package's subsampling schemes; without preconditioner.
        step_size: h > 0, in units of 1 / ∇²U.
        temperature: T >= 0 of the injected noise; 0 for stochastic gradient descent.
        partitions: how many partitions of the rows into batches to average over, at least 2.
        seed: of that sample.

    Raises:
        ValueError: as ``diffusion_matrix``, and for fewer than two partitions.
    """
    x = potential.position(x)
    _check_numbers(step_size, temperature)
    known = with_known_law(scheme)
    steps = _transition(potential, known)
    injected = steps * step_size * temperature
    if known.redraws == "step":
        return Partial(_step_product, gradient_covariance_product(potential, x, scheme), injected, step_size**2 / 2)
    if partitions < 2:
        raise ValueError(f"partitions={partitions} gives no covariance between partitions; take at least 2")
    units, factor = noise_units(scheme, potential.plate)
    batches = potential.num_rows // potential.batch_size
    if isinstance(scheme, BatchReshuffle):
        parts = units[None]
    else:
        keys = jax.random.split(jax.random.key(seed), partitions)
        shuffled = jax.vmap(lambda key: jax.random.permutation(key, len(units)))(keys)
        parts = units[shuffled].reshape(partitions, batches, potential.batch_size)
    gradient = potential.gradient(x)
    sums = _self_products(potential, x, parts, gradient)
    spread = (sums - sums.mean(0)) / max(len(sums) - 1, 1) ** 0.5
    if isinstance(scheme, SymmetricReshuffle):
        return Partial(_sweep_product, spread, injected, step_size**4 / 2)
    # E Σ_r κ_r κ_rᵀ is R φ times the units' mean; a fixed partition is its own population.
    kappa = float(batches) ** 2 * (batches + 1) / 12 * factor / len(units)
    return Partial(_epoch_product, potential, x, gradient, units, parts, spread, injected, step_size**4 / 2, kappa)


def _check_numbers(step_size, temperature):
    """Refuse what has no diffusion; of traced values only the shape is known."""
    for name, value, wanted in (("step_size", step_size, "positive"), ("temperature", temperature, "at least 0")):
        if np.ndim(value) != 0:
            raise ValueError(f"{name} has shape {np.shape(value)}, but must be one number; use jax.vmap over several")
        if is_traced(value):
            continue
        number = float(value)
        if not (0 <= number < np.inf) or (number == 0 and name == "step_size"):
            remedy = "1e-3 for instance" if name == "step_size" else "1.0 for the posterior, 0 for gradient descent"
            raise ValueError(f"{name}={value!r} must be {wanted} and finite; pass {remedy}")


def _transition(potential: RowPotential, scheme: NamedScheme) -> int:
    """Steps of a recorded transition."""
    if scheme.redraws == "never":
        raise ValueError(
            f"scheme={scheme!r} repeats one order for ever, so that its minibatches give the transition no noise, "
            "only a drift that depends on the order; use RandomReshuffle() or BatchReshuffle()"
        )
    plate = potential.plate
    if scheme.redraws == "epoch" and plate.size % plate.batch_size:
        raise ValueError(
            f"batch_size={plate.batch_size} does not divide the {plate.size} rows, which the diffusion of "
            f"{type(scheme).__name__} needs; take a divisor"
        )
    return scheme.period(plate)


@jax.jit
def _order_sums(potential, x, units):
    """Sums over units: κκᵀ, δH δg, its square, and those over pairs, H_i g_j g_jᵀ H_i and H_i g_j g_iᵀ H_j."""
    gradient = potential.gradient(x)
    second = jax.vmap(jax.hessian(potential.estimate), in_axes=(None, 0))
    length = block_length(units.shape[1], x.size**2, x.dtype)

    def hessians(numbers):
        return second(x, units[numbers])

    def first(numbers):
        off = potential.batch_gradients(x, units[numbers]) - gradient
        return off.T @ off, hessians(numbers).sum(0)

    squares, hessian = sum_over_blocks(first, len(units), length)
    hessian = hessian / len(units)

    def block(numbers):
        off, bend = potential.batch_gradients(x, units[numbers]) - gradient, hessians(numbers) - hessian
        kappa = bend @ gradient - off @ hessian
        own = jnp.einsum("iac,ic->ia", bend, off)
        crossed = jnp.einsum("iac,ie->ace", bend, off)
        return kappa.T @ kappa, own.sum(0), own.T @ own, jnp.einsum("iac,cd,ibd->ab", bend, squares, bend), crossed

    kappa, total, own, straight, crossed = sum_over_blocks(block, len(units), length)
    return kappa, total, own, straight, jnp.einsum("ace,bec->ab", crossed, crossed)


def _order_covariance(potential, x, units, batch):
    """The K term, Cov(Σ_r δH_r δg_r) and the κ term, averaged over partitions of n units into batches of b.

    Two units share a batch with probability p₂ = (b - 1)/(n - 1), and so on for three and four. All sums over
    more units than these pairs vanish, or are known, since δH_i and δg_i sum to zero.
    """
    # powers of n and b are taken of floats: as integers they overflow JAX's 32 bits from b = 216 on
    n, b = len(units), batch
    if b == n:
        return 3 * (jnp.zeros((x.size, x.size), x.dtype),)
    kappa, total, own, straight, crossed = _order_sums(potential, x, units)
    # with fewer units the sums over three or four different ones are empty
    second, third, fourth = n - 1, max(n - 2, 1), max(n - 3, 1)
    together = (b - 1) / second
    three = together * (b - 2) / third
    two_and_two = together * ((b - 2) * (b - 3) + (n - b) * (b - 1)) / (third * fourth)
    apart = (n - b) / second
    one_and_two = apart * (b - 1) / third
    antisymmetric = (apart - 2 * one_and_two) / (12 * float(b) ** 4) * (straight - crossed)
    pairs = (straight + crossed) / 2 - own
    disjoint = jnp.outer(total, total) + 2 * pairs - 4 * own
    partitions = (
        2 * (together - together**2) * pairs
        + 4 * (three - together**2) * (own - pairs)
        + (two_and_two - together**2) * disjoint
    ) / float(b) ** 4
    batches = n // b
    return antisymmetric, partitions, float(batches) ** 2 * (batches + 1) / 12 * (n - b) / (b * (n - 1)) / n * kappa


def _step_product(noise, injected, scale, v):
    return injected * jnp.asarray(v) + scale * noise(v)


def _sweep_product(spread, injected, scale, v):
    v = as_vector("v", v, spread.shape[-1], spread.dtype)
    return injected * v + scale * (spread @ v) @ spread


@jax.jit
def _self_products(potential, x, parts, gradient):
    """Σ_r δH_r δg_r of each partition."""

    def of(batches):
        def block(numbers):
            rows = batches[numbers]
            return _bend(potential, x, rows, potential.batch_gradients(x, rows) - gradient).sum(0)

        return sum_over_blocks(block, len(batches), block_length(batches.shape[1], x.size, x.dtype))

    return lax.map(of, parts)


@jax.jit
def _epoch_product(potential, x, gradient, units, parts, spread, injected, scale, kappa, v):
    v = as_vector("v", v, x.size, x.dtype)
    order = kappa * _kappa_product(potential, x, gradient, units, v)
    pairs = lax.map(lambda batches: _pairs_product(potential, x, gradient, batches, v), parts).mean(0) / 24
    return injected * v + scale * (order + pairs + (spread @ v) @ spread / 4)


def _kappa_product(potential, x, gradient, units, v):
    """Σ κ_i κ_iᵀ v, from κ_i·v = g·H_i v - g_i·H v and Σ_i w_i κ_i = Σ_i w_i H_i g - H Σ_i w_i g_i."""

    def full_bend(direction):
        return jax.jvp(potential.gradient, (x,), (direction,))[1]

    bent = full_bend(v)

    def block(numbers):
        def values(x):
            return potential.batch_values(x, units[numbers])

        def along(direction):
            return lambda x: jax.jvp(values, (x,), (direction,))[1]

        weights = jax.jvp(along(v), (x,), (gradient,))[1] - along(bent)(x)
        return jax.jvp(jax.grad(lambda x: weights @ values(x)), (x,), (gradient,))

    weighted, curved = sum_over_blocks(block, len(units), block_length(units.shape[1], 1, x.dtype))
    return curved - full_bend(weighted)


def _pairs_product(potential, x, gradient, batches, v):
    """Σ_{r,s} K_rs K_rsᵀ v = 2 Σ_r H_r Σ_s a_rs δg_s, with a_rs = K_rs·v antisymmetric."""
    length = min(len(batches), block_length(batches.shape[1], x.size, x.dtype))
    off = lax.map(lambda rows: jax.grad(potential.estimate)(x, rows), batches, batch_size=length) - gradient
    bent = lax.map(lambda rows: _bend(potential, x, rows[None], v[None])[0], batches, batch_size=length)
    bent = bent - bent.mean(0)
    half = bent @ off.T
    pulled = (half - half.T) @ off

    def block(numbers):
        return _bend(potential, x, batches[numbers], pulled[numbers]).sum(0)

    return 2 * sum_over_blocks(block, len(batches), length)


def _bend(potential, x, batches, directions):
    """H_r times a vector, for each batch its own."""

    def one(rows, direction):
        return jax.jvp(lambda x: jax.grad(potential.estimate)(x, rows), (x,), (direction,))[1]

    return jax.vmap(one)(batches, directions)
