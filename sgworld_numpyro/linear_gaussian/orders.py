"""Orders in which the subsampling schemes visit the rows: their statistics, enumeration and sampling.

An *order* is an integer array (steps, batch_size): the rows of each minibatch over one period. When the batch
size does not divide the number of rows, permutations are laid end to end and batches are cut across the seam.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, product
from typing import NamedTuple, TypeGuard

import numpy as np
from jaxtyping import Float, Int

from sgworld_numpyro.subsampling import (
    SCHEMES,
    BatchReshuffle,
    Cyclic,
    IndependentBatches,
    NamedScheme,
    Plate,
    RandomReshuffle,
    RunReshuffle,
    ShuffleOnce,
    SubsamplingScheme,
    SymmetricReshuffle,
    WithReplacement,
)

MAX_ENUMERATED = 5000
# A jackknife over 20 groups knows its own standard error to about 16 %.
GROUPS = 20


class Orders(NamedTuple):
    """The orders that a chain may meet, each equally likely.

    Attributes:
        rows: what is drawn once and kept for ever differs between chains, what is drawn afresh each period
            between visits. Groups share out a sample, for its standard error; all orders make one group.
        quenched: whether the chains differ, so that each has its own stationary law.
    """

    rows: Int[np.ndarray, "groups chains visits steps batch"]
    quenched: bool


def knows_scheme(scheme: SubsamplingScheme) -> TypeGuard[NamedScheme]:
    """Whether the law of a scheme's minibatches is known here; not of one that inherits, which may draw otherwise."""
    return type(scheme) in SCHEMES


def checked_scheme(scheme: SubsamplingScheme) -> NamedScheme:
    """The scheme, if the law of its minibatches is known.

    Raises:
        TypeError: for a name, a class or anything else that is no scheme.
        ValueError: for a scheme of one's own.
    """
    known = _listed(SCHEMES)
    if isinstance(scheme, type) or not isinstance(scheme, SubsamplingScheme):
        raise TypeError(f"scheme={scheme!r} is no subsampling scheme; pass an instance: {known}")
    if not knows_scheme(scheme):
        raise ValueError(f"scheme={scheme!r} has no known law; choose the one whose batches have the same: {known}")
    return scheme


def checked_batch_size(num_rows: int, batch_size: int) -> int:
    """The batch size, if there are as many rows."""
    if batch_size not in range(1, num_rows + 1):
        raise ValueError(f"batch_size={batch_size} must be an integer in 1..{num_rows}, the number of rows")
    return int(batch_size)


