"""A diagonal preconditioner."""

import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_pytree_node_class


@register_pytree_node_class
class Diagonal:
    """M = diag(m): one step size a coordinate.

    Args:
        diagonal: m, of shape (dim,), finite and positive. A good choice is the posterior's variances. Without it, m is
            learnt before the first sample, and then kept.

    Raises:
        ValueError: if it is not a vector of finite positive numbers.
    """

    def __init__(self, diagonal=None):
        if diagonal is not None:
            diagonal = np.asarray(diagonal)
            if diagonal.ndim != 1 or not np.all(np.isfinite(diagonal) & (diagonal > 0)):
                raise ValueError(
                    f"Diagonal wants a vector of finite positive numbers, got shape {diagonal.shape}, "
                    f"smallest entry {np.min(diagonal, initial=np.inf)}."
                )
        self.diagonal = diagonal

    @property
    def to_be_learnt(self) -> bool:
        """Whether m is left to be learnt."""
        return self.diagonal is None

    def apply(self, vector):
        return vector * self.diagonal.astype(vector.dtype)

    def apply_root(self, vector):
        return vector * jnp.sqrt(self.diagonal).astype(vector.dtype)

    def apply_root_transpose(self, vector):
        return self.apply_root(vector)

    def __repr__(self):
        return "Diagonal()" if self.diagonal is None else f"Diagonal(vector of shape {np.shape(self.diagonal)})"

    def tree_flatten(self):
        """As a JAX pytree with m as its leaf."""
        return (self.diagonal,), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        """From a possibly traced m, without checks."""
        made = object.__new__(cls)
        (made.diagonal,) = leaves
        return made
