"""Tuning in so many dimensions that no matrix is made: the metric is diagonal, and chains say how large a step may be.

Four chains descend, go back along their way to where a Gaussian fits best (Pathfinder's idea: Zhang, Carpenter, Gelman
& Vehtari 2022, JMLR 23, 306), and move in windows that grow, by reshuffled BAOAB. For each the metric is the inverse of
the mean curvature of each coordinate where they are, as gradients' squares and priors show it, and curvature and noise
there decide the step. A network's weights need not agree between chains. So it is energies of groups of rows that are
compared, and of every site the temperature is asked, E[(θ - c)·∇U] = T for each of its coordinates.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jax import random
from jaxtyping import Float
from numpyro.diagnostics import split_gelman_rubin

from sgworld_numpyro.preconditioners import Diagonal
from sgworld_numpyro.tuning import windows
from sgworld_numpyro.tuning.choice import Choice
from sgworld_numpyro.tuning.curvature import bounded
from sgworld_numpyro.tuning.descents import descend_all
from sgworld_numpyro.tuning.diagonal_looks import DiagonalLooks, Slopes
from sgworld_numpyro.tuning.flat import FALLS, RISE, Rise
from sgworld_numpyro.tuning.looks import CHAINS, POOL
from sgworld_numpyro.tuning.plan import Plan
from sgworld_numpyro.tuning.step_size import SHIFT, Discretisation

LOOKS = 0.01, 0.03, 0.07, 0.15, 0.3, 0.5, 0.75, 1.0  # parts of a descent; a multiple of ``CHAINS``
ELBO_DRAWS = 8
FRACTIONS = np.array([1.0, 0.5, 0.25, 0.1, 0.0])  # of a Newton step
STEPS_ON = 3
BUDGET = 35, 700  # passes of each chain's windows: the warm-up's, between these
WINDOWS = 3  # that a budget pays for
DAMPING = 1.0  # γ by the root of the mean curvature: it is the slow directions that a chain waits for
NUMBERS = 2**24  # of a pool of draws
EVERY = 2  # of the recorded draws are looked at


class Bulk(NamedTuple):
    """What the chains found.

    Attributes:
        draws: of the posterior, roughly.
        mean: of the draws if chains agree, else where the lowest descent ended.
        at: a draw of each chain.
        slopes: there.
        metric: M, from them.
        steepest: the direction of the largest curvature, in the coordinates of M.
        finite: whether a descent ended where energy and gradient are finite.
        rise: the least rise of the potential from there.
        distance: squared distance of that end from the mode in sds of the metric, a dimension.
        stray: chains whose descents ended far above the lowest, and that started again from it.
        r_hat: of the last window, of the energies of groups of rows.
        temperature: of the site that is farthest above T, by its error, and the standard error; likewise.
        smaller: what steps are to be divided by, found by temperatures.
        descent_passes, window_passes: over the data, in gradients, all chains together.
        modes: others that were met: of very many dimensions nothing is said.
    """

    draws: Float[np.ndarray, "draws dim"]
    mean: Float[np.ndarray, "dim"]
    at: Float[np.ndarray, "chains dim"]
    slopes: Slopes
    metric: Diagonal
    finite: bool
    rise: Rise
    distance: float
    stray: int
    steepest: Float[np.ndarray, "dim"] | None = None
    r_hat: float = np.nan
    temperature: tuple[float, float] = (np.nan, np.nan)
    smaller: float = 1.0
    descent_passes: float = 0.0
    window_passes: float = 0.0
    modes: float = np.nan


def explore(
    looks: DiagonalLooks,
    starts: Float[np.ndarray, "chains dim"],
    discretisation: Discretisation,
    warmup: float,
    say: Callable[[str], None],
) -> Bulk:
    """Find the posterior's bulk.

    Args:
        looks: at the model's data.
        starts: of the descents.
        discretisation: what decides the bias of the windows' chains.
        warmup: passes of the run's warm-up, as many as the windows of a chain may take, within limits.
        say: is told what is done.
    """
    rng = np.random.default_rng(0)
    say("descending")
    descents = descend_all(looks, starts, LOOKS)
    path, lowest = descents.path, descents.lowest
    path[:, descents.stray] = path[:, lowest, None]
    ends = path[-1]
    say("looking for the bulk")
    place, metrics, slopes = _best_place(looks, path[:, lowest], discretisation.temperature, rng)
    gradient, metric = slopes.gradients[-1].astype(float), metrics[-1]
    found = Bulk(
        draws=ends,
        mean=ends[lowest],
        at=ends,
        slopes=slopes,
        metric=metric,
        finite=bool(np.isfinite(descents.heights).any() and np.isfinite(gradient).all()),
        rise=looks.rise(ends[lowest], gradient, metric),
        distance=float(np.mean(metric.diagonal * gradient**2)),
        stray=int(descents.stray.sum()),
        descent_passes=descents.passes,
    )
    if not found.finite or -FALLS <= found.rise.nats < RISE:  # there is no posterior
        return found
    noise = rng.normal(size=ends.shape) * np.sqrt(discretisation.temperature)
    return _move(looks, found, path[place] + noise * np.sqrt(metrics[place].diagonal), discretisation, warmup, say)


def choose(plan: Plan, looks: DiagonalLooks, bulk: Bulk) -> Choice:
    """The step, by the law of its bias, and the friction; the estimator and a sample's length are the defaults."""
    preconditioner = bulk.metric if plan.learns_preconditioner else plan.preconditioner
    rates, _ = looks.rates(bulk.at[0], bulk.slopes.gradients[0], preconditioner, plan.temperature, bulk.steepest)
    friction = DAMPING * float(np.sqrt(rates.mean)) if plan.friction is None else float(plan.friction)
    estimator, law = plan.estimators[0], plan.discretisation
    bias = shift = step_size = np.nan
    if law is not None:
        law = replace(law, minibatch_noise=not estimator.needs_anchor)
        step_size = _step_size(law, friction, rates, looks.dim) / bulk.smaller
    if plan.step_size is not None:
        step_size = float(plan.step_size)
    if law is not None:
        bias, shift = (float(number) for number in law.bias(step_size, friction, rates))
        shift = max(shift, _shift_of_all(law, step_size, friction, rates, looks.dim))
    friction = friction if plan.kinetic else np.nan
    steps = plan.steps or plan.default_steps
    return Choice(preconditioner, estimator, step_size, friction, steps, bias, shift, np.nan, {}, rates)


