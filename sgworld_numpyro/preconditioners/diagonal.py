"""A diagonal preconditioner."""

import numpy as np


class Diagonal:
    """M = diag(m): one step size a coordinate.

    Args:
        diagonal: m, of shape (dim,), finite and positive. A good choice is the posterior's variances.

    Raises:
        ValueError: if it is not a vector of finite positive numbers.
    """

    def __init__(self, diagonal):
        diagonal = np.asarray(diagonal)
        if diagonal.ndim != 1 or not np.all(np.isfinite(diagonal) & (diagonal > 0)):
            raise ValueError(
                f"Diagonal wants a vector of finite positive numbers, got shape {diagonal.shape}, "
                f"smallest entry {np.min(diagonal, initial=np.inf)}."
            )
        self.diagonal = diagonal

    def apply(self, vector):
        return vector * self.diagonal.astype(vector.dtype)

    def apply_root(self, vector):
        return vector * np.sqrt(self.diagonal).astype(vector.dtype)
