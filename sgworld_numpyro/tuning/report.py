"""What tuning found and chose, in numbers and in words."""

from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float
from numpyro.infer import MCMC

from sgworld_numpyro.chain.settings import Settings
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.gradients import Anchor, ControlVariate, GradientEstimator
from sgworld_numpyro.integrators import KineticState
from sgworld_numpyro.model.arrays import is_traced
from sgworld_numpyro.subsampling import dividing_batch_sizes
from sgworld_numpyro.tuning.curvature import Rates

LABELS = {
    "step_size": "step size h",
    "friction": "friction γ",
    "steps_per_sample": "steps a sample",
    "cost": "passes over the data an effective draw, predicted",
    "minibatch_cost": "  with minibatches",
    "control_variate_cost": "  with control variates",
    "predicted_bias": "predicted relative error of the posterior variance, at most",
    "predicted_shift": "predicted shift of posterior means, in posterior sds, at most",
    "fastest_rate": "largest curvature λ, in the preconditioner's coordinates",
    "gradient_noise": "minibatch noise ρ, by its size in a well-specified model",
    "anchored_noise": "  with control variates",
    "hessian_noise": "scatter of minibatches' Hessians, E|δH u|²",
    "distance": "distance of the anchor from the mode, in posterior sds",
    "restarted": "chains that failed to start by themselves, and start from the best one",
    "modes": "other modes that descents ended near, as low",
    "pilot_r_hat": "R-hat of the pilot chains",
    "pilot_temperature": "temperature of the pilot chains, where it is farthest above",
    "pilot_temperature_error": "  standard error",
    "better_batch_size": "batch size with which an effective draw would cost less, its steps counted",
    "gain": "  by a factor of",
    "dividing_batch_size": "batch size that divides the rows: draws at ends of passes",
    "warm_start_passes": "warm start, in passes over the data",
    "window_passes": "windows of pilot chains, in passes over the data",
    "tuning_passes": "tuning after it, in passes over the data",
}
# From where on a number is suspicious, from where on bad, and what to do then.
LIMITS = {
    "cost": (50.0, 500.0, "the chains will mix slowly: write hierarchies in other coordinates, or take more draws"),
    "predicted_bias": (0.05, 0.2, "take larger minibatches, or a smaller bias_tolerance"),
    "predicted_shift": (0.1, 0.3, "take larger minibatches, or a smaller bias_tolerance"),
    "gradient_noise": (10.0, 1e3, "the model expects less noise than the data have; take larger minibatches"),
    "modes": (1.0, 1.0, "the chains start around the lowest one only; run again with init_params at the others"),
    "pilot_r_hat": (1.1, 1.5, "the pilot chains were still apart: look at R-hat of the draws, take a longer warm-up"),
}
# By the names of a report, the fields of ``Rates``.
RATES = {
    "fastest_rate": "fastest",
    "mean_rate": "mean",
    "gradient_noise": "noise",
    "anchored_noise": "anchored_noise",
    "hessian_noise": "hessian_noise",
    "slope": "slope",
}
DRAWS_FOR_R_HAT = 100  # effective draws of each of four chains, from which on R-hat stays below 1.01
NOTHING = "Nothing was tuned: step size and preconditioner were given."


