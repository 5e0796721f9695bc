"""Energies, gradients and Hessian-vector products of a model, from groups of rows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from jaxtyping import Float, Int

from sgworld_numpyro.model.arguments import Arguments
from sgworld_numpyro.model.blocks import BLOCK_ROWS, block_length, sum_over_blocks
from sgworld_numpyro.model.target import Target
from sgworld_numpyro.subsampling import Plate


def _sum(values):
    return jax.tree.map(lambda value: value.sum(0), values)


@dataclass(frozen=True)
class Estimates:
    """A model on its data; every number is for all the data, in nats.

    Attributes:
        target: the model.
        arguments: its arguments, perhaps traced.
        orders: a random order of the rows of each plate.
    """

    target: Target
    arguments: Arguments
    orders: dict[str, Int[Array, "rows"]]

    @classmethod
    def of(cls, target: Target, arguments: Arguments, key: Array) -> "Estimates":
        """With orders drawn for a key, as sorted random words: the schemes' code would be slow to compile."""
        plates = target.plates
        orders = {
            plate.name: jnp.argsort(random.bits(key, (plate.size,), jnp.uint32)).astype(jnp.int32)
            for plate, key in zip(plates, random.split(key, len(plates)), strict=True)
        }
        return cls(target, arguments, orders)

    @property
    def plate(self) -> Plate:
        """The plate that takes most batches a pass."""
        return self.target.longest_plate

    def energy(self, position: Float[Array, "dim"], rows: dict[str, Array]) -> Float[Array, ""]:
        """The potential energy as some rows, by plate, estimate it."""
        return self.target.energy(self.arguments, rows)(position)

    def energy_without_rows(self, position: Float[Array, "dim"]) -> Float[Array, ""]:
        """The part of the potential energy that no row enters, such as that of the priors."""
        return self.target.potential_without_rows(self.target.unravel(position), self.arguments).astype(position.dtype)

    def full(self, function: Callable[[Callable], Any]) -> Any:
        """``function(energy)`` on all the data, for a linear function such as ``lambda f: jax.grad(f)(x)``.

        In blocks of rows if there is one subsampled plate, else from all rows at once.
        """
        if len(self.target.plates) > 1:
            rows = {plate.name: jnp.arange(plate.size, dtype=jnp.int32) for plate in self.target.plates}
            return function(partial(self.energy, rows=rows))
        (plate,) = self.target.plates

        def block(numbers):
            values = function(partial(self.energy, rows={plate.name: numbers}))
            return jax.tree.map(lambda value: value * (len(numbers) / plate.size), values)

        return sum_over_blocks(block, plate.size, BLOCK_ROWS)

    def gradient(self, position: Float[Array, "dim"]) -> Float[Array, "dim"]:
        """The gradient of all the data."""
        return self.full(lambda energy: jax.grad(energy)(position))

    def group_size(self, at_least: int) -> int:
        """Rows in a group so that a pass has so many groups, and groups are no larger than minibatches.

        With several plates groups are minibatches, the only ones whose composition is known.
        """
        if len(self.target.plates) > 1:
            return self.plate.batch_size
        return max(1, min(self.plate.batch_size, self.plate.size // at_least))

    def sum_over_groups(
        self,
        function: Callable[[Callable], Any],
        first: Int[Array, ""] | int,
        count: int,
        size: int,
        numbers_each: int,
        total: Callable[[Any], Any] = _sum,
    ) -> Any:
        """Sum of ``function(energy of a group)`` over groups of a random partition of the rows.

        Args:
            function: from an energy, a function of the position, to a pytree.
            first: number of the first group; may be traced.
            count: how many groups; past the end of the rows they begin again.
            size: rows in each.
            numbers_each: how many numbers ``function`` gives for a group.
            total: what is summed up, from the values of several groups along the first axis; by default their sum.
        """

        def block(numbers):
            rows = self.groups(first + numbers, size)
            return total(jax.vmap(lambda rows: function(partial(self.energy, rows=rows)))(rows))

        return sum_over_blocks(block, count, block_length(size, numbers_each, self.target.dtype))

    def groups(self, numbers: Int[Array, "groups"], size: int) -> dict[str, Int[Array, "groups rows"]]:
        """The rows of groups of so many, by their numbers, by plate."""
        rows = {}
        for plate in self.target.plates:
            each = size if len(self.target.plates) == 1 else plate.batch_size
            places = numbers % (plate.size // each) * each
            rows[plate.name] = self.orders[plate.name][places[:, None] + jnp.arange(each, dtype=jnp.int32)]
        return rows


def product(energy: Callable, position: Float[Array, "dim"], vector: Float[Array, "dim"]) -> Float[Array, "dim"]:
    """∇²U v."""
    return jax.jvp(jax.grad(energy), (position,), (vector,))[1]
