"""Whether other minibatches would make an effective draw cheaper."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sgworld_numpyro.tuning.curvature import Rates
from sgworld_numpyro.tuning.step_size import Discretisation

FACTORS = 1 / 4, 1 / 2, 1, 2, 4, 8  # by which other sizes are tried
STEP_NUMBERS = 4000  # rows times coordinates that a step costs as much as, besides its own: measured on CPUs
WORTHWHILE = 1.3  # times cheaper than with the given size


class Better(NamedTuple):
    """Another batch size.

    Attributes:
        batch_size: B.
        gain: by what an effective draw is cheaper than with the given one.
    """

    batch_size: int
    gain: float


def better_batch_size(law: Discretisation, friction: float, rates: Rates, dim: int) -> Better | None:
    """The batch size with which an effective draw costs least, its steps counted; None if the given one is as good.

    A step costs its rows, twice with control variates, and as much as some rows more, whatever its size. Larger batches
    take fewer steps until these are as long as the integrator allows.

    Args:
        law: of the given size, with the estimator that is used.
        friction: γ; NaN if there is none.
        rates: for the given size.
        dim: coordinates.
    """

    def left(size):
        return (law.num_rows - size) / max(law.num_rows - 1, 1) / size

    def cost(size):
        share = left(size) / left(law.batch_size)
        here = rates._replace(hessian_noise=rates.hessian_noise * share, slope=rates.slope * share)
        step_size = float(replace(law, batch_size=size).choose(friction, here))
        return (size * (1 if law.minibatch_noise else 2) + STEP_NUMBERS / dim) / step_size

    if left(law.batch_size) <= 0:
        return None
    sizes = {round(law.batch_size * factor) for factor in FACTORS}
    costs = {size: cost(size) for size in sorted(sizes) if 1 <= size < law.num_rows}
    best = min(costs, key=costs.__getitem__)
    gain = costs[law.batch_size] / costs[best]
    return Better(best, gain) if gain > WORTHWHILE and np.isfinite(gain) else None
