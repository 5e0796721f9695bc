"""What a kernel leaves open is learnt before its first sample, and refused where the assumptions fail."""

import warnings
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from numpyro.util import is_prng_key

from sgworld_numpyro.chain.binding import Binding
from sgworld_numpyro.chain.divergence import DivergenceWarning
from sgworld_numpyro.chain.engine import Engine
from sgworld_numpyro.chain.stability import largest_stable_step_size
from sgworld_numpyro.chain.start import state_at
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.gradients import GradientEstimator
from sgworld_numpyro.integrators import BAOAB, EulerMaruyama, KineticState, is_kinetic
from sgworld_numpyro.linear_gaussian import knows_integrator, knows_scheme
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.arrays import is_traced
from sgworld_numpyro.preconditioners import Identity
from sgworld_numpyro.subsampling import (
    BatchReshuffle,
    FullBatch,
    NamedScheme,
    Plate,
    RandomReshuffle,
    ShuffleOnce,
    SubsamplingScheme,
    WithReplacement,
)
from sgworld_numpyro.tuning.choice import default_estimators
from sgworld_numpyro.tuning.flat import Rise
from sgworld_numpyro.tuning.looks import reshuffles
from sgworld_numpyro.tuning.plan import Plan
from sgworld_numpyro.tuning.procedure import tune
from sgworld_numpyro.tuning.refusal import out_of_scale, problem_with
from sgworld_numpyro.tuning.report import Tuning
from sgworld_numpyro.tuning.staged import Learnt
from sgworld_numpyro.tuning.step_size import Discretisation

_STREAM = 0x70E


def learns(component: Any) -> bool:
    """Whether a preconditioner is left to be learnt."""
    return getattr(component, "to_be_learnt", False)


def plan_of(
    engine: Engine, step_size: Any, bias_tolerance: float, gradient: GradientEstimator | None, steps: int | None
) -> Plan | None:
    """What to learn, or None if everything is given.

    Args:
        engine: what advances the chain, with defaults for what is open.
        step_size: h, a schedule, or None.
        bias_tolerance: relative error of the variance.
        gradient: the estimator, or None if it may be chosen.
        steps: of a sample; likewise.
    """
    friction = getattr(engine.integrator, "friction", None)
    missing = is_kinetic(engine.integrator) and friction is None
    if not (step_size is None or missing or learns(engine.preconditioner) or engine.gradient.needs_anchor):
        return None
    plate, temperature = engine.target.longest_plate, engine.temperature or 1.0
    scheme = engine.subsampling if reshuffles(engine.subsampling) else RandomReshuffle()
    window_law = Discretisation(
        scheme=scheme_of_known_law(scheme, plate),
        integrator=BAOAB(),
        num_rows=plate.size,
        batch_size=plate.batch_size,
        at_ends=True,
        temperature=temperature,
        minibatch_noise=True,
        tolerance=bias_tolerance,
    )
    discretisation, integrator = None, engine.integrator
    if knows_integrator(integrator) and engine.temperature > 0:
        discretisation = replace(
            window_law,
            scheme=scheme_of_known_law(engine.subsampling, plate),
            integrator=integrator,
            at_ends=engine.steps % engine.period == 0,
            minibatch_noise=not engine.gradient.needs_anchor,
        )
    given = float(step_size(jnp.int32(0))) if callable(step_size) else step_size
    return Plan(
        target=engine.target,
        preconditioner=engine.preconditioner,
        learns_preconditioner=learns(engine.preconditioner),
        step_size=given,
        friction=friction,
        kinetic=is_kinetic(engine.integrator),
        temperature=engine.temperature,
        discretisation=discretisation,
        window_law=window_law,
        estimators=default_estimators(gradient, chooses=given is None),
        steps=steps if given is None else engine.steps,
        default_steps=engine.steps,
        period=engine.period,
    )


def law_of(plan: Plan, tuning: Tuning) -> Discretisation | None:
    """What decides the bias of a run with what was chosen; None where nobody knows, or the step size was given."""
    if plan.discretisation is None or plan.step_size is not None:
        return None
    at_ends = tuning.steps % plan.period == 0
    return replace(plan.discretisation, minibatch_noise=not tuning.gradient.needs_anchor, at_ends=at_ends)