def _best_place(looks, path, temperature, rng):
    """The part of a descent near which a Gaussian has the best ELBO, metrics of all of them, and slopes at the last."""
    metrics, elbos, places = [], [], []
    for first in range(0, len(path), CHAINS):
        slopes = looks.slopes(path[first : first + CHAINS])
        metrics += [_metric(curvatures) for curvatures in slopes.curvatures]
        places += list(_onward(looks, path[first : first + CHAINS], slopes))
    for position, metric in zip(places, metrics, strict=True):
        scatter = rng.normal(size=(ELBO_DRAWS, looks.dim)) * np.sqrt(temperature * metric.diagonal)
        heights = looks.heights(np.concatenate([path[-1:], position + scatter]))[1:]
        elbos.append(np.sum(np.log(metric.diagonal.astype(float))) / 2 - heights.mean() / temperature)
    return int(np.argmax(np.nan_to_num(elbos, nan=-np.inf))), metrics, slopes


def _onward(looks, positions, slopes):
    """Where some Newton steps lead, in diagonal metrics, each as long as energies allow."""
    for _ in range(STEPS_ON):
        onward = []
        for position, gradient, curvatures in zip(positions, slopes.gradients, slopes.curvatures, strict=True):
            with np.errstate(invalid="ignore", over="ignore"):  # of gradients that are not finite
                trials = position - FRACTIONS[:, None] * _metric(curvatures).diagonal * gradient
            heights = looks.heights(np.concatenate([position[None], trials]))[1:]
            onward.append(trials[heights.argmin()])
        positions = np.stack(onward)
        slopes = looks.slopes(positions)
    return positions


def _metric(curvatures):
    """Of curvatures of the coordinates."""
    return Diagonal.tree_unflatten(None, (np.asarray(1 / bounded(np.abs(curvatures))),))


