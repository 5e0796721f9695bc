r"""Exact stationary moments of stochastic-gradient Langevin chains on quadratic potentials.

The potential is a prior and one term for each of N rows,

    U(θ) = ½ θᵀPθ − pᵀθ + Σ_i (½ θᵀA_iθ − b_iᵀθ),

the gradient of a minibatch of B rows is g_b(θ) = Pθ − p + (N/B) Σ_{i∈b} (A_iθ − b_i), and the chains are

    Euler–Maruyama       θ' = θ − h g_b(θ) + √(2hT) ξ,
    Leimkuhler–Matthews  θ' = θ − h g_b(θ) + √(hT/2) (ξ_n + ξ_{n+1}),

or kinetic, with a velocity v of unit mass and friction γ, one minibatch gradient a step:

    BAOAB                v −= (h/2) g; θ += (h/2) v; v = e^{−γh} v + √(T(1 − e^{−2γh})) ξ; θ += (h/2) v;
                         g = g_b(θ); v −= (h/2) g, the g kept for the next step,
    UBU                  U(h/2); v −= h g_b(θ); U(h/2), U the exact flow without a force.

All are linear, so that the mean and covariance are those of any such model to second order around its mode:
they tell the bias to expect of a subsampling scheme at a step size.

The bias of the kinetic ones, to leading order, at temperature 1. Rows of one Hessian, where the gradient noise
of R batches a pass has the covariance Rλ of a well-specified model, add to the variance 1/λ the fraction

    independent batches            Rhλ/(2γ),
    reshuffled                     (Rh)³λ²/(24γ), at period ends and averaged over all steps alike,
    symmetric                      (Rh)⁴λ²/30 averaged, (Rh)⁵λ²(λ + γ²)/(45γ) at period ends,
    one order for ever             (Rh)⁴λ²/720,

and UBU adds −h²λ/6 whatever the batches, BAOAB nothing. With batches of unequal Hessians H_b and gradients g_b
at the mode, and reshuffled, symmetrically or not, recorded at period ends or not, they are of second order:

    mean − mode = −(h²(R + 1)/6) H⁻¹E[δH_b δg_b],    covariance − H⁻¹ = −(h²(R + 1)/6) H⁻¹E[δH_b²]H⁻¹,

as from the potential U + (h²(R + 1)/12) tr Cov(g_b); UBU adds −h²/6 to the covariance. The heating of third order,
above, has the other sign and grows with the gradient noise: in a misspecified model it outweighs these early.

Sources: arXiv 2306.03521 (random reshuffling in Langevin dynamics), 2501.16055 (its bias), 2410.19780
(symmetric orders, kinetic integrators). The kinetic coefficients are measured in the tests.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sgworld_numpyro import _kinetic, _orders, _stationary
from sgworld_numpyro._orders import SCHEMES

__all__ = [
    "INTEGRATORS",
    "KINETIC",
    "OVERDAMPED",
    "SCHEMES",
    "LinearGaussian",
    "StationaryMoments",
    "control_variate",
    "gaussian_kl",
    "gaussian_mean",
    "linear_regression",
    "relative_covariance_error",
    "stationary_moments",
]

OVERDAMPED = tuple(_kinetic.OVERDAMPED)
KINETIC = tuple(_kinetic.KINETIC)
INTEGRATORS = (*OVERDAMPED, *KINETIC)


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


class StationaryMoments(NamedTuple):
    """Stationary mean and covariance of a chain after k steps of the scheme's period, k = 0, 1, ….

    Attributes:
        mean: mean at each phase; index 0 is the end of a period, where the next one starts.
        covariance: covariance at each phase.
        mean_error: standard error of `mean` from the sampled orders; zero when the moments are exact.
        covariance_error: standard error of `covariance` likewise.
    """

    mean: Float[np.ndarray, "steps d"]
    covariance: Float[np.ndarray, "steps d d"]
    mean_error: Float[np.ndarray, "steps d"]
    covariance_error: Float[np.ndarray, "steps d d"]

    @property
    def period_end(self) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
        """Mean and covariance of a chain recorded once a period, at its end."""
        return self.mean[0], self.covariance[0]

    @property
    def averaged(self) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
        """Mean and covariance of a chain recorded at every step, the motion of its mean included."""
        mean = self.mean.mean(0)
        moved = self.mean - mean
        return mean, self.covariance.mean(0) + moved.T @ moved / len(moved)


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


def stationary_moments(
    problem: LinearGaussian,
    scheme: str,
    integrator: str,
    step_size: float,
    batch_size: int,
    *,
    friction: float | None = None,
    temperature: float = 1.0,
    order: Int[np.ndarray, "steps batch"] | None = None,
    num_orders: int = 2000,
    seed: int = 0,
) -> StationaryMoments:
    """Mean and covariance of θ in the chain's stationary law at every step of the scheme's period.

    Exact when all rows share their Hessian, for the schemes without memory, and for a given or enumerable
    order. Otherwise the linear map of (1, θ)(1, θ)ᵀ over a period is averaged over sampled orders. With
    unequal Hessians the memory grows as period × (1 + d)⁴, and (1 + 2d)⁴ for the kinetic integrators: meant for
    d up to about 10, and 5.

    Args:
        problem: the quadratic potential.
        scheme: one of `SCHEMES`.
        integrator: one of `INTEGRATORS`.
        step_size: h, in units of 1/hessian, and of 1/√hessian for the `KINETIC` integrators.
        batch_size: rows in a minibatch, 1 to N; "full_batch" takes them all whatever it is.
        friction: γ of the kinetic integrators, in units of √hessian; they need one, the `OVERDAMPED` have none.
        temperature: T of the injected noise; 0 gives plain stochastic gradient descent.
        order: the realised rows of each minibatch of the period (steps, batch_size), for "shuffle_once" and
            "cyclic", or the partition (N/batch_size, batch_size) for "batch_reshuffle". The moments are then
            those of that one chain. By default "cyclic" takes the rows as they lie, and the other two average
            over chains, the spread of the chains' means included.
        num_orders: how many orders to sample where more than 5000 are possible.
        seed: of that sample.

    Returns:
        Moments at each step of the period: one for the schemes without memory, N/gcd(N, batch_size) for the
        reshuffled ones, twice as many for "symmetric_reshuffle".

    Raises:
        ValueError: if an argument is out of range, or the step size too large for a stationary covariance.
    """
    if integrator not in INTEGRATORS:
        raise ValueError(f"integrator={integrator!r} is unknown; choose one of {', '.join(INTEGRATORS)}")
    _check_numbers(problem, integrator, step_size, temperature, num_orders)
    damping = _kinetic.checked_friction(integrator, friction, np.linalg.eigvalsh(problem.hessian).min())
    num_rows = problem.num_rows
    batch_size = _orders.checked_batch_size(scheme, num_rows, batch_size)
    order = _orders.checked_order(order, scheme, num_rows, batch_size)
    chain = _stationary.Chain(scheme, integrator, step_size, batch_size, temperature, damping, order)
    try:
        if problem.equal_hessians:
            offset, *others = _stationary.equal_hessians(problem.hessian, problem.row_shifts, chain)
        else:
            offset, *others = _stationary.unequal_hessians(*_centred_rows(problem), chain, num_orders, seed)
    except _stationary.NoStationaryLaw:
        raise ValueError(_instability(problem, chain)) from None
    return StationaryMoments(problem.mean + offset, *others)


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


def _centred_rows(
    problem: LinearGaussian,
) -> tuple[Float[np.ndarray, "rows d d"], Float[np.ndarray, "rows d"]]:
    """Hessian and gradient at the mode of the potential in which one row stands for all of them."""
    hessians = problem.prior_precision + problem.num_rows * problem.row_hessians
    shifts = problem.prior_shift + problem.num_rows * problem.row_shifts
    return hessians, hessians @ problem.mean - shifts


def _instability(problem: LinearGaussian, chain: _stationary.Chain) -> str:
    kinetic = chain.integrator in KINETIC
    over = "2/√" if kinetic else "2/"
    limit = _kinetic.stable_below(chain.integrator, np.linalg.eigvalsh(problem.hessian).max())
    bound = f"{over}λ_max(hessian)"
    if chain.step_size < limit:
        # The mean converges, but the spread under batches of unequal Hessians does not.
        hessians, _ = _centred_rows(problem)
        limit = _kinetic.stable_below(chain.integrator, np.linalg.eigvalsh(hessians).max())
        bound = f"{over}max_i λ_max(P + N A_i)"
        if kinetic:
            # Kicks in proportion to θ heat the chain, and only friction cools it.
            apart = hessians - hessians.mean(0)
            heating = problem.covariance @ (apart @ apart).mean(0) / chain.batch_size
            limit = min(limit, 2 * chain.friction / np.linalg.eigvals(heating).real.max())
            bound = f"the smaller of {bound} and 2γ/λ_max(H⁻¹ E[δH_b²])"
    return (
        f"step_size={chain.step_size} is too large: with scheme={chain.scheme!r} there is no stationary covariance; "
        f"stay below the largest stable step size, about {bound} = {limit:.6g}"
    )


def _check_numbers(
    problem: LinearGaussian, integrator: str, step_size: float, temperature: float, num_orders: int
) -> None:
    if not step_size > 0:
        scale = "√λ_max" if integrator in KINETIC else "λ_max"
        raise ValueError(f"step_size={step_size} must be positive; try 0.1/{scale}(problem.hessian)")
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} must not be negative; pass 1.0 to sample the posterior")
    if num_orders < 1:
        raise ValueError(f"num_orders={num_orders} must be positive; leave it out for the default")
    if not np.linalg.eigvalsh(problem.hessian).min() > 0:
        raise ValueError("problem.hessian is not positive definite: no posterior; use a proper prior")
