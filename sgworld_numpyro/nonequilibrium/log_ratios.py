"""The entropy production of a transition of linear dynamics, in three definitions.

With v(x) = −C Σ⁻¹ (x − m) the velocity of the probability, D = Q/2 and C the area matrix:

- ``"ar1"``: σ = ln [p(x) P(x'|x)] / [p(x') P(x|x')], the log-ratio itself, for steps of any size;
- ``"ito"``: σ = v(x)ᵀ D⁻¹ (x' − x), the form of arXiv 2306.03521. It takes time as continuous: Σ and C solve
  (1 − A) Σ + Σ (1 − A)ᵀ = Q. Its integral theorem is exact at any step size, its rate is too large at large steps;
- ``"stratonovich"``: σ = v((x + x')/2)ᵀ D⁻¹ (x' − x), which agrees with the others as steps become small.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from sgworld_numpyro.nonequilibrium.autoregression import (
    Fits,
    LinearDynamics,
    check_full_rank,
    stationary_covariance,
    transposed,
)
from sgworld_numpyro.nonequilibrium.draws import Draws

LinearMethod = Literal["ar1", "ito", "stratonovich"]


class Forms(NamedTuple):
    """σ = xᵀ now x + x'ᵀ after x' + x'ᵀ cross x, from the mean: every method's σ is quadratic."""

    now: Float[np.ndarray, "*fits dim dim"]
    after: Float[np.ndarray, "*fits dim dim"]
    cross: Float[np.ndarray, "*fits dim dim"]


def forms_of(dynamics: LinearDynamics | Fits, method: LinearMethod, parity: Float[np.ndarray, "dim"]) -> Forms:
    """The forms of a method, for one fit or for many.

    Raises:
        ValueError: if the noise is singular.
    """
    propagator, noise, covariance = dynamics.A, dynamics.Q, dynamics.covariance
    if np.any(parity < 0):
        remedy = "A kinetic chain with one noise a step shows all of it only over a few: record every k-th, x[:, ::k]."
        check_full_rank(noise, "the covariance of the noise", remedy)
    else:
        check_full_rank(noise, "the covariance of the noise")
    precision = np.linalg.inv(noise)
    if method == "ar1":
        stiffness = np.linalg.inv(covariance)
        flip = np.outer(parity, parity)
        reverse, reverse_precision = propagator * flip, precision * flip
        return Forms(
            (reverse_precision - transposed(propagator) @ precision @ propagator - stiffness) / 2,
            (transposed(reverse) @ reverse_precision @ reverse - precision + stiffness * flip) / 2,
            precision @ propagator - transposed(reverse) @ reverse_precision,
        )
    drift = np.eye(len(parity)) - propagator
    covariance = _continuous_covariance(drift, noise)
    areas = (drift @ covariance - covariance @ transposed(drift)) / 2
    force = -2 * precision @ areas @ np.linalg.inv(covariance)  # D⁻¹ v, per displacement
    if method == "ito":
        return Forms(-force, np.zeros_like(force), force)
    return Forms(-force / 2, force / 2, (force - transposed(force)) / 2)


def _continuous_covariance(drift, noise):
    """The solution of M Σ + Σ Mᵀ = Q, through Cayley's transform of M to a map that contracts."""
    rate = np.trace(drift, axis1=-2, axis2=-1)[..., None, None] / drift.shape[-1] * np.eye(drift.shape[-1])
    inverse = np.linalg.inv(rate + drift)
    return stationary_covariance((rate - drift) @ inverse, 2 * rate @ inverse @ noise @ transposed(inverse))


def mean_of_forms(dynamics: LinearDynamics | Fits, forms: Forms) -> Float[np.ndarray, "*fits"]:
    """The mean of σ in the stationary state of the dynamics."""
    covariance = dynamics.covariance
    mean = (forms.now + forms.after) @ covariance + forms.cross @ covariance @ transposed(dynamics.A)
    return np.trace(mean, axis1=-2, axis2=-1)


def values_of_forms(draws: Draws, dynamics: LinearDynamics, forms: Forms) -> Float[np.ndarray, "chain transition"]:
    """σ of the transitions of draws."""
    sigma = np.empty((draws.shape[0], draws.shape[1] - 1))
    for chain, of_chain in zip(draws, sigma, strict=True):  # one by one: what is computed between stays in the cache
        offset = chain - dynamics.mean
        now, after = offset[:-1], offset[1:]
        of_chain[:] = np.einsum("td,td->t", now, now @ forms.now + after @ forms.cross)
        of_chain += np.einsum("td,td->t", after, after @ forms.after)
    return sigma
