"""What a subsampling scheme owes the sampler, tried out on small plates."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from sgworld_numpyro.subsampling.protocol import ContiguousScheme, Plate, SubsamplingScheme
from sgworld_numpyro.testing.claims import check_value, compiled, demand

# One that its batches divide, and one with batches that straddle two passes.
PLATES = (Plate("rows", 12, 4), Plate("rows", 10, 4))
STARTS = (0, 1, 5, 1_000_003)  # of blocks, with every remainder and far out
LONGEST_PERIOD = 1000  # steps: what is drawn here is meant to be small
ERRORS = 5  # Monte Carlo standard errors, beyond which a frequency is wrong


class SchemeProperties(NamedTuple):
    """What ``check_scheme`` found out about a scheme on a plate.

    Attributes:
        period: steps until its law repeats, as it says itself.
        random: whether its rows depend on the key.
        balanced: whether every row is used equally often in each period, and not only in the mean.
        unbiased_each_step: whether every row is equally likely at every step, and not only over a period.
    """

    period: int
    random: bool
    balanced: bool
    unbiased_each_step: bool


def check_scheme(
    scheme: SubsamplingScheme,
    plates: Sequence[Plate] = PLATES,
    *,
    key: Array | None = None,
    draws: int = 4000,
) -> tuple[SchemeProperties, ...]:
    """Raise unless a subsampling scheme is one that the sampler can rely on.

    - It is a value: hashable and, if a dataclass, frozen.
    - ``indices`` has the shape (steps, batch), integers, in 0 .. size - 1; a batch is of ``plate.batch_size`` rows, or
      of all of them.
    - The rows of a step are a function of key and step: alone, within blocks of any start, traced and under ``vmap``.
    - ``period`` is a positive ``int``. If rows are used equally often after some number of steps whatever the key, the
      period is a multiple of it, and every period uses them equally often. Otherwise they are in the mean.
    - The mean over a period is unbiased: every row is used batch · period / size times, within five Monte Carlo errors.
    - Where rows change from period to period they change with the key too.
    - A ``ContiguousScheme`` has in ``layout`` and ``batch_numbers`` what ``indices`` says.

    A period that is too long passes. So does one after which rows are balanced and the law does not repeat yet, such as
    half of ``SymmetricReshuffle``'s.

    Args:
        scheme: the scheme.
        plates: small plates to try it on.
        key: where randomness comes from; by default ``jax.random.key(0)``.
        draws: how many keys the frequencies are taken over. A bias of a row's frequency of about
            5 √(batch / size / draws) is found.

    Returns:
        What was found out, for each plate.

    Raises:
        AssertionError: with what is wrong, where, and what mends it.
    """
    name = type(scheme).__name__
    demand(
        isinstance(scheme, SubsamplingScheme),
        f"{name} is no subsampling scheme: it wants the methods indices(key, start, steps, plate) and period(plate).",
    )
    check_value(name, scheme)
    key = jax.random.key(0) if key is None else key
    return tuple(_check_on(f"{name} on {plate}", scheme, plate, jax.random.split(key, draws)) for plate in plates)


def _check_on(name: str, scheme: SubsamplingScheme, plate: Plate, keys: Array) -> SchemeProperties:
    period = scheme.period(plate)
    demand(
        isinstance(period, int) and not isinstance(period, bool) and 1 <= period <= LONGEST_PERIOD,
        f"{name}: period is {period!r}, wants a positive int, of {LONGEST_PERIOD} at most on a plate as small as this.",
    )
    # rows can be used equally often after size / gcd(size, batch) steps, whatever the scheme says of its period
    steps = max(2, -(-plate.size // period)) * period
    blocks = compiled(jax.vmap(lambda key, start: scheme.indices(key, start, steps, plate)))
    _check_shape(name, jax.eval_shape(lambda: scheme.indices(keys[0], jnp.int32(0), steps, plate)), steps, plate)
    try:
        together = np.asarray(blocks(keys, jnp.zeros(len(keys), jnp.int32)))
        _check_pure(name, scheme, blocks, plate, keys)
    except jax.errors.UnexpectedTracerError:
        raise AssertionError(f"{name} keeps a value of one call for the next: {_PURE}") from None
    balanced = _check_balance(name, together, period, plate)
    _check_keys(name, together, period)
    each_step = _check_frequencies(name, together, period, plate)
    if isinstance(scheme, ContiguousScheme):
        _check_contiguous(name, scheme, plate, together[0], keys[0])
    return SchemeProperties(period, bool((together != together[0]).any()), balanced, each_step)


_PURE = (
    "indices wants to be a pure function of key and step. Derive what is random at step t from "
    "jax.random.fold_in(key, t), or from the epoch's number; keep no state, and do not branch on what was drawn."
)


def _check_shape(name: str, found: Any, steps: int, plate: Plate) -> None:
    demand(
        isinstance(found, jax.ShapeDtypeStruct),
        f"{name}: indices returns {type(found).__name__}, wants one array of (steps, batch).",
    )
    wanted = [(steps, plate.batch_size), (steps, plate.size)]
    demand(
        found.shape in wanted,
        f"{name}: indices of {steps} steps has shape {found.shape}, wants {wanted[0]}, or {wanted[1]} to use all rows.",
    )
    demand(
        jnp.issubdtype(found.dtype, jnp.integer),
        f"{name}: indices has dtype {found.dtype}, wants integers; add .astype(jnp.int32).",
    )


def _check_pure(name: str, scheme: SubsamplingScheme, blocks: Any, plate: Plate, keys: Array) -> None:
    """Blocks of several keys and starts, drawn together, against single steps; and rows against the bounds."""
    starts = np.resize(STARTS, len(keys)).astype(np.int32)
    together = np.asarray(blocks(keys, jnp.asarray(starts)))
    outside = (together < 0) | (together >= plate.size)
    if outside.any():
        which, n, place = (int(i) for i in np.argwhere(outside)[0])
        raise AssertionError(
            f"{name}: step {starts[which] + n} has row {together[which, n, place]}, which is out of bounds; rows are 0 "
            f"to {plate.size - 1}. Take them modulo plate.size, or clip what rounds up."
        )
    one = compiled(lambda key, start: scheme.indices(key, start, 1, plate)[0])
    for which, start in enumerate(STARTS):
        for n, rows in enumerate(together[which]):
            alone = np.asarray(one(keys[which], jnp.int32(start + n)))
            demand(
                np.array_equal(alone, rows),
                f"{name}: step {start + n} has rows {alone.tolist()} alone and {rows.tolist()} in a block from step "
                f"{start} on, drawn under vmap over keys. {_PURE}",
            )


def _check_keys(name: str, together: np.ndarray, period: int) -> None:
    """A scheme whose rows change from period to period changes them with the key."""
    depends = (together != together[0]).any()
    changes = (together[0, :period] != together[0, period : 2 * period]).any()
    demand(
        depends or not changes,
        f"{name}: rows change from one period to the next but are the same for every key, so that all chains would "
        "use the same minibatches. Derive what is random from the key.",
    )


def _counts(rows: np.ndarray, size: int) -> np.ndarray:
    """How often each row is used: rows (draws, …) to (draws, size)."""
    return (rows.reshape(len(rows), -1, 1) == np.arange(size)).sum(1)


def _check_balance(name: str, together: np.ndarray, period: int, plate: Plate) -> bool:
    """Whether each period uses every row equally often; the period must be one of the number of steps that does."""
    used = np.zeros((len(together), plate.size), int)
    for steps in range(1, together.shape[1] + 1):
        used += _counts(together[:, steps - 1], plate.size)
        if (used == used[:, :1]).all():
            break
    else:
        return False
    demand(
        period % steps == 0,
        f"{name}: period is {period}, but rows are used equally often only after every {steps} steps; return {steps}, "
        "or a multiple of it.",
    )
    for n in range(together.shape[1] // period):
        part = _counts(together[:, n * period : (n + 1) * period], plate.size)
        demand(
            (part == part[:, :1]).all(),
            f"{name}: the first {steps} steps use all rows equally often, but steps {n * period} to "
            f"{(n + 1) * period - 1}, a period, do not, and so its noise does not cancel.",
        )
    return True


def _check_frequencies(name: str, together: np.ndarray, period: int, plate: Plate) -> bool:
    """Every row equally often over a period, in the mean over keys; whether also at each step."""
    draws, steps, width = together.shape
    counts = np.stack([_counts(together[:, n], plate.size) for n in range(steps)], 1)

    def biased(counts, expected):
        error = counts.std(0) / np.sqrt(draws)
        return abs(counts.mean(0) - expected) > ERRORS * error + 1e-9, error

    per_period = counts.reshape(draws, steps // period, period, -1).sum(2).mean(1)
    expected = period * width / plate.size
    wrong, error = biased(per_period, expected)
    if wrong.any():
        row = int(np.argmax(abs(per_period.mean(0) - expected) * wrong))
        raise AssertionError(
            f"{name}: biased. Row {row} is used {per_period[:, row].mean():.3f} ± {error[row]:.3f} times a period of "
            f"{period} {'step' if period == 1 else 'steps'} in the mean, and {expected:.3f} is every row's share "
            "(batch · period / size): the gradient would be that of another posterior."
        )
    return not biased(counts, width / plate.size)[0].any()


def _check_contiguous(name, scheme: ContiguousScheme, plate: Plate, first: np.ndarray, key: Array) -> None:
    steps, width = first.shape
    layout = np.asarray(compiled(lambda: scheme.layout(plate))())
    numbers = np.asarray(compiled(lambda key: scheme.batch_numbers(key, jnp.int32(0), steps, plate))(key))
    pieces = numbers.size // steps
    demand(
        numbers.shape in ((steps,), (steps, pieces)) and pieces >= 1 and width % pieces == 0,
        f"{name}: batch_numbers of {steps} steps has shape {numbers.shape}, wants ({steps},), or ({steps}, pieces) "
        f"with as many pieces as divide a batch of {width}.",
    )
    demand(
        layout.ndim == 1 and layout.size % (width // pieces) == 0,
        f"{name}: layout has shape {layout.shape}, wants the rows of whole batches, or pieces, of {width // pieces}, "
        "laid end to end.",
    )
    pool = layout.reshape(-1, width // pieces)
    demand(
        ((numbers >= 0) & (numbers < len(pool))).all(),
        f"{name}: batch_numbers wants numbers of the {len(pool)} batches, or pieces, of layout; got some from "
        f"{numbers.min()} to {numbers.max()}.",
    )
    demand(
        np.array_equal(pool[numbers].reshape(first.shape), first),
        f"{name}: the batches that batch_numbers takes from layout have other rows than indices says.",
    )
