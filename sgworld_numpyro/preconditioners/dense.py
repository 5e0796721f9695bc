"""A dense preconditioner."""

from typing import Any

import numpy as np
from jax.tree_util import register_pytree_node_class

# An inverse computed in float32 is as asymmetric as this, relative to its largest entry.
ROUNDING = 1e-3


@register_pytree_node_class
class Dense:
    """M = a full matrix; its Cholesky factor is the root. For dim up to about a thousand.

    Args:
        matrix: of shape (dim, dim), symmetric positive definite. A good choice is the posterior's covariance. Without
            it, M is learnt before the first sample, and then kept.

    Raises:
        ValueError: if it is not square, symmetric and positive definite.
    """

    def __init__(self, matrix=None):
        self.matrix: Any = None
        self.root: Any = None
        if matrix is None:
            return
        matrix = np.asarray(matrix)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"Dense wants a square matrix, got shape {matrix.shape}.")
        if not np.all(np.isfinite(matrix)):
            raise ValueError("Dense wants a symmetric matrix of finite numbers; some entries are infinite or NaN.")
        asymmetry = np.max(np.abs(matrix - matrix.T), initial=0.0)
        if not asymmetry <= ROUNDING * np.max(np.abs(matrix), initial=0.0):
            raise ValueError(
                "Dense wants a symmetric matrix; pass (matrix + matrix.T) / 2 if that is rounding: entries differ "
                f"from their mirror images by up to {asymmetry:.3g}."
            )
        matrix = (matrix + matrix.T) / 2
        try:
            self.root = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError as error:
            smallest = np.linalg.eigvalsh(matrix)[0]
            raise ValueError(
                f"Dense wants a positive definite matrix; the smallest eigenvalue is {smallest:.3g}."
            ) from error
        self.matrix = matrix

    @classmethod
    def from_root(cls, root) -> "Dense":
        """M = root rootᵀ for any square root, possibly traced, without checks."""
        return cls.tree_unflatten(None, (root @ root.T, root))

    @property
    def to_be_learnt(self) -> bool:
        """Whether M is left to be learnt."""
        return self.matrix is None

    def apply(self, vector):
        return self.matrix.astype(vector.dtype) @ vector

    def apply_root(self, vector):
        return self.root.astype(vector.dtype) @ vector

    def apply_root_transpose(self, vector):
        return self.root.T.astype(vector.dtype) @ vector

    def __repr__(self):
        return "Dense()" if self.matrix is None else f"Dense(matrix of shape {np.shape(self.matrix)})"

    def tree_flatten(self):
        """As a JAX pytree with M and its root as leaves."""
        return (self.matrix, self.root), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        """From possibly traced arrays, without checks."""
        made = object.__new__(cls)
        made.matrix, made.root = leaves
        return made
