"""What a model must be like to be sampled from minibatches, and what to do where it is not."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Delta, Unit
from numpyro.distributions.distribution import ExpandedDistribution, Independent, MaskedDistribution

# The arithmetic of positions needs room for a few multiples of the number of rows.
MAX_ROWS = 2**29


class ModelError(ValueError):
    """The model cannot be sampled from minibatches as it stands."""


def check_plates(plates: Mapping[str, tuple[int, int]], hidden: Mapping[str, tuple[int, int]]) -> None:
    """Raise ``ModelError`` unless there are subsampled plates, all visible, with 1 <= B <= N."""
    if hidden:
        name, (size, batch) = next(iter(hidden.items()))
        raise ModelError(
            f"Plate {name!r} (size {size}, subsample_size {batch}) is inside `scan` or `cond`, where its rows "
            "cannot be chosen from outside. Move the plate out of the control flow, or drop its subsample_size."
        )
    if not plates:
        raise ModelError(
            "The model has no subsampled plate, so there is no minibatch. Put the likelihood in one:\n"
            '    with numpyro.plate("rows", x.shape[0], subsample_size=100):\n'
            "        xb, yb = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)\n"
            '        numpyro.sample("obs", ..., obs=yb)'
        )
    for name, (size, batch) in plates.items():
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


def check_sites(trace: Mapping[str, dict], plates: Mapping[str, tuple[int, int]]) -> None:
    """Raise ``ModelError`` for latent sites and factors that minibatches cannot treat rightly."""
    latents = 0
    for name, site in trace.items():
        if site["type"] == "mutable":
            raise ModelError(
                f"Site {name!r} is mutable state (batch normalisation?): a posterior has no place for it. "
                "Use a layer without running statistics."
            )
        if site["type"] != "sample":
            continue
        inside = [frame for frame in site["cond_indep_stack"] if frame.name in plates]
        if site["is_observed"]:
            _check_factor(name, site, inside, plates)
            _check_shape(name, site, inside, plates)
            continue
        latents += 1
        if site["fn"].support.is_discrete:
            raise ModelError(
                f"Latent site {name!r} is discrete: it has no gradient. Marginalise it in the model, or sample it "
                "with a discrete block of numpyro.infer.Gibbs."
            )
        if isinstance(_base(site["fn"]), Delta):
            raise ModelError(
                f"Latent site {name!r} has a delta distribution; use numpyro.deterministic({name!r}, ...)."
            )
        if inside:
            raise ModelError(
                f"Latent site {name!r} is inside the subsampled plate {inside[0].name!r}: a minibatch would update "
                "only some of its values, with the wrong scale. Marginalise it, or take the subsample_size off "
                "that plate."
            )
    if not latents:
        raise ModelError("The model has no latent sample site: there is nothing to sample.")


def check_dependence(plates: Sequence[str], used: Sequence[bool]) -> None:
    """Raise ``ModelError`` if the likelihood does not depend on which rows a plate took."""
    for name, is_used in zip(plates, used, strict=True):
        if not is_used:
            raise ModelError(
                f"The likelihood does not depend on the rows that plate {name!r} takes, so every minibatch would "
                "be the same data. Pass all rows to the model and take the minibatch inside the plate: "
                "xb = numpyro.subsample(x, event_dim=x.ndim - 1), or xb = x[rows] with "
                f'`with numpyro.plate("{name}", ...) as rows`.'
            )


def _base(distribution):
    while isinstance(distribution, ExpandedDistribution | Independent | MaskedDistribution):
        distribution = distribution.base_dist
    return distribution


def _check_factor(name, site, inside, plates):
    base = _base(site["fn"])
    if not isinstance(base, Unit):
        return
    shape = jnp.shape(base.log_factor)
    for frame in inside:
        batch = plates[frame.name][1]
        if batch > 1 and (len(shape) < -frame.dim or shape[frame.dim] == 1):
            raise ModelError(
                f"Factor {name!r} has shape {shape} inside plate {frame.name!r}, which counts it once for each "
                f"of the {batch} rows of the minibatch. Give one log factor a row, shape ({batch},) "
                "(drop the .sum()), or move it out of the plate."
            )


def _check_shape(name, site, inside, plates):
    """Refuse observations that are not the minibatch's: NumPyro would broadcast them, or fail obscurely."""
    event_dim = site["fn"].event_dim
    shape = jnp.shape(site["value"])[: len(jnp.shape(site["value"])) - event_dim]
    taken = {frame.dim for frame in site["cond_indep_stack"]}
    for frame in inside:
        size, batch = plates[frame.name]
        advice = f"Take them with obs=numpyro.subsample(y, event_dim={event_dim})"
        if batch < size and len(shape) >= -frame.dim and shape[frame.dim] == size:
            raise ModelError(
                f"Site {name!r} has {size} values in plate {frame.name!r}, which takes {batch} of its {size} rows a "
                f"minibatch. {advice}."
            )
        strays = [
            dim for dim in range(-len(shape), 0) if dim not in taken and shape[dim] in (size, batch) and batch > 1
        ]
        if strays:
            raise ModelError(
                f"Site {name!r} has values of shape {jnp.shape(site['value'])}, whose dimension {strays[0]} is of no "
                f"plate: they would be broadcast against the {batch} rows of plate {frame.name!r}. Reshape the data, "
                f"y of shape ({size}, 1) to ({size},) for instance. {advice}."
            )
