"""A model's potential energy as a mean over its rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial, register_pytree_node
from jaxtyping import ArrayLike, Float, Int

from sgworld_numpyro.model import blocks
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.arrays import as_jax_array
from sgworld_numpyro.model.target import inspect_model
from sgworld_numpyro.subsampling import Plate


@dataclass(frozen=True, eq=False)
class RowPotential:
    """U(x) = (1/N) Σ_i u_i(x), where u_i = -log prior - N log likelihood_i takes row i for all N rows.

    A minibatch gradient is the mean of ∇u_i over its rows. It is a pytree: if ``estimate`` is a
    ``jax.tree_util.Partial(function, *arrays)``, as ``row_potential`` makes it, the arrays are passed to
    compiled functions as arguments; those that a plain function closes over are compiled in.

    Attributes:
        estimate: (position (dim,), row numbers (n,)) to the mean of u_i over those rows, in nats, for any n >= 1.
        num_rows: N.
        batch_size: B, rows in a minibatch.
        dim: d, the number of coordinates.
    """

    estimate: Callable[[Array, Array], Array]
    num_rows: int
    batch_size: int
    dim: int

    def __post_init__(self):
        if not 1 <= self.batch_size <= self.num_rows:
            raise ValueError(f"batch_size={self.batch_size} must be in 1..{self.num_rows}, the number of rows")
        if self.dim < 1:
            raise ValueError(f"dim={self.dim} must be positive; pass the length of the flat position")

    @property
    def plate(self) -> Plate:
        """The rows as a scheme sees them."""
        return Plate("rows", self.num_rows, self.batch_size)

    def full(self, x: Float[Array, "dim"]) -> Float[Array, ""]:
        """U(x), from all rows in blocks.

        Raises:
            ValueError: if x is not a real vector of length d.
        """
        return _full(self, self.position(x))

    def gradient(self, x: Float[Array, "dim"]) -> Float[Array, "dim"]:
        """∇U(x), from all rows in blocks; cheaper than ``jax.grad`` of ``full``, which goes over the rows twice.

        Raises:
            ValueError: if x is not a real vector of length d.
        """
        return _gradient(self, self.position(x))

    def position(self, x: Float[ArrayLike, "dim"] | Sequence[float]) -> Float[Array, "dim"]:
        """A position as an array of floats: integers and lists of numbers are converted.

        Raises:
            ValueError: if x is not a real vector of length d.
        """
        return as_vector("x", x, self.dim)

    def row_values(self, x: Float[Array, "dim"], rows: Int[Array, "rows"]) -> Float[Array, "rows"]:
        """u_i(x) of some rows."""
        return self.batch_values(x, rows[:, None])

    def batch_values(self, x: Float[Array, "dim"], batches: Int[Array, "batches rows"]) -> Float[Array, "batches"]:
        """The mean of u_i over the rows of each batch."""
        return jax.vmap(lambda rows: self.estimate(x, rows))(batches)

    def batch_gradients(
        self, x: Float[Array, "dim"], batches: Int[Array, "batches rows"]
    ) -> Float[Array, "batches dim"]:
        """The gradient of each batch, side by side."""
        return jax.vmap(lambda rows: jax.grad(self.estimate)(x, rows))(batches)


def as_vector(name: str, values: Any, dim: int, dtype: Any = None) -> Float[Array, "dim"]:
    """A vector of floats, from an array or a list of numbers; may be traced.

    Args:
        name: of the argument, for the message.
        values: the numbers.
        dim: d, the length it must have.
        dtype: what to convert to; None keeps a floating dtype and makes integers JAX's default one.

    Raises:
        ValueError: if it is no array of real numbers, or not of shape (d,).
    """
    try:
        vector = jnp.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={values!r} is no array of numbers; pass {dim} floats") from error
    if jnp.issubdtype(vector.dtype, jnp.complexfloating) or not jnp.issubdtype(vector.dtype, jnp.number):
        raise ValueError(f"{name} has dtype {vector.dtype}, and is no vector of real numbers; pass {dim} floats")
    if vector.shape != (dim,):
        raise ValueError(
            f"{name} has shape {vector.shape}, but the potential has dim={dim}; pass a flat vector of shape "
            f"({dim},), or jax.vmap over several"
        )
    if dtype is None and not jnp.issubdtype(vector.dtype, jnp.floating):
        dtype = float
    return vector if dtype is None else vector.astype(dtype)


def _flatten(potential):
    static = potential.num_rows, potential.batch_size, potential.dim
    if isinstance(potential.estimate, Partial):
        return (potential.estimate,), (None, *static)
    return (), (potential.estimate, *static)


register_pytree_node(
    RowPotential, _flatten, lambda static, children: RowPotential(*(children or static[:1]), *static[1:])
)


def row_potential(model: Callable, *args: Any, **kwargs: Any) -> RowPotential:
    """The row potential of a NumPyro model with one subsampled plate.

    The position is the flat vector of unconstrained values, sites in alphabetical order, as the kernels have it.

    Args:
        model: a NumPyro model.
        args: its arguments.
        kwargs: its keyword arguments.

    Raises:
        ValueError: if the model has several subsampled plates.
        ModelError: if it cannot be sampled from minibatches at all.
    """
    arguments = Arguments.of(args, kwargs)
    target = inspect_model(model, arguments)
    if len(target.plates) > 1:
        names = " and ".join(repr(plate.name) for plate in target.plates)
        raise ValueError(
            f"the model subsamples the plates {names}, so that a minibatch is no mean over rows of one kind; "
            "leave subsample_size out of all of them but one"
        )
    (plate,) = target.plates
    # A model that looks at its data's values must get them as they are, never as arguments of a compiled function.
    numbers = arguments.arrays if target.abstract else []

    def estimate(arrays, position, rows):
        here = arguments.with_arrays(dict(zip(numbers, arrays, strict=True)))
        return target.energy(here, {plate.name: rows})(position)

    arrays = [as_jax_array(arguments.leaves[number]) for number in numbers]
    return RowPotential(Partial(estimate, arrays), plate.size, plate.batch_size, target.dim)


@jax.jit
def _full(potential, x):
    def block(rows):
        return len(rows) * potential.estimate(x, rows)

    return blocks.sum_over_blocks(block, potential.num_rows, blocks.BLOCK_ROWS) / potential.num_rows


@jax.jit
def _gradient(potential, x):
    def block(rows):
        return len(rows) * jax.grad(potential.estimate)(x, rows)

    return blocks.sum_over_blocks(block, potential.num_rows, blocks.BLOCK_ROWS) / potential.num_rows
