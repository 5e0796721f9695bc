"""Entropy production of a stationary chain: how much likelier its transitions are than their reversals.

All methods rest on the linear description (``fit_linear_dynamics``), with v(x) = −C Σ⁻¹ (x − m) the velocity of the
probability, D = Q/2 and C the area matrix:

- ``"ar1"``: σ = ln [p(x) P(x'|x)] / [p(x') P(x|x')], the log-ratio itself, for steps of any size;
- ``"ito"``: σ = v(x)ᵀ D⁻¹ (x' − x), the form of arXiv 2306.03521. It takes time as continuous: Σ and C solve
  (1 − A) Σ + Σ (1 − A)ᵀ = Q. Its integral theorem is exact at any step size, its rate is too large at large steps;
- ``"stratonovich"``: σ = v((x + x')/2)ᵀ D⁻¹ (x' − x), which agrees with the others as steps become small.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from sgworld_numpyro.nonequilibrium.autoregression import (
    Fits,
    LinearDynamics,
    check_full_rank,
    fit_linear_dynamics,
    least_squares,
    stationary_covariance,
    transposed,
)
from sgworld_numpyro.nonequilibrium.moments import (
    Draws,
    LaggedMoments,
    as_draws,
    exceedance,
    jackknife,
    lagged_moments,
    random_reversals,
)

Method = Literal["ar1", "ito", "stratonovich"]


class EntropyProduction(NamedTuple):
    """Entropy production, in nats per recorded transition.

    Attributes:
        sigma: of every transition, of shape (chain, draw − 1); None if only moments were given. Sums over successive
            transitions are the entropy production of longer stretches.
        rate: its mean in the stationary state, with the bias of the fit removed to first order in d²/transitions,
            so that it can come out below 0. Read it beside ``null_rate``, where that order is not enough.
        rate_error: standard error of ``rate``. Near 0 the rate is far from Gaussian: let ``p_value`` decide there.
        null_rate: mean rate, bias removed alike, of the same chain with blocks of it read backwards at random.
        p_value: how often a chain in detailed balance would show as large a rate.

    The last three are NaN where the dynamics were given.
    """

    sigma: Float[np.ndarray, "chain transition"] | None
    rate: float
    rate_error: float
    null_rate: float
    p_value: float


def entropy_production(
    x: Draws | LaggedMoments,
    method: Method = "ar1",
    *,
    kinetic: tuple[int, ...] = (),
    dynamics: LinearDynamics | None = None,
    blocks: int = 64,
    surrogates: int = 199,
    seed: int = 0,
) -> EntropyProduction:
    """Entropy production per transition of a stationary chain.

    For ``"ar1"`` the rate is the relative entropy between (x_t, x_{t+1}) and the reversed pair, ½ tr(J_rev⁻¹ J) − d
    with their covariances J and J_rev. A fit makes it too large, by d(d − 1)/T for T transitions near equilibrium; what
    the jackknife says of it is subtracted, or that where there are fewer than 16 blocks.

    Args:
        x: draws (chain, draw, dim), one a period of the scheme, or their ``LaggedMoments``.
        method: how a transition's entropy production is defined; see the module.
        kinetic: numbers of the coordinates that change sign when time is reversed (momenta), from their mean: momenta
            that drift are not counted as entropy production. Only with ``"ar1"``.
        dynamics: what to use in place of a fit to ``x``: that of the whole run where ``x`` is a chunk of it, or
            ``linear_dynamics`` that are predicted. The rate is then that of these dynamics.
        blocks: into how many blocks to cut the draws; each must be much longer than the relaxation time.
        surrogates: how many random reversals of blocks make the null.
        seed: seed of the reversals.

    Raises:
        ValueError: for an unknown method, a coordinate that does not exist, and where the linear description fails: too
            few transitions, dynamics that do not contract, noise that is singular.
    """
    if isinstance(x, LaggedMoments):
        draws, dim = None, x.dim
    else:
        draws = as_draws(x)
        dim = draws.shape[2]
    parity = _parity(kinetic, method, dim)
    if dynamics is not None and len(dynamics.mean) != dim:
        raise ValueError(f"dynamics of {len(dynamics.mean)} dimensions, draws of {dim}; fit or predict them alike.")
    if dynamics is not None:
        forms = _forms(dynamics, method, parity)
        rate = float(_rate(dynamics, forms))
        return EntropyProduction(_sigma(draws, dynamics, forms), rate, np.nan, np.nan, np.nan)

    moments = x if isinstance(x, LaggedMoments) else lagged_moments(x, blocks)
    dynamics = fit_linear_dynamics(moments.pooled())
    forms = _forms(dynamics, method, parity)
    if surrogates < 1:
        raise ValueError(f"surrogates={surrogates}; want at least 1, and 199 for p-values down to 0.005.")

    def plug_in(parts):
        fits = least_squares(parts)
        return _rate(fits, _forms(fits, method, parity))

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
    x: Draws, method: Method = "ar1", *, kinetic: tuple[int, ...] = ()
) -> Float[np.ndarray, "chain transition"]:
    """Entropy production of each half of a run, of dynamics that were fitted to the other half.

    For the fluctuation theorems: of dynamics fitted to the same draws, mean and variance of σ agree with them
    whatever the truth, if only the draws are Gaussian. The halves are every other chain, or of a single chain the
    first and the second half.

    Args:
        x: draws (chain, draw, dim).
        method: as in ``entropy_production``.
        kinetic: likewise.

    Raises:
        ValueError: as ``entropy_production``.
    """
    x = as_draws(x)
    parity = _parity(kinetic, method, x.shape[2])
    if len(x) > 1:
        sigma = np.empty((x.shape[0], x.shape[1] - 1))
        for here in (0, 1):
            fit = fit_linear_dynamics(x[1 - here :: 2])
            sigma[here::2] = _sigma(x[here::2], fit, _forms(fit, method, parity))
        return sigma
    first, second = x[:, : x.shape[1] // 2 + 1], x[:, x.shape[1] // 2 :]
    return np.concatenate(
        [
            _sigma(here, fit, _forms(fit, method, parity))
            for here, fit in ((first, fit_linear_dynamics(second)), (second, fit_linear_dynamics(first)))
        ],
        axis=1,
    )


class _Forms(NamedTuple):
    """σ = xᵀ now x + x'ᵀ after x' + x'ᵀ cross x, from the mean: every method's σ is quadratic."""

    now: Float[np.ndarray, "*fits dim dim"]
    after: Float[np.ndarray, "*fits dim dim"]
    cross: Float[np.ndarray, "*fits dim dim"]


def _forms(dynamics: LinearDynamics | Fits, method: Method, parity: Float[np.ndarray, "dim"]) -> _Forms:
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
        return _Forms(
            (reverse_precision - transposed(propagator) @ precision @ propagator - stiffness) / 2,
            (transposed(reverse) @ reverse_precision @ reverse - precision + stiffness * flip) / 2,
            precision @ propagator - transposed(reverse) @ reverse_precision,
        )
    drift = np.eye(len(parity)) - propagator
    covariance = _continuous_covariance(drift, noise)
    areas = (drift @ covariance - covariance @ transposed(drift)) / 2
    force = -2 * precision @ areas @ np.linalg.inv(covariance)  # D⁻¹ v, per displacement
    if method == "ito":
        return _Forms(-force, np.zeros_like(force), force)
    return _Forms(-force / 2, force / 2, (force - transposed(force)) / 2)


def _continuous_covariance(drift, noise):
    """The solution of M Σ + Σ Mᵀ = Q, through Cayley's transform of M to a map that contracts."""
    rate = np.trace(drift, axis1=-2, axis2=-1)[..., None, None] / drift.shape[-1] * np.eye(drift.shape[-1])
    inverse = np.linalg.inv(rate + drift)
    return stationary_covariance((rate - drift) @ inverse, 2 * rate @ inverse @ noise @ transposed(inverse))


