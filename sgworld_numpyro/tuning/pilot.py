"""Draws of the posterior, roughly, before the first sample: where its bulk is, and how wide it is there.

The mode does not say: a hierarchy's joint density may have none, and the bulk of most posteriors in many dimensions is
elsewhere. So four chains descend; if the posterior is Gaussian around the lowest point as far as its own energies show,
that Gaussian is the pilot. Else chains start from the best Gaussian along the way (Pathfinder's idea: Zhang, Carpenter,
Gelman & Vehtari 2022, JMLR 23, 306) and move in windows that grow, after each of which the metric is the inverse of the
mean Hessian over their draws. Everything here is plain numbers, in double precision.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from sgworld_numpyro.chain.state import SGState
from sgworld_numpyro.tuning import flat, warm_start
from sgworld_numpyro.tuning.curvature import Rates
from sgworld_numpyro.tuning.flat import Rise
from sgworld_numpyro.tuning.looks import DRAWS, RECORDED, Looks
from sgworld_numpyro.tuning.step_size import Discretisation

CHAINS = 4
LOOKS = 0.01, 0.02, 0.035, 0.055, 0.08, 0.12, 0.18, 0.27, 0.4, 0.55, 0.75, 1.0  # parts of a descent
NARROW = 1.0  # nats that the energies of a Gaussian's draws may scatter by around those that it expects
PAIRS = 8  # of draws of that Gaussian, opposite to each other
ELBO_DRAWS = 32
LEVEL = 3.0  # nats of ELBO below the best, among which the widest Gaussian is taken
FLOOR = {"mode": 1e-9, "path": 1e-3, "window": 1e-4}  # of an eigenvalue, by their median, in the coordinates' scales
POOL = 64  # draws that are kept
FIRST_WINDOW = 100  # passes; each window is twice as long as the one before
BUDGET = 700  # passes of windows, if the warm-up is not longer
FIRST_PASS = 0.1  # R h √λ in the first window, whose metric is not to be trusted
CALM = 1.1  # R-hat of a window that ends them
FARTHER = 10.0  # times what energies would allow, a place is taken for another mode's
HOT = 4.0  # standard errors of a temperature that is believed to be too high
SMALLER = 4.0  # what a step is divided by where chains diverge


class Gaussian(NamedTuple):
    """A Gaussian: mean, a root of its covariance, and whether its curvature was positive all around."""

    mean: Float[np.ndarray, "dim"]
    root: Float[np.ndarray, "dim dim"]
    curved: bool = True

    def draws(self, rng: np.random.Generator, count: int) -> Float[np.ndarray, "count dim"]:
        """So many of it."""
        return self.mean + rng.normal(size=(count, len(self.mean))) @ self.root.T


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


def root_of_inverse(hessian: Float[np.ndarray, "dim dim"], floor: float) -> tuple[np.ndarray, bool]:
    """L with L Lᵀ = |H|⁻¹, eigenvalues bounded from below in the coordinates' own scales, and whether H was positive.

    Args:
        hessian: H.
        floor: of eigenvalues, by their median.
    """
    scale = 1 / np.sqrt(np.maximum(np.abs(np.diag(hessian)), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(hessian * np.outer(scale, scale))
    bounded = np.maximum(np.abs(values), floor * np.median(np.abs(values)))
    return scale[:, None] * vectors / np.sqrt(bounded), bool(values[0] > 0)


def explore(
    looks: Looks,
    starts: Float[Array, "chains dim"],
    discretisation: Discretisation,
    budget: float,
    say: Callable[[str], None],
) -> Pilot:
    """Find the posterior's bulk.

    Args:
        looks: at the model's data.
        starts: of the descents.
        discretisation: what decides the bias of the window's chains.
        budget: passes of windows.
        say: is told what is done.
    """
    rng = np.random.default_rng(0)
    say("descending")
    path = _descend(looks, starts)
    ends = path[-1]
    dim, temperature = ends.shape[1], discretisation.temperature
    heights = looks.heights(np.concatenate([ends[:1], ends]))[1:]
    if not np.isfinite(heights).any():  # it may be the first alone that is not
        heights = np.array([looks.heights(np.stack([end, end]))[1] for end in ends])
    finite = bool(np.isfinite(heights).any())
    lowest = int(np.argmin(heights))
    stray = ~(heights - heights[lowest] <= 2 * dim + 20)
    say("looking for the mode")
    mode, distance, rise, hessians = _approach(looks, ends[lowest])
    plate = looks.plate
    passes = CHAINS * warm_start.adam_steps(plate) * plate.batch_size / plate.size
    modes = _other_modes(looks, mode, ends, heights, stray)
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
        stray=int(stray.sum()),
        modes=modes,
        descent_passes=passes,
    )
    near = distance <= warm_start.FAR
    if not finite or (near and -flat.FALLS <= rise.nats < flat.RISE):  # there is no posterior
        return found
    if distance <= 1 and modes == 0 and _is_gaussian(looks, mode, temperature, rng):
        return found
    say("looking for the bulk")
    start, starts = _best_on_path(looks, path[:, np.argsort(heights)[:2]], mode, rng)
    return _windows(looks, found, start, starts, discretisation, budget, say)


def _tempered(gaussian, temperature):
    return gaussian._replace(root=gaussian.root * np.sqrt(temperature))


def _descend(looks, starts):
    """Where descents were at each of ``LOOKS``, shape (looks, chains, dim)."""
    steps = warm_start.adam_steps(looks.plate)
    descents, path, first = jax.vmap(warm_start.Descent.at)(jnp.asarray(starts)), [], 0
    for part in LOOKS:
        last = max(first + 1, round(part * steps))
        descents = looks.descend(descents, first, last)
        path.append(np.asarray(descents.sound, float))
        first = last
    return np.stack(path)


def _approach(looks, position):
    """The Gaussian at the mode by Newton's method, how near that is, the least rise from there, and Hessians."""
    for step in range(warm_start.NEWTON_STEPS + 1):
        gradient = looks.gradient(position)
        hessians = looks.hessians(np.broadcast_to(position, (DRAWS, len(position))), step)
        if not (np.isfinite(gradient).all() and np.isfinite(hessians).all()):
            gradient, hessians = np.zeros_like(position), np.broadcast_to(np.eye(len(position)), hessians.shape)
            mode, distance = Gaussian(position, np.eye(len(position)), False), np.inf
            break
        root, curved = root_of_inverse(hessians.mean(0), FLOOR["mode"])
        distance = float(np.mean((root.T @ gradient) ** 2))
        mode = Gaussian(position, root, curved)
        if distance <= warm_start.NEAR or step == warm_start.NEWTON_STEPS:
            break
        fractions = warm_start.FRACTIONS[:-1, None]
        trials = position - fractions * (root @ (root.T @ gradient))
        heights = looks.heights(np.concatenate([position[None], trials]))
        if heights.argmin() == 0:
            break
        position = trials[heights.argmin() - 1]
    rise = _least_rise(looks, mode, gradient)
    if np.isfinite(distance) and distance <= 1:
        mode = mode._replace(mean=mode.mean - mode.root @ (mode.root.T @ gradient))
    return mode, distance, rise, hessians


