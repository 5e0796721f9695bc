"""Entropy production from below, by the currents that time's arrow shows in best.

Of any function f of a transition that changes sign when time is reversed, a stationary Markov chain with entropy
production Π a transition has

    Π ≥ E f − ln E e^{−f},

with equality for f = σ, the entropy production of the transition (Donsker & Varadhan 1983; Kim et al. 2020, Phys. Rev.
Lett. 125, 140604). Here f = c·j is the best combination of a basis of currents: the problem is convex in c.

Half of the draws are measured with what was fitted to the other half. What a fit shows too much of its own draws and
too little of others is the same, to first order in currents / transitions: the mean of both is reported.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from sgworld_numpyro.nonequilibrium.basis import CurrentBasis
from sgworld_numpyro.nonequilibrium.draws import Draws, halves, joined
from sgworld_numpyro.nonequilibrium.moments import random_reversals, time_blocks
from sgworld_numpyro.nonequilibrium.theorems import MIN_WEIGHT_ESS

MIN_TRANSITIONS = 10  # of the smaller half, for each current that is fitted
_NEWTON_STEPS = 50
_SMALLEST_STEP = 1e-6
_PRECISION = 0.01  # of the uncertainty of the bound, currents / transitions
_KEPT = 2**24  # numbers that are kept of each half, 128 MB; of longer runs they are computed at every step
_BY_CHANCE = 10  # of symmetric numbers, exceed the size of the least of them once in 1000 runs
_DIFFERENCE = 0.01  # of the second moment is left of a current that is the difference of a function
_DEPENDENT = 1e-11  # relative second moment below which a combination of currents is not told from rounding


class CurrentBound(NamedTuple):
    """The best bound that was found.

    Attributes:
        sigma: f of each transition, of the fit to the other half; of shape (chain, transition).
        rate: the bound, in nats a transition.
        rate_error: its standard error.
        level: number of the basis that was chosen, from 0.
        null_rate: mean of the rate to lowest order, of the same chain with blocks of it read backwards at random.
        p_value: how often a chain in detailed balance would show as much, in any of the bases.
    """

    sigma: Float[np.ndarray, "chain transition"]
    rate: float
    rate_error: float
    level: int
    null_rate: float
    p_value: float


class _Differences(NamedTuple):
    """What differences Δψ of functions of the position make of the currents."""

    sums: Float[np.ndarray, "blocks potentials"]
    cross: Float[np.ndarray, "currents potentials"]  # mean of j Δψᵀ
    second: Float[np.ndarray, "potentials potentials"]  # mean of Δψ Δψᵀ


class _Half(NamedTuple):
    """Half of the draws, with sums of all currents."""

    draws: Draws
    blocks: list[tuple[int, slice]]
    sums: Float[np.ndarray, "blocks currents"]
    second: Float[np.ndarray, "currents currents"]  # mean of j jᵀ
    differences: "_Differences"
    kept: list | None  # the currents themselves, where there is room for them

    @property
    def transitions(self) -> int:
        return self.draws.shape[0] * (self.draws.shape[1] - 1)

    @property
    def mean(self) -> Float[np.ndarray, "currents"]:
        return self.sums.sum(0) / self.transitions


def current_bound(x: Draws, basis: CurrentBasis, *, blocks: int, surrogates: int, seed: int) -> CurrentBound:
    """The best bound in nested bases of currents, of which the one is chosen that shows most of the other half.

    Raises:
        ValueError: if there are too few transitions for the smallest basis.
    """
    parts = halves(x)
    fewest = min(part.shape[0] * (part.shape[1] - 1) for part in parts)
    levels = [size for size in basis.levels if MIN_TRANSITIONS * size <= fewest]
    if not levels:
        raise ValueError(
            f"{fewest} transitions in half of the draws are too few for {basis.levels[0]} currents: want "
            f"{MIN_TRANSITIONS * basis.levels[0]}. Run longer, or use principal_components(x, k).apply(x)."
        )
    pair = [_half(part, basis, blocks // 2) for part in parts]
    transitions = sum(half.transitions for half in pair)
    second = sum(half.second * (half.transitions / transitions) for half in pair)
    without = basis._replace(leverage=root_of_inverse(second) / np.sqrt(transitions))
    if any(without.rare(currents).any() for half in pair for _, _, currents in _currents(half, basis)):
        basis = without
        pair = [_half(part, basis, blocks // 2) for part in parts]
    null, p_value = _reversal_test(pair, levels, surrogates, seed)
    weights: list = [np.zeros(0), np.zeros(0)]
    best = -np.inf
    for level, size in enumerate(levels):
        weights = [_fit(half, basis, size, start) for half, start in zip(pair, weights, strict=True)]
        own = [_values(half, basis, c) for half, c in zip(pair, weights, strict=True)]
        other = [
            np.clip(_values(half, basis, c), -np.abs(fitted).max(), np.abs(fitted).max())  # it knows of nothing beyond
            for half, c, fitted in zip(pair, weights[::-1], own[::-1], strict=True)
        ]
        held_out = np.mean([_bound(f) for f in other])
        if level == 0 or held_out > best:  # which may be −∞, where no reversal was seen
            best = held_out
            rate = (held_out + np.mean([_bound(f) for f in own])) / 2
            error = np.hypot(*(_error(half, f) for half, f in zip(pair, other, strict=True))) / 2
            chosen = level, rate, error, joined(*other, chains=len(x))
    level, rate, error, sigma = chosen
    null_rate = 2 * float(null[level].mean()) / transitions**2
    return CurrentBound(sigma, float(rate), float(error), level, null_rate, p_value)


def _reversal_test(pair, levels, surrogates, seed):
    """How far the sums of currents are from 0, where a block read backwards changes the sign of its own.

    The size is Σ S_bᵀ M⁻¹ S_b' over pairs of different blocks, with S the sums over a block and M = E j jᵀ, which no
    reversal changes. What differences Δψ say of the currents is taken from S and M before: it has mean 0 with and
    without detailed balance, and nearly cancels between neighbouring blocks, but not between those read backwards.
    Of several bases the one in which the run stands out most decides, as it does for each of the surrogates.

    Returns:
        The sizes of the surrogates in each basis, and the p-value.
    """
    share = np.array([half.transitions for half in pair]) / sum(half.transitions for half in pair)
    second, cross, square = (
        sum(w * part for w, part in zip(share, parts, strict=True))
        for parts in zip(
            *[(half.second, half.differences.cross, half.differences.second) for half in pair], strict=True
        )
    )
    root = root_of_inverse(square)
    slope, ends = cross @ root, np.concatenate([half.differences.sums for half in pair]) @ root
    explained = slope @ slope.T
    sums = np.concatenate([half.sums for half in pair]) - ends @ slope.T
    signs = np.concatenate([np.ones((1, len(sums))), 1.0 - 2 * random_reversals(len(sums), surrogates, seed)])
    sizes = []
    for size in levels:
        root = root_of_inverse(second[:size, :size])
        left, axes = np.linalg.eigh(np.eye(root.shape[1]) - root.T @ explained[:size, :size] @ root)
        unit = sums[:, :size] @ root @ axes[:, left > _DIFFERENCE] / np.sqrt(left[left > _DIFFERENCE])
        sizes.append(((signs @ unit) ** 2).sum(1) - (unit**2).sum())
    table = np.array(sizes)
    ordered = np.sort(table, axis=1)
    beyond = np.array([len(o) - np.searchsorted(o, row, "left") for o, row in zip(ordered, table, strict=True)])
    smallest = beyond.min(0)  # by rank among run and surrogates, 1 for the largest
    return table[:, 1:], float(np.mean(smallest <= smallest[0]))


def weight_ess(sigma: np.ndarray) -> float:
    """(Σw)² / Σw² with w = e^{−σ}: how many transitions decide the mean of w."""
    return float(np.exp(2 * logsumexp(-sigma) - logsumexp(-2 * sigma)))


def _half(draws, basis, blocks):
    cuts = time_blocks((draws.shape[0], draws.shape[1] - 1), max(blocks, 1))
    transitions = draws.shape[0] * (draws.shape[1] - 1)
    potentials = len(basis.differences(draws[0, :2]))
    sums, second = np.zeros((len(cuts), basis.size)), np.zeros((basis.size, basis.size))
    ends, cross, square = np.zeros((len(cuts), potentials)), 0.0, 0.0
    kept: list | None = [] if transitions * basis.size <= _KEPT else None
    for of_block, end, (chain, block) in zip(sums, ends, cuts, strict=True):
        for part in basis.parts(block):
            currents = basis.of(draws[chain], part)
            differences = basis.differences(draws[chain, part.start : part.stop + 1])
            of_block += currents.sum(1)
            end += differences.sum(1)
            second += currents @ currents.T
            cross = cross + currents @ differences.T
            square = square + differences @ differences.T
            if kept is not None:
                kept.append((chain, part, currents))
    return _Half(
        draws, cuts, sums, second / transitions, _Differences(ends, cross / transitions, square / transitions), kept
    )


def _currents(half, basis):
    """Chain, stretch and currents of all transitions: those that are kept, or else computed once more."""
    if half.kept is not None:
        yield from half.kept
        return
    for chain, block in half.blocks:
        for part in basis.parts(block):
            yield chain, part, basis.of(half.draws[chain], part)


def _values(half, basis, c):
    """c·j of each transition."""
    f = np.empty((half.draws.shape[0], half.draws.shape[1] - 1))
    for chain, part, currents in _currents(half, basis):
        f[chain, part] = c @ currents[: len(c)]
    return f


def _bound(f):
    """E f − ln E e^{−f}, with the P(f) = e^{f} P(−f) that reversals −f add which were too rare to be seen."""
    # in logarithms: of currents that fit nothing f may be thousands
    return f.mean() - logsumexp([logsumexp(-f) - np.log(f.size), 0.0], b=[1.0, unseen(f)])


def unseen(sigma: np.ndarray) -> float:
    """Share of the transitions whose reversal −σ is beyond all that were seen, but for what chance alone makes so."""
    return max(float(np.sum(sigma > -sigma.min())) - _BY_CHANCE, 0.0) / sigma.size


def _error(half, f):
    """Of the bound of one half, from what each block adds to it."""
    weight = np.exp(f.min() - f)
    influence = f - weight / weight.mean()
    means = np.array([influence[block].mean() for block in half.blocks])
    share = np.array([influence[block].size for block in half.blocks]) / f.size
    if len(share) < 2:
        return np.nan
    return np.sqrt(((share * (means - share @ means)) ** 2).sum() * len(share) / (len(share) - 1))


def _fit(half, basis, size, start):
    """The maximum of the bound over c, by Newton's method, from that of a smaller basis or the one for short steps."""
    mean, second = half.mean[:size], half.second[:size, :size]
    candidates = [np.concatenate([start, np.zeros(size - len(start))]), _solve(second, 2 * mean)]
    values = [_values(half, basis, c) for c in candidates]
    bounds = [_trusted(f) for f in values]
    at = int(np.argmax(bounds))
    c, f, bound = candidates[at], values[at], bounds[at]
    enough = _PRECISION * size / half.transitions
    for _ in range(_NEWTON_STEPS):
        gradient, hessian = _derivatives(half, basis, f, mean)
        step = _solve(hessian, gradient)
        if gradient @ step / 2 < enough:
            break
        length = 1.0
        while (better := _trusted(trial := _values(half, basis, c + length * step))) <= bound:
            length /= 2
            if length < _SMALLEST_STEP:
                return c
        c, f, bound = c + length * step, trial, better
    return c


