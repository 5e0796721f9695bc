"""Draws of the posterior, roughly, before the first sample: where its bulk is, and how wide it is there.

The mode does not say: a hierarchy's joint density may have none, and the bulk of most posteriors in many dimensions is
elsewhere. So four chains descend; if the posterior is Gaussian around the lowest point as far as its own energies show,
that Gaussian is the pilot. Else chains start from the best Gaussian along the way (Pathfinder's idea: Zhang, Carpenter,
Gelman & Vehtari 2022, JMLR 23, 306) and move in windows that grow, after each of which the metric is the inverse of the
mean Hessian over their draws. Everything here is plain numbers, in double precision.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sgworld_numpyro.tuning import flat, warm_start, windows
from sgworld_numpyro.tuning.dense_looks import DRAWS, DenseLooks
from sgworld_numpyro.tuning.descents import descend_all
from sgworld_numpyro.tuning.flat import Rise
from sgworld_numpyro.tuning.gaussian import FLOOR, Gaussian, least_rise, root_of_inverse
from sgworld_numpyro.tuning.looks import CHAINS, POOL
from sgworld_numpyro.tuning.step_size import Discretisation

LOOKS = 0.01, 0.02, 0.035, 0.055, 0.08, 0.12, 0.18, 0.27, 0.4, 0.55, 0.75, 1.0  # parts of a descent
NEARER = 0.25  # of the squared distance from the mode, below which a whole Newton step that leaves it is taken
NARROW = 1.0  # nats that the energies of a Gaussian's draws may scatter by around those that it expects
PAIRS = 8  # of draws of that Gaussian, opposite to each other
ELBO_DRAWS = 32
LEVEL = 3.0  # nats of ELBO below the best, among which the widest Gaussian is taken
BUDGET = 700  # passes of windows, if the warm-up is not longer
FARTHER = 10.0  # times what energies would allow, a place is taken for another mode's


class Pilot(NamedTuple):
    """What the pilot found.

    Attributes:
        draws: of the posterior, roughly.
        mean: of the draws, where the anchor is.
        at: ``DRAWS`` of them, over which curvature and scatter are averaged.
        hessians: there.
        root: L of the metric M = L Lᵀ.
        narrow: whether the posterior is Gaussian around its mode, so that no chain had to run.
        distance: squared distance of the descent's end from the mode in posterior sds, a dimension.
        finite: whether a descent ended where energy and gradient are finite.
        rise: the least rise of the potential from there.
        stray: chains whose descents ended far above the lowest, and that started again from it.
        modes: others than the lowest, as low as it, that descents ended near.
        r_hat: of the last window; NaN without windows.
        passes_per_draw: of the last window, over the data, for an effective draw of its worst coordinate; likewise.
        temperature: of the worst coordinate or principal direction, and its standard error; likewise.
        slowdown: by what the last window mixed more slowly than a Gaussian with the curvature of its metric would.
        smaller: what steps are to be divided by, found by temperatures.
        descent_passes, window_passes: over the data, in gradients, all chains together.
    """

    draws: Float[np.ndarray, "draws dim"]
    mean: Float[np.ndarray, "dim"]
    at: Float[np.ndarray, "few dim"]
    hessians: Float[np.ndarray, "few dim dim"]
    root: Float[np.ndarray, "dim dim"]
    narrow: bool
    distance: float
    finite: bool
    rise: Rise
    stray: int
    modes: int
    r_hat: float = np.nan
    passes_per_draw: float = np.nan
    temperature: tuple[float, float] = (np.nan, np.nan)
    slowdown: float = 1.0
    smaller: float = 1.0
    descent_passes: float = 0.0
    window_passes: float = 0.0


def explore(
    looks: DenseLooks,
    starts: Float[np.ndarray, "chains dim"],
    discretisation: Discretisation,
    warmup: float,
    say: Callable[[str], None],
) -> Pilot:
    """Find the posterior's bulk.

    Args:
        looks: at the model's data.
        starts: of the descents.
        discretisation: what decides the bias of the window's chains.
        warmup: passes of the run's warm-up, as many as windows may take, if that is more than ``BUDGET``.
        say: is told what is done.
    """
    rng = np.random.default_rng(0)
    say("descending")
    descents = descend_all(looks, starts, LOOKS)
    path = descents.path.astype(float)
    ends, temperature = path[-1], discretisation.temperature
    finite = bool(np.isfinite(descents.heights).any())
    say("looking for the mode")
    mode, distance, gradient, hessians = _approach(looks, ends[descents.lowest])
    rise = least_rise(looks, mode, gradient)
    mode = _at_its_mode(mode, distance, gradient)
    modes = _other_modes(looks, mode, ends[~descents.stray])
    found = Pilot(
        draws=_tempered(mode, temperature).draws(rng, POOL),
        mean=mode.mean,
        at=_tempered(mode, temperature).draws(rng, DRAWS),
        hessians=hessians,
        root=mode.root,
        narrow=True,
        distance=distance,
        finite=finite,
        rise=rise,
        stray=int(descents.stray.sum()),
        modes=modes,
        descent_passes=descents.passes,
    )
    near = distance <= warm_start.FAR
    if not finite or (near and -flat.FALLS <= rise.nats < flat.RISE):  # there is no posterior
        return found
    if distance <= 1 and modes == 0 and _is_gaussian(looks, mode, temperature, rng):
        return found
    say("looking for the bulk")
    start, starts = _best_on_path(looks, path[:, np.argsort(descents.heights)[:2]], mode, rng)
    return windows.move(looks, found, start, starts, discretisation, max(BUDGET, warmup), say)


def _tempered(gaussian, temperature):
    return gaussian._replace(root=gaussian.root * np.sqrt(temperature))


def _approach(looks, position):
    """The Gaussian where Newton's method leads, how near the mode that is, gradient and Hessians there."""
    gradient = looks.gradient(position)
    for step in range(warm_start.NEWTON_STEPS + 1):
        hessians = looks.hessians(np.broadcast_to(position, (DRAWS, len(position))), step)
        if not (np.isfinite(gradient).all() and np.isfinite(hessians).all()):
            gradient, hessians = np.zeros_like(position), np.broadcast_to(np.eye(len(position)), hessians.shape)
            return Gaussian(position, np.eye(len(position)), False), np.inf, gradient, hessians
        root, curved = root_of_inverse(hessians.mean(0), FLOOR["mode"])
        distance = float(np.mean((root.T @ gradient) ** 2))
        if distance <= warm_start.NEAR or step == warm_start.NEWTON_STEPS:
            break
        whole = position - root @ (root.T @ gradient)
        if curved:
            onward = looks.gradient(whole)
            if np.mean((root.T @ onward) ** 2) < NEARER * distance:  # as of a quadratic: no need of energies
                position, gradient = whole, onward
                continue
        trials = position - warm_start.FRACTIONS[:-1, None] * (position - whole)
        heights = looks.heights(np.concatenate([position[None], trials]))
        if heights.argmin() == 0:
            break
        position = trials[heights.argmin() - 1]
        gradient = looks.gradient(position)
    return Gaussian(position, root, curved), distance, gradient, hessians


