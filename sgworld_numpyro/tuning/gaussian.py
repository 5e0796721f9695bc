"""Gaussians that stand for a posterior nearby, and whether the potential rises around them as it must."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sgworld_numpyro.tuning import flat
from sgworld_numpyro.tuning.flat import Rise
from sgworld_numpyro.tuning.looks import Looks

FLOOR = {"mode": 1e-9, "path": 1e-3, "window": 1e-4}  # of an eigenvalue, by their median, in the coordinates' scales


class Gaussian(NamedTuple):
    """A Gaussian: mean, a root of its covariance, and whether its curvature was positive all around."""

    mean: Float[np.ndarray, "dim"]
    root: Float[np.ndarray, "dim dim"]
    curved: bool = True

    def draws(self, rng: np.random.Generator, count: int) -> Float[np.ndarray, "count dim"]:
        """So many of it."""
        return self.mean + rng.normal(size=(count, len(self.mean))) @ self.root.T


def root_of_inverse(hessian: Float[np.ndarray, "dim dim"], floor: float) -> tuple[np.ndarray, bool]:
    """L with L Lᵀ = |H|⁻¹, eigenvalues bounded from below in the coordinates' own scales, and whether H was positive.

    Args:
        hessian: H.
        floor: of eigenvalues, by their median.
    """
    scale = 1 / np.sqrt(np.maximum(np.abs(np.diag(hessian)), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(hessian * np.outer(scale, scale))
    bounded = np.maximum(np.abs(values), floor * np.median(np.abs(values)))
    return scale[:, None] * vectors / np.sqrt(bounded), bool(values[0] > 0)


def least_rise(looks: Looks, mode: Gaussian, gradient: Float[np.ndarray, "dim"]) -> Rise:
    """The direction in which the potential rises least from a Gaussian's mean, where it has this gradient."""
    scale = 1 / np.sqrt(np.sum(np.linalg.inv(mode.root) ** 2, axis=0))  # of each coordinate, given the others
    values, vectors = np.linalg.eigh((mode.root @ mode.root.T) / np.outer(scale, scale))
    flattest = scale * vectors[:, -1] * np.sqrt(values[-1])
    length = np.linalg.norm(mode.root.T @ gradient)
    down = -mode.root @ (mode.root.T @ gradient) / length if length > 0 else np.zeros_like(gradient)
    probed = flat.probe_along(mode.mean, flattest, down, scale, float(jnp.finfo(looks.dtype).eps))
    priors = np.zeros(2 * len(probed.beyond))
    if not np.array_equal(probed.points[1:], probed.beyond):
        priors = looks.priors(np.concatenate([probed.points[1:], probed.beyond]))
    return flat.rise_of(probed, looks.heights(probed.points), priors)