class Report(NamedTuple):
    """What was found and chosen; curvatures in the coordinates q = L⁻¹θ of the preconditioner M = L Lᵀ.

    - **step_size** - h.
    - **friction** - γ of kinetic integrators, else NaN.
    - **predicted_bias** - relative error of the posterior variance in the fastest direction.
    - **predicted_shift** - of posterior means in posterior sds, by Hessians that differ between minibatches and, where
      the posterior is not Gaussian around its mode, by noise that differs from place to place (of sds too, relatively).
    - **fastest_rate** - λ, the largest curvature.
    - **mean_rate** - the mean curvature.
    - **gradient_noise** - ρ: minibatch noise by its size in a well-specified model.
    - **anchored_noise** - the same with control variates.
    - **hessian_noise** - E|δH_b u|², of minibatches' Hessians.
    - **slope** - what the correlation of minibatches' Hessians and gradients moves the mean by; see ``Rates``.
    - **distance** - root mean square distance of the anchor from the mode, in posterior sds.
    - **flattest** - smallest curvature found, by its standard error; ∞ if not looked for.
    - **restarted** - chains that found no finite energy and gradient by themselves, and start where the best one is.
    - **warm_start_passes** - over the data, in gradients, that the warm start took.
    - **tuning_passes** - the same of what came after it; a Hessian-vector product counts as two gradients.
    - **steps_per_sample** - inner steps.
    - **cost** - passes over the data, in gradients, that an effective draw is predicted to take.
    - **minibatch_cost**, **control_variate_cost** - the same with either estimator, where both were tried.
    - **modes** - others than the lowest, as low as it, that descents ended near; chains start around the lowest.
    - **pilot_r_hat** - of the last window of pilot chains; NaN if none had to run.
    - **pilot_temperature** - of their worst coordinate, or site in many dimensions, by E[θ_j ∂_jU] = T, and
      **pilot_temperature_error**; likewise.
    - **window_passes** - that the pilot chains took together.
    - **better_batch_size** - with which an effective draw would cost less, and **gain** - by what factor; NaN if the
      batch size is as good as any, and in a state: ``tuning_report`` looks for it.
    - **dividing_batch_size** - where draws lie at many phases of a pass, as B does not divide N, and the integrator is
      overdamped, so that they are less biased at its ends: the nearest that does. NaN else, likewise.
    """

    step_size: Any
    friction: Any
    predicted_bias: Any
    predicted_shift: Any
    fastest_rate: Any
    mean_rate: Any
    gradient_noise: Any
    anchored_noise: Any
    hessian_noise: Any
    slope: Any
    distance: Any
    flattest: Any
    restarted: Any
    warm_start_passes: Any
    tuning_passes: Any
    steps_per_sample: Any
    cost: Any = np.nan
    minibatch_cost: Any = np.nan
    control_variate_cost: Any = np.nan
    modes: Any = np.nan
    pilot_r_hat: Any = np.nan
    pilot_temperature: Any = np.nan
    pilot_temperature_error: Any = np.nan
    window_passes: Any = np.nan
    better_batch_size: Any = np.nan
    gain: Any = np.nan
    dividing_batch_size: Any = np.nan

    @property
    def tuned(self) -> bool:
        """Whether anything was; else there are step size and friction as they were given, and NaN."""
        return bool(np.isfinite(self.warm_start_passes).all())

    def lines(self) -> list[tuple[str, list[str], str]]:
        """What is known, in words, its values, one, or one a chain, and what is to be said of it.

        Of a number that is as it should be nothing is said; of another whether it is suspicious or bad, and what to do.
        """
        found = []
        for name, label in LABELS.items():
            values = np.ravel(getattr(self, name))
            if np.isfinite(values).any() and (name not in ("restarted", "modes", "window_passes") or values.any()):
                found.append((label, [f"{value:.3g}" for value in values], _judged(name, values)))
                if name == "cost":
                    total = f"{DRAWS_FOR_R_HAT * np.max(values):.3g}"
                    found.append(("  and so for R-hat below 1.01, of each of 4 chains", [total], ""))
        return found

    def __str__(self) -> str:
        width = max(len(label) for label, *_ in self.lines())
        table = [
            f"{label:<{width}}  " + "  ".join(f"{value:>9}" for value in values) + (said and f"  {said}")
            for label, values, said in self.lines()
        ]
        return "\n".join(table if self.tuned else [NOTHING, *table])

    def _repr_html_(self) -> str:
        cells = (
            (label, "".join(f"<td>{value}</td>" for value in values) + (said and f"<td>{escape(said)}</td>"))
            for label, values, said in self.lines()
        )
        rows = "".join(
            f'<tr><td style="text-align: left">{escape(label)}</td>{numbers}</tr>' for label, numbers in cells
        )
        return f"<table>{'' if self.tuned else f'<caption>{NOTHING}</caption>'}{rows}</table>"

    @property
    def rates(self) -> Rates:
        """What decides the bias."""
        return Rates(**{field: getattr(self, name) for name, field in RATES.items()})


