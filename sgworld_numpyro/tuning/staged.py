"""Tuning in stages, driven from Python: pilot, then choice. The same for all chains of all methods."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from sgworld_numpyro.chain.binding import Binding
from sgworld_numpyro.gradients import Anchor
from sgworld_numpyro.tuning import choice, flat, many_dimensions, pilot
from sgworld_numpyro.tuning.choice import Choice
from sgworld_numpyro.tuning.curvature import MAX_DENSE
from sgworld_numpyro.tuning.dense_looks import DenseLooks
from sgworld_numpyro.tuning.diagonal_looks import DiagonalLooks
from sgworld_numpyro.tuning.flat import Rise
from sgworld_numpyro.tuning.looks import CHAINS
from sgworld_numpyro.tuning.many_dimensions import Bulk
from sgworld_numpyro.tuning.pilot import Pilot
from sgworld_numpyro.tuning.plan import Plan
from sgworld_numpyro.tuning.report import Report, Tuning, in_report

SEED = 0x5EED  # of the pilot, which is not the chains'


class Learnt(NamedTuple):
    """What chains share.

    Attributes:
        tuning: with what they sample.
        pool: where they may start, draws of the pilot.
        rise: of the potential from there.
    """

    tuning: Tuning
    pool: Float[np.ndarray, "draws dim"]
    rise: Rise


def learn(
    plan: Plan,
    binding: Binding,
    init_strategy: Callable,
    given: Any,
    num_warmup: int,
    check: Callable[[Array], None],
    say: Callable[[str], None],
) -> Learnt:
    """Tune for a model and its data, or remember it.

    Args:
        plan: what to learn.
        binding: the model on its data, which have values.
        init_strategy: of the pilot's chains.
        given: initial values of some or all sites for them, chains first; None if there are none.
        num_warmup: samples of the warm-up, which pilot chains may take in passes.
        check: whether minibatches estimate the whole, at a position.
        say: is told what is done.

    Raises:
        ValueError: for data that are not finite, and if no valid initial values were found.
    """
    known = _digest(given)
    if known not in binding.learnt:
        # Where keys are traced the data are not: what is computed from them has values all the same.
        with nullcontext() if binding.hold else jax.ensure_compile_time_eval():
            binding.learnt[known] = _learn(plan, binding, init_strategy, given, num_warmup, check, say)
    return binding.learnt[known]


def _digest(given):
    leaves, treedef = jax.tree.flatten(given)
    return treedef, tuple((np.shape(leaf), np.asarray(leaf).tobytes()) for leaf in leaves)


def _learn(plan, binding, init_strategy, given, num_warmup, check, say):
    dense = plan.target.dim <= MAX_DENSE
    looks = DenseLooks(binding, SEED) if dense else DiagonalLooks(binding, SEED)
    given = {name: _of_chains(values) for name, values in given.items()} if given else None
    starts = looks.initial_positions(init_strategy, SEED, given)
    check(starts[0])
    warmup = num_warmup * (plan.steps or plan.default_steps) / plan.window_law.batches
    found, chosen = _found_and_chosen(plan, looks, starts, warmup, say)
    anchor = Anchor(*(jnp.asarray(np.asarray(x, looks.dtype)) for x in (found.mean, looks.gradient(found.mean))))
    preconditioner = chosen.preconditioner if plan.learns_preconditioner else None
    numbers = _numbers(plan, found, chosen, looks)
    tuning = Tuning(preconditioner, anchor, numbers, chosen.gradient, chosen.steps)
    return Learnt(tuning, np.asarray(found.draws, looks.dtype), found.rise)


def _found_and_chosen(plan, looks, starts, warmup, say) -> tuple[Pilot | Bulk, Choice]:
    """Where the posterior is, and what a run samples it with."""
    way: Any = pilot.explore if isinstance(looks, DenseLooks) else many_dimensions.explore
    found = way(looks, starts, plan.window_law, warmup, say)
    say("choosing the step")
    if not (found.finite and found.rise.nats >= flat.RISE):
        return found, choice.nothing(plan)
    choose: Any = choice.choose if isinstance(looks, DenseLooks) else many_dimensions.choose
    return found, choose(plan, looks, found)


def _of_chains(values):
    """As many as there are pilot chains, of the given ones, in their order."""
    values = np.asarray(values)
    return values[np.arange(CHAINS) % len(values)]


def _numbers(plan, found, chosen, looks):
    costs = {}
    if len(chosen.costs) > 1:
        costs = {"minibatch_cost": chosen.costs["Minibatch"], "control_variate_cost": chosen.costs["ControlVariate"]}
    report = Report(
        step_size=chosen.step_size,
        friction=chosen.friction,
        predicted_bias=chosen.bias,
        predicted_shift=chosen.shift,
        **in_report(chosen.rates),
        distance=np.sqrt(found.distance),
        flattest=np.inf,
        restarted=found.stray,
        warm_start_passes=found.descent_passes,
        tuning_passes=looks.passes,
        steps_per_sample=chosen.steps,
        cost=chosen.cost,
        **costs,
        modes=found.modes,
        pilot_r_hat=found.r_hat,
        pilot_temperature=found.temperature[0],
        pilot_temperature_error=found.temperature[1],
        window_passes=found.window_passes,
    )
    with np.errstate(over="ignore"):
        return np.array(report, looks.dtype)
