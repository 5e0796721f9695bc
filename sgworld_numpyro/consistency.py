"""Do minibatches estimate the potential of all the data?

Whatever is wrong with a model's use of its minibatch shows in one number: the mean of the minibatches' log densities
over a partition of the rows is that of all the rows at once, to rounding. Statistics of the minibatch, shapes that
broadcast its rows against each other and weights written by hand all break this, so one comparison before the first
sample finds also what no rule of ``validation`` knows.
"""

import warnings
from collections.abc import Mapping
from functools import partial
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpyro.distributions import Unit
from numpyro.distributions.distribution import MaskedDistribution
from numpyro.infer.util import compute_log_probs

from sgworld_numpyro.binding import Binding
from sgworld_numpyro.handlers import at_rows, full_data
from sgworld_numpyro.subsampling import Plate
from sgworld_numpyro.target import Arguments, Target
from sgworld_numpyro.validation import ModelError, base_of

MAX_BATCHES = 4096  # whose dispatch takes some hundredths of a second
MAX_PRODUCTS = 2**29  # of rows and coordinates, which a network's passes are made of: some tenths of a second too
MIN_BATCHES = 8  # whatever they cost
MAX_ELEMENTS = 2**26  # of the largest array on the way, were all these batches one: some 250 MiB
CROSSED_BATCHES = 64  # of several plates together, if none alone has more
SUM_LENGTH = 512  # terms that are added in the model's precision; these sums are added in double precision
ROUNDINGS = 100  # by which two sums of the same terms may differ, in units of the last place
CONDITION = 30  # times what eight roundings of the position change, by which they may differ instead
SPREAD = 0.5  # of the unconstrained coordinates looked at: at 0 a regression would not see its predictors


class DoesNotRunOnAllRows(ModelError):
    """The model works for its own batch size only."""


def check_minibatches(binding: Binding, start: Array | None) -> None:
    """Raise ``ModelError`` where a site's minibatches do not average to what it is on all the rows.

    On the first rows of very large data. Takes no more than a pass.

    Args:
        binding: the model and its data.
        start: where the potential is finite, shape (dim,), should it not be so near 0; None if that is not known.

    Raises:
        ModelError: if they do not, with the site, both numbers and what to look for.
        DoesNotRunOnAllRows: if the model fails on another number of rows than its own batch size.
    """
    target = binding.engine.target
    covers = _covers(target)
    compare = binding.compiled("minibatches", partial(_densities, target, covers), binding.arguments, once=True)
    here = np.random.default_rng(0).uniform(-SPREAD, SPREAD, target.dim).astype(target.dtype)
    places = [here] if start is None else [here, np.asarray(start) + here, np.asarray(start)]
    try:
        for here in places:
            parts, whole, outside = _sums(compare(here), covers)
            if all(np.isfinite(total) for total in (*parts.values(), *whole.values())):
                break
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise DoesNotRunOnAllRows(_why_not(target, error)) from error
    for name, count in outside.items():
        if count:
            warnings.warn(
                f"{count} values of site {name!r} are outside of the support of its distribution, where its density "
                "means nothing. Look for labels that do not begin at 0, counts that are not whole, or bounds that the "
                "data exceed; or hide these rows with numpyro.handlers.mask.",
                stacklevel=4,
            )
    differs = {name: abs(parts[name] - whole[name]) for name in whole if np.isfinite(parts[name] - whole[name])}
    epsilon = float(jnp.finfo(here.dtype).eps)
    suspects = [n for n, gap in differs.items() if gap > ROUNDINGS * epsilon * max(abs(parts[n]), abs(whole[n]))]
    if not suspects:
        return
    # Where single terms are ill-conditioned, a few roundings of the position do as much.
    near_parts, near, _ = _sums(compare(here * (1 + 8 * epsilon)), covers)
    for name in suspects:
        if differs[name] > CONDITION * max(abs(near[name] - whole[name]), abs(near_parts[name] - parts[name])):
            raise ModelError(_message(target, name, parts[name], whole[name], covers))


class _Cover(NamedTuple):
    """Minibatches of a plate that take each of its first rows equally often.

    - **batches** - how many.
    - **rows** - how many rows they cover together.
    - **left_out** - consecutive rows that each leaves out where there are no two without common rows; else 0.
    """

    batches: int
    rows: int
    left_out: int

    def of(self, number: Array, batch: int) -> Array:
        """The rows of the minibatch of that number."""
        if not self.left_out:
            return number * batch + jnp.arange(batch, dtype=jnp.int32)
        places = jnp.arange(batch, dtype=jnp.int32)
        return places + self.left_out * (places >= number * self.left_out)


