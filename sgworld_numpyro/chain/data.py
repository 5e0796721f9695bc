"""A run's data inside compiled functions, held for them as arguments, never as constants.

NumPyro's ``MCMC`` closes over the model's arguments, and JAX compiles what is closed over into the executable:
180 MiB of data cost some 3 s a compilation and twice their size in memory, at every run. A ``jax.Ref`` that is
closed over is passed as an argument instead. That has its own price, so small arrays stay constants: each call is
60 µs slower, and what comes back from a function with a ``Ref`` is tied to its device. A first call whose arguments
are not tied is compiled apart from the others, which is left to a run that goes on from a state with another key. And
a ``Ref`` is a copy: its buffer is donated to the function, so that no one else may have it. Where JAX was imported with
``JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS=true`` all constants are arguments, and no copy is made.
"""

import warnings
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from numpyro.util import _is_under_jax_transform

from sgworld_numpyro.chain.placement import is_spread
from sgworld_numpyro.model.arguments import Arguments, Slot
from sgworld_numpyro.model.arrays import as_jax_array, is_numeric_array, is_traced

HOLD_BYTES = 2**25
WARN_BYTES = 2**26


def in_a_trace() -> bool:
    """Whether JAX is tracing: what is made now has no value, and must not outlive the trace."""
    return _is_under_jax_transform()


def constants_are_arguments() -> bool:
    """Whether JAX passes what a function closes over as an argument, of its own accord."""
    return bool(getattr(jax.config, "jax_use_simplified_jaxpr_constants", False))


class Data(NamedTuple):
    """What a chain runs on, as its compiled functions see it.

    Attributes:
        arguments: the model's, held arrays in place.
        reordered: slots' arrays stored in the order of a contiguous scheme.
    """

    arguments: Arguments
    reordered: dict[Slot, Array]


class HeldData:
    """Large arrays, to be read inside compiled functions."""

    def __init__(self):
        self._places: dict[Hashable, Any] = {}

    def hold(self, name: Hashable, array) -> None:
        """Keep an array under a name, in a ``Ref`` if it is large or lies on several devices."""
        # asarray would copy twice what NumPy holds, for a moment
        array = jax.device_put(array) if isinstance(array, np.ndarray) else as_jax_array(array)
        large = array.nbytes >= HOLD_BYTES and not constants_are_arguments()
        self._places[name] = jax.new_ref(array) if large or is_spread(array) else array

    @property
    def names(self) -> list[Hashable]:
        """Of all arrays that are held."""
        return list(self._places)

    @contextmanager
    def lent(self, arrays: Sequence[Array]) -> Iterator[None]:
        """Read these in place of the arrays that are held, in the order of their names."""
        places, self._places = self._places, dict(zip(self._places, arrays, strict=True))
        try:
            yield
        finally:
            self._places = places

    def __contains__(self, name: Hashable) -> bool:
        return name in self._places

    def read(self, name: Hashable) -> Array | None:
        """The array of that name, or None. To be called inside the compiled function."""
        place = self._places.get(name)
        return place[...] if isinstance(place, jax.Ref) else place

    @property
    def device(self) -> Any:
        """What comes back from a function that reads these arrays is tied to; None if it is not."""
        of = next((place.sharding for place in self._places.values() if isinstance(place, jax.Ref)), None)
        return NamedSharding(of.mesh, PartitionSpec()) if isinstance(of, NamedSharding) else of


def holdable(leaf) -> bool:
    """Whether an argument of the model is an array that is worth a ``Ref``."""
    return is_numeric_array(leaf) and not is_traced(leaf) and leaf.nbytes >= HOLD_BYTES


def warn_if_baked(leaves, remedy: str) -> None:
    """Say that large data will be compiled into the executable, and how to prevent it."""
    size = sum(leaf.nbytes for leaf in leaves if holdable(leaf))
    if size >= WARN_BYTES and not constants_are_arguments():
        warnings.warn(
            f"{size / 2**20:.0f} MiB of data will be compiled into the executable, which costs seconds and twice "
            f"that memory at every compilation. {remedy}, or set JAX_USE_SIMPLIFIED_JAXPR_CONSTANTS=true in the "
            "environment before jax is imported.",
            stacklevel=3,
        )
