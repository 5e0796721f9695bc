"""The local learning coefficient of a minimum: how fast the volume of low loss around it grows."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from jaxtyping import Float

from sgworld_numpyro.kernel import StochasticGradientKernel
from sgworld_numpyro.learning_coefficient.reliability import Mean, complaints, over_chains, tell, tie_slope
from sgworld_numpyro.learning_coefficient.tied_chains import TiedChains
from sgworld_numpyro.learning_coefficient.trials import choose_step

MIN_CHAINS = 4  # of fewer the error, which comes from their differences, is hardly known
MIN_SAMPLES = 4


class LearningCoefficient(NamedTuple):
    """An estimate of λ, and what speaks for and against it.

    Attributes:
        value: λ̂, the mean over chains.
        error: its standard error, from the differences between chains.
        by_chain: λ̂ of each.
        excess: nβ (L − L(w₀)) of each draw, whose mean is λ̂, in nats: to be looked at for drift.
        distance: root mean square of |w − w₀|, over all coordinates together.
        tie_slope: dλ̂ / d ln γ, with its standard error: how much the tie decides.
        temperature: that of the chains, by what it should be, with its standard error: 1 unless the step is too long or
            the chains have not come to rest.
        step_size: h; a schedule if the kernel has one.
        friction: of a kinetic integrator; None of others.
        gradients: minibatch gradients that all chains took, trials and warm-up included.
        complaints: what the ``LearningCoefficientWarning`` said; empty if nothing.
    """

    value: float
    error: float
    by_chain: Float[np.ndarray, "chain"]
    excess: Float[np.ndarray, "chain draw"]
    distance: float
    tie_slope: Mean
    temperature: Mean
    step_size: Any
    friction: float | None
    gradients: int
    complaints: tuple[str, ...]

    def __str__(self) -> str:
        """One line, and the complaints."""
        first = (
            f"λ = {self.value:.3g} ± {self.error:.2g} (tie: {self.tie_slope.value:+.2g} a factor e of γ; temperature "
            f"{self.temperature.value:.2f} ± {self.temperature.error:.2f})"
        )
        return "\n".join([first, *self.complaints])


def local_learning_coefficient(
    kernel: StochasticGradientKernel,
    rng_key: Array,
    *args: Any,
    at: Mapping[str, Any],
    localisation: float,
    num_warmup: int,
    num_samples: int,
    num_chains: int = 8,
    temperature: float | None = None,
    **kwargs: Any,
) -> LearningCoefficient:
    """λ̂ = nβ (E[L] − L(w₀)) over the law e^{−nβ L(w) − γ|w − w₀|²/2}, from chains that start at w₀.

    L is the mean negative log-likelihood of a row, in nats; w are the unconstrained coordinates, and the tie takes the
    place of their priors. A regular minimum in d dimensions has λ = d/2; the flatter, the less. L is taken of all n
    rows at every draw, which are the kernel's samples: by default one a pass.

    Where the kernel has no step size, it is the largest whose predicted bias is within ``bias_tolerance``, for the
    curvatures that the chains meet. A kinetic integrator's friction is then between what the stiffest direction and
    what the tie asks for; with a step size given and no friction, the latter. Coordinates are taken as they are: no
    preconditioner is learnt.

    Args:
        kernel: as for ``MCMC``, such as ``SGWORLD(model)``; its model, scheme, integrator, and step size if it has one.
            Its ``temperature``, ``keep`` and ``average`` are not used.
        rng_key: one key.
        args: the model's.
        at: w₀, unconstrained values by site, at a minimum of the loss.
        localisation: γ, per square of the coordinates' units: the tie alone has a standard deviation of γ^{−½}.
        num_warmup: samples to leave out; with no step size given, a trial of one is as long.
        num_samples: samples of each chain after these.
        num_chains: vectorized.
        temperature: T = 1/β; by default ln n.
        kwargs: the model's.

    Raises:
        ValueError: for numbers out of range, a w₀ of other sites or shapes, several subsampled plates, a kernel that
            would learn a preconditioner or an anchor, or has a preconditioner and no step size, and chains that diverge
            at a given step size.
        TypeError: if the kernel is not one of this package.
        TuningError: if no step size holds the chains.

    Warns:
        LearningCoefficientWarning: if chains are apart or drift, if λ̂ is negative or the loss falls below that of w₀,
            and if the tie or the step size decides it.

    Source: Lau et al. 2023 (arXiv 2308.12108); Hitchcock and Hoogland 2025 (arXiv 2507.21449).
    """
    _check(kernel, localisation, temperature, num_warmup, num_samples, num_chains)
    chains = TiedChains(kernel, at, float(localisation), temperature, args, kwargs)
    if chains.given_step is None:
        chosen = choose_step(chains, rng_key, num_chains, num_warmup)
        state, step_size, runs = chosen.state, chosen.step_size, chosen.trials
    else:
        state, _ = chains.run(chains.start(rng_key, num_chains), num_warmup)
        step_size, runs = chains.given_step, 1
    state, draws = chains.run(state, num_samples)
    if not np.isfinite(draws.excess).all():
        raise ValueError(
            f"{(~np.isfinite(draws.excess).all(1)).sum()} of {num_chains} chains diverged at step size {step_size}: "
            "lower it, or leave step_size out."
        )
    by_chain = draws.excess.mean(1)
    estimate, temperature_found = over_chains(by_chain), over_chains(draws.virials.mean(1))
    slope = tie_slope(draws, chains.localisation)
    found = complaints(draws, estimate, slope, temperature_found)
    tell(found)
    return LearningCoefficient(
        value=estimate.value,
        error=estimate.error,
        by_chain=by_chain,
        excess=draws.excess,
        distance=float(np.sqrt(draws.squares.mean())),
        tie_slope=slope,
        temperature=temperature_found,
        step_size=step_size,
        friction=chains.friction_of(state),
        gradients=num_chains * (runs * num_warmup + num_samples) * chains.steps_per_sample,
        complaints=found,
    )


def _check(kernel, localisation, temperature, num_warmup, num_samples, num_chains):
    if not isinstance(kernel, StochasticGradientKernel):
        raise TypeError(f"local_learning_coefficient wants a kernel such as SGWORLD(model), got {kernel!r}.")
    if not (np.isfinite(localisation) and localisation > 0):
        raise ValueError(f"localisation={localisation!r}; want a positive number, such as 1.0.")
    if temperature is not None and not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature={temperature!r}; want a positive number, or None for ln n.")
    if num_chains < MIN_CHAINS:
        raise ValueError(f"num_chains={num_chains} is too few for an error from their differences: want {MIN_CHAINS}.")
    if min(num_warmup, num_samples) < MIN_SAMPLES:
        raise ValueError(
            f"num_warmup={num_warmup}, num_samples={num_samples}; want {MIN_SAMPLES} of each at least, and hundreds."
        )
