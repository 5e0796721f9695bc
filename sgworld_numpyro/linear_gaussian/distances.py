"""How far one normal law is from another."""

import numpy as np
from jaxtyping import Float


def gaussian_kl(
    mean: Float[np.ndarray, "*phases d"],
    covariance: Float[np.ndarray, "*phases d d"],
    target_mean: Float[np.ndarray, " d"],
    target_covariance: Float[np.ndarray, "d d"],
) -> Float[np.ndarray, "*phases"]:
    """Kullback–Leibler divergence KL(chain ‖ posterior) between two normal laws.

    With e_j the eigenvalues of L⁻¹(covariance − target)L⁻ᵀ, target = LLᵀ, and δ the difference of the means,

        KL = ½ Σ_j (e_j − log(1 + e_j)) + ½ |L⁻¹δ|²,

    which keeps its digits for a chain that is almost right.

    Args:
        mean: mean of the chain; leading axes, such as the phases of `StationaryMoments`, are mapped over.
        covariance: covariance of the chain.
        target_mean: mean of the posterior.
        target_covariance: covariance of the posterior, at the chain's temperature.

    Returns:
        The divergence in nats.
    """
    excess = np.linalg.eigvalsh(_whitened(covariance - target_covariance, target_covariance))
    offset = np.linalg.solve(np.linalg.cholesky(target_covariance), (mean - target_mean)[..., None])[..., 0]
    return ((excess - np.log1p(excess)).sum(-1) + (offset**2).sum(-1)) / 2


def relative_covariance_error(
    covariance: Float[np.ndarray, "*phases d d"], target_covariance: Float[np.ndarray, "d d"]
) -> Float[np.ndarray, "*phases"]:
    """Error of a covariance as a fraction of the target: ‖L⁻¹(covariance − target)L⁻ᵀ‖_F / √d, target = LLᵀ.

    It does not depend on the coordinates: the root mean square, over the d directions in which the two
    covariances are diagonal together, of the relative error of the variance.

    Args:
        covariance: covariance of the chain; leading axes are mapped over.
        target_covariance: covariance of the posterior.
    """
    excess = _whitened(covariance - target_covariance, target_covariance)
    return np.linalg.norm(excess, axis=(-2, -1)) / np.sqrt(excess.shape[-1])


def _whitened(difference: np.ndarray, target_covariance: np.ndarray) -> np.ndarray:
    factor = np.linalg.cholesky(target_covariance)
    return np.linalg.solve(factor, np.linalg.solve(factor, difference).mT)
