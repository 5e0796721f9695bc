"""Quadratic potentials of many rows, and models that have one."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class LinearGaussian(NamedTuple):
    """A quadratic potential U(θ) = ½ θᵀPθ − pᵀθ + Σ_i (½ θᵀA_iθ − b_iᵀθ) of N rows in d dimensions.

    Attributes:
        prior_precision: P, symmetric; zero for a flat prior.
        prior_shift: p, the prior precision times the prior mean.
        row_hessians: A_i, symmetric, one for each row or one that all rows share.
        row_shifts: b_i.
    """

    prior_precision: Float[np.ndarray, "d d"]
    prior_shift: Float[np.ndarray, " d"]
    row_hessians: Float[np.ndarray, "rows d d"] | Float[np.ndarray, "d d"]
    row_shifts: Float[np.ndarray, "rows d"]

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.row_shifts)

    @property
    def equal_hessians(self) -> bool:
        """Whether all rows have the same Hessian: then a minibatch shifts the gradient and nothing else."""
        return self.row_hessians.ndim == 2 or bool((self.row_hessians == self.row_hessians[0]).all())

    @property
    def hessian(self) -> Float[np.ndarray, "d d"]:
        """H = P + Σ_i A_i, the posterior precision at temperature 1."""
        shared = self.row_hessians.ndim == 2
        return self.prior_precision + (self.num_rows * self.row_hessians if shared else self.row_hessians.sum(0))

    @property
    def mean(self) -> Float[np.ndarray, " d"]:
        """Posterior mean H⁻¹(p + Σ_i b_i)."""
        return np.linalg.solve(self.hessian, self.prior_shift + self.row_shifts.sum(0))

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """Posterior covariance H⁻¹ at temperature 1; multiply by the temperature for another."""
        return np.linalg.inv(self.hessian)


def gaussian_mean(
    data: Float[np.ndarray, "rows d"],
    noise_covariance: Float[np.ndarray, "d d"],
    prior_mean: Float[np.ndarray, " d"] | None = None,
    prior_covariance: Float[np.ndarray, "d d"] | None = None,
) -> LinearGaussian:
    """The model x_i ~ Normal(θ, noise_covariance), θ ~ Normal(prior_mean, prior_covariance).

    Args:
        data: the rows x_i.
        noise_covariance: covariance of a row given θ.
        prior_mean: zero by default.
        prior_covariance: flat prior by default.

    Raises:
        ValueError: if a prior mean comes without a prior covariance.
    """
    data = np.asarray(data, dtype=float)
    if prior_covariance is None and prior_mean is not None:
        raise ValueError(f"prior_mean={prior_mean!r} has no effect under a flat prior; pass prior_covariance as well")
    dim = data.shape[1]
    noise_precision = np.linalg.inv(noise_covariance)
    prior_precision = np.zeros((dim, dim)) if prior_covariance is None else np.linalg.inv(prior_covariance)
    prior_shift = prior_precision @ (np.zeros(dim) if prior_mean is None else np.asarray(prior_mean, dtype=float))
    return LinearGaussian(prior_precision, prior_shift, noise_precision, data @ noise_precision)


def linear_regression(
    x: Float[np.ndarray, "rows d"], y: Float[np.ndarray, " rows"], noise_scale: float, prior_scale: float
) -> LinearGaussian:
    """The model y_i ~ Normal(x_iᵀθ, noise_scale²), θ ~ Normal(0, prior_scale² I).

    Args:
        x: predictors; add a column of ones for an intercept.
        y: responses.
        noise_scale: standard deviation of a response given θ, in units of y.
        prior_scale: standard deviation of each coefficient.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    dim = x.shape[1]
    hessians = x[:, :, None] * x[:, None, :] / noise_scale**2
    return LinearGaussian(np.eye(dim) / prior_scale**2, np.zeros(dim), hessians, x * y[:, None] / noise_scale**2)


def control_variate(problem: LinearGaussian, anchor: Float[np.ndarray, " d"] | None = None) -> LinearGaussian:
    """The problem whose minibatch gradients are those of `problem` with the control variate of an anchor x̂.

        g_b(θ) − g_b(x̂) + ∇U(x̂)

    Posterior and Hessians are those of `problem`, and all rows have the gradient ∇U(x̂) at the anchor. Rows of
    equal Hessians then make no gradient noise at all, anywhere.

    Args:
        problem: the quadratic potential.
        anchor: x̂, where the full gradient is known; the mode by default.

    Raises:
        ValueError: if the anchor is not a point of d coordinates.

    Source: Baker, Fearnhead, Fox and Nemeth (arXiv 1706.05439).
    """
    anchor = problem.mean if anchor is None else np.asarray(anchor, dtype=float)
    if anchor.shape != problem.prior_shift.shape:
        raise ValueError(f"anchor has shape {anchor.shape}; pass one point of shape {problem.prior_shift.shape}")
    pulls = problem.row_hessians @ anchor
    shifts = pulls - (pulls - problem.row_shifts).mean(0)
    return problem._replace(row_shifts=np.broadcast_to(shifts, problem.row_shifts.shape))
