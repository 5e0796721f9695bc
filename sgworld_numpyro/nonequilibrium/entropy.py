"""Entropy production of a stationary chain: how much likelier its transitions are than their reversals.

By the linear description (``fit_linear_dynamics``) in the three definitions of ``log_ratios``, or by ``"currents"``,
which takes nothing for granted but a stationary Markov chain: see ``variational``.
"""

import warnings
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from sgworld_numpyro.nonequilibrium.assumptions import check_assumptions
from sgworld_numpyro.nonequilibrium.autoregression import (
    LinearDynamics,
    fit_linear_dynamics,
    least_squares,
)
from sgworld_numpyro.nonequilibrium.basis import Functions, current_basis
from sgworld_numpyro.nonequilibrium.draws import Draws, as_draws, halves, joined
from sgworld_numpyro.nonequilibrium.log_ratios import LinearMethod, forms_of, mean_of_forms, values_of_forms
from sgworld_numpyro.nonequilibrium.moments import (
    LaggedMoments,
    exceedance,
    jackknife,
    lagged_moments,
    random_reversals,
)
from sgworld_numpyro.nonequilibrium.variational import current_bound, unseen

Method = LinearMethod | Literal["currents"]
METHODS = (*get_args(LinearMethod), "currents")

RELAXATIONS_OF_A_BLOCK = 10
MAX_UNSEEN = 0.2  # of the transitions may be more against reversal than any that was seen along it


class LinearDescriptionWarning(UserWarning):
    """Draws that the linear description does not describe were measured by it."""


class EntropyProduction(NamedTuple):
    """Entropy production, in nats per recorded transition.

    Attributes:
        sigma: of every transition, of shape (chain, draw − 1); None if only moments were given. Sums over successive
            transitions are the entropy production of longer stretches. By ``"currents"`` it is held out, see
            ``held_out_sigma``.
        rate: its mean in the stationary state, with the bias of the fit removed to first order in parameters over
            transitions, so that it can come out below 0. Read it beside ``null_rate``, where that order is not enough.
            NaN where reversals are too rare for ``"currents"``.
        rate_error: standard error of ``rate``. Near 0 the rate is far from Gaussian: let ``p_value`` decide there.
        null_rate: mean rate, bias removed alike, of the same chain with blocks of it read backwards at random.
        p_value: how often a chain in detailed balance would show as large a rate.
        order: degree of the functions φ of the position that ``"currents"`` chose; 1 of every other method.

    ``rate_error``, ``null_rate`` and ``p_value`` are NaN where the dynamics were given.
    """

    sigma: Float[np.ndarray, "chain transition"] | None
    rate: float
    rate_error: float
    null_rate: float
    p_value: float
    order: int = 1


def entropy_production(
    x: Draws | LaggedMoments,
    method: Method = "ar1",
    *,
    order: int = 3,
    basis: Functions | None = None,
    kinetic: tuple[int, ...] = (),
    dynamics: LinearDynamics | None = None,
    blocks: int = 64,
    surrogates: int = 199,
    seed: int = 0,
) -> EntropyProduction:
    """Entropy production per transition of a stationary chain.

    The default is exact for linear chains and misses what others produce: ``"currents"`` measures any chain. It gives
    the largest lower bound on the rate that a basis of currents ½ [φ(x) + φ(x')] (x' − x) shows, which is the rate
    itself where they span σ, as at order 1 of a linear chain. Its errors grow with the rate: beyond a nat a transition
    record more often.

    For ``"ar1"`` the rate is the relative entropy between (x_t, x_{t+1}) and the reversed pair, ½ tr(J_rev⁻¹ J) − d
    with their covariances J and J_rev. A fit makes it too large, by d(d − 1)/T for T transitions near equilibrium; what
    the jackknife says of it is subtracted, or that where there are fewer than 16 blocks.

    Args:
        x: draws (chain, draw, dim), one a period of the scheme, or their ``LaggedMoments``.
        method: how a transition's entropy production is defined; see ``log_ratios`` and ``variational``.
        order: largest degree of the monomials φ of ``"currents"``. Of those up to it the one is taken that shows most
            of the half of the draws that it was not fitted to.
        basis: functions φ of your own for ``"currents"``: of an array of positions (n, dim), in the units of the draws,
            an array (n, functions). See ``radial_functions``.
        kinetic: numbers of the coordinates that change sign when time is reversed (momenta), from their mean: momenta
            that drift are not counted as entropy production. Only with ``"ar1"`` and ``"currents"``.
        dynamics: what to use in place of a fit to ``x``: that of the whole run where ``x`` is a chunk of it, or
            ``linear_dynamics`` that are predicted. The rate is then that of these dynamics.
        blocks: into how many blocks to cut the draws; each must be much longer than the relaxation time.
        surrogates: how many random reversals of blocks make the null.
        seed: seed of the reversals.

    Raises:
        ValueError: for an unknown method, a coordinate that does not exist, and where the method fails: too few
            transitions, dynamics that do not contract, noise that is singular, too many currents.

    Warns:
        LinearDescriptionWarning: if the draws show that the linear description, on which ``method`` rests, fails.
        UserWarning: if reversals are too rare for ``"currents"``.
    """
    if isinstance(x, LaggedMoments):
        draws, dim = None, x.dim
    else:
        draws = as_draws(x)
        dim = draws.shape[2]
    parity = _parity(kinetic, method, dim)
    if method == "currents":
        if draws is None or dynamics is not None:
            given = "moments of draws" if draws is None else "dynamics"
            raise ValueError(f"method='currents' is measured on draws (chain, draw, dim), not by {given}.")
        return _by_currents(draws, current_basis(draws, order, basis, parity), blocks, surrogates, seed)
    if dynamics is not None and len(dynamics.mean) != dim:
        raise ValueError(f"dynamics of {len(dynamics.mean)} dimensions, draws of {dim}; fit or predict them alike.")
    if dynamics is not None:
        forms = forms_of(dynamics, method, parity)
        rate = float(mean_of_forms(dynamics, forms))
        return EntropyProduction(_sigma(draws, dynamics, forms), rate, np.nan, np.nan, np.nan)

    moments = x if isinstance(x, LaggedMoments) else lagged_moments(x, blocks)
    dynamics = fit_linear_dynamics(moments.pooled())
    forms = forms_of(dynamics, method, parity)
    if surrogates < 1:
        raise ValueError(_FEW_SURROGATES.format(surrogates))
    if draws is not None:
        _warn_of_others(draws, dynamics, len(moments.length))

    def plug_in(parts):
        fits = least_squares(parts)
        return mean_of_forms(fits, forms_of(fits, method, parity))

    estimate = jackknife(plug_in, moments)
    bias = float(estimate.bias)
    if len(moments.length) < 16 or not np.isfinite(bias):
        bias = dim * (dim - 1) / moments.transitions
    reversals = random_reversals(len(moments.length), surrogates, seed)
    null = plug_in(moments.reversals(reversals, parity))
    return EntropyProduction(
        _sigma(draws, dynamics, forms),
        float(estimate.value) - bias,
        float(estimate.error),
        float(np.mean(null[np.isfinite(null)])) - bias if np.isfinite(null).any() else np.nan,
        exceedance(float(estimate.value), null),
    )


