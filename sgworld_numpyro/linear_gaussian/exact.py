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

from sgworld_numpyro.integrators import Integrator, NamedIntegrator
from sgworld_numpyro.linear_gaussian import orders, stationary, steps
from sgworld_numpyro.linear_gaussian.problem import LinearGaussian
from sgworld_numpyro.subsampling import SubsamplingScheme


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


def stationary_moments(
    problem: LinearGaussian,
    scheme: SubsamplingScheme,
    integrator: Integrator,
    step_size: float,
    batch_size: int,
    *,
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
        scheme: one of the package's, ``RandomReshuffle()`` say. The seed of a ``BatchReshuffle`` or a
            ``RunReshuffle`` does not matter.
        integrator: one of the package's; a kinetic one with its friction γ, ``BAOAB(friction=20.0)``, in units of
            √hessian. Its noise does not matter.
        step_size: h, in units of 1/hessian, and of 1/√hessian for the kinetic integrators.
        batch_size: rows in a minibatch, 1 to N; ``FullBatch()`` takes them all whatever it is.
        temperature: T of the injected noise; 0 gives plain stochastic gradient descent.
        order: the realised rows of each minibatch of the period (steps, batch_size), for ``ShuffleOnce`` and
            ``Cyclic``, or the partition that is reshuffled: (N/batch_size, batch_size) for ``BatchReshuffle``, (N/L, L)
            for ``RunReshuffle`` with runs of L rows. The moments are then those of that one chain. By default
            ``Cyclic`` takes the rows as they lie, and the other three average over chains, the spread of the chains'
            means included.
        num_orders: how many orders to sample where more than 5000 are possible.
        seed: of that sample.

    Returns:
        Moments at each step of the period: one for the schemes without memory, N/gcd(N, batch_size) for the
        reshuffled ones, twice as many for ``SymmetricReshuffle``.

    Raises:
        TypeError: for a scheme or an integrator that is none, such as its name or its class.
        ValueError: if the law of one's own scheme or integrator is asked for, a kinetic integrator has no friction,
            an argument is out of range, or the step size too large for a stationary covariance.
    """
    scheme, integrator = orders.checked_scheme(scheme), steps.checked_integrator(integrator)
    _check_numbers(problem, integrator, step_size, temperature, num_orders)
    friction = steps.checked_friction(integrator, np.linalg.eigvalsh(problem.hessian).min())
    num_rows = problem.num_rows
    batch_size = orders.checked_batch_size(num_rows, batch_size)
    order = orders.checked_order(order, scheme, num_rows, batch_size)
    chain = stationary.Process(scheme, integrator, step_size, batch_size, temperature, friction, order)
    try:
        if problem.equal_hessians:
            offset, *others = stationary.equal_hessians(problem.hessian, problem.row_shifts, chain)
        else:
            offset, *others = stationary.unequal_hessians(*_centred_rows(problem), chain, num_orders, seed)
    except stationary.NoStationaryLaw:
        raise ValueError(_instability(problem, chain)) from None
    return StationaryMoments(problem.mean + offset, *others)


def _centred_rows(
    problem: LinearGaussian,
) -> tuple[Float[np.ndarray, "rows d d"], Float[np.ndarray, "rows d"]]:
    """Hessian and gradient at the mode of the potential in which one row stands for all of them."""
    hessians = problem.prior_precision + problem.num_rows * problem.row_hessians
    shifts = problem.prior_shift + problem.num_rows * problem.row_shifts
    return hessians, hessians @ problem.mean - shifts


def _instability(problem: LinearGaussian, chain: stationary.Process) -> str:
    kinetic = chain.integrator.kinetic
    over = "2/√" if kinetic else "2/"
    limit = steps.stable_below(chain.integrator, np.linalg.eigvalsh(problem.hessian).max())
    bound = f"{over}λ_max(hessian)"
    if chain.step_size < limit:
        # The mean converges, but the spread under batches of unequal Hessians does not.
        hessians, _ = _centred_rows(problem)
        limit = steps.stable_below(chain.integrator, np.linalg.eigvalsh(hessians).max())
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
    problem: LinearGaussian, integrator: NamedIntegrator, step_size: float, temperature: float, num_orders: int
) -> None:
    if not step_size > 0:
        scale = "√λ_max" if integrator.kinetic else "λ_max"
        raise ValueError(f"step_size={step_size} must be positive; try 0.1/{scale}(problem.hessian)")
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} must not be negative; pass 1.0 to sample the posterior")
    if num_orders < 1:
        raise ValueError(f"num_orders={num_orders} must be positive; leave it out for the default")
    if not np.linalg.eigvalsh(problem.hessian).min() > 0:
        raise ValueError("problem.hessian is not positive definite: no posterior; use a proper prior")
