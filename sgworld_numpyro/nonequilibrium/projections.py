"""Fewer dimensions, so that every measure can be taken on a network.

A current or an entropy production in a projection is a lower bound on the whole one: what time's arrow leaves no trace
of in the projected chain is lost. A projected chain need not be Markov; ``check_assumptions`` looks at that.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sgworld_numpyro.nonequilibrium.draws import Draws

_COLUMNS = 2**13  # taken at a time, so that no second copy of a wide chain is needed


class Projection(NamedTuple):
    """An affine map onto ``k`` directions.

    Attributes:
        origin: what is subtracted first, of shape (dim,).
        directions: orthonormal rows, of shape (k, dim).
        explained: share of the total variance along each direction, of shape (k,); NaN if not measured.
    """

    origin: Float[np.ndarray, "dim"]
    directions: Float[np.ndarray, "k dim"]
    explained: Float[np.ndarray, "k"]

    def apply(self, x: Draws) -> Float[np.ndarray, "chain draw k"]:
        """Coordinates of draws of shape (..., dim) along the directions.

        Raises:
            ValueError: if the draws have another dimension.
        """
        x = np.asarray(x)
        if x.shape[-1] != len(self.origin):
            raise ValueError(f"draws of {x.shape[-1]} dimensions; this projection is of {len(self.origin)}.")
        found = np.zeros((*x.shape[:-1], len(self.directions)))
        for part in _parts(x.shape[-1]):
            found += (x[..., part] - self.origin[part]) @ self.directions[:, part].T
        return found


def principal_components(x: Draws, k: int) -> Projection:
    """The ``k`` directions in which the draws vary most, most first.

    From the Gram matrix of the draws where they are fewer than the dimensions: 1 000 draws of 79 510 weights take
    seconds.

    Args:
        x: draws (chain, draw, dim).
        k: how many directions.

    Raises:
        ValueError: if ``k`` is not between 1 and the rank that the draws can have.
    """
    x = np.asarray(x)
    if x.ndim not in (2, 3):
        raise ValueError(f"draws have shape {x.shape}; want (chain, draw, dim), or (draw, dim) for one chain.")
    if not np.isfinite(x).all():
        raise ValueError("draws are not all finite; a diverged chain has no principal components.")
    flat = x.reshape(-1, x.shape[-1])
    draws, dim = flat.shape
    if not 1 <= k <= min(draws - 1, dim):
        raise ValueError(f"k={k}; {draws} draws of {dim} dimensions have 1 to {min(draws - 1, dim)} components.")
    origin = flat.mean(0, dtype=float)
    if dim <= draws:
        covariance = sum(_centred(part, origin).T @ _centred(part, origin) for part in np.array_split(flat, 64))
        values, vectors = np.linalg.eigh(np.asarray(covariance))
        directions = vectors[:, ::-1][:, :k].T
    else:
        gram = np.zeros((draws, draws))
        for part in _parts(dim):
            columns = _centred(flat[:, part], origin[part])
            gram += columns @ columns.T
        values, vectors = np.linalg.eigh(gram)
        leading = vectors[:, ::-1][:, :k].T
        directions = np.empty((k, dim))
        for part in _parts(dim):
            directions[:, part] = leading @ _centred(flat[:, part], origin[part])
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Projection(origin, directions, values[::-1][:k] / values.sum())


def random_projection(dim: int, k: int, seed: int = 0) -> Projection:
    """``k`` orthonormal directions that are uniformly random, which do not depend on the draws.

    Args:
        dim: dimension of the draws.
        k: how many directions.
        seed: seed of the directions.

    Raises:
        ValueError: if ``k`` is not between 1 and ``dim``.
    """
    if not 1 <= k <= dim:
        raise ValueError(f"k={k}; want 1 to {dim}, the dimension of the draws.")
    directions = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, k)))[0].T
    return Projection(np.zeros(dim), directions, np.full(k, np.nan))


def _parts(dim):
    return [slice(start, start + _COLUMNS) for start in range(0, dim, _COLUMNS)]


def _centred(part, origin):
    return np.asarray(part, float) - origin
