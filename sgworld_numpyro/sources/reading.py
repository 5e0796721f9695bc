"""Rows of sources inside compiled functions: read on the host, and those of the next block while the device works.

Which rows a step takes is a function of its number, so a block's rows are known before its turn: a compiled function
that asks for the rows of a block names those of the next one as well, and a thread reads them meanwhile. What is read
is a function of the row numbers alone. That it was read ahead changes how long it takes, and nothing else.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from sgworld_numpyro.sources.errors import SourceError

# A callback copies longer arguments in a thread of the device's, which may be the one that waits for the callback.
ARGUMENT_BYTES = 2**16
# Whoever takes more rows together wants them all.
TAKEN_BYTES = 2**28


def read_rows(
    columns: Sequence[Any], rows: Int[Array, "*shape"], following: Int[Array, "..."] | None = None, chains: int = 1
) -> list[Array]:
    """Rows of columns, each of shape (*shape, *row); under ``vmap`` those of all chains are read together.

    Args:
        columns: each a ``Column`` of one source or another.
        rows: their numbers, in bounds.
        following: numbers that will be asked for next, to be read ahead.
        chains: how many chains ask together, under ``vmap``.

    Raises:
        SourceError: if they take more than 256 MiB. What fails while rows are read is raised by the device as an error
            of its own, with the message of what failed.
    """
    size = sum(column.row_bytes for column in columns) * rows.size
    if size > TAKEN_BYTES:
        raise SourceError(
            f"{rows.size} {columns[0]!r} would be taken at once, which are {size / 2**20:.0f} MiB. What needs all the "
            "rows in one piece cannot be had of a source: FullBatch, kernel.model outside of this package, tuning and "
            "control variates of several subsampled plates. Pass numpy.array(...) of it, if memory holds it."
        )
    reader = BlockReader(columns)
    now, ahead = (_in_pieces(numbers, chains) for numbers in (rows, following))
    shapes = tuple(jax.ShapeDtypeStruct((*rows.shape, *c.shape[1:]), c.dtype) for c in columns)
    return list(jax.pure_callback(reader, shapes, now, ahead, vmap_method="expand_dims"))


def _in_pieces(numbers, chains):
    """Row numbers as several arguments, none of them too long."""
    if numbers is None:
        return []
    count = -(-numbers.size * numbers.dtype.itemsize * chains // ARGUMENT_BYTES)
    return jnp.array_split(numbers, min(count, numbers.shape[-1]), axis=-1)


class BlockReader:
    """Reads blocks of rows on the host, each ahead of its turn if it was announced.

    Args:
        columns: what to read, each a ``Column``.
    """

    def __init__(self, columns: Sequence[Any]):
        self._columns = tuple(columns)
        self._dtypes = [column.dtype for column in columns]  # as they were when this was compiled
        self._coming: OrderedDict[Any, Future] = OrderedDict()
        self._alone = threading.Lock()

    def __repr__(self):
        # as long_run shows it in a program: a file may be moved while a run is left
        shown = [f"{dtype}{c.shape}" for dtype, c in zip(self._dtypes, self._columns, strict=True)]
        return f"BlockReader({', '.join(shown)})"

    def __call__(self, now: list[Array], following: list[Array]) -> tuple[np.ndarray, ...]:
        rows = _joined(now)
        with self._alone:
            reading = self._coming.pop(_key(rows), None)
        found = self.read(rows) if reading is None else reading.result()
        if following:
            self._read_ahead(_joined(following))
        return found

    def _read_ahead(self, rows):
        room = 1 + jax.local_device_count()  # of parallel chains each has its own next block
        with self._alone:
            if _key(rows) in self._coming:
                return
            self._coming[_key(rows)] = _WORKER.submit(self.read, rows)
            while len(self._coming) > room:
                self._coming.popitem(last=False)[1].cancel()

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Rows of each column, of shape (*rows.shape, *row)."""
        by_source: dict[Any, list[np.ndarray]] = {}
        found = []
        for column, dtype in zip(self._columns, self._dtypes, strict=True):
            if column.source not in by_source:
                by_source[column.source] = column.source.read(rows.reshape(-1))
            values = _cast(column, by_source[column.source][column.number], dtype)
            found.append(values.reshape(*rows.shape, *values.shape[1:]))
        return tuple(found)


class _Worker:
    """The thread that reads ahead, one for all: of short-lived ones each would keep freed blocks to itself.

    A daemon: no end of Python waits for what nobody wants any more.
    """

    def __init__(self):
        self._wanted: SimpleQueue[tuple[Future, Callable, Any]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._alone = threading.Lock()

    def submit(self, function: Callable, argument: Any) -> Future:
        """What the function will return, or raise, when the thread has come to it."""
        with self._alone:
            if self._thread is None or not self._thread.is_alive():  # none is after a fork
                self._thread = threading.Thread(target=self._work, name="read rows ahead", daemon=True)
                self._thread.start()
        future: Future = Future()
        self._wanted.put((future, function, argument))
        return future

    def _work(self):
        while True:
            self._one(*self._wanted.get())

    def _one(self, future, function, argument):  # whose arrays are forgotten as it returns
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(function(argument))
        except BaseException as error:  # whatever it is, it is raised where the rows are wanted
            future.set_exception(error)


_WORKER = _Worker()


def _joined(pieces):
    return np.concatenate([np.asarray(piece) for piece in pieces], axis=-1)


def _key(rows):
    return rows.shape, rows.tobytes()


def _cast(column, values, dtype):
    """As JAX would hold them; whole numbers must fit."""
    if values.dtype == dtype:
        return values
    if values.dtype.kind in "iu" and values.size:
        bounds, low, high = np.iinfo(dtype), values.min(), values.max()
        if low < bounds.min or high > bounds.max:
            raise SourceError(
                f"{column!r} have values from {low} to {high}, which JAX would cut to {bounds.bits} bits. Store them "
                "as floats, or as their distance from an origin, or switch on jax_enable_x64."
            )
    with np.errstate(over="ignore"):
        return values.astype(dtype)
