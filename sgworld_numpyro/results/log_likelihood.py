"""Log-likelihood of each row at each draw, a block of rows at a time."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from numpyro.handlers import seed, substitute, trace
from numpyro.infer import MCMC
from numpyro.infer.initialization import init_to_sample

from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.blocks import BLOCK_ROWS
from sgworld_numpyro.model.handlers import FullDataModel, full_data
from sgworld_numpyro.model.target import Target
from sgworld_numpyro.sources import BlockReader, Column

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


class Blocks:
    """Log p(row | draw) in nats, by observed site, a block of rows after the other.

    Without the weight that a minibatch gives its rows.

    Args:
        target: what is known of the model.
        arguments: the model's.
        draws: constrained values by site, of shape (draw, ...).
        rows: row numbers by plate, in ascending order.

    Attributes:
        longest: the plate whose rows are cut into blocks.
        axes: of that plate in each site's arrays, from the right; None of a site that is not inside of it.
        shapes: of each site, (draw, ...) with all its rows; the leaves are ``jax.ShapeDtypeStruct``.
    """

    def __init__(
        self, target: Target, arguments: Arguments, draws: Mapping[str, Array], rows: Mapping[str, np.ndarray]
    ):
        self._target, self._arguments, self._draws, self._rows = target, arguments, draws, rows
        self.longest = max(rows, key=lambda name: len(rows[name]))
        self._length = min(BLOCK_ROWS, len(rows[self.longest]))
        self.axes: dict[str, int | None] = {}
        # as arguments of the compiled function; a model that looks at its data's values must have them as they are
        numbers = arguments.arrays if target.abstract else []
        self._data = {number: jnp.asarray(arguments.leaves[number]) for number in numbers}
        one = {name: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for name, v in draws.items()}
        first = self._rows[self.longest][: self._length]
        found = jax.eval_shape(self._at_draw, one, jnp.asarray(first, jnp.int32), self._data, self._read(first))
        count = len(next(iter(draws.values())))
        self.shapes = {name: self._whole(count, leaf, self.axes[name]) for name, leaf in found.items()}

    def __iter__(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """The place of a block's first row among the rows, and arrays (draw, ...) by site."""
        block = jax.jit(lambda draws, *others: lax.map(lambda values: self._at_draw(values, *others), draws))
        rows = self._rows[self.longest]
        for start in range(0, len(rows), self._length):
            numbers = rows[start : start + self._length]
            padded = np.resize(numbers, self._length)  # one shape, one compilation
            found = jax.device_get(block(self._draws, jnp.asarray(padded, jnp.int32), self._data, self._read(padded)))
            yield start, {name: _cut(array, self.axes[name], len(numbers)) for name, array in found.items()}

    def _at_draw(self, values, numbers, arrays, read):
        target, arguments = self._target, self._arguments.with_arrays(arrays)
        args, kwargs = arguments.unflatten()
        chosen = {**{k: jnp.asarray(v) for k, v in self._rows.items()}, self.longest: numbers}
        model = full_data(target.model) if target.whole else target.at(arguments, chosen, read)
        sites = trace(substitute(seed(model, random.key(0)), values)).get_trace(*args, **kwargs)
        observed = {name: s for name, s in sites.items() if s["type"] == "sample" and s["is_observed"]}
        self.axes.update({name: _axis(site, self.longest, len(numbers)) for name, site in observed.items()})
        return {name: site["fn"].log_prob(site["value"]) for name, site in observed.items()}

    def _read(self, numbers):
        """What lies in sources: once for a block, whatever the number of draws."""
        columns = {slot: self._arguments.leaves[slot.leaf] for slot in self._target.slots}
        return {
            slot: BlockReader([column]).read(np.asarray({**self._rows, self.longest: numbers}[slot.plate]))[0]
            for slot, column in columns.items()
            if isinstance(column, Column)
        }

    def _whole(self, count, leaf, axis):
        shape = list(leaf.shape)
        if axis is not None:
            shape[axis] = len(self._rows[self.longest])
        return jax.ShapeDtypeStruct((count, *shape), leaf.dtype)


def pointwise_log_likelihood(
    target: Target, arguments: Arguments, draws: Mapping[str, Array], rows: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The ``Blocks`` in one piece: arrays (draw, ...) by observed site, the rows along the plates' axes.

    Raises:
        ValueError: if they would take more than 2 GiB.
    """
    blocks = Blocks(target, arguments, draws, rows)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in blocks.shapes.values())
    if size > MAX_BYTES:
        number = len(next(iter(draws.values())))
        raise ValueError(
            f"the log-likelihood of {len(rows[blocks.longest])} rows at {number} draws takes {size / 2**30:.1f} GiB; "
            "name some rows, log_likelihood=range(0, N, 100), thin the draws, or write it to a file, "
            "write_log_likelihood(mcmc, path)."
        )
    parts = [part for _, part in blocks]
    return {
        name: parts[0][name] if axis is None else np.concatenate([part[name] for part in parts], axis)
        for name, axis in blocks.axes.items()
    }


def _axis(site, plate, length):
    """The axis of a plate, from the right, in a site's log probabilities; None if the site is not inside."""
    frames = site["cond_indep_stack"]
    return next((frame.dim for frame in frames if frame.name == plate and frame.size == length), None)


def _cut(array, axis, length):
    return array if axis is None else np.take(array, np.arange(length), axis)


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
