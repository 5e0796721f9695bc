"""What a kernel leaves open, chosen so that an effective draw costs least: estimator, friction, step, steps."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sgworld_numpyro.gradients import ControlVariate, GradientEstimator, Minibatch
from sgworld_numpyro.preconditioners import Dense, Diagonal, Preconditioner
from sgworld_numpyro.tuning.curvature import Rates
from sgworld_numpyro.tuning.dense_looks import DenseLooks
from sgworld_numpyro.tuning.pilot import Pilot
from sgworld_numpyro.tuning.plan import Plan
from sgworld_numpyro.tuning.rates import rates_at
from sgworld_numpyro.tuning.tilt import Places, level, places_at

DAMPINGS = 0.7, 1.0, 1.4, 2.0  # γ/√λ that are tried
WORTH = 0.4  # effective draws that a draw should be worth, about
WORTH_OF_SHORT = 0.7  # the same where a sample is a few steps, which cost less than what a sample costs besides
LONGEST_SAMPLE = 50  # passes
# By what control variates must be cheaper where the posterior is no Gaussian around its mode: away from the draws that
# were looked at their noise grows without bound, that of minibatches does not.
RISK = 3.0


class Choice(NamedTuple):
    """What a run samples with.

    Attributes:
        preconditioner: M.
        gradient: the estimator.
        step_size: h.
        friction: γ; NaN if there is none.
        steps: of a sample.
        bias: relative error of the variance that is predicted.
        shift: of the mean, in posterior sds.
        cost: passes over the data an effective draw.
        costs: by the name of each estimator that was tried.
        rates: what decided.
    """

    preconditioner: Preconditioner
    gradient: GradientEstimator
    step_size: float
    friction: float
    steps: int
    bias: float
    shift: float
    cost: float
    costs: dict[str, float]
    rates: Rates


def choose(plan: Plan, looks: DenseLooks, pilot: Pilot) -> Choice:
    """The cheapest of what the plan leaves open, within its tolerance."""
    preconditioner = _preconditioner(plan, looks, pilot)
    root = looks.root_of(preconditioner)
    rates = rates_at(looks, pilot.at, pilot.hessians, pilot.mean, root, plan.temperature, pilot.narrow)
    slowest = max(float(np.linalg.eigvalsh(root.T @ pilot.hessians.mean(0) @ root)[0]), 1e-6 * float(rates.mean))
    places = None if pilot.narrow else places_at(looks, pilot.draws, pilot.mean, root)
    tried = [
        _tried(plan, estimator, damping, rates, places, slowest, pilot)
        for estimator in plan.estimators
        for damping in (DAMPINGS if plan.kinetic and plan.friction is None else (None,))
    ]
    best = min(tried, key=lambda one: one.cost * (1 if pilot.narrow or not one.gradient.needs_anchor else RISK))
    costs = {type(e).__name__: min(one.cost for one in tried if one.gradient is e) for e in plan.estimators}
    return best._replace(preconditioner=preconditioner, costs=costs)


def nothing(plan: Plan) -> Choice:
    """Where there is no posterior to choose for."""
    none = np.nan
    rates = Rates(none, none, none, none, none, none)
    return Choice(plan.preconditioner, plan.estimators[0], none, none, 1, none, none, none, {}, rates)


def _preconditioner(plan, looks, pilot):
    if not plan.learns_preconditioner:
        return plan.preconditioner
    if isinstance(plan.preconditioner, Diagonal):
        diagonal = 1 / np.maximum(np.diagonal(pilot.hessians.mean(0)), np.finfo(np.float32).tiny)
        return Diagonal.tree_unflatten(None, (np.asarray(diagonal, looks.dtype),))
    return Dense.from_root(np.asarray(pilot.root, looks.dtype))


def _tried(plan: Plan, estimator, damping, rates: Rates, places: Places | None, slowest: float, pilot: Pilot) -> Choice:
    friction = np.nan
    if plan.kinetic:
        friction = float(plan.friction) if plan.friction is not None else damping * float(np.sqrt(rates.mean))
    law, anchored = plan.discretisation, estimator.needs_anchor
    bias = shift = step_size = np.nan
    if law is not None:
        law = replace(law, minibatch_noise=not anchored, at_ends=law.at_ends and not (anchored and plan.steps is None))
        step_size = float(law.choose(friction, rates)) / pilot.smaller
    if plan.step_size is not None:
        step_size = float(plan.step_size)
    if law is not None:
        tilted = 0.0
        if places is not None:
            shorter, tilted = level(law, step_size, friction, places, pilot.draws)
            step_size = shorter if plan.step_size is None else step_size
        bias, shift = (float(number) for number in law.bias(step_size, friction, rates))
        shift = max(shift, tilted)
    time = _autocorrelation_time(friction, slowest) if plan.kinetic else 2 / slowest
    time *= pilot.slowdown
    batches = plan.target.longest_plate.batches
    cost = time / step_size * (2 if anchored else 1) / batches
    steps = plan.steps or _steps(plan, time / step_size, step_size, rates, anchored)
    return Choice(plan.preconditioner, estimator, step_size, friction, steps, bias, shift, cost, {}, rates)


def _autocorrelation_time(friction, rate):
    """Time of a kinetic chain that is worth an effective draw, of positions and of their squares, whichever is worse.

    The integrals of the autocorrelations of damped oscillations, doubled.
    """
    return max(2 * friction / rate, (rate + friction**2) / (friction * rate))


def _steps(plan, effective, step_size, rates, anchored):
    """Of a sample: any number where passes are long, whole periods where batches of a pass make up for others.

    Args:
        plan: what is open.
        effective: steps that are worth an effective draw.
        step_size: h.
        rates: of the posterior.
        anchored: whether the estimator is a control variate.
    """
    one_pass = plan.target.longest_plate.batches
    most = LONGEST_SAMPLE * one_pass
    rate = np.sqrt(rates.fastest) if plan.kinetic else rates.fastest
    free = plan.period == 1 or (anchored and step_size * rate * one_pass > 1)
    unit, worth = (1, WORTH_OF_SHORT) if free else (plan.default_steps, WORTH)
    return int(np.clip(round(worth * effective / unit), 1, max(1, most // unit))) * unit


def default_estimators(given: GradientEstimator | None, chooses: bool) -> tuple[GradientEstimator, ...]:
    """Which estimators may be taken: the given one, or both where a kernel leaves it open."""
    if given is not None:
        return (given,)
    return (Minibatch(), ControlVariate()) if chooses else (Minibatch(),)
