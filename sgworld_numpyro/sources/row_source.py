"""Rows by number from whatever keeps them: a mapped file, a store, a data set of another library."""

import threading
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakValueDictionary

import jax
import numpy as np

from sgworld_numpyro.sources.column import Column
from sgworld_numpyro.sources.errors import SourceError
from sgworld_numpyro.sources.mapped_file import MappedFile

# Smaller files are copied to memory, where a model may also use them whole.
MAPPED_BYTES = 2**26
BLOCK_BYTES = 2**24  # that are looked at together where all rows are

_KNOWN: WeakValueDictionary[int, "RowSource"] = WeakValueDictionary()


class RowSource:
    """What gives rows by their numbers, passed to a model in place of the array.

    Mapped files (``numpy.memmap``) and arrays of zarr and h5py of 64 MiB and more become sources by themselves, and so
    does any object without ``__array__`` that has ``__len__`` and a ``__getitem__`` that takes an array of row numbers:
    a data set of Hugging Face, a class of your own. Wrap what shall be one in spite of that, a small file for instance.

    Where it gives a dictionary or a tuple of arrays, the model gets a dictionary or a tuple. Rows are along the first
    axis of each.

    Args:
        source: ``source[numbers]`` gives the rows of ascending numbers; without that, ``source.__getitems__(list)``
            gives a list of rows. It is called by one thread at a time, and may return anything that ``numpy.asarray``
            makes numeric.
        check: whether all rows are read once before the first sample, as data in memory are, to find what is not finite
            before it spoils a run; and by ``long_run``, to know the data again. Of terabytes it can be too much.

    Raises:
        SourceError: if it has no rows, or gives something else than numeric rows.
    """

    def __init__(self, source: Any, check: bool = True):
        self.check = check
        self.is_finite = False  # as far as anybody has looked
        self._source = source
        self._alone = threading.Lock()
        self._file = MappedFile.of(source)
        try:
            self._length = len(source)
        except TypeError as error:
            raise SourceError(f"{self} has no length: it must have __len__, the number of its rows.") from error
        if self._length == 0:
            raise SourceError(f"{self} has no rows.")
        self._in_lists = False
        ends = np.unique([0, self._length - 1])
        try:
            found = self._get(ends)
        except Exception as error:
            if not hasattr(source, "__getitems__"):
                raise SourceError(self._told(ends, error)) from error
            self._in_lists = True
            found = self._get(ends)
        self._structure: Any
        paths, self._structure = jax.tree_util.tree_flatten_with_path(found)
        self._like: list[tuple[tuple[int, ...], np.dtype]] = []
        columns = []
        for number, (path, rows) in enumerate(paths):
            name = jax.tree_util.keystr(path)
            if rows.dtype.kind not in "biuf":
                raise SourceError(f"{self}{name} has dtype {rows.dtype}, which is not numeric: leave it out.")
            if rows.ndim == 0 or len(rows) != len(ends):
                raise SourceError(f"{self}{name} gave shape {rows.shape} for {len(ends)} rows; want rows first.")
            self._like.append((rows.shape[1:], rows.dtype))
            columns.append(Column(self, number, name, (self._length, *rows.shape[1:]), rows.dtype))
        self.columns = tuple(columns)

    @classmethod
    def of(cls, source: Any) -> "RowSource":
        """The source of an object, the same as long as anything uses it."""
        if isinstance(source, cls):
            return source
        known = _KNOWN.get(id(source))
        if known is None or known._source is not source:
            known = _KNOWN[id(source)] = cls(source)
        return known

    def __len__(self):
        return self._length

    def __repr__(self):
        kind = f"{type(self._source).__module__.split('.')[0]}.{type(self._source).__name__}"
        file = getattr(self._source, "filename", None)
        return f"{kind} {file}" if isinstance(file, str) or hasattr(file, "__fspath__") else kind

    def as_given(self) -> Any:
        """Its columns as it gives them: one, or a dictionary or tuple of them."""
        return jax.tree.unflatten(self._structure, self.columns)

    def read(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows of all columns.

        Args:
            rows: their numbers, in any order, of shape (rows,).

        Raises:
            SourceError: if the source fails, or gives rows of other shapes or dtypes than before.
        """
        with self._alone:
            if isinstance(self._source, np.ndarray):
                try:
                    found, place = self._taken(rows), None
                except OSError as error:
                    raise SourceError(self._told(rows, error)) from error
            else:  # each once and in order, as files want to be read
                rows, place = np.unique(rows, return_inverse=True)
                try:
                    found = self._get(rows)
                except Exception as error:
                    raise SourceError(self._told(rows, error)) from error
        leaves, structure = jax.tree.flatten(found)
        like = [(leaf.shape[1:], leaf.dtype) for leaf in leaves]
        if structure != self._structure or like != self._like or any(len(leaf) != len(rows) for leaf in leaves):
            raise SourceError(
                f"{self} gave {_shown(leaves)} for {len(rows)} rows from number {rows[0]} on, and its first and last "
                f"row were like {', '.join(f'{dtype}{list(shape)}' for shape, dtype in self._like)}. All rows must be "
                "of one shape and dtype."
            )
        return leaves if place is None else [leaf[place] for leaf in leaves]

    def blocks(self) -> Iterator[tuple[int, list[np.ndarray]]]:
        """All rows in order: the first number of a block, and its rows of all columns."""
        at_once = max(1, BLOCK_BYTES // max(1, sum(column.row_bytes for column in self.columns)))
        for start in range(0, self._length, at_once):
            yield start, self.read(np.arange(start, min(start + at_once, self._length)))

    def _taken(self, rows):
        return np.asarray(np.take(self._source, rows, axis=0)) if self._file is None else self._file.rows(rows)

    def _get(self, rows):
        if isinstance(self._source, np.ndarray):
            return self._taken(rows)
        if self._in_lists:
            examples = self._source.__getitems__(rows.tolist())
            return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *examples)
        found = self._source[rows]
        found = dict(found) if isinstance(found, Mapping) else found
        return jax.tree.map(np.asarray, found, is_leaf=lambda node: isinstance(node, list))

    def _told(self, rows, error):
        return f"{self} failed to give rows {_few(rows)}: {type(error).__name__}: {error}"


def columns_of(leaf: Any) -> Any:
    """What stands for an argument of a model that is a source; anything else as it is.

    Raises:
        SourceError: for one that says that it is a source, or a mapped file, and cannot be read.
    """
    if isinstance(leaf, RowSource):
        return leaf.as_given()
    if _is_large_store(leaf):
        return RowSource.of(leaf).as_given()
    if not _may_be_source(leaf) or why_no_source(leaf) is not None:
        return leaf
    return RowSource.of(leaf).as_given()


def why_no_source(leaf: Any) -> str | None:
    """What is wrong with an argument that looks like a source of rows; None if nothing is, or it looks like none."""
    if not _may_be_source(leaf):
        return None
    try:
        RowSource.of(leaf)
    except SourceError as error:
        return str(error)
    return None


def _is_large_store(leaf):
    package = type(leaf).__module__.split(".")[0]
    if isinstance(leaf, np.memmap):
        return leaf.nbytes >= MAPPED_BYTES and leaf.ndim > 0 and leaf.dtype.kind in "biuf"
    return package in ("zarr", "h5py") and hasattr(leaf, "dtype") and leaf.nbytes >= MAPPED_BYTES


def _may_be_source(leaf):
    kind = type(leaf)
    if isinstance(leaf, Column | str | bytes | range | Mapping | np.ndarray | jax.Array) or hasattr(kind, "__array__"):
        return False
    return hasattr(kind, "__len__") and hasattr(kind, "__getitem__") and not isinstance(leaf, type)


def _few(rows):
    return str(rows.tolist()) if len(rows) <= 6 else f"{rows[0]}, {rows[1]}, … {rows[-1]} ({len(rows)} of them)"


def _shown(leaves):
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves)