def _least_rise(looks, mode, gradient):
    """The direction in which the potential rises least from a Gaussian's mean."""
    scale = 1 / np.sqrt(np.sum(np.linalg.inv(mode.root) ** 2, axis=0))  # of each coordinate, given the others
    values, vectors = np.linalg.eigh((mode.root @ mode.root.T) / np.outer(scale, scale))
    flattest = scale * vectors[:, -1] * np.sqrt(values[-1])
    length = np.linalg.norm(mode.root.T @ gradient)
    down = -mode.root @ (mode.root.T @ gradient) / length if length > 0 else np.zeros_like(gradient)
    probed = flat.probe_along(mode.mean, flattest, down, scale, float(jnp.finfo(looks.dtype).eps))
    priors = np.zeros(2 * len(probed.beyond))
    if not np.array_equal(probed.points[1:], probed.beyond):
        priors = looks.priors(np.concatenate([probed.points[1:], probed.beyond]))
    return flat.rise_of(probed, looks.heights(probed.points), priors)


def _other_modes(looks, mode, ends, heights, stray):
    """Modes other than the lowest, as low as it, that descents ended near: they are where Newton's method leads."""
    found: list[Gaussian] = []
    for end in ends[~stray]:
        expected = 0.5 * np.sum(np.linalg.solve(mode.root, end - mode.mean) ** 2)
        if expected <= FARTHER * (np.ptp(heights[~stray]) + len(end) + 10):
            continue
        other, distance, *_ = _approach(looks, end)
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


