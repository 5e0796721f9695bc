"""Log-likelihoods and predictions of many rows, written to a file a block at a time."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import h5netcdf
import jax
import numpy as np
from jax import Array, random
from numpyro.handlers import seed, substitute, trace
from numpyro.infer import MCMC

from sgworld_numpyro.kernel import StochasticGradientKernel
from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.handlers import dotted
from sgworld_numpyro.model.target import inspect_inputs
from sgworld_numpyro.results.log_likelihood import chosen_rows, log_likelihood_blocks
from sgworld_numpyro.results.row_blocks import RowBlocks
from sgworld_numpyro.results.run_attributes import settings_of


def write_log_likelihood(mcmc: MCMC, path: str | PathLike, rows: Any = True) -> None:
    """Write log p(row | draw), in nats, to the group ``log_likelihood`` of a netCDF file, as ``arviz`` reads it.

    A block of rows at a time, each read once: neither the data nor the result need fit in memory.

    Args:
        mcmc: a finished run of a kernel of this package.
        path: a file that there is already, such as that of ``to_inference_data(mcmc).to_netcdf(path)``, or a new one.
        rows: as ``log_likelihood`` of ``to_inference_data``: True for all, or numbers of some.

    Raises:
        ValueError: if the file has such a group; and as ``to_inference_data`` for rows that are not there, or a run
            that kept something else than its draws.
    """
    target, arguments = settings_of(mcmc).target, Arguments.of(mcmc._args, mcmc._kwargs)
    chosen = chosen_rows(target, rows)
    blocks = log_likelihood_blocks(target, arguments, _draws(mcmc), chosen)
    _write(mcmc, path, "log_likelihood", blocks, chosen)


def write_predictions(
    mcmc: MCMC, path: str | PathLike, rng_key: Array, *args: Any, sites: str | Sequence[str], **kwargs: Any
) -> None:
    """Write what the model makes of other inputs at every draw to the group ``predictions`` of a netCDF file.

    A block of rows at a time, each read once: neither the inputs nor the predictions need fit in memory.

    Args:
        mcmc: a finished run of a kernel of this package.
        path: a file that there is already, or a new one.
        rng_key: of what is drawn at random, such as observations that are predicted.
        args: the model's arguments, without observations; arrays, or sources of rows. All rows are taken, whatever the
            ``subsample_size``.
        sites: which to write: names of deterministic or sampled sites.
        kwargs: the model's keyword arguments.

    Raises:
        ValueError: if the file has such a group, the model no such site, or the run kept something else than its draws.
    """
    wanted = [sites] if isinstance(sites, str) else list(sites)
    arguments, draws = Arguments.of(args, kwargs), _draws(mcmc)
    target = inspect_inputs(mcmc.sampler._model, arguments)

    def at_draw(model, values, args, kwargs, which):
        key = random.fold_in(random.fold_in(rng_key, which[0]), which[1])

        def latent(site):  # deterministic sites are to be computed anew
            return values.get(site["name"]) if site["type"] == "sample" else None

        made = trace(substitute(seed(model, key), substitute_fn=latent)).get_trace(*args, **kwargs)
        for name in wanted:
            if name not in made:
                raise ValueError(f"the model has no site {name!r}; it has {', '.join(map(str, made))}.")
        return {name: made[name]["value"] for name in wanted}

    rows = {plate.name: np.arange(plate.size) for plate in target.plates}
    _write(mcmc, path, "predictions", RowBlocks(target, arguments, draws, rows, at_draw), rows)


def _draws(mcmc):
    if mcmc.last_state is None:
        raise ValueError("mcmc has no draws yet: call mcmc.run(key, ...) first.")
    if not isinstance(mcmc.sampler, StochasticGradientKernel) or mcmc.sampler.sample_field != "z":
        raise ValueError(
            "this run has no draws of the latent sites to start from: it is of another package's kernel, or kept other "
            "values (keep=...)."
        )
    return mcmc.get_samples()


def _write(mcmc: MCMC, path: str | PathLike, group: str, blocks: RowBlocks, rows: Mapping[str, np.ndarray]) -> None:
    chains = mcmc.num_chains
    with h5netcdf.File(path, "a") as file:
        if group in file.groups:
            raise ValueError(f"{path} has a group {group!r} already: give another file.")
        into = file.create_group(group)
        draws = next(iter(blocks.shapes.values())).shape[0] // chains
        _coordinate(into, "chain", np.arange(chains))
        _coordinate(into, "draw", np.arange(draws))
        plate = dotted(blocks.longest)
        _coordinate(into, plate, rows[blocks.longest])
        variables = {site: _variable(into, blocks, site, plate, chains) for site in blocks.shapes}
        for start, values in blocks:
            for site, array in values.items():
                axis = blocks.axes[site]
                where: list[Any] = [slice(None)] * (array.ndim + 1)
                if axis is not None:
                    where[axis] = slice(start, start + array.shape[axis])
                variables[site][tuple(where)] = array.reshape(chains, draws, *array.shape[1:])


def _coordinate(group, name, values):
    group.dimensions[name] = len(values)
    group.create_variable(name, (name,), data=values)


def _variable(group: Any, blocks: RowBlocks, site: str, plate: str, chains: int) -> Any:
    leaf: jax.ShapeDtypeStruct = blocks.shapes[site]
    names = ["chain", "draw", *(f"{dotted(site)}_dim_{number}" for number in range(leaf.ndim - 1))]
    axis = blocks.axes[site]
    if axis is not None:
        names[axis] = plate
    for name, size in zip(names[2:], leaf.shape[1:], strict=True):
        if name not in group.dimensions:
            group.dimensions[name] = size
    return group.create_variable(dotted(site), tuple(names), np.dtype(leaf.dtype))
