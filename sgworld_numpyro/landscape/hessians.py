"""Hessians of a model's potential: whole, times a vector, and their trace."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.tree_util import Partial
from jaxtyping import Float

from sgworld_numpyro.landscape.row_potentials import RowPotential, as_vector

# Hessian-vector products that share one pass over the rows.
PRODUCTS_TOGETHER = 16


def hessian(potential: RowPotential, x: Float[Array, "dim"]) -> Float[Array, "dim dim"]:
    """∇²U(x), from d Hessian-vector products.

    Raises:
        ValueError: if x is not a vector of length d.
    """
    return _hessian(potential, potential.position(x))


def hessian_product(
    potential: RowPotential, x: Float[Array, "dim"]
) -> Callable[[Float[Array, "dim"]], Float[Array, "dim"]]:
    """Multiply by ∇²U(x), in blocks of rows. A pytree, as ``gradient_covariance_product``.

    Raises:
        ValueError: if x, or what is multiplied, is not a vector of length d.
    """
    return Partial(_hessian_product, potential, potential.position(x))


def laplacian(
    potential: RowPotential, x: Float[Array, "dim"], *, probes: int | None = None, seed: int = 0
) -> Float[Array, ""]:
    """ΔU(x), the trace of the Hessian.

    Args:
        potential: the model.
        x: position.
        probes: None for the exact trace, at the cost of d Hessian-vector products; else Hutchinson's estimate
            from so many random vectors of signs, whose variance is 2 Σ_{i≠j} H_ij² / probes.
        seed: of those vectors. They do not depend on x, so the estimate can be differentiated and minimised.

    Raises:
        ValueError: if x is not a vector of length d, or there are no probes.
    """
    x = potential.position(x)
    if probes is None:
        vectors, weight = jnp.eye(x.size, dtype=x.dtype), 1.0
    else:
        if probes < 1:
            raise ValueError(f"probes={probes} must be positive; pass None for the exact trace")
        vectors, weight = jax.random.rademacher(jax.random.key(seed), (probes, x.size), x.dtype), 1 / probes
    return weight * _trace(potential, x, vectors)


@jax.jit
def _hessian(potential, x):
    def product(v):
        return _hessian_product(potential, x, v)

    return lax.map(product, jnp.eye(x.size, dtype=x.dtype), batch_size=min(PRODUCTS_TOGETHER, x.size))


@jax.jit
def _trace(potential, x, vectors):
    """Σ_k vᵀ ∇²U v."""

    @jax.checkpoint  # or a derivative would keep the intermediate values of all products
    def curvature(x, vector):
        return vector @ _hessian_product(potential, x, vector)

    together = min(PRODUCTS_TOGETHER, len(vectors))
    return lax.map(lambda vector: curvature(x, vector), vectors, batch_size=together).sum()


@jax.jit
def _hessian_product(potential, x, v):
    return jax.jvp(potential.gradient, (x,), (as_vector("v", v, x.size, x.dtype),))[1]
