"""The linear description of a chain: x_{t+1} − m = A (x_t − m) + noise of covariance Q."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sgworld_numpyro.nonequilibrium.draws import Draws
from sgworld_numpyro.nonequilibrium.moments import LaggedMoments, as_moments, jackknife


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
        return float(-1 / np.log(spectral_radius(self.A)))


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
    dim = moments.dim
    if moments.transitions < 2 * dim + 2:
        raise ValueError(
            f"{moments.transitions} transitions are too few for {dim} dimensions: want {2 * dim + 2} at least and many "
            "more for errors that mean something. Run longer, or use principal_components(x, k)."
        )

    def flat(parts):
        return np.concatenate([field.reshape(len(parts.length), -1) for field in least_squares(parts)], axis=1)

    mean, A, Q, covariance = (field[0] for field in least_squares(moments.pooled()))
    _check_contraction(A)
    error = jackknife(flat, moments).error
    A_error, Q_error, covariance_error = error[dim:].reshape(3, dim, dim)
    return LinearDynamics(mean, A, Q, covariance, error[:dim], A_error, Q_error, covariance_error, moments.transitions)


def linear_dynamics(
    mean: Float[np.ndarray, "dim"], A: Float[np.ndarray, "dim dim"], Q: Float[np.ndarray, "dim dim"]
) -> LinearDynamics:
    """Dynamics that are known or predicted, as from a Hessian and a diffusion matrix: A = 1 − hH, Q = 2D.

    Raises:
        ValueError: if the dynamics do not contract, or Q is no covariance.
    """
    mean, A, Q = np.asarray(mean, float), np.asarray(A, float), np.asarray(Q, float)
    if mean.ndim != 1 or not A.shape == Q.shape == (len(mean), len(mean)):
        raise ValueError(f"mean, A and Q have shapes {mean.shape}, {A.shape}, {Q.shape}; want (d,), (d, d) and (d, d).")
    if not all(np.isfinite(part).all() for part in (mean, A, Q)):
        raise ValueError("mean, A and Q must be finite.")
    if np.linalg.eigvalsh((Q + Q.T) / 2)[0] < -1e-12 * np.abs(Q).max():
        raise ValueError(f"Q is no covariance: it has the eigenvalue {np.linalg.eigvalsh((Q + Q.T) / 2)[0]:.3g}.")
    _check_contraction(A)
    nan = np.full_like(Q, np.nan)
    return LinearDynamics(mean, A, Q, stationary_covariance(A, Q), np.full_like(mean, np.nan), nan, nan, nan, 0)


class Fits(NamedTuple):
    """Mean, A, Q and covariance of several fits."""

    mean: Float[np.ndarray, "fits dim"]
    A: Float[np.ndarray, "fits dim dim"]
    Q: Float[np.ndarray, "fits dim dim"]
    covariance: Float[np.ndarray, "fits dim dim"]


def least_squares(moments: LaggedMoments) -> Fits:
    """A fit to each block by itself. One that does not contract has a covariance of NaN."""
    length = moments.length[:, None, None]
    first, second = moments.first / length[..., 0], moments.second / length[..., 0]
    now = moments.s00 / length - first[:, :, None] * first[:, None, :]
    lagged = moments.s01 / length - first[:, :, None] * second[:, None, :]
    after = moments.s11 / length - second[:, :, None] * second[:, None, :]
    check_full_rank(now, "the stationary covariance")
    # In units of each coordinate's spread: coordinates of very different size must not spoil the solution.
    scale, unit = _units(now)
    propagator = transposed(np.linalg.solve(now / unit, lagged / unit)) * scale[:, :, None] / scale[:, None, :]
    noise = (after - propagator @ lagged) * (length / (length - moments.dim - 1))
    noise = (noise + transposed(noise)) / 2
    silent = np.argwhere(np.diagonal(noise, axis1=1, axis2=2) <= 1e-13 * np.diagonal(after, axis1=1, axis2=2))
    if len(silent):
        raise ValueError(
            f"coordinate {silent[0][1]} follows from the last draw without noise. A chain without noise, as of the "
            "full batch at temperature 0, has no entropy production; of others, leave the coordinate out."
        )
    mean = moments.origin + (first + second) / 2
    return Fits(mean, propagator, noise, stationary_covariance(propagator, noise))


def stationary_covariance(
    propagator: Float[np.ndarray, "*fits dim dim"], noise: Float[np.ndarray, "*fits dim dim"]
) -> Float[np.ndarray, "*fits dim dim"]:
    """The solution of Σ = AΣAᵀ + Q; NaN where A does not contract."""
    contracts = (spectral_radius(propagator) < 1)[..., None, None]
    # Σ = Q + AQAᵀ + A²QA²ᵀ + …, with the number of terms doubled every time (Smith 1968): sums of positive terms,
    # whatever the units of the coordinates.
    covariance, power = noise, np.where(contracts, propagator, 0.0)
    for _ in range(64):  # a spectral radius of 1 - 2**-53 is the nearest to 1 that there is
        more = power @ covariance @ transposed(power)
        covariance, power = covariance + more, power @ power
        if np.all(np.abs(more) <= 1e-17 * _units(covariance)[1]):
            break
    return np.where(contracts, (covariance + transposed(covariance)) / 2, np.nan)


def spectral_radius(matrices: Float[np.ndarray, "*fits dim dim"]) -> Float[np.ndarray, "*fits"]:
    """The largest size of an eigenvalue."""
    return np.abs(np.linalg.eigvals(matrices)).max(-1)


def _check_contraction(propagator):
    radius = float(spectral_radius(propagator))
    if not radius < 1:
        raise ValueError(
            f"the linear dynamics do not contract: spectral radius {radius:.9g} of A. The chain drifts, or is too "
            "short to show that it comes back; run it longer, or record fewer and faster directions (projections)."
        )


def transposed(matrices: Float[np.ndarray, "*fits rows columns"]) -> Float[np.ndarray, "*fits columns rows"]:
    """Each matrix of a stack transposed."""
    return np.swapaxes(matrices, -1, -2)


def _units(covariance):
    """The square roots of the diagonal, and their products."""
    scale = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    return scale, scale[..., :, None] * scale[..., None, :]


_FEWER = "Measure in fewer dimensions: leave it out, or use principal_components(x, k)."


def check_full_rank(covariance: Float[np.ndarray, "*fits dim dim"], what: str, remedy: str = _FEWER) -> None:
    """Raise ``ValueError`` if a covariance is singular to working precision."""
    scale, unit = _units(covariance)
    if np.all(scale > 0):
        eigenvalues = np.linalg.eigvalsh(covariance / unit)
        if np.all(eigenvalues[..., 0] > 1e-12 * eigenvalues[..., -1]):
            return
    still = np.argwhere(~(scale > 0))
    reason = (
        f"coordinate {still[0][-1]} does not move" if len(still) else "some combination of coordinates does not move"
    )
    raise ValueError(f"{what} is singular: {reason}. {remedy}")
