"""By how much minibatches tilt a density whose curvature and gradients' noise differ from place to place.

The laws of ``step_size`` are those of Gaussians. Where a posterior is none, two more things move probability about,
both to where there is less noise. In the direction of each eigenvector u of the Hessian in the metric, of curvature λ,
the rows' gradients, each of which stands for all N, having there the covariance N c,

    ln p_h(θ) - ln p(θ) = -Σ_u f(Rε) c / (2 λ T) (N - B)/(N - 1) - ½ Σ_u ∫ e dlnλ + constant.

The first is the effective potential of reshuffled passes, with f as in ``step_size``: for short ones that of
overdamped chains is Rh/4 Σ_b |g_b|²/R, as of Smith, Dherin, Barrett & De 2021 (arXiv 2101.12176), in the metric and
without what batches have in common. The second is heat: directions whose variance is too large by a factor 1 + e push
the others to where λ is small, as a gas does a piston. Both are of lowest order, and e is taken to grow as a power of
λ.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sgworld_numpyro.subsampling import FullBatch
from sgworld_numpyro.tuning.dense_looks import DRAWS, DenseLooks
from sgworld_numpyro.tuning.step_size import Discretisation, bias_curve

FLATTEST = 0.01  # of the median curvature, below which directions count as that flat
GROWN = 1.1  # a rate by which it is seen how e grows with it
SLOWEST_GROWTH = 0.5  # power of the rate that e grows with at least
SHORTER = np.geomspace(1, 1 / 30, 80)  # steps that are tried, by the longest


class Places(NamedTuple):
    """What a sampler meets at several draws, in the directions of the Hessian's eigenvectors there, in a metric.

    Attributes:
        curvature: λ, at least ``FLATTEST``.
        noise: c, which is λ in a well-specified model.
        anchored_noise: the same with control variates.
    """

    curvature: Float[np.ndarray, "draws dim"]
    noise: Float[np.ndarray, "draws dim"]
    anchored_noise: Float[np.ndarray, "draws dim"]


def places_at(
    looks: DenseLooks,
    draws: Float[np.ndarray, "draws dim"],
    anchor: Float[np.ndarray, "dim"],
    root: Float[np.ndarray, "dim dim"],
) -> Places:
    """Look at so many draws, less those beyond a multiple of ``DRAWS``.

    Args:
        looks: at the model's data.
        draws: of the posterior.
        anchor: of control variates.
        root: L of the metric M = L Lᵀ.
    """
    found = []
    for start in range(0, len(draws) // DRAWS * DRAWS, DRAWS):
        some = draws[start : start + DRAWS]
        hessians, covariances = looks.hessians(some, start), looks.covariances(some, anchor, root)
        curvature, vectors = np.linalg.eigh(root.T @ hessians @ root)
        noises = [np.einsum("nik,nij,njk->nk", vectors, covariance, vectors) for covariance in covariances]
        found.append((curvature, *noises))
    curvature, *noises = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Places(np.maximum(np.abs(curvature), FLATTEST * np.median(curvature)), *noises)


def log_tilt(law: Discretisation, step_size: float, friction: float, places: Places) -> Float[np.ndarray, "draws"]:
    """Ln p_h - ln p at some draws, but for a constant.

    Args:
        law: what decides the bias.
        step_size: h.
        friction: γ; NaN if there is none.
        places: the draws.
    """
    rate = np.sqrt(places.curvature) if law.kinetic else places.curvature
    noise = (places.noise if law.minibatch_noise else places.anchored_noise) / (places.curvature * law.temperature)
    potential = 0.0
    if not isinstance(law.scheme, FullBatch):
        left = (law.num_rows - law.batch_size) / max(law.num_rows - 1, 1)
        potential = law.met_again(law.batches * step_size * rate, friction / rate) * noise * left / 2
    excess, more = (_excess(law, step_size, friction, grown, noise) for grown in (rate, GROWN * rate))
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.log(more / excess) / np.log(GROWN)
    heat = np.where(excess > 0, excess / np.maximum(power, SLOWEST_GROWTH), 0.0) / (1 if law.kinetic else 2)
    return -np.sum(potential + heat, axis=1)


def _excess(law, step_size, friction, rate, noise):
    """e, of each direction by itself."""
    own = law.integrator.variance_error(step_size * rate) + 0 * rate
    if isinstance(law.scheme, FullBatch):
        return own
    curve = bias_curve(law.scheme, law.integrator, law.num_rows, law.batch_size, law.at_ends)
    return own + noise * curve.at(law.batches * step_size * rate, friction / rate)


def worst_error(tilted: Float[np.ndarray, "draws"], draws: Float[np.ndarray, "draws dim"]) -> float:
    """By how much a tilt moves the mean of a coordinate, in its sds, or its sd, relatively, whichever is more.

    Less what chance would make of as many draws.
    """
    away = (draws - draws.mean(0)) / np.maximum(draws.std(0), np.finfo(float).tiny)
    tilted = tilted - tilted.mean()
    means, sds = away.T @ tilted / len(draws), (away**2).T @ tilted / (2 * len(draws))
    return float(max(np.abs(means).max(), np.abs(sds).max()) - tilted.std() / np.sqrt(len(draws)))


def level(
    law: Discretisation, step_size: float, friction: float, places: Places, draws: Float[np.ndarray, "draws dim"]
) -> tuple[float, float]:
    """The largest step size, up to a given one, whose tilt moves means and sds within the tolerance, and how far."""
    for shorter in SHORTER:
        error = worst_error(log_tilt(law, step_size * shorter, friction, places), draws)
        if error <= law.tolerance:
            break
    return step_size * shorter, max(error, 0.0)
