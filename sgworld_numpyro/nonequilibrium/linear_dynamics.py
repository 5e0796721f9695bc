"""The linear description of a chain: x_{t+1} − m = A (x_t − m) + noise of covariance Q."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_discrete_lyapunov

from sgworld_numpyro.nonequilibrium.moments import Draws, LaggedMoments, as_moments, jackknife


class LinearDynamics(NamedTuple):
    """A first-order autoregression; per recorded transition, in the units of the draws.

    Attributes:
        mean: stationary mean m, of shape (dim,).
        A: propagator, E[x_{t+1} − m | x_t] = A (x_t − m).
        Q: covariance of the noise of a transition.
        covariance: stationary covariance Σ = A Σ Aᵀ + Q.
        mean_error: standard errors, of the shape of what they belong to. NaN where dynamics are given, not fitted.
        A_error: that of ``A``.
        Q_error: that of ``Q``.
        covariance_error: that of ``covariance``.
        transitions: how many transitions were fitted; 0 where dynamics are given.
    """

    mean: Float[np.ndarray, "dim"]
    A: Float[np.ndarray, "dim dim"]
    Q: Float[np.ndarray, "dim dim"]
    covariance: Float[np.ndarray, "dim dim"]
    mean_error: Float[np.ndarray, "dim"]
    A_error: Float[np.ndarray, "dim dim"]
    Q_error: Float[np.ndarray, "dim dim"]
    covariance_error: Float[np.ndarray, "dim dim"]
    transitions: int

    @property
    def relaxation_time(self) -> float:
        """Transitions after which the slowest direction has forgotten all but 1/e."""
        return float(-1 / np.log(np.abs(np.linalg.eigvals(self.A)).max()))


def fit_linear_dynamics(x: Draws | LaggedMoments, *, blocks: int = 64) -> LinearDynamics:
    """Fit an autoregression of first order by least squares, and its stationary law.

    Σ is the solution of Σ = A Σ Aᵀ + Q and not the sample covariance: only then do the fluctuation theorems hold for
    the entropy production of the fit. For Gaussian transitions this is the maximum-likelihood fit.

    Args:
        x: draws (chain, draw, dim), or their ``LaggedMoments``.
        blocks: into how many blocks to cut the draws for the standard errors (delete-one-block jackknife).

    Raises:
        ValueError: if there are too few transitions for the dimension, if the draws move in fewer dimensions than they
            have, or if the fitted dynamics do not contract, as when the chain is too short to be stationary.
    """
    moments = as_moments(x, blocks)
    dim, pooled = moments.dim, moments.pooled()
    if moments.transitions < 2 * dim + 2:
        raise ValueError(
            f"{moments.transitions} transitions are too few for {dim} dimensions: want {2 * dim + 2} at least and many "
            "more for errors that mean something. Run longer, or use principal_components(x, k)."
        )
    fitted = least_squares(pooled)

    def flat(part):
        return np.concatenate([field.ravel() for field in least_squares(part)[:4]])

    error = jackknife(flat, moments).error
    A_error, Q_error, covariance_error = error[dim:].reshape(3, dim, dim)
    return fitted._replace(
        mean_error=error[:dim],
        A_error=A_error,
        Q_error=Q_error,
        covariance_error=covariance_error,
        transitions=moments.transitions,
    )


def linear_dynamics(
    mean: Float[np.ndarray, "dim"], A: Float[np.ndarray, "dim dim"], Q: Float[np.ndarray, "dim dim"]
) -> LinearDynamics:
    """Dynamics that are known or predicted, as from a Hessian and a diffusion matrix: A = 1 − hH, Q = 2D.

    Raises:
        ValueError: if the dynamics do not contract.
    """
    mean, A, Q = np.asarray(mean, float), np.asarray(A, float), np.asarray(Q, float)
    nan = np.full_like(Q, np.nan)
    return LinearDynamics(mean, A, Q, _stationary(A, Q), np.full_like(mean, np.nan), nan, nan, nan, 0)


def least_squares(pooled: LaggedMoments) -> LinearDynamics:
    """The fit to moments of a single block, without errors."""
    count, first, second, s00, s01, s11 = (total[0] for total in pooled.sums)
    first, second = first / count, second / count
    now = s00 / count - np.outer(first, first)
    lagged = s01 / count - np.outer(first, second)
    after = s11 / count - np.outer(second, second)
    check_full_rank(now, "the stationary covariance")
    # In units of each coordinate's spread: coordinates of very different size must not spoil the solution.
    scale = np.sqrt(np.diag(now))
    unit = np.outer(scale, scale)
    propagator = np.linalg.solve(now / unit, lagged / unit).T * scale[:, None] / scale
    noise = (after - propagator @ lagged) * (count / (count - pooled.dim - 1))
    return linear_dynamics(pooled.origin + (first + second) / 2, propagator, (noise + noise.T) / 2)


def _stationary(propagator, noise):
    radius = np.abs(np.linalg.eigvals(propagator)).max()
    if not radius < 1:
        raise ValueError(
            f"the linear dynamics do not contract: spectral radius {radius:.6g} of A. The chain drifts, or is too "
            "short to show that it comes back; run it longer, or record fewer and faster directions (projections)."
        )
    scale = np.sqrt(np.diag(noise))
    unit = np.outer(scale, scale)
    scaled = solve_discrete_lyapunov(propagator / scale[:, None] * scale, noise / unit)
    return (scaled + scaled.T) / 2 * unit


def check_full_rank(covariance: Float[np.ndarray, "dim dim"], what: str) -> None:
    """Raise ``ValueError`` if a covariance is singular to working precision."""
    scale = np.sqrt(np.diag(covariance))
    if np.all(scale > 0):
        eigenvalues = np.linalg.eigvalsh(covariance / np.outer(scale, scale))
        if eigenvalues[0] > 1e-12 * eigenvalues[-1]:
            return
    constant = np.flatnonzero(~(scale > 0))
    reason = (
        f"coordinate {constant[0]} does not move" if len(constant) else "some combination of coordinates does not move"
    )
    raise ValueError(
        f"{what} is singular: {reason}. Measure in fewer dimensions: leave it out, or use principal_components(x, k)."
    )
