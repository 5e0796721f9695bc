"""How far from the target, by what the drift is wrong: relative Fisher information and entropy production.

A diffusion dx = f dt + √(2D) dW with stationary density p, and a target density π of score s = ∇ ln π. Its drift error
e = f − ∇·D − D s splits into two parts that cannot be negative (arXiv 2306.03521; THEORY for the discrete chain)::

    E|e|²_{D⁻¹} = E|∇ ln p − s|²_D + entropy production

since e = v + D (∇ ln p − s) with the velocity v of the probability, and E v·∇ ln(p/π) = 0 in a stationary state. The
entropy production alone says nothing of the bias.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sgworld_numpyro.nonequilibrium.draws import as_draws
from sgworld_numpyro.nonequilibrium.moments import time_blocks


class RelativeFisherDecomposition(NamedTuple):
    """The parts of the drift error, in nats per unit of time.

    Attributes:
        drift_error: E|e|²_{D⁻¹}, the sum of the other two.
        drift_error_error: its standard error.
        relative_fisher: E|∇ ln p − s|²_D, the relative Fisher information.
        relative_fisher_error: its standard error, that of the entropy production included.
        entropy_production: as given.
        kl_bound: upper bound on KL(p ‖ π) in nats, from ``relative_fisher`` and two of its standard errors; NaN
            without a log-Sobolev constant.
    """

    drift_error: float
    drift_error_error: float
    relative_fisher: float
    relative_fisher_error: float
    entropy_production: float
    kl_bound: float


def relative_fisher_decomposition(
    drift: Float[np.ndarray, "chain draw dim"],
    score: Float[np.ndarray, "chain draw dim"],
    diffusion: Float[np.ndarray, "*chain_draw dim dim"],
    entropy_production: float,
    entropy_production_error: float = 0.0,
    *,
    divergence: Float[np.ndarray, "chain draw dim"] | None = None,
    log_sobolev: float | None = None,
    blocks: int = 64,
) -> RelativeFisherDecomposition:
    """Relative Fisher information of a stationary chain to its target, from drift error and entropy production.

    Args:
        drift: f at the draws, per unit of time: −∇U for a step of −h∇U in the time h.
        score: ∇ ln π of the target at the draws; −∇U for the posterior.
        diffusion: D in the same units, of shape (dim, dim), or (chain, draw, dim, dim) at the draws; 1 + (h/2) V for
            SGLD.
        entropy_production: in nats per unit of time: the rate per transition divided by the time of one.
        entropy_production_error: its standard error.
        divergence: Σ_j ∂_j D_ij at the draws; needed where D depends on the position.
        log_sobolev: ρ of the target with KL ≤ E|∇ ln p − s|² / (2ρ); for a target with ∇²U ≥ ρ everywhere, that ρ.
        blocks: into how many blocks to cut the draws for the standard error.

    Raises:
        ValueError: for shapes that do not fit, a diffusion that is not positive definite, or one that depends on the
            position without its divergence.
    """
    drift, score, diffusion = as_draws(drift), as_draws(score), np.asarray(diffusion, float)
    dim = drift.shape[2]
    if score.shape != drift.shape:
        raise ValueError(f"score has shape {score.shape} and drift {drift.shape}; want both at the same draws.")
    varies = diffusion.ndim > 2
    if diffusion.shape != ((*drift.shape, dim) if varies else (dim, dim)):
        raise ValueError(f"diffusion has shape {diffusion.shape}; want ({dim}, {dim}) or {(*drift.shape, dim)}.")
    if varies and divergence is None:
        raise ValueError("diffusion depends on the position: give its divergence Σ_j ∂_j D_ij at the draws as well.")
    smallest = float(np.linalg.eigvalsh(diffusion).min())
    if not smallest > 0:
        raise ValueError(f"diffusion has the eigenvalue {smallest:.3g}; want it positive definite.")
    wrong = drift - np.einsum("...ij,...j->...i", diffusion, score)
    if divergence is not None:
        wrong = wrong - as_draws(divergence)
    square = np.einsum("cti,cti->ct", wrong, np.linalg.solve(diffusion, wrong[..., None])[..., 0])
    means = np.array([square[cut].mean() for cut in time_blocks(square.shape, blocks)])
    total = float(square.mean())
    error = float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else np.nan
    fisher = total - entropy_production
    fisher_error = float(np.hypot(error, entropy_production_error))
    bound = np.nan if log_sobolev is None else max(fisher + 2 * fisher_error, 0.0) / (2 * log_sobolev * smallest)
    return RelativeFisherDecomposition(total, error, fisher, fisher_error, float(entropy_production), bound)
