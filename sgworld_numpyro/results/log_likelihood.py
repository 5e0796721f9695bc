"""Log-likelihood of each row at each draw, a block of rows at a time."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import Array, random
from numpyro.handlers import seed, substitute, trace
from numpyro.infer import MCMC
from numpyro.infer.initialization import init_to_sample

from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.handlers import FullDataModel
from sgworld_numpyro.model.target import Target
from sgworld_numpyro.results.row_blocks import RowBlocks

MAX_BYTES = 2**31


def chosen_rows(target: Target, rows: Any) -> dict[str, np.ndarray]:
    """Row numbers by plate, in ascending order, of what ``log_likelihood`` of ``to_inference_data`` was given.

    Raises:
        ValueError: for rows that the plates do not have, numbers that repeat, or that could be of several plates.
    """
    every: dict[str, Any] = {plate.name: np.arange(plate.size) for plate in target.plates}
    if rows is True:
        return every
    if target.whole:
        raise ValueError(f"log_likelihood={rows!r}: the model has no subsampled plate to take rows of; want True.")
    if not isinstance(rows, Mapping):
        if len(every) > 1:
            raise ValueError(
                f"log_likelihood={rows!r} does not say of which plate these rows are; want a dictionary by plate, "
                f"of {', '.join(every)}."
            )
        rows = {next(iter(every)): rows}
    for name, numbers in rows.items():
        if name not in every:
            raise ValueError(f"no subsampled plate {name!r}; the model has {', '.join(every)}.")
        found, size = np.asarray(numbers), len(every[name])
        if found.ndim != 1 or found.dtype.kind not in "iu" or found.size == 0:
            raise ValueError(f"rows of {name!r} must be a list of whole numbers; they are {numbers!r}.")
        if found.min() < 0 or found.max() >= size:
            raise ValueError(f"rows of {name!r} go from {found.min()} to {found.max()}; it has rows 0 to {size - 1}.")
        every[name] = np.unique(found)  # sorted
        if len(every[name]) < len(found):
            raise ValueError(f"rows of {name!r} repeat: {len(found)} numbers, {len(every[name])} of them different.")
    return every


def log_likelihood_blocks(
    target: Target, arguments: Arguments, draws: Mapping[str, Array], rows: Mapping[str, np.ndarray]
) -> RowBlocks:
    """Log p(row | draw) in nats, by observed site, without the weight that a minibatch gives its rows.

    Args:
        target: what is known of the model.
        arguments: the model's.
        draws: constrained values by site, of shape (draw, ...).
        rows: row numbers by plate, in ascending order.
    """

    def at_draw(model, values, args, kwargs, which):
        sites = trace(substitute(seed(model, random.key(0)), values)).get_trace(*args, **kwargs)
        observed = {name: s for name, s in sites.items() if s["type"] == "sample" and s["is_observed"]}
        return {name: site["fn"].log_prob(site["value"]) for name, site in observed.items()}

    return RowBlocks(target, arguments, draws, rows, at_draw)


def pointwise_log_likelihood(
    target: Target, arguments: Arguments, draws: Mapping[str, Array], rows: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """``log_likelihood_blocks`` in one piece: arrays (draw, ...), the rows along the plates' axes.

    Raises:
        ValueError: if they would take more than 2 GiB.
    """
    blocks = log_likelihood_blocks(target, arguments, draws, rows)
    if blocks.nbytes > MAX_BYTES:
        number = len(next(iter(draws.values())))
        raise ValueError(
            f"the log-likelihood of {len(rows[blocks.longest])} rows at {number} draws takes "
            f"{blocks.nbytes / 2**30:.1f} GiB; name some rows, log_likelihood=range(0, N, 100), thin the draws, or "
            "write it to a file, write_log_likelihood(mcmc, path)."
        )
    return blocks.whole()


def dims_of_draws(mcmc: MCMC, target: Target) -> dict[str, list[str]]:
    """``dims_of`` what a run keeps of its draws, which may have a site's name, and another shape."""
    dims = dims_of(target, Arguments.of(mcmc._args, mcmc._kwargs))
    if mcmc.sampler.sample_field == "z":
        return dims
    return {site: axes for site, axes in dims.items() if site not in target.prototype}


def dims_of(target: Target, arguments: Arguments) -> dict[str, list[str]]:
    """Names of the dimensions of sites inside plates, by site: the plates', with events' left to ArviZ.

    Deterministic sites are left out, of which nobody knows which dimensions are a plate's.
    """
    args, kwargs = arguments.unflatten()
    found = {}

    def look():
        # of sources the rows of a minibatch, which has the same dimensions
        view = target.at(arguments, target.first_rows()) if arguments.columns else FullDataModel(target.model)
        model = seed(view, random.key(0))
        found.update(trace(substitute(model, substitute_fn=init_to_sample)).get_trace(*args, **kwargs))

    jax.eval_shape(look) if target.abstract else look()
    dims = {}
    for name, site in found.items():
        plates = {frame.dim: frame.name for frame in site.get("cond_indep_stack", ())}
        if site["type"] == "sample" and plates:
            batch = np.ndim(site["value"]) - site["fn"].event_dim
            dims[name] = [plates.get(axis - batch, f"{name}_dim_{axis}") for axis in range(batch)]
    return dims
