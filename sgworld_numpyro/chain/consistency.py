"""Do minibatches estimate the potential of all the data?

Whatever is wrong with a model's use of its minibatch shows in one number: the mean of the minibatches' log densities
over a partition of the rows is that of all the rows at once, to rounding. Statistics of the minibatch, shapes that
broadcast its rows against each other and weights written by hand all break this, so one comparison before the first
sample finds also what no rule of ``requirements`` knows.
"""

import warnings
from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpyro.distributions import Unit
from numpyro.distributions.distribution import MaskedDistribution
from numpyro.infer.util import compute_log_probs

from sgworld_numpyro.chain.binding import Binding
from sgworld_numpyro.chain.partition import Partition, partitions
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.handlers import at_rows, full_data
from sgworld_numpyro.model.requirements import ModelError, base_of
from sgworld_numpyro.model.target import Target
from sgworld_numpyro.sources import Column

SUM_LENGTH = 512  # terms that are added in the model's precision; these sums are added in double precision
ROUNDINGS = 100  # by which two sums of the same terms may differ, in units of the last place
CONDITION = 30  # times what eight roundings of the position change, by which they may differ instead
SPREAD = 0.5  # of the unconstrained coordinates looked at: at 0 a regression would not see its predictors


class DoesNotRunOnAllRows(ModelError):
    """The model works for its own batch size only."""


class _Looked(NamedTuple):
    """At the log densities of sites, by name, at one position.

    - **parts** - mean over minibatches, in nats.
    - **whole** - of all their rows at once.
    - **nan, infinite, outside** - how many of the rows have an undefined density, density 0, or a value outside of the
      support of its distribution; for observed sites.
    """

    parts: dict[str, float]
    whole: dict[str, float]
    nan: dict[str, int]
    infinite: dict[str, int]
    outside: dict[str, int]


def check_minibatches(binding: Binding, start: Array | None, also_near_0: bool = True) -> None:
    """Raise ``ModelError`` where a site's minibatches do not average to what it is on all the rows.

    Of very large data a part is looked at, spread over all. Takes less than a pass.

    Args:
        binding: the model and its data.
        start: where the potential is finite on a minibatch, shape (dim,), to look at as well; None if not known.
        also_near_0: whether to look at a place near 0 of the unconstrained coordinates.

    Raises:
        ModelError: if they do not, with the site, both numbers and what to look for; or for log densities that are NaN.
        DoesNotRunOnAllRows: if the model fails on another number of rows than its own batch size, and nothing else is
            wrong with it as far as minibatches of that size show.
    """
    target = binding.engine.target
    near_0 = np.random.default_rng(0).uniform(-SPREAD, SPREAD, target.dim).astype(target.dtype)
    places = [near_0] if also_near_0 else []
    places += [] if start is None else [np.asarray(start)]
    try:
        look = _looking(binding, against_whole=True)
        looked = list(map(look, places))
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        look = _looking(binding, against_whole=False)
        for place in places:
            _compare(target, look, place, look(place), "in another order the mean is")
        raise DoesNotRunOnAllRows(_why_not(target, error)) from error
    _report_undefined(looked)
    for place, found in zip(places, looked, strict=True):
        _compare(target, look, place, found, "that of all rows at once is")


def _looking(binding, against_whole):
    """A function of the position that looks at minibatches, and at their rows all at once or in another order."""
    target = binding.engine.target
    columns = [(slot, binding.arguments.leaves[slot.leaf]) for slot in target.slots]
    read = sum(c.row_bytes * target.plate(slot.plate).batch_size for slot, c in columns if isinstance(c, Column))
    divided = partitions(target, read)
    function = partial(_densities, target, divided, against_whole)
    name = "minibatches" if against_whole else "minibatches in two orders"
    compare = binding.compiled(name, function, binding.arguments, once=True)
    orders = {plate.name: divided[plate.name].order(plate) for plate in target.plates}
    batches = prod(one.batches for one in divided.values())

    def look(position):
        with jax.default_matmul_precision("highest"):  # accelerators round products of few rows and of many otherwise
            parts, whole, counts = jax.device_get(compare(position, orders))
        parts = {name: float(np.sum(value, dtype=float)) / batches for name, value in parts.items()}
        share = 1 if against_whole else batches
        whole = {name: float(np.sum(value, dtype=float)) / share for name, value in whole.items()}
        return _Looked(parts, whole, *({name: int(of[kind]) for name, of in counts.items()} for kind in range(3)))

    return look


