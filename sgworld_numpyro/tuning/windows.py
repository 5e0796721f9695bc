"""Pilot chains in windows that grow, each with the metric that the draws of the one before suggest."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.preconditioners import Dense
from sgworld_numpyro.tuning.dense_looks import DRAWS, DenseLooks
from sgworld_numpyro.tuning.gaussian import FLOOR, Gaussian, least_rise, root_of_inverse
from sgworld_numpyro.tuning.looks import CHAINS, POOL, RECORDED
from sgworld_numpyro.tuning.rates import rates_at
from sgworld_numpyro.tuning.step_size import Discretisation

FIRST_WINDOW = 100  # passes; each window is twice as long as the one before
FIRST_PASS = 0.1  # R h √λ in the first window, whose metric is not to be trusted
CALM = 1.1  # R-hat of a window that ends them
HOT = 4.0  # standard errors of a temperature that is believed to be too high
SMALLER = 4.0  # what a step is divided by where chains diverge


class _Window(NamedTuple):
    """What chains did in a window."""

    positions: np.ndarray  # (RECORDED, chains, dim)
    passes: float
    r_hat: float
    effective: float

    @property
    def passes_per_draw(self):
        """An effective draw of the worst coordinate."""
        return self.passes * CHAINS / max(self.effective, 1.0)

    @property
    def settled(self):
        """Without its first part."""
        return self.positions[RECORDED // 3 :]


def move(
    looks: DenseLooks,
    found: Any,
    start: Gaussian,
    starts: Any,
    discretisation: Discretisation,
    budget: float,
    say: Callable[[str], None],
) -> Any:
    """A ``Pilot`` with the draws of chains that moved until they agree, or the budget is spent.

    Args:
        looks: at the model's data.
        found: the ``Pilot`` so far.
        start: the Gaussian with whose metric the first window begins.
        starts: of the chains, shape (chains, dim).
        discretisation: what decides the bias of their steps.
        budget: passes of all windows.
        say: is told what is done.
    """
    engine = looks.window_engine(discretisation.temperature)
    passes_each = engine.steps / discretisation.batches
    root, friction, smaller = start.root, 2.0, 1.0
    step_size = FIRST_PASS / discretisation.batches
    state = looks.chains_at(engine, starts, random.key(1), step_size, friction)
    spent, taken, length, last = 0.0, 0, float(FIRST_WINDOW), None
    temperature = np.nan, np.nan
    while last is None or spent + length <= budget:
        say(f"window of {length:.0f} passes")
        samples = max(1, round(length / passes_each / RECORDED))
        before = state
        for _ in range(4):
            state, positions = looks.window(engine, before, Dense.from_root(looks.cast(root)), taken, samples)
            positions = positions.astype(float)
            if np.isfinite(positions).all():
                break
            step_size, smaller = step_size / SMALLER, smaller * SMALLER
            before = looks.chains_at(engine, starts, random.key(1), step_size, friction)
        else:
            break
        taken += samples * RECORDED
        spent += samples * RECORDED * passes_each
        last = _looked_at(positions, samples * RECORDED * passes_each)
        expected = 2 * friction / (step_size * discretisation.batches)  # passes an effective draw, at curvature 1
        at = _some(last.settled, DRAWS)
        hessians = looks.hessians(at, taken)
        root, _ = root_of_inverse(hessians.mean(0), FLOOR["window"])
        mean = last.settled.mean((0, 1))
        if not np.isfinite(hessians).all():
            return _ran_off(found, spent)
        rates = rates_at(looks, at, hessians, mean, root, discretisation.temperature, narrow=False)
        if not (rates.fastest > 0 and rates.mean > 0):
            return _ran_off(found, spent)
        chosen = float(discretisation.choose(friction, rates)) / smaller
        temperature = _temperature(looks, last, mean, root, discretisation.temperature)
        hot, error = temperature
        excess = hot / discretisation.temperature - 1
        trusted = last.r_hat <= CALM and taken > samples * RECORDED
        if trusted and excess > HOT * error + 2 * discretisation.tolerance:
            shrink = float(np.clip(np.sqrt(excess / (2 * discretisation.tolerance)), 1, SMALLER))
            smaller, chosen = smaller * shrink, chosen / shrink
        elif trusted:
            break
        state, step_size = with_metric(state, chosen, friction), chosen
        length = 2 * length
    if last is None:
        return _ran_off(found, length)
    bulk = Gaussian(mean, root_of_inverse(hessians.mean(0), FLOOR["mode"])[0])
    return found._replace(
        rise=least_rise(looks, bulk, looks.gradient(mean)),
        draws=_some(last.settled, POOL),
        mean=mean,
        at=at,
        hessians=hessians,
        root=root,
        narrow=False,
        r_hat=last.r_hat,
        passes_per_draw=last.passes_per_draw,
        slowdown=max(1.0, last.passes_per_draw / expected),
        temperature=temperature,
        smaller=smaller,
        window_passes=CHAINS * spent,
    )


def _ran_off(found, spent):
    """Chains that met no posterior in so many passes."""
    return found._replace(narrow=False, finite=False, r_hat=np.inf, window_passes=CHAINS * spent)


def _looked_at(positions, passes):
    draws = positions[RECORDED // 3 :].swapaxes(0, 1)  # chains first
    varies = draws.std((0, 1)) > 0
    r_hat = np.max(split_gelman_rubin(draws)[varies], initial=1.0)
    effective = np.min(effective_sample_size(draws)[varies], initial=draws.shape[0] * draws.shape[1])
    return _Window(positions, passes * (1 - (RECORDED // 3) / RECORDED), float(r_hat), float(effective))


def _some(positions, count):
    """Draws of all chains, evenly spaced in time."""
    flat_ones = positions.reshape(-1, positions.shape[-1])  # one chain after the other at every time
    return flat_ones[np.linspace(0, len(flat_ones) - 1, count).astype(int)]


def with_metric(state: SGState, step_size: float, friction: float) -> SGState:
    """Chains in another metric: their velocities are drawn anew by friction, and begin at rest."""
    integrator = state.integrator_state
    nothing = jnp.zeros_like(integrator.velocity)
    integrator = integrator._replace(
        velocity=nothing, force=nothing, friction=jnp.full_like(integrator.friction, friction)
    )
    return state._replace(integrator_state=integrator, step_size=jnp.full_like(state.step_size, step_size))


def _temperature(looks, window, mean, root, expected):
    """The highest temperature of a coordinate or a principal direction of the metric, and its standard error.

    E[(θ_j - c_j) ∂_jU] = T for every coordinate and constant c, by integration by parts.
    """
    draws = window.settled[::2]
    gradients = looks.gradients(draws.reshape(-1, draws.shape[-1])).reshape(draws.shape)
    offsets = draws - mean
    virials = offsets * gradients, np.linalg.solve(root, offsets[..., None])[..., 0] * (gradients @ root)
    both = np.concatenate(virials, axis=-1)
    blocks = np.stack([half.mean(0) for half in np.array_split(both, 2)]).reshape(-1, both.shape[-1])
    mean_virial = both.mean((0, 1))
    errors = blocks.std(0, ddof=1) / np.sqrt(len(blocks))
    worst = int(np.argmax((mean_virial - expected) / errors))
    return float(mean_virial[worst]), float(errors[worst])
