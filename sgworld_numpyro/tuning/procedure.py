"""Tuning at the mode: one after the other, what may be traced, for data without values and at temperature 0."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jaxtyping import Float

from sgworld_numpyro.gradients import Anchor
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.preconditioners import Dense, Diagonal
from sgworld_numpyro.tuning import curvature, flat, warm_start
from sgworld_numpyro.tuning.curvature import MAX_DENSE
from sgworld_numpyro.tuning.estimates import Estimates
from sgworld_numpyro.tuning.flat import Rise
from sgworld_numpyro.tuning.plan import Plan
from sgworld_numpyro.tuning.report import Report, Tuning, in_report

ENERGY = 1 / 3  # of the cost of a gradient
LOOKED_AT = 16  # minibatches, of every start


def tune(
    plan: Plan, arguments: Arguments, positions: Float[Array, "chains dim"], key: Array
) -> tuple[Float[Array, "chains dim"], Tuning, Rise]:
    """Starting points of the chains near the mode, what they share, and where the potential rises least.

    Every chain descends by itself; what is learnt is learnt where the potential is lowest. There also starts a chain
    that found no finite energy and gradient. May be traced.

    Args:
        plan: what to learn.
        arguments: the model's arguments.
        positions: where the chains' descents start.
        key: of the order of rows, of probes, and of the scatter of the starting points.
    """
    order_key, probe_key, scatter_key = random.split(key, 3)
    estimates = Estimates.of(plan.target, arguments, order_key)
    chains, dim = positions.shape
    dense = dim <= MAX_DENSE
    steps = warm_start.adam_steps(estimates.plate)
    descents = jax.vmap(lambda start: warm_start.descend(estimates, warm_start.Descent.at(start), 0, steps))(positions)
    positions = descents.sound
    best = positions[0]
    if chains > 1:
        energies, gradients = estimates.full(lambda energy: lax.map(jax.value_and_grad(energy), positions))
        sound = jnp.isfinite(energies) & jnp.all(jnp.isfinite(gradients), axis=1)
        lowest = jnp.argmin(jnp.where(sound, energies, jnp.inf))
        positions, gradients = (jnp.where(sound[:, None], all, all[lowest]) for all in (positions, gradients))
        best = positions[lowest]

    def learn(position, gradient):
        covariance = curvature.gradient_covariance(estimates, position, gradient, dense)
        kind = Dense() if dense else Diagonal()
        return curvature.learn(kind, estimates, position, covariance, probe_key), covariance

    here = warm_start.approach(estimates, best, learn, newton_steps=warm_start.NEWTON_STEPS if dense else 0)
    metric, covariance = here.learnt
    heights = here.heights if dense else warm_start.above_the_first(estimates, here.probed.points, flat.ENERGIES)
    rise = flat.least_rise(estimates, here.probed, heights)
    if chains == 1:  # where it is has been looked at anyway
        sound = (jnp.isfinite(heights[0]) & jnp.all(jnp.isfinite(here.gradient)))[None]
        positions = here.following[None]
    elif dense:
        tried = jax.vmap(partial(warm_start.trials, metric=metric.preconditioner))(positions, gradients)
        energies = estimates.full(lambda energy: lax.map(energy, tried.reshape(-1, dim)))
        positions = jax.vmap(warm_start.lowest)(tried, energies.reshape(chains, -1))
    preconditioner = plan.preconditioner
    if plan.learns_preconditioner and isinstance(preconditioner, type(metric.preconditioner)):
        preconditioner = metric.preconditioner
    elif plan.learns_preconditioner:
        preconditioner = curvature.learn(preconditioner, estimates, here.position, covariance, probe_key).preconditioner
    rates = curvature.rates(
        estimates, here.position, here.gradient, preconditioner, covariance, probe_key, plan.temperature
    )
    friction = 2 * jnp.sqrt(rates.mean) if plan.friction is None else jnp.asarray(plan.friction, best.dtype)
    nothing = jnp.asarray(jnp.nan, best.dtype)
    bias = shift = nothing
    if plan.step_size is not None:
        step_size = jnp.asarray(plan.step_size, best.dtype)
    elif plan.discretisation is not None:
        step_size = plan.discretisation.choose(friction, rates)
    if plan.discretisation is not None:
        bias, shift = plan.discretisation.bias(step_size, friction, rates)
    # not where the mode is, but where the posterior is
    scatter = jax.vmap(preconditioner.apply_root)(random.normal(scatter_key, positions.shape, positions.dtype))
    starts = positions + scatter / jnp.sqrt(rates.fastest)
    started = _finite_on_minibatches(estimates, starts)
    starts = jnp.where(started[:, None], starts, here.position)
    rates = rates._replace(fastest=jnp.where(sound.any(), rates.fastest, jnp.nan))
    report = Report(
        step_size=step_size,
        friction=friction if plan.kinetic else nothing,
        predicted_bias=bias,
        predicted_shift=shift,
        **in_report(rates),
        distance=jnp.sqrt(here.distance),
        flattest=metric.flattest,
        restarted=jnp.sum(~(sound & started)),
        warm_start_passes=_warm_start_passes(estimates, here.steps, chains, dim, dense),
        tuning_passes=_tuning_passes(estimates, chains, dim, dense),
        steps_per_sample=plan.steps or plan.default_steps,
    )
    numbers = jnp.stack([jnp.asarray(value, best.dtype) for value in report])
    learnt = preconditioner if plan.learns_preconditioner else None
    anchor, steps = Anchor(here.position, here.gradient), plan.steps or plan.default_steps
    return starts, Tuning(learnt, anchor, numbers, plan.estimators[0], steps), rise


def _finite_on_minibatches(estimates, positions):
    """Whether energy and gradient are finite, for each position, on as many minibatches as a pass has, or some."""

    def look(energy):
        energies, gradients = lax.map(jax.value_and_grad(energy), positions)
        return energies + gradients.sum(1)

    count = _looked_at(estimates.plate)
    return jnp.isfinite(estimates.sum_over_groups(look, 0, count, estimates.plate.batch_size, positions.size))


def _looked_at(plate):
    return min(LOOKED_AT, max(1, plate.size // plate.batch_size))


def _tuning_passes(estimates, chains, dim, dense):
    plate = estimates.plate
    starts = chains * _looked_at(plate) * plate.batch_size / plate.size
    return curvature.passes(dim, dense) + (flat.ENERGIES - dense) * ENERGY + starts


def _warm_start_passes(estimates, newton_steps, chains, dim, dense):
    adam = warm_start.adam_steps(estimates.plate) * estimates.plate.batch_size / estimates.plate.size
    line = dense * len(warm_start.FRACTIONS) * ENERGY
    own = (chains > 1) * (1 + line)  # where a chain's descent ends, and its Newton step from there
    return adam + own + newton_steps * (curvature.passes(dim, dense, rates=False) + line) + line
