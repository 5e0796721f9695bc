"""What a kernel leaves open is learnt before its first sample, and refused where the assumptions fail."""

import math
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
from sgworld_numpyro.chain.held_data import is_traced
from sgworld_numpyro.chain.stability import largest_stable_step_size
from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.integrators import EulerMaruyama, KineticState, is_kinetic
from sgworld_numpyro.linear_gaussian import knows_integrator, knows_scheme
from sgworld_numpyro.model.target import Arguments
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
from sgworld_numpyro.tuning import Discretisation, Plan, Rise, Tuning, out_of_scale, problem_with, tune

_STREAM = 0x70E


def learns(component: Any) -> bool:
    """Whether a preconditioner is left to be learnt."""
    return getattr(component, "to_be_learnt", False)


def plan_of(engine: Engine, step_size: Any, bias_tolerance: float) -> Plan | None:
    """What to learn, or None if everything is given."""
    friction = getattr(engine.integrator, "friction", None)
    missing = is_kinetic(engine.integrator) and friction is None
    if not (step_size is None or missing or learns(engine.preconditioner) or engine.gradient.needs_anchor):
        return None
    plate = max(engine.target.plates, key=lambda plate: plate.batches)
    discretisation, integrator = None, engine.integrator
    if knows_integrator(integrator) and engine.temperature > 0:
        period = math.lcm(*(engine.subsampling.period(plate) for plate in engine.target.plates))
        discretisation = Discretisation(
            scheme=_with_known_law(engine.subsampling, plate),
            integrator=integrator,
            num_rows=plate.size,
            batch_size=plate.batch_size,
            at_ends=engine.steps % period == 0,
            temperature=engine.temperature,
            minibatch_noise=not engine.gradient.needs_anchor,
            tolerance=bias_tolerance,
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
    )


def _with_known_law(scheme: SubsamplingScheme, plate: Plate) -> NamedScheme:
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


def start_near_the_mode(plan: Plan, arguments: Arguments, state: SGState, rng_key: Array) -> tuple[SGState, Rise]:
    """An initial state moved near the mode, with what was learnt there, and the least rise of the potential from there.

    Of one chain or of several.
    """
    single = is_prng_key(rng_key)
    key = random.fold_in(rng_key if single else rng_key[0], _STREAM)
    dim = plan.target.dim
    positions, tuning, rise = tune(plan, arguments, state.position.reshape(-1, dim), key)
    z = plan.target.unravel(positions[0]) if single else jax.vmap(plan.target.unravel)(positions)
    integrator_state = state.integrator_state
    if isinstance(integrator_state, KineticState) and plan.friction is None:
        friction = jnp.full_like(integrator_state.friction, tuning.report.friction)
        integrator_state = integrator_state._replace(friction=friction)
    state = state._replace(
        z=z,
        step_size=jnp.full_like(state.step_size, tuning.report.step_size),
        integrator_state=integrator_state,
        tuning=tuning,
    )
    return state, rise


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