def scheme_of_known_law(scheme: SubsamplingScheme, plate: Plate) -> NamedScheme:
    """The scheme by whose law the bias is predicted."""
    if plate.size == 1:
        return FullBatch()  # every batch is all the rows
    if not knows_scheme(scheme):
        return WithReplacement()  # of one's own scheme the least is expected
    if plate.batch_size == plate.size and not isinstance(scheme, WithReplacement):
        return FullBatch()
    if scheme.redraws == "never":  # an order that stays as it was drawn, by whomever
        return ShuffleOnce()
    if isinstance(scheme, BatchReshuffle) and plate.size % plate.batch_size:  # no partition, but a pool of batches
        return RandomReshuffle()
    return scheme


def may_be_staged(plan: Plan, arguments: Arguments) -> bool:
    """Whether tuning can be driven from Python: data that have values, a posterior to sample."""
    known = not any(map(is_traced, arguments.leaves))
    return known and plan.temperature > 0


def start_near_the_mode(plan: Plan, arguments: Arguments, state: SGState, rng_key: Array) -> tuple[SGState, Rise]:
    """An initial state moved near the mode, with what was learnt there, and the least rise of the potential from there.

    Of one chain or of several.
    """
    single = is_prng_key(rng_key)
    key = random.fold_in(rng_key if single else rng_key[0], _STREAM)
    positions, tuning, rise = tune(plan, arguments, state.position.reshape(-1, plan.target.dim), key)
    return _with_tuning(plan, state, positions[0] if single else positions, tuning), rise


def start_at_pilot(plan: Plan, engine: Engine, rng_key: Array, learnt: Learnt) -> SGState:
    """The initial state for one key or several: at a draw of the pilot, which each takes by itself."""

    def start(key):
        noise_key, place_key, shuffle_key = random.split(key, 3)
        position = learnt.pool[random.randint(place_key, (), 0, len(learnt.pool))]
        return state_at(engine, jnp.nan, plan.target.unravel(position), shuffle_key, noise_key)

    state = start(rng_key) if is_prng_key(rng_key) else jax.vmap(start)(rng_key)
    return _with_tuning(plan, state, state.position, learnt.tuning)


def _with_tuning(plan, state, positions, tuning):
    z = plan.target.unravel(positions) if positions.ndim == 1 else jax.vmap(plan.target.unravel)(positions)
    integrator_state = state.integrator_state
    if isinstance(integrator_state, KineticState) and plan.friction is None:
        friction = jnp.full_like(integrator_state.friction, tuning.report.friction)
        integrator_state = integrator_state._replace(friction=friction)
    return state._replace(
        z=z,
        step_size=jnp.full_like(state.step_size, tuning.report.step_size),
        integrator_state=integrator_state,
        tuning=tuning,
    )


def check_tuning(plan: Plan, tuning: Tuning, rise: Rise, binding: Binding) -> None:
    """Raise ``TuningError`` if an assumption of the tuning fails, with what to do.

    A run under ``pmap`` cannot raise: it gets a ``DivergenceWarning`` that says the same.
    """
    report, rise = jax.device_get((tuning.report, rise))
    if problem_with(plan, report, rise) is None:
        return
    curvature = _largest_curvature(binding, tuning.anchor.position)
    raise TuningError(problem_with(plan, report, rise, _out_of_scale(binding), curvature))


def warn_of_tuning(plan: Plan, tuning: Tuning, rise: Rise, binding: Binding) -> None:
    """What ``check_tuning`` does, as a warning, from inside a compiled function."""
    large = _out_of_scale(binding)

    def warn(report, rise):
        message = problem_with(plan, report, rise, large)
        if message is not None:
            warnings.warn(message, DivergenceWarning, stacklevel=2)

    jax.debug.callback(warn, tuning.report, rise)


def _out_of_scale(binding):
    """The arguments that are, by the names that the model's author knows."""
    names = binding.arguments.names(binding.engine.target.model)
    arrays = {name: binding.arguments.leaves[number] for number, name in names.items()}
    return out_of_scale({name: array for name, array in arrays.items() if not is_traced(array)})


def _largest_curvature(binding, position):
    """Of the potential at a position, without preconditioner."""
    engine = replace(binding.engine, preconditioner=Identity(), integrator=EulerMaruyama())

    def stable(arguments, position):
        return largest_stable_step_size(engine, position, arguments)

    return 2 / float(binding.compiled("stability by hand", stable, binding.arguments)(position))


class TuningError(ValueError):
    """The run cannot be tuned: an assumption fails, and the message says which and what to do."""
