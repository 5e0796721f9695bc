"""Choosing what a run needs to know of its posterior: where it is, its scales, and how large a step may be.

Before the first sample: a warm start near the mode (``warm_start``), gradient noise and curvature there and the
preconditioner that they suggest (``curvature``), step size and friction from a tolerance of the bias (``step_size``).
Nothing changes afterwards: a preconditioner that followed the chain would change its stationary law.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jaxtyping import Float

from sgworld_numpyro.gradients import Anchor
from sgworld_numpyro.preconditioners import Dense, Diagonal
from sgworld_numpyro.target import Arguments
from sgworld_numpyro.tuning import curvature, flat, warm_start
from sgworld_numpyro.tuning.curvature import MAX_DENSE
from sgworld_numpyro.tuning.estimates import Estimates
from sgworld_numpyro.tuning.flat import Rise
from sgworld_numpyro.tuning.refusal import out_of_scale, problem_with
from sgworld_numpyro.tuning.report import Plan, Report, Tuning
from sgworld_numpyro.tuning.step_size import Setting, name_of

__all__ = [
    "MAX_DENSE",
    "Plan",
    "Report",
    "Rise",
    "Setting",
    "Tuning",
    "name_of",
    "out_of_scale",
    "problem_with",
    "tune",
]

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
    positions = jax.vmap(lambda start: warm_start.descend(estimates, start))(positions)
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
    probed = flat.probe(here.position, here.gradient, metric.preconditioner, metric.scale)
    if dense and chains > 1:  # in one go, so that energies are compiled once
        steps = jax.vmap(partial(warm_start.trials, metric=metric.preconditioner))(positions, gradients)
        energies = _above_the_first(estimates, jnp.concatenate([probed.points, steps.reshape(-1, dim)]))
        positions = jax.vmap(warm_start.lowest)(steps, energies[flat.ENERGIES :].reshape(chains, -1))
    else:
        energies = _above_the_first(estimates, probed.points)
        positions = here.following[None] if dense else positions
    rise = flat.least_rise(estimates, probed, energies[: flat.ENERGIES])
    preconditioner = plan.preconditioner
    if plan.learns_preconditioner and isinstance(preconditioner, type(metric.preconditioner)):
        preconditioner = metric.preconditioner
    elif plan.learns_preconditioner:
        preconditioner = curvature.learn(preconditioner, estimates, here.position, covariance, probe_key).preconditioner
    rates = curvature.rates(estimates, here.position, here.gradient, preconditioner, covariance, probe_key)
    friction = 2 * jnp.sqrt(rates.mean) if plan.friction is None else jnp.asarray(plan.friction, best.dtype)
    nothing = jnp.asarray(jnp.nan, best.dtype)
    bias = shift = nothing
    if plan.step_size is not None:
        step_size = jnp.asarray(plan.step_size, best.dtype)
    elif plan.setting is not None:
        step_size = plan.setting.choose(friction, rates)
    if plan.setting is not None:
        bias, shift = plan.setting.bias(step_size, friction, rates)
    # not where the mode is, but where the posterior is
    scatter = jax.vmap(preconditioner.apply_root)(random.normal(scatter_key, positions.shape, positions.dtype))
    starts = positions + scatter / jnp.sqrt(rates.fastest)
    started = _finite_on_minibatches(estimates, starts)
    report = Report(
        step_size=step_size,
        friction=friction if plan.kinetic else nothing,
        predicted_bias=bias,
        predicted_shift=shift,
        fastest_rate=jnp.where(sound.any(), rates.fastest, jnp.nan),
        mean_rate=rates.mean,
        gradient_noise=rates.noise,
        hessian_noise=rates.hessian_noise,
        slope=rates.slope,
        distance=jnp.sqrt(here.distance),
        flattest=metric.flattest,
        restarted=jnp.sum(~(sound & started)),
        warm_start_passes=_warm_start_passes(estimates, here.steps, dim, dense),
        tuning_passes=jnp.asarray(curvature.passes(dim, dense) + flat.ENERGIES * ENERGY),
    )
    report = Report(*(jnp.asarray(value, best.dtype) for value in report))
    learnt = preconditioner if plan.learns_preconditioner else ()
    starts = jnp.where(started[:, None], starts, here.position)
    return starts, Tuning(learnt, Anchor(here.position, here.gradient), report), rise


def _above_the_first(estimates, positions):
    """Energies less that of the first position, in every block of rows: of large sums little would be left."""

    def above(energy):
        energies = lax.map(energy, positions)
        return energies - energies[0]

    return estimates.full(above)


def _finite_on_minibatches(estimates, positions):
    """Whether energy and gradient are finite, for each position, on as many minibatches as a pass has, or some."""
    plate = estimates.plate

    def look(energy):
        energies, gradients = lax.map(jax.value_and_grad(energy), positions)
        return energies + gradients.sum(1)

    count = min(LOOKED_AT, max(1, plate.size // plate.batch_size))
    return jnp.isfinite(estimates.sum_over_groups(look, 0, count, plate.batch_size, positions.size))


def _warm_start_passes(estimates, newton_steps, dim, dense):
    adam = warm_start.adam_steps(estimates) * estimates.plate.batch_size / estimates.plate.size
    each = curvature.passes(dim, dense, rates=False) + len(warm_start.FRACTIONS) * ENERGY
    return adam + 1 + newton_steps * each + dense * len(warm_start.FRACTIONS) * ENERGY
