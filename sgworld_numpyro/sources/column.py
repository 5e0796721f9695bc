"""What stands for an array of a source in a model: its shape and dtype, and none of its values."""

import math
from typing import Any, NoReturn

import jax
import numpy as np

from sgworld_numpyro.sources.errors import SourceError
from sgworld_numpyro.sources.reading import read_rows


class Column:
    """One array of a ``RowSource``, of which the rows of a minibatch can be had and nothing else.

    Args:
        source: that reads it.
        number: its place among the source's arrays.
        name: what it is called there, such as ``"['x']"``; empty if there is only one.
        shape: rows first.
        stored: its dtype in the source.
    """

    def __init__(self, source: Any, number: int, name: str, shape: tuple[int, ...], stored: np.dtype):
        self.source = source
        self.number = number
        self.name = name
        self.shape = shape
        self.stored = stored

    @property
    def dtype(self) -> np.dtype:
        """As JAX holds it: doubles are cut to floats unless 64 bits are switched on."""
        return jax.dtypes.canonicalize_dtype(self.stored)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        return self.nbytes // len(self)

    def __len__(self):
        return self.shape[0]

    def __repr__(self):
        return f"rows of {self.source}{self.name}"

    def __getitem__(self, rows):
        if not isinstance(rows, jax.Array) or rows.ndim != 1 or not jax.numpy.issubdtype(rows.dtype, np.integer):
            self.refuse()
        return read_rows([self], rows)[0]

    @property
    def advice(self) -> str:
        """What to do with it, and what not."""
        return (
            f"{self!r}, of shape {self.shape}, which are read by number and cannot be used whole. Take those of the "
            f"minibatch inside the plate, numpyro.subsample(x, event_dim={self.ndim - 1}), and compute what is of all "
            "the rows before; or pass numpy.array(...) of them, if memory holds it"
        )

    def refuse(self) -> NoReturn:
        """Raise ``SourceError`` where more than the rows of a minibatch is wanted."""
        raise SourceError(f"The model wants all {self.advice}.")

    def __array__(self, *args, **kwargs):
        self.refuse()

    def __iter__(self):
        self.refuse()

    def __getattr__(self, name):
        raise AttributeError(f"'Column' object has no attribute {name!r}")
