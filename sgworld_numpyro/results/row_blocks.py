"""What a model makes of each row at each draw, a block of rows at a time: no more than a block is ever there."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.arrays import as_jax_array
from sgworld_numpyro.model.blocks import BLOCK_ROWS
from sgworld_numpyro.model.handlers import full_data
from sgworld_numpyro.model.target import Target
from sgworld_numpyro.sources import BlockReader, Column

Function = Callable[[Callable, dict[str, Array], tuple, dict, Array], dict[str, Array]]


class RowBlocks:
    """Arrays by site, of the rows of the plate that has most, block after block.

    Args:
        target: what is known of the model.
        arguments: the model's.
        draws: constrained values by site, of shape (draw, ...).
        rows: row numbers by plate, in ascending order.
        function: of the model at a block's rows, the values of a draw, the model's arguments by place and by keyword,
            and (number of the draw, number of the first row), to arrays by site.

    Attributes:
        longest: the plate whose rows are cut into blocks.
        axes: of that plate in each array of a draw, from the right; None of a site that it does not
            reach, or if there is one row only.
        shapes: of each site, (draw, ...) with all its rows; the leaves are ``jax.ShapeDtypeStruct``.
    """

    def __init__(
        self,
        target: Target,
        arguments: Arguments,
        draws: Mapping[str, Array],
        rows: Mapping[str, np.ndarray],
        function: Function,
    ):
        self._target, self._arguments, self._rows, self._function = target, arguments, rows, function
        self._draws, self._count = dict(draws), len(next(iter(draws.values())))
        self.longest = max(rows, key=lambda name: len(rows[name]))
        self._length = min(BLOCK_ROWS, len(rows[self.longest]))
        # as arguments of the compiled function; a model that looks at its data's values must have them as they are
        numbers = arguments.arrays if target.abstract else []
        self._data = {number: as_jax_array(arguments.leaves[number]) for number in numbers}
        found, shorter = self._shapes(self._length), self._shapes(max(1, self._length - 1))
        self.axes = {name: _first_difference(leaf.shape, shorter[name].shape) for name, leaf in found.items()}
        self.shapes = {name: self._whole(leaf, self.axes[name]) for name, leaf in found.items()}

    @property
    def nbytes(self) -> int:
        """Of all blocks together."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in self.shapes.values())

    def __iter__(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """The place of a block's first row among the rows, and arrays (draw, ...) by site."""

        def all_draws(draws, start, *others):
            which = jnp.arange(self._count, dtype=jnp.int32)
            return lax.map(lambda of: self._at_draw(of[0], jnp.stack([of[1], start]), *others), (draws, which))

        block, rows = jax.jit(all_draws), self._rows[self.longest]
        for start in range(0, len(rows), self._length):
            numbers = rows[start : start + self._length]
            padded = np.resize(numbers, self._length)  # one shape, one compilation
            inputs = np.int32(start), jnp.asarray(padded, jnp.int32), self._data, self._read(padded)
            found = jax.device_get(block(self._draws, *inputs))
            yield start, {name: _cut(array, self.axes[name], len(numbers)) for name, array in found.items()}

    def whole(self) -> dict[str, np.ndarray]:
        """All blocks in one piece."""
        parts = [part for _, part in self]
        return {
            name: parts[0][name] if axis is None else np.concatenate([part[name] for part in parts], axis)
            for name, axis in self.axes.items()
        }

    def _at_draw(self, values, which, numbers, arrays, read):
        target, arguments = self._target, self._arguments.with_arrays(arrays)
        chosen = {**{k: jnp.asarray(v) for k, v in self._rows.items()}, self.longest: numbers}
        model = full_data(target.model) if target.whole else target.at(arguments, chosen, read)
        return self._function(model, values, *arguments.unflatten(), which)

    def _read(self, numbers):
        """What lies in sources: once for a block, whatever the number of draws."""
        columns = {slot: self._arguments.leaves[slot.leaf] for slot in self._target.slots}
        rows = {**self._rows, self.longest: numbers}
        return {
            slot: BlockReader([column]).read(np.asarray(rows[slot.plate]))[0]
            for slot, column in columns.items()
            if isinstance(column, Column)
        }

    def _shapes(self, length) -> dict[str, Any]:
        numbers = np.resize(self._rows[self.longest], length)
        one = {name: jax.ShapeDtypeStruct(value.shape[1:], value.dtype) for name, value in self._draws.items()}
        which = jax.ShapeDtypeStruct((2,), jnp.int32)
        return jax.eval_shape(self._at_draw, one, which, jnp.asarray(numbers), self._data, self._read(numbers))

    def _whole(self, leaf, axis):
        shape = list(leaf.shape)
        if axis is not None:
            shape[axis] = len(self._rows[self.longest])
        return jax.ShapeDtypeStruct((self._count, *shape), leaf.dtype)


def _first_difference(shape, other):
    """The axis, from the right, along which two shapes differ; None if they do not."""
    return next(
        (axis - len(shape) for axis, pair in enumerate(zip(shape, other, strict=True)) if len({*pair}) > 1), None
    )


def _cut(array, axis, length):
    return array if axis is None else np.take(array, np.arange(length), axis)
