"""A look back at the draws of a run: whether its step was short enough where it has been, not where tuning had been."""

import jax
import numpy as np
from numpyro.infer.util import transform_fn

from sgworld_numpyro.chain.binding import Binding
from sgworld_numpyro.tuning.curvature import MAX_DENSE
from sgworld_numpyro.tuning.dense_looks import DRAWS as AT_ONCE
from sgworld_numpyro.tuning.dense_looks import DenseLooks
from sgworld_numpyro.tuning.plan import Plan
from sgworld_numpyro.tuning.report import Tuning
from sgworld_numpyro.tuning.staged import SEED
from sgworld_numpyro.tuning.tilt import log_tilt, places_at, worst_error
from sgworld_numpyro.tuning.tuned_start import law_of

DRAWS = 128  # that are looked at
MIN_DRAWS = 32
ERROR = 0.07  # of a mean, in posterior sds, or of an sd, relatively, from which on it is told


def complaints_of_tilt(
    plan: Plan | None, binding: Binding, tuning: Tuning | None, draws: dict[str, np.ndarray]
) -> list[str]:
    """What the curvature and the noise at a run's draws say against it, in words; nothing is good.

    Nothing is said where the posterior is as good as Gaussian around its mode, so that tuning knew all there is; where
    the bias has no known law; nor where only a run of the model can tell unconstrained values from draws.

    Args:
        plan: of the tuning; None if nothing was tuned.
        binding: the model on its data, which have values.
        tuning: what was learnt, of one chain.
        draws: by site, of shape (chains, draws, ...).
    """
    if plan is None or tuning is None:
        return []
    law = law_of(plan, tuning)
    if law is None or not np.isfinite(tuning.report.pilot_r_hat) or binding.engine.target.dim > MAX_DENSE:
        return []
    positions = _some_positions(binding.engine.target, draws)
    if len(positions) < MIN_DRAWS:
        return []
    preconditioner = tuning.preconditioner if plan.learns_preconditioner else plan.preconditioner
    looks = DenseLooks(binding, SEED)
    anchor = np.asarray(tuning.anchor.position, float)
    places = places_at(looks, positions, anchor, looks.root_of(preconditioner))
    tilted = log_tilt(law, float(tuning.report.step_size), float(tuning.report.friction), places)
    error = worst_error(tilted, positions)
    if not error > ERROR:
        return []
    return [
        "Where the chains have been, the noise of minibatches differs from place to place and tilts the posterior: a "
        f"mean is off by {error:.2g} sds, or an sd by {error:.0%}, to lowest order. Give a smaller bias_tolerance than "
        f"{law.tolerance:g}, or larger minibatches."
    ]


def _some_positions(target, draws):
    """Flat unconstrained positions of some draws, without those that lie on a boundary."""
    if target.transforms is None or not all(name in draws for name in target.prototype):
        return np.empty((0, target.dim))
    values = {name: np.concatenate(draws[name]) for name in target.prototype}
    count = min(len(value) for value in values.values())
    some = np.linspace(0, count - 1, min(count, DRAWS)).astype(int)
    z = transform_fn(target.transforms, {name: value[some] for name, value in values.items()}, invert=True)
    positions = np.asarray(jax.vmap(target.ravel)(z), float)
    positions = positions[np.isfinite(positions).all(axis=1)]
    return positions[: len(positions) // AT_ONCE * AT_ONCE]