def _covers(target: Target) -> dict[str, _Cover]:
    """All whole minibatches of every plate, unless these are too many or too large."""
    covers = {plate.name: _cover(plate) for plate in target.plates}
    rows = sum(plate.batch_size for plate in target.plates)
    dear = min(MAX_ELEMENTS // max(1, target.widest), MAX_PRODUCTS // (rows * target.dim))
    limit = min(MAX_BATCHES, max(MIN_BATCHES, dear))
    if len(covers) > 1:
        limit = min(limit, max(CROSSED_BATCHES, *(cover.batches for cover in covers.values())))
    while (total := prod(cover.batches for cover in covers.values())) > limit:
        plate = max(target.plates, key=lambda plate: covers[plate.name].batches)
        count = max(1, covers[plate.name].batches * limit // total)
        covers[plate.name] = _Cover(count, count * plate.batch_size, 0)
    return covers


def _cover(plate: Plate) -> _Cover:
    size, batch = plate.size, plate.batch_size
    if batch == size or 2 * batch <= size:
        return _Cover(size // batch, size // batch * batch, 0)
    # One part more than a minibatch has, each as large as the rows that are too many allow: one is left out in turn.
    parts = next(parts for parts in range(1, batch + 1) if batch % parts == 0 and batch // parts <= size - batch)
    if parts >= CROSSED_BATCHES:
        return _Cover(1, batch, 0)
    return _Cover(parts + 1, batch + batch // parts, batch // parts)


def _densities(target: Target, covers: Mapping[str, _Cover], arguments: Arguments, position: Array):
    """Log densities by site, in sums of some terms: of each combination of minibatches, and of their rows at once."""
    args, kwargs = arguments.unflatten()
    values = target.constrain(target.unravel(position), arguments, deterministic=False)

    outside: dict[str, Array] = {}

    def of(model, look=False):
        found, sites = compute_log_probs(model, args, kwargs, values, sum_log_prob=False)
        if look:
            outside.update({name: _outside(site) for name, site in sites.items() if site.get("is_observed")})
        return {name: _in_short_sums(density) for name, density in found.items()}

    def minibatch(numbers):
        rows = {
            plate.name: covers[plate.name].of(numbers[place], plate.batch_size)
            for place, plate in enumerate(target.plates)
        }
        taken = {slot: target.take(slot, arguments.leaves[slot.leaf], rows[slot.plate]) for slot in target.slots}
        return of(target.at(arguments, rows, taken))

    grid = np.indices([covers[plate.name].batches for plate in target.plates]).reshape(len(target.plates), -1)
    parts = lax.map(minibatch, jnp.asarray(grid.T, jnp.int32))
    if all(covers[plate.name].rows == plate.size for plate in target.plates):
        return parts, of(full_data(target.model), look=True), outside
    rows = {name: jnp.arange(cover.rows, dtype=jnp.int32) for name, cover in covers.items()}
    return parts, of(at_rows(target.model, rows), look=True), outside


def _outside(site):
    """How many observed values are outside of the support, where NumPyro's densities mean nothing."""
    fn, value = site["fn"], site["value"]
    if isinstance(base_of(fn), Unit):
        return jnp.int32(0)
    shown = fn._mask if isinstance(fn, MaskedDistribution) else True
    return jnp.sum(~fn.support(value) & shown, dtype=jnp.int32)


def _in_short_sums(density):
    flat = jnp.ravel(density)
    rest = -flat.size % SUM_LENGTH if flat.size > SUM_LENGTH else 0
    return jnp.pad(flat, (0, rest)).reshape(-1, min(SUM_LENGTH, flat.size) or 1).sum(1)


def _sums(found, covers):
    parts, whole, outside = jax.device_get(found)
    batches = prod(cover.batches for cover in covers.values())
    means = {name: float(np.sum(value, dtype=float)) / batches for name, value in parts.items()}
    return means, {name: float(np.sum(value, dtype=float)) for name, value in whole.items()}, outside


def _message(target, name, part, whole, covers):
    rows = ", ".join(f"{cover.rows} of plate {plate!r}" for plate, cover in covers.items())
    text = (
        f"Minibatches do not estimate the log density of all the data. At site {name!r} their mean over a pass is "
        f"{part:.6g}, and that of all rows at once ({rows}) is {whole:.6g}"
    )
    ratio = part / whole if whole else np.inf
    weights = {plate.size / plate.batch_size for plate in target.plates}
    if any(abs(abs(np.log(abs(ratio))) - np.log(weight)) < 0.01 for weight in weights if weight > 1 and ratio):
        return (
            f"{text}: a factor of N/B. Do not multiply or divide by N/B, the plate does that; and give it one value a "
            "row, not the sum of all rows."
        )
    return (
        f"{text}, {part - whole:+.3g}. Look for what is computed from the rows of a minibatch together: their mean or "
        "variance (standardise the data before, or use a layer without batch statistics), shapes that broadcast rows "
        "against each other, sums or means that should be one value a row, numbers of rows written by hand."
    )


def _why_not(target, error):
    blind = f"Site {target.blind[0]!r} takes the same values whatever rows its plate takes. " if target.blind else ""
    sizes = ", ".join(str(plate.batch_size) for plate in target.plates)
    first_line = str(error).partition("\n")[0]
    return (
        f"The model runs on a minibatch but not on all its rows ({type(error).__name__}: {first_line:.200}). {blind}A "
        "model must take any number of rows, for tuning, ArviZ and Predictive: write rows.shape[0] or "
        f"xb.shape[0] instead of the batch size {sizes}, and take all its data with numpyro.subsample or x[rows]."
    )