def _move(looks, found, starts, law, warmup, say):
    """Chains that move until they agree and no site is too hot, or the budget is spent."""
    budget = float(np.clip(warmup, *BUDGET))
    engine = looks.window_engine(law.temperature)
    passes_each = engine.steps / law.batches
    spent, taken, length = 0.0, 0, budget / (2**WINDOWS - 1)
    state, at, smaller = None, starts, 1.0
    slopes = looks.slopes(at)
    metric = _metric(slopes.curvatures.mean(0))
    for number in range(WINDOWS):
        say(f"window of {length:.0f} passes")
        of = number % CHAINS
        rates, steepest = looks.rates(at[of], slopes.gradients[of], metric, law.temperature, found.steepest)
        if not (np.isfinite(rates).all() and rates.fastest > 0 and rates.mean > 0):
            return _ran_off(found, spent)
        friction = DAMPING * float(np.sqrt(rates.mean))
        step_size = _step_size(law, friction, rates, looks.dim) / smaller
        samples = max(1, round(length / passes_each / looks.recorded))
        for _ in range(4):
            before = (
                looks.chains_at(engine, at, random.key(1), step_size, friction)
                if state is None
                else windows.with_metric(state, step_size, friction)
            )
            after, positions = looks.window(engine, before, metric, taken, samples)
            if np.isfinite(positions).all():
                break
            step_size, smaller = step_size / windows.SMALLER, smaller * windows.SMALLER
        else:
            return _ran_off(found, spent)
        state = after
        taken += samples * looks.recorded
        spent += samples * looks.recorded * passes_each
        settled = positions[looks.recorded // 3 :]
        r_hat = _r_hat(looks, settled[::EVERY])
        temperature, error = _temperature(looks, settled[::EVERY], law.temperature)
        excess = temperature / law.temperature - 1
        too_hot = excess > windows.HOT * error / law.temperature + 2 * law.tolerance
        if too_hot:
            smaller *= float(np.clip(np.sqrt(excess / (2 * law.tolerance)), 1, windows.SMALLER))
        at = positions[-1]
        slopes = looks.slopes(at)
        metric = _metric(slopes.curvatures.mean(0))
        found = found._replace(
            draws=_pool(settled),
            mean=settled.mean((0, 1)) if r_hat <= windows.CALM else found.mean,
            at=at,
            slopes=slopes,
            metric=metric,
            steepest=steepest,
            r_hat=r_hat,
            temperature=(temperature, error),
            smaller=smaller,
            window_passes=CHAINS * spent,
        )
        if number > 0 and r_hat <= windows.CALM and not too_hot:
            break
        length *= 2
    return found._replace(rise=looks.rise(at[0], slopes.gradients[0], metric))


def _step_size(law, friction, rates, dim):
    """Within the tolerance in the steepest direction, and, if half of that will do, for what all coordinates decide."""
    longest = float(law.choose(friction, rates))
    for step_size in np.geomspace(1.0, 0.5, 29) * longest:
        if _shift_of_all(law, step_size, friction, rates, dim) <= SHIFT * law.tolerance:
            break
    return float(step_size)


def _shift_of_all(law, step_size, friction, rates, dim):
    """By how many sds what all coordinates decide is moved, such as the scale of their prior.

    It knows their mean square to a relative sd of √(2/d), and the variances of all are wrong in the same sense.
    """
    wider, *_ = law.parts(step_size, friction, rates._replace(fastest=rates.mean))
    return float(wider) * np.sqrt(dim / 2)


def _ran_off(found, spent):
    """Chains that met no posterior in so many passes."""
    return found._replace(finite=False, r_hat=np.inf, window_passes=CHAINS * spent)


def _pool(positions):
    """Draws of all chains, evenly spaced in time, the last ones of each among them."""
    dim = positions.shape[-1]
    times = int(np.clip(NUMBERS // dim // CHAINS, 1, POOL // CHAINS))
    some = np.unique(np.linspace(len(positions) - 1, 0, times).astype(int))
    return positions[some].reshape(-1, dim)


def _r_hat(looks, positions):
    """Of the energies of groups of rows, the worst."""
    times, chains, dim = positions.shape
    energies = looks.group_energies(positions.reshape(-1, dim)).reshape(times, chains, -1)
    return float(np.max(split_gelman_rubin(energies.swapaxes(0, 1))))


def _temperature(looks, positions, expected):
    """That of the site which is farthest above T, by its error, and the standard error.

    Each half of the draws is centred by the other: a centre of its own would follow it.
    """
    gradients = looks.gradients(positions.reshape(-1, looks.dim)).reshape(positions.shape)
    halves = np.array_split(np.arange(len(positions)), 2)
    sizes = [int(np.prod(looks.target.prototype[site].shape)) for site in sorted(looks.target.prototype)]
    firsts = np.cumsum([0, *sizes[:-1]])
    blocks = []
    for own, other in (halves, halves[::-1]):
        virials = ((positions[own] - positions[other].mean(0)) * gradients[own]).mean(0)
        blocks.append(np.add.reduceat(virials, firsts, axis=1) / sizes)
    each = np.concatenate(blocks)  # (2 chains, sites)
    temperatures, errors = each.mean(0), each.std(0, ddof=1) / np.sqrt(len(each))
    worst = int(np.argmax((temperatures - expected) / errors))
    return float(temperatures[worst]), float(errors[worst])
