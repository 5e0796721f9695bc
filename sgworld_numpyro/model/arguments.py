"""The arguments that a model is run with, and the arrays among them."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from sgworld_numpyro.model.arrays import is_numeric_array, is_traced
from sgworld_numpyro.model.requirements import ModelError
from sgworld_numpyro.sources import Column, columns_of

# Steps of single precision that a column must span, or rounding is a part in so many of it.
RESOLVED = 1000


class Slot(NamedTuple):
    """An array that the model passes straight to ``numpyro.subsample``: leaf number, row axis, plate."""

    leaf: int
    axis: int
    plate: str


class Arguments(NamedTuple):
    """A model's arguments, with the arrays taken out so that they can be put back as traced values.

    Sources of rows are there as the ``Column`` objects that stand for their arrays, the same ones at every call.
    """

    leaves: tuple[Any, ...]
    treedef: Any

    @classmethod
    def of(cls, model_args, model_kwargs) -> "Arguments":
        given = jax.tree.map(columns_of, (tuple(model_args), dict(model_kwargs or {})))
        leaves, treedef = jax.tree.flatten(given)
        return cls(tuple(leaves), treedef)

    @property
    def arrays(self) -> list[int]:
        """Numbers of the leaves that are arrays."""
        return [number for number, leaf in enumerate(self.leaves) if is_numeric_array(leaf)]

    @property
    def columns(self) -> list[int]:
        """Numbers of the leaves that are read from sources."""
        return [number for number, leaf in enumerate(self.leaves) if isinstance(leaf, Column)]

    def with_arrays(self, arrays: Mapping[int, Any]) -> "Arguments":
        """The same arguments with some leaves replaced."""
        leaves = (arrays.get(number, leaf) for number, leaf in enumerate(self.leaves))
        return Arguments(tuple(leaves), self.treedef)

    def unflatten(self) -> tuple[tuple, dict]:
        """(args, kwargs)."""
        return jax.tree.unflatten(self.treedef, self.leaves)

    def named(self, model: Callable) -> dict[str, Any]:
        """The arguments by the names that the model's author gave them."""
        args, kwargs = self.unflatten()
        try:
            bound = inspect.signature(model).bind(*args, **kwargs)
        except (TypeError, ValueError):
            return {**{f"args[{number}]": value for number, value in enumerate(args)}, **kwargs}
        return dict(bound.arguments)

    def names(self, model: Callable, of_columns: bool = False) -> dict[int, str]:
        """Names of the arrays, or of the columns of sources, by the number of their leaf."""
        numbers = {id(self.leaves[number]): number for number in (self.columns if of_columns else self.arrays)}
        paths = jax.tree_util.tree_leaves_with_path(self.named(model))
        return {
            numbers[id(leaf)]: path[0].key + jax.tree_util.keystr(path[1:])
            for path, leaf in paths
            if id(leaf) in numbers
        }


def check_precision(arguments: Arguments, names: Mapping[int, str]) -> None:
    """Raise ``ModelError`` for whole numbers that 32 bits do not hold, and warn of numbers that they do not tell apart.

    Where 64 bits are switched on, or there are no more, there is nothing to say.
    """
    for number, name in names.items():
        leaf = arguments.leaves[number]
        if is_traced(leaf) or leaf.size == 0 or jax.dtypes.canonicalize_dtype(leaf.dtype) == leaf.dtype:
            continue
        if leaf.dtype.kind in "iu":
            bounds, low, high = np.iinfo(jax.dtypes.canonicalize_dtype(leaf.dtype)), leaf.min(), leaf.max()
            if low < bounds.min or high > bounds.max:
                raise ModelError(
                    f"{name} has values from {low} to {high}, which JAX would cut to {bounds.bits} bits. Pass "
                    f"{name}.astype(float), or its distance from an origin, or switch on jax_enable_x64."
                )
        elif leaf.dtype == np.float64:
            columns = leaf.reshape(leaf.shape[0], -1) if leaf.ndim else leaf.reshape(1, 1)
            spread, size = np.ptp(columns, axis=0), np.abs(columns).max(axis=0)
            if np.any((spread > 0) & (spread < RESOLVED * np.finfo(np.float32).eps * size)):
                warnings.warn(
                    f"{name} is given in double precision and will be used in single, which hardly tells its values "
                    f"apart: they differ by {spread.min():.3g} at a size of {size.max():.3g}. Take off their mean.",
                    stacklevel=3,
                )
