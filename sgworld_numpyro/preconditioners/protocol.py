"""What a preconditioner is."""

from typing import Protocol, runtime_checkable

from jax import Array
from jaxtyping import Float


@runtime_checkable
class Preconditioner(Protocol):
    """A constant positive-definite matrix M, in the coordinates of the flat unconstrained position."""

    def apply(self, vector: Float[Array, "dim"]) -> Float[Array, "dim"]:
        """M v."""
        ...

    def apply_root(self, vector: Float[Array, "dim"]) -> Float[Array, "dim"]:
        """L v, for a fixed L with L Lᵀ = M."""
        ...
