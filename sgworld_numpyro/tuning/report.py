"""What tuning chose, in words."""

from typing import Any

import numpy as np
from numpyro.infer import MCMC

from sgworld_numpyro.chain.state import SGState

_LINES = {
    "step_size": "step size h",
    "friction": "friction γ",
    "predicted_bias": "predicted relative error of the posterior variance, at most",
    "predicted_shift": "predicted shift of the posterior mean, in posterior sds, at most",
    "fastest_rate": "largest curvature λ, in the preconditioner's coordinates",
    "gradient_noise": "minibatch noise ρ, by its size in a well-specified model",
    "hessian_noise": "scatter of minibatches' Hessians, E|δH u|²",
    "distance": "distance of the anchor from the mode, in posterior sds",
    "restarted": "chains that failed to start by themselves, and start from the best one",
    "warm_start_passes": "warm start, in passes over the data",
    "tuning_passes": "tuning after it, in passes over the data",
}


def tuning_report(mcmc: MCMC) -> str:
    """A table of what the run learnt before its first sample; chains that were tuned each for itself side by side.

    Args:
        mcmc: a run, finished or warmed up, with ``SGWORLD(model)`` or another kernel of this package.

    Raises:
        ValueError: if there is no run yet, or everything was given.
    """
    state: Any = mcmc.last_state
    if state is None:
        raise ValueError("mcmc has no state yet: call mcmc.run(key, ...) or mcmc.warmup(key, ...) first.")
    if not isinstance(state, SGState) or not state.tuning:
        raise ValueError("Nothing was tuned in this run: step size and preconditioner were given.")
    report, width = state.tuning.report, max(map(len, _LINES.values()))
    rows = []
    for name, label in _LINES.items():
        values = np.ravel(getattr(report, name))
        if np.isfinite(values).any() and (name != "restarted" or values.any()):
            rows.append(f"{label:<{width}}  " + "  ".join(f"{value:>9.3g}" for value in values))
    return "\n".join(rows)