def in_report(rates: Rates) -> dict[str, Any]:
    """What a report has of the rates, by its own names."""
    return {name: getattr(rates, field) for name, field in RATES.items()}


def _judged(name, values):
    suspicious, bad, advice = LIMITS.get(name, (np.inf, np.inf, ""))
    worst = np.nanmax(values)
    if worst < suspicious:
        return ""
    return f"{'bad' if worst >= bad else 'suspicious'}: {advice}"


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["preconditioner", "anchor", "numbers"],
    meta_fields=["gradient", "steps"],
)
@dataclass(frozen=True)
class Tuning:
    """What a run learnt before its first sample: all that it takes to go on from a state.

    Attributes:
        preconditioner: the learnt one; None if it was given.
        anchor: position and full gradient near the mode, or where the mean of the pilot's draws is.
        numbers: of the report, along the last axis: one array, as every array of a state costs time at every sample.
        gradient: the estimator.
        steps: of a sample.
    """

    preconditioner: Any
    anchor: Anchor
    numbers: Float[Array, "*chains fields"]
    gradient: GradientEstimator
    steps: int

    @property
    def report(self) -> Report:
        """What was found and chosen."""
        numbers = self.numbers if is_traced(self.numbers) else np.asarray(self.numbers)
        return Report(*(numbers[..., field] for field in range(len(Report._fields))))


def tuning_report(mcmc: MCMC) -> Report:
    """What the run learnt before its first sample, in numbers; ``print`` and notebooks show it as a table.

    Args:
        mcmc: a run, finished or warmed up, with ``SGWORLD(model)`` or another kernel of this package.

    Returns:
        A ``Report`` of numbers: one each, or arrays over the chains where each was tuned for itself. Where everything
        was given, all but step size and friction is NaN, and it says so.

    Raises:
        ValueError: if there is no run yet.
        TypeError: if it is a run of another package's kernel.
    """
    state: Any = mcmc.last_state
    if state is None:
        raise ValueError("mcmc has no state yet: call mcmc.run(key, ...) or mcmc.warmup(key, ...) first.")
    if not isinstance(state, SGState):
        raise TypeError(f"this is a run of {type(mcmc.sampler).__name__}, which is no kernel of this package.")
    dividing = _dividing(mcmc.sampler.settings(mcmc._args, mcmc._kwargs, state))
    if state.tuning is not None:
        report = Report(*(value[()] for value in state.tuning.report))._replace(dividing_batch_size=dividing)
        better = mcmc.sampler.better_batch_size(state)
        return report if better is None else report._replace(better_batch_size=better.batch_size, gain=better.gain)
    found: dict[str, Any] = dict.fromkeys(Report._fields, np.nan) | {"step_size": np.asarray(state.step_size)[()]}
    if isinstance(state.integrator_state, KineticState):
        found["friction"] = np.asarray(state.integrator_state.friction)[()]
    return Report(**found)._replace(dividing_batch_size=dividing)


def _dividing(settings: Settings) -> float:
    """The batch size nearest to a run's whose period is one pass; NaN if there is none, or it would change nothing."""
    stroboscopic = settings.steps_per_sample % settings.period == 0
    if stroboscopic or settings.friction is not None or isinstance(settings.gradient, ControlVariate):
        return np.nan
    here = settings.plate
    return min(dividing_batch_sizes(here), key=lambda size: abs(size - here.batch_size), default=np.nan)
