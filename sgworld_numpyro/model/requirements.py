"""What a model must be like to be sampled from minibatches, and what to do where it is not."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from numpyro.distributions import Delta, Unit
from numpyro.distributions.distribution import ExpandedDistribution, Independent, MaskedDistribution
from numpyro.util import _validate_model

from sgworld_numpyro.model.arrays import is_traced
from sgworld_numpyro.model.dependence import Overrun

# The arithmetic of positions needs room for a few multiples of the number of rows.
MAX_ROWS = 2**29


class ModelError(ValueError):
    """The model cannot be sampled from minibatches as it stands."""


class NotFromMinibatches(ModelError):
    """It cannot be sampled from minibatches, but from all its data at every step it could."""


class Seen(NamedTuple):
    """What a sample site's log density depends on.

    - **plates** - subsampled plates that the site stands in.
    - **rows_of** - subsampled plates whose rows reach its log density.
    - **is_observed** - whether it is part of the likelihood.
    """

    plates: frozenset[str]
    rows_of: frozenset[str]
    is_observed: bool


def check_plates(
    plates: Mapping[str, tuple[int, int]],
    hidden: Mapping[str, tuple[int, int]],
    sizes: Mapping[str, Sequence[int]],
    whole: bool = False,
) -> None:
    """Raise ``ModelError`` unless there are subsampled plates, all visible, of one size each, with 1 <= B <= N.

    Args:
        plates: (N, B) of the subsampled plates that can be seen from outside.
        hidden: of those inside control flow.
        sizes: with which each name was declared.
        whole: whether there need not be any.
    """
    if hidden:
        name, (size, batch) = next(iter(hidden.items()))
        raise ModelError(
            f"Plate {name!r} (size {size}, subsample_size {batch}) is inside `scan` or `cond`, where its rows "
            "cannot be chosen from outside. Move the plate out of the control flow: take the rows in it, loop over "
            "them with jax.lax.scan, and add one numpyro.factor a row. Or drop its subsample_size."
        )
    if not plates and not whole:
        raise NotFromMinibatches(
            "The model has no subsampled plate, so there is no minibatch. Put the likelihood in one:\n"
            '    with numpyro.plate("rows", x.shape[0], subsample_size=100):\n'
            "        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)\n"
            '        numpyro.sample("obs", ..., obs=yb)\n'
            "or sample it from all its data with subsampling=FullBatch()."
        )
    for name, (size, batch) in plates.items():
        others = [other for other in sizes[name] if other != size]
        if others:
            raise ModelError(
                f"Plate {name!r} is declared with {others[0]} rows and with {size}: the rows of one would be taken for "
                f"those of the other. Give each its name, for instance through an argument of the function that makes "
                f'it: numpyro.plate(f"{{data}}_rows", ...).'
            )
        if isinstance(batch, bool) or not isinstance(batch, int | np.integer):
            integer = np.ndim(batch) == 0 and np.asarray(batch).dtype.kind in "iu"  # but no Python integer
            advice = f"take int({batch})" if integer else "use // for /"
            raise ModelError(f"Plate {name!r} has subsample_size={batch!r}, which must be an integer: {advice}.")
        if batch < 1:
            raise ModelError(f"Plate {name!r} has subsample_size={batch}; it must be at least 1.")
        if size > MAX_ROWS:
            raise ModelError(
                f"Plate {name!r} has {size} rows; row numbers are kept in 32 bits, for at most {MAX_ROWS}."
            )
        if batch > size:
            raise ModelError(
                f"Plate {name!r} has subsample_size={batch} and size={size}; it must be between 1 and {size}. "
                f"Write subsample_size=min({batch}, size)."
            )


def check_sites(
    trace: Mapping[str, Any],
    plates: Mapping[str, tuple[int, int]],
    weights: Mapping[str, float],
    whole: bool = False,
) -> None:
    """Raise ``ModelError`` for latent sites, factors and shapes that minibatches cannot treat rightly.

    What NumPyro's own validation warns of is warned of here as well.

    Args:
        trace: of the model.
        plates: (N, B) of its subsampled plates.
        weights: N/B as the model declares them.
        whole: whether they always have all their rows, so that latent sites may be inside.
    """
    latents = 0
    for name, site in trace.items():
        if site["type"] == "mutable":
            raise ModelError(
                f"Site {name!r} is mutable state (batch normalisation?): a posterior has no place for it. "
                "Use a layer without running statistics."
            )
        if site["type"] != "sample":
            continue
        inside = [frame for frame in site["cond_indep_stack"] if takes_some(frame, plates)]
        if site["is_observed"]:
            _check_factor(name, site, inside, plates)
            _check_shape(name, site, inside, plates)
            if inside or whole:  # outside, what uses rows is refused
                _look_at_scale(name, site, inside, plates, weights)
            continue
        latents += 1
        if site["fn"].support.is_discrete:
            raise ModelError(
                f"Latent site {name!r} is discrete: it has no gradient. Marginalise it in the model, or sample it "
                "with a discrete block of numpyro.infer.Gibbs."
            )
        if isinstance(base_of(site["fn"]), Delta):
            raise ModelError(
                f"Latent site {name!r} has a delta distribution; use numpyro.deterministic({name!r}, ...)."
            )
        if inside and not whole:
            size, _ = plates[inside[0].name]
            raise NotFromMinibatches(
                f"Latent site {name!r} is inside the subsampled plate {inside[0].name!r}: a minibatch would update "
                "only some of its values, with the wrong scale. Marginalise it, take the subsample_size off "
                f'that plate, or give it one of its own with all rows, numpyro.plate("all_{inside[0].name}", {size}), '
                "and index it by the rows of the minibatch."
            )
    if not latents:
        raise ModelError("The model has no latent sample site: there is nothing to sample.")
    _validate_model(trace, plate_warning="loose")


def takes_some(frame: Any, plates: Mapping[str, tuple[int, int]]) -> bool:
    """Whether a frame is of a subsampled plate, and not of another one of its name that has all the rows."""
    if frame.name not in plates:
        return False
    size, batch = plates[frame.name]
    return frame.size < size or batch == size


def check_dependence(plates: Mapping[str, tuple[int, int]], sites: Mapping[str, Seen]) -> None:
    """Raise ``ModelError`` where rows reach a site outside of their plate, or where no site depends on a plate's rows.

    Args:
        plates: (N, B) of the subsampled plates.
        sites: of the model, in the order in which it has them.
    """
    for name, site in sites.items():
        for stray in sorted(site.rows_of - site.plates):
            raise NotFromMinibatches(_stray(name, site, stray, *plates[stray]))
    for name in plates:
        if not any(name in site.rows_of for site in sites.values()):
            raise ModelError(
                f"The likelihood does not depend on the rows that plate {name!r} takes, so every minibatch would "
                "be the same data. Pass all rows to the model and take the minibatch inside the plate: "
                "xb = numpyro.subsample(x, event_dim=x.ndim - 1), or xb = x[rows] with "
                f'`with numpyro.plate("{name}", ...) as rows`.'
            )


def _stray(name, site, plate, size, batch):
    uses = f"uses the rows that plate {plate!r} takes, but does not stand in that plate"
    if not site.is_observed:
        return (
            f"The prior of latent site {name!r} {uses}: it would change with every minibatch. Compute it from all the "
            "rows, outside the plate, from x itself and not from numpyro.subsample(x, ...) or x[rows]."
        )
    if site.plates:
        other = sorted(site.plates)[0]
        return (
            f"Site {name!r} stands in plate {other!r} and {uses}: rows that belong together would be paired at random, "
            f"or weighted wrongly. Take all its data inside one plate, xb and yb both under {other!r}; or put it into "
            "both plates, if every row of one belongs to every row of the other."
        )
    return (
        f"Site {name!r} {uses}: its {batch} rows would not be weighted as {size} (N/B = {size / batch:.4g}). Put it "
        f"into the plate, one value a row, and drop a factor N/B if it has one:\n"
        f'    with numpyro.plate("{plate}", {size}, subsample_size={batch}):\n'
        f"        ...\n"
        f'        numpyro.sample("{name}", ...)  # or numpyro.factor("{name}", ...) of shape ({batch},)'
    )


def check_indices(overruns: Sequence[Overrun], plates: Mapping[str, tuple[int, int]], names: Mapping[int, str]) -> None:
    """Raise ``ModelError`` for arrays that the rows of a larger plate index, and warn of labels past an array's end.

    JAX takes the last entry for what is beyond. Labels are warned of only: a row that a mask hides may have any.

    Args:
        overruns: found with the last row of every plate, and the largest entry of arguments that are whole numbers;
            labels are ("rows", plate), ("batch", plate) and ("leaf", number).
        plates: (N, B) of the subsampled plates.
        names: of the arrays among the model's arguments.
    """
    for array in overruns:
        leaves = [names.get(number, "an array") for kind, number in array.of if kind == "leaf"]
        entries = array.shape[array.axis]
        if len(leaves) == 1:
            warnings.warn(
                f"{leaves[0]} goes up to {array.place}, and indexes an array of shape {array.shape}, which has "
                f"{entries} entries there: JAX takes the last one for those beyond. Labels count from 0: pass "
                f"{leaves[0]} - {leaves[0]}.min(), or make the array longer.",
                stacklevel=2,
            )
        if leaves:
            continue  # of several arguments together nobody knows which occur together
        plate = next(name for kind, name in array.of if kind == "rows")
        size, batch = plates[plate]
        if entries >= size:
            continue  # an index beyond the last row, such as that of the next one
        indexed = [names[number] for kind, number in array.labels if kind == "leaf" and number in names]
        what = f"{indexed[0] if len(indexed) == 1 else 'an array'} of shape {array.shape}"
        if entries == batch and any(kind != "leaf" and of == plate for kind, of in array.labels):
            raise ModelError(
                f"Rows of plate {plate!r} are taken of {what}, which is a minibatch of that plate already. Take them "
                "once: numpyro.subsample(x, ...) or x[rows], not both."
            )
        raise ModelError(
            f"Plate {plate!r} has {size} rows, but {what}, which its row numbers index, has {entries}: the rows that "
            f"are missing would be copies of the last one. Give the plate the size of the data, "
            f'numpyro.plate("{plate}", {entries}, ...), or pass all the data.'
        )


def base_of(distribution: Any) -> Any:
    """The distribution inside of what expands, masks or makes events of it."""
    while isinstance(distribution, ExpandedDistribution | Independent | MaskedDistribution):
        distribution = distribution.base_dist
    return distribution


def _check_factor(name, site, inside, plates):
    base = base_of(site["fn"])
    if not isinstance(base, Unit):
        return
    shape = jnp.shape(base.log_factor)
    for frame in inside:
        batch = plates[frame.name][1]
        if batch > 1 and (len(shape) < -frame.dim or shape[frame.dim] == 1):
            raise ModelError(
                f"Factor {name!r} has shape {shape} inside plate {frame.name!r}, which counts it once for each "
                f"of the {batch} rows of the minibatch. Give one log factor a row, shape ({batch},) "
                "(drop the .sum()), or move it out of the plate if it uses no rows."
            )


def _look_at_scale(name, site, inside, plates, weights):
    """Warn of a scale that is N/B: a weight that the plate gives already."""
    scale = site["scale"]
    if scale is None or is_traced(scale) or np.ndim(scale):
        return
    by_hand = float(scale) / np.prod([plates[frame.name][0] / plates[frame.name][1] for frame in inside])
    for plate, weight in weights.items():
        if weight > 1 and abs(by_hand - weight) < 1e-5 * weight:
            warnings.warn(
                f"Site {name!r} is scaled by {by_hand:.6g}, which is N/B of plate {plate!r}. If it is meant to weight "
                "the rows of the minibatch, drop it: the plate does that, and they count twice.",
                stacklevel=2,
            )


def _check_shape(name, site, inside, plates):
    """Refuse observations and distributions of which one is broadcast along an axis that is no plate's."""
    fn, shape = site["fn"], jnp.shape(site["value"])
    values = shape[: len(shape) - fn.event_dim]
    taken = {frame.dim for frame in site["cond_indep_stack"]}
    advice = f"Take them with obs=numpyro.subsample(y, event_dim={fn.event_dim})"
    for frame in inside:
        size, batch = plates[frame.name]
        if batch < size and _size(values, frame.dim) == size:
            raise ModelError(
                f"Site {name!r} has {size} values in plate {frame.name!r}, which takes {batch} of its {size} rows a "
                f"minibatch. {advice}."
            )
    together = lax.broadcast_shapes(values, tuple(fn.batch_shape))
    own = fn  # before the plates expanded it
    while isinstance(own, ExpandedDistribution | MaskedDistribution):
        own = own.base_dist
    own = tuple(own.batch_shape)
    for frame in inside:
        size, batch = plates[frame.name]
        for dim in set(range(-len(together), 0)) - taken:
            if _size(together, dim) not in (size, batch) or batch == 1:
                continue  # NumPyro warns of axes without a plate
            along, across = _size(values, frame.dim), _size(values, dim)
            if across > 1 and along == 1:
                raise ModelError(
                    f"Site {name!r} has values of shape {shape}, whose dimension {dim} is of no plate: they would be "
                    f"broadcast against the {batch} rows of plate {frame.name!r}. Reshape the data, "
                    f"y of shape ({size}, 1) to ({size},) for instance. {advice}."
                )
            if across == 1 and along > 1 and _size(own, frame.dim) == 1 < _size(own, dim):
                raise ModelError(
                    f"Site {name!r} has a distribution of batch shape {own}, whose dimension {dim} is of no plate, for "
                    f"values of shape {shape}: each of the {batch} rows of plate {frame.name!r} would be compared with "
                    f"all {batch} means. Give the distribution one value a row, "
                    f"mean[:, 0] for a mean of shape ({batch}, 1)."
                )


def _size(shape, dim):
    return shape[dim] if len(shape) >= -dim else 1
