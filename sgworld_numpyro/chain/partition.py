"""Minibatches that take each of some rows equally often, spread over the data."""

from math import prod
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from sgworld_numpyro.model.target import Target
from sgworld_numpyro.subsampling import Plate

MAX_BATCHES = 1024  # whose dispatch takes some hundredths of a second
MAX_PRODUCTS = 2**29  # of rows and coordinates, which a network's passes are made of: some tenths of a second
MAX_ELEMENTS = 2**26  # of the largest array on the way, were all these batches one: some 250 MiB
MAX_READ_BYTES = 2**26  # of rows of a source, which are together in memory once
MIN_BATCHES = 8  # whatever they cost
CROSSED_BATCHES = 64  # of several plates together, if none alone has more


class Partition(NamedTuple):
    """Minibatches of a plate that take each of ``rows`` of its rows equally often.

    - **batches** - how many.
    - **rows** - how many rows they cover together.
    - **left_out** - consecutive places that each leaves out where no two have no row in common; else 0.
    """

    batches: int
    rows: int
    left_out: int

    def places(self, number: Array, batch: int) -> Int[Array, "batch"]:
        """Where the rows of the minibatch of that number stand in the order of the rows."""
        places = jnp.arange(batch, dtype=jnp.int32)
        if not self.left_out:
            return number * batch + places
        return places + self.left_out * (places >= number * self.left_out)

    def order(self, plate: Plate) -> Int[np.ndarray, "rows"]:
        """The rows, drawn from all the data and in random order: consecutive ones hide what depends on the order."""
        return np.random.default_rng(0).choice(plate.size, self.rows, replace=False).astype(np.int32)


def partitions(target: Target, read: int = 0) -> dict[str, Partition]:
    """Of all whole minibatches of every plate, by its name; of some if these are too many or too large.

    Args:
        target: the model.
        read: bytes that the rows of one minibatch of each plate take where they are read from sources.
    """
    found = {plate.name: _partition(plate) for plate in target.plates}
    rows = sum(plate.batch_size for plate in target.plates)
    dear = min(MAX_ELEMENTS // max(1, target.widest), MAX_PRODUCTS // (rows * target.dim))
    limit = min(MAX_BATCHES, max(MIN_BATCHES, dear))
    limit = min(limit, max(1, MAX_READ_BYTES // read)) if read else limit
    if len(found) > 1:
        limit = min(limit, max(CROSSED_BATCHES, *(one.batches for one in found.values())))
    while (total := prod(one.batches for one in found.values())) > limit:
        plate = max(target.plates, key=lambda plate: found[plate.name].batches)
        batches = max(1, found[plate.name].batches * limit // total)
        found[plate.name] = Partition(batches, batches * plate.batch_size, 0)
    return found


def _partition(plate: Plate) -> Partition:
    size, batch = plate.size, plate.batch_size
    if batch == size or 2 * batch <= size:
        return Partition(size // batch, size // batch * batch, 0)
    # One part more than a minibatch has, each as large as the rows that are too many allow: one is left out in turn.
    parts = next(parts for parts in range(1, batch + 1) if batch % parts == 0 and batch // parts <= size - batch)
    if parts >= CROSSED_BATCHES:
        return Partition(1, batch, 0)
    return Partition(parts + 1, batch + batch // parts, batch // parts)
