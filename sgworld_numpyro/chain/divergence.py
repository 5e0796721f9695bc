"""Saying at once that a chain has diverged, and what step size would not have."""

import warnings

import jax
import jax.numpy as jnp
from jax import lax


class DivergenceWarning(UserWarning):
    """A chain left for infinity; every draw from there on is NaN or meaningless."""


def warn_of_divergence(diverged, sample, step_size, largest) -> None:
    """Warn, if ``diverged``, that a chain did so at a sample, and name the largest stable step size if known."""
    if not diverged:
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
    warnings.warn(
        f"The chain diverged in sample {int(sample)} at step_size={step_size:.3g}; its draws are of no use from "
        f"there on. {advice}",
        DivergenceWarning,
        stacklevel=2,
    )


def report_from_device(diverged, sample, step_size, estimate) -> None:
    """Warn from inside a compiled function; ``estimate()`` is run only where a chain has diverged.

    This takes the compiled function off JAX's fast path, at 70 µs a call.
    """

    def report():
        jax.debug.callback(warn_of_divergence, diverged, sample, step_size, estimate())

    lax.cond(jnp.any(diverged), report, lambda: None)
