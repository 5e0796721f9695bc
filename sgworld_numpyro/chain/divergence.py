"""Saying that a chain has diverged, and what step size would not have."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.model.arrays import is_traced


class DivergenceWarning(UserWarning):
    """A chain left for infinity, where all its draws are NaN, or was where there is no finite energy and came back."""


class Divergence(NamedTuple):
    """The first one among chains.

    Attributes:
        found: whether there is any; if not, the rest is of no meaning.
        chain: which one it is.
        sample: in which it diverged, if it is lost.
        times: samples of it that diverged.
        lost: whether its position is not finite any more: then it does not come back.
    """

    found: Any
    chain: Any
    sample: Any
    times: Any
    lost: Any


def warn_of_divergence(first: Divergence, step_size: Any, largest: Any) -> None:
    """Warn of a divergence, if there is one, and name the largest stable step size if known."""
    if not first.found:
        return
    step_size, largest = float(step_size), float(largest)
    known = 0 < largest < float("inf")
    if not 0 < step_size < float("inf"):
        advice = "A schedule must give a positive, finite step size at every step; use jnp.where to bound it."
    elif known and step_size < largest:
        advice = (
            f"The step is below the largest stable one at the start, about {largest:.2g}: look for NaN in the "
            f"data, an impossible start (init_params), or higher curvature (try step_size={step_size / 4:.1g})."
        )
    elif known:
        advice = (
            f"The largest stable step size there is about {largest:.2g}. Run again with a smaller step, for instance "
            f"step_size={largest / 4:.1g}."
        )
    else:
        advice = f"Try a smaller step, for instance step_size={step_size / 10:.1g}."
    if first.lost:
        what = (
            f"The chain diverged in sample {int(first.sample)} at step_size={step_size:.3g}; its draws are of no use "
            "from there on."
        )
    else:
        what = (
            f"The potential energy of a chain was not finite in {int(first.times)} of its samples at step_size="
            f"{step_size:.3g}, and its position was: it goes on. Its draws there, marked as diverging, are none of the "
            "posterior."
        )
    warnings.warn(f"{what} {advice}", DivergenceWarning, stacklevel=2)


def first_divergence(last: SGState, before: SGState | None = None) -> Divergence:
    """Among the chains of a state, the one that diverged first, since ``before`` if there is one.

    It is known from the last state, as a chain that has left for infinity does not come back. One that has comes before
    those that went on.
    """
    numpy = jnp if is_traced(last.divergences) else np
    divergences, taken = numpy.ravel(last.divergences), numpy.ravel(last.i)
    diverged = divergences > 0
    if before is not None:
        diverged &= numpy.ravel(before.divergences) == 0
    lost = is_lost(last)
    samples = numpy.where(diverged & lost, taken - divergences, np.iinfo(np.int32).max)
    chain = numpy.where(numpy.any(diverged & lost), numpy.argmin(samples), numpy.argmax(diverged))
    return Divergence(numpy.any(diverged), chain, samples[chain], divergences[chain], lost[chain])


def is_lost(state: SGState) -> Any:
    """Of each chain, whether its position is not finite."""
    numpy = jnp if is_traced(state.divergences) else np
    chains = state.divergences.size
    return ~numpy.all(numpy.isfinite(numpy.reshape(state.position, (chains, -1))), axis=1)


def report(first: Divergence, details: Callable[[], tuple[Any, Any]]) -> None:
    """Warn of a divergence, if there is one.

    From inside a compiled function this takes it off JAX's fast path, at 70 µs a call, and keeps it out of JAX's
    cache of compiled functions.

    Args:
        first: the divergence.
        details: gives the step size and the largest stable one; it is run only if there is a divergence.
    """
    if not is_traced(first.found):
        if first.found:
            warn_of_divergence(first, *details())
        return

    def from_device():
        jax.debug.callback(warn_of_divergence, first, *details())

    lax.cond(first.found, from_device, lambda: None)