def _rate(dynamics: LinearDynamics | Fits, forms: _Forms) -> Float[np.ndarray, "*fits"]:
    """The mean of σ in the stationary state of the dynamics."""
    covariance = dynamics.covariance
    mean = (forms.now + forms.after) @ covariance + forms.cross @ covariance @ transposed(dynamics.A)
    return np.trace(mean, axis1=-2, axis2=-1)


def _sigma(draws: Draws | None, dynamics: LinearDynamics, forms: _Forms):
    if draws is None:
        return None
    sigma = np.empty((draws.shape[0], draws.shape[1] - 1))
    for chain, of_chain in zip(draws, sigma, strict=True):  # one by one: what is computed between stays in the cache
        offset = chain - dynamics.mean
        now, after = offset[:-1], offset[1:]
        of_chain[:] = np.einsum("td,td->t", now, now @ forms.now + after @ forms.cross)
        of_chain += np.einsum("td,td->t", after, after @ forms.after)
    return sigma


def _parity(kinetic, method, dim):
    if method not in get_args(Method):
        raise ValueError(f"method={method!r} is unknown; choose one of {', '.join(map(repr, get_args(Method)))}.")
    parity = np.ones(dim)
    if not kinetic:
        return parity
    if method != "ar1":
        raise ValueError(f"method={method!r} knows no momenta; a kinetic chain wants method='ar1'.")
    wrong = [k for k in kinetic if not 0 <= k < dim]
    if wrong:
        raise ValueError(f"kinetic={tuple(kinetic)!r} names coordinate {wrong[0]}; the draws have 0 to {dim - 1}.")
    parity[list(kinetic)] = -1
    return parity
