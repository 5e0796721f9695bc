"""What a preconditioner is."""

from typing import Protocol, runtime_checkable

from jax import Array
from jaxtyping import Float


@runtime_checkable
class Preconditioner(Protocol):
    """A constant positive-definite matrix M = L Lᵀ, in the coordinates of the flat unconstrained position.

    The sampler is that of the coordinates q = L⁻¹θ without a preconditioner, where the force is -Lᵀ∇U. A class
    registered as a JAX pytree can also be learnt; see ``tuning``.
    """

    def apply(self, vector: Float[Array, "dim"]) -> Float[Array, "dim"]:
        """M v."""
        ...

    def apply_root(self, vector: Float[Array, "dim"]) -> Float[Array, "dim"]:
        """L v, for a fixed L with L Lᵀ = M."""
        ...

    def apply_root_transpose(self, vector: Float[Array, "dim"]) -> Float[Array, "dim"]:
        """Lᵀ v."""
        ...