def _windows(looks, found, start, starts, discretisation, budget, say):
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
            state, positions = looks.window(engine, before, root, taken, samples)
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
        rates = rates_at(looks, at, hessians, mean, root, discretisation.temperature)
        if not (rates.fastest > 0 and rates.mean > 0):
            return _ran_off(found, spent)
        chosen = float(discretisation.choose(friction, rates)) / smaller
        temperature = _temperature(looks, last, mean, root)
        hot, error = temperature
        excess = hot / discretisation.temperature - 1
        trusted = last.r_hat <= CALM and taken > samples * RECORDED
        if trusted and excess > HOT * error + 2 * discretisation.tolerance:
            shrink = float(np.clip(np.sqrt(excess / (2 * discretisation.tolerance)), 1, SMALLER))
            smaller, chosen = smaller * shrink, chosen / shrink
        elif trusted:
            break
        state, step_size = _with_metric(state, root, chosen, friction), chosen
        length = 2 * length
    if last is None:
        return _ran_off(found, length)
    bulk = Gaussian(mean, root_of_inverse(hessians.mean(0), FLOOR["mode"])[0])
    return found._replace(
        rise=_least_rise(looks, bulk, looks.gradient(mean)),
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


def _with_metric(state: SGState, root, step_size, friction):
    """Chains in another metric: their velocities are drawn anew by friction, and begin at rest."""
    integrator = state.integrator_state
    nothing = jnp.zeros_like(integrator.velocity)
    integrator = integrator._replace(
        velocity=nothing, force=nothing, friction=jnp.full_like(integrator.friction, friction)
    )
    return state._replace(integrator_state=integrator, step_size=jnp.full_like(state.step_size, step_size))


def _temperature(looks, window, mean, root):
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
    worst = int(np.argmax((mean_virial - 1) / errors))
    return float(mean_virial[worst]), float(errors[worst])


def rates_at(looks: Looks, at, hessians, anchor, root, temperature: float) -> Rates:
    """What decides the bias of chains in a metric, averaged over draws of the posterior.

    Args:
        looks: at the model's data.
        at: draws, shape (DRAWS, dim).
        hessians: there.
        anchor: of control variates.
        root: L of M = L Lᵀ.
        temperature: of the draws.
    """
    plate = looks.plate
    eigenvalues = np.linalg.eigvalsh(root.T @ hessians @ root)
    fastest = max(eigenvalues[:, -1].mean(), np.linalg.eigvalsh(root.T @ hessians.mean(0) @ root)[-1])
    gradients, anchored, directions, images, drifts = looks.scatter(at, anchor, np.sqrt(temperature) * root)
    size, rows = looks.group_size, plate.size
    of_rows = size * (rows - 1) / max(rows - size, 1)  # from groups of rows, drawn without replacement, to rows
    per_batch = (rows - plate.batch_size) / max(rows - 1, 1) / plate.batch_size

    def largest(groups):
        """Largest eigenvalue of the covariance of rows' gradients in the metric, by N λ."""
        own = (groups - groups.mean(1, keepdims=True)) @ root
        covariance = np.einsum("kbi,kbj->ij", own, own) / (own.shape[0] * (own.shape[1] - 1))
        return np.linalg.eigvalsh(covariance)[-1] * of_rows / (rows * fastest)

    hessian_noise = largest(images - directions @ hessians) / temperature * rows * fastest * per_batch
    drift = drifts @ (root @ root.T)  # of each draw, M E[δH M δg]
    error = drift.std(0, ddof=1) / np.sqrt(len(drift))
    slope = np.maximum(np.abs(drift.mean(0)) - error, 0) / np.sqrt(np.sum(root**2, axis=1)) * of_rows * per_batch
    mean = np.trace(root.T @ hessians.mean(0) @ root) / len(root)
    numbers = fastest, mean, largest(gradients), largest(gradients - anchored), hessian_noise, np.max(slope)
    return Rates(*(float(number) for number in numbers))