def _trusted(f):
    """The bound, or −∞ where it hangs on fewer transitions than can be relied on."""
    return _bound(f) if weight_ess(f) >= min(MIN_WEIGHT_ESS, f.size / 10) else -np.inf


def _derivatives(half, basis, f, mean):
    """Gradient of the bound in c, and minus its Hessian: mean and covariance of j under weights e^{−f}."""
    weight = np.exp(-f - logsumexp(-f))
    size = len(mean)
    tilted, second = np.zeros(size), np.zeros((size, size))
    for chain, part, currents in _currents(half, basis):
        root = np.sqrt(weight[chain, part])
        weighted = currents[:size] * root
        tilted += weighted @ root
        second += weighted @ weighted.T
    return mean + tilted, second - np.outer(tilted, tilted)


def root_of_inverse(second: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n rank"]:
    """R with R Rᵀ the inverse of a matrix of second moments, on what is more than rounding."""
    scale = np.sqrt(np.maximum(np.diag(second), np.finfo(float).tiny))
    values, axes = np.linalg.eigh(second / np.outer(scale, scale))
    kept = values > _DEPENDENT * values.max(initial=0.0)
    return axes[:, kept] / np.sqrt(values[kept]) / scale[:, None]


def _solve(second, right):
    root = root_of_inverse(second)
    return root @ (root.T @ right)
