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
from sgworld_numpyro.tuning import curvature, warm_start
from sgworld_numpyro.tuning.curvature import MAX_DENSE
from sgworld_numpyro.tuning.estimates import Estimates
from sgworld_numpyro.tuning.report import Plan, Report, Tuning, problem_with
from sgworld_numpyro.tuning.step_size import Setting, name_of

__all__ = ["MAX_DENSE", "Plan", "Report", "Setting", "Tuning", "name_of", "problem_with", "tune"]


def tune(
    plan: Plan, arguments: Arguments, positions: Float[Array, "chains dim"], key: Array
) -> tuple[Float[Array, "chains dim"], Tuning]:
    """Starting points of the chains near the mode, and what they share.

    Every chain descends by itself; what is learnt is learnt where the potential is lowest. May be traced.

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
    energies = estimates.full(lambda energy: lax.map(energy, positions))
    best = positions[jnp.argmin(jnp.where(jnp.isfinite(energies), energies, jnp.inf))]

    def learn(position, gradient):
        covariance = curvature.gradient_covariance(estimates, position, gradient, dense)
        kind = Dense() if dense else Diagonal()
        return curvature.learn(kind, estimates, position, covariance, probe_key), covariance

    here = warm_start.approach(estimates, best, learn, newton_steps=warm_start.NEWTON_STEPS if dense else 0)
    metric, covariance = here.learnt
    if dense and chains > 1:
        gradients = estimates.full(lambda energy: lax.map(jax.grad(energy), positions))
        step = partial(warm_start.newton_step, estimates, metric=metric.preconditioner)
        positions = lax.map(lambda one: step(*one), (positions, gradients))
    elif dense:
        positions = here.following[None]
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
    scatter = jax.vmap(preconditioner.apply_root)(random.normal(scatter_key, positions.shape, positions.dtype))
    report = Report(
        step_size=step_size,
        friction=friction if plan.kinetic else nothing,
        predicted_bias=bias,
        predicted_shift=shift,
        fastest_rate=rates.fastest,
        mean_rate=rates.mean,
        gradient_noise=rates.noise,
        hessian_noise=rates.hessian_noise,
        slope=rates.slope,
        distance=jnp.sqrt(here.distance),
        flattest=metric.flattest,
        warm_start_passes=_warm_start_passes(estimates, here.steps, dim, dense),
        tuning_passes=jnp.asarray(curvature.passes(dim, dense)),
    )
    report = Report(*(jnp.asarray(value, best.dtype) for value in report))
    learnt = preconditioner if plan.learns_preconditioner else ()
    # not where the mode is, but where the posterior is
    return positions + scatter / jnp.sqrt(rates.fastest), Tuning(learnt, Anchor(here.position, here.gradient), report)


def _warm_start_passes(estimates, newton_steps, dim, dense):
    adam = warm_start.adam_steps(estimates) * estimates.plate.batch_size / estimates.plate.size
    energy = 1 / 3  # of the cost of a gradient
    each = curvature.passes(dim, dense, rates=False) + len(warm_start.FRACTIONS) * energy
    return adam + energy + newton_steps * each + dense * (1 + len(warm_start.FRACTIONS) * energy)