def _densities(
    target: Target,
    divided: Mapping[str, Partition],
    against_whole: bool,
    arguments: Arguments,
    position: Array,
    orders: Mapping[str, Array],
) -> tuple[Any, Any, Any]:
    """Log densities by site, in short sums: of every combination of minibatches, and of their rows at once."""
    args, kwargs = arguments.unflatten()
    values = target.constrain(target.unravel(position), arguments, deterministic=False)
    counts: dict[str, tuple[Array, Array, Array]] = {}

    def of(model, count=False):
        found, sites = compute_log_probs(model, args, kwargs, values, sum_log_prob=False)
        if count:
            counts.update({n: _counts(s, found[n]) for n, s in sites.items() if s.get("is_observed")})
        return {name: _in_short_sums(density) for name, density in found.items()}

    def minibatches(orders):
        def one(numbers):
            rows = {
                plate.name: orders[plate.name][divided[plate.name].places(number, plate.batch_size)]
                for number, plate in zip(numbers, target.plates, strict=True)
            }
            return of(target.at(arguments, rows, target.take_all(arguments, rows)))

        grid = np.indices([divided[plate.name].batches for plate in target.plates]).reshape(len(target.plates), -1)
        return lax.map(one, jnp.asarray(grid.T, jnp.int32))

    parts = minibatches(orders)
    if not against_whole:
        return parts, minibatches({name: jnp.sort(order) for name, order in orders.items()}), counts
    if arguments.columns:  # with arrays beside them in the same order
        together = target.at(arguments, orders, target.take_all(arguments, orders))
        return parts, of(together, count=True), counts
    if all(divided[plate.name].rows == plate.size for plate in target.plates):
        return parts, of(full_data(target.model), count=True), counts
    return parts, of(at_rows(target.model, orders), count=True), counts


def _counts(site, density):
    """How many densities are NaN, how many are 0, and how many values are outside of the support."""
    fn, value = site["fn"], site["value"]
    undefined, outside = jnp.isnan(density), jnp.array(False)
    if not isinstance(base_of(fn), Unit):
        shown = fn._mask if isinstance(fn, MaskedDistribution) else True
        missing = jnp.any(jnp.isnan(value), axis=range(jnp.ndim(value) - fn.event_dim, jnp.ndim(value)))
        undefined, outside = undefined | (missing & shown), ~fn.support(value) & shown
    return tuple(jnp.sum(which, dtype=jnp.int32) for which in (undefined, density == -jnp.inf, outside))


def _in_short_sums(density):
    flat = jnp.ravel(density)
    rest = -flat.size % SUM_LENGTH if flat.size > SUM_LENGTH else 0
    return jnp.pad(flat, (0, rest)).reshape(-1, min(SUM_LENGTH, flat.size) or 1).sum(1)


def _report_undefined(looked):
    """Refuse what is NaN wherever one looks, and warn of rows without density: elsewhere they may have one."""
    for name in looked[0].nan:
        nan = min(found.nan[name] for found in looked)
        if nan:
            raise ModelError(
                f"The log density of site {name!r} is NaN for {nan} of its values: missing data, or logarithms and "
                "roots of negative numbers. Remove these rows, or hide them from the likelihood with "
                "numpyro.handlers.mask and fill them with any number."
            )
        outside, infinite = (min(found[kind][name] for found in looked) for kind in (4, 3))
        if outside or infinite:
            warnings.warn(
                f"{outside or infinite} values of site {name!r} are outside of the support of its distribution, where "
                "it has no density. Look for labels that do not begin at 0, counts that are not whole, or bounds that "
                "the data exceed; or hide these rows with numpyro.handlers.mask.",
                stacklevel=5,
            )


def _compare(target, look, place, found, against):
    parts, whole = found.parts, found.whole
    differs = {name: abs(parts[name] - whole[name]) for name in whole if np.isfinite(parts[name] - whole[name])}
    tolerance = {n: ROUNDINGS * target.epsilon * max(abs(parts[n]), abs(whole[n])) for n in differs}
    suspects = [name for name, gap in differs.items() if gap > tolerance[name]]
    if not suspects:
        return
    # Where single terms are ill-conditioned, a few roundings of the position do as much.
    near = look((place * (1 + 8 * target.epsilon)).astype(place.dtype))
    for name in suspects:
        moved = max(abs(near.whole[name] - whole[name]), abs(near.parts[name] - parts[name]))
        if differs[name] > CONDITION * moved:
            raise ModelError(_message(target, name, parts[name], whole[name], against))


def _message(target, name, part, whole, against):
    text = (
        f"Minibatches do not estimate the log density of all the data. At site {name!r} their mean over a pass is "
        f"{part:.6g}, and {against} {whole:.6g}"
    )
    ratio = abs(part / whole) if whole else np.inf
    weights = [plate.size / plate.batch_size for plate in target.plates if plate.batch_size < plate.size]
    if ratio > 0 and any(abs(abs(np.log(ratio)) - np.log(weight)) < 0.01 for weight in weights):
        return (
            f"{text}: a factor of N/B.\nDo not multiply or divide by N/B, the plate does that; and give it one value a "
            "row: not their sum, nor one event of them (.to_event), nor all against each other (shapes (B, 1) and "
            "(B,))."
        )
    return (
        f"{text}, {part - whole:+.3g}.\nLook for what is computed from the rows of a minibatch together: their mean or "
        "variance (standardise the data before, or use a layer without batch statistics), shapes that broadcast rows "
        "against each other, sums or means that should be one value a row, numbers of rows written by hand; and for "
        "random numbers or state that change from call to call."
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