def _at_its_mode(gaussian, distance, gradient):
    """A Gaussian moved by the rest of a Newton step, if it is that near."""
    near = np.isfinite(distance) and distance <= 1
    return gaussian._replace(mean=gaussian.mean - gaussian.root @ (gaussian.root.T @ gradient)) if near else gaussian


def _other_modes(looks, mode, ends):
    """Modes other than the lowest, as low as it, that descents ended near: they are where Newton's method leads."""
    found: list[Gaussian] = []
    heights = looks.heights(np.concatenate([mode.mean[None], ends]))[1:]
    for end, height in zip(ends, heights, strict=True):
        expected = 0.5 * np.sum(np.linalg.solve(mode.root, end - mode.mean) ** 2)
        if expected <= FARTHER * (max(height, 0.0) + len(end) + 10):
            continue
        other, distance, gradient, _ = _approach(looks, end)
        other = _at_its_mode(other, distance, gradient)
        away = min((_away(one, other) for one in (mode, *found)), default=np.inf)
        if other.curved and distance <= 1 and away > FARTHER * len(end):
            found.append(other)
    return len(found)


def _away(mode, other):
    """Squared distance of two modes, in sds of both."""
    return sum(np.sum(np.linalg.solve(one.root, mode.mean - other.mean) ** 2) for one in (mode, other)) / 2


def _is_gaussian(looks, mode, temperature, rng):
    """Whether energies around a mode are those of its Gaussian."""
    if not mode.curved:
        return False
    half = rng.normal(size=(PAIRS, len(mode.mean)))
    white = np.sqrt(temperature) * np.concatenate([half, -half])
    heights = looks.heights(np.concatenate([mode.mean[None], mode.mean + white @ mode.root.T]))[1:]
    return bool(np.std(heights - 0.5 * np.sum(white**2, axis=1)) <= NARROW * temperature)


def _best_on_path(looks, path, mode, rng):
    """The widest of the local Gaussians with the best ELBO, and draws of it."""
    reference = mode.mean
    places = [*path.reshape(-1, path.shape[-1]), reference]
    found = []
    for number, place in enumerate(places):
        hessian = looks.hessians(np.broadcast_to(place, (DRAWS, len(place))), number).mean(0)
        if not np.isfinite(hessian).all():
            continue
        gaussian = Gaussian(place, *root_of_inverse(hessian, FLOOR["path"]))
        draws = gaussian.draws(rng, ELBO_DRAWS)
        heights = looks.heights(np.concatenate([reference[None], draws]))[1:]
        width = np.linalg.slogdet(gaussian.root)[1]
        if np.isfinite(heights).all():
            found.append((width - heights.mean(), width, gaussian, draws))
    if not found:
        return mode, mode.draws(rng, CHAINS)
    best = max(elbo for elbo, *_ in found)
    _, _, gaussian, draws = max((one for one in found if one[0] >= best - LEVEL), key=lambda one: one[1])
    return gaussian, draws[:CHAINS]