def checked_order(
    order: Int[np.ndarray, "steps batch"] | None, scheme: NamedScheme, num_rows: int, batch_size: int
) -> Int[np.ndarray, "steps batch"] | None:
    """The order that a chain of this scheme keeps for ever, if it is known."""
    if order is None:
        if isinstance(scheme, BatchReshuffle) and num_rows % batch_size:
            raise ValueError(
                f"batch_size={batch_size} does not divide the {num_rows} rows, which scheme={scheme!r} "
                "needs if it is to be averaged over partitions; pass the pool of batches as order, take a divisor, "
                f"or scheme={RandomReshuffle()!r}"
            )
        return _cut(np.arange(num_rows), batch_size) if isinstance(scheme, Cyclic) else None
    if not _keeps_order(scheme):
        raise ValueError(
            f"order was given, but scheme={scheme!r} draws a new one every {scheme.redraws}; "
            f"leave it out, or choose one of {_listed(filter(_keeps_order, SCHEMES))}"
        )
    order = np.asarray(order)
    shape, what = (steps_per_stream(num_rows, batch_size), batch_size), "minibatch of one period"
    if isinstance(scheme, RunReshuffle):
        length = scheme.rows_a_run(Plate("rows", num_rows, batch_size))
        shape, what = (num_rows // length, length), "run"
    if order.shape != shape or not np.issubdtype(order.dtype, np.integer):
        raise ValueError(
            f"order has shape {order.shape} and dtype {order.dtype}; pass an integer array of shape {shape}, "
            f"the rows of each {what}"
        )
    times = order.size // num_rows
    if not np.array_equal(np.sort(order, axis=None), np.repeat(np.arange(num_rows), times)):
        raise ValueError(f"order={order.tolist()} must name each of the rows 0..{num_rows - 1} {times} times")
    return order


def _keeps_order(scheme: NamedScheme | type[NamedScheme]) -> bool:
    """Whether a chain keeps what ``order`` can say: its order, or the partition whose parts it reshuffles."""
    of = scheme if isinstance(scheme, type) else type(scheme)
    return of.redraws == "never" or of in (BatchReshuffle, RunReshuffle)


def rows_a_part(scheme: NamedScheme, num_rows: int, batch_size: int) -> int | None:
    """Rows of each part of the partition that a scheme reshuffles; None if it reshuffles single rows."""
    if isinstance(scheme, RunReshuffle):
        return scheme.rows_a_run(Plate("rows", num_rows, batch_size))
    return batch_size if isinstance(scheme, BatchReshuffle) else None


def _listed(schemes: Iterable[type[NamedScheme]]) -> str:
    return ", ".join(f"{scheme.__name__}()" for scheme in schemes)


def steps_per_stream(num_rows: int, batch_size: int) -> int:
    """Steps until the end of a batch meets the end of a permutation again."""
    return num_rows // math.gcd(num_rows, batch_size)


def memoryless_variance(scheme: NamedScheme, num_rows: int, batch_size: int) -> float:
    """Variance of a minibatch mean, in units of the population variance of the rows."""
    if isinstance(scheme, WithReplacement):
        return 1 / batch_size
    if isinstance(scheme, IndependentBatches) and num_rows > 1:
        return (num_rows - batch_size) / (batch_size * (num_rows - 1))
    return 0.0


def batch_sum_covariance(scheme: NamedScheme, num_rows: int, batch_size: int) -> Float[np.ndarray, "steps steps"]:
    """Covariance of the batch sums of two steps of a period, in units of the rows' population variance.

    Two places of one permutation hold the same row with probability one or zero, hence covariance
    (N δ − 1)/(N − 1); places in different permutations are independent.
    """
    if scheme.redraws == "step":
        return np.array([[batch_size**2 * memoryless_variance(scheme, num_rows, batch_size)]])
    steps = steps_per_stream(num_rows, batch_size)
    places = np.arange(steps * batch_size).reshape(steps, batch_size)
    if isinstance(scheme, ShuffleOnce):
        held = _occupancy(places % num_rows, num_rows)
        shared_rows, pairs = held @ held.T, np.full((steps, steps), batch_size**2)
    else:
        held = _occupancy(places // num_rows, steps * batch_size // num_rows)
        shared_rows, pairs = batch_size * np.eye(steps), held @ held.T
    covariance = (num_rows * shared_rows - pairs) / max(num_rows - 1, 1)
    if isinstance(scheme, SymmetricReshuffle):
        there_and_back = np.concatenate([np.arange(steps), np.arange(steps)[::-1]])
        covariance = covariance[np.ix_(there_and_back, there_and_back)]
    return covariance


def possible_orders(
    scheme: NamedScheme, num_rows: int, batch_size: int, order: np.ndarray | None, num_orders: int, seed: int
) -> Orders:
    """All orders of a scheme when there are at most `MAX_ENUMERATED`, else a sample of about `num_orders`."""
    part = rows_a_part(scheme, num_rows, batch_size)
    if order is not None and part is None:
        return Orders(order[None, None, None], quenched=True)
    # what is reshuffled: single rows, or the parts of a partition
    items, taken = num_rows, batch_size
    if part is not None:
        items, taken = num_rows // part if order is None else len(order), batch_size // part
    segments = _segments(scheme, items, taken)
    count = math.prod(map(_count, segments))
    if part is not None and order is None:
        count *= _count([part] * items) // math.factorial(items)
    if count > MAX_ENUMERATED:
        return _sample(scheme, num_rows, batch_size, order, num_orders, np.random.default_rng(seed))
    streams = [sum(epochs, ()) for epochs in product(*(_arrangements(range(items), s) for s in segments))]
    orders = _cut(np.array(streams), taken)
    if part is not None:
        partitions = _partitions(num_rows, part) if order is None else order[None]
        return Orders(partitions[:, orders].reshape(1, len(partitions), *orders.shape[:2], -1), quenched=True)
    if isinstance(scheme, ShuffleOnce):
        return Orders(orders[None, :, None], quenched=True)
    if isinstance(scheme, SymmetricReshuffle):
        orders = _there_and_back(orders)
    return Orders(orders[None, None], quenched=False)


def _sample(
    scheme: NamedScheme,
    num_rows: int,
    batch_size: int,
    order: np.ndarray | None,
    num_orders: int,
    rng: np.random.Generator,
) -> Orders:
    """Orders in antithetic pairs, each with its reverse.

    The reverse is as likely, and the mean of a pair's Σ_{r>s} H_r g_s, which decides the mean shift to first
    order in the step size, is the same for all orders of the same batches.
    """
    share = num_orders / GROUPS
    pairs = math.ceil(share / 2)
    rows = np.arange(num_rows)

    def shuffled(rows: np.ndarray, *shape: int) -> np.ndarray:
        return rng.permuted(np.broadcast_to(rows, (*shape, len(rows))), axis=-1)

    def antithetic(orders: np.ndarray) -> np.ndarray:
        return np.concatenate([orders, orders[..., ::-1, :]], axis=-3)

    part = rows_a_part(scheme, num_rows, batch_size)
    if part is not None:
        if order is None:
            # As many partitions as visits to each: one carries the error, the other a bias of the fixed point.
            pairs = math.ceil(math.sqrt(share) / 2)
            chains = math.ceil(share / (2 * pairs))
            partitions = shuffled(rows, GROUPS, chains).reshape(GROUPS, chains, 1, -1, part)
        else:
            partitions = order[None, None, None]
        parts, taken = partitions.shape[-2], batch_size // part
        passes = taken // math.gcd(parts, taken)
        visits = shuffled(np.arange(parts), GROUPS, partitions.shape[1], pairs, passes)
        visits = visits.reshape(*visits.shape[:3], -1)
        orders = np.take_along_axis(partitions, visits[..., None], axis=-2)
        return Orders(antithetic(orders.reshape(*visits.shape[:3], -1, batch_size)), quenched=order is None)
    epochs = batch_size // math.gcd(num_rows, batch_size)
    permuted = shuffled(rows, GROUPS, pairs, 1 if isinstance(scheme, ShuffleOnce) else epochs)
    orders = antithetic(_cut(permuted.reshape(GROUPS, pairs, -1), batch_size))
    if isinstance(scheme, ShuffleOnce):
        return Orders(orders[:, :, None], quenched=True)
    if isinstance(scheme, SymmetricReshuffle):
        orders = _there_and_back(orders)
    return Orders(orders[:, None], quenched=False)


def _occupancy(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """How often each label (columns) occurs in each step (rows)."""
    return np.stack([np.bincount(step, minlength=num_labels) for step in labels]).astype(float)


def _cut(stream: np.ndarray, batch_size: int) -> np.ndarray:
    """Repeat the last axis, whole permutations, until it is cut into whole batches."""
    repeats = math.lcm(stream.shape[-1], batch_size) // stream.shape[-1]
    repeated = np.tile(stream, repeats)
    return repeated.reshape(*stream.shape[:-1], -1, batch_size)


def _there_and_back(orders: np.ndarray) -> np.ndarray:
    return np.concatenate([orders, orders[..., ::-1, :]], axis=-2)


def _segments(scheme: NamedScheme, num_rows: int, batch_size: int) -> list[list[int]]:
    """The lengths into which batch boundaries cut each permutation: within one, the order does not matter."""
    common = math.gcd(num_rows, batch_size)
    if isinstance(scheme, ShuffleOnce):  # the repeats of the one permutation are cut at different places
        return [[common] * (num_rows // common)]
    segments = []
    for epoch in range(batch_size // common):
        head = -epoch * num_rows % batch_size
        tail = (num_rows - head) % batch_size
        whole = [batch_size] * ((num_rows - head) // batch_size)
        segments.append([size for size in (head, *whole, tail) if size])
    return segments


def _count(sizes: Sequence[int]) -> int:
    return math.factorial(sum(sizes)) // math.prod(map(math.factorial, sizes))


def _arrangements(rows: Sequence[int], sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All ways to fill segments of the given sizes with the rows."""
    if not sizes:
        yield ()
        return
    for chosen in combinations(rows, sizes[0]):
        rest = [row for row in rows if row not in chosen]
        for tail in _arrangements(rest, sizes[1:]):
            yield chosen + tail


def _partitions(num_rows: int, batch_size: int) -> Int[np.ndarray, "partitions batches batch"]:
    """All ways to part the rows into unordered batches."""
    sizes = [batch_size] * (num_rows // batch_size)
    ordered = np.array(list(_arrangements(range(num_rows), sizes))).reshape(-1, len(sizes), batch_size)
    return ordered[(np.diff(ordered[:, :, 0], axis=1) > 0).all(axis=1)]
