"""What tuning is asked, what it found, and what it refuses."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from sgworld_numpyro.gradients import Anchor
from sgworld_numpyro.preconditioners import Preconditioner
from sgworld_numpyro.target import Target
from sgworld_numpyro.tuning.curvature import MAX_DENSE, Rates
from sgworld_numpyro.tuning.step_size import SHORTEST_PASS, Setting

FLAT = 3.0  # standard errors below zero that a curvature may be
FAR = 25.0  # squared posterior sds a dimension: a warm start that ends further from the mode has not found it


class Report(NamedTuple):
    """What was found and chosen; curvatures in the coordinates q = L⁻¹θ of the preconditioner M = L Lᵀ.

    - **step_size** - h.
    - **friction** - γ of kinetic integrators, else NaN.
    - **predicted_bias** - relative error of the posterior variance in the fastest direction.
    - **predicted_shift** - of the posterior mean by Hessians that differ between minibatches, in posterior sds.
    - **fastest_rate** - λ, the largest curvature.
    - **mean_rate** - the mean curvature.
    - **gradient_noise** - ρ: minibatch noise by its size in a well-specified model.
    - **hessian_noise** - E|δH_b u|², of minibatches' Hessians.
    - **slope** - what the correlation of minibatches' Hessians and gradients moves the mean by; see ``Rates``.
    - **distance** - root mean square distance of the anchor from the mode, in posterior sds.
    - **flattest** - smallest curvature found, by its standard error; ∞ if not looked for.
    - **warm_start_passes** - over the data, in gradients, that the warm start took.
    - **tuning_passes** - the same of what came after it; a Hessian-vector product counts as two gradients.
    """

    step_size: Array
    friction: Array
    predicted_bias: Array
    predicted_shift: Array
    fastest_rate: Array
    mean_rate: Array
    gradient_noise: Array
    hessian_noise: Array
    slope: Array
    distance: Array
    flattest: Array
    warm_start_passes: Array
    tuning_passes: Array

    @property
    def rates(self) -> Rates:
        """What decides the bias."""
        return Rates(self.fastest_rate, self.mean_rate, self.gradient_noise, self.hessian_noise, self.slope)


class Tuning(NamedTuple):
    """What a run learnt before its first sample.

    - **preconditioner** - the learnt one; () if it was given.
    - **anchor** - position and full gradient near the mode.
    - **report** - scalars; see ``Report``.
    """

    preconditioner: Any
    anchor: Anchor
    report: Report


@dataclass(frozen=True)
class Plan:
    """What to learn.

    Attributes:
        target: the model.
        preconditioner: the given one, or the kind to learn, ``Diagonal()`` or ``Dense()``.
        learns_preconditioner: which of both.
        step_size: h if it was given, else None.
        friction: γ of a kinetic integrator if it was given, else None.
        kinetic: whether the integrator has velocities.
        setting: what decides the bias; None if nothing is known of scheme or integrator, and step size and friction
            are given.
    """

    target: Target
    preconditioner: Preconditioner
    learns_preconditioner: bool
    step_size: float | None
    friction: float | None
    kinetic: bool
    setting: Setting | None


def problem_with(plan: Plan, report: Report) -> str | None:
    """Which assumption of the tuning fails and what to do about it, or None. Of a report whose numbers are known."""
    finite = all(np.isfinite(x) for x in (report.fastest_rate, report.mean_rate, report.gradient_noise))
    by_hand = "Give step_size=h and preconditioner=..., which turns tuning off, or start elsewhere (init_params)."
    if not finite:
        return (
            "Tuning met gradients or curvatures that are not finite near the mode. Look for sites whose density is "
            f"unbounded or undefined, such as a scale that can go to 0. {by_hand}"
        )
    if report.flattest < -FLAT or not (report.fastest_rate > 0 and report.mean_rate > 0):
        return (
            f"Tuning wants a mode, but where the warm start ended the Hessian of the potential is indefinite: its "
            f"smallest curvature is {report.flattest:.1f} standard errors. The posterior may have no mode there (a "
            "hierarchical scale: reparametrise with numpyro.infer.reparam.LocScaleReparam), or a flat direction (give "
            f"it a prior). {by_hand}"
        )
    if plan.target.dim <= MAX_DENSE and report.distance**2 > FAR:
        return (
            f"The warm start ended {report.distance:.0f} posterior standard deviations a dimension from the mode. "
            "Start closer, with init_strategy=numpyro.infer.init_to_median or init_params, or standardise the data: "
            f"predictors of mean 0 and variance 1. {by_hand}"
        )
    if plan.step_size is not None or plan.setting is None:
        return None
    setting = plan.setting
    if _pass_time(setting, report) >= SHORTEST_PASS:
        return None
    return (
        f"No step size of use keeps the bias within bias_tolerance={setting.tolerance:g} at batch size "
        f"{setting.batch_size}: the gradients of minibatches are {report.gradient_noise:.3g} times as noisy as in a "
        f"well-specified model. {_remedy(setting, report)} "
        "Or use gradient=ControlVariate(), or a larger bias_tolerance."
    )


def _pass_time(setting: Setting, report: Report) -> float:
    """R h λ, or R h √λ, of the chosen step size."""
    rate = np.sqrt(report.fastest_rate) if setting.kinetic else report.fastest_rate
    return float(setting.batches * report.step_size * rate)


def _remedy(setting: Setting, report: Report) -> str:
    """The smallest of some batch sizes with which a pass moves ten times as far as is of use."""
    rows, batch = setting.num_rows, setting.batch_size
    doublings = [batch * 2**n for n in range(1, 30) if batch * 2**n < rows]
    nearly_all = [rows - rows // 2**n for n in range(2, 12) if rows // 2**n > 0]
    for size in sorted({*doublings, *nearly_all} - set(range(batch + 1))):
        left = (rows - size) / (rows - batch) * batch / size
        other = replace(setting, batch_size=size)
        rates = report.rates._replace(hessian_noise=report.hessian_noise * left, slope=report.slope * left)
        found = report._replace(step_size=other.choose(report.friction, rates))
        if _pass_time(other, found) >= 10 * SHORTEST_PASS:
            return f"subsample_size={size} would do."
    return f"Only subsample_size={rows}, all rows, would do."