def held_out_sigma(
    x: Draws,
    method: Method = "ar1",
    *,
    order: int = 3,
    basis: Functions | None = None,
    kinetic: tuple[int, ...] = (),
) -> Float[np.ndarray, "chain transition"]:
    """Entropy production of each half of a run, of dynamics that were fitted to the other half.

    For the fluctuation theorems: of dynamics fitted to the same draws, mean and variance of σ agree with them
    whatever the truth, if only the draws are Gaussian. The halves are every other chain, or of a single chain the
    first and the second half.

    Args:
        x: draws (chain, draw, dim).
        method: as in ``entropy_production``.
        order: likewise.
        basis: likewise.
        kinetic: likewise.

    Raises:
        ValueError: as ``entropy_production``.
    """
    x = as_draws(x)
    parity = _parity(kinetic, method, x.shape[2])
    if method == "currents":
        bound = current_bound(x, current_basis(x, order, basis, parity), blocks=1, surrogates=1, seed=0)
        return bound.sigma
    pair = halves(x)
    fits = [fit_linear_dynamics(half) for half in pair[::-1]]
    sigma = [values_of_forms(half, fit, forms_of(fit, method, parity)) for half, fit in zip(pair, fits, strict=True)]
    return joined(*sigma, chains=len(x))


def _by_currents(draws, basis, blocks, surrogates, seed):
    if surrogates < 1:
        raise ValueError(_FEW_SURROGATES.format(surrogates))
    found = current_bound(draws, basis, blocks=blocks, surrogates=surrogates, seed=seed)
    rate, error, lacking = found.rate, found.rate_error, unseen(found.sigma)
    if lacking > MAX_UNSEEN:
        warnings.warn(
            f"reversals are too rare: {100 * lacking:.0f} % of the transitions are more against them than any that was "
            "seen, so that the rate is NaN, and larger than these draws can show. Record more often, with fewer steps "
            "between draws; where check_assumptions(x) finds nothing, take method='ar1'.",
            stacklevel=3,
        )
        rate = error = np.nan
    return EntropyProduction(found.sigma, rate, error, found.null_rate, found.p_value, found.level + 1)


_FEW_SURROGATES = "surrogates={}; want at least 1, and 199 for p-values down to 0.005."


def _warn_of_others(draws, dynamics, blocks):
    """Warn of draws that the linear description does not describe, by blocks that are long enough to be sure."""
    long_enough = int(dynamics.transitions / (RELAXATIONS_OF_A_BLOCK * max(dynamics.relaxation_time, 1.0)))
    found = check_assumptions(draws, dynamics=dynamics, blocks=max(2, min(blocks, long_enough)))
    if found.nonlinear:
        warnings.warn(
            f"the linear description fails, and the rate by it can be far too small. {found.nonlinear[0]} Use "
            "entropy_production(x, method='currents').",
            LinearDescriptionWarning,
            stacklevel=3,
        )


def _sigma(draws, dynamics, forms):
    return None if draws is None else values_of_forms(draws, dynamics, forms)


def _parity(kinetic, method, dim):
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown; choose one of {', '.join(map(repr, METHODS))}.")
    parity = np.ones(dim)
    if not kinetic:
        return parity
    if method not in ("ar1", "currents"):
        raise ValueError(f"method={method!r} knows no momenta; a kinetic chain wants method='ar1' or 'currents'.")
    wrong = [k for k in kinetic if not 0 <= k < dim]
    if wrong:
        raise ValueError(f"kinetic={tuple(kinetic)!r} names coordinate {wrong[0]}; the draws have 0 to {dim - 1}.")
    parity[list(kinetic)] = -1
    return parity
